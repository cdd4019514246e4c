"""The contract of every runtime: it loads what it says it can, answers as the estimator does, and refuses the rest."""

from __future__ import annotations

import gc
import importlib
import io
import pickle
import sys
import warnings
import weakref
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pandas
import pytest
import sklearn
import skops.io
from onnx import TensorProto
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.ensemble import ExtraTreesClassifier, IsolationForest
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from service.compiler.estimators import answer
from service.compiler.plan import Plan, Raw
from service.errors import MissingLibrary, ServiceError, UnreadableModel, UntrustedModel
from service.runtimes import RUNTIMES, Policy, RuntimeModule, Source
from service.signature import Dtype, Feature, Output, Signature
from service.table import Table, table_from_columns

CLASSES = ("no", "yes")
SERVED = Source("it/1", ())
PACKING = Source("it.skops")


def load(runtime: str, content: bytes, source: Source = SERVED, policy: Policy | None = None) -> Any:
    """Load a model from bytes."""
    return RUNTIMES[runtime].load(io.BytesIO(content), source, policy or Policy()).model


# What is loaded: two estimators, in every form that a runtime claims


@cache
def sample() -> Any:
    """60 rows of two numbers and a text; the numbers are exact in float32."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(-64, 64, (60, 2)) / 16
    return pandas.DataFrame(numbers, columns=["a", "b"]).assign(colour=["red", "green", "blue"] * 20)


@cache
def named() -> Any:
    """A classifier of named columns, one of them text."""
    prepare = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["colour"]), (StandardScaler(), ["a", "b"])
    )
    labels = np.where(sample().a + sample().b > 0, "yes", "no")
    return make_pipeline(prepare, LogisticRegression()).fit(sample(), labels)


@cache
def nameless() -> Any:
    """A classifier of an array."""
    numbers = sample()[["a", "b"]].to_numpy()
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(numbers, numbers.sum(axis=1) > 0)


@cache
def trees() -> Any:
    """A forest of named columns, one of them text, whose trees have too many leaves for masks."""
    prepare = make_column_transformer((OrdinalEncoder(), ["colour"]), ("passthrough", ["a", "b"]))
    rows = pandas.concat([sample().assign(a=sample().a + step / 10) for step in range(5)], ignore_index=True)
    return make_pipeline(prepare, ExtraTreesClassifier(5, random_state=0)).fit(rows, ["yes", "no"] * (len(rows) // 2))


def compiled_bytes(model: Any) -> bytes:
    """What the compiler writes, without asking it for a proof."""
    dtypes: tuple[tuple[str, Dtype], ...] = (("a", "float64"), ("b", "float64"), ("colour", "string"))
    features = tuple(Feature(name=name, dtype=dtype) for name, dtype in dtypes)
    plan = Plan(Signature(features=features, outputs=(Output(name="label", dtype="string"),)))
    return plan.bytes(answer(model, Raw(("a", "b", "colour")), plan))


def joblib_bytes(model: Any, **options: Any) -> bytes:
    """What `joblib.dump` writes."""
    target = io.BytesIO()
    joblib.dump(model, target, **options)
    return target.getvalue()


def onnx_bytes(model: Any, inputs: list[tuple[str, type, int]], *, zipmap: bool) -> bytes:
    """Convert a pipeline with skl2onnx, which warns of its own use of old numpy and onnx."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skl2onnx import to_onnx

        types = [(name, kind([None, width])) for name, kind, width in inputs]
        graph = to_onnx(model, initial_types=types, options={id(model): {"zipmap": zipmap}})
    return bytes(graph.SerializeToString())


def onnx_of_tensor(*, zipmap: bool) -> bytes:
    """A graph that takes its features as one tensor."""
    from skl2onnx.common.data_types import FloatTensorType

    return onnx_bytes(integer_labels(), [("rows", FloatTensorType, 2)], zipmap=zipmap)


def onnx_of_columns(*, zipmap: bool) -> bytes:
    """A graph that takes each feature by its name, one of them text."""
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    columns = [("a", FloatTensorType, 1), ("b", FloatTensorType, 1), ("colour", StringTensorType, 1)]
    return onnx_bytes(named(), columns, zipmap=zipmap)


@cache
def integer_labels() -> Any:
    """The array's classifier with labels that ONNX has: whole numbers."""
    numbers = sample()[["a", "b"]].to_numpy()
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(numbers, (numbers.sum(axis=1) > 0) + 3)


@dataclass(frozen=True)
class Specimen:
    """One form of a model: what it is loaded from, and the estimator that it must answer like."""

    suffix: str
    content: Callable[[], bytes]
    model: Callable[[], Any]
    classes: tuple[Any, ...]
    dtypes: tuple[Dtype, ...]
    layout: Any
    compiled: str = ""

    @property
    def runtime(self) -> str:
        """The runtime that claims the suffix; a compiled form has none, and says which runtime opens it."""
        return self.compiled or next(name for name, module in RUNTIMES.items() if self.suffix in module.SUFFIXES)

    @property
    def signature(self) -> Signature:
        features = tuple(
            Feature(name=name, dtype=dtype) for name, dtype in zip(sample().columns, self.dtypes, strict=False)
        )
        return Signature(features=features, outputs=(Output(name="label", dtype="string", classes=self.classes),))

    def inputs(self) -> Any:
        """What the estimator itself is called on."""
        return sample() if "string" in self.dtypes else sample()[["a", "b"]].to_numpy()

    def table(self, start: int, stop: int) -> Table:
        """Some rows, as the service holds them."""
        columns = {name: sample()[name].tolist()[start:stop] for name in self.signature.names}
        return table_from_columns(self.signature, columns)


FRAME: Any = dict(model=named, classes=CLASSES, dtypes=("float64", "float64", "string"), layout="frame")
MATRIX: Any = dict(model=nameless, classes=(False, True), dtypes=("float64", "float64"), layout="matrix")
TENSOR: Any = dict(model=integer_labels, classes=(3, 4), dtypes=("float32", "float32"), layout="tensors")
COLUMNS: Any = dict(model=named, classes=CLASSES, dtypes=("float32", "float32", "string"), layout="tensors")
PLAIN: Any = FRAME | dict(layout="table", compiled="compiled")
TREES: Any = PLAIN | dict(model=trees, compiled="compiled-trees")

SPECIMENS = {
    "joblib": Specimen(".joblib", lambda: joblib_bytes(named()), **FRAME),
    "joblib compressed": Specimen(".joblib", lambda: joblib_bytes(named(), compress=3), **FRAME),
    "joblib of an array's model": Specimen(".joblib", lambda: joblib_bytes(nameless()), **MATRIX),
    "pkl": Specimen(".pkl", lambda: pickle.dumps(named()), **FRAME),
    "pickle of protocol 0": Specimen(".pickle", lambda: pickle.dumps(named(), protocol=0), **FRAME),
    "skops": Specimen(".skops", lambda: skops.io.dumps(named()), **FRAME),
    "skops of an array's model": Specimen(".skops", lambda: skops.io.dumps(nameless()), **MATRIX),
    "onnx of one tensor": Specimen(".onnx", lambda: onnx_of_tensor(zipmap=False), **TENSOR),
    "onnx of one tensor with zipmap": Specimen(".onnx", lambda: onnx_of_tensor(zipmap=True), **TENSOR),
    "onnx of columns": Specimen(".onnx", lambda: onnx_of_columns(zipmap=False), **COLUMNS),
    "onnx of columns with zipmap": Specimen(".onnx", lambda: onnx_of_columns(zipmap=True), **COLUMNS),
    "compiled": Specimen("", lambda: compiled_bytes(named()), **PLAIN),
    "compiled trees": Specimen("", lambda: compiled_bytes(trees()), **TREES),
}


ARCHIVES = {"mlflow": (".mlflow.zip", "MLmodel"), "score": (".score.zip", "score.py")}
"""Runtimes of models that are several files, and the one that each must have; others load them than these tests."""


@cache
def archive_of(name: str) -> bytes:
    """An archive of one file."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(name, "x = 1\n" * 100)
    return target.getvalue()


@cache
def content_of(case: str) -> bytes:
    """A specimen's bytes, made once."""
    return SPECIMENS[case].content()


@pytest.fixture(params=SPECIMENS)
def case(request: pytest.FixtureRequest) -> str:
    """The name of a specimen."""
    return str(request.param)


@pytest.mark.parametrize("suffix", [suffix for module in RUNTIMES.values() for suffix in module.SUFFIXES])
def test_every_suffix_has_a_specimen(suffix: str) -> None:
    """What a runtime claims to load is loaded here, and no other runtime claims it."""
    assert suffix in {specimen.suffix for specimen in SPECIMENS.values()} | {suffix for suffix, _ in ARCHIVES.values()}
    assert [suffix in module.SUFFIXES for module in RUNTIMES.values()].count(True) == 1


@pytest.mark.parametrize("module", sorted({module for runtime in RUNTIMES.values() for module in runtime.IMPORTS}))
def test_imports_can_be_imported(module: str) -> None:
    """The modules that gunicorn's master may import before it forks are there."""
    importlib.import_module(module)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (7, 8), (3, 10), (0, 60)])
def test_answers_equal_the_estimators_own(case: str, start: int, stop: int) -> None:
    """One row or many, labels and probability columns are the estimator's, in its order."""
    specimen = SPECIMENS[case]
    runtime = RUNTIMES[specimen.runtime].bind(
        load(specimen.runtime, content_of(case)), specimen.signature, specimen.layout
    )
    outputs = runtime.predict(specimen.table(start, stop), True)
    inputs = specimen.inputs()[start:stop]
    assert outputs.predictions.tolist() == specimen.model().predict(inputs).tolist()
    assert specimen.model().classes_.tolist() == list(specimen.classes)
    assert outputs.probabilities is not None
    np.testing.assert_allclose(outputs.probabilities[0], specimen.model().predict_proba(inputs), atol=1e-6)


def test_probabilities_are_only_given_where_asked_for(case: str) -> None:
    """Without the wish for probabilities there are none, and the labels are the same."""
    specimen = SPECIMENS[case]
    runtime = RUNTIMES[specimen.runtime].bind(
        load(specimen.runtime, content_of(case)), specimen.signature, specimen.layout
    )
    table = specimen.table(0, 60)
    outputs = runtime.predict(table, False)
    assert outputs.probabilities is None
    assert outputs.predictions.tolist() == runtime.predict(table, True).predictions.tolist()


def test_models_are_freed_without_the_collector(case: str) -> None:
    """Whoever lets go of a model frees it: a worker's collector passes over what was loaded, so cycles would stay."""
    specimen = SPECIMENS[case]
    runtime = RUNTIMES[specimen.runtime].bind(
        load(specimen.runtime, content_of(case)), specimen.signature, specimen.layout
    )
    runtime.predict(specimen.table(0, 10), True)
    held = weakref.ref(runtime)
    parts = vars(runtime).values()
    inner = [weakref.ref(part) for part in parts if hasattr(part, "__weakref__") or getattr(part, "__closure__", None)]
    del parts
    assert inner
    gc.disable()
    try:
        del runtime
        assert held() is None
        assert not [ref() for ref in inner if ref() is not None]
    finally:
        gc.enable()


@pytest.mark.parametrize("case", [case for case, specimen in SPECIMENS.items() if not specimen.compiled])
def test_examine_tells_what_the_model_knows(case: str) -> None:
    """Every form of a model tells its task and, where it has them, its names and labels."""
    specimen = SPECIMENS[case]
    source = Source("it", None)
    facts = RUNTIMES[specimen.runtime].examine(load(specimen.runtime, content_of(case), source))
    asked = case in ("onnx of one tensor", "onnx of columns")  # a plain tensor does not name its columns
    assert facts.task == ("other" if asked else "classification")
    assert facts.names == (specimen.signature.names if specimen.model is named else None)
    assert facts.n_features == len(specimen.signature.names)
    assert facts.classes == (None if asked else (specimen.classes,))
    assert facts.dtypes in (None, specimen.dtypes)


# What every runtime refuses


def whole_file(runtime: str) -> bytes:
    """The first specimen of a runtime."""
    if runtime in ARCHIVES:
        return archive_of(ARCHIVES[runtime][1])
    return content_of(next(case for case, specimen in SPECIMENS.items() if specimen.runtime == runtime))


GARBAGE: dict[str, bytes] = {
    "empty": b"",
    "text": b"a,b\n1,2\n",
    "zeros": bytes(1000),
    "random": np.random.default_rng(0).bytes(1000),
    "zip": b"PK\x03\x04" + bytes(100),
    "gzip": b"\x1f\x8b\x08" + bytes(100),
    "pickle of the future": b"\x80\xff.",
    "pickle of a huge frame": b"\x80\x04\x95" + b"\xff" * 8,
    "html": b"<!DOCTYPE html><title>404</title>",
    "git lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_refuses_what_is_no_model(runtime: str, kind: str) -> None:
    """Whatever is in a file that is no whole model, the runtime calls it unreadable and raises nothing else."""
    with pytest.raises(UnreadableModel, match="it/1"):
        load(runtime, GARBAGE[kind])


@pytest.mark.parametrize("percent", [0.2, *range(5, 100, 5), 99.8])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_refuses_truncated_file(runtime: str, percent: float) -> None:
    """A file that was cut off, wherever it was, is unreadable and raises nothing else."""
    content = whole_file(runtime)
    with pytest.raises(UnreadableModel, match="it/1"):
        load(runtime, content[: int(percent / 100 * len(content))])


@pytest.mark.parametrize(
    ("runtime", "modules"),
    [
        ("joblib", ["joblib"]),
        ("skops", ["skops", "skops.io"]),
        ("onnx", ["onnxruntime"]),
        ("compiled-trees", ["onnxruntime"]),
        ("mlflow", ["mlflow"]),
    ],
)
def test_missing_library_is_named(runtime: str, modules: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the format's own library is not installed, the error names it and where to write it."""
    content = whole_file(runtime)
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingLibrary, match=rf"{modules[0]}.*requirements\.in"):
        load(runtime, content)


@pytest.mark.parametrize("content", [{"model": 1}, [1, 2], "text", None], ids=str)
@pytest.mark.parametrize(("runtime", "dump"), [("joblib", joblib_bytes), ("skops", skops.io.dumps)])
def test_examine_refuses_object_without_predict(runtime: str, dump: Callable[[Any], bytes], content: Any) -> None:
    """A file that holds no estimator is refused with what it holds instead."""
    with pytest.raises(UnreadableModel, match=f"holds a {type(content).__name__}"):
        RUNTIMES[runtime].examine(load(runtime, dump(content)))


# joblib and pickle


@pytest.mark.parametrize("runtime", ARCHIVES)
def test_refuses_an_archive_of_other_files(runtime: str) -> None:
    """An archive without the file that tells what is in it is no model."""
    with pytest.raises(UnreadableModel, match="it/1: the archive holds no .*; pack"):
        load(runtime, archive_of("README.md"))


@pytest.mark.parametrize("runtime", ARCHIVES)
def test_3_17_code_of_its_own_asks_the_policy_first(runtime: str) -> None:
    """Where pickles are not allowed, an archive with a model's own code is not even unpacked."""
    with pytest.raises(UntrustedModel, match="runs its code; allow it with ANYPORT_ALLOW_PICKLE"):
        load(runtime, b"", policy=Policy(pickle=False))


def test_3_17_joblib_asks_the_policy_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Where pickles are not allowed nothing of the file runs."""
    with pytest.raises(UntrustedModel, match="ANYPORT_ALLOW_PICKLE"):
        load("joblib", b"cbuiltins\nprint\n(S'ran'\ntR.", policy=Policy(pickle=False))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("module", ["no_such_library", "sklearn.no_such_module"])
def test_joblib_names_missing_module(module: str) -> None:
    """A pickle of a class whose module is not installed names the module and what to do."""
    with pytest.raises(MissingLibrary, match=rf"module '{module}'.*requirements\.in"):
        load("joblib", f"c{module}\nModel\n.".encode())


@pytest.mark.parametrize("module", ["__main__", "sklearn.linear_model"])
def test_joblib_advises_on_missing_attribute(module: str) -> None:
    """A pickle that names a function of a notebook says where to move it."""
    with pytest.raises(UnreadableModel, match=r"my_function.*notebook or script must move into a module"):
        load("joblib", f"c{module}\nmy_function\n.".encode())


def test_joblib_error_names_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error about a missing function does not say where the module lies on this machine."""
    (tmp_path / "own_module.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnreadableModel, match="gone") as caught:
        load("joblib", b"cown_module\ngone\n.")
    assert str(tmp_path)[:12] not in caught.value.detail


# joblib and skops: files of another scikit-learn, and warnings, whose filters all threads share


def other_version(content: bytes) -> bytes:
    """The same bytes with another scikit-learn version of equal length written into them."""
    here = sklearn.__version__.encode()
    assert here in content
    return content.replace(here, b"0" + here[1:])


def pickle_of_another_version() -> bytes:
    """A pickle as another scikit-learn would have made it."""
    return other_version(pickle.dumps(nameless()))


def skops_of_another_version() -> bytes:
    """A skops file, which is a zip archive with a JSON document, as another scikit-learn would have made it."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(nameless()))) as source, zipfile.ZipFile(target, "w") as altered:
        for name in source.namelist():
            content = source.read(name)
            altered.writestr(name, other_version(content) if name == "schema.json" else content)
    return target.getvalue()


OF_ANOTHER_VERSION = {"joblib": pickle_of_another_version, "skops": skops_of_another_version}


@pytest.mark.parametrize("runtime", OF_ANOTHER_VERSION)
def test_warning_of_another_scikit_learn_reaches_whoever_loads(runtime: str) -> None:
    """A file made with another scikit-learn is loaded with that library's warning: the caller knows what is refused."""
    with pytest.warns(InconsistentVersionWarning, match=rf"from version 0\S+ when using version {sklearn.__version__}"):
        model = load(runtime, OF_ANOTHER_VERSION[runtime]())
    assert model.predict([[1.0, 1.0]]).tolist() == [True]


class Onlooker(BaseEstimator):
    """An estimator that keeps what holds for warnings while it is loaded."""

    def predict(self, rows: Any) -> Any:
        return np.zeros(len(rows))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.seen = [warnings.filters, warnings.showwarning]


ONLOOKER = f"{Onlooker.__module__}.Onlooker"


@pytest.mark.parametrize(("runtime", "write"), [("joblib", joblib_bytes), ("skops", skops.io.dumps)])
def test_loading_leaves_warnings_alone(runtime: str, write: Callable[[Any], bytes]) -> None:
    """While a model is loaded the process's filters of warnings are what they are, for threads predict meanwhile."""
    policy = Policy(skops_types=frozenset([ONLOOKER]))
    model = load(runtime, write(Onlooker()), Source("it/1", (ONLOOKER,)), policy)
    assert [seen is here for seen, here in zip(model.seen, [warnings.filters, warnings.showwarning], strict=True)] == [
        True,
        True,
    ]


# skops


class Sign(ClassifierMixin, BaseEstimator):
    """An estimator that skops does not know."""

    def fit(self, rows: Any, labels: Any) -> Sign:
        self.classes_ = np.array([False, True])
        self.n_features_in_ = 1
        return self

    def predict(self, rows: Any) -> Any:
        return np.asarray(rows)[:, 0] > 0


SIGN = f"{Sign.__module__}.Sign"


def sign_file() -> bytes:
    """A skops file of that estimator."""
    return skops.io.dumps(Sign().fit(None, None))


def test_skops_refuses_unknown_type_while_packing() -> None:
    """While packing, a type that skops does not know is refused with the setting that would trust it."""
    with pytest.raises(UntrustedModel, match=rf"ANYPORT_SKOPS_TRUSTED={SIGN}"):
        load("skops", sign_file(), PACKING)


def test_skops_takes_type_that_the_operator_trusts() -> None:
    """A type that the operator trusts is loaded while packing, and told for the manifest."""
    policy = Policy(skops_types=frozenset([SIGN]))
    loaded = RUNTIMES["skops"].load(io.BytesIO(sign_file()), PACKING, policy)
    assert loaded.model.predict([[1.0]]).tolist() == [True]
    assert loaded.types == (SIGN,)


def test_skops_serves_types_that_manifest_and_operator_trust() -> None:
    """A served file is loaded where manifest and operator both name its type."""
    policy = Policy(skops_types=frozenset([SIGN]))
    model = load("skops", sign_file(), Source("it/1", (SIGN,)), policy)
    assert model.predict([[-1.0]]).tolist() == [False]


def test_3_17_skops_refuses_type_that_the_manifest_does_not_list() -> None:
    """The types come from the manifest and not from the file, though the operator would trust the type."""
    with pytest.raises(UntrustedModel, match="manifest does not list"):
        load("skops", sign_file(), SERVED, Policy(skops_types=frozenset([SIGN])))


@pytest.mark.parametrize("types", [(SIGN,), (SIGN, "os.system")])
def test_3_17_skops_refuses_type_that_the_operator_does_not_trust(types: tuple[str, ...]) -> None:
    """What a manifest lists is not trusted for that."""
    with pytest.raises(UntrustedModel, match="not trusted"):
        load("skops", sign_file(), Source("it/1", types), Policy(skops_types=frozenset(types[1:])))


def test_3_17_skops_needs_no_pickle() -> None:
    """A skops file is loaded where pickles are not allowed."""
    assert load("skops", skops.io.dumps(nameless()), policy=Policy(pickle=False)).n_features_in_ == 2


# ONNX


def graph_of(kind: int, shape: list[Any] | None, *, inputs: int = 1) -> bytes:
    """A graph that answers its first input."""
    names = [f"x{index}" for index in range(inputs)]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x0"], ["y"])],
        "identity",
        [onnx.helper.make_tensor_value_info(name, kind, shape) for name in names],
        [onnx.helper.make_tensor_value_info("y", kind, shape)],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())


def whole_numbers(content: bytes, *names: str) -> tuple[Any, Signature]:
    """Open a graph of whole numbers, with a signature that names its features."""
    features = tuple(Feature(name=name, dtype="int64") for name in names)
    signature = Signature(features=features, outputs=(Output(name="y", dtype="int64"),))
    return RUNTIMES["onnx"].bind(load("onnx", content), signature, "tensors"), signature


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.INT8, TensorProto.COMPLEX64])
def test_onnx_refuses_tensor_type(kind: int) -> None:
    """A graph whose input no feature can be is refused with the types that it may have."""
    with pytest.raises(UnreadableModel):
        load("onnx", graph_of(kind, [None, 2]))


def test_onnx_names_the_tensor_types_that_it_takes() -> None:
    """The refusal names the input, its type, and the types that are taken."""
    with pytest.raises(UnreadableModel, match=r"x0 is a tensor\(float16\).*tensor\(double\)"):
        load("onnx", graph_of(TensorProto.FLOAT16, [None, 2]))


def test_onnx_refuses_tensor_without_shape() -> None:
    """A graph that does not say how many dimensions its input has is refused, and not with an error of Python's."""
    with pytest.raises(ServiceError):
        RUNTIMES["onnx"].examine(load("onnx", graph_of(TensorProto.FLOAT, None)))


def test_onnx_answers_blocks_of_a_fixed_size() -> None:
    """A graph with a fixed first dimension answers any number of rows, and none too many."""
    runtime, signature = whole_numbers(graph_of(TensorProto.INT64, [4, 1]), "n")
    table = table_from_columns(signature, {"n": list(range(10))})
    assert runtime.predict(table, False).predictions.tolist() == list(range(10))


@pytest.mark.parametrize("shape", [[None], [None, 1]], ids=str)
def test_onnx_feeds_every_input_its_own_column(shape: list[Any]) -> None:
    """A graph with several inputs gets each feature under its name, as a vector or as a column."""
    runtime, signature = whole_numbers(graph_of(TensorProto.INT64, shape, inputs=2), "x0", "x1")
    table = table_from_columns(signature, {"x1": [7, 8], "x0": [2**40, 2]})
    assert runtime.predict(table, False).predictions.tolist() == [2**40, 2]


def test_onnx_never_wraps_a_number() -> None:
    """A whole number that does not fit into the graph's 32-bit tensor is not answered as if it were another."""
    runtime, signature = whole_numbers(graph_of(TensorProto.INT32, [None, 1]), "n")
    table = table_from_columns(signature, {"n": [2**32 + 5]})
    with pytest.raises((ServiceError, OverflowError)):
        runtime.predict(table, False)


def test_3_17_onnx_reads_no_file_beside_the_graph() -> None:
    """A graph whose weights lie in another file is refused, for that file was never verified."""
    weights = onnx.helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    weights.ClearField("float_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "passwd", "offset": "0", "length": "4"}.items():
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])],
        "add",
        [onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [weights],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(UnreadableModel, match="external data"):
        load("onnx", model.SerializeToString())


# What an estimator tells about itself


def examine(model: Any) -> Any:
    """Examine an estimator as the joblib runtime does."""
    module: RuntimeModule = RUNTIMES["joblib"]
    return module.examine(model)


@pytest.mark.parametrize(
    ("model", "task"),
    [
        (LogisticRegression(), "classification"),
        (LinearRegression(), "regression"),
        (IsolationForest(n_estimators=2), "outliers"),
        (KMeans(2, n_init=1), "clustering"),
        (make_pipeline(StandardScaler(), LinearRegression()), "regression"),
        (GridSearchCV(LogisticRegression(), {}, cv=2), "classification"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseEstimator) else value,
)
def test_examine_tells_the_task(model: Any, task: str) -> None:
    """The task is scikit-learn's own word for it."""
    assert examine(model.fit(sample()[["a", "b"]], np.arange(60) % 2)).task == task


@pytest.mark.parametrize(
    "model",
    [LogisticRegression(), KMeans(), make_pipeline(StandardScaler(), LinearRegression()), GridSearchCV(KMeans(), {})],
    ids=lambda value: type(value).__name__,
)
def test_examine_refuses_what_was_never_fitted(model: Any) -> None:
    """An estimator that was saved before it was fitted is refused, and the message says so."""
    with pytest.raises(UnreadableModel, match="not fitted"):
        examine(model)


def test_examine_names_libraries_of_every_part() -> None:
    """The libraries are those of the model and of all that it is composed of."""
    from lightgbm import LGBMClassifier

    model = make_pipeline(StandardScaler(), LGBMClassifier(n_estimators=1, verbose=-1))
    model.fit(sample()[["a", "b"]].to_numpy(), np.arange(60) % 2)
    assert examine(model).libraries == ("lightgbm", "numpy", "scikit-learn")


ENCODER = OneHotEncoder()
PREPARATIONS = {
    "by name": make_column_transformer((ENCODER, ["colour"]), ("passthrough", ["a"])),
    "by position": make_column_transformer((ENCODER, [2]), ("passthrough", [0])),
    "by slice": make_column_transformer((ENCODER, slice(2, 3)), ("passthrough", [0])),
    "by mask": make_column_transformer((ENCODER, [False, False, True]), ("passthrough", [0])),
    "behind an imputer": make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OrdinalEncoder()), ["colour"]), ("drop", ["a"])
    ),
    "nested": make_column_transformer((make_column_transformer((ENCODER, ["colour"])), ["b", "colour"])),
}


@pytest.mark.parametrize("way", PREPARATIONS)
def test_examine_finds_categories_of_a_fitted_encoder(way: str) -> None:
    """An encoder's categories are those of its feature, however its columns were selected."""
    model = make_pipeline(PREPARATIONS[way], LogisticRegression()).fit(sample(), np.arange(60) % 2)
    assert examine(model).categories == {"colour": ("blue", "green", "red")}


def test_examine_takes_scalar_column() -> None:
    """A text column selected by a bare position, as text transformers need it, is no obstacle."""
    model = make_pipeline(make_column_transformer((CountVectorizer(), 2), ("passthrough", [0])), LogisticRegression())
    assert examine(model.fit(sample(), np.arange(60) % 2)).names == ("a", "b", "colour")
