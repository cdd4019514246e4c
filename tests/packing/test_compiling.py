"""Packages with a compiled form: it is served where it is sound, else the original is, and no code ever runs."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from service.errors import ChecksumMismatch, PackingError, UntrustedModel, VersionSkew
from service.packing import Choices, Compiling, Packed, compile_package, pack
from service.packing.compiling import FILE
from service.predictor import Predictor, open_predictor
from service.runtimes import Policy
from service.runtimes.compiled import CompiledRuntime
from service.store import Store
from service.table import PredictRequest, table_from_rows
from tests.compiler.fitted import COLOURS, kinds, sample
from tests.conftest import ROOT

PREPARE = make_column_transformer(
    (OneHotEncoder(categories=[[*COLOURS, "puce"]], handle_unknown="ignore", sparse_output=False), ["colour"]),
    (make_pipeline(SimpleImputer(), StandardScaler()), ["a", "b"]),
)
MODELS: dict[str, Any] = {
    "linear": LogisticRegression(max_iter=200),
    "trees": HistGradientBoostingClassifier(max_iter=5, max_leaf_nodes=8, random_state=0),
    "deep-trees": ExtraTreesClassifier(3, random_state=0),
    "neighbours": KNeighborsClassifier(),
}
RUNTIME = {"linear": "compiled", "trees": "compiled", "deep-trees": "compiled-trees"}


def rows() -> Any:
    """A sample with gaps in its numbers."""
    frame = sample(gaps=True)
    frame["colour"] = frame.colour.fillna("red")
    return frame[["a", "b", "colour"]].assign(kind=kinds(frame))


def pack_one(folder: Path, name: str, compiling: Compiling = "auto") -> Packed:
    """Pack one of the models into a store of its own."""
    model = make_pipeline(PREPARE, MODELS[name]).fit(rows()[["a", "b", "colour"]], rows().kind)
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, folder / f"{name}.joblib")
    rows().to_csv(folder / "rows.csv", index=False)
    files = folder / f"{name}.joblib", folder / "rows.csv", Store(folder / "models")
    return pack(*files, Policy(), Choices(targets=("kind",)), compiling=compiling)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Packed]:
    """Pack each model once."""
    made: dict[str, Packed] = {}

    def once(name: str) -> Packed:
        if name not in made:
            made[name] = pack_one(tmp_path_factory.mktemp(name), name)
        return made[name]

    return once


@pytest.fixture
def place(packed: Callable[[str], Packed], tmp_path: Path) -> Callable[[str], Path]:
    """Put a copy of a packed model into a folder of the test's own, and return the package's folder."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(packed(name).folder, tmp_path / "models" / name / "1"))

    return copy


def edit(package: Path, **changes: Any) -> None:
    """Change fields of a package's manifest."""
    document = json.loads((package / "manifest.json").read_text()) | changes
    (package / "manifest.json").write_text(json.dumps(document))


def alter(package: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the compiled form, with the checksum that then is the right one."""
    content = change((package / FILE).read_bytes())
    (package / FILE).write_bytes(content)
    entry = {"name": FILE, "sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    files = json.loads((package / "manifest.json").read_text())["files"]
    edit(package, files=[entry if file["name"] == FILE else file for file in files])


def open_package(package: Path, policy: Policy | None = None) -> Predictor:
    """Open a package as a worker does."""
    store = Store(package.parent.parent)
    return open_predictor(store, store.manifest(package.parent.name, package.name), policy or Policy())


def is_compiled(predictor: Predictor) -> bool:
    """Whether the compiled form answers."""
    return isinstance(predictor._runtime, CompiledRuntime)


def ask(predictor: Predictor) -> Any:
    """Ask for the sample's rows, and return the labels."""
    signature = predictor.manifest.signature
    plain = rows()[list(signature.names)].astype(object)
    table = table_from_rows(signature, plain.where(plain.notna(), None).to_dict("records"))
    return predictor.predict(PredictRequest(table)).predictions.tolist()


# What is made


@pytest.mark.parametrize("name", RUNTIME)
def test_compiled_form_stands_before_the_original(packed: Callable[[str], Packed], name: str) -> None:
    """The compiled form comes first with its proof, the original last without one, and both files are listed."""
    manifest = packed(name).manifest
    compiled, original = manifest.artifacts
    assert (compiled.runtime, compiled.file, compiled.layout) == (RUNTIME[name], FILE, "table")
    assert (original.runtime, original.file, original.layout) == ("joblib", "model.joblib", "frame")
    assert compiled.parity is not None and compiled.parity.rows > len(rows()) and original.parity is None
    assert [file.name for file in manifest.files] == ["model.joblib", FILE]


@pytest.mark.parametrize("name", RUNTIME)
def test_both_forms_answer_alike(place: Callable[[str], Path], name: str) -> None:
    """The package answers the same rows alike through either form."""
    package = place(name)
    compiled = open_package(package)
    edit(package, artifacts=json.loads((package / "manifest.json").read_text())["artifacts"][1:])
    original = open_package(package)
    assert (is_compiled(compiled), is_compiled(original)) == (True, False)
    assert ask(compiled) == ask(original)


def test_model_without_a_compiled_form_is_packed_as_it_is(packed: Callable[[str], Packed]) -> None:
    """An estimator that has no compiled form keeps its own, behind steps that have one, and the user is told."""
    made = packed("neighbours")
    assert [artifact.layout for artifact in made.manifest.artifacts] == ["prepared", "frame"]
    assert any("KNeighborsClassifier has no compiled form" in note for note in made.notes)


def test_never_makes_no_compiled_form(tmp_path: Path) -> None:
    """With `never` the original stands alone, and nothing is said."""
    made = pack_one(tmp_path, "linear", "never")
    assert [artifact.runtime for artifact in made.manifest.artifacts] == ["joblib"]
    assert not [note for note in made.notes if "compiled" in note]
    assert not (made.folder / FILE).exists()


def test_require_fails_where_there_is_none(tmp_path: Path) -> None:
    """With `require` a model without a compiled form is not packed, the reason is named, and nothing is left."""
    with pytest.raises(PackingError, match="KNeighborsClassifier has no compiled form; leave out --compile require"):
        pack_one(tmp_path, "neighbours", "require")
    assert not list((tmp_path / "models").iterdir())


# What is served


def with_plan(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    """Change the plan of a compiled form."""
    return with_arrays(lambda arrays: arrays | {"plan": dump(change(json.loads(arrays["plan"].tobytes())))})


def dump(plan: Any) -> Any:
    return np.frombuffer(json.dumps(plan).encode(), np.uint8)


def with_arrays(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[bytes], bytes]:
    """Change the arrays of a compiled form, of which the plan is one."""

    def changed(content: bytes) -> bytes:
        target = io.BytesIO()
        with np.load(io.BytesIO(content)) as file:
            np.savez(target, **change(dict(file)))
        return target.getvalue()

    return changed


def squeezed(content: bytes) -> bytes:
    """The same arrays and one of 64 MB of zeros, compressed to a thousandth of that."""
    target = io.BytesIO()
    with np.load(io.BytesIO(content)) as file:
        np.savez_compressed(target, zeros=np.zeros(8_000_000), **file)
    assert len(target.getvalue()) < 200_000
    return target.getvalue()


def claiming(content: bytes) -> bytes:
    """An array that says of itself that it is larger than what follows."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**8,)})
        new.writestr("more.npy", head.getvalue() + bytes(80))
    return target.getvalue()


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, nest: Path) -> None:
        self.nest = nest

    def __reduce__(self) -> Any:
        return Path.touch, (self.nest,)


def zeroed(arrays: dict[str, Any]) -> dict[str, Any]:
    """Every number of the model as nought, and trees as they are."""
    return {key: array * 0.0 if array.dtype.kind == "f" else array for key, array in arrays.items()}


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "no archive": lambda content: b"\x93NUMPY" + content,
    "a byte": lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
    "no plan": with_arrays(lambda arrays: {key: array for key, array in arrays.items() if key != "plan"}),
    "no JSON": with_arrays(lambda arrays: arrays | {"plan": np.frombuffer(b"{", np.uint8)}),
    "a plan of nothing": with_plan(lambda plan: None),
    "a plan that is a list": with_plan(lambda plan: [plan]),
    "unknown operator": with_plan(lambda plan: plan | {"op": "eval"}),
    "attribute as operator": with_plan(lambda plan: plan | {"op": "__class__"}),
    "unknown setting": with_plan(lambda plan: plan | {"more": 1}),
    "missing setting": with_plan(lambda plan: {key: node for key, node in plan.items() if key != "shares"}),
    "unknown shares": with_plan(lambda plan: plan | {"shares": "own"}),
    "missing array": with_arrays(lambda arrays: {"plan": arrays["plan"]}),
    "too deep": with_arrays(lambda arrays: arrays | {"plan": np.frombuffer(b"[" * 10**5, np.uint8)}),
    "wrong shapes": with_arrays(lambda arrays: {k: a if k == "plan" else a[..., :1] for k, a in arrays.items()}),
    "wrong numbers": with_arrays(zeroed),
    "compressed": squeezed,
    "more than there is": claiming,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_original_answers_where_the_compiled_form_is_unsound(
    place: Callable[[str], Path], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """A compiled form that cannot be read, or answers its golden rows otherwise, gives way to the original, with a word
    in the log."""
    package = place("linear")
    expected = ask(open_package(package))
    alter(package, DAMAGES[damage])
    with caplog.at_level(logging.WARNING):
        predictor = open_package(package)
    assert not is_compiled(predictor)
    assert ask(predictor) == expected
    assert f"linear/1 as {FILE} is not served: " in caplog.text


def test_3_17_compiled_form_unpickles_nothing(place: Callable[[str], Path], tmp_path: Path) -> None:
    """An array of objects, which numpy keeps as a pickle, is not read, and its code does not run."""
    package = place("linear")
    planted = np.array([Canary(tmp_path / "ran")], dtype=object)
    alter(package, with_arrays(lambda arrays: arrays | {"a0": planted}))
    assert not is_compiled(open_package(package))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("policy", [Policy(), Policy(pickle=False)], ids=["trusting", "not trusting"])
def test_3_17_altered_compiled_form_refuses_the_package(place: Callable[[str], Path], policy: Policy) -> None:
    """A compiled form that is not the one that was packed refuses the package as a whole, as any altered file does."""
    package = place("linear")
    content = bytearray((package / FILE).read_bytes())
    content[-1] ^= 1
    (package / FILE).write_bytes(content)
    with pytest.raises(ChecksumMismatch, match=FILE):
        open_package(package, policy)


def test_original_answers_where_onnxruntime_is_missing(
    place: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without onnxruntime a model with deep trees is served as its original, and the log says what is missing."""
    package = place("deep-trees")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not is_compiled(open_package(package))
    assert "need onnxruntime" in caplog.text


@pytest.mark.parametrize("name", RUNTIME)
def test_3_16_compiled_form_needs_no_trust_in_pickles(place: Callable[[str], Path], name: str) -> None:
    """Under a policy that allows no pickles the compiled form is served, and the original never in its place."""
    package = place(name)
    assert is_compiled(open_package(package, Policy(pickle=False)))
    alter(package, lambda content: b"")
    with pytest.raises(Exception, match=f"{name}/1") as caught:
        open_package(package, Policy(pickle=False))
    assert not isinstance(caught.value, UntrustedModel)  # what is told is what the preferred form lacks


@pytest.mark.parametrize("name", RUNTIME)
def test_3_19_compiled_form_is_served_whatever_the_versions(
    place: Callable[[str], Path], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Libraries of other versions than the original was made with are no matter to the compiled form."""
    package = place(name)
    edit(package, libraries={"scikit-learn": "0.1", "no-such-library": "1"})
    assert is_compiled(open_package(package))
    assert not caplog.records


def test_3_19_original_in_its_place_is_held_to_its_versions(place: Callable[[str], Path]) -> None:
    """The original that would be served instead is refused if its libraries are of other versions."""
    package = place("linear")
    edit(package, libraries={"scikit-learn": "0.1"})
    alter(package, lambda content: b"")
    with pytest.raises(Exception, match="cannot be read"):
        open_package(package)
    edit(package, artifacts=json.loads((package / "manifest.json").read_text())["artifacts"][1:])
    with pytest.raises(VersionSkew):
        open_package(package)


def test_3_19_steps_before_an_original_do_not_excuse_its_versions(place: Callable[[str], Path]) -> None:
    """A model that is compiled but for its last step is held to the versions of that step's libraries."""
    package = place("neighbours")
    edit(package, libraries={"scikit-learn": "0.1"})
    with pytest.raises(VersionSkew):
        open_package(package)


SERVE = """
import json, sys
from pathlib import Path
from service import create_app
from service.settings import Settings
client = create_app(Settings(models_dir=Path(sys.argv[1]))).test_client()
row = json.loads(sys.argv[2])
answer = client.post("/predict?probabilities=true", json={"instances": [row]})
assert answer.status_code == 200, answer.text
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("name", RUNTIME)
def test_worker_that_serves_a_compiled_form_is_light(place: Callable[[str], Path], name: str) -> None:
    """A process that answers from a compiled form imports no modelling library, and onnxruntime only for deep trees."""
    package = place(name)
    row = json.dumps({"a": 0.5, "b": None, "colour": "never seen"})
    child = subprocess.run(
        [sys.executable, "-c", SERVE, str(package.parent.parent), row],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(child.stdout.splitlines()[-1]))
    heavy = {"sklearn", "scipy", "pandas", "joblib", "skops", "onnxruntime"}
    assert loaded & heavy == ({"onnxruntime"} if name == "deep-trees" else set())
    assert not {module for module in loaded if module.startswith(("service.compiler", "service.packing"))}


# A package that is there already


@pytest.fixture
def uncompiled(packed: Callable[[str], Packed], place: Callable[[str], Path]) -> Path:
    """A package with its original alone."""
    package = place("linear")
    document = json.loads((package / "manifest.json").read_text())
    edit(package, artifacts=document["artifacts"][1:], files=document["files"][:1])
    (package / FILE).unlink()
    return package


@pytest.mark.parametrize("with_sample", [True, False], ids=["with a sample", "golden rows alone"])
def test_compile_package_makes_the_next_version(uncompiled: Path, tmp_path: Path, with_sample: bool) -> None:
    """The next version has the same signature, golden rows and original, and a compiled form in front."""
    store = Store(uncompiled.parent.parent)
    sample_file = tmp_path / "rows.csv"
    rows().to_csv(sample_file, index=False)
    made = compile_package("linear", None, store, Policy(), sample_file=sample_file if with_sample else None)
    old, new = store.manifest("linear", "1"), store.manifest("linear", "2")
    assert made.manifest == new
    kept = {"name", "task", "signature", "libraries", "environment", "golden", "metrics", "statistics"}
    assert new.model_dump(include=kept) == old.model_dump(include=kept)
    assert (new.files[0], new.artifacts[-1]) == (old.files[0], old.artifacts[0])
    parity = new.artifacts[0].parity
    assert parity is not None and parity.rows > (len(rows()) if with_sample else len(old.golden.rows))
    assert is_compiled(open_package(made.folder))


def test_compile_package_refuses_what_is_compiled(place: Callable[[str], Path]) -> None:
    """A package that has a compiled form gets no second one, and no version is left behind."""
    package = place("linear")
    store = Store(package.parent.parent)
    with pytest.raises(PackingError, match="linear/1 has a compiled form already"):
        compile_package("linear", None, store, Policy())
    assert store.versions() == {"linear": ["1"]}


def test_compile_package_refuses_sample_of_other_columns(uncompiled: Path, tmp_path: Path) -> None:
    """A sample that lacks a feature is refused by its name."""
    (tmp_path / "rows.csv").write_text("a,colour\n1,red\n")
    with pytest.raises(PackingError, match="no column 'b'"):
        compile_package("linear", None, Store(uncompiled.parent.parent), Policy(), sample_file=tmp_path / "rows.csv")


def test_3_16_compile_package_asks_the_policy(uncompiled: Path) -> None:
    """A pickle that the operator does not allow is not loaded to be compiled."""
    with pytest.raises(UntrustedModel):
        compile_package("linear", None, Store(uncompiled.parent.parent), Policy(pickle=False))
