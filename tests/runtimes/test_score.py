"""Scripts with `init()` and `run()`: called as Azure ML calls them, each alone, and gone when nobody needs them."""

from __future__ import annotations

import gc
import io
import os
import sys
import tempfile
import threading
import weakref
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import MissingLibrary, UnreadableModel
from service.manifest import Layout
from service.runtimes import Policy, Source, score
from service.runtimes.base import Runtime
from service.runtimes.score import find_script
from service.signature import Feature, Output, Signature
from service.table import Table, table_from_rows

SERVED = Source("it/1", ())
SIGNATURE = Signature(
    features=(
        Feature(name="a", dtype="float64", nullable=True),
        Feature(name="n", dtype="int64"),
        Feature(name="word", dtype="string", nullable=True),
    ),
    outputs=(Output(name="prediction", dtype="float64"),),
)
OBJECTS = '{"data": [{"a": 1.5, "n": 2, "word": "x"}, {"a": null, "n": 3, "word": null}]}'
LISTS = '{"data": [[1.5, 2, "x"], [null, 3, null]]}'
PLAIN = """
import json, os
def init():
    global factor, folder
    folder = os.getenv("AZUREML_MODEL_DIR")
    with open(os.path.join(folder, "factor.json")) as stream:
        factor = json.load(stream)
def run(raw_data):
    rows = json.loads(raw_data)["data"]
    return [row["n"] * factor for row in rows]
"""


@pytest.fixture(autouse=True)
def unpacked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where archives are unpacked."""
    folder = tmp_path / "unpacked"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def archive(script: str, name: str = "score.py", **files: str) -> bytes:
    """An archive of a script and other files."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        for path, text in {name: script, "factor.json": "10", **{f"{k}.py": v for k, v in files.items()}}.items():
            made.writestr(path, text)
    return target.getvalue()


def start(script: str, *, source: Source = SERVED, layout: Layout = "frame", **files: str) -> Runtime:
    """Load a script and bind it."""
    return score.bind(score.load(io.BytesIO(archive(script, **files)), source, Policy()).model, SIGNATURE, layout)


def table() -> Table:
    """Two rows of the signature, the second with gaps."""
    return table_from_rows(SIGNATURE, [[1.5, 2, "x"], [None, 3, None]])


def answers(script: str, layout: Layout = "frame") -> list[Any]:
    """What a script answers to two rows."""
    predictions: list[Any] = start(script, layout=layout).predict(table(), False).predictions.tolist()
    return predictions


def script(parameters: str, body: str) -> str:
    """A script whose `run()` has these parameters and does this."""
    return f"import json\ndef init(): pass\ndef run({parameters}):\n    {body}\n"


# How it is called


def test_it_finds_its_folder_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """`init()` reads beside the script; then the environment, path and modules of the process are as they were."""
    monkeypatch.setenv("AZUREML_MODEL_DIR", "/theirs")
    path = list(sys.path)
    assert answers(PLAIN) == [20, 30]
    assert os.environ["AZUREML_MODEL_DIR"] == "/theirs"
    assert sys.path == path
    assert not [name for name in sys.modules if name.startswith("anyport_score")]


@pytest.mark.parametrize(("layout", "expected"), [("frame", OBJECTS), ("matrix", LISTS)])
def test_plain_run_gets_the_text_of_a_request(layout: Layout, expected: str) -> None:
    """Without decorators `run()` gets JSON text, its rows as objects or as lists; what is missing is null."""
    assert answers(script("raw_data", "return [raw_data, str(type(raw_data))]"), layout) == [expected, "<class 'str'>"]


@pytest.mark.parametrize(
    ("parameters", "rest"),
    [
        ("Inputs", {}),
        ("Inputs, GlobalParameters", {"GlobalParameters": {"method": "predict"}}),
        ("Inputs, GlobalParameters=1.0", {"GlobalParameters": 1.0}),
        ("GlobalParameters, Inputs", {"GlobalParameters": {"method": "predict"}}),
        ("Inputs, request_headers", {"request_headers": {}}),
    ],
)
@pytest.mark.parametrize("layout", ["frame", "matrix"])
def test_typed_run_gets_values(
    monkeypatch: pytest.MonkeyPatch, layout: Layout, parameters: str, rest: dict[str, Any]
) -> None:
    """With inference-schema's decorators `run()` gets its parameters by name, as AutoML declares them."""
    typed(monkeypatch)
    import json

    text = answers(script(parameters, "return [json.dumps(locals(), sort_keys=True), '']"), layout)[0]
    expected = json.loads(OBJECTS if layout == "frame" else LISTS)
    assert json.loads(text) == {"Inputs": expected} | rest


def test_typed_run_of_the_first_contract_gets_the_rows_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no parameter is called Inputs, the first one is the rows."""
    typed(monkeypatch)
    assert answers(script("data, method='predict'", "return [f'{row} {method}' for row in data]"), "matrix") == [
        "[1.5, 2, 'x'] predict",
        "[None, 3, None] predict",
    ]


def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let inference-schema, which is no requirement of the tests, say that it decorated `run()`."""
    schema = SimpleNamespace(is_schema_decorated=lambda run: True)
    monkeypatch.setitem(sys.modules, "inference_schema.schema_util", schema)


def test_one_call_at_a_time() -> None:
    """A script that was written for one thread is not called by two."""
    busy = script(
        "raw_data",
        "import time\n    global calls\n    calls = globals().get('calls', 0) + 1\n    together = calls\n"
        "    time.sleep(0.02)\n    calls -= 1\n    return [together]",
    )
    runtime, found = start(busy), []
    threads = [
        threading.Thread(target=lambda: found.extend(runtime.predict(table(), False).predictions.tolist()))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 5


# What it answers


@pytest.mark.parametrize(
    "answer",
    [
        "[1.5, 2]",
        "(1.5, 2)",
        "'[1.5, 2]'",
        "{'Results': [1.5, 2]}",
        "{'predictions': [1.5, 2], 'model': 'x'}",
        "{'result': [1.5, 2]}",
        "{'prediction': [1.5, 2]}",
        "json.dumps({'result': [1.5, 2]})",
    ],
)
def test_predictions_are_found_in_every_form(answer: str) -> None:
    """A list, an object with one of the known names, and the JSON text of either."""
    assert answers(script("raw_data", f"return {answer}")) == [1.5, 2.0]


@pytest.mark.parametrize("values", [["a", "b"], [True, False], [1, 2], [[1, 2], [3, 4]], [["a", "b"], ["c", "d"]]])
def test_predictions_keep_their_type(values: list[Any]) -> None:
    """Texts, truths, whole numbers and rows of several outputs come as they are."""
    found = answers(script("raw_data", f"return {values!r}"))
    assert repr(found) == repr(values)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("None", "answered NoneType; a list"),
        ("3", "answered int; a list"),
        ("{'error': 'no'}", "an object with error; one of Results, predictions, result, prediction is needed"),
        ("{'result': [1, 2], 'Results': [1, 2]}", "an object with result, Results; one of"),
        ("{'result': {'0': 1}}", "answered dict; a list"),
        ("'it failed'", "Expecting value"),
        ("[None, 1]", "a list of NoneType, int"),
        ("[1, 'a']", "a list of int, str"),
        ("[True, 1]", "a list of bool, int"),
        ("[[1], [1, 2]]", "a list of list"),
        ("[{'a': 1}, {'a': 2}]", "a list of dict"),
        ("[]", "a list of nothing"),
    ],
)
def test_other_answers_are_errors(answer: str, says: str) -> None:
    """What is no prediction for each row is refused in words, whatever it is."""
    with pytest.raises(ValueError, match=says):
        answers(script("raw_data", f"return {answer}"))


# Which file it is


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["score.py", "scoring_file_v_2_0_0.py"], "score.py"),
        (["scoring_file_v_1_0_0.py", "scoring_file_v_2_0_0.py"], "scoring_file_v_2_0_0.py"),
        (["scoring_file_v_9_0_0.py", "scoring_file_v_10_0_0.py"], "scoring_file_v_10_0_0.py"),
        (["scoring_file_pbi_v_1_0_0.py", "main.py"], None),
    ],
)
def test_the_script_is_found(tmp_path: Path, names: list[str], expected: str | None) -> None:
    """`score.py` before AutoML's own, of which the newest contract counts and the one for Power BI does not."""
    for name in names:
        (tmp_path / name).touch()
    found = find_script(tmp_path)
    assert (None if found is None else found.name) == expected


# What is refused


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("x = 1", "must define init\\(\\) and run\\(\\)"),
        ("def init(): pass\nrun = 3", "must define init\\(\\) and run\\(\\)"),
        ("def init(): pass\ndef run(): return []", "takes no rows"),
        ("def init(): pass\ndef run(request_headers): return []", "takes no rows"),
        ("def init(): pass\ndef run(data, secret): return []", "takes 'secret' beside the rows"),
        ("def init(): 1 / 0\ndef run(data): return []", "score.py failed .* in init\\(\\): ZeroDivisionError"),
        ("import sys\nsys.exit(3)", "score.py failed while it was imported .*: SystemExit"),
        ("def (", "score.py failed while it was imported .*: SyntaxError"),
    ],
)
def test_broken_scripts_are_refused(code: str, says: str, unpacked_to: Path) -> None:
    """What is wrong with a script is said, and nothing of it stays behind."""
    with pytest.raises(UnreadableModel, match=f"it/1: .*{says}"):
        start(code)
    assert not list(unpacked_to.iterdir())
    assert not [name for name in sys.modules if name.startswith("anyport_score")]


def test_a_missing_library_is_named() -> None:
    """A script that needs inference-schema, or anything that is not there, says what to write where."""
    with pytest.raises(MissingLibrary, match=r"module 'no_such_schema'.*requirements\.in"):
        start("from no_such_schema.schema_decorators import input_schema")


def test_what_an_error_says_is_for_whoever_packs() -> None:
    """While packing the script's own words are told; from a package, whose log has them, only their kind."""
    code = "def init(): open('/no/such/model.pkl')\ndef run(data): return []"
    with pytest.raises(UnreadableModel, match="FileNotFoundError: .*/no/such/model.pkl"):
        start(code, source=Source("it"))
    with pytest.raises(UnreadableModel, match="FileNotFoundError$"):
        start(code)


# How it goes


def test_two_versions_stand_side_by_side() -> None:
    """Each script has its own globals and its own neighbours, also where they have the same names."""
    code = "import own_steps\ndef init(): pass\ndef run(data): return own_steps.answer()"
    one = start(code, own_steps="def answer(): return [1, 1]")
    two = start(code, own_steps="def answer(): return [2, 2]")
    assert [r.predict(table(), False).predictions.tolist() for r in (one, two, one)] == [[1, 1], [2, 2], [1, 1]]


def test_it_is_freed_with_all_that_it_holds(unpacked_to: Path) -> None:
    """Whoever lets go of a script frees what `init()` loaded, without the collector, and its folder is removed."""
    code = "class Model: pass\n" + PLAIN.replace(
        "global factor, folder", "global model, factor, folder\n    model = Model()"
    )
    model = score.load(io.BytesIO(archive(code)), SERVED, Policy()).model
    runtime = score.bind(model, SIGNATURE, "frame")
    assert runtime.predict(table(), False).predictions.tolist() == [20, 30]
    inner = weakref.ref(model.held["model"])
    assert len(list(unpacked_to.iterdir())) == 1
    gc.disable()
    try:
        del model, runtime
        assert inner() is None
    finally:
        gc.enable()
    assert not list(unpacked_to.iterdir())


def test_it_tells_which_libraries_it_holds() -> None:
    """The libraries of what is imported and loaded are recorded: another version of them may answer differently."""
    code = (
        "import json\nimport numpy as np\nfrom sklearn.linear_model import LinearRegression\n"
        "def init():\n    global models\n    models = {'one': LinearRegression()}\ndef run(data): return [1, 1]"
    )
    model = score.load(io.BytesIO(archive(code)), Source("it"), Policy()).model
    facts = score.examine(model)
    assert (facts.libraries, facts.task, facts.layouts) == (("numpy", "scikit-learn"), "other", ("frame", "matrix"))
