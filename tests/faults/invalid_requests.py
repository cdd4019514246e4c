"""gunicorn's own collection of invalid and valid requests, sent to the running service.

    python -m tests.faults.invalid_requests        # prints whatever was not as it must be

An invalid request must be refused: with 4xx, 501 or 505 as a problem document, or by the end of its connection; never
with 2xx and never with 500. Where gunicorn's parser passes its head, its body must be what is wrong: then it is sent to
/predict too, which reads it, and must get 400; or `THROUGH` says why it is valid here. Every valid request must be
answered, though not with a 5xx; and after each one the service must live.

The collection is part of gunicorn's source distribution, which `make test` unpacks beside the virtual environment.
Source: benoitc/gunicorn, `tests/requests` and `tests/treq.py`, of the version in requirements.txt, read 2026-11-22.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.server import Server, running

SOURCE = Path(sys.prefix) / "gunicorn-source"
STATUS = re.compile(rb"(?:\A|(?<=\n))HTTP/1\.[01] (\d{3}) ")
REQUEST_LINE = re.compile(rb"\A(POST|PUT) \S+ HTTP/1\.1\r\n")
NOT_PARSED = (b"is not HTTP/1.1 as RFC 9112 has it", b"the request ended before its end")
"""What the worker says of a head that gunicorn's parser refuses or never sees whole; the app says something else."""

LIMITS = "it breaks limits of header fields that its own file sets far lower than ours"
DROPPED = "header_map is `drop`: the field with an underscore is dropped, and what is left is a valid request"
THROUGH = {"010": LIMITS, "011": LIMITS, "012": LIMITS, "040": DROPPED, "chunked_07": DROPPED}
"""Invalid requests that are valid under the settings that we run, each with the reason."""


def fixtures(kind: str) -> list[Path]:
    """The files of the `invalid` or the `valid` requests.

    Raises:
        FileNotFoundError: If gunicorn's source is not there.
    """
    found = sorted((SOURCE / "tests" / "requests" / kind).glob("*.http"))
    if not found:
        raise FileNotFoundError(f"gunicorn's source is not in {SOURCE}; `make test` fetches it")
    return found


def read_request(path: Path) -> bytes:
    """The bytes that a file stands for: its lines are joined, and its escapes are written out."""
    text = path.read_bytes().replace(b"\n", b"")
    for escape, byte in ((b"\\r\\n", b"\r\n"), (b"\\0", b"\0"), (b"\\n", b"\n"), (b"\\t", b"\t")):
        text = text.replace(escape, byte)
    return re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), text)


def aimed(request: bytes) -> bytes | None:
    """The same request to /predict, with a Host; None if that would be another request."""
    if not REQUEST_LINE.match(request):
        return None
    host = b"" if b"\r\nhost:" in request.lower().partition(b"\r\n\r\n")[0] else b"Host: x\r\n"
    return REQUEST_LINE.sub(b"POST /predict HTTP/1.1\r\n" + host, request)


@dataclass(frozen=True)
class Verdict:
    """How the service took one request."""

    statuses: tuple[int, ...]
    parsed: bool
    """Whether it came through gunicorn's parser to the app."""
    problem: bool
    """Whether every answer is a problem document."""
    alive: bool

    @property
    def refused(self) -> bool:
        """Whether it was refused as it must be."""
        proper = all(400 <= status < 500 or status in (501, 505) for status in self.statuses)
        return self.alive and proper and self.problem


def judge(server: Server, request: bytes) -> Verdict:
    """Send one request, half-close, and read until the service closes too."""
    try:
        answer = server.raw(request, half_close=True)
    except ConnectionResetError:
        answer = b""
    statuses = tuple(map(int, STATUS.findall(answer)))
    first = answer.partition(b"\n}")[0].partition(b"HTTP/1.1 ")[2]
    return Verdict(
        statuses,
        bool(statuses) and not any(words in first for words in NOT_PARSED),
        answer.count(b"application/problem+json") == len(statuses),
        server.request("GET", "/livez")[0] == 200,
    )


def complaints_of_invalid(server: Server) -> Iterator[str]:
    """Send every invalid request; yield what was not as it must be."""
    for path in fixtures("invalid"):
        request = read_request(path)
        verdict = judge(server, request)
        if not verdict.refused:
            yield f"{path.stem} was not refused: {verdict}"
        if verdict.parsed != (path.stem in THROUGH):
            to_predict = aimed(request) if verdict.parsed else None
            if to_predict is None:
                yield f"{path.stem} {'came' if verdict.parsed else 'no longer comes'} through the parser: {verdict}"
            elif not (verdict := judge(server, to_predict)).refused or verdict.statuses[0] != 400:
                yield f"{path.stem} was not refused by /predict: {verdict}"


def complaints_of_valid(server: Server) -> Iterator[str]:
    """Send every valid request, also to /predict; yield what was not as it must be."""
    for path in fixtures("valid"):
        request = read_request(path)
        for sent in filter(None, (request, aimed(request))):
            verdict = judge(server, sent)
            if not verdict.alive or not verdict.statuses or max(verdict.statuses) >= 500:
                yield f"{path.stem} was not answered: {verdict}"


def complaints() -> list[str]:
    """Send the whole collection to a service over the demo model; return what was not as it must be."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(shutil.copytree(ROOT / "models", Path(folder) / "models"))
        with running(models, WEB_CONCURRENCY="1") as server:
            return [*complaints_of_invalid(server), *complaints_of_valid(server)]


if __name__ == "__main__":
    found = complaints()
    print(
        *found,
        f"{len(fixtures('invalid'))} invalid, {len(fixtures('valid'))} valid requests, {len(found)} complaints",
        sep="\n",
    )
    sys.exit(bool(found))
