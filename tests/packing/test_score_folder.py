"""Packing scripts for Azure ML: a folder, a script, or the zip that AutoML exports, as one verified file."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
import sklearn
from flask.testing import FlaskCliRunner
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.errors import PackingError, UnreadableModel, UntrustedModel, VersionSkew
from service.packing import Choices, Packed, pack
from service.predictor import open_predictor
from service.runtimes import Policy
from service.store import Store
from tests.runtimes.test_runtimes import OF_ANOTHER_VERSION

SCRIPT = """
import json
import os

import joblib
import pandas as pd


def init():
    global model
    print("starting")
    model = joblib.load(os.path.join(os.getenv("AZUREML_MODEL_DIR"), "model.pkl"))


def run(raw_data):
    print("asked")
    data = pd.DataFrame(json.loads(raw_data)["data"])
    return json.dumps({"result": model.predict(data).tolist()})
"""
"""Source of the shape: azureml-examples cli/endpoints/online/model-1/onlinescoring/score.py, read 2026-11-23."""
LISTS = SCRIPT.replace("pd.DataFrame(json.loads(raw_data)", "np.array(json.loads(raw_data)").replace(
    "import pandas as pd", "import numpy as np"
)


def rows() -> Any:
    """Ten rows and their label."""
    size = np.arange(10)
    return pandas.DataFrame({"size": size, "price": size * 1.5, "kind": np.where(size > 4, "big", "small")})


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """The rows as a file."""
    rows().to_csv(tmp_path / "train.csv", index=False)
    return tmp_path / "train.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A script and the pipeline that it reads."""
    return write(tmp_path / "My Score")


def write(folder: Path, script: str = SCRIPT, name: str = "score.py", model: Any = None) -> Path:
    """Write a folder as it is deployed to Azure ML."""
    folder.mkdir()
    (folder / name).write_text(script)
    inputs = rows()[["size", "price"]] if script == SCRIPT else rows()[["size", "price"]].to_numpy()
    fitted = model or make_pipeline(StandardScaler(), LogisticRegression()).fit(inputs, rows().kind)
    joblib.dump(fitted, folder / "model.pkl")
    (folder / "conda_env_v_1_0_0.yml").write_text("name: project_environment\n")
    return folder


TryPack = Callable[..., Packed]


@pytest.fixture
def try_pack(store: Store, sample: Path) -> TryPack:
    """Pack what is given into the store."""

    def packer(model: Path, policy: Policy | None = None, compiling: Any = "auto", **said: Any) -> Packed:
        choices = Choices(**{"targets": ("kind",)} | said)
        return pack(model, sample, store, policy or Policy(), choices, compiling=compiling)

    return packer


def test_a_folder_is_packed_and_answers(folder: Path, store: Store, try_pack: TryPack) -> None:
    """The package holds one file, knows what it was made with, and its golden rows are what the script answers."""
    packed = try_pack(folder)
    manifest = packed.manifest
    assert (manifest.label, manifest.task, packed.notes) == ("my-score/1", "other", ())
    assert [(a.runtime, a.file, a.layout) for a in manifest.artifacts] == [("score", "model.score.zip", "frame")]
    assert [entry.name for entry in manifest.files] == ["model.score.zip"]
    assert [(f.name, f.dtype) for f in manifest.signature.features] == [("size", "int64"), ("price", "float64")]
    assert (manifest.signature.outputs[0].name, manifest.signature.outputs[0].dtype) == ("kind", "string")
    assert manifest.libraries == {
        "joblib": joblib.__version__,
        "pandas": pandas.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
    }
    assert open_predictor(store, manifest, Policy()).manifest == manifest


def test_a_script_that_wants_lists_gets_lists(tmp_path: Path, try_pack: TryPack) -> None:
    """Whether rows are lists or objects is found out by asking the script."""
    assert try_pack(write(tmp_path / "it", LISTS)).manifest.artifacts[0].layout == "matrix"


def test_the_same_folder_makes_the_same_file(folder: Path, tmp_path: Path, try_pack: TryPack) -> None:
    """Packing twice gives the same checksum."""
    shutil.copytree(folder, tmp_path / "again")
    assert try_pack(folder).manifest.files == try_pack(tmp_path / "again").manifest.files


@pytest.mark.parametrize("wrapped", ["", "export/"])
def test_an_exported_zip_is_packed(tmp_path: Path, try_pack: TryPack, wrapped: str) -> None:
    """What AutoML exports is packed as it was downloaded, also where all of it is in one folder."""
    folder = write(tmp_path / "it", name="scoring_file_v_1_0_0.py")
    with zipfile.ZipFile(tmp_path / "AutoML 7.zip", "w", zipfile.ZIP_DEFLATED) as export:
        for path in folder.iterdir():
            export.write(path, f"{wrapped}{path.name}")
        export.writestr("__MACOSX/x", "")
    manifest = try_pack(tmp_path / "AutoML 7.zip").manifest
    assert (manifest.label, manifest.artifacts[0].runtime) == ("automl-7/1", "score")


def test_a_script_is_packed_with_what_is_beside_it(folder: Path, try_pack: TryPack) -> None:
    """The script's own path says the same as its folder's."""
    assert try_pack(folder / "score.py").manifest.files == try_pack(folder).manifest.files


@pytest.mark.parametrize("given", ["folder", "zip"])
def test_3_17_a_script_asks_the_policy(folder: Path, tmp_path: Path, try_pack: TryPack, given: str) -> None:
    """Where pickles are not allowed, no script runs."""
    shutil.make_archive(str(tmp_path / "it"), "zip", folder)
    with pytest.raises(UntrustedModel, match="is a folder with a score.py"):
        try_pack(folder if given == "folder" else tmp_path / "it.zip", Policy(pickle=False))


def test_a_script_is_not_compiled(folder: Path, try_pack: TryPack) -> None:
    """Where a compiled form is required there is none, and the message says so."""
    with pytest.raises(PackingError, match="no compiled form"):
        try_pack(folder, compiling="require")


def test_a_pickle_of_another_scikit_learn_is_noticed(tmp_path: Path, try_pack: TryPack) -> None:
    """The version inside a pickle counts, also where the script loads it."""
    folder = write(tmp_path / "it", LISTS)
    (folder / "model.pkl").write_bytes(OF_ANOTHER_VERSION["joblib"]())
    with pytest.raises(VersionSkew, match="it was made with scikit-learn 0"):
        try_pack(folder)


REFUSED: dict[str, tuple[str, str]] = {
    "no answer": (SCRIPT.replace("return json", "json"), "cannot predict the sample: frame: .*answered NoneType"),
    "fewer rows": (SCRIPT.replace(".tolist()", ".tolist()[:3]"), "the answer to 10 rows has shape"),
    "an error as text": (
        SCRIPT.replace("return ", "return 'failed' #"),
        "cannot predict the sample: .*JSONDecodeError",
    ),
    "its own exception": (SCRIPT.replace("data =", "raise KeyError('age')\n    data ="), "KeyError: 'age'"),
    "a late neighbour": (SCRIPT.replace('print("asked")', "import own_steps"), "No module named 'own_steps'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_script_without_answers_is_refused(tmp_path: Path, models_dir: Path, try_pack: TryPack, case: str) -> None:
    """A script that does not answer every row of the sample is not packed, and its own words say why."""
    script, says = REFUSED[case]
    folder = write(tmp_path / "it", script, model=LogisticRegression().fit(rows()[["size", "price"]], rows().kind))
    (folder / "own_steps.py").touch()
    before = sorted(models_dir.rglob("*"))
    with pytest.raises(PackingError, match=says):
        try_pack(folder)
    assert sorted(models_dir.rglob("*")) == before


def test_a_script_of_another_name_is_refused(folder: Path, try_pack: TryPack) -> None:
    """Which script is served must be plain when the folder is looked at."""
    other = folder / "main.py"
    shutil.copy(folder / "score.py", other)
    with pytest.raises(PackingError, match=r"main\.py is not called score\.py .* score\.py is the one that would be"):
        try_pack(other)
    (folder / "score.py").unlink()
    with pytest.raises(PackingError, match=r"main\.py is not called score\.py or scoring_file_v\*\.py; call it"):
        try_pack(other)


def test_a_script_that_is_not_there_is_refused(tmp_path: Path, try_pack: TryPack) -> None:
    """A path that leads nowhere is said to lead nowhere."""
    with pytest.raises(PackingError, match=r"score\.py cannot be read: there is no such file"):
        try_pack(tmp_path / "nowhere" / "score.py")


@pytest.mark.parametrize(("name", "content"), [("bad.zip", b"no zip"), ("empty.zip", b"PK\x05\x06" + bytes(18))])
def test_a_zip_of_something_else_is_refused(tmp_path: Path, try_pack: TryPack, name: str, content: bytes) -> None:
    """A zip that is damaged, or holds no model, says which."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises((PackingError, UnreadableModel), match=f"{name}(: the file is damaged| holds no `MLmodel`)"):
        try_pack(tmp_path / name)


def test_what_a_script_prints_stays_out_of_the_report(runner: FlaskCliRunner, folder: Path, sample: Path) -> None:
    """`flask pack --json` prints one document, whatever the script prints meanwhile."""
    result = runner.invoke(args=["pack", str(folder), "--sample", str(sample), "--target", "kind", "--json"])
    assert json.loads(result.stdout)["name"] == "my-score"
    assert "asked" in result.stderr
