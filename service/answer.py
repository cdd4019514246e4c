"""From the bytes of one whole request to the bytes of its answer, through the app.

Plain heads are read (`heads`) and plain answers written without gunicorn's parser and Response: to the same bytes, in a
fraction of the time. Everything else goes through gunicorn's.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from gunicorn import SERVER
from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.parser import RequestParser
from gunicorn.util import hop_headers, http_date

from service.errors import InvalidHeader, ServiceError
from service.heads import Heads
from service.protocols import native

STATUS = re.compile(r"(?!204|304)[2-5][0-9]{2} [ -~]+")
"""A status whose answer has a body."""
NAMES = re.compile(r"[A-Za-z0-9-]+")

KNOWN_SHAPES = 64
"""Of how many statuses and lists of headers it is remembered that they are plain."""

log = logging.getLogger(__name__)


class Sink:
    """What gunicorn's Response takes for a socket: it keeps the bytes."""

    def __init__(self) -> None:
        self.kept = bytearray()

    def sendall(self, data: bytes) -> None:
        """Keep bytes of a response."""
        self.kept += data

    def send(self, data: bytes) -> int:
        """Pass over `100 Continue`: the loop has sent it, or the body is here already."""
        return len(data)


class Reply:
    """What the app says to one request: arguments of `start_response` and pieces of the body, in their order."""

    def __init__(self, app: Any, environ: dict[str, Any]) -> None:
        self.said: list[tuple[str, Any]] = []
        chunks = app(environ, self._start)
        try:
            self.said.extend(("chunk", chunk) for chunk in chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()

    def _start(self, *arguments: Any) -> Callable[[Any], None]:
        self.said.append(("start", arguments))
        return lambda chunk: self.said.append(("chunk", chunk))

    def repeat(self, response: wsgi.Response) -> None:
        """Say the same to gunicorn's Response."""
        for kind, what in self.said:
            if kind == "start":
                response.start_response(*what)
            else:
                response.write(what)
        response.close()

    def plain(self) -> tuple[str, str, bytes] | None:
        """Return status, headers and body if they are said in one piece each and need nothing done to them."""
        match self.said:
            case [("start", (str(status), list(headers))), ("chunk", bytes(body))]:
                text = _fields(headers)
                length = _place_of_length(status, tuple([name for name, _ in headers]))
                told = length is not None and headers[length][1] == str(len(body))
                if told and "".join([value for _, value in headers]).isprintable() and _is_trim(text):
                    return status, text, body
        return None


def _is_flasks(call: Any) -> bool:
    """Whether an app is called by Flask's own method; a monitor puts another in its place, to see every request."""
    return getattr(call, "__module__", None) == "flask.app" and not hasattr(call, "__wrapped__")


def _fields(headers: list[tuple[str, str]]) -> str:
    return "".join([name + ": " + value + "\r\n" for name, value in headers])


def _is_trim(text: str) -> bool:
    """Whether fields are in ASCII and have no value that is empty, or has spaces at its ends."""
    return text.isascii() and ":  " not in text and " \r\n" not in text


@lru_cache(KNOWN_SHAPES)
def _place_of_length(status: str, names: tuple[str, ...]) -> int | None:
    """Return where among its headers a plain answer tells its length; None of an answer that is not plain."""
    lower = [name.lower() for name in names]
    if not STATUS.fullmatch(status) or not all(map(NAMES.fullmatch, names)) or not hop_headers.isdisjoint(lower):
        return None
    return lower.index("content-length") if lower.count("content-length") == 1 else None


class Answers:
    """Answers requests through one app, as gunicorn is configured."""

    def __init__(self, app: Any, cfg: Any) -> None:
        self._app, self._cfg = app, cfg
        from service.web.lane import Lane  # the master imports this module before it listens

        inner = getattr(app, "wsgi_app", None)
        self._lane = inner if isinstance(inner, Lane) and _is_flasks(type(app).__call__) else None
        self._heads = Heads(cfg)
        self._date = (0, "")

    def answer(self, request: bytes, client: Any, server: Any, *, close: bool) -> tuple[bytes, bool]:
        """Answer one whole request.

        Args:
            request: Its head and its body, to the last byte.
            client: The address that it came from.
            server: The address that it came to.
            close: Whether the connection ends with this answer.

        Returns:
            The answer's bytes, and whether the connection may go on.
        """
        try:
            plain = self._heads.read(request, client, server)
            if plain is None:
                return self._through_gunicorn(request, client, server, None, close=close)
            close = close or plain.close
            said = self._lane.answer(plain.said, plain.body, client[0]) if self._lane else None
            if said is not None:
                return self._write(said.status, _fields(said.headers), said.body, close=close)
            reply = Reply(self._app, self._heads.environ(plain, client))
            written = reply.plain()
            if written is None or plain.said["REQUEST_METHOD"] == "HEAD":
                return self._through_gunicorn(request, client, server, reply, close=close)
            return self._write(*written, close=close)
        except (ParseException, NoMoreData, StopIteration) as error:
            log.info("a request could not be parsed: %s", type(error).__name__)
            return problem(InvalidHeader("the request is not HTTP/1.1 as RFC 9112 has it; check its head")), False
        except Exception:  # the app answers its own errors; what is left still owes the client an answer
            log.exception("a request could not be answered")
            return problem(ServiceError("the service failed on this request; its log says more")), False

    def _through_gunicorn(
        self, request: bytes, client: Any, server: Any, reply: Reply | None, *, close: bool
    ) -> tuple[bytes, bool]:
        """Have gunicorn read the request and write the answer; ask the app only if it has not replied yet."""
        sink = Sink()
        parsed = next(RequestParser(self._cfg, iter([request]), client))
        response, environ = wsgi.create(parsed, sink, client, server, self._cfg)
        environ["wsgi.multithread"] = True
        if close:
            response.force_close()
        (reply or Reply(self._app, environ)).repeat(response)
        return bytes(sink.kept), not response.should_close()

    def _write(self, status: str, fields: str, body: bytes, *, close: bool) -> tuple[bytes, bool]:
        """Write an answer's bytes as gunicorn's Response does."""
        connection = "close" if close else "keep-alive"
        head = (
            f"HTTP/1.1 {status}\r\nServer: {SERVER}\r\nDate: {self._now()}\r\nConnection: {connection}\r\n{fields}\r\n"
        )
        return head.encode("ascii") + body, not close

    def _now(self) -> str:
        """Return the date as headers have it, written once a second."""
        second = int(time.time())
        if self._date[0] != second:
            self._date = (second, http_date(second))
        return self._date[1]


def problem(error: ServiceError) -> bytes:
    """Write a whole HTTP answer with a problem document, after which the connection ends."""
    request_id = uuid.uuid4().hex
    body = native.encode_error(error, request_id)
    retry = "Retry-After: 1\r\n" if error.status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
        f"Content-Type: {native.ERROR_TYPE}\r\nContent-Length: {len(body)}\r\n{retry}"
        f"X-Request-ID: {request_id}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
