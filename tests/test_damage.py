"""No damaged request gets an answer that is not its own: cut at every byte, split anywhere, and mutated.

    python -m pytest tests/test_damage.py --hypothesis-profile=long        # many more mutations, new ones each time

A mutated request may still be a valid one, for other values; so the right answer is worked out from the mutated bytes
themselves, by a second reading of HTTP, JSON and CSV that is written here and shares nothing with the service's own.
Only the checked values go to the predictor that the service uses too.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ServiceError
from service.predictor import Predictor
from service.runtimes import Policy
from service.store import Store
from service.table import PredictRequest, table_from_rows
from tests.conftest import PENGUIN, ROOT
from tests.server import Server, running
from tests.slow import SlowSum
from tests.test_server import pack_into

pytestmark = pytest.mark.slow

PROPERTY = settings(
    max_examples=max(600, settings().max_examples),
    derandomize=settings().max_examples <= 100,  # the long profile looks for new cases
    deadline=None,
)
Predictors = dict[str, Predictor]
ASKED_AT_ONCE = 8
SUMS = [{"a": 1.5, "b": -20.25, "c": 300.0}, {"a": 0.125, "b": 4000.0, "c": 7.0}]
"""Rows of a model that sums, so that a change of any digit changes the answer."""
OTHER = PENGUIN | {"flipper_length_mm": 230.0, "bill_depth_mm": 13.0, "island": "Biscoe"}


def json_rows(rows: list[dict[str, Any]], **fields: Any) -> bytes:
    return json.dumps({"instances": rows} | fields).encode()


def json_lists(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps({"instances": [list(row.values()) for row in rows]}).encode()


def json_columns(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps({"inputs": {name: [row[name] for row in rows] for name in rows[0]}}).encode()


def csv_rows(rows: list[dict[str, Any]]) -> bytes:
    return "".join(",".join(map(str, line)) + "\n" for line in [rows[0], *(row.values() for row in rows)]).encode()


BODIES = {
    "objects": ("sum", b"application/json", json_rows(SUMS)),
    "lists": ("sum", b"application/json", json_lists(SUMS)),
    "columns": ("sum", b"application/json", json_columns(SUMS)),
    "csv": ("sum", b"text/csv", csv_rows(SUMS)),
    "texts": ("penguins", b"application/json", json_rows([PENGUIN, OTHER], parameters={"probabilities": True})),
    "csv of texts": ("penguins", b"text/csv", csv_rows([PENGUIN, OTHER])),
}


def whole_request(model: str, content_type: bytes, body: bytes, *, chunked: bool) -> bytes:
    """A valid request."""
    head = b"POST /v1/models/%s:predict HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\n" % (model.encode(), content_type)
    if not chunked:
        return head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    parts = [body[:7], body[7:20], body[20:]]
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in [*parts, b""])


REQUESTS = {
    f"{name}, {'chunked' if chunked else 'counted'}": whole_request(*body, chunked=chunked)
    for name, body in BODIES.items()
    for chunked in (False, True)
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with penguins and sums."""
    folder = tmp_path_factory.mktemp("damage")
    shutil.copytree(ROOT / "models", folder / "models")
    rows = pandas.DataFrame(np.arange(12.0).reshape(4, 3), columns=["a", "b", "c"])
    pack_into(folder, "sum", SlowSum().fit(rows), rows)
    return folder / "models"


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    """A running service."""
    with running(models, WEB_CONCURRENCY="2") as running_server:
        yield running_server


@pytest.fixture(scope="module")
def predictors(models: Path) -> Predictors:
    """The same models in this process."""
    store = Store(models)
    manifests = [store.manifest(name, "1") for name in ("penguins", "sum")]
    return {manifest.name: Predictor(manifest, store.open(manifest, Policy())) for manifest in manifests}


# A second reading of HTTP, JSON and CSV: strict, short and slow.

REQUEST_LINE = re.compile(rb"POST /v1/models/(sum|penguins):predict/?([?#][!-~]*)? HTTP/1\.([0-9])")
FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*"
)
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[ \t!-~\x80-\xff]*)?")
JSON_TYPES = re.compile(r"application/([a-z0-9!#$&^_.+-]+\+)?json")
NUMBER = re.compile(r"[ \t]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t]*")


class Invalid(Exception):
    """These bytes are no valid request, so no answer to them is right."""


def split_request(received: bytes) -> tuple[bytes, dict[bytes, bytes], bytes, bytes]:
    """Read the first request; return its request line, its fields, its body, and what follows."""
    received = received.removeprefix(b"\r\n")  # RFC 9112 section 2.2: one empty line before it is passed over
    head, end, rest = received.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    matches = [FIELD.fullmatch(field) for field in lines]
    pairs = [(match[1].lower(), match[2]) for match in matches if match]
    fields = dict(pairs)
    if not end or len(pairs) != len(lines) or len(fields) != len(pairs):
        raise Invalid
    if (length := fields.get(b"content-length")) is not None:
        if not length.isdigit() or b"transfer-encoding" in fields or len(rest) < int(length):
            raise Invalid
        return line, fields, rest[: int(length)], rest[int(length) :]
    if (coding := fields.get(b"transfer-encoding")) is not None:
        if coding.lower() != b"chunked":
            raise Invalid
        return line, fields, *split_chunks(rest)
    return line, fields, b"", rest


def split_chunks(rest: bytes) -> tuple[bytes, bytes]:
    """Read a chunked body without trailers; return it, and what follows."""
    body = b""
    while True:
        size_line, end, rest = rest.partition(b"\r\n")
        match = CHUNK_SIZE.fullmatch(size_line)
        if not end or match is None:
            raise Invalid
        size = int(match[1], 16)
        if rest[size : size + 2] != b"\r\n":
            raise Invalid
        body, rest = body + rest[:size], rest[size + 2 :]
        if size == 0:
            return body, rest


def read_rows(content_type: str, body: bytes, names: tuple[str, ...], texts: set[str]) -> tuple[list[Any], bool]:
    """Read the body; return its rows, and whether probabilities are asked for."""
    media_type = content_type.partition(";")[0].strip().lower()
    try:
        if media_type == "text/csv":
            header, *lines = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
            if len(set(header)) != len(header) or any(len(line) != len(header) for line in lines):
                raise Invalid
            return [{n: cell(n in texts, c) for n, c in zip(header, line, strict=True)} for line in lines], False
        if JSON_TYPES.fullmatch(media_type):
            return read_document(json.loads(body.decode(), object_pairs_hook=once, parse_constant=refuse), names)
    except (ValueError, csv.Error) as error:
        raise Invalid from error
    raise Invalid


def read_document(document: Any, names: tuple[str, ...]) -> tuple[list[Any], bool]:
    """Read a JSON document of rows or of columns."""
    match document:
        case {"instances": list(rows), **more} if not more.keys() - {"parameters"}:
            pass
        case {"inputs": dict(columns), **more} if not more.keys() - {"parameters"}:
            if not all(isinstance(column, list) for column in columns.values()):
                raise Invalid
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        case _:
            raise Invalid
    match more.get("parameters", {}):
        case {"probabilities": bool(wanted), **others} if not others:
            return rows, wanted
        case {**others} if not others:
            return rows, False
    raise Invalid


def cell(text: bool, value: str) -> Any:
    if value in ("", "NA") or text:
        return None if value in ("", "NA") else value
    if not NUMBER.fullmatch(value):
        raise Invalid
    return float(value)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise Invalid
    return dict(pairs)


def refuse(constant: str) -> Any:
    raise Invalid


def right_answers(received: bytes, predictors: Predictors) -> list[Any]:
    """Work out the answer to each request that these bytes begin with, until one is invalid."""
    answers = []
    while received:
        try:
            line, fields, body, received = split_request(received)
            answers.append(right_answer(line, fields, body, predictors))
        except (Invalid, ServiceError):
            break
    return answers


def right_answer(line: bytes, fields: dict[bytes, bytes], body: bytes, predictors: Predictors) -> Any:
    """Work out the answer to one request."""
    asked = REQUEST_LINE.fullmatch(line)
    if asked is None or (asked[3] != b"0" and b"host" not in fields):
        raise Invalid
    predictor = predictors[asked[1].decode()]
    signature = predictor.manifest.signature
    texts = {feature.name for feature in signature.features if feature.dtype == "string"}
    content_type = fields.get(b"content-type", b"").decode("latin-1")
    rows, probabilities = read_rows(content_type, body, signature.names, texts)
    if not rows:
        raise Invalid
    answer = predictor.predict(PredictRequest(table_from_rows(signature, rows), probabilities))
    shares = answer.probabilities[0].tolist() if answer.probabilities is not None else None
    return answer.predictions.tolist(), shares


# What the service says


def answers_in(received: bytes) -> list[tuple[int, Any]]:
    """Split what the service sent into statuses and documents."""
    answers = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        found = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
        assert found, head
        length = int(found[1])
        answers.append((int(head[9:12]), json.loads(rest[:length])))
        received = rest[length:]
    return answers


def given_answers(received: bytes) -> list[Any]:
    """The predictions and probabilities that the service gave, up to its first refusal; no answer may be a 5xx."""
    answers = answers_in(received)
    assert all(status == 200 or 400 <= status < 500 for status, _ in answers), answers
    given = [
        (document.get("predictions"), document.get("probabilities")) for status, document in answers if status == 200
    ]
    assert [status for status, _ in answers][: len(given)] == [200] * len(given), answers
    return given


def check(sent: bytes, server: Server, predictors: Predictors) -> None:
    """Send bytes, half-close, and hold every prediction against the right one."""
    given, right = given_answers(server.raw(sent, half_close=True)), right_answers(sent, predictors)
    assert len(given) <= len(right), (given, right)
    for answer, wanted in zip(given, right, strict=False):
        assert answer[0] == wanted[0]
        assert (answer[1] is None) == (wanted[1] is None)
        assert wanted[1] is None or np.allclose(answer[1], wanted[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", REQUESTS)
def test_whole_request_gets_the_right_answer(name: str, server: Server, predictors: Predictors) -> None:
    """Both readings agree that the request is valid, and on its answer."""
    assert len(given_answers(server.raw(REQUESTS[name], half_close=True))) == 1
    check(REQUESTS[name], server, predictors)


@pytest.mark.parametrize("name", REQUESTS)
def test_7_37_request_that_is_cut_gets_no_prediction(name: str, server: Server) -> None:
    """Cut at any byte, a request is refused, or its connection ends; it is never answered 200."""
    whole = REQUESTS[name]
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        received = list(pool.map(lambda end: server.raw(whole[:end], half_close=True), range(len(whole))))
    assert [end for end, answer in enumerate(received) if given_answers(answer)] == []
    assert [end for end, answer in enumerate(received) if end and not answer] == []


@settings(PROPERTY, max_examples=PROPERTY.max_examples // 6)
@given(
    name=st.sampled_from(sorted(REQUESTS)),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0, 0.0005, 0.002])), min_size=1, max_size=8),
)
def test_7_37_request_in_pieces_gets_the_right_answer(
    name: str, cuts: list[tuple[float, float]], server: Server, predictors: Predictors
) -> None:
    """Split anywhere, with pauses, a request gets the right answer."""
    whole = REQUESTS[name]
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = 0
        for share, pause_s in sorted(cuts):
            end = int(share * len(whole))
            client.sendall(whole[begun:end])
            time.sleep(pause_s)
            begun = end
        client.sendall(whole[begun:])
        client.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    given, [right] = given_answers(received), right_answers(whole, predictors)
    assert [answer[0] for answer in given] == [right[0]]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid request with one byte changed, removed or put in, or with a slice of it doubled."""
    whole = draw(st.sampled_from([REQUESTS[name] for name in sorted(REQUESTS)]))
    place = draw(st.integers(0, len(whole) - 1))
    byte = bytes([draw(st.one_of(st.integers(0, 255), st.sampled_from(b"0123456789+-eE.,:;\"'[]{}\r\n\t /?#")))])
    end = draw(st.integers(place, len(whole)))
    return {
        "changed": whole[:place] + byte + whole[place + 1 :],
        "removed": whole[:place] + whole[place + 1 :],
        "put in": whole[:place] + byte + whole[place:],
        "doubled": whole[:end] + whole[place:],
    }[draw(st.sampled_from(["changed", "removed", "put in", "doubled"]))]


@settings(PROPERTY)
@given(sent=mutated())
def test_7_37_mutated_request_gets_no_wrong_answer(sent: bytes, server: Server, predictors: Predictors) -> None:
    """Whatever became of a request: it is refused, or it gets the answer that is right for what it says now."""
    check(sent, server, predictors)


@pytest.mark.parametrize("name", REQUESTS)
def test_7_37_request_with_any_one_byte_removed_gets_no_wrong_answer(
    name: str, server: Server, predictors: Predictors
) -> None:
    """Each byte in turn is removed."""
    whole = REQUESTS[name]
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        list(pool.map(lambda place: check(whole[:place] + whole[place + 1 :], server, predictors), range(len(whole))))
