"""A client that checks every answer: it replays golden rows against an address, here or anywhere."""

from __future__ import annotations

import http.client
import json
import math
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from service.errors import PlatformError, shorten
from service.manifest import Golden, Manifest

HOST = re.compile(r"[A-Za-z0-9:._-]+")
PRINTABLE = re.compile(r"[!-~]*")
JSON = {"Content-Type": "application/json"}
ACCEPT_S = 1.0
"""On one machine a connection is taken or refused at once."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def document(self) -> dict[str, Any]:
        """Return the body's JSON object, an empty one if it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Address:
    """Where a service listens: a host and a port, or a Unix socket; with TLS where wanted."""

    host: str = "127.0.0.1"
    port: int = 0
    unix: Path | None = None
    tls: bool = False
    path: str = ""
    """What stands before every path of the service."""

    def connect(self, timeout_s: float) -> http.client.HTTPConnection:
        """Return a connection, which connects with its first request."""
        if self.unix is not None:
            return UnixConnection(self.unix, timeout_s)
        if self.tls:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout_s, context=context)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)

    def accepts(self) -> bool:
        """Whether somebody takes a connection now."""
        connection = self.connect(ACCEPT_S)
        try:
            connection.connect()
        except OSError:
            return False
        finally:
            connection.close()
        return True

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 60,
    ) -> Answer:
        """Send one request on a connection of its own.

        Raises:
            OSError: If there is no answer; `http.client`'s errors too become one.
        """
        connection = self.connect(timeout_s)
        try:
            connection.request(method, self.path + path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except http.client.HTTPException as error:
            raise ConnectionError(f"the answer is not HTTP: {type(error).__name__}") from error
        finally:
            connection.close()


def address_of(url: str) -> Address:
    """Read the address of a service.

    Raises:
        PlatformError: If it is no http or https URL.
    """
    wrong = PlatformError(f"{shorten(url)!r} is not the address of a service, such as https://my-app.example")
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        host = (parts.hostname or "").encode("idna").decode()
    except (ValueError, UnicodeError) as error:
        raise wrong from error
    if parts.scheme not in ("http", "https") or not HOST.fullmatch(host) or not PRINTABLE.fullmatch(parts.path):
        raise wrong
    try:
        port = {"https": 443, "http": 80}[parts.scheme] if parts.port is None else parts.port
    except ValueError as error:
        raise PlatformError(f"{shorten(url)!r} has no usable port") from error
    if port == 0:
        raise PlatformError(f"{shorten(url)!r} has no usable port")
    return Address(host, port, tls=parts.scheme == "https", path=parts.path.rstrip("/"))


def golden_body(golden: Golden, times: int = 1) -> bytes:
    """Return the request that asks for the golden rows, one after the other, so many times."""
    return json.dumps({"instances": list(golden.rows) * times}).encode()


def golden_path(manifest: Manifest) -> str:
    """Return the path that asks this version."""
    return f"/v1/models/{manifest.name}/versions/{manifest.version}:predict"


def mismatches(manifest: Manifest, answer: Answer, times: int = 1) -> Iterator[str]:
    """Yield in what an answer to the golden rows differs from what the manifest knows."""
    if answer.status != 200:
        yield f"{manifest.label}: status {answer.status}: {answer.body[:200].decode(errors='replace')}"
        return
    document = answer.document()
    if document.get("version") != manifest.version:
        yield f"{manifest.label}: the answer does not name version {manifest.version}"
        return
    expected = list(manifest.golden.predictions) * times
    found = document.get("predictions")
    if not isinstance(found, list) or len(found) != len(expected):
        yield f"{manifest.label}: the answer has no prediction for each row"
        return
    for row, (right, got) in enumerate(zip(expected, found, strict=True)):
        if not _agrees(manifest.golden, right, got):
            yield f"{manifest.label}: row {row} is {got!r} and should be {right!r}"


def _agrees(golden: Golden, right: Any, got: Any) -> bool:
    if isinstance(right, tuple):
        return isinstance(got, list) and len(got) == len(right) and all(map(_agrees, [golden] * len(right), right, got))
    if isinstance(right, bool) or isinstance(got, bool):
        return right is got
    if isinstance(right, int | float) and isinstance(got, int | float):
        return math.isclose(got, right, rel_tol=golden.rtol, abs_tol=golden.atol)
    return bool(right == got)
