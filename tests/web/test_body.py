"""Reading bodies: never more than allowed, never less than declared, and no bomb."""

from __future__ import annotations

import gzip
import io
import random
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import (
    InvalidContentEncoding,
    InvalidHeader,
    PayloadTooLarge,
    RequestError,
    UnsupportedContentEncoding,
)
from service.web.body import BLOCK_BYTES, MAX_RATIO, read_body

LIMIT = 1000
CHUNKED = {"HTTP_TRANSFER_ENCODING": "chunked"}
GZIP = {"HTTP_CONTENT_ENCODING": "gzip"}


class Stream(io.RawIOBase):
    """A request's body as a server hands it over: it may give short reads, and it counts what was taken."""

    def __init__(self, content: bytes, *, at_most: int = 10**9, error: Exception | None = None) -> None:
        self._content = io.BytesIO(content)
        self._at_most = at_most
        self._error = error
        self.taken = 0
        self.largest = 0

    def read(self, size: int = -1) -> bytes:
        """Give at most `size` bytes; at the end raise the error, if there is one."""
        assert size > 0, "an unbounded read"
        self.largest = max(self.largest, size)
        block = self._content.read(min(size, self._at_most))
        if not block and self._error is not None:
            raise self._error
        self.taken += len(block)
        return block


def untouched() -> Stream:
    """A stream that must not be read."""
    return Stream(b"", error=AssertionError("the body was read"))


def read(stream: Any, *, accept_gzip: bool = False, max_bytes: int = LIMIT, **environ: str) -> bytes:
    """Read a body with these headers."""
    return read_body({"wsgi.input": stream} | environ, max_bytes, accept_gzip=accept_gzip)


def refusal(stream: Any, **facts: Any) -> RequestError:
    """The error that a body raises."""
    with pytest.raises(RequestError) as caught:
        read(stream, **facts)
    return caught.value


def zipped(content: bytes) -> bytes:
    """Content as one gzip member."""
    return gzip.compress(content, mtime=0)


def refusal_of_gzip(body: bytes, **facts: Any) -> RequestError:
    """The error that a compressed body raises."""
    return refusal(Stream(body), accept_gzip=True, CONTENT_LENGTH=str(len(body)), **GZIP, **facts)


# With Content-Length


@pytest.mark.parametrize("at_most", [1, 7, 10**9])
@pytest.mark.parametrize("length", [0, 1, LIMIT - 1, LIMIT])
def test_body_is_read_whole(length: int, at_most: int) -> None:
    """A body up to the limit is read whole, in however small pieces it comes."""
    content = random.Random(length).randbytes(length)
    assert read(Stream(content, at_most=at_most), CONTENT_LENGTH=str(length)) == content


@pytest.mark.parametrize("environ", [{}, {"CONTENT_LENGTH": ""}, {"CONTENT_LENGTH": "0"}])
def test_body_without_a_length_is_empty(environ: dict[str, str]) -> None:
    """Without Content-Length and without chunks there is no body, and nothing is read."""
    assert read(untouched(), **environ) == b""


def test_body_ends_at_its_length() -> None:
    """Bytes behind the declared length are left to the server."""
    stream = Stream(b"abcdef")
    assert read(stream, CONTENT_LENGTH="4") == b"abcd"
    assert stream.taken == 4


def test_body_is_read_in_blocks() -> None:
    """A large body is never asked for in one piece."""
    stream = Stream(b"x" * 300_000)
    assert len(read(stream, max_bytes=10**6, CONTENT_LENGTH="300000")) == 300_000
    assert stream.largest == BLOCK_BYTES


@pytest.mark.parametrize("length", [LIMIT + 1, 10**12, 10**18])
def test_1_1_body_too_long_is_refused_unread(length: int) -> None:
    """A declared length over the limit is refused before a byte is read, and told the limit."""
    error = refusal(untouched(), CONTENT_LENGTH=str(length))
    assert type(error) is PayloadTooLarge
    assert f"has {length} bytes and may have {LIMIT}" in error.detail


@pytest.mark.parametrize("received", [0, 1, 99])
@pytest.mark.parametrize("at_most", [1, 10**9])
def test_1_1_body_that_ends_early_is_refused(received: int, at_most: int) -> None:
    """Fewer bytes than declared are refused, not predicted."""
    error = refusal(Stream(b"x" * received, at_most=at_most), CONTENT_LENGTH="100")
    assert type(error) is InvalidHeader
    assert f"says 100 bytes and {received} came" in error.detail


@pytest.mark.parametrize(
    "text",
    [
        *(
            "+5",
            "-1",
            "-0",
            "5,5",
            "5, 5",
            "5 5",
            " 5",
            "5 ",
            "5\n",
            "0x5",
            "5.0",
            "5e3",
            "1_000",
            "abc",
            "٣",
            "５",
            "²",
        ),
        *("9" * 20, "9" * 5000, "0" * 20, "\x00", "5\x00", "5;5", "'5'"),
    ],
    ids=ascii,
)
def test_1_1_malformed_length_is_refused_unread(text: str) -> None:
    """A Content-Length that is not plain digits is refused before a byte is read, and repeated in part only."""
    error = refusal(untouched(), CONTENT_LENGTH=text)
    assert type(error) is InvalidHeader
    assert error.detail.encode() and len(error.detail) < 150


@pytest.mark.parametrize("headers", [{"CONTENT_LENGTH": "10"}, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize(
    "error", [OSError("reset by 10.0.0.1"), ValueError("bad chunk"), TimeoutError(), RuntimeError("of the server")]
)
def test_1_2_broken_stream_is_the_requests_fault(error: Exception, headers: dict[str, str]) -> None:
    """Whatever a server raises for a broken body is a malformed request, without the server's words."""
    found = refusal(Stream(b"abc", error=error), **headers)
    assert type(found) is InvalidHeader
    assert found.detail == "the body ended early or its chunks are malformed; send it again"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_end_of_the_process_is_not_swallowed(error: BaseException) -> None:
    """A signal to end the process is no broken body."""
    with pytest.raises(type(error)):
        read(Stream(b"", error=error), CONTENT_LENGTH="10")  # type: ignore[arg-type]


# In chunks


@pytest.mark.parametrize("at_most", [1, 7, 10**9])
@pytest.mark.parametrize("length", [0, 1, LIMIT - 1, LIMIT])
def test_chunked_body_is_read_whole(length: int, at_most: int) -> None:
    """A chunked body up to the limit is read to its end."""
    assert read(Stream(b"x" * length, at_most=at_most), **CHUNKED) == b"x" * length


@pytest.mark.parametrize("at_most", [1, 7, 10**9])
@pytest.mark.parametrize("length", [LIMIT + 1, LIMIT + 2, 10**6])
def test_1_1_chunked_body_too_long_is_cut_off(length: int, at_most: int) -> None:
    """Of a chunked body at most one byte more than the limit is read before it is refused."""
    stream = Stream(b"x" * length, at_most=at_most)
    assert type(refusal(stream, **CHUNKED)) is PayloadTooLarge
    assert stream.taken == LIMIT + 1


@pytest.mark.parametrize("chunked", [False, True])
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(length=st.integers(0, 300), limit=st.integers(1, 200), at_most=st.integers(1, 50), declared=st.integers(0, 300))
def test_1_1_body_is_whole_or_refused(chunked: bool, length: int, limit: int, at_most: int, declared: int) -> None:
    """For any sizes, a body is whole or refused for the right reason, and never read beyond its end or the limit."""
    content, wanted = bytes(number % 251 for number in range(length)), length if chunked else declared
    stream = Stream(content, at_most=at_most)
    try:
        body = read(stream, max_bytes=limit, **(CHUNKED if chunked else {"CONTENT_LENGTH": str(declared)}))
    except PayloadTooLarge:
        assert wanted > limit
    except InvalidHeader:
        assert wanted > length
    else:
        assert body == content[:wanted] and len(body) == wanted <= limit
    assert stream.taken <= min(wanted, limit + 1)


def test_chunked_wins_over_a_length() -> None:
    """With both headers the chunks count, as the server reads them."""
    assert read(Stream(b"abc"), CONTENT_LENGTH="999999", **CHUNKED) == b"abc"


@pytest.mark.parametrize("coding", ["chunked", "Chunked", " CHUNKED "])
def test_chunked_is_known_in_any_case(coding: str) -> None:
    """The coding's name may be written in capitals."""
    assert read(Stream(b"abc"), HTTP_TRANSFER_ENCODING=coding) == b"abc"


@pytest.mark.parametrize(
    "coding", ["gzip", "gzip, chunked", "chunked, chunked", "identity", "chunked;x", "xchunked", "é"]
)
def test_1_3_other_transfer_coding_is_refused_unread(coding: str) -> None:
    """Any other Transfer-Encoding than plain chunked is refused before a byte is read."""
    error = refusal(untouched(), HTTP_TRANSFER_ENCODING=coding)
    assert type(error) is InvalidHeader
    assert error.detail.encode() and len(error.detail) < 150


# Compressed


@pytest.mark.parametrize("headers", [{}, {"HTTP_CONTENT_ENCODING": ""}, {"HTTP_CONTENT_ENCODING": "Identity"}])
def test_plain_body_stays_as_it_is(headers: dict[str, str]) -> None:
    """A body without a coding is handed on unchanged, even if it looks compressed."""
    body = zipped(b"abc")
    assert read(Stream(body), accept_gzip=True, CONTENT_LENGTH=str(len(body)), **headers) == body


@pytest.mark.parametrize("coding", ["gzip", "GZIP", " gzip "])
def test_1_3_gzip_is_refused_unread_unless_accepted(coding: str) -> None:
    """A compressed body is refused before a byte is read unless the operator accepts it."""
    error = refusal(untouched(), HTTP_CONTENT_ENCODING=coding, CONTENT_LENGTH="10")
    assert type(error) is UnsupportedContentEncoding
    assert error.status == 415


@pytest.mark.parametrize("coding", ["deflate", "br", "zstd", "x-gzip", "gzip, gzip", "gzip,identity", "é" * 1000])
def test_1_3_other_codings_are_refused_unread(coding: str) -> None:
    """Every coding but one gzip is refused before a byte is read, also where gzip is accepted."""
    error = refusal(untouched(), accept_gzip=True, HTTP_CONTENT_ENCODING=coding, CONTENT_LENGTH="10")
    assert type(error) is UnsupportedContentEncoding
    assert error.detail.encode() and len(error.detail) < 150


@pytest.mark.parametrize("headers", [{}, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("content", [b"", b"a", b'{"instances": []}' * 10, bytes(LIMIT)])
def test_gzip_is_decompressed_where_accepted(content: bytes, headers: dict[str, str]) -> None:
    """A gzip body up to the limit is decompressed, however it was framed."""
    body = zipped(content)
    length = {} if headers else {"CONTENT_LENGTH": str(len(body))}
    assert read(Stream(body), accept_gzip=True, **GZIP, **headers, **length) == content


def test_1_3_gzip_beyond_the_limit_is_refused() -> None:
    """The limit holds after decompression too."""
    content = random.Random(0).randbytes(LIMIT)
    assert len(read(Stream(zipped(content[:-30])), accept_gzip=True, **GZIP, **CHUNKED)) == LIMIT - 30
    text = bytes(random.Random(0).choices(b"0123456789", k=LIMIT + 1))
    error = refusal_of_gzip(zipped(text))
    assert type(error) is PayloadTooLarge
    assert "the decompressed body has more than 1000 bytes" in error.detail


def test_1_3_gzip_itself_is_limited() -> None:
    """The limit holds before decompression too."""
    body = zipped(random.Random(0).randbytes(LIMIT + 100))
    assert type(refusal(untouched(), accept_gzip=True, CONTENT_LENGTH=str(len(body)), **GZIP)) is PayloadTooLarge


@pytest.mark.parametrize("max_bytes", [10**6, 10**9])
def test_1_3_gzip_bomb_is_refused(max_bytes: int) -> None:
    """A body that grows by more than a hundred times is refused, below the limit too."""
    error = refusal_of_gzip(zipped(bytes(900_000)), max_bytes=max_bytes)
    assert type(error) is InvalidContentEncoding
    assert f"grows by more than {MAX_RATIO} times" in error.detail


def test_1_3_gzip_bomb_costs_little_memory() -> None:
    """Of a body that would grow a thousandfold no more than a hundred times its size is ever made."""
    import tracemalloc

    packer = zlib.compressobj(9, wbits=31)
    body = b"".join([*(packer.compress(bytes(2**20)) for _ in range(64)), packer.flush()])
    tracemalloc.start()
    try:
        refusal_of_gzip(body, max_bytes=2**30)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * MAX_RATIO * len(body)


def test_gzip_at_the_ratio_is_taken() -> None:
    """A body that grows by just a hundred times is decompressed."""
    content = b"".join(bytes([number % 256]) * 250 for number in range(50))
    body = zipped(content)
    assert 10 < len(content) / len(body) <= MAX_RATIO
    assert read(Stream(body), accept_gzip=True, max_bytes=10**6, CONTENT_LENGTH=str(len(body)), **GZIP) == content


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(min_size=1, max_size=200), st.data())
def test_1_3_gzip_cut_anywhere_is_refused(content: bytes, data: st.DataObject) -> None:
    """A gzip body that ends early, at whatever byte, is refused."""
    body = zipped(content)
    cut = data.draw(st.integers(0, len(body) - 1))
    assert type(refusal_of_gzip(body[:cut])) is InvalidContentEncoding


@pytest.mark.parametrize("behind", [b"\x00", b"\x00" * 100, b"x", b"\n", zipped(b"{}"), zipped(b"")], ids=range(6))
def test_1_3_gzip_with_bytes_behind_it_is_refused(behind: bytes) -> None:
    """Bytes behind the first member, another member among them, are refused."""
    error = refusal_of_gzip(zipped(b'{"instances": []}') + behind)
    assert type(error) is InvalidContentEncoding
    assert "one gzip member" in error.detail


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"\x1f\x8b",
        b"\x1f\x8b\x08" + b"\xff" * 30,
        zlib.compress(b"{}"),
        zipped(b"abc")[:-8] + bytes(8),
        zipped(b"abc")[:-4] + bytes(4),
        b"",
    ],
    ids=["plain", "magic", "flags", "zlib", "checksum", "size", "empty"],
)
def test_1_3_what_is_no_gzip_is_refused(body: bytes) -> None:
    """A body that is not gzip, or whose checksum or size is wrong, is refused."""
    assert type(refusal_of_gzip(body)) is InvalidContentEncoding
