"""A server that stands for a live service, and answers as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from service.manifest import Manifest
from service.platforms.client import golden_path


@dataclass
class Said:
    """One answer."""

    document: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """In the place of the document's JSON."""
    cut: bool = False
    """Whether the connection ends instead."""


@dataclass
class Live:
    """What the server answers to each path, and what it was asked."""

    answers: dict[str, Said | Callable[[Any], Said]]
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path: str, body: bytes) -> Said:
        """Answer one request."""
        said = self.answers.get(path, Said({"detail": "there is nothing here"}, 404))
        return said(json.loads(body)) if callable(said) else said


def right(manifest: Manifest) -> Callable[[Any], Said]:
    """Answer as a service does that serves this version: rows that are golden, with their predictions."""
    known = dict(zip(map(repr, map(list, manifest.golden.rows)), manifest.golden.predictions, strict=True))

    def answer(document: Any) -> Said:
        return Said({"version": manifest.version, "predictions": [known[repr(row)] for row in document["instances"]]})

    return answer


def well(*manifests: Manifest) -> dict[str, Said | Callable[[Any], Said]]:
    """What a service answers that is alive, ready, and right."""
    answers: dict[str, Said | Callable[[Any], Said]] = {
        "/livez": Said({"alive": True}),
        "/readyz": Said({"ready": True, "refused": {}, "stale": {}}),
    }
    return answers | {golden_path(manifest): right(manifest) for manifest in manifests}


@contextmanager
def listening(answers: dict[str, Said | Callable[[Any], Said]]) -> Iterator[Live]:
    """Answer so until the block ends."""
    live = Live(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            live.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            said = live.answer(self.path, body)
            if said.cut:
                self.close_connection = True
                return
            content = said.body if said.body is not None else json.dumps(said.document).encode()
            self.send_response(said.status)
            for name, value in {"Content-Length": str(len(content)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        live.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield live
        finally:
            server.shutdown()
            thread.join()
