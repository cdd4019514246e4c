"""The Open Inference Protocol: tensors by column or by row, in JSON or in bytes, and its one kind of error."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import (
    EmptyInstances,
    Fault,
    InvalidDocument,
    InvalidHeader,
    InvalidInstances,
    MissingFeature,
    MissingField,
    RequestError,
    TooManyRows,
    UnknownField,
    UnknownParameter,
    every_error,
)
from service.protocols import openinference
from service.signature import Feature, Output, Signature
from service.table import PredictRequest, PredictResponse
from tests.protocols.test_native import PENGUINS, ROOT

WIRE = ROOT / "tests" / "wire" / "openinference"
FOUR = Signature(
    features=tuple(Feature(name=name, dtype="float64", nullable=True) for name in ("sl", "sw", "pl", "pw")),
    outputs=(Output(name="species", dtype="int64", classes=(0, 1, 2)),),
)
MIXED = Signature(
    features=(
        Feature(name="mm", dtype="float64", nullable=True),
        Feature(name="count", dtype="int64"),
        Feature(name="ok", dtype="bool"),
        Feature(name="town", dtype="string"),
    ),
    outputs=(Output(name="y", dtype="float64"), Output(name="z", dtype="string")),
)
MM, COUNT, OK, TOWN = (
    {"name": "mm", "shape": [1], "datatype": "FP64", "data": [1.5]},
    {"name": "count", "shape": [1], "datatype": "INT64", "data": [2]},
    {"name": "ok", "shape": [1], "datatype": "BOOL", "data": [True]},
    {"name": "town", "shape": [1], "datatype": "BYTES", "data": ["Rome"]},
)
GOOD = [MM, COUNT, OK, TOWN]


def decode(body: Any, of: Signature = MIXED, max_rows: int = 10, **said: str) -> PredictRequest:
    """Decode a body, or a document."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return openinference.decode_request(
        sent, "", {key.replace("_", "-"): value for key, value in said.items()}, of, max_rows
    )


def rows(request: PredictRequest) -> list[list[Any]]:
    """The rows that were read, with None for what is missing."""
    columns = [request.table.cells(name) for name in request.table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def binary(tensors: list[tuple[dict[str, Any], bytes]], **fields: Any) -> tuple[bytes, str]:
    """Write a request whose tensors follow its JSON; return it and the length of the JSON."""
    inputs = [tensor | {"parameters": {"binary_data_size": len(data)}} for tensor, data in tensors]
    text = json.dumps({"inputs": inputs} | fields).encode()
    return text + b"".join(data for _, data in tensors), str(len(text))


def elements(datatype: str, values: list[Any]) -> bytes:
    """Write a tensor's elements as the binary extension has them."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value.encode())) + value.encode() for value in values)
    return np.array(values, openinference.BINARY[datatype]).tobytes()


def test_columns_are_read_as_in_the_example() -> None:
    """A tensor a feature, in either shape and any fitting datatype, in any order; null is a missing value."""
    request = decode((WIRE / "request-columns.json").read_bytes(), PENGUINS)
    assert request.probabilities and request.wishes == openinference.Wishes("asked-1", None)
    found = [dict(zip(request.table.columns, row, strict=True)) for row in rows(request)]
    assert [(row["bill_length_mm"], row["body_mass_g"], row["island"], row["sex"]) for row in found] == [
        (39.1, 3750.0, "Torgersen", "male"),
        (46.1, 4500.0, "Biscoe", None),
    ]


def test_rows_are_read_as_in_the_example() -> None:
    """One tensor of whole rows, whatever its name, is read in signature order."""
    request = decode((WIRE / "request-rows.json").read_bytes(), FOUR)
    assert rows(request) == [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
    assert request.wishes.outputs == ("species",) and not request.probabilities


def test_answer_is_written_as_in_the_example() -> None:
    """Each output is a tensor under its name, and the id is the request's."""
    shares = (np.array([[0.75, 0.125, 0.125], [0.25, 0.25, 0.5]]),)
    response = PredictResponse(
        "penguins", "1", PENGUINS, np.array(["Adelie", "Gentoo"]), shares, openinference.Wishes("asked-1", None)
    )
    written = openinference.encode_response(response, "application/json")
    assert json.loads(written) == json.loads((WIRE / "response.json").read_bytes())


def test_error_is_written_as_in_the_example() -> None:
    """An error is one text, which tells every fault and the request's id."""
    error = MissingFeature("'sex' is missing", faults=[Fault("missing-feature", "'sex' is missing", 0, "sex")])
    written = openinference.encode_error(error, "asked-1")
    assert json.loads(written) == json.loads((WIRE / "error.json").read_bytes())


@pytest.mark.parametrize("kind", every_error())
def test_error_is_small_however_much_is_wrong(kind: Any) -> None:
    """Errors stay under 8 KB even of texts that ASCII writes with twelve signs a character."""
    faults = [Fault("invalid-instance", "\U0001f427" * 500, row, "\U0001f427" * 60) for row in range(20)]
    assert len(openinference.encode_error(kind("\U0001f427" * 5000, faults=faults), "x" * 128)) <= 8192


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.integers(-(2**63), 2**63 - 1),
            st.booleans(),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        ),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_bytes_and_json_say_the_same(sent: list[tuple[Any, ...]], column: bool) -> None:
    """The same tensors in bytes and in JSON are the same rows; NaN in bytes is null in JSON."""
    shape = [len(sent), 1] if column else [len(sent)]
    columns = list(zip(*sent, strict=True))
    datatypes = ("FP64", "INT64", "BOOL", "BYTES")
    heads = [{"name": n, "shape": shape, "datatype": d} for n, d in zip(MIXED.names, datatypes, strict=True)]
    as_json = {"inputs": [head | {"data": list(values)} for head, values in zip(heads, columns, strict=True)]}
    told = [
        (head, elements(head["datatype"], [float("nan") if value is None else value for value in values]))
        for head, values in zip(heads, columns, strict=True)
    ]
    body, length = binary(told)
    by_bytes = decode(body, inference_header_content_length=length)
    assert repr(rows(by_bytes)) == repr(rows(decode(as_json))) == repr([list(row) for row in sent])


@pytest.mark.parametrize("datatype", sorted(openinference.BINARY.keys() - {"BOOL"}))
def test_every_datatype_of_numbers_is_read(datatype: str) -> None:
    """Numbers of every width come as JSON and as bytes, one tensor of rows."""
    head = {"name": "x", "shape": [1, 4], "datatype": datatype}
    body, length = binary([(head, elements(datatype, [1, 2, 3, 100]))])
    assert rows(decode(body, FOUR, inference_header_content_length=length)) == [[1.0, 2.0, 3.0, 100.0]]
    assert rows(decode({"inputs": [head | {"data": [1, 2, 3, 100]}]}, FOUR)) == [[1.0, 2.0, 3.0, 100.0]]


def planted(tensor: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A good request with one tensor changed; None takes a field away."""
    changed = {key: value for key, value in (tensor | changes).items() if value is not None}
    return {"inputs": [changed if each is tensor else each for each in GOOD]}


@pytest.mark.parametrize(
    ("document", "error", "said"),
    [
        ([], InvalidDocument, "must be an object"),
        ({}, MissingField, "inputs"),
        ({"inputs": {}}, InvalidDocument, "list of tensors"),
        ({"inputs": []}, InvalidDocument, "list of tensors"),
        ({"inputs": [1]}, InvalidDocument, "each of `inputs`"),
        ({"inputs": GOOD, "instances": []}, UnknownField, "'instances'"),
        ({"inputs": GOOD, "id": 1}, InvalidDocument, "`id`"),
        ({"inputs": GOOD, "parameters": []}, InvalidDocument, "`parameters`"),
        ({"inputs": GOOD, "parameters": {"priority": 1}}, UnknownParameter, "'priority'"),
        ({"inputs": GOOD, "parameters": {"probabilities": 1}}, UnknownParameter, "true or false"),
        ({"inputs": GOOD, "parameters": {"probabilities": True}}, UnknownParameter, "no class probabilities"),
        ({"inputs": GOOD, "outputs": {}}, InvalidDocument, "`outputs`"),
        ({"inputs": GOOD, "outputs": [{"name": "yy"}]}, InvalidInstances, "it has y, z"),
        ({"inputs": GOOD, "outputs": [{"name": "y", "shape": [1]}]}, UnknownField, "'shape'"),
        ({"inputs": GOOD, "outputs": [{"name": ["y"]}]}, InvalidInstances, "it has y, z"),
        ({"inputs": GOOD, "outputs": [{"name": {}}]}, InvalidInstances, "it has y, z"),
        ({"inputs": GOOD, "outputs": [{}]}, InvalidInstances, "it has y, z"),
        ({"inputs": GOOD, "outputs": [{"name": "y", "parameters": 7}]}, InvalidDocument, "`parameters`"),
        ({"inputs": GOOD, "outputs": [{"name": "y", "parameters": {"classification": 2}}]}, UnknownParameter, "'cla"),
        ({"inputs": GOOD, "id": "x" * 257}, InvalidDocument, "256"),
        ({"inputs": GOOD, "id": "\ud800"}, InvalidDocument, "256"),
        (planted(MM, shape=[10**4200]), InvalidInstances, "`shape`"),
        (planted(MM, data=None, parameters={"binary_data_size": 10**4200}), InvalidInstances, "number of bytes"),
        (planted(MM, datatype="FP16", data=[1e6]), InvalidInstances, "FP16"),
        (planted(MM, datatype="FP32", data=[1e39]), InvalidInstances, "FP32"),
        (planted(MM, datatype="FP64", data=[10**400]), InvalidInstances, "FP64"),
        ({"inputs": [*GOOD, MM]}, InvalidInstances, "same name"),
        ({"inputs": GOOD[1:]}, MissingFeature, "'mm' is missing"),
        ({"inputs": [*GOOD, MM | {"name": "cm"}]}, RequestError, "'cm' is not a feature"),
        (planted(MM, name=None), MissingField, "`name`"),
        (planted(MM, name=1), MissingField, "`name`"),
        (planted(MM, extra=1), UnknownField, "'extra'"),
        (planted(MM, shape=None), InvalidInstances, "`shape`"),
        (planted(MM, shape=[1.0]), InvalidInstances, "`shape`"),
        (planted(MM, shape=[True]), InvalidInstances, "`shape`"),
        (planted(MM, shape=[-1]), InvalidInstances, "`shape`"),
        (planted(MM, shape=[1, 1, 1]), InvalidInstances, "`shape`"),
        (planted(MM, shape=[1, 2], data=[1, 2]), InvalidInstances, "[1, 2]"),
        (planted(MM, shape=[2]), InvalidInstances, "its shape says"),
        (planted(MM, shape=[1, 1], data=[[1, 2]]), InvalidInstances, "its shape says"),
        (planted(MM, shape=[0], data=[]), InvalidInstances, "has 0 values"),
        (planted(MM, datatype="float64"), InvalidInstances, "`datatype`"),
        (planted(MM, datatype=["FP64"]), InvalidInstances, "`datatype`"),
        (planted(MM, data=None), MissingField, "`data`"),
        (planted(MM, data=1.5), InvalidInstances, "must be a list"),
        (planted(MM, data=["1.5"]), InvalidInstances, "declared FP64 and holds the text '1.5'"),
        (planted(MM, data=[True]), InvalidInstances, "holds true"),
        (planted(MM, data=[[1.5]]), InvalidInstances, "a list"),
        (planted(COUNT, data=[2.5]), InvalidInstances, "declared INT64 and holds the number 2.5"),
        (planted(COUNT, datatype="UINT8", data=[300]), InvalidInstances, "UINT8"),
        (planted(COUNT, datatype="UINT8", data=[-1]), InvalidInstances, "UINT8"),
        (planted(COUNT, data=[2**63]), InvalidInstances, "INT64"),
        (planted(OK, data=[1]), InvalidInstances, "declared BOOL"),
        (planted(OK, datatype="INT8", data=[1]), InvalidInstances, "expected true or false"),
        (planted(TOWN, data=[None]), InvalidInstances, "takes no missing value"),
        (planted(TOWN, data=[1]), InvalidInstances, "declared BYTES"),
        (planted(MM, parameters=[]), InvalidDocument, "`parameters`"),
        (planted(MM, parameters={"binary_data_size": 8}), MissingField, "either"),
        (planted(MM, data=None, parameters={"binary_data_size": True}), InvalidInstances, "number of bytes"),
        (planted(MM, data=None, parameters={"binary_data_size": 8}), InvalidInstances, "0 bytes follow"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_what_is_wrong_is_named(document: Any, error: type[RequestError], said: str) -> None:
    """Each fault is refused as what it is, and named."""
    with pytest.raises(error) as raised:
        decode(document)
    assert said in raised.value.detail


@pytest.mark.parametrize(
    ("tensor", "data", "said"),
    [
        (MM, b"\0" * 7, "its shape says"),
        (MM, b"\0" * 9, "its shape says"),
        (OK, b"\2", "other than 0 and 1"),
        (TOWN, b"", "its shape says"),
        (TOWN, b"\1\0\0", "its shape says"),
        (TOWN, b"\2\0\0\0x", "its shape says"),
        (TOWN, b"\1\0\0\0x\1\0\0\0y", "its shape says"),
        (TOWN, b"\xff\xff\xff\xffx", "its shape says"),
        (TOWN, b"\1\0\0\0\xff", "not UTF-8"),
    ],
)
def test_damaged_bytes_are_refused(tensor: dict[str, Any], data: bytes, said: str) -> None:
    """Bytes that are not the tensor that was declared are refused."""
    good = {"FP64": elements("FP64", [1.5]), "INT64": elements("INT64", [2]), "BOOL": b"\1", "BYTES": b"\1\0\0\0x"}
    heads = [{key: value for key, value in each.items() if key != "data"} for each in GOOD]
    told = [(head, data if head["name"] == tensor["name"] else good[head["datatype"]]) for head in heads]
    body, length = binary(told)
    with pytest.raises(InvalidInstances, match=said):
        decode(body, inference_header_content_length=length)


@pytest.mark.parametrize("length", ["", "-1", "+1", "1_0", "1e1", "٣", "999999", "9" * 40])
def test_a_length_that_cannot_be_is_refused(length: str) -> None:
    """The header must be a number of bytes that the body has."""
    with pytest.raises(InvalidHeader, match="Inference-Header-Content-Length"):
        decode({"inputs": GOOD}, inference_header_content_length=length)


def test_bytes_that_nobody_declared_are_refused() -> None:
    """Nothing is left over after the last tensor."""
    text = json.dumps({"inputs": GOOD}).encode()
    with pytest.raises(InvalidInstances, match="1 bytes follow"):
        decode(text + b"x", inference_header_content_length=str(len(text)))


def test_query_has_no_parameters() -> None:
    """Parameters stand in the body; one in the query is refused."""
    with pytest.raises(UnknownParameter, match="'probabilities'"):
        decode({"inputs": GOOD}, probabilities="true")


@pytest.mark.parametrize(
    ("shape", "error"), [([0, 4], EmptyInstances), ([11, 4], TooManyRows), ([10**18, 4], TooManyRows)]
)
def test_rows_are_counted_before_an_element_is_read(shape: list[int], error: type[RequestError]) -> None:
    """No row, or more than one request may have, is refused by the shape alone."""
    with pytest.raises(error):
        decode({"inputs": [{"name": "x", "shape": shape, "datatype": "FP64", "data": []}]}, FOUR)


def test_nested_columns_of_the_largest_request_are_read() -> None:
    """A list around each value is legal, however many there are in one request."""
    tensors = [{"name": name, "shape": [6000, 1], "datatype": "FP64", "data": [[1.5]] * 6000} for name in FOUR.names]
    assert decode({"inputs": tensors}, FOUR, 10_000).table.n_rows == 6000


def test_one_tensor_of_rows_may_be_called_like_a_feature() -> None:
    """What a single tensor is, its shape tells."""
    tensor = {"name": "sl", "shape": [1, 4], "datatype": "FP64", "data": [1, 2, 3, 4]}
    assert rows(decode({"inputs": [tensor], "model_name": "it"}, FOUR)) == [[1.0, 2.0, 3.0, 4.0]]


def test_texts_are_counted_while_they_are_read() -> None:
    """More texts than were declared are not read."""
    tensor = openinference.Tensor("town", (1,), "BYTES", None, 0)
    with pytest.raises(InvalidInstances, match="its shape says"):
        openinference._from_binary(tensor, b"\0\0\0\0" * 2 + b"\1\0\0\0\xff")


def test_shares_have_names_of_their_own() -> None:
    """An output that is called as the shares of another would be does not take their place."""
    outputs = tuple(Output(name=name, dtype="int64", classes=(0, 1)) for name in ("y", "y_probabilities"))
    signature = Signature(features=FOUR.features, outputs=outputs)
    shares = (np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]]))
    answer = PredictResponse("m", "1", signature, np.array([[0, 1]]), shares)
    written = json.loads(openinference.encode_response(answer, "application/json"))["outputs"]
    assert [tensor["name"] for tensor in written] == [
        tensor["name"] for tensor in openinference.model_metadata("m", ["1"], signature)["outputs"]
    ]
    assert len({tensor["name"] for tensor in written}) == 4


def test_many_tensors_are_refused_before_an_element_is_read() -> None:
    """Tensors of other names do not make room for more elements than the largest request has."""
    tensors = [{"name": f"x{n}", "shape": [10], "datatype": "FP64", "data": []} for n in range(5)]
    with pytest.raises(TooManyRows):
        decode({"inputs": tensors}, FOUR)


@pytest.mark.parametrize(
    ("wanted", "names", "probabilities"),
    [
        ([], ["species"], False),
        ([{"name": "species"}], ["species"], False),
        ([{"name": "species_probabilities", "parameters": {"binary_data": True}}], ["species_probabilities"], True),
        ([{"name": "species_probabilities"}, {"name": "species"}], ["species", "species_probabilities"], True),
    ],
)
def test_only_wanted_outputs_are_answered(wanted: list[Any], names: list[str], probabilities: bool) -> None:
    """`outputs` chooses; shares of the classes are computed where they are wanted."""
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}], "outputs": wanted}
    request = decode(body, FOUR)
    assert request.probabilities is probabilities
    shares = (np.array([[0.5, 0.25, 0.25]]),) if probabilities else None
    answer = PredictResponse("m", "1", FOUR, np.array([0]), shares, request.wishes)
    written = json.loads(openinference.encode_response(answer, "application/json"))
    assert [tensor["name"] for tensor in written["outputs"]] == names and "id" not in written


def test_metadata_tells_every_tensor() -> None:
    """A model's tensors are told with their datatypes and shapes."""
    assert openinference.model_metadata("m", ["1", "2"], MIXED) == {
        "name": "m",
        "versions": ["1", "2"],
        "platform": "anyport",
        "inputs": [
            {"name": "mm", "datatype": "FP64", "shape": [-1]},
            {"name": "count", "datatype": "INT64", "shape": [-1]},
            {"name": "ok", "datatype": "BOOL", "shape": [-1]},
            {"name": "town", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            {"name": "y", "datatype": "FP64", "shape": [-1]},
            {"name": "z", "datatype": "BYTES", "shape": [-1]},
        ],
    }
    assert openinference.model_metadata("m", ["1"], FOUR)["outputs"][1] == {
        "name": "species_probabilities",
        "datatype": "FP64",
        "shape": [-1, 3],
    }


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_requests_are_request_errors(data: st.DataObject) -> None:
    """Whatever is cut, doubled or put into a request, it is read or refused, and nothing else is raised."""
    heads = [{key: value for key, value in each.items() if key != "data"} for each in GOOD]
    body, length = binary([(head, elements(head["datatype"], GOOD[at]["data"])) for at, head in enumerate(heads)])
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 8)))
    body = body[:start] + data.draw(st.binary(max_size=4) | st.just(body[start:end] * 2)) + body[end:]
    said = data.draw(st.sampled_from([length, str(len(body)), "0"]))
    try:
        decode(body, inference_header_content_length=said)
    except RequestError:
        pass
