"""From the bytes of one whole request to the bytes of its answer, through gunicorn's parser and the app."""

from __future__ import annotations

import logging
import uuid
from http import HTTPStatus
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.parser import RequestParser

from service.errors import InvalidHeader, ServiceError
from service.protocols import native

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


def answer(app: Any, cfg: Any, request: bytes, client: Any, server: Any, *, close: bool) -> tuple[bytes, bool]:
    """Answer one whole request.

    Args:
        app: The WSGI application.
        cfg: gunicorn's configuration.
        request: Its head and its body, to the last byte.
        client: The address that it came from.
        server: The address that it came to.
        close: Whether the connection ends with this answer.

    Returns:
        The answer's bytes, and whether the connection may go on.
    """
    sink = Sink()
    try:
        parsed = next(RequestParser(cfg, iter([request]), client))
        response, environ = wsgi.create(parsed, sink, client, server, cfg)
        environ["wsgi.multithread"] = True
        if close:
            response.force_close()
        chunks = app(environ, response.start_response)
        try:
            for chunk in chunks:
                response.write(chunk)
            response.close()
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        return bytes(sink.kept), not response.should_close()
    except (ParseException, NoMoreData, StopIteration) as error:
        log.info("a request could not be parsed: %s", type(error).__name__)
        return problem(InvalidHeader("the request is not HTTP/1.1 as RFC 9112 has it; check its head")), False
    except Exception:  # the app answers its own errors; what is left still owes the client an answer
        log.exception("a request could not be answered")
        return problem(ServiceError("the service failed on this request; its log says more")), False


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
