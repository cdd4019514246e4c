"""Where a request ends is found exactly, however its bytes come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.framing import MAX_HEAD_BYTES, Chunks, Head, read_head

COUNTED = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", {"body_bytes": 0}),
        (COUNTED, {"body_bytes": 5}),
        (COUNTED.replace(b"Content-Length", b"CONTENT-LENGTH"), {"body_bytes": 5}),
        (COUNTED.replace(b": 5", b":  5 \t"), {"body_bytes": 5}),
        (CHUNKED, {"body_bytes": None}),
        (COUNTED[:-2] + b"Expect: 100-continue\r\n\r\n", {"body_bytes": 5, "expects_continue": True}),
    ],
)
def test_regular_head_tells_its_body(head: bytes, found: dict[str, object]) -> None:
    """A head with at most one plain framing field tells how many bytes follow."""
    assert read_head(bytearray(head + b"more")) == Head(len(head), **found)


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"Content-Length: -1",
        b"Content-Length:",
        b"Content-Length: 0x5",
        b"Content-Length: " + b"9" * 16,
        b"Content-Length: 5\r\nExpect: something",
        b"Expect: 100-continue",
    ],
)
def test_1_2_doubtful_framing_is_left_to_the_parser(field: bytes) -> None:
    """A head whose framing is not plain is irregular, so that gunicorn's parser judges it and the connection ends."""
    head = read_head(bytearray(b"POST / HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n\r\n"))
    assert head is not None and head.irregular


@pytest.mark.parametrize("junk", [b"x" * MAX_HEAD_BYTES, b"GET / HTTP/1.1\nHost: x\n\n"])
def test_head_without_end_is_irregular(junk: bytes) -> None:
    """A head that is too long, or ends its lines otherwise, is not waited for."""
    head = read_head(bytearray(junk))
    assert head is not None and head.irregular


@given(st.binary(max_size=200))
def test_head_is_whole_only_at_its_end(start: bytes) -> None:
    """A head cut anywhere is not taken for a whole one."""
    assert all(read_head(bytearray(COUNTED[:cut])) is None for cut in range(len(COUNTED)))
    head = read_head(bytearray(COUNTED + start))
    assert head is not None and head.size_bytes == len(COUNTED)


CHUNK_LISTS = st.lists(st.binary(min_size=1, max_size=50), max_size=6)


@given(CHUNK_LISTS, st.sampled_from([b"", b";a=b"]), st.sampled_from([b"", b"X: y\r\n"]), st.data())
def test_chunked_body_ends_where_it_ends(
    parts: list[bytes], extension: bytes, trailer: bytes, data: st.DataObject
) -> None:
    """The end of a chunked body is found at the same byte however it is cut, and never before its last byte."""
    body = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts) + b"0\r\n" + trailer + b"\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body) - 1), max_size=8)))
    chunks, received = Chunks(0), bytearray()
    for begin, end in zip([0, *cuts], cuts, strict=False):
        received += body[begin:end]
        assert chunks.end(received) is None and not chunks.irregular
    received += body[len(received) :] + b"GET"
    assert chunks.end(received) == len(body)
    assert chunks.data_bytes == sum(map(len, parts))


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n",
        b"-1\r\n",
        b" 5\r\n",
        b"5 \r\nabcde\r\n",
        b"5\r\nabcdeXX",
        b"f" * 9 + b"\r\n",
        b"5\nabcde\n",
        b"1" * 300,
    ],
)
def test_1_2_malformed_chunks_are_irregular(body: bytes) -> None:
    """A chunk that is not written as RFC 9112 has it is not waited for."""
    chunks = Chunks(0)
    assert chunks.end(bytearray(body)) is None
    assert chunks.irregular or body.startswith(b"5\n")
