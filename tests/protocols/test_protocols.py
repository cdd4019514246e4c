"""The contract of every protocol in the table: both halves fit together, and errors stay small."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import RequestError, ServiceError, every_error
from service.protocols import PROTOCOLS, Codec
from service.signature import Feature, Output, Signature
from service.table import PredictResponse, table_from_rows

FEATURES = (
    Feature(name="mm", dtype="float64", nullable=True),
    Feature(name="f32", dtype="float32"),
    Feature(name="count", dtype="int64"),
    Feature(name="ok", dtype="bool"),
    Feature(name="town name", dtype="string", nullable=True),
    Feature(name="day", dtype="datetime-string"),
)
CLASSES = ("a", "b", "c")
LABELLED = Signature(features=FEATURES, outputs=(Output(name="y", dtype="string", classes=CLASSES),))
NUMBER = Signature(features=FEATURES, outputs=(Output(name="y", dtype="float64"),))
SEVERAL = Signature(features=FEATURES, outputs=(Output(name="y", dtype="float64"), Output(name="z", dtype="float64")))
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "mm": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "f32": st.floats(width=32, allow_nan=False, allow_infinity=False),
            "count": st.integers(-(2**63), 2**63 - 1),
            "ok": st.booleans(),
            "town name": st.none() | st.text(max_size=10),
            "day": st.dates().map(str),
        }
    ),
    min_size=1,
    max_size=5,
)

NAMED = {"openinference"}
"""Protocols whose clients name each column, so that they cannot write rows that are lists."""

UNASKED = {"watsonx"}
"""Protocols whose clients cannot ask for probabilities, and always get them."""

protocols = pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)


def decode(protocol: Codec, body: bytes, of: Signature) -> Any:
    """Decode a request under the protocol's first media type."""
    return protocol.decode_request(body, protocol.REQUEST_TYPES[0], {}, of, 100)


@protocols
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(rows=ROWS, as_lists=st.booleans())
def test_protocol_reads_what_it_writes(protocol: Codec, rows: list[Any], as_lists: bool) -> None:
    """Rows that the client half writes are the rows that the service half reads."""
    as_lists = as_lists and protocol not in [PROTOCOLS[name] for name in NAMED]
    sent = [[row[name] for name in NUMBER.names] for row in rows] if as_lists else rows
    table, expected = decode(protocol, protocol.encode_request(sent), NUMBER).table, table_from_rows(NUMBER, rows)
    assert table.n_rows == len(rows)
    assert {name: repr(column.tolist()) for name, column in table.columns.items()} == {
        name: repr(column.tolist()) for name, column in expected.columns.items()
    }


@protocols
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(answers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_protocol_answers_what_was_predicted(protocol: Codec, answers: list[float]) -> None:
    """Numbers that the service half writes are the numbers that the client half reads."""
    body = protocol.encode_response(PredictResponse("m", "1", NUMBER, np.array(answers)), protocol.RESPONSE_TYPES[0])
    assert protocol.decode_response(body) == answers


@protocols
@pytest.mark.parametrize(
    ("of", "predictions"),
    [
        (NUMBER, np.array([1.5, -2.0])),
        (LABELLED, np.array(["a", "c"])),
        (LABELLED, np.array(["é", "=1"], object)),
        (SEVERAL, np.array([[1.5, 2.5], [3.5, 4.5]])),
        (SEVERAL, np.array([["a", 1], ["b", 2]], object)),
    ],
    ids=["numbers", "labels", "odd labels", "several", "mixed"],
)
def test_protocol_answers_every_kind_of_output(protocol: Codec, of: Signature, predictions: Any) -> None:
    """Labels, numbers and several outputs come back one item a row."""
    body = protocol.encode_response(PredictResponse("m", "1", of, predictions), protocol.RESPONSE_TYPES[0])
    assert protocol.decode_response(body) == predictions.tolist()


@protocols
@pytest.mark.parametrize("wanted", [False, True])
def test_protocol_carries_the_wish_for_probabilities(protocol: Codec, wanted: bool) -> None:
    """Probabilities are asked for by the client half and answered beside the predictions."""
    rows = [{"mm": 1.5, "f32": 1, "count": 2, "ok": True, "town name": "x", "day": "2024-05-01"}]
    found = decode(protocol, protocol.encode_request(rows, probabilities=wanted), LABELLED).probabilities
    assert found is (wanted or protocol in [PROTOCOLS[name] for name in UNASKED])
    shares = (np.array([[0.5, 0.25, 0.25]]),) if wanted else None
    answer = PredictResponse("m", "1", LABELLED, np.array(["a"]), shares)
    assert protocol.decode_response(protocol.encode_response(answer, protocol.RESPONSE_TYPES[0])) == ["a"]


@protocols
def test_protocol_writes_every_response_type(protocol: Codec) -> None:
    """An answer can be written in every media type that the protocol lists, and texts in UTF-8."""
    answer = PredictResponse("m", "1", LABELLED, np.array(["é"]), (np.array([[0.5, 0.25, 0.25]]),))
    bodies = [protocol.encode_response(answer, media_type) for media_type in protocol.RESPONSE_TYPES]
    assert all(bodies) and len(set(bodies)) == len(protocol.RESPONSE_TYPES)
    assert all("é" in body.decode("utf-8", "replace") or "\\u00e9" in body.decode("ascii") for body in bodies)


@pytest.mark.parametrize(
    "body", [b"", b"\x00", b"\xff\xfe", b"{", b"[" * 100_000, b"null", b'{"a":1,"a":2}'], ids=range(7)
)
@pytest.mark.parametrize(
    ("protocol", "media_type"),
    [(protocol, media_type) for protocol in PROTOCOLS.values() for media_type in protocol.REQUEST_TYPES],
    ids=[f"{name} {media_type}" for name, protocol in PROTOCOLS.items() for media_type in protocol.REQUEST_TYPES],
)
def test_protocol_refuses_damage(protocol: Codec, media_type: str, body: bytes) -> None:
    """A body that is no request is a request error under every media type, never anything else."""
    with pytest.raises(RequestError):
        protocol.decode_request(body, media_type, {}, NUMBER, 100)


@protocols
@pytest.mark.parametrize("error", every_error())
def test_protocol_reports_every_error(protocol: Codec, error: type[ServiceError]) -> None:
    """Every error becomes a small body with the request id and the next step, in the protocol's own words."""
    body = protocol.encode_error(error("send it again"), "request-1")
    assert len(body) <= 8192
    assert b"request-1" in body and b"send it again" in body
    if protocol.ERROR_TYPE.endswith("json"):
        assert json.loads(body)
