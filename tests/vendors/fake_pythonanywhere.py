"""A stand-in for PythonAnywhere's HTTPS API: it answers what the real one answers, and remembers what was asked.

Source: help.pythonanywhere.com/pages/API and /pages/ASGIAPI, by way of paas.md, section 5.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl

from tests.vendors.tools import machine_program, run

TOKEN = "0123456789abcdef"
ROUTES = [
    ("GET", r"/api/v0/user/\w+/webapps/[\w.]+/", 404),
    ("POST", r"/api/v0/user/\w+/webapps/", 200),
    ("PATCH", r"/api/v0/user/\w+/webapps/[\w.]+/", 200),
    ("POST", r"/api/v0/user/\w+/webapps/[\w.]+/static_files/", 201),
    ("POST", r"/api/v0/user/\w+/webapps/[\w.]+/reload/", 200),
    ("POST", r"/api/v0/user/\w+/files/path/home/.+", 201),
    ("DELETE", r"/api/v0/user/\w+/files/path/home/.+", 204),
    ("POST", r"/api/v1/user/\w+/websites/", 201),
    ("POST", r"/api/v1/user/\w+/websites/[\w.]+/reload/", 200),
]


@dataclass
class Api:
    """What was asked of it, and how programs find it."""

    variables: dict[str, str]
    calls: list[tuple[str, str, Any]] = field(default_factory=list)


@contextmanager
def fake_pythonanywhere(folder: Path) -> Iterator[Api]:
    """Answer at a port of this machine until the block ends, under a certificate of its own."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    kind = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    made = run([machine_program("openssl"), *kind, *subject], folder, HOME=str(folder))
    assert made.returncode == 0, made.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        api = Api(
            {
                "API_TOKEN": TOKEN,
                "PYTHONANYWHERE_SITE": f"localhost:{server.server_port}",
                "PYTHONANYWHERE_USERNAME": "anyport",
                "REQUESTS_CA_BUNDLE": str(certificate),
                "TERM": "dumb",
                "COLUMNS": "200",
            }
        )
        Handler.calls = api.calls
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield api
        finally:
            server.shutdown()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    calls: list[tuple[str, str, Any]]

    def do_GET(self) -> None:
        """Answer by method and path, and refuse what the real API does not know."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        statuses = [
            status for method, path, status in ROUTES if method == self.command and re.fullmatch(path, self.path)
        ]
        status = statuses[0] if statuses else 405
        if self.headers["Authorization"] != f"Token {TOKEN}":
            status = 401
        self.calls.append((self.command, self.path, read(self.headers.get("Content-Type", ""), body)))
        answer = json.dumps({"status": "OK"}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


def read(media_type: str, body: bytes) -> Any:
    """Return a body as what its media type says: a document, the fields of a form, or an uploaded file's bytes."""
    if media_type == "application/json":
        return json.loads(body)
    if media_type == "application/x-www-form-urlencoded":
        return dict(parse_qsl(body.decode()))
    if media_type.startswith("multipart/form-data"):
        form = message_from_bytes(f"Content-Type: {media_type}\r\n\r\n".encode() + body)
        return {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in form.walk()
            if not part.is_multipart()
        }
    return body.decode()
