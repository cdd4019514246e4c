"""Scripts as Azure AutoML exports them, with Microsoft's own inference-schema: packed, and answered by gunicorn."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pandas
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.conftest import ROOT
from tests.server import environment, running
from tests.vendors.tools import TOOLS, run, tool

HEAD = """
import json
import logging
import os

import joblib
import numpy as np
import pandas as pd
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

data_sample = PandasParameterType(pd.DataFrame({
    "age": pd.Series([0], dtype="int64"),
    "price": pd.Series([0.0], dtype="float64"),
    "colour": pd.Series(["example_value"], dtype="object"),
}))
array_sample = NumpyParameterType(np.array([[0.0, 0.0]]))
input_sample = StandardPythonParameterType({"data": data_sample})
method_sample = StandardPythonParameterType("predict")
global_sample = StandardPythonParameterType({"method": method_sample})
result_sample = NumpyParameterType(np.array(["example_value"]))
output_sample = StandardPythonParameterType({"Results": result_sample})


def init():
    global model
    model_path = os.path.join(os.getenv("AZUREML_MODEL_DIR"), "model.pkl")
    path_split = os.path.normpath(model_path).split(os.sep)
    logging.getLogger("automl").info("%s %s", path_split[-3], path_split[-2])
    model = joblib.load(model_path)

"""
SCRIPTS = {
    "scoring_file_v_2_0_0.py": """
@input_schema("GlobalParameters", global_sample, convert_to_provided_type=False)
@input_schema("Inputs", input_sample)
@output_schema(output_sample)
def run(Inputs, GlobalParameters={"method": "predict"}):
    data = Inputs["data"]
    if GlobalParameters.get("method", None) == "predict_proba":
        result = model.predict_proba(data)
    elif GlobalParameters.get("method", None) == "predict":
        result = model.predict(data)
    else:
        raise Exception("Invalid predict method argument received")
    if isinstance(result, pd.DataFrame):
        result = result.values
    return {"Results": result.tolist()}
""",
    "scoring_file_v_1_0_0.py": """
@input_schema("method", method_sample, convert_to_provided_type=False)
@input_schema("data", data_sample)
@output_schema(NumpyParameterType(np.array(["example_value"])))
def run(data, method="predict"):
    result = model.predict(data)
    return json.dumps({"result": result.tolist()})
""",
    "score.py": """
@input_schema("data", array_sample)
@output_schema(result_sample)
def run(data):
    data = pd.DataFrame(data, columns=["age", "price"]).assign(colour="red")
    return model.predict(data).tolist()
""",
}
"""Source of the shapes: scripts that AutoML generated, in public repositories, read 2026-11-23."""


def rows() -> pandas.DataFrame:
    """Twenty rows and their label."""
    age = np.arange(20)
    return pandas.DataFrame({
        "age": age, "price": age * 1.5, "colour": ["red", "blue"] * 10, "kind": np.where(age > 9, "old", "young"),
    })  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_automl_export_is_packed_and_answers_as_its_model_does(tmp_path: Path, name: str) -> None:
    """The zip is packed without code, `run()` gets what its decorators convert, and no unpacked folder stays behind."""
    used = ["age", "price"] if name == "score.py" else ["age", "price", "colour"]
    prepare = make_column_transformer(
        (StandardScaler(), ["age", "price"]), (OneHotEncoder(handle_unknown="ignore"), ["colour"])
    )
    inputs = rows()[["age", "price", "colour"]]
    model = make_pipeline(prepare, LogisticRegression()).fit(inputs, rows().kind)
    joblib.dump(model, tmp_path / "model.pkl")
    rows()[[*used, "kind"]].to_csv(tmp_path / "train.csv", index=False)
    with zipfile.ZipFile(tmp_path / "export.zip", "w", zipfile.ZIP_DEFLATED) as export:
        export.write(tmp_path / "model.pkl", "model.pkl")
        export.writestr(name, HEAD + SCRIPTS[name])
        export.writestr("conda_env_v_1_0_0.yml", "name: project_environment\n")
    variables = beside_inference_schema(tmp_path)
    command = [sys.executable, "-m", "flask", "pack", str(tmp_path / "export.zip"), "--json"]
    said = ["--sample", str(tmp_path / "train.csv"), "--target", "kind"]
    done = run([*command, *said], ROOT, **environment(tmp_path / "models") | variables)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert json.loads(done.stdout)["artifacts"][0]["runtime"] == "score"
    manifest = json.loads((tmp_path / "models" / "export" / "1" / "manifest.json").read_text())
    assert manifest["libraries"]["inference-schema"] == "1.8"
    with running(tmp_path / "models", **variables) as server:
        status, document = server.predict(rows()[used].to_dict("records"))
        assert (status, server.stop()) == (200, 0), document
    assert (
        document["predictions"] == model.predict(inputs if name != "score.py" else inputs.assign(colour="red")).tolist()
    )
    assert not [left for left in os.listdir(variables["TMPDIR"]) if left.startswith("anyport-")]


def beside_inference_schema(tmp_path: Path) -> dict[str, str]:
    """Variables under which the service finds inference-schema, as where it is among the requirements."""
    assert tool("inference-schema")
    found = next((TOOLS / "inference-schema" / "lib").glob("python3*/site-packages"))
    (tmp_path / "tmp").mkdir()
    return {"PYTHONPATH": str(found), "TMPDIR": str(tmp_path / "tmp")}
