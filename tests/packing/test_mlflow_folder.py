"""Packing MLflow model folders: files as MLflow 3.17 writes them, without MLflow; tests/clients has the real one."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import sklearn
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.errors import MissingLibrary, PackageError, PackingError, UntrustedModel, VersionSkew
from service.packing import Choices, Packed, pack
from service.runtimes import Policy
from service.store import Store

MLMODEL = """\
flavors:
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.sklearn
    model_path: {file}
    predict_fn: predict
    python_version: 3.12.1
  sklearn:
    code: null
    pickled_model: {file}
    serialization_format: {form}
    sklearn_version: {version}
    skops_trusted_types: null
mlflow_version: 3.17.2
model_uuid: 48dbf5629df64a6b80d10ce771cee297
saved_input_example_info:
  artifact_path: input_example.json
  pandas_orient: split
  serving_input_path: serving_input_example.json
  type: {kind}
signature:
  inputs: '{inputs}'
  outputs: '[{{"type": "long", "required": true}}]'
  params: null
utc_time_created: '2026-11-23 13:32:31.848727'
"""
"""Source: MLflow 3.17.2 `mlflow.sklearn.save_model`, run 2026-11-23."""
PYFUNC = """\
flavors:
  python_function:
    cloudpickle_version: 3.1.2
    code: null
    loader_module: mlflow.pyfunc.model
    python_model: python_model.pkl
    python_version: 3.12.1
mlflow_version: 3.17.2
"""
COLUMNS = ["size", "price", "heavy"]


def rows() -> Any:
    """Ten rows: whole numbers, numbers and truths."""
    size = np.arange(10)
    return pandas.DataFrame({"size": size, "price": size * 1.5, "heavy": size % 2 == 0})


def estimator() -> Any:
    """A classifier of these rows."""
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(rows(), ["no"] * 5 + ["yes"] * 5)


def inputs_of(names: list[str]) -> str:
    """A signature's inputs as MLflow writes them."""
    return json.dumps([{"type": "double", "name": name, "required": True} for name in names])


def split(frame: Any) -> dict[str, Any]:
    """An example as MLflow writes a frame."""
    return {"columns": list(frame.columns), "data": frame.astype(object).to_numpy().tolist()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the scikit-learn flavour."""
    return write(tmp_path / "My Model")


def write(
    folder: Path,
    *,
    content: bytes | None = None,
    file: str = "model.pkl",
    form: str = "pickle",
    version: str = sklearn.__version__,
    example: Any = None,
    kind: str = "dataframe",
    names: list[str] = COLUMNS,
) -> Path:
    """Write a folder as MLflow does."""
    folder.mkdir()
    told = MLMODEL.format(file=file, form=form, version=version, kind=kind, inputs=inputs_of(names))
    (folder / "MLmodel").write_text(told)
    (folder / file).write_bytes(pickle.dumps(estimator()) if content is None else content)
    (folder / "input_example.json").write_text(json.dumps(split(rows()) if example is None else example))
    return folder


@pytest.fixture
def try_pack(store: Store) -> Callable[..., Packed]:
    """Pack a folder into the store."""

    def packer(folder: Path, sample: Path | None = None, policy: Policy | None = None, **said: Any) -> Packed:
        return pack(folder, sample, store, policy or Policy(), Choices(**said))

    return packer


def test_a_folder_is_packed_as_the_estimator_in_it(folder: Path, store: Store, try_pack: Callable[..., Packed]) -> None:
    """The scikit-learn flavour is a pickle like any other: named, compiled, and with the example as its sample."""
    packed = try_pack(folder)
    manifest = packed.manifest
    assert (manifest.label, manifest.task, packed.notes) == ("my-model/1", "classification", ())
    assert [artifact.runtime for artifact in manifest.artifacts] == ["compiled", "joblib"]
    assert [(f.name, f.dtype) for f in manifest.signature.features] == [
        ("size", "int64"),
        ("price", "float64"),
        ("heavy", "bool"),
    ]
    assert manifest.libraries["scikit-learn"] == sklearn.__version__
    assert {"no", "yes"} == set(manifest.golden.predictions)
    assert (packed.folder / "model.pkl").read_bytes() == (folder / "model.pkl").read_bytes()
    assert store.open(manifest, Policy())


def test_the_sample_goes_before_the_example(folder: Path, tmp_path: Path, try_pack: Callable[..., Packed]) -> None:
    """Rows of the user's own are taken where there are any, and the target is measured."""
    (folder / "input_example.json").unlink()
    sample = tmp_path / "train.csv"
    rows().assign(kind=["no"] * 5 + ["yes"] * 5).to_csv(sample, index=False)
    manifest = try_pack(folder, sample, targets=("kind",)).manifest
    assert (manifest.signature.outputs[0].name, manifest.metrics["accuracy"]) == ("kind", 1.0)


def test_a_skops_file_asks_for_no_pickle(tmp_path: Path, try_pack: Callable[..., Packed]) -> None:
    """MLflow's default format is opened by skops, also where pickles are not allowed."""
    content = skops.io.dumps(estimator())
    folder = write(tmp_path / "it", content=content, file="model.skops", form="skops")
    packed = try_pack(folder, policy=Policy(pickle=False))
    assert packed.manifest.artifacts[-1].runtime == "skops"


@pytest.mark.parametrize("form", ["pickle", "cloudpickle"])
def test_3_17_a_pickle_in_a_folder_asks_the_policy(tmp_path: Path, try_pack: Callable[..., Packed], form: str) -> None:
    """A folder is no way around the operator's policy."""
    with pytest.raises(UntrustedModel, match="My Model is a pickle"):
        try_pack(write(tmp_path / "My Model", form=form), policy=Policy(pickle=False))


@pytest.mark.parametrize(
    ("example", "kind"),
    [
        ([{"size": 1, "price": 2.5, "heavy": True}, {"size": 7, "price": 9.0, "heavy": False}], "json_object"),
        (split(rows().head(1)), "dataframe"),
        ({"inputs": split(rows()), "params": {"a": 1}}, "dataframe"),
    ],
    ids=["objects", "one row", "with parameters"],
)
def test_examples_are_samples(tmp_path: Path, try_pack: Callable[..., Packed], example: Any, kind: str) -> None:
    """Every form in which MLflow keeps rows of plain values is enough to pack the model."""
    folder = write(tmp_path / "it", example=example, kind=kind)
    if "inputs" in example:
        told = (folder / "MLmodel").read_text()
        (folder / "MLmodel").write_text(told.replace("  pandas_orient", "  example_params: 'true'\n  pandas_orient"))
    assert try_pack(folder).manifest.signature.names == ("size", "price", "heavy")


def test_an_example_of_an_array_has_columns_without_names(tmp_path: Path, try_pack: Callable[..., Packed]) -> None:
    """The model of an array takes its columns in their order, under names that are made up."""
    array = rows().to_numpy(dtype=float)
    content = pickle.dumps(LogisticRegression().fit(array, array[:, 0] > 4))
    folder = write(tmp_path / "it", content=content, example=array.tolist(), kind="ndarray", names=[])
    packed = try_pack(folder)
    assert (packed.manifest.signature.names, packed.notes) == (("x0", "x1", "x2"), ())


@pytest.mark.parametrize(
    ("example", "kind"),
    [
        ("text", "json_object"),
        ({"messages": [{"role": "user", "content": "hello"}]}, "json_object"),
        ([[[1.0], [2.0]]], "ndarray"),
        ([], "ndarray"),
        ([[1.0, 2.0], [1.0]], "ndarray"),
        ({"columns": ["size"], "data": [[1, 2]]}, "dataframe"),
        ([[1.0, 2.0, 3.0]], "sparse_matrix_csr"),
    ],
)
def test_an_example_that_is_no_table_asks_for_a_sample(
    tmp_path: Path, try_pack: Callable[..., Packed], example: Any, kind: str
) -> None:
    """Where the example is no rows of plain values, the message says to give some."""
    with pytest.raises(PackingError, match="it brings no example of its rows; say --sample"):
        try_pack(write(tmp_path / "it", example=example, kind=kind))


@pytest.mark.parametrize("names", [["size", "price"], ["price", "size", "heavy"], ["size", "price", "weight"]])
def test_a_signature_that_differs_is_told(tmp_path: Path, try_pack: Callable[..., Packed], names: list[str]) -> None:
    """Where MLmodel names other features than the estimator, or in another order, a note says which count."""
    packed = try_pack(write(tmp_path / "it", names=names))
    assert packed.notes == (
        f"the signature that came with the model has {', '.join(names)}, and the package has size, price, heavy: "
        "requests must have these",
    )


def test_another_scikit_learn_is_refused_by_its_name(tmp_path: Path, try_pack: Callable[..., Packed]) -> None:
    """The version in MLmodel counts, also where the file itself tells none, and the policy may let it pass."""
    folder = write(tmp_path / "it", version="1.2.3")
    with pytest.raises(VersionSkew, match=r"it was made with scikit-learn 1\.2\.3 and here is"):
        try_pack(folder)


def test_another_scikit_learn_is_written_down(tmp_path: Path, try_pack: Callable[..., Packed]) -> None:
    """Where the operator lets another version pass, the manifest says which it was: a worker must know it."""
    packed = try_pack(write(tmp_path / "it", version="1.2.3"), policy=Policy(skew="warn"))
    assert packed.manifest.libraries["scikit-learn"] == "1.2.3"


BROKEN: dict[str, tuple[str, str]] = {
    "no YAML": ("flavors: {", "MLmodel is not YAML"),
    "a list": ("- flavors", "names no flavors"),
    "no flavors": ("run_id: 1", "names no flavors"),
    "code in YAML": ("flavors: !!python/object/apply:os.getcwd []", "MLmodel is not YAML"),
    "other flavors": ("flavors: {spark: {}, h2o: {}}", "has the flavors spark, h2o; sklearn or python_function"),
    "another format": ("flavors: {sklearn: {serialization_format: hdf5}}", "serialization_format 'hdf5', known are"),
    "no file": ("flavors: {sklearn: {pickled_model: gone.pkl}}", "pickled_model: gone.pkl, and there is no such file"),
    "outside": ("flavors: {sklearn: {pickled_model: ../outside.pkl}}", "there is no such file in the folder"),
    "no example": (
        "flavors: {sklearn: {pickled_model: model.pkl}}\n"
        "saved_input_example_info: {type: ndarray, artifact_path: gone.json}",
        "artifact_path: gone.json, and there is no such file",
    ),
    "signature of another shape": (
        "flavors: {sklearn: {pickled_model: model.pkl}}\nsignature: 3",
        "signature of MLmodel is not what MLflow writes",
    ),
    "columns of another shape": (
        "flavors: {sklearn: {pickled_model: model.pkl}}\nsignature: {inputs: '[1]'}",
        "signature of MLmodel is not what MLflow writes",
    ),
    "example of another shape": (
        "flavors: {sklearn: {pickled_model: model.pkl}}\nsaved_input_example_info: [1]",
        "saved_input_example_info of MLmodel is not what MLflow writes",
    ),
    "signature": (
        "flavors: {sklearn: {pickled_model: model.pkl}}\nsignature: {inputs: 'x'}",
        "signature .* is not JSON",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_refused(
    folder: Path, models_dir: Path, tmp_path: Path, try_pack: Callable[..., Packed], case: str
) -> None:
    """What is wrong with MLmodel is said, and nothing is left behind."""
    (tmp_path / "outside.pkl").write_bytes((folder / "model.pkl").read_bytes())
    before = sorted(models_dir.rglob("*"))
    told, says = BROKEN[case]
    (folder / "MLmodel").write_text(told)
    with pytest.raises(PackingError, match=says):
        try_pack(folder)
    assert sorted(models_dir.rglob("*")) == before


def test_a_folder_without_mlmodel_is_refused(tmp_path: Path, try_pack: Callable[..., Packed]) -> None:
    """Some folder or other is no model."""
    with pytest.raises(PackingError, match=r"holds no `MLmodel`.* no score\.py or scoring_file_v\*\.py"):
        try_pack(tmp_path)


def test_a_file_without_a_sample_asks_for_one(folder: Path, try_pack: Callable[..., Packed]) -> None:
    """A model that is a single file brings no rows."""
    with pytest.raises(PackingError, match=r"model\.pkl brings no example of its rows; say --sample"):
        try_pack(folder / "model.pkl")


def python_function(folder: Path, requirements: str = "") -> Path:
    """A folder of the python_function flavour alone."""
    folder.mkdir()
    (folder / "MLmodel").write_text(PYFUNC + "saved_input_example_info: {type: ndarray, artifact_path: e.json}\n")
    (folder / "e.json").write_text("[[1.0]]")
    (folder / "python_model.pkl").write_bytes(b"")
    (folder / "requirements.txt").write_text(requirements)
    return folder


def test_other_flavors_need_mlflow(tmp_path: Path, try_pack: Callable[..., Packed]) -> None:
    """Without the scikit-learn flavour MLflow itself must open the folder, and the message says how it comes here."""
    folder = python_function(tmp_path / "it", "mlflow==0.1\nno-such-library==1.0\n")
    with pytest.raises(
        MissingLibrary, match=r"write `mlflow-skinny` into requirements\.in and run `make lock install`"
    ):
        try_pack(folder)


def test_other_flavors_are_checked_by_their_requirements(tmp_path: Path, try_pack: Callable[..., Packed]) -> None:
    """What the folder's requirements pin must be what is here."""
    folder = python_function(tmp_path / "it", "# made by MLflow\nmlflow==3.17.2\nScikit_Learn==1.2.3 ; x\n")
    with pytest.raises(VersionSkew, match=r"it was made with scikit-learn 1\.2\.3"):
        try_pack(folder)


def test_a_link_in_a_folder_is_refused(tmp_path: Path, try_pack: Callable[..., Packed]) -> None:
    """Nothing outside of the folder gets into a package."""
    folder = python_function(tmp_path / "it")
    (folder / "data").symlink_to("/etc")
    with pytest.raises(PackageError, match="data is a link"):
        try_pack(folder)
