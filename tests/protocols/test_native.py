"""The native protocol: both JSON shapes and CSV in, predictions out, errors as problem documents of bounded size."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import (
    DuplicateKey,
    EmptyInstances,
    Fault,
    InvalidCsv,
    InvalidDocument,
    InvalidInstance,
    InvalidInstances,
    InvalidJson,
    MissingField,
    NumberOutOfRange,
    RequestError,
    ServiceError,
    TooManyRows,
    UnknownField,
    UnknownParameter,
    UnsupportedMediaType,
    every_error,
    faults_error,
)
from service.manifest import read_manifest
from service.protocols import json_answer, native
from service.signature import Feature, Label, Output, Signature
from service.table import PredictRequest, PredictResponse

ROOT = Path(__file__).resolve().parent.parent.parent
WIRE = ROOT / "tests" / "wire" / "native"
MAX_ERROR_BYTES = 8192
"""security.md, rule 29."""

PENGUINS = read_manifest("penguins/1", (ROOT / "models/penguins/1/manifest.json").read_bytes()).signature
ONE = Output(name="town", dtype="string", classes=("Oslo", "Rome"))
TWO = Output(name="size", dtype="int64", classes=(1, 2, 3))
NUMBER = Output(name="y", dtype="float64")
FEATURES = (Feature(name="mm", dtype="float64", nullable=True), Feature(name="count", dtype="int64"))
SIGNATURE = Signature(features=FEATURES, outputs=(ONE,))
ROW = {"mm": 1.5, "count": 2}
GOOD = b'{"instances": [{"mm": 1.5, "count": 2}]}'


def decode(
    body: bytes | dict[str, Any],
    content_type: str = "application/json",
    of: Signature = SIGNATURE,
    max_rows: int = 10,
    **parameters: str,
) -> PredictRequest:
    """Decode a request, which may be given as a document."""
    body = json.dumps(body).encode() if isinstance(body, dict) else body
    return native.decode_request(body, content_type, parameters, of, max_rows)


def refusal(*arguments: Any, **parameters: Any) -> RequestError:
    """The error that a request raises."""
    with pytest.raises(RequestError) as caught:
        decode(*arguments, **parameters)
    return caught.value


def columns(request: PredictRequest) -> dict[str, list[Any]]:
    """The columns of a decoded request, as lists that compare equal where NaN stands in both."""
    return {name: [repr(value) for value in column.tolist()] for name, column in request.table.columns.items()}


def response(outputs: tuple[Output, ...], predictions: Any, *probabilities: Any) -> PredictResponse:
    """A response of these outputs, with probabilities if some are given."""
    shares = tuple(map(np.asarray, probabilities)) or None
    return PredictResponse("m", "7", Signature(features=FEATURES, outputs=outputs), np.asarray(predictions), shares)


def encoded(of: PredictResponse) -> dict[str, Any]:
    """The JSON document of a response, without model and version."""
    document = json.loads(native.encode_response(of, "application/json"))
    assert (document.pop("model"), document.pop("version")) == ("m", "7")
    return document


# Golden bodies


@pytest.mark.parametrize(
    ("file", "content_type", "parameters"),
    [
        ("request-instances.json", "application/json", {}),
        ("request-inputs.json", "application/json", {}),
        ("request.csv", "text/csv", {"probabilities": "true"}),
    ],
)
def test_native_decodes_golden_request(file: str, content_type: str, parameters: dict[str, str]) -> None:
    """The golden requests of all three forms are the same two penguins, asked with probabilities."""
    request = decode((WIRE / file).read_bytes(), content_type, PENGUINS, **parameters)
    assert request.probabilities and request.table.n_rows == 2
    assert {name: column.tolist() for name, column in request.table.columns.items()} == {
        "bill_length_mm": [39.1, 46.1],
        "bill_depth_mm": [18.7, 13.2],
        "flipper_length_mm": [181.0, 211.0],
        "body_mass_g": [3750.0, 4500.0],
        "island": ["Torgersen", "Biscoe"],
        "sex": ["male", None],
    }


def test_native_encodes_golden_response() -> None:
    """An answer is the golden response, byte for byte, and reads back as its predictions."""
    shares = (np.array([[0.75, 0.125, 0.125], [0.0, 0.25, 0.75]]),)
    predictions = np.array(["Adelie", "Gentoo"])
    golden = (WIRE / "response.json").read_bytes()
    answer = PredictResponse("penguins", "1", PENGUINS, predictions, shares)
    assert native.encode_response(answer, "application/json") == golden
    assert native.decode_response(golden) == ["Adelie", "Gentoo"]


def test_native_encodes_golden_problem() -> None:
    """A faulty request of two penguins is answered with the golden problem, byte for byte."""
    good = json.loads((WIRE / "request-inputs.json").read_bytes())["inputs"]
    first, second = ({name: values[row] for name, values in good.items()} for row in range(2))
    second["gender"] = second.pop("sex")
    error = refusal({"instances": [first | {"bill_length_mm": "39.1"}, second]}, of=PENGUINS)
    assert native.encode_error(error, "golden-1") == (WIRE / "problem.json").read_bytes()


def test_golden_bodies_name_their_source() -> None:
    """Every golden body is described beside it, with the source and the date it was read."""
    sources = (WIRE / "sources.md").read_text()
    assert "KServe V1 protocol / TF Serving REST; read 2026-11-22" in sources
    assert [path.name for path in WIRE.iterdir() if path.name not in sources] == ["sources.md"]


# Requests in JSON


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [ROW, {"mm": None, "count": 3}]},
        {"instances": [[1.5, 2], [None, 3]]},
        {"instances": [ROW, [None, 3.0]]},
        {"inputs": {"mm": [1.5, None], "count": [2, 3]}},
        {"inputs": {"count": [2, 3], "mm": [1.5, None]}, "parameters": {}},
    ],
)
def test_native_reads_both_shapes(document: dict[str, Any]) -> None:
    """Rows under `instances` and columns under `inputs` make the same table."""
    request = decode(document)
    assert request.table.n_rows == 2 and not request.probabilities
    assert columns(request) == {"mm": ["1.5", "nan"], "count": ["2", "3"]}


@pytest.mark.parametrize(
    ("document", "error", "words"),
    [
        ({}, MissingField, 'send rows as {"instances": [...]} or columns as {"inputs": {...}}'),
        ({"parameters": {}}, MissingField, "send rows"),
        (
            {"rows": []},
            UnknownField,
            "the field 'rows' is not known; known are dataRows, inputs, instances, parameters",
        ),
        ({"Instances": [ROW]}, UnknownField, "the field 'Instances' is not known"),
        ({"instances": [ROW], "more": 1}, UnknownField, "the field 'more' is not known"),
        ({"instances": [ROW], "x" * 10_000: 1}, UnknownField, "the field '" + "x" * 59),
        ({"instances": [ROW], "inputs": {"mm": [1]}}, InvalidDocument, "`instances` and `inputs` are two ways"),
        ({"instances": ROW}, InvalidInstances, "`instances` must be a list"),
        ({"instances": None}, InvalidInstances, "`instances` must be a list"),
        ({"instances": "text"}, InvalidInstances, "`instances` must be a list"),
        ({"inputs": [[1.5, 2]]}, InvalidInstances, "`inputs` must be an object"),
        ({"inputs": None}, InvalidInstances, "`inputs` must be an object"),
        ({"instances": []}, EmptyInstances, "0 rows were sent; send at least 1"),
        ({"inputs": {}}, EmptyInstances, "0 rows were sent"),
        ({"inputs": {"mm": [], "count": []}}, EmptyInstances, "0 rows were sent"),
        ({"instances": [ROW] * 11}, TooManyRows, "11 rows were sent and one request may have 10; split it"),
        ({"inputs": {"mm": [1.5] * 11, "count": [2]}}, TooManyRows, "11 rows were sent"),
        ({"inputs": {"mm": [1.5], "count": [2], "more": [0] * 11}}, TooManyRows, "11 rows were sent"),
        ({"instances": [ROW], "parameters": []}, InvalidDocument, "`parameters` must be an object"),
        ({"instances": [ROW], "parameters": {"x": True}}, UnknownParameter, "the parameter 'x' is not known"),
        ({"instances": [ROW], "parameters": {"probabilities": "true"}}, UnknownParameter, "must be true or false"),
        ({"instances": [ROW], "parameters": {"probabilities": 1}}, UnknownParameter, "must be true or false"),
        ({"instances": [ROW], "parameters": {"probabilities": None}}, UnknownParameter, "must be true or false"),
        ({"instances": [1]}, InvalidInstance, "expected an object or a list, found the number 1"),
        ({"instances": [[[1.5], 2]]}, InvalidInstance, "expected a number, found a list"),
    ],
)
def test_1_4_native_refuses_other_documents(document: dict[str, Any], error: type[RequestError], words: str) -> None:
    """Every field of the document is checked, and an unknown one is refused."""
    found = refusal(document)
    assert type(found) is error
    assert words in found.detail


@pytest.mark.parametrize("body", [b"[]", b"[[1.5, 2]]", b'"instances"', b"1", b"null", b"true"])
def test_native_refuses_a_document_that_is_no_object(body: bytes) -> None:
    """A document that is no object is refused with an example of one."""
    found = refusal(body)
    assert type(found) is InvalidDocument
    assert '{"instances": [...]}' in found.detail


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", InvalidJson),
        (b"mm,count\n1.5,2\n", InvalidJson),
        (b'{"instances": [{"mm": NaN, "count": 2}]}', InvalidJson),
        (b'{"instances": [{"mm": 1.5, "mm": 1.5, "count": 2}]}', DuplicateKey),
        (b'{"instances": [], "instances": []}', DuplicateKey),
        (b'{"instances": [{"mm": 1e400, "count": 2}]}', NumberOutOfRange),
        (b'{"instances": [{"mm": 1.5, "count": 1e400}]}', NumberOutOfRange),
        (b'{"instances": [{"mm": %s, "count": 2}]}' % (b"1" * 10_000), NumberOutOfRange),
        (b'{"instances": [%s]}' % (b"[" * 100_000), TooManyRows),
        (b'{"instances": %s}' % (b"[" * 80 + b"]" * 80), InvalidInstance),
    ],
    ids=range(10),
)
def test_1_4_native_is_strict_about_json(body: bytes, error: type[RequestError]) -> None:
    """What strict JSON refuses, a request may not hold anywhere."""
    assert type(refusal(body)) is error


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=2))
def test_native_damaged_request_stays_what_it_says(cut: int, inserted: bytes) -> None:
    """A request that is cut is refused; one with other bytes in it is refused, or read as the JSON that it now is."""
    assert type(refusal(GOOD[:cut])) is InvalidJson
    damaged = GOOD[:cut] + inserted + GOOD[cut:]
    try:
        request = decode(damaged)
    except RequestError:
        return
    [row] = json.loads(damaged)["instances"]
    assert columns(request) == {"mm": [repr(float(row["mm"]))], "count": [repr(int(row["count"]))]}


# Parameters


@pytest.mark.parametrize(
    ("query", "body", "wanted"),
    [
        ({}, {}, False),
        ({"probabilities": "true"}, {}, True),
        ({"probabilities": "false"}, {}, False),
        ({}, {"probabilities": True}, True),
        ({}, {"probabilities": False}, False),
        ({"probabilities": "true"}, {"probabilities": True}, True),
    ],
)
def test_native_reads_parameters(query: dict[str, str], body: dict[str, bool], wanted: bool) -> None:
    """Probabilities are asked for in the query or in the document."""
    assert decode({"instances": [ROW], "parameters": body}, **query).probabilities is wanted


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"probabilities": "True"}, "the parameter 'probabilities' must be true or false"),
        ({"probabilities": "1"}, "the parameter 'probabilities' must be true or false"),
        ({"probabilities": ""}, "the parameter 'probabilities' must be true or false"),
        ({"probabilities ": "true"}, "the parameter 'probabilities ' is not known; known is `probabilities`"),
        ({"": "true"}, "the parameter '' is not known"),
        ({"x" * 1000: "true"}, "the parameter '" + "x" * 59),
    ],
)
@pytest.mark.parametrize(("body", "content_type"), [(GOOD, "application/json"), (b"mm,count\n1,2\n", "text/csv")])
def test_native_refuses_other_parameters(query: dict[str, str], words: str, body: bytes, content_type: str) -> None:
    """A query parameter that is unknown, or neither true nor false, is refused under every media type."""
    found = refusal(body, content_type, **query)
    assert type(found) is UnknownParameter
    assert found.detail.startswith(words) and len(found.detail) < 300


@pytest.mark.parametrize("outputs", [(NUMBER,), (ONE, NUMBER)])
def test_native_refuses_probabilities_that_there_are_not(outputs: tuple[Output, ...]) -> None:
    """Probabilities are refused where an output has no classes, and asking for none is not."""
    of = Signature(features=FEATURES, outputs=outputs)
    assert type(refusal(GOOD, of=of, probabilities="true")) is UnknownParameter
    assert not decode(GOOD, of=of, probabilities="false").probabilities


# Media types


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "APPLICATION/JSON",
        " application/json ",
        "application/json;",
        "application/json; charset=utf-8",
        "application/json;charset=UTF8",
        'application/json; charset="UTF-8"',
        "application/json; charset=us-ascii; profile=x",
        "application/json; Charset = utf-8",
        "application/vnd.api+json",
        "application/problem+json; charset=utf-8",
    ],
)
def test_native_reads_json_by_its_media_type(content_type: str) -> None:
    """JSON in UTF-8 is read under its own name and under every name that ends in +json."""
    assert decode(GOOD, content_type).table.n_rows == 1


@pytest.mark.parametrize(
    "content_type", ["text/csv", "Text/CSV; header=present", "text/csv;charset=utf-8", 'text/csv; charset="us-ascii"']
)
def test_native_reads_csv_by_its_media_type(content_type: str) -> None:
    """CSV in UTF-8 is read under its own name."""
    assert columns(decode(b"mm,count\n1.5,2\n", content_type)) == {"mm": ["1.5"], "count": ["2"]}


@pytest.mark.parametrize(
    ("content_type", "words"),
    [
        ("", "there is no Content-Type; send Content-Type: application/json or text/csv"),
        (";charset=utf-8", "there is no Content-Type"),
        ("text/plain", "'text/plain' is not accepted; send Content-Type: application/json or text/csv"),
        ("text/json", "'text/json' is not accepted"),
        ("text/x+json", "'text/x+json' is not accepted"),
        ("json", "'json' is not accepted"),
        ("application/x-www-form-urlencoded", "'application/x-www-form-urlencoded' is not accepted"),
        ("multipart/form-data; boundary=x", "'multipart/form-data' is not accepted"),
        ("application/xml", "'application/xml' is not accepted"),
        ("application/x-npy", "'application/x-npy' is not accepted"),
        ("application/json, text/csv", "'application/json, text/csv' is not accepted"),
        ("application/json charset=utf-8", "'application/json charset=utf-8' is not accepted"),
        ("application/json; charset=utf-16", "the charset 'utf-16' is not accepted; send UTF-8"),
        ("application/json; charset=latin-1", "the charset 'latin-1' is not accepted"),
        ("application/json; charset=", "the charset '' is not accepted"),
        ("text/csv; charset=utf-8; charset=utf-16", "the charset 'utf-16' is not accepted"),
        ("x" * 10_000, "'" + "x" * 59),
    ],
)
def test_1_8_native_refuses_other_media_types(content_type: str, words: str) -> None:
    """An absent or other media type, a form's among them, and every charset but UTF-8 is refused."""
    found = refusal(GOOD, content_type)
    assert type(found) is UnsupportedMediaType
    assert found.detail.startswith(words)
    assert len(found.detail) < 300


def test_native_does_not_take_json_for_csv() -> None:
    """A body is read as what its media type says, and nothing is guessed from its first byte."""
    assert isinstance(refusal(GOOD, "text/csv"), RequestError)
    assert type(refusal(b"a\n\x00\xff", "text/csv")) is InvalidCsv


# Responses


@pytest.mark.parametrize(
    ("output", "predictions", "document"),
    [
        (NUMBER, np.array([1.5, -2]), [1.5, -2.0]),
        (NUMBER, np.array([0.1], "float32"), [float(np.float32(0.1))]),
        (TWO, np.array([1, -2]), [1, -2]),
        (Output(name="ok", dtype="bool"), np.array([True, False]), [True, False]),
        (ONE, np.array(["Oslo", "é"]), ["Oslo", "é"]),
        (ONE, np.array(["Oslo", None], object), ["Oslo", None]),
    ],
)
def test_native_writes_predictions(output: Output, predictions: Any, document: list[Any]) -> None:
    """A model with one output answers one plain value a row."""
    assert encoded(response((output,), predictions)) == {"predictions": document}


def test_native_writes_several_outputs() -> None:
    """A model with several outputs answers a list a row and names the outputs."""
    predictions = np.array([["Oslo", 1], ["Rome", 3]], object)
    document = {"predictions": [["Oslo", 1], ["Rome", 3]], "outputs": ["town", "size"]}
    assert encoded(response((ONE, TWO), predictions)) == document


def test_native_writes_probabilities() -> None:
    """Probabilities are one list a row, in the order of the classes."""
    document = {"predictions": ["Oslo"], "probabilities": [[0.75, 0.25]], "classes": ["Oslo", "Rome"]}
    assert encoded(response((ONE,), ["Oslo"], [[0.75, 0.25]])) == document


def test_native_writes_probabilities_of_several_outputs() -> None:
    """With several outputs, a row has one list of probabilities for each, and so have the classes."""
    predictions = np.array([["Oslo", 3], ["Rome", 1]], object)
    answer = response((ONE, TWO), predictions, [[0.75, 0.25], [0.5, 0.5]], [[0, 0, 1], [1, 0, 0]])
    assert encoded(answer) == {
        "predictions": [["Oslo", 3], ["Rome", 1]],
        "outputs": ["town", "size"],
        "probabilities": [[[0.75, 0.25], [0, 0, 1]], [[0.5, 0.5], [1, 0, 0]]],
        "classes": [["Oslo", "Rome"], [1, 2, 3]],
    }


@pytest.mark.parametrize("labels", [(False, True), (0, 1), ("0", "1")])
def test_native_keeps_the_type_of_labels(labels: tuple[Label, ...]) -> None:
    """Labels that are booleans, numbers or text stay that in `classes`."""
    output = Output(name="y", dtype="string", classes=labels)
    assert repr(encoded(response((output,), ["x"], [[0.5, 0.5]]))["classes"]) == repr(list(labels))


def test_native_writes_csv() -> None:
    """An answer in CSV has the same predictions and probabilities, in columns."""
    answer = native.encode_response(response((ONE,), ["Oslo"], [[0.75, 0.25]]), "text/csv")
    assert answer == b"town,probability_Oslo,probability_Rome\nOslo,0.75,0.25\n"


NAMES = st.text(st.characters(max_codepoint=0x7F) | st.characters(exclude_categories=["Cs"]), max_size=4)
LABELS = NAMES | st.text(st.characters(), max_size=4)
SHARES = st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 1) | st.sampled_from([0.0, 1.0, 1e-5, 1e16])
PREDICTIONS: dict[str, st.SearchStrategy[Any]] = {
    "text": LABELS,
    "object": LABELS | st.none() | st.booleans() | st.integers() | SHARES,
    "float64": SHARES,
    "float32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
}


@st.composite
def answers(draw: st.DrawFn) -> PredictResponse:
    """An answer of any kind: labels or numbers, of one output or two, with or without probabilities."""
    n_rows, several = draw(st.integers(1, 4)), draw(st.booleans())
    kind = draw(st.sampled_from(list(PREDICTIONS)))
    labels = draw(st.none() | st.lists(NAMES | st.booleans() | SHARES, min_size=1, max_size=3).map(tuple))
    outputs = tuple(Output(name=draw(NAMES.filter(bool)), dtype="string", classes=labels) for _ in range(1 + several))
    size = n_rows * len(outputs)
    cells = draw(st.lists(PREDICTIONS[kind], min_size=size, max_size=size))
    predictions = np.array(cells, None if kind == "text" else kind).reshape((n_rows, 2) if several else n_rows)
    if labels is None or draw(st.booleans()):
        return response(outputs, predictions)
    shares = np.array(draw(st.lists(SHARES, min_size=n_rows * len(labels), max_size=n_rows * len(labels))))
    return response(outputs, predictions, *[shares.reshape(n_rows, len(labels))] * len(outputs))


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(answers())
def test_native_answer_is_what_json_writes(answer: PredictResponse) -> None:
    """An answer of any kind is, byte for byte, what the standard library writes of the same document."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_answer, "encode_ascii", lambda _: None)
        expected = native.encode_response(answer, "application/json")
    assert native.encode_response(answer, "application/json") == expected
    assert json.loads(expected)["predictions"] == answer.predictions.tolist()
    assert json.dumps(json.loads(expected), separators=(",", ":")).encode() + b"\n" == expected


@pytest.mark.parametrize(
    "answer",
    [
        response((ONE,), ["Oslo", "Rome"], [[0.75, 0.25], [1e-9, 1.0]]),
        response((ONE,), np.array(["Oslo"], object)),
        response((TWO,), [1, 2]),
        response((NUMBER,), [0.5, -1e-9]),
        response((NUMBER, NUMBER), [[0.5, 1.5]]),
    ],
    ids=["text", "objects", "integers", "floats", "several"],
)
def test_native_writes_usual_answers_at_once(answer: PredictResponse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels and numbers, with or without probabilities, never go through the standard library's encoder."""
    answer.signature.once(json_answer._written_classes)
    monkeypatch.delattr(json_answer, "write_json")
    assert json.loads(native.encode_response(answer, "application/json"))["predictions"] == answer.predictions.tolist()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_native_writes_no_number_that_is_none(value: float) -> None:
    """NaN and infinity are never written into a JSON answer."""
    with pytest.raises(ValueError):
        native.encode_response(response((NUMBER,), [value]), "application/json")


@pytest.mark.parametrize("probabilities", [False, True])
def test_native_client_half_writes_requests(probabilities: bool) -> None:
    """What the client half writes is read with the same rows and the same wish for probabilities."""
    request = decode(native.encode_request([ROW, [None, 3]], probabilities=probabilities))
    assert request.probabilities is probabilities
    assert columns(request) == {"mm": ["1.5", "nan"], "count": ["2", "3"]}


# Errors


@pytest.mark.parametrize("error", every_error())
def test_5_29_native_writes_every_error(error: type[ServiceError]) -> None:
    """Every error is a problem document with type, title, status, detail and request id."""
    document = json.loads(native.encode_error(error("do this"), "id-1"))
    assert document == {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": "do this",
        "request_id": "id-1",
    }


def test_native_writes_faults() -> None:
    """A fault has its type and detail, and its row and feature where it has them; row 0 is a row."""
    faults = [Fault("missing-feature", "x"), Fault("invalid-instance", "y", 0, "mm")]
    document = json.loads(native.encode_error(faults_error(faults, 2), "id-1"))
    assert document["errors"] == [
        {"type": "/problems/missing-feature", "detail": "x"},
        {"type": "/problems/invalid-instance", "row": 0, "feature": "mm", "detail": "y"},
    ]


@pytest.mark.parametrize("sign", ["x", "é", "😀", '"', "\\", "'", "\x00", "\x7f", "\ud83d", "<", "ﷺ"], ids=ascii)
@pytest.mark.parametrize("place", ["unknown feature", "value", "closed value", "own name", "column", "field"])
def test_5_29_native_error_stays_below_eight_kib(sign: str, place: str) -> None:
    """The largest error that a request can cause has at most 8 KB, whatever signs the client sends."""
    long = [sign * 300 + str(number) for number in range(30)]
    plain = sign.encode("utf-8", "replace").decode() * 200
    own = Signature(features=tuple(Feature(name=f"{plain}{n}", dtype="float64") for n in range(30)), outputs=(NUMBER,))
    closed = Feature(name=plain, dtype="string", categories=tuple(plain + str(n) for n in range(30)), closed=True)
    requests: dict[str, tuple[dict[str, Any], Signature]] = {
        "unknown feature": ({"instances": [ROW | dict.fromkeys(long, 1)]}, SIGNATURE),
        "value": ({"instances": [[text, text] for text in long]}, SIGNATURE),
        "closed value": ({"instances": long}, Signature(features=(closed,), outputs=(NUMBER,))),
        "own name": ({"instances": [{}, {}]}, own),
        "column": ({"inputs": {"mm": [1], "count": [1]} | {text: [1] for text in long}}, SIGNATURE),
        "field": ({"instances": [ROW]} | dict.fromkeys(long, 1), SIGNATURE),
    }
    document, of = requests[place]
    error = refusal(document, of=of, max_rows=100)
    assert len(native.encode_error(error, "r" * 128)) <= MAX_ERROR_BYTES


@pytest.mark.parametrize("content_type", ["application/json", "text/csv"])
def test_native_error_is_json_that_everyone_reads(content_type: str) -> None:
    """An error that repeats half a surrogate pair of the client is still made of characters."""
    body = b'{"instances": [{"mm": 1, "count": 2, "\\ud83d": 3}]}' if content_type != "text/csv" else b"\x00\n"
    document = json.loads(native.encode_error(refusal(body, content_type), "id-1"))
    json.dumps(document, ensure_ascii=False).encode()


def test_native_error_lists_twenty_faults_of_plain_text() -> None:
    """Twenty faults with names of ordinary length are all listed."""
    error = refusal({"instances": [["x", "y"]] * 10})
    assert len(json.loads(native.encode_error(error, "id-1"))["errors"]) == 20
