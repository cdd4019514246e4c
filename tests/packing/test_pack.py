"""Packing: what it refuses without leaving a trace, and what it finds out about a model that it takes."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pandas
import pytest
import sklearn
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, mean_absolute_error, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from service.errors import (
    InvalidInstance,
    MissingLibrary,
    PackageError,
    PackingError,
    ServiceError,
    UnreadableModel,
    VersionSkew,
)
from service.packing import Choices, Packed, pack
from service.packing.sample import read_sample
from service.packing.statistics import measure_quality, settle_task, target_values
from service.predictor import Predictor
from service.protocols.csv_body import read_csv
from service.runtimes import Policy
from service.signature import LARGEST_FLOAT32, Feature
from service.store import Store
from service.table import PredictRequest, table_from_rows
from tests.conftest import ROOT
from tests.misfits import Misfit
from tests.runtimes.test_runtimes import OF_ANOTHER_VERSION

PENGUINS = (ROOT / "examples" / "penguins" / "penguins.csv").read_text()
PENGUINS_MODEL = ROOT / "models" / "penguins" / "1" / "model.joblib"
HEADER, *LINES = PENGUINS.splitlines()
SPECIES: dict[str, Any] = {"targets": ("species",), "drop": ("year",)}


def listing(folder: Path) -> dict[str, str]:
    """Everything below a folder, hidden things too: each file with its checksum."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


# Models to pack, each fitted once on the same 40 rows


def rows() -> Any:
    """40 rows: whole numbers, numbers with gaps, a colour, and two targets."""
    size = np.arange(40)
    weight = pandas.Series(size * 0.5 + 1).where(size % 10 != 3)
    colour = np.array(["red", "green", "blue"])[size % 3]
    kind = np.where(size % 4 < 2, "heavy", "light")
    return pandas.DataFrame({"size": size, "weight": weight, "colour": colour, "kind": kind, "price": size * 3.5 + 2})


def lookup(frame: Any) -> Any:
    """Translate colours by a dictionary, as people do by hand: it knows no other and tells nobody which."""
    known = {"red": 0, "green": 1, "blue": 2}
    return np.array([[known[colour]] for colour in frame.iloc[:, 0]])


def numbers() -> Any:
    """A classifier that takes no missing value."""
    return LogisticRegression().fit(rows()[["size", "price"]], rows().kind)


def array() -> Any:
    """A classifier of three columns without names."""
    return LogisticRegression().fit(np.arange(12).reshape(4, 3), [0, 1, 0, 1])


def whole_categories() -> Any:
    """A classifier of a category that is written as a number."""
    inputs = pandas.DataFrame({"grade": [1, 2, 3, 4] * 10, "size": range(40)})
    prepare = make_column_transformer((OneHotEncoder(), ["grade"]), ("passthrough", ["size"]))
    return make_pipeline(prepare, LogisticRegression()).fit(inputs, rows().kind)


def by_dictionary() -> Any:
    """A regressor whose known colours nobody can read from it."""
    prepare = make_column_transformer((FunctionTransformer(lookup), ["colour"]), ("passthrough", ["size"]))
    return make_pipeline(prepare, LinearRegression()).fit(rows()[["colour", "size"]], rows().price)


def graph() -> bytes:
    """An ONNX graph that answers its one number, and so no probabilities."""
    shape = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 1])
    answer = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 1])
    nodes = [onnx.helper.make_node("Identity", ["x"], ["y"])]
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "it", [shape], [answer]), opset_imports=opset)
    model.ir_version = 9
    return bytes(model.SerializeToString())


def graph_with_labels() -> bytes:
    """An ONNX graph whose probabilities are a dictionary by label."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # skl2onnx warns of its own use of numpy and onnx
        from skl2onnx import to_onnx

        return bytes(to_onnx(array(), np.zeros((1, 3), "float32")).SerializeToString())


MODELS: dict[str, Callable[[], Any]] = {
    "dict": lambda: {"model": numbers()},
    "number": lambda: 3,
    "class": lambda: LogisticRegression,
    "unfitted": lambda: LogisticRegression(),
    "unfitted pipeline": lambda: make_pipeline(SimpleImputer(), LogisticRegression()),
    "numbers": numbers,
    "array": array,
    "whole categories": whole_categories,
    "by dictionary": by_dictionary,
    "graph": graph,
    "graph with labels": graph_with_labels,
}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where a model of the table lies; `penguins` is the committed one."""
    folder = tmp_path_factory.mktemp("models")

    def file(name: str) -> Path:
        if name == "penguins":
            return PENGUINS_MODEL
        model = MODELS[name]()
        path = folder / f"{name.replace(' ', '-')}{'.onnx' if isinstance(model, bytes) else '.joblib'}"
        if isinstance(model, bytes):
            path.write_bytes(model)
        else:
            joblib.dump(model, path)
        return path

    return file


TryPack = Callable[..., Packed]


@pytest.fixture
def try_pack(tmp_path: Path, store: Store, model_file: Callable[[str], Path]) -> TryPack:
    """Pack a model with the text or the bytes of a sample into the store with the demo."""

    def packer(model: str | Path, sample: str | bytes, *, policy: Policy | None = None, **said: Any) -> Packed:
        path = tmp_path / "sample.csv"
        path.write_bytes(sample if isinstance(sample, bytes) else sample.encode())
        names = {key: said.pop(key) for key in ("name", "version") if key in said}
        source = model if isinstance(model, Path) else model_file(model)
        return pack(source, path, store, policy or Policy(), Choices(**said), **{"name": "new"} | names)

    return packer


# What is refused


@dataclass(frozen=True)
class Refusal:
    """A sample and flags that a model cannot be packed with, and what the message must say."""

    says: str
    sample: str | bytes = PENGUINS
    model: str = "penguins"
    said: dict[str, Any] = field(default_factory=dict)
    error: type[ServiceError] = PackingError


def with_line(line: str) -> str:
    """The penguins with one more line."""
    return f"{PENGUINS}{line}\n"


ROWS = rows().to_csv(index=False)

REFUSALS = {
    # the sample as a file
    "empty file": Refusal("is empty", ""),
    "blank lines": Refusal("is empty", "\n\n"),
    "header only": Refusal("a header and no row", HEADER + "\n"),
    "semicolons": Refusal("separated by semicolons: say --separator ';'", PENGUINS.replace(",", ";")),
    "tabs": Refusal("separated by tabs: say --separator", PENGUINS.replace(",", "\t")),
    "vertical bars": Refusal("separated by vertical bars", PENGUINS.replace(",", "|")),
    "not UTF-8": Refusal(
        "not UTF-8 at byte.*iconv", PENGUINS.replace("Torgersen", "Tørgersen").encode("latin1"), said=SPECIES
    ),
    "UTF-16": Refusal("not UTF-8", PENGUINS.encode("utf-16")),
    "short row": Refusal("row 346 of the sample .* has 2 cells and the header 8", with_line("Adelie,Torgersen")),
    "long row": Refusal("row 346 of the sample .* has 9 cells", with_line(LINES[0] + ",1")),
    "open quote": Refusal("is not CSV", with_line('Adelie,"Torgersen')),
    "duplicate header": Refusal("names 'island' twice", PENGUINS.replace("year", "island", 1)),
    # the sample against the model
    "missing column": Refusal(
        "fitted on the column 'sex'.*the sample does not have; it has species", PENGUINS.replace(",sex,", ",gender,", 1)
    ),
    "column spelt otherwise": Refusal(
        "did you mean 'bill_length'", PENGUINS.replace("bill_length_mm", "bill_length", 1)
    ),
    "column of another case": Refusal("did you mean 'Island'", PENGUINS.replace(",island,", ",Island,", 1)),
    "text for numbers": Refusal(
        "cannot predict the sample.*'heavy'.*--dtype", with_line("Adelie,Dream,heavy,1,1,1,male,1")
    ),
    "text for numbers under --dtype": Refusal(
        "expected a number, found the text 'heavy'",
        with_line("Adelie,Dream,heavy,1,1,1,male,1"),
        said={"dtypes": {"bill_length_mm": "float64"}},
        error=InvalidInstance,
    ),
    "too many columns": Refusal("fitted on 3 columns without names and the sample has 5", ROWS, "array"),
    "too few columns": Refusal("without names and the sample has 2", "a,b\n1,2\n", "array"),
    "a very long name over a column": Refusal("name", f"{'x' * 300},a,b\n0,1,2\n1,2,3\n", "array"),
    "a number of 5,000 digits": Refusal("", f"size,price\n1,2\n2,{'9' * 5000}\n", "numbers", error=ServiceError),
    "every row has a gap": Refusal("miss", "size,price\n1,\n,2\n", "numbers"),
    "target of one class": Refusal(
        "'species' has the same value in every row",
        "\n".join([HEADER, *(line for line in LINES if line.startswith("Adelie"))]),
        said=SPECIES,
    ),
    # the flags
    "unknown target": Refusal(
        "--target names the column 'specie',.*did you mean 'species'", said={"targets": ("specie",)}
    ),
    "unknown drop": Refusal("--drop names the column 'yeer',.*did you mean 'year'", said={"drop": ("yeer",)}),
    "unknown dtype": Refusal("--dtype names the column 'mass'", said={"dtypes": {"mass": "float64"}}),
    "unknown nullable": Refusal("--nullable names the column 'nope'", said={"nullable": ("nope",)}),
    "unknown optional": Refusal("--optional names the column 'nope'", said={"optional": ("nope",)}),
    "unknown categories": Refusal("--categories names the column 'nope'", said={"categories": {"nope": ("a",)}}),
    "nullable that the model does not take": Refusal(
        "takes no missing value in 'size'.*leave out --nullable", ROWS, "numbers", {"nullable": ("size",)}
    ),
    "optional that the model does not take": Refusal(
        "takes no missing value in 'price'", ROWS, "numbers", {"optional": ("price",)}
    ),
    "closed categories unknown": Refusal("--categories colour=A,B,C", ROWS, "by dictionary"),
    "categories that are no whole numbers": Refusal(
        "grade", "grade,size\n1,1\n2,2\n3,3\n", "whole categories", {"categories": {"grade": ("a", "b")}}
    ),
    "classes that are none": Refusal("--classes", "a,b,c\n0,1,2\n3,4,5\n", "array", {"classes": ("no", "yes")}),
    "too many classes": Refusal(
        "--classes names 3 labels", ROWS, "numbers", {"classes": ("heavy", "light", "other"), "targets": ("kind",)}
    ),
    "classes in another order": Refusal(
        "name the classes in the order", ROWS, "numbers", {"classes": ("light", "heavy"), "targets": ("kind",)}
    ),
    "classes of a graph without probabilities": Refusal("--classes", "x\n1\n2\n", "graph", {"classes": ("no", "yes")}),
    "classes that a graph names otherwise": Refusal(
        "--classes", "a,b,c\n0,1,2\n3,4,5\n", "graph with labels", {"classes": ("5", "6")}
    ),
    "layout of a graph": Refusal("tensors", ROWS, "numbers", {"layout": "tensors"}),
    # the model file
    "dictionary": Refusal("holds a dict, which has no predict", ROWS, "dict", error=UnreadableModel),
    "number": Refusal("holds a int, which has no predict", ROWS, "number", error=UnreadableModel),
    "class": Refusal("the model", ROWS, "class"),
    "unfitted": Refusal("not fitted", ROWS, "unfitted", error=UnreadableModel),
    "unfitted on one column": Refusal("not fitted", "a\n1\n2\n", "unfitted", error=UnreadableModel),
    "unfitted pipeline": Refusal("not fitted", ROWS, "unfitted pipeline", error=UnreadableModel),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_pack_refuses(try_pack: TryPack, models_dir: Path, case: str) -> None:
    """What cannot be packed is refused with what to do, and the models folder stays exactly as it was."""
    refusal = REFUSALS[case]
    before = listing(models_dir)
    with pytest.raises(refusal.error, match=f"(?s){refusal.says}"):
        try_pack(refusal.model, refusal.sample, **refusal.said)
    assert listing(models_dir) == before


FILES = {
    "suffix unknown": ("model.h5", b"", PackingError, "ends in none of .joblib, .pkl"),
    "suffix absent": ("model", b"", PackingError, "ends in none of"),
    "model missing": ("missing.joblib", None, PackingError, "missing.joblib cannot be read: No such file"),
    "model a folder": (".joblib", None, PackingError, "cannot be read|ends in none of"),
    "model garbage": ("garbage.joblib", b"garbage", UnreadableModel, "damaged or not a pickle"),
    "model of another suffix": ("it.skops", PENGUINS_MODEL.read_bytes(), UnreadableModel, "not a skops file"),
    "model of a missing library": ("it.pkl", b"cno_such_library\nModel\n.", MissingLibrary, "no_such_library"),
}


@pytest.mark.parametrize("case", FILES)
def test_pack_refuses_model_file(try_pack: TryPack, models_dir: Path, tmp_path: Path, case: str) -> None:
    """A model file that is not there, of no known kind or unreadable is refused, and nothing is left behind."""
    name, content, error, says = FILES[case]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    before = listing(models_dir)
    with pytest.raises(error, match=says):
        try_pack(tmp_path / name, PENGUINS, **SPECIES)
    assert listing(models_dir) == before


@pytest.mark.parametrize(
    ("name", "version"), [("../x", "1"), ("New", "1"), ("new", "../1"), ("penguins", "1"), ("x" * 65, None)]
)
def test_pack_refuses_name_before_anything_else(
    try_pack: TryPack, models_dir: Path, name: str, version: str | None
) -> None:
    """A name or version that is malformed or taken is refused, and nothing is left behind."""
    before = listing(models_dir)
    with pytest.raises(PackingError, match="--name|--version"):
        try_pack("penguins", PENGUINS, name=name, version=version, **SPECIES)
    assert listing(models_dir) == before


def test_pack_refuses_missing_sample(store: Store, models_dir: Path, tmp_path: Path) -> None:
    """A sample that is not there is refused, and nothing is left behind."""
    before = listing(models_dir)
    with pytest.raises(PackingError, match="absent.csv cannot be read: No such file"):
        pack(PENGUINS_MODEL, tmp_path / "absent.csv", store, Policy(), Choices(), name="new")
    assert listing(models_dir) == before


def test_pack_refuses_pickle_that_the_policy_does_not_allow(try_pack: TryPack, models_dir: Path) -> None:
    """The operator's policy holds while packing too."""
    before = listing(models_dir)
    with pytest.raises(PackageError, match="ANYPORT_ALLOW_PICKLE"):
        try_pack("penguins", PENGUINS, policy=Policy(pickle=False), **SPECIES)
    assert listing(models_dir) == before


SUFFIXES = {"joblib": ".pkl", "skops": ".skops"}
PAIRS = "a,b\n" + "".join(f"{number},{-number / 2}\n" for number in range(-20, 20))


@pytest.fixture(params=OF_ANOTHER_VERSION)
def older_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model of two numbers as another scikit-learn would have saved it."""
    path = tmp_path / f"older{SUFFIXES[request.param]}"
    path.write_bytes(OF_ANOTHER_VERSION[request.param]())
    return path


def test_pack_refuses_model_of_another_scikit_learn(try_pack: TryPack, models_dir: Path, older_file: Path) -> None:
    """A file made with another scikit-learn is refused with both versions and the two ways to mend it."""
    before = listing(models_dir)
    says = rf"older\S+ was made with scikit-learn 0\S+ and here is {sklearn.__version__}; .*scikit-learn==0"
    with pytest.raises(VersionSkew, match=says):
        try_pack(older_file, PAIRS)
    assert listing(models_dir) == before


def test_manifest_records_the_version_that_the_model_was_made_with(
    try_pack: TryPack, store: Store, older_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Packed under the policy `warn`, such a file has its own version in the manifest, by which workers refuse it."""
    with caplog.at_level(logging.WARNING):
        manifest = try_pack(older_file, PAIRS, policy=Policy(skew="warn")).manifest
    assert f"here is {sklearn.__version__}" in caplog.text
    assert manifest.libraries["scikit-learn"] == "0" + sklearn.__version__[1:]
    assert manifest.environment["scikit-learn"] == sklearn.__version__
    with pytest.raises(VersionSkew, match="new/1 was made with scikit-learn 0"):
        store.open(manifest, Policy(), manifest.artifacts[-1])


def test_pack_shows_other_warnings(try_pack: TryPack, tmp_path: Path) -> None:
    """What a model's library warns of while it is loaded, the user sees."""
    joblib.dump(Misfit("import warnings; warnings.warn('of another age')", numbers()), tmp_path / "it.joblib")
    with pytest.warns(UserWarning, match="of another age"):
        try_pack(tmp_path / "it.joblib", "size,price\n1,2\n3,4\n4,5\n")


def test_pack_refuses_model_that_only_this_process_can_open(
    try_pack: TryPack, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose class a fresh process cannot import is refused after it was staged, and nothing is left behind."""
    (tmp_path / "only_here.py").write_text(
        "from sklearn.linear_model import LinearRegression\n\n\nclass Own(LinearRegression):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    only_here = importlib.import_module("only_here")
    joblib.dump(only_here.Own().fit(rows()[["size"]], rows().price), tmp_path / "own.joblib")
    before = listing(models_dir)
    with pytest.raises(PackingError, match="fresh process.*'only_here'"):
        try_pack(tmp_path / "own.joblib", ROWS, targets=("price",))
    assert listing(models_dir) == before


# What is found out: two models packed once, as two versions of one name


@dataclass(frozen=True)
class Fitted:
    """An estimator, its package, and the sample that it was packed with."""

    model: Any
    sample: Any
    packed: Packed
    store: Store

    def feature(self, name: str) -> Feature:
        """A feature by its name."""
        return next(f for f in self.packed.manifest.signature.features if f.name == name)

    def answers(self, table: Any) -> list[Any]:
        """What the package answers, opened anew."""
        manifest = self.packed.manifest
        runtime = self.store.open(manifest, Policy())
        answers: list[Any] = Predictor(manifest, runtime).predict(PredictRequest(table)).predictions.tolist()
        return answers


@pytest.fixture(scope="module")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An empty models folder for the module."""
    yield Store(tmp_path_factory.mktemp("packed") / "models")


@pytest.fixture(scope="module")
def forest(new_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A forest behind an encoder and an imputer; its sample spells gaps as NA and lacks the colour blue."""
    folder = tmp_path_factory.mktemp("forest")
    prepare = make_column_transformer(
        (OneHotEncoder(), ["colour"]), (SimpleImputer(), ["weight"]), ("passthrough", ["size"])
    )
    model = make_pipeline(prepare, RandomForestClassifier(5, max_depth=2, random_state=0))
    model.fit(rows()[["colour", "weight", "size"]], rows().kind)
    joblib.dump(model, folder / "My Forest!.joblib")
    sample = rows()[rows().colour != "blue"].assign(comment="none", day=range(27))
    sample.to_csv(folder / "sample.csv", index=False, na_rep="NA")
    choices = Choices(targets=("kind",), drop=("price",), optional=("weight",))
    packed = pack(folder / "My Forest!.joblib", folder / "sample.csv", new_store, Policy(), choices)
    return Fitted(model, sample, packed, new_store)


@pytest.fixture(scope="module")
def line(forest: Fitted, new_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A regressor, packed after the forest under its name."""
    folder = tmp_path_factory.mktemp("line")
    sample = rows()[["size", "price"]].assign(price=lambda frame: frame.price + frame["size"] % 3)
    model = LinearRegression().fit(sample[["size"]], sample.price)
    joblib.dump(model, folder / "line.joblib")
    sample.to_csv(folder / "sample.csv", index=False)
    choices = Choices(targets=("price",))
    packed = pack(folder / "line.joblib", folder / "sample.csv", new_store, Policy(), choices, name="my-forest")
    return Fitted(model, sample, packed, new_store)


def test_name_comes_from_the_file(forest: Fitted) -> None:
    """Without a name the file's is taken, in plain characters."""
    assert forest.packed.manifest.name == "my-forest"


def test_versions_increment(forest: Fitted, line: Fitted, new_store: Store) -> None:
    """Without a version the next whole number is taken, and the newest is active."""
    assert (forest.packed.manifest.version, line.packed.manifest.version) == ("1", "2")
    assert new_store.versions() == {"my-forest": ["1", "2"]}
    assert new_store.active("my-forest") == "2"


@pytest.mark.usefixtures("forest", "line")
def test_nothing_but_packages_is_left(new_store: Store, forest: Fitted) -> None:
    """After packing the folder holds a manifest and the model's forms for each version and nothing else."""
    folder = forest.packed.folder.parent.parent
    assert sorted(path for path, kind in listing(folder).items() if kind != "folder") == [
        "my-forest/1/compiled.npz",
        "my-forest/1/manifest.json",
        "my-forest/1/model.joblib",
        "my-forest/2/compiled.npz",
        "my-forest/2/manifest.json",
        "my-forest/2/model.joblib",
    ]


def test_manifest_on_disk_is_the_one_returned(forest: Fitted, new_store: Store) -> None:
    """What `pack` returns is what the store reads."""
    assert new_store.manifest("my-forest", "1") == forest.packed.manifest


def test_dtypes_are_those_of_read_csv(forest: Fitted) -> None:
    """A whole-number column without gaps is int64, one of numbers with gaps float64, and text is text."""
    assert {f.name: f.dtype for f in forest.packed.manifest.signature.features} == {
        "colour": "string",
        "weight": "float64",
        "size": "int64",
    }


def test_nullable_is_what_has_gaps_and_may_have_them(forest: Fitted) -> None:
    """A feature is nullable where the sample misses it and the model takes that."""
    assert [f.name for f in forest.packed.manifest.signature.features if f.nullable] == ["weight"]


def test_spelling_of_missing_values_is_learnt(forest: Fitted) -> None:
    """What the sample spells as NA is null in a CSV body too, and answered like null."""
    signature = forest.packed.manifest.signature
    assert signature.missing == ("", "NA")
    table = read_csv(b"colour,weight,size\nred,NA,3\nred,,3\n", signature, 10)
    null = table_from_rows(signature, [["red", None, 3]])
    assert forest.answers(table) == forest.answers(null) * 2


def test_closed_categories_come_from_the_encoder(forest: Fitted) -> None:
    """The known values are those that the encoder was fitted on, not those of the sample."""
    colour = forest.feature("colour")
    assert colour.closed
    assert colour.categories == ("blue", "green", "red")
    assert "blue" not in set(forest.sample.colour)


def test_category_that_the_sample_lacks_is_answered(forest: Fitted) -> None:
    """A value that the model knows is answered though the sample never had it."""
    table = table_from_rows(forest.packed.manifest.signature, [["blue", 1.0, 2]])
    inputs = pandas.DataFrame({"colour": ["blue"], "weight": [1.0], "size": [2]})
    assert forest.answers(table) == forest.model.predict(inputs).tolist()


def test_unseen_category_is_refused(forest: Fitted) -> None:
    """A value that the model does not know is refused with the known ones, before the model sees it."""
    with pytest.raises(InvalidInstance, match="'violet' is not a known value; known are blue, green, red") as caught:
        table_from_rows(forest.packed.manifest.signature, [["violet", 1.0, 2]])
    assert caught.value.code == "invalid-instance"


def test_1_6_float32_limit_is_found(forest: Fitted) -> None:
    """A forest computes in float32, so a number beyond that is out of range, and the largest one is answered."""
    assert forest.feature("weight").largest == pytest.approx(3.4e38, rel=0.01)
    signature = forest.packed.manifest.signature
    assert forest.answers(table_from_rows(signature, [["red", LARGEST_FLOAT32 * 0.99, 2]])) in (["heavy"], ["light"])
    with pytest.raises(ServiceError) as caught:
        table_from_rows(signature, [["red", 3.5e38, 2]])
    assert caught.value.code == "number-out-of-range"


def test_optional_feature_may_be_left_out(forest: Fitted) -> None:
    """A row may leave an optional feature out, and is answered as with null."""
    signature = forest.packed.manifest.signature
    left_out = table_from_rows(signature, [{"colour": "red", "size": 3}])
    assert forest.answers(left_out) == forest.answers(table_from_rows(signature, [["red", None, 3]]))


def test_optional_column_may_be_left_out_of_csv(forest: Fitted) -> None:
    """A CSV body may leave an optional feature's column out."""
    table = read_csv(b"size,colour\n3,red\n", forest.packed.manifest.signature, 10)
    assert len(forest.answers(table)) == 1


def test_range_and_example_come_from_the_sample(forest: Fitted) -> None:
    """A feature's range is the sample's, and its example stands in a row of it."""
    size = forest.feature("size")
    assert (size.minimum, size.maximum) == (0, 39)
    example = forest.packed.manifest.signature.example()
    assert example == {"colour": "red", "weight": 1.0, "size": 0}


def test_unused_columns_are_noted(forest: Fitted, line: Fitted) -> None:
    """Columns that the model was not fitted on, and nobody dropped, are told; the others are not."""
    (note,) = forest.packed.notes
    assert note.endswith("passed over: comment, day")
    assert line.packed.notes == ()


def test_classifier_is_measured_by_accuracy(forest: Fitted) -> None:
    """A classifier's metric is scikit-learn's accuracy on the sample."""
    expected = accuracy_score(forest.sample.kind, forest.model.predict(forest.sample[["colour", "weight", "size"]]))
    assert forest.packed.manifest.task == "classification"
    assert forest.packed.manifest.metrics == {"accuracy": pytest.approx(expected, abs=1e-6)}
    assert 0.3 < expected < 1


def test_regressor_is_measured_by_its_errors(line: Fitted) -> None:
    """A regressor's metrics are scikit-learn's r2 and mean absolute error on the sample."""
    answers = line.model.predict(line.sample[["size"]])
    assert line.packed.manifest.task == "regression"
    assert line.packed.manifest.metrics == {
        "r2": pytest.approx(r2_score(line.sample.price, answers), abs=1e-6),
        "mean_absolute_error": pytest.approx(mean_absolute_error(line.sample.price, answers), abs=1e-6),
    }


def test_outputs_are_named_after_the_target(forest: Fitted, line: Fitted) -> None:
    """An output has its target's name, its type, and a classifier's labels in their order."""
    (kind,), (price,) = forest.packed.manifest.signature.outputs, line.packed.manifest.signature.outputs
    assert (kind.name, kind.dtype, kind.classes) == ("kind", "string", ("heavy", "light"))
    assert (price.name, price.dtype, price.classes) == ("price", "float64", None)


def test_cost_is_measured(forest: Fitted) -> None:
    """Time and memory were measured in a process that had the model open."""
    cost = forest.packed.manifest.cost
    assert list(cost.microseconds) == ["1", "8", "64"]
    assert all(time > 0 for time in cost.microseconds.values())
    assert cost.process_mib > 20
    assert cost.model_mib >= 0


def test_statistics_describe_the_sample(forest: Fitted) -> None:
    """Every feature is described: gaps, the middle of numbers, the shares of words."""
    statistics = forest.packed.manifest.statistics
    assert list(statistics) == ["colour", "weight", "size"]
    assert statistics["weight"].missing_share == pytest.approx(forest.sample.weight.isna().mean(), abs=1e-6)
    assert statistics["size"].mean == pytest.approx(forest.sample["size"].mean())
    assert statistics["colour"].shares == {
        "red": pytest.approx(14 / 27, abs=1e-6),
        "green": pytest.approx(13 / 27, abs=1e-6),
    }


def test_golden_rows_hold_hard_cases(forest: Fitted) -> None:
    """Among the golden rows are gaps and numbers beyond the sample, and all are answered as when packed."""
    golden = forest.packed.manifest.golden
    assert any(None in row for row in golden.rows)
    assert any(row[2] > 39 for row in golden.rows)
    assert len(golden.rows) == len(golden.predictions) == len(golden.probabilities or ())
    Predictor(forest.packed.manifest, forest.store.open(forest.packed.manifest, Policy())).replay()


def test_manifest_records_the_libraries(forest: Fitted) -> None:
    """The manifest names the libraries that the pickle cannot do without, and the Python it was made with."""
    assert list(forest.packed.manifest.libraries) == ["numpy", "scikit-learn"]
    assert {"python", "machine", "pandas"} <= set(forest.packed.manifest.environment)


def test_manifest_names_no_path(forest: Fitted) -> None:
    """A package can be given away: its manifest says nothing of where it was made."""
    text = (forest.packed.folder / "manifest.json").read_text()
    assert "/tmp" not in text
    assert json.loads(text)["files"][0]["name"] == "model.joblib"


# Samples that are not perfect


def test_rows_with_gaps_that_the_model_cannot_miss_are_left_out(try_pack: TryPack) -> None:
    """Rows of the sample that miss what the model cannot miss are left out, and told."""
    packed = try_pack("numbers", "size,price\n1,2\n2,\n3,4\n4,5\nNA,6\n")
    assert any("left out 2 rows" in note for note in packed.notes)
    assert not any(feature.nullable for feature in packed.manifest.signature.features)


def test_categories_of_whole_numbers_may_be_said(try_pack: TryPack) -> None:
    """Categories said by --categories have the type of their feature."""
    sample = "grade,size\n" + "".join(f"{index % 4 + 1},{index}\n" for index in range(40))
    packed = try_pack("whole categories", sample, categories={"grade": ("1", "2", "3", "4")})
    assert packed.manifest.signature.features[0].categories == (1, 2, 3, 4)


@pytest.mark.parametrize("character", ["\u2028", "\u0085", "\x0b", "\x0c", "\x1c"], ids=ascii)
def test_sample_splits_rows_only_at_line_ends(tmp_path: Path, character: str) -> None:
    """A character within a cell that only Unicode takes for a line end, and CSV does not, stays in its cell."""
    path = tmp_path / "sample.csv"
    path.write_text(f"review,liked\ngood{character}thing,1\n", encoding="utf-8", newline="")
    assert read_sample(path, ",").columns == {"review": [f"good{character}thing"], "liked": ["1"]}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=ascii)
def test_sample_keeps_line_ends_in_quotes(tmp_path: Path, end: str) -> None:
    """A line end within a quoted cell stays as it is, whatever ends the rows."""
    path = tmp_path / "sample.csv"
    path.write_text(f'review,liked{end}"good{end}thing",1{end}', encoding="utf-8-sig", newline="")
    assert read_sample(path, ",").columns == {"review": [f"good{end}thing"], "liked": ["1"]}


@pytest.mark.parametrize(
    ("cells", "predicted", "expected"),
    [
        (["yes", "NA", "no", ""], ["yes", "no", "no", "no"], ["yes", None, "no", None]),
        (["1", "0", "", "1"], [1, 0, 0, 0], [1, 0, None, 1]),
        (["1.5", "NA"], [1.0, 2.0], [1.5, None]),
        (["true", "false"], [True, False], [True, False]),
        (["1", "0"], ["1", "0"], ["1", "0"]),
        (["1.0", "2.0"], ["1.0", "2.0"], ["1.0", "2.0"]),
        (["True", "False"], ["True", "False"], ["True", "False"]),
    ],
    ids=str,
)
def test_target_has_the_type_of_the_predictions(
    tmp_path: Path, cells: list[str], predicted: list[Any], expected: list[Any]
) -> None:
    """The target's values have the type that the model predicts, so that they can be compared; gaps are None."""
    path = tmp_path / "sample.csv"
    path.write_text("target,x\n" + "".join(f"{cell},1\n" for cell in cells))
    assert target_values(read_sample(path, ","), "target", np.array(predicted)) == expected


def test_outputs_of_two_types_are_each_measured_as_their_own(tmp_path: Path) -> None:
    """Where one output is text and another a number, each is compared with a target of its own type."""
    path = tmp_path / "sample.csv"
    path.write_text("kind,grade\nheavy,1\nlight,2\n")
    predictions = np.array([["heavy", 1], ["light", 2]], dtype=object)
    sample = read_sample(path, ",")
    truths = [target_values(sample, target, predictions[:, i]) for i, target in enumerate(("kind", "grade"))]
    metrics = measure_quality("classification", ["kind", "grade"], truths, predictions)
    assert metrics == {"kind_accuracy": 1, "grade_accuracy": 1}


def test_gap_is_no_second_class(tmp_path: Path) -> None:
    """A target of one class is refused though some of its cells are missing."""
    path = tmp_path / "sample.csv"
    path.write_text("target,x\nyes,1\nNA,1\n,1\n")
    truth = target_values(read_sample(path, ","), "target", np.array(["yes", "no", "no"]))
    with pytest.raises(PackingError, match="same value in every row"):
        settle_task("classification", ["target"], [truth])
