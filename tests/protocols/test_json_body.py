"""Strict JSON: what is read, what is refused, and that damage never reads as something else."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from service.errors import DuplicateKey, InvalidJson, NumberOutOfRange, RequestError
from service.protocols.json_body import read_json, write_json

PROPERTY = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
DOCUMENTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=3)


def refusal(body: bytes) -> RequestError:
    """The error that a body raises."""
    with pytest.raises(RequestError) as caught:
        read_json(body)
    return caught.value


@PROPERTY
@given(DOCUMENTS, st.booleans())
def test_json_reads_what_it_means(document: dict[str, Any], ascii_only: bool) -> None:
    """A document is read as it was written, in escapes or in UTF-8."""
    assert read_json(json.dumps(document, ensure_ascii=ascii_only).encode()) == document


@PROPERTY
@given(DOCUMENTS)
def test_json_written_is_read_again(document: dict[str, Any]) -> None:
    """What is written is one line of ASCII and reads as the same document."""
    body = write_json(document)
    assert body.isascii() and body.endswith(b"\n") and body.count(b"\n") == 1
    assert read_json(body) == document


@PROPERTY
@given(DOCUMENTS, st.booleans(), st.data())
def test_1_4_json_cut_anywhere_is_refused(document: dict[str, Any], ascii_only: bool, data: st.DataObject) -> None:
    """A body that ends early, at whatever byte, is never read as anything."""
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    cut = data.draw(st.integers(0, len(body) - 1))
    assert type(refusal(body[:cut])) is InvalidJson


@PROPERTY
@given(DOCUMENTS, st.binary(min_size=1, max_size=3))
def test_1_4_json_with_bytes_behind_it_is_refused(document: dict[str, Any], more: bytes) -> None:
    """Anything but white space behind the document is refused."""
    assume(more.strip(b" \t\r\n"))
    refusal(write_json(document) + more)


@PROPERTY
@given(
    st.binary(max_size=40)
    | st.text('{}[],:"\\u0123e+-.tfn aNI\ud83d', max_size=40).map(lambda t: t.encode("utf-8", "surrogatepass"))
)
def test_1_4_json_reads_or_refuses_any_bytes(body: bytes) -> None:
    """Any bytes at all are either read, as Python's own parser reads them, or refused as a request error."""
    try:
        document = read_json(body)
    except RequestError:
        return
    assert document == json.loads(body.decode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 1}',
        b'{"a": 1, "b": 2, "a": null}',
        b'{"instances": [{"a": 1, "a": 2}]}',
        b'[[[[{"x": {"a": [], "a": []}}]]]]',
        b'{"a": 1, "\\u0061": 2}',
        b'{"": 1, "": 2}',
        b'{"\\ud83d": 1, "\\ud83d": 2}',
    ],
)
def test_1_4_json_refuses_duplicate_key(body: bytes) -> None:
    """A key that stands twice in one object is refused at any depth, in escapes too."""
    error = refusal(body)
    assert type(error) is DuplicateKey
    assert error.detail.encode()


def test_json_takes_one_key_in_several_objects() -> None:
    """A key may stand in several objects, and differ by case."""
    assert read_json(b'[{"a": {"a": 1}}, {"a": 2, "A": 3}]') == [{"a": {"a": 1}}, {"a": 2, "A": 3}]


def test_json_names_the_key_that_stands_twice() -> None:
    """The error names the key, cut to 60 signs."""
    assert "'b'" in refusal(b'{"a": 1, "b": 2, "b": 3, "c": 4}').detail
    assert len(refusal(b'{"%(key)s": 1, "%(key)s": 2}' % {b"key": b"x" * 100_000}).detail) < 150


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("body", ["%s", "[%s]", '{"a": %s}', '{"a": [[{"b": [1, %s]}]]}'])
def test_1_4_json_refuses_numbers_that_are_none(token: str, body: str) -> None:
    """NaN and the infinities are refused by name at any depth, with a way to send a missing value."""
    error = refusal((body % token).encode())
    assert type(error) is InvalidJson
    assert error.detail == f"{token} is not JSON; send null for a missing value"


@pytest.mark.parametrize("token", ["nan", "inf", "+1", "01", "1.", ".5", "0x10", "1_000", "1e", "True", "None", "'a'"])
def test_1_4_json_refuses_tokens_of_other_languages(token: str) -> None:
    """Numbers and words that are not JSON's own are refused."""
    assert type(refusal(f'{{"a": {token}}}'.encode())) is InvalidJson


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"\n", b"{", b"}", b"{]", b'{"a"}', b'{"a":}', b'{"a":1,}', b"{,}", b"[1,]", b"[1 2]", b"{a: 1}"),
        *(b"{'a': 1}", b'{"a": 1} {"a": 1}', b"{} x", b"// a\n{}", b'{"a": "\n"}', b'{"a": "\x00"}', b'{"a": "\\x41"}'),
        *(b'{"a": "\\u12"}', b"\x00{}", b"{}\x00", b"\xc2\xa0{}", b"\x0c{}"),
    ],
)
def test_1_4_json_refuses_malformed_body(body: bytes) -> None:
    """A body that is not one JSON document is refused, with the place."""
    error = refusal(body)
    assert type(error) is InvalidJson
    assert "line 1, column" in error.detail or "line 2, column" in error.detail


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "\xff"}',
        b'{"a": "\xc3"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\xc0\x80"}',
        b'{"a": "\xf4\x90\x80\x80"}',
        '{"a": "é"}'.encode("latin-1"),
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-32"),
    ],
    ids=ascii,
)
def test_1_4_json_refuses_bytes_that_are_not_utf8(body: bytes) -> None:
    """Bytes that are not UTF-8, overlong and surrogate forms among them, are refused with their place."""
    error = refusal(body)
    assert type(error) is InvalidJson
    assert error.detail == f"byte {6 + 1 if body[0] == 0x7B else 0} is not UTF-8; send the body in UTF-8"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_1_4_json_does_not_guess_an_encoding(encoding: str) -> None:
    """UTF-16 and UTF-32 without a mark are refused, which Python's own parser would guess."""
    assert type(refusal('{"a": 1}'.encode(encoding))) is InvalidJson


def test_1_4_json_refuses_byte_order_mark() -> None:
    """A byte order mark before the document is refused."""
    assert type(refusal(b"\xef\xbb\xbf{}")) is InvalidJson


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]"), ("[", "")])
def test_1_4_json_refuses_deep_nesting(opening: str, closing: str) -> None:
    """100,000 nested lists or objects are refused, closed or not, and do not exhaust the stack."""
    error = refusal((opening * 100_000 + "1" + closing * 100_000).encode())
    assert type(error) is InvalidJson
    assert "nested too deeply" in error.detail


def test_json_takes_a_long_flat_list() -> None:
    """Depth is bounded and length is not."""
    assert len(read_json(b"[" + b"[]," * 100_000 + b"[]]")) == 100_001


@pytest.mark.parametrize("body", [b"%s", b"[-%s]", b'{"a": {"b": %s}}'])
def test_1_4_json_refuses_integer_of_ten_thousand_digits(body: bytes) -> None:
    """An integer too long to convert is out of range, not an error of the service."""
    assert type(refusal(body % (b"9" * 10_000))) is NumberOutOfRange


@pytest.mark.parametrize("body", [b"1e400", b"1" * 200_000 + b".0", b"9" * 400 + b"e0", b"1e" + b"9" * 10_000])
def test_json_reads_overflow_as_infinity(body: bytes) -> None:
    """A number with a point or an exponent that overflows a double becomes infinity, for the signature to refuse."""
    assert read_json(body) == math.inf
    assert read_json(b"-" + body) == -math.inf


@pytest.mark.parametrize("body", [b"1e-400", b"0." + b"0" * 200_000 + b"1"])
def test_json_reads_underflow_as_zero(body: bytes) -> None:
    """A number too small for a double is zero."""
    assert read_json(body) == 0.0


@pytest.mark.parametrize("escaped", ["\\ud83d", "\\ude00", "\\ude00\\ud83d"])
def test_json_reads_half_a_surrogate_pair(escaped: str) -> None:
    """Half of a surrogate pair in escapes is read, as JSON's grammar has it, for the signature to refuse."""
    assert read_json(f'"{escaped}"'.encode()) == json.loads(f'"{escaped}"')


def test_json_joins_a_surrogate_pair() -> None:
    """Both halves of a pair in escapes are the one character."""
    assert read_json(b'"\\ud83d\\ude00"') == "😀"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_writes_no_number_that_is_none(value: float) -> None:
    """NaN and infinity are never written."""
    with pytest.raises(ValueError):
        write_json({"a": [value]})


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"%d":0' % number for number in range(60_000)) + b',"7":0}',
        b'"' + b"\\u00e9" * 100_000 + b'"' * 2,
        b"[" + b"1," * 300_000,
        b"\n" * 600_000,
        b"[" + b"4" * 4000 + b"," + b"0.%s," % (b"1" * 300_000) + b"x]",
    ],
    ids=["keys", "escapes", "cut", "lines", "digits"],
)
def test_json_refuses_in_linear_time(body: bytes) -> None:
    """A bad body of half a megabyte is refused without quadratic work."""
    refusal(body)
