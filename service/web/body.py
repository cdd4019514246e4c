"""The one function that reads request bodies, below Flask. It knows WSGI's environ and nothing else."""

from __future__ import annotations

import logging
import zlib
from typing import Any

from service.errors import (
    InvalidContentEncoding,
    InvalidHeader,
    PayloadTooLarge,
    UnsupportedContentEncoding,
    shorten,
)

BLOCK_BYTES = 64 * 1024
MAX_RATIO = 100
"""A compressed body may grow by this factor at most."""

log = logging.getLogger(__name__)


def read_body(environ: dict[str, Any], max_bytes: int, *, accept_gzip: bool) -> bytes:
    """Read a request's whole body.

    Raises:
        PayloadTooLarge: Before reading if Content-Length says so, else after `max_bytes` + 1 bytes.
        InvalidHeader: If fewer bytes came than Content-Length declares, or the framing is broken.
        UnsupportedContentEncoding: If the body is compressed and that is not accepted.
        InvalidContentEncoding: If it cannot be decompressed, or only to more than it may grow to.
    """
    coding = environ.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if coding not in ("", "identity") and not (coding == "gzip" and accept_gzip):
        raise UnsupportedContentEncoding(f"the coding {shorten(coding)!r} is not accepted; send the body as it is")
    declared = _declared_length(environ)
    if declared is not None and declared > max_bytes:
        raise PayloadTooLarge(f"the body has {declared} bytes and may have {max_bytes}; send fewer rows at once")
    body = _read(environ, max_bytes, declared)
    return _gunzip(body, max_bytes) if coding == "gzip" else body


def _declared_length(environ: dict[str, Any]) -> int | None:
    """Return Content-Length, or None for a chunked body."""
    transfer = environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower()
    if transfer == "chunked":
        return None
    if transfer:
        raise InvalidHeader(f"Transfer-Encoding {shorten(transfer)!r} is not accepted; send chunked or none")
    text = environ.get("CONTENT_LENGTH") or "0"
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise InvalidHeader(f"Content-Length {shorten(text)!r} is not a number of bytes")
    return int(text)


def _read(environ: dict[str, Any], max_bytes: int, declared: int | None) -> bytes:
    stream, wanted = environ["wsgi.input"], max_bytes + 1 if declared is None else declared
    blocks, received = [], 0
    try:
        while received < wanted and (block := stream.read(min(BLOCK_BYTES, wanted - received))):
            blocks.append(block)
            received += len(block)
    except Exception as error:  # each server raises its own errors for a broken or ended stream
        log.info("a body could not be read: %s", type(error).__name__)
        raise InvalidHeader("the body ended early or its chunks are malformed; send it again") from error
    if declared is not None and received != declared:
        raise InvalidHeader(f"Content-Length says {declared} bytes and {received} came; send the whole body")
    if received > max_bytes:
        raise PayloadTooLarge(f"the body has more than {max_bytes} bytes; send fewer rows at once")
    return b"".join(blocks)


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    """Decompress one gzip member, to at most `max_bytes`."""
    limit = min(max_bytes, len(body) * MAX_RATIO)
    decoder = zlib.decompressobj(wbits=31)
    try:
        plain = decoder.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidContentEncoding("the body is not gzip, though Content-Encoding says so") from error
    if len(plain) > limit:
        if limit == max_bytes:
            raise PayloadTooLarge(f"the decompressed body has more than {max_bytes} bytes; send fewer rows at once")
        raise InvalidContentEncoding(f"the body grows by more than {MAX_RATIO} times; send it uncompressed")
    if not decoder.eof:
        raise InvalidContentEncoding("the gzip body ends early; send the whole body")
    if decoder.unused_data:
        raise InvalidContentEncoding("bytes follow the end of the gzip body; send one gzip member")
    return plain
