"""Plain request heads, read in one look: a strict part of HTTP/1.1, of which gunicorn's parser makes the same environ.

Whatever is not plain is left to gunicorn's parser. A test holds the two against each other.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NamedTuple

from gunicorn.http import wsgi
from gunicorn.http.errors import ConfigurationProblem
from gunicorn.http.parser import RequestParser

from service.framing import HEAD_END

HEAD = re.compile(
    rb"(GET|HEAD|POST) ((/(?!/)[A-Za-z0-9._~:/-]*)(?:\?([A-Za-z0-9._~=&-]*))?) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[ -~]*\r\n)+)\r\n"
)
"""Request line and fields without escapes, tabs, folded lines and underscores, which WSGI could confuse."""
FIELD = re.compile(r"([^:]+):([^\r]*)\r\n")
UNUSUAL = {"HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "HTTP_UPGRADE"}
EMPTY = b"GET / HTTP/1.1\r\n\r\n"
DEFAULT_LIMIT = 8190
"""What a line or a field may have for gunicorn where its configuration says nothing.

Source: gunicorn 27.0.1 `gunicorn/http/message.py`, read 2026-11-23.
"""
KNOWN_HEADS, MEMORABLE_BYTES = 256, 1024
"""Of how many heads, and how long ones, it is remembered what they say."""
SECRETS = b"authorization", b"cookie", b"key", b"token", b"secret"
"""Words of fields whose values are nobody's to keep."""
KNOWN_PEERS = 1024
"""Of how many peers it is remembered whether they are trusted proxies."""
KNOWN_NAMES = 256
"""Of how many fields it is remembered what the environ calls them."""


class Known(NamedTuple):
    """What a plain head says by itself, whoever sent it."""

    environ: dict[str, Any]
    """As gunicorn makes it, but for the client, the scheme and the body."""
    body_bytes: int
    https: bool
    """Whether it says that it came by https, which only some are believed."""
    close: bool
    """Whether the client wants the connection closed."""
    asks: Any
    """What `look` made of it."""


class Request(NamedTuple):
    """A request whose head is plain."""

    head: Known
    body: bytes


class Heads:
    """Reads plain heads under one configuration of gunicorn's, and remembers what they say.

    Args:
        cfg: The configuration.
        look: What else is to be remembered of a head, made of its environ.
    """

    def __init__(self, cfg: Any, look: Callable[[dict[str, Any]], Any]) -> None:
        self._cfg, self._look = cfg, look
        limits = (cfg.limit_request_line, cfg.limit_request_field_size, DEFAULT_LIMIT)
        self._most_bytes = min(limit for limit in limits if limit > 0)  # no line of such a head breaks one
        self._most_fields = cfg.limit_request_fields
        headers = cfg.secure_scheme_headers.items()
        self._secure = {"HTTP_" + name.replace("-", "_"): value for name, value in headers if "_" not in name}
        self._base = lru_cache(None)(self._make_base)
        self._trusts = lru_cache(KNOWN_PEERS)(self._look_up)
        self._known: dict[tuple[bytes, Any], Known] = {}

    def read(self, request: bytes, client: Any, server: Any) -> Request | None:
        """Read the head of a whole request; None if it is for gunicorn's parser."""
        end = request.find(HEAD_END, 0, self._most_bytes) + len(HEAD_END)
        if end < len(HEAD_END) or not isinstance(client, tuple) or not isinstance(server, tuple):
            return None
        known = self._recall(request[:end], server)
        return None if known is None or known.body_bytes != len(request) - end else Request(known, request[end:])

    def environ(self, request: Request, client: tuple[Any, ...]) -> dict[str, Any]:
        """Make a request's environ, as gunicorn does."""
        return request.head.environ | {
            "REMOTE_ADDR": client[0],
            "REMOTE_PORT": str(client[1]),
            "wsgi.url_scheme": "https" if request.head.https and self._trusts(client[0]) else "http",
            "wsgi.input": io.BytesIO(request.body),
        }

    def _recall(self, head: bytes, server: tuple[Any, ...]) -> Known | None:
        """Return what a head says, which is mostly what the client's last one said."""
        known = self._known.get((head, server))
        if known is not None:
            return known
        found = self._know(head, server)
        if found is not None and len(head) <= MEMORABLE_BYTES and not _holds_secret(head):
            if len(self._known) >= KNOWN_HEADS:
                self._known.clear()
            self._known[head, server] = found
        return found

    def _know(self, head: bytes, server: tuple[Any, ...]) -> Known | None:
        """Read a head that came to a listener; None if it is for gunicorn's parser."""
        found, base = HEAD.fullmatch(head), self._base(server)
        fields = None if found is None else self._fields(found[5].decode("ascii"))
        if found is None or fields is None or base is None:
            return None
        declared = fields.get("HTTP_CONTENT_LENGTH", "0")
        said = [fields[name] == secure for name, secure in self._secure.items() if name in fields]
        if not (declared.isdecimal() and len(declared) < 16) or len(said) > 1:
            return None
        close = fields.get("HTTP_CONNECTION", "").lower() == "close"
        method, target, path, query = ((part or b"").decode("ascii") for part in found.groups()[:4])
        line = {"REQUEST_METHOD": method, "RAW_URI": target, "PATH_INFO": path, "QUERY_STRING": query}
        environ = base | _renamed(fields) | line
        return Known(environ, int(declared), True in said, close, self._look(environ))

    def _fields(self, lines: str) -> dict[str, str] | None:
        """Read the fields by their names in the environ; None if one stands twice, or asks for more than an answer."""
        listed = FIELD.findall(lines)
        fields = {_key(name): value.strip(" ") for name, value in listed}
        if not len(fields) == len(listed) <= self._most_fields or not UNUSUAL.isdisjoint(fields):
            return None
        return fields if fields.get("HTTP_CONNECTION", "close").lower() in ("close", "keep-alive") else None

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


@lru_cache(KNOWN_NAMES)
def _key(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


def _renamed(fields: dict[str, str]) -> dict[str, str]:
    """Give the two fields their names that CGI had for them before."""
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if f"HTTP_{name}" in fields:
            fields[name] = fields.pop(f"HTTP_{name}")
    return fields


def _holds_secret(head: bytes) -> bool:
    """Whether a word of `SECRETS` stands anywhere in a head; asked of each that was not seen before, so it is quick."""
    lower = head.lower()
    for word in SECRETS:
        if word in lower:
            return True
    return False
