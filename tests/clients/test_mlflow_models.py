"""Models that MLflow itself has saved: packed by `flask pack`, and answered by gunicorn as MLflow answers them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.server import environment, running
from tests.vendors.tools import TOOLS, run, tool

SAVE = """
import os
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
import json, sys
from pathlib import Path
import numpy as np
import pandas as pd
import mlflow
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
kind, target, own = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
size = np.arange(12)
frame = pd.DataFrame({"size": size, "price": size * 1.5 + 1})
array = frame.to_numpy(dtype=float)
estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, np.where(size > 5, "big", "small"))
signature = infer_signature(frame, estimator.predict(frame))

class Sum(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.path = context.artifacts["factor"]
    def predict(self, context, model_input, params=None):
        from_file = float(open(self.path).read())  # MLflow's models may read when they like
        return np.asarray(model_input).sum(axis=1) * from_file

(own / "factor.txt").write_text("2.5")
(own / "own_steps.py").write_text("def double(rows): return rows.sum(axis=1) * 2\\n")
(own / "own_model.py").write_text(
    "import mlflow, own_steps\\n"
    "class Own(mlflow.pyfunc.PythonModel):\\n"
    "    def predict(self, context, model_input, params=None):\\n"
    "        return own_steps.double(model_input)\\n"
    "mlflow.models.set_model(Own())\\n"
)
sys.path.insert(0, str(own))
artifacts = {"factor": str(own / "factor.txt")}
save = mlflow.pyfunc.save_model
narrow = infer_signature(frame.astype({"size": "int32", "price": "float32"}), [1.0])
{
    "skops": lambda: mlflow.sklearn.save_model(estimator, target, input_example=frame, signature=signature),
    "pickle": lambda: mlflow.sklearn.save_model(
        estimator, target, serialization_format="pickle", input_example=frame, signature=signature),
    "cloudpickle": lambda: mlflow.sklearn.save_model(
        estimator, target, serialization_format="cloudpickle", input_example=frame, signature=signature),
    "array": lambda: mlflow.sklearn.save_model(
        LinearRegression().fit(array, size), target, serialization_format="pickle", input_example=array),
    "function": lambda: save(target, python_model=Sum(), artifacts=artifacts, input_example=frame),
    "narrow": lambda: save(
        target, python_model=Sum(), artifacts=artifacts, signature=narrow,
        input_example=frame.astype({"size": "int32", "price": "float32"})),
    "tensor": lambda: save(target, python_model=Sum(), artifacts=artifacts, input_example=array.astype("float32")),
    "nothing told": lambda: save(target, python_model=Sum(), artifacts=artifacts),
    "code": lambda: save(
        target, python_model=str(own / "own_model.py"), code_paths=[str(own / "own_steps.py")], input_example=frame),
}[kind]()
answers = mlflow.pyfunc.load_model(str(target)).predict(
    array.astype("float32") if kind == "tensor" else array if kind == "array"
    else frame.astype({"size": "int32", "price": "float32"}) if kind == "narrow" else frame)
print(json.dumps(np.asarray(answers).tolist()))
"""
OF_MLFLOW = ["function", "narrow", "tensor", "nothing told", "code"]
ROWS = [[size, size * 1.5 + 1] for size in range(12)]


@pytest.fixture
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Any]:
    """A folder that MLflow has saved, and what MLflow answers to the rows."""
    (tmp_path / "own").mkdir()
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    command = [tool("mlflow"), "-W", "ignore", "-c", SAVE, request.param, str(tmp_path / "it"), str(tmp_path / "own")]
    done = run(command, tmp_path, HOME=str(tmp_path), PYTHONPATH=ours)
    assert done.returncode == 0, done.stderr[-2000:]
    shutil.rmtree(tmp_path / "own")  # only what is in the folder may be needed
    return tmp_path / "it", json.loads(done.stdout.splitlines()[-1])


def beside_mlflow(tmp_path: Path) -> dict[str, str]:
    """Variables under which the service finds MLflow, as where it is among the requirements."""
    found = next((TOOLS / "mlflow" / "lib").glob("python3*/site-packages"))
    (tmp_path / "tmp").mkdir(exist_ok=True)
    return {"PYTHONPATH": str(found), "TMPDIR": str(tmp_path / "tmp")}


def packed(folder: Path, tmp_path: Path, variables: dict[str, str]) -> dict[str, Any]:
    """What `flask pack` says of a folder."""
    sample = tmp_path / "rows.csv"
    sample.write_text("size,price\n" + "".join(f"{size},{price}\n" for size, price in ROWS))
    told = ["--sample", str(sample)] if not (folder / "input_example.json").exists() else []
    command = [sys.executable, "-m", "flask", "pack", str(folder), "--json", *told]
    done = run(command, ROOT, **environment(tmp_path / "models") | variables)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def answers_of(tmp_path: Path, names: list[str], variables: dict[str, str]) -> Any:
    """What the service answers to the rows, and ends."""
    with running(tmp_path / "models", **variables) as server:
        status, document = server.predict([dict(zip(names, row, strict=True)) for row in ROWS])
        assert (status, server.stop()) == (200, 0), document
    return document["predictions"]


@pytest.mark.parametrize("saved", ["skops", "pickle", "cloudpickle", "array"], indirect=True)
def test_estimators_need_no_mlflow(saved: tuple[Path, Any], tmp_path: Path) -> None:
    """What MLflow saved of scikit-learn is compiled, and answered as MLflow answers, where there is no MLflow."""
    folder, expected = saved
    document = packed(folder, tmp_path, {})
    assert document["artifacts"][0]["runtime"] == "compiled"
    assert document["notes"] == []
    names = [feature["name"] for feature in document["signature"]["features"]]
    assert answers_of(tmp_path, names, {}) == pytest.approx(expected)


@pytest.mark.parametrize("saved", OF_MLFLOW, indirect=True)
def test_python_functions_are_answered_by_mlflow(saved: tuple[Path, Any], tmp_path: Path) -> None:
    """A model of MLflow's own flavour is packed and answered as MLflow answers; no unpacked folder stays behind."""
    folder, expected = saved
    variables = beside_mlflow(tmp_path)
    document = packed(folder, tmp_path, variables)
    assert [artifact["runtime"] for artifact in document["artifacts"]] == ["mlflow"]
    names = [feature["name"] for feature in document["signature"]["features"]]
    assert answers_of(tmp_path, names, variables) == pytest.approx(expected)
    assert not [name for name in os.listdir(variables["TMPDIR"]) if name.startswith("anyport-")]


@pytest.mark.parametrize("saved", ["narrow"], indirect=True)
def test_what_does_not_fit_a_narrow_column_is_refused(saved: tuple[Path, Any], tmp_path: Path) -> None:
    """A whole number beyond MLflow's `integer` is the client's fault, and no other number is predicted for it."""
    variables = beside_mlflow(tmp_path)
    packed(saved[0], tmp_path, variables)
    with running(tmp_path / "models", **variables) as server:
        status, document = server.predict([{"size": 2**31, "price": 1.0}])
        assert (status, document["type"].rpartition("/")[2]) == (422, "number-out-of-range")
        assert server.stop() == 0
