"""The count of values before anything is decoded: it stops bombs, and never a body that could be read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import RequestError, TooManyRows
from service.protocols import csv_body, native
from service.protocols.csv_body import read_csv
from service.protocols.guard import SLACK, SMALL_BYTES, SPARE, check_csv, check_json, count
from service.signature import Feature, Output, Signature

PROPERTY = settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
OUTPUTS = (Output(name="y", dtype="float64"),)
MAX_ROWS = 20
LARGE = 2 * SMALL_BYTES
MANY = 50 * (SLACK * MAX_ROWS + SPARE)
"""Far more than the largest request of two features may have."""


def texts(*names: str, required: bool = True) -> Signature:
    """A signature of features that take any text."""
    return Signature(
        features=tuple(Feature(name=name, dtype="string", required=required) for name in names), outputs=OUTPUTS
    )


ONE, TWO = texts("a"), texts("a", "b")


def decode(body: bytes, of: Signature, content_type: str = "application/json") -> int:
    """How many rows a body has, as the service reads it."""
    return native.decode_request(body, content_type, {}, of, MAX_ROWS).table.n_rows


def padded(body: bytes, padding: int) -> bytes:
    """A JSON body with spaces before it, as many as to make it large."""
    return b" " * padding + body


# As many as allowed, and far more


@pytest.mark.parametrize("padding", [0, LARGE])
@pytest.mark.parametrize("n_features", [1, 2, 300])
@pytest.mark.parametrize("shape", ["objects", "lists", "columns"])
def test_1_7_as_many_values_as_allowed_are_read(shape: str, n_features: int, padding: int) -> None:
    """The largest request that is allowed passes, in every shape."""
    of = texts(*(f"f{index}" for index in range(n_features)))
    rows = [dict.fromkeys(of.names, "x")] * MAX_ROWS
    document: Any = {"instances": rows if shape == "objects" else [list(row.values()) for row in rows]}
    if shape == "columns":
        document = {"inputs": {name: ["x"] * MAX_ROWS for name in of.names}}
    body = padded(json.dumps(document | {"parameters": {}}).encode(), padding)
    assert decode(body, of) == MAX_ROWS


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("n_features", [1, 2, 300])
def test_1_7_as_many_cells_as_allowed_are_read(n_features: int, end: bytes) -> None:
    """The largest CSV that is allowed passes, whatever ends its lines."""
    of = texts(*(f"f{index}" for index in range(n_features)))
    lines = [",".join(of.names), *[",".join(["x" * 20] * n_features)] * MAX_ROWS, ""]
    assert decode(end.join(line.encode() for line in lines), of, "text/csv") == MAX_ROWS


@pytest.mark.parametrize("padding", [0, LARGE])
@pytest.mark.parametrize("item", ["1", "{}", "[]", '"x"', '{"a":1}', "[[]]", '"\\\\"', '"\\""', '","', '"\\\\\\","'])
@pytest.mark.parametrize("place", ['{"instances":[%s]}', '{"inputs":{"a":[%s]}}', '{"instances":[[%s]]}', "[%s]"])
def test_1_7_far_more_values_are_too_many_rows(place: str, item: str, padding: int) -> None:
    """Far more values than the largest request has are refused, wherever they stand, whatever they are."""
    body = padded((place % ",".join([item] * MANY)).encode(), padding)
    with pytest.raises(TooManyRows):
        check_json(body, ONE, MAX_ROWS)
    with pytest.raises(TooManyRows, match="split it"):
        decode(body, ONE)


@pytest.mark.parametrize("body", [b"[" * MANY, b'{"instances":' + b"[" * MANY, b"[" + b'{"a":' * MANY, b"{" * LARGE])
def test_1_7_far_more_brackets_are_too_many_rows(body: bytes) -> None:
    """Nesting counts like values, though no comma stands in it."""
    with pytest.raises(TooManyRows):
        check_json(body, ONE, MAX_ROWS)


@pytest.mark.parametrize("head", ["", "a\n", "\ufeffa\n", '"a"\n', 'a\n"b"\n', 'a\n"b""c,"\n', 'a\n""""\n'])
@pytest.mark.parametrize("item", [",", "x,", '"",', '"x",', "\n", "x\n", "x\r\n", '"x"\r', '",",', '"""",', '"\n",'])
def test_1_7_far_more_cells_are_too_many_rows(item: str, head: str) -> None:
    """Far more cells or lines than the largest CSV has are refused, quoted or not."""
    with pytest.raises(TooManyRows):
        check_csv((head + item * MANY).encode(), ONE, MAX_ROWS)


@pytest.mark.parametrize("head", ['a\nb"\n', 'a"\n', 'a",', 'a\n5" \n', 'a\n "b\n', 'a\nb"c"d"\n', 'a\n"b"\nc"\n'])
def test_1_7_quote_within_a_cell_hides_no_cells(head: str) -> None:
    """A quote opens a text only where a cell begins; elsewhere it is a sign like others, and hides no cells."""
    with pytest.raises(TooManyRows):
        check_csv((head + "ab," * MANY).encode(), ONE, MAX_ROWS)


# What stands in texts


@pytest.mark.parametrize("padding", [0, LARGE])
@pytest.mark.parametrize(
    "text",
    [
        *("," * MANY, "[" * MANY, "{" * MANY, '"' * MANY, "\\" * MANY, '\\"' * MANY, '",' * MANY, '\\",' * MANY),
        *("," * MANY + "\\", "," * MANY + '"', '"' + "," * MANY, "\\" + "," * MANY, '"[{,' * MANY, "\\\\[{," * MANY),
        *("é,😀{" * MANY, "\x00,\n[\r{\t" * MANY, "'" + "," * MANY),
    ],
    ids=range(17),
)
def test_1_7_what_stands_in_texts_is_not_counted(text: str, padding: int) -> None:
    """Commas, brackets, quotes and backslashes in a text are one value, however they are escaped."""
    row, before = {"a": text, "b": "\\"}, {"a": "\\", "b": '"'}
    for document in ({"instances": [row, before]}, {"instances": [before, row]}, {"inputs": {"b": [text], "a": [""]}}):
        for ascii_only in (True, False):
            body = padded(json.dumps(document, ensure_ascii=ascii_only).encode(), padding)
            check_json(body, TWO, MAX_ROWS)
            assert decode(body, TWO) == len(document.get("instances", [row]))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "text",
    [
        "," * MANY,
        "\n" * MANY,
        "\r\n" * MANY,
        '""' * MANY,
        '"",' * MANY,
        ',""\n' * MANY,
        '""' + "," * MANY,
        "\\," * MANY,
    ],
    ids=range(8),
)
def test_1_7_what_stands_in_quoted_cells_is_not_counted(text: str, end: str) -> None:
    """Commas, line ends and doubled quotes in a quoted cell are one value."""
    for rows in ([f'"{text}",b', "a,b"], ["a,b", f'"c","{text}"'], [f'"{text}","{text}"', '"a","b"']):
        body = end.join(["a,b", *rows, ""]).encode()
        check_csv(body, TWO, MAX_ROWS)
        assert decode(body, TWO, "text/csv") == 2


@pytest.mark.parametrize("before", ['5" pipe', 'a"b', ' "', 'a"""', 'a,"b"'.replace(",", ";")])
def test_1_7_quote_within_a_cell_counts_no_text(before: str) -> None:
    """After a cell with a quote within it, what stands in quoted cells is not counted either."""
    body = f'a\n{before}\n"{"," * MANY}"\n'.encode()
    assert decode(body, ONE, "text/csv") == 2


# Counting


@PROPERTY
@given(
    st.binary(max_size=8), st.binary(min_size=1, max_size=6), st.binary(max_size=8), st.sampled_from([-3, -1, 0, 1, 9])
)
def test_count_is_the_same_for_small_and_large(head: bytes, item: bytes, tail: bytes, more: int) -> None:
    """A large body is counted in another way than a small one, with the same result."""
    size = SMALL_BYTES + more - len(head) - len(tail)
    body = head + (item * (size // len(item) + 1))[:size] + tail
    for mark in {*head, *item, *tail}:
        assert count(body, mark) == body.count(mark)


# Never refuses what can be read

PIECES = [",", '"', "\\", "[", "{", "}", "]", ":", "a", "é", "\n", "\r", '\\"', "," * 400, "{" * 400, '",' * 300, "😀"]
Pieces = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


@PROPERTY
@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), Pieces), min_size=1, max_size=6),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([0, LARGE]),
)
def test_1_7_no_readable_json_is_refused(
    rows: list[dict[str, str]], max_rows: int, ascii_only: bool, padding: int
) -> None:
    """What the reader accepts is never refused by the count, whatever its texts hold."""
    of = texts(*"abc", required=False)
    columns = {name: [row.get(name) for row in rows] for name in of.names}
    lists = [[row.get(name) for name in of.names] for row in rows]
    for document in ({"instances": rows}, {"instances": lists}, {"inputs": columns}):
        body = padded(json.dumps(document, ensure_ascii=ascii_only).encode(), padding)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "check_json", lambda *_: None)
            try:
                native.decode_request(body, "application/json", {}, of, max_rows)
            except RequestError:
                continue
        check_json(body, of, max_rows)


@st.composite
def csv_bodies(draw: st.DrawFn, of: Signature) -> bytes:
    """Lines of cells, quoted or not; those that are not may hold quotes, too."""
    quoted = Pieces.map(lambda cell: '"' + cell.replace('"', '""') + '"')
    cell = st.sampled_from(["x", 'a"', '5" pipe', ' "b"', f'"{"," * 400}"']) | quoted | Pieces
    rows = draw(st.lists(st.tuples(*[cell] * len(of.names)), max_size=5))
    header = draw(st.sampled_from([of.names, [f'"{name}"' for name in of.names]]))
    mark = draw(st.sampled_from(["", "\ufeff"]))
    return (mark + draw(st.sampled_from(["\n", "\r\n", "\r"])).join(map(",".join, [header, *rows]))).encode()


@PROPERTY
@given(st.sampled_from([ONE, TWO]).flatmap(lambda of: st.tuples(st.just(of), csv_bodies(of))))
def test_1_7_no_readable_csv_is_refused(of_and_body: tuple[Signature, bytes]) -> None:
    """What the CSV reader accepts is never refused by the count, quoted or not, quotes within cells or not."""
    of, body = of_and_body
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_body, "check_csv", lambda *_: None)
        try:
            read_csv(body, of, 4)
        except RequestError:
            return
    check_csv(body, of, 4)
