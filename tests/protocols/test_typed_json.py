"""JSON read straight into types: the same tables and the same errors as the exact reader, and never a guess."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import DuplicateKey, RequestError
from service.protocols import native
from service.protocols.typed_json import TypedJson
from service.signature import INT64_MAX, INT64_MIN, LARGEST_FLOAT32, Dtype, Feature, Output, Signature

PROPERTY = settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
MAX_ROWS = 5
DTYPES: tuple[Dtype, ...] = ("float64", "float32", "int64", "bool", "string", "datetime", "datetime-string")
OUTPUTS = (Output(name="y", dtype="int64", classes=(0, 1)),)
NAMES = ["a", "b", "f0", "instances", "inputs", "a:b", ":", "::", "naïve", "中 文", "😀", "\x7f", "a/b", " ", "\u2028"]
UNNAMEABLE = ['a"b', '"', "a\\b", "a\\u003a", "\\", "a\nb", "\t", "\x00", "\x1f"]
MOMENTS = [
    "2026-11-22",
    "2026-11-22T15:30",
    "2026-11-22 15:30:00.5",
    "2026-11-22T15:30:00Z",
    "2026-11-22T15:30:00+01:00",
]
WILD = [
    *("null", "true", "false", "0", "-0", "-0.0", "1.0", "-1.0", "1e2", "1E-2", "2.5", "0.1e1", "1e400", "-1e400"),
    *("1e-400", "9007199254740993", "9007199254740993.0", "9223372036854775807", "9223372036854775808", "3.5e38"),
    *("-9223372036854775808", "-9223372036854775809", "9223372036854775807.0", "18446744073709551616", "1" * 50),
    *(
        "1" * 400,
        "1" * 5000,
        "-" + "1" * 5000,
        "0." + "1" * 5000,
        "NaN",
        "Infinity",
        "-Infinity",
        "01",
        "1.",
        ".5",
        "+1",
    ),
    *(
        '"x"',
        '""',
        '":"',
        '"a:b"',
        '"\\u003a"',
        '"\\u003A\\u003a"',
        '"\\":"',
        '"\\\\"',
        '"\\\\u003a"',
        '"\\/"',
        '"\\x"',
    ),
    *(
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\ud83d\\ude00"',
        '"😀"',
        '"\x7f"',
        '"a\nb"',
        '"a\\nb"',
        '"\\u0000"',
        "'x'",
        '"1"',
    ),
    *('"true"', '"null"', '"NaN"', '"2026-11-22"', '"2026-13-01"', '"0001-01-01T00:00+01:00"', '"2026-11-22T15:30"'),
    *("[]", "{}", "[1]", '{"a":1}', '{"a":1,"a":1}', "[[[]]]", "", " 1 ", "\t1\r\n", "\u00a01", "[1", "1,1", "1:1"),
]
Text = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(':,"\\{}[]'), max_size=6)


def categories_of(dtype: Dtype) -> st.SearchStrategy[Any]:
    """Values that a closed feature knows."""
    known: st.SearchStrategy[Any] = Text if dtype == "string" else st.integers(-5, 5)
    return st.lists(known, min_size=1, max_size=3).map(tuple)


@st.composite
def feature(draw: st.DrawFn, name: str) -> Feature:
    """A feature of any dtype, with any of what may be said of it."""
    dtype: Dtype = draw(st.sampled_from(DTYPES))
    facts: dict[str, Any] = {"nullable": draw(st.booleans()), "required": draw(st.booleans())}
    if dtype in ("string", "int64", "float64") and draw(st.booleans()):
        facts |= {"closed": True, "categories": draw(categories_of(dtype))}
    elif dtype in ("float64", "float32", "int64") and draw(st.booleans()):
        facts["largest"] = draw(st.sampled_from([0.0, 0.5, 1.0, 100.0, 2.0**31 - 1, 2.0**53, LARGEST_FLOAT32 * 0.999]))
        if dtype == "int64":
            facts["largest"] = min(facts["largest"], 2.0**62)
    return Feature(name=name, dtype=dtype, **facts)


@st.composite
def signatures(draw: st.DrawFn, names: Sequence[str] = (*NAMES, *UNNAMEABLE)) -> Signature:
    """A signature of up to four features."""
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
    return Signature(features=tuple(draw(feature(name)) for name in chosen), outputs=OUTPUTS)


def honest(of: Feature) -> st.SearchStrategy[Any]:
    """Values that a feature takes."""
    values: dict[str, st.SearchStrategy[Any]] = {
        "bool": st.booleans(),
        "string": Text.filter(lambda text: "\\u003" not in text),
        "datetime": st.sampled_from(MOMENTS),
        "datetime-string": st.sampled_from(MOMENTS),
    }
    most = of.largest if of.largest is not None else LARGEST_FLOAT32 if of.dtype == "float32" else 1.7e308
    whole = int(min(most, INT64_MAX))
    values["int64"] = st.integers(max(INT64_MIN, -whole - (of.largest is None)), whole)
    values["float64"] = values["float32"] = st.floats(-most, most) | st.integers(-int(min(most, 1e30)), int(most))
    known = st.sampled_from(of.categories) if of.closed and of.categories else values[of.dtype]
    return known | st.none() if of.takes_null else known


def spell(key: str, escaped: bool) -> str:
    """A key as JSON, each sign of it escaped where wanted."""
    if not escaped:
        return json.dumps(key, ensure_ascii=len(key) % 2 == 0)
    units = key.encode("utf-16-be").hex()
    return '"' + "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)) + '"'


def an_object(pairs: Sequence[tuple[str, str]]) -> str:
    """An object of keys and values that are JSON already."""
    return "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"


@st.composite
def objects(draw: st.DrawFn, pairs: Sequence[tuple[str, str]], wild: bool) -> str:
    """An object of these names and JSON values; a wild one may lack some, or have some twice or more than there are."""
    pairs = list(pairs)
    if wild:
        change = draw(st.sampled_from(["", "", "", "twice", "escaped twice", "lacks", "more", "escaped"]))
        at = draw(st.integers(0, max(len(pairs) - 1, 0)))
        if change.endswith("twice") and pairs:
            name, value = pairs[at]
            value = draw(st.just(value) | st.sampled_from(WILD))
            pairs.insert(draw(st.integers(0, len(pairs))), (name, value))
        elif change == "lacks" and pairs:
            del pairs[at]
        elif change == "more":
            pairs.append((draw(st.sampled_from(NAMES)), draw(st.sampled_from(WILD))))
        marked = draw(st.integers(0, len(pairs))) if change.startswith("escaped") else len(pairs)
        return an_object([(spell(name, index >= marked), value) for index, (name, value) in enumerate(pairs)])
    return an_object([(spell(name, False), value) for name, value in draw(st.permutations(pairs))])


@st.composite
def bodies(draw: st.DrawFn, of: Signature, *, wild: bool) -> bytes:
    """A request as objects, lists or columns; a wild one is right in most places."""

    def cell(feature: Feature) -> str:
        if wild and draw(st.integers(0, 7)) == 0:
            return draw(st.sampled_from(WILD))
        return json.dumps(draw(honest(feature)), ensure_ascii=draw(st.booleans()))

    def pairs() -> list[tuple[str, str]]:
        kept = [f for f in of.features if f.required or draw(st.booleans())]
        return [(f.name, cell(f)) for f in kept]

    n_rows = draw(st.integers(0 if wild else 1, MAX_ROWS + wild))
    shape = draw(st.sampled_from(["objects", "lists", "columns", *["mixed"] * wild]))
    if shape == "columns":
        kept = [f for f in of.features if f.required or draw(st.booleans())] or list(of.features)
        lengths = [n_rows + (wild and draw(st.integers(0, 9)) == 0) for _ in kept]
        columns = [
            (f.name, "[" + ",".join(cell(f) for _ in range(length)) + "]")
            for f, length in zip(kept, lengths, strict=True)
        ]
        top = [("inputs", draw(objects(columns, wild)))]
    else:
        rows = []
        for _ in range(n_rows):
            kind = draw(st.sampled_from(["objects", "lists", "bare"])) if shape == "mixed" else shape
            if kind == "bare":
                rows.append(cell(of.features[0]))
            elif kind == "lists":
                rows.append("[" + ",".join(cell(f) for f in of.features) + "]")
            else:
                rows.append(draw(objects(pairs(), wild)))
        top = [("instances", "[" + ",".join(rows) + "]")]
    if draw(st.booleans()):
        switches = draw(st.sampled_from([[], [("probabilities", "true")], [("probabilities", "false")]]))
        top.append(("parameters", draw(objects(switches, wild))))
    return draw(objects(top, wild)).encode()


@st.composite
def asked(draw: st.DrawFn, *, wild: bool, names: Sequence[str] = (*NAMES, *UNNAMEABLE)) -> tuple[Signature, bytes]:
    """A signature and a request for it."""
    of = draw(signatures(names))
    return of, draw(bodies(of, wild=wild))


@contextmanager
def exact_only() -> Iterator[None]:
    """Read with the exact reader alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TypedJson, "read", lambda *_: None)
        yield


@contextmanager
def counting() -> Iterator[list[bytes]]:
    """The bodies that the exact reader is asked for."""
    seen: list[bytes] = []
    exact = native.read_json

    def note(body: bytes) -> dict[str, Any]:
        seen.append(body)
        return exact(body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "read_json", note)
        yield seen


def outcome(of: Signature, body: bytes) -> Any:
    """What becomes of a body: every value with its type, or everything that the error says."""
    try:
        request = native.decode_request(body, "application/json", {}, of, MAX_ROWS)
    except RequestError as error:
        return type(error), error.detail, error.faults
    columns = {
        name: (column.dtype, [(type(value), repr(value)) for value in column.tolist()])
        for name, column in request.table.columns.items()
    }
    return list(columns.items()), request.table.n_rows, request.probabilities


def check_agrees(of: Signature, body: bytes) -> Any:
    """Check that both readers make the same of a body, and return it."""
    found = outcome(of, body)
    with exact_only():
        assert found == outcome(of, body)
    return found


def signature(*features: Feature) -> Signature:
    """A signature of these features."""
    return Signature(features=features, outputs=OUTPUTS)


# The same as the exact reader


@PROPERTY
@given(asked(wild=True))
def test_1_4_typed_reader_agrees_with_the_exact_one(of_and_body: tuple[Signature, bytes]) -> None:
    """Whatever stands in a body, the service answers as if the exact reader had read it."""
    check_agrees(*of_and_body)


@PROPERTY
@given(asked(wild=False), st.data())
def test_1_4_typed_reader_agrees_on_damaged_bodies(of_and_body: tuple[Signature, bytes], data: st.DataObject) -> None:
    """A body that is cut, or has bytes replaced, added or repeated, is read or refused as the exact reader does."""
    of, body = of_and_body
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(body))] * 2)))
    stop = min(stop, start + data.draw(st.integers(0, 8)))
    marks = [b":", b'"', b"\\", b",", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x00", b" ", b"1", b"{", b"]"]
    middle = data.draw(st.sampled_from([*marks, body[start:stop] * 2, b""]) | st.binary(max_size=3))
    check_agrees(of, body[:start] + middle + body[stop:])
    check_agrees(of, body[:start])


A, AB, SPOKEN = (Feature(name=name, dtype="string") for name in ("a", "a:b", "word"))
B = Feature(name="b", dtype="float64", required=False)
TWICE = [
    *(b'{"instances":[{"a":"x","a":"x"}]}', b'{"instances":[{"a":"x","a":1}]}', b'{"instances":[{"a":1,"a":"x"}]}'),
    *(b'{"instances":[{"a":"x"},{"a":"::","a":""}]}', b'{"instances":[{"a":"","a":"::"}]}'),
    *(b'{"instances":[{"a":"x","b":1,"b":null}]}', b'{"instances":[{"b":1,"a":"x","b":1}]}'),
    *(b'{"instances":[{"a":"x","\\u0061":"x"}]}', b'{"instances":[{"\\u0061":"x","a":"\\u003a"}]}'),
    *(
        b'{"inputs":{"a":["x"],"a":["x"]}}',
        b'{"inputs":{"a":["x","y"],"a":["x"]}}',
        b'{"inputs":{"a":[":"],"a":["x"]}}',
    ),
    *(b'{"inputs":{"a":["x"],"b":[1],"b":[1]}}', b'{"inputs":{"a":["x"],"\\u0061":["x"]}}'),
    *(b'{"instances":[["x",1]],"instances":[["x",1]]}', b'{"instances":[],"instances":[["x",1]]}'),
    *(b'{"inputs":{},"inputs":{"a":["x"]}}', b'{"inputs":{"a":["::"]},"inputs":{"a":["x"]}}'),
    *(b'{"instances":[["x",1]],"\\u0069nstances":[["x",1]]}', b'{"instances":[{"a":":"}],"instances":[{"a":"x"}]}'),
    *(b'{"instances":[["x",1]],"parameters":{},"parameters":{}}',),
    *(b'{"instances":[["x",1]],"parameters":{"probabilities":true,"probabilities":true}}',),
    *(b'{"parameters":{"probabilities":true},"instances":[["x",1]],"parameters":{}}',),
]


@pytest.mark.parametrize("body", TWICE, ids=range(len(TWICE)))
def test_1_4_key_that_stands_twice_is_found(body: bytes) -> None:
    """Two equal keys in one object are refused wherever they stand and however they are spelt."""
    assert check_agrees(signature(A, B), body)[0] is DuplicateKey


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances":[{"a:b":"x","word":":"},{"a:b":"x:y:","word":"","word":""}]}',
        b'{"instances":[{"a:b":"\\u003a","word":"x","word":"y"}]}',
        b'{"instances":[{"a\\u003ab":"x","word":"x","word":"y"}]}',
        b'{"instances":[{"a\\u003Ab":"x","word":"x","word":"y"}]}',
        b'{"inputs":{"a:b":["\\u003a"],"word":["x"],"word":["y"]}}',
        b'{"inputs":{"a\\u003ab":["x"],"word":["x"],"word":["y"]}}',
    ],
)
def test_1_4_escaped_colon_hides_no_key(body: bytes) -> None:
    """A colon that is written as an escape, in a name or a text, does not make up for a key that stands twice."""
    assert check_agrees(signature(AB, SPOKEN), body)[0] is DuplicateKey


# Taken for whatever is right


@pytest.mark.parametrize("shape", ["objects", "lists", "columns"])
@pytest.mark.parametrize("facts", [{}, {"nullable": True}, {"required": False}, {"closed": True}], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_honest_bodies_are_read_once(dtype: Dtype, facts: dict[str, Any], shape: str) -> None:
    """A body that is right, of any dtype and shape, with or without nulls, is never read by the exact reader."""
    values: dict[Dtype, Any] = {"float64": 1.5, "float32": 2, "int64": 3, "bool": True, "string": "x: y"}
    value = values.get(dtype, MOMENTS[1])
    if facts.get("closed"):
        if dtype not in ("float64", "float32", "int64", "string"):
            return
        value = "x: y" if dtype == "string" else 3
        facts = facts | {"categories": (value,)}
    of = signature(Feature(name="a", dtype=dtype, **facts), Feature(name="n:n", dtype="int64"))
    cells = [value, None if of.features[0].takes_null else value]
    rows = [{"a": cell, "n:n": index} for index, cell in enumerate(cells)]
    if facts.get("required") is False and shape == "objects":
        rows.append({"n:n": 2})
    document: dict[str, Any] = {"instances": rows if shape == "objects" else [list(row.values()) for row in rows]}
    if shape == "columns":
        document = {"inputs": {"a": cells, "n:n": [0, 1]}}
    body = json.dumps(document | {"parameters": {"probabilities": True}}).encode()
    with counting() as seen:
        columns, n_rows, probabilities = check_agrees(of, body)
    assert len(seen) == 1  # by the check itself, which reads with the exact reader alone
    assert n_rows == len(rows) and probabilities
    assert [name for name, _ in columns] == ["a", "n:n"]


@PROPERTY
@given(asked(wild=False, names=NAMES))
def test_typed_reader_takes_every_honest_body(of_and_body: tuple[Signature, bytes]) -> None:
    """A body of values that the features take is read once, and as the exact reader reads it."""
    of, body = of_and_body
    with counting() as seen:
        found = outcome(of, body)
    assert not seen and not isinstance(found[0], type)
    check_agrees(of, body)


@pytest.mark.parametrize("name", UNNAMEABLE, ids=repr)
def test_names_that_msgspec_does_not_take_are_read_exactly(name: str) -> None:
    """A name with a quote, a backslash or a control character is answered all the same, by the exact reader."""
    of = signature(Feature(name=name, dtype="float64"), AB)
    for document in ({"instances": [{name: 1.5, "a:b": "x"}]}, {"inputs": {name: [1.5], "a:b": ["x"]}}):
        with counting() as seen:
            columns, n_rows, _ = outcome(of, json.dumps(document).encode())
        assert len(seen) == n_rows == 1 and [found for found, _ in columns] == [name, "a:b"]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_other_names_are_read_by_type(name: str) -> None:
    """Colons, spaces and letters of any script in a name are no reason to read a body twice."""
    of = signature(Feature(name=name, dtype="float64"), SPOKEN)
    for document in ({"instances": [{name: 1.5, "word": "x"}]}, {"inputs": {name: [1.5], "word": ["x"]}}):
        with counting() as seen:
            assert outcome(of, json.dumps(document, ensure_ascii=False).encode())[1] == 1
        assert not seen


@pytest.mark.parametrize("largest", [0.5, 2.0**31 - 1, 2.0**62, 2.0**63, 1e19, 1e300])
@pytest.mark.parametrize("value", [0, 1, INT64_MAX, INT64_MIN, INT64_MAX + 1])
def test_whole_numbers_within_any_limit(value: int, largest: float) -> None:
    """A limit beyond 64 bits, as a manifest may say it, refuses nothing and fails nothing."""
    of = signature(Feature(name="n", dtype="int64", largest=largest))
    found = check_agrees(of, json.dumps({"instances": [[value]]}).encode())
    assert isinstance(found[0], type) == (abs(value) > largest or value > INT64_MAX)
