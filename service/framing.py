"""Where one HTTP/1.1 request ends within the bytes that a connection has received. Pure: bytes in, a frame out.

It decides only how many bytes make one whole request. Whether they are a valid one is gunicorn's parser's to say:
whatever looks irregular here is handed to it as it is, and the connection ends after its answer.

Source: RFC 9112 sections 2 and 6, 7.1, read 2026-11-22.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_HEAD_BYTES = 64 * 1024
MAX_CHUNK_LINE_BYTES = 256
MAX_TRAILER_BYTES = 8 * 1024
HEAD_END = b"\r\n\r\n"
FRAMING = re.compile(rb"\n(content-length|transfer-encoding|expect)[ \t]*:([^\r\n]*)", re.IGNORECASE)
LENGTH = re.compile(rb"[0-9]{1,15}")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?")


class Head(NamedTuple):
    """What a request's head says of its body.

    `body_bytes` is None for a chunked body. An irregular head has framing that only gunicorn's parser may judge.
    """

    size_bytes: int
    body_bytes: int | None = 0
    expects_continue: bool = False
    irregular: bool = False


def read_head(received: bytearray) -> Head | None:
    """Find the head at the start of what was received; None while its end has not come."""
    end = received.find(HEAD_END, 0, MAX_HEAD_BYTES)
    if end < 0:
        # A line that ends without a carriage return, or a head without end: gunicorn's parser says what is wrong.
        overlong = len(received) >= MAX_HEAD_BYTES or b"\n\n" in received
        return Head(len(received), irregular=True) if overlong else None
    size_bytes = end + len(HEAD_END)
    fields = FRAMING.findall(received, 0, end)
    if not fields:
        return Head(size_bytes)
    expects = [_trim(value) for name, value in fields if name.lower() == b"expect"]
    framing = [(name, value) for name, value in fields if name.lower() != b"expect"]
    if len(framing) != 1 or expects not in ([], [b"100-continue"]):
        return Head(size_bytes, irregular=True)
    name, value = framing[0][0].lower(), _trim(framing[0][1])
    if name == b"content-length" and LENGTH.fullmatch(value):
        return Head(size_bytes, int(value), bool(expects))
    if name == b"transfer-encoding" and value == b"chunked":
        return Head(size_bytes, None, bool(expects))
    return Head(size_bytes, irregular=True)


def _trim(value: bytes) -> bytes:
    return value.strip(b" \t").lower()


class Chunks:
    """Follows a chunked body as it comes, until its end is known."""

    def __init__(self, start: int) -> None:
        self.position = start
        self.data_bytes = 0
        self.received_bytes = 0
        self.irregular = False

    def end(self, received: bytearray) -> int | None:
        """Return where the request ends; None while it has not. Each byte is looked at once."""
        while not self.irregular:
            line_end = received.find(b"\r\n", self.position, self.position + MAX_CHUNK_LINE_BYTES)
            if line_end < 0:
                self.irregular = len(received) - self.position >= MAX_CHUNK_LINE_BYTES
                break
            line = CHUNK_LINE.fullmatch(received, self.position, line_end)
            if line is None:
                self.irregular = True
                break
            size = int(line[1], 16)
            if size == 0:
                return self._trailers(received, line_end)
            if line_end + 2 + size + 2 > len(received):
                self.received_bytes = self.data_bytes + min(size, len(received) - line_end - 2)
                break
            if received[line_end + 2 + size : line_end + 4 + size] != b"\r\n":
                self.irregular = True
                break
            self.data_bytes += size
            self.received_bytes = self.data_bytes
            self.position = line_end + 4 + size
        return None

    def _trailers(self, received: bytearray, line_end: int) -> int | None:
        if received[line_end : line_end + 4] == HEAD_END:
            return line_end + 4
        end = received.find(HEAD_END, line_end, line_end + MAX_TRAILER_BYTES)
        if end >= 0:
            return end + 4
        self.irregular = len(received) - line_end >= MAX_TRAILER_BYTES
        return None
