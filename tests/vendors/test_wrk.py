"""The benchmark's load as real wrk sends it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from bench.drive import Ask, drive
from tests.vendors.tools import tool

ASK = Ask("/predict", "application/json", "text/csv", (b'{"a": 1}', b"two\r\nlines\n", b""))


class Keeper(BaseHTTPRequestHandler):
    """Keeps what is asked, and answers each fifth request with an error."""

    protocol_version = "HTTP/1.1"
    kept: list[tuple[str, str, str, str, bytes]]

    def do_POST(self) -> None:
        """Keep one request."""
        names = ("Content-Type", "Accept", "X-Request-ID")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.kept.append((self.path, *(self.headers[name] for name in names), body))
        self.send_response(500 if len(self.kept) % 5 == 0 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def listening() -> Iterator[tuple[int, list[tuple[str, str, str, str, bytes]]]]:
    """A server that keeps what it is asked: its port and what it kept."""
    handler = type("Handler", (Keeper,), {"kept": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, handler.kept
        finally:
            server.shutdown()
            thread.join()


def test_no_head_repeats_and_bodies_rotate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request has an id of its own, the bodies take turns, and what is answered with an error is counted."""
    monkeypatch.setenv("PATH", str(Path(tool("wrk", "wrk")).parent), prepend=":")
    with listening() as (port, kept):
        result = drive(port, ASK, 1, 1, tmp_path)
    assert {request[:3] for request in kept} == {("/predict", "application/json", "text/csv")}
    assert len({request[3] for request in kept}) == len(kept) >= 10
    turns = [ASK.bodies.index(request[4]) for request in kept]
    assert all((turn + 1) % len(ASK.bodies) == following for turn, following in pairwise(turns))
    assert 0 < result.errors <= len(kept) // 5 + 1 and result.answered > 0
