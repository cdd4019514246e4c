"""Plain request heads, read line by line: a strict part of HTTP/1.1, of which gunicorn's parser makes the same environ.

Whatever is not plain is left to gunicorn's parser. A test holds the two against each other.
"""

from __future__ import annotations

import io
import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NamedTuple

from gunicorn.http import wsgi
from gunicorn.http.errors import ConfigurationProblem
from gunicorn.http.parser import RequestParser

from service.framing import HEAD_END

LINE = re.compile(rb"(GET|HEAD|POST) ((/(?!/)[A-Za-z0-9._~:/-]*)(?:\?([A-Za-z0-9._~=&-]*))?) HTTP/1\.1")
"""Request lines without escapes."""
FIELD = re.compile(rb"([A-Za-z0-9-]+):([ -~]*)")
"""Field lines without tabs, folds, and underscores, which WSGI could confuse."""
UNUSUAL = {"HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "HTTP_UPGRADE"}
RENAMED = {"HTTP_CONTENT_TYPE": "CONTENT_TYPE", "HTTP_CONTENT_LENGTH": "CONTENT_LENGTH"}
"""Two fields have names that CGI had for them before."""
EMPTY = b"GET / HTTP/1.1\r\n\r\n"
DEFAULT_LIMIT = 8190
"""What a line or a field may have for gunicorn where its configuration says nothing.

Source: gunicorn 27.0.1 `gunicorn/http/message.py`, read 2026-11-23.
"""
KNOWN_LINES, MEMORABLE_BYTES = 256, 256
"""Of how many lines of fields, and how long ones, it is remembered what they say."""
REMEMBERED = {"CONTENT_LENGTH", "CONTENT_TYPE"} | {
    f"HTTP_{name}"
    for name in ("ACCEPT", "ACCEPT_ENCODING", "ACCEPT_LANGUAGE", "CONNECTION", "HOST", "USER_AGENT", "VIA")
    + ("X_FORWARDED_PORT", "X_FORWARDED_PROTO")
}
"""Fields that a client sends alike again and again, and whose values are no secrets and tell of nobody."""
KNOWN_PEERS = 1024
"""Of how many peers it is remembered whether they are trusted proxies."""


class Request(NamedTuple):
    """A request whose head is plain."""

    said: dict[str, str]
    """What its head says, by the names that WSGI has for it."""
    body: bytes
    https: bool
    """Whether it says that it came by https, which only some are believed."""
    close: bool
    """Whether the client wants the connection closed."""
    base: dict[str, Any]
    """What the environ has beside, by the listener that it came to."""


class Heads:
    """Reads plain heads under one configuration of gunicorn's, and remembers what common lines of fields say."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        limits = (cfg.limit_request_line, cfg.limit_request_field_size, DEFAULT_LIMIT)
        self._most_bytes = min(limit for limit in limits if limit > 0)  # no line of such a head breaks one
        self._most_fields = cfg.limit_request_fields
        headers = cfg.secure_scheme_headers.items()
        self._secure = {"HTTP_" + name.replace("-", "_"): value for name, value in headers if "_" not in name}
        self._base = lru_cache(None)(self._make_base)
        self._trusts = lru_cache(KNOWN_PEERS)(self._look_up)
        self._known = Memory()

    def read(self, request: bytes, client: Any, server: Any) -> Request | None:
        """Read the head of a whole request; None if it is for gunicorn's parser."""
        end = request.find(HEAD_END, 0, self._most_bytes)
        if end < 0 or not isinstance(client, tuple) or not isinstance(server, tuple):
            return None
        first, *rest = request[:end].split(b"\r\n")
        line, base = _read_line(first), self._base(server)
        if line is None or base is None or not 0 < len(rest) <= self._most_fields:
            return None
        pairs, body = [self._known[each] for each in rest], request[end + len(HEAD_END) :]
        fields = {} if None in pairs else dict(pairs)
        if len(fields) != len(pairs):
            return None
        secure = fields.keys() & self._secure.keys()
        if len(secure) > 1 or int(fields.get("CONTENT_LENGTH", "0")) != len(body):
            return None
        close = fields.get("HTTP_CONNECTION", "").lower() == "close"
        https = bool(secure) and all(fields[name] == self._secure[name] for name in secure)
        return Request(fields | line, body, https, close, base)

    def environ(self, request: Request, client: tuple[Any, ...]) -> dict[str, Any]:
        """Make a request's environ, as gunicorn does."""
        return (
            request.base
            | request.said
            | {
                "REMOTE_ADDR": client[0],
                "REMOTE_PORT": str(client[1]),
                "wsgi.url_scheme": "https" if request.https and self._trusts(client[0]) else "http",
                "wsgi.input": io.BytesIO(request.body),
            }
        )

    def _look_up(self, peer: str) -> bool:
        """Whether a peer is a proxy that gunicorn trusts."""
        if "*" in self._cfg.forwarded_allow_ips:
            return True
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._cfg.forwarded_allow_networks())

    def _make_base(self, server: tuple[Any, ...]) -> dict[str, Any] | None:
        """Have gunicorn make what is the same in every environ of one listener; None if the app is below a path."""
        parsed = next(RequestParser(self._cfg, iter([EMPTY]), ("", 0)))
        try:
            _, environ = wsgi.create(parsed, None, ("", 0), server, self._cfg)
        except ConfigurationProblem:
            return None
        return None if environ["SCRIPT_NAME"] else dict(environ)


class Memory(dict[bytes, Any]):
    """What lines of fields say; those that are `REMEMBERED` are read once in a while, all others each time."""

    def __missing__(self, line: bytes) -> tuple[str, str] | None:
        """Read a line that is not remembered."""
        pair = _read_field(line)
        if pair is not None and pair[0] in REMEMBERED and len(line) <= MEMORABLE_BYTES:
            if len(self) >= KNOWN_LINES:
                self.clear()
            self[line] = pair
        return pair


def _read_line(line: bytes) -> dict[str, str] | None:
    """Read a request line as the environ has it; None if it is not plain."""
    found = LINE.fullmatch(line)
    if found is None:
        return None
    method, target, path, query = ((part or b"").decode("ascii") for part in found.groups())
    return {"REQUEST_METHOD": method, "RAW_URI": target, "PATH_INFO": path, "QUERY_STRING": query}


def _read_field(line: bytes) -> tuple[str, str] | None:
    """Read a field's name in the environ and its value; None if it is not plain, or asks for more than an answer."""
    found = FIELD.fullmatch(line)
    if found is None:
        return None
    name, value = "HTTP_" + found[1].decode("ascii").upper().replace("-", "_"), found[2].decode("ascii").strip(" ")
    name = RENAMED.get(name, name)
    declares = name == "CONTENT_LENGTH" and not (value.isdecimal() and len(value) < 16)
    keeps = name == "HTTP_CONNECTION" and value.lower() not in ("close", "keep-alive")
    return None if declares or keeps or name in UNUSUAL else (name, value)
