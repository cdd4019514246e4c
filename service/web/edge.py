"""What holds for every route: a request id, safe headers, one log line, and errors in the native protocol's shape."""

from __future__ import annotations

import ipaddress
import logging
import re
import time
import uuid
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from service import errors, logs
from service.protocols import native
from service.web.serving import serving

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
PEER = re.compile(r"([0-9.]+)(?::\d+)?|\[([0-9A-Fa-f:.]+)\](?::\d+)?|([0-9A-Fa-f:.]+)")
"""An address as proxies write it, with a port or without."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
UNLOGGED = {"probes"}
"""Blueprints whose requests are not logged: balancers ask them every few seconds."""

log = logging.getLogger("service.requests")


def init_app(app: Flask) -> None:
    """Set the app up so that nothing redirects, and every answer and error passes through here."""
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.before_request(_begin)
    app.after_request(_finish)
    app.teardown_request(_end)
    app.register_error_handler(errors.ServiceError, _answer)
    app.register_error_handler(HTTPException, _translate)
    app.register_error_handler(Exception, _surprise)


def _begin() -> None:
    g.began = time.perf_counter()
    wanted = request.headers.get("X-Request-ID", "")
    g.request_id = wanted if REQUEST_ID.fullmatch(wanted) else uuid.uuid4().hex
    logs.REQUEST_ID.set(g.request_id)
    g.facts = {}
    if "//" in request.environ.get("PATH_INFO", ""):
        raise errors.NotFound("a path with // is not answered; GET / lists the routes")
    host = request.environ.get("HTTP_HOST")
    if host is None and request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
        raise errors.InvalidHeader("there is no Host header, which HTTP/1.1 requires")
    if host is not None and not HOST.fullmatch(host):
        raise errors.InvalidHeader("the Host header is not a host name or address")


def _finish(response: Response) -> Response:
    response.headers.setdefault("X-Request-ID", g.request_id)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.method == "OPTIONS" and response.status_code == 200:
        response.status_code = 204
        del response.headers["Content-Type"]
    if request.blueprint not in UNLOGGED:
        _log(response)
    return response


def _end(error: BaseException | None) -> None:
    logs.REQUEST_ID.set(None)


def _log(response: Response) -> None:
    route = request.url_rule.rule.replace("<segment:", "<") if request.url_rule else "unmatched"
    facts: dict[str, Any] = {
        "method": request.method,
        "route": route,
        "status": response.status_code,
        "client": client_address(serving().client_hops),
        "milliseconds": round((time.perf_counter() - g.began) * 1000, 3),
    }
    log.info("%s %s %d", request.method[:16], route, response.status_code, extra={"facts": facts | g.facts})


def client_address(hops: int) -> str:
    """Return the address of whoever sent the request: what the last proxy that is trusted says, else who connected.

    Only the last `hops` items of X-Forwarded-For were written by proxies of ours; what stands before them, a client may
    have made up. Azure's front end writes a port too.
    """
    items = request.headers.get("X-Forwarded-For", "").split(",")
    if 0 < hops <= len(items):
        item = items[-hops].strip()
        found = PEER.fullmatch(item)
        try:
            return str(ipaddress.ip_address(found[found.lastindex or 0] if found else item))
        except ValueError:
            pass  # no proxy writes this
    return request.remote_addr or ""


def problem(error: errors.ServiceError) -> Response:
    """Answer with a problem document."""
    g.facts["problem"] = error.code
    body = native.encode_error(error, g.request_id)
    return Response(body, error.status, content_type=native.ERROR_TYPE)


def _answer(error: errors.ServiceError) -> Response:
    if isinstance(error, errors.PackageError) or error.status >= 500:
        log.warning("%s: %s", error.code, error.detail)
    response = problem(error)
    if error.status == errors.NotReady.status:
        response.headers["Retry-After"] = "5"
    return response


def _translate(error: HTTPException) -> Response:
    """Turn an error of Flask's own into one of ours."""
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        response = problem(errors.MethodNotAllowed(f"this path answers {allowed}"))
        response.headers["Allow"] = allowed
        return response
    if error.code == 404:
        return problem(errors.NotFound("there is nothing at this path; GET / lists the routes"))
    if error.code is not None and error.code < 500:
        return problem(errors.RequestError("the request cannot be read"))
    return _surprise(error)


def _surprise(error: Exception) -> Response:
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    return problem(errors.ServiceError("the service failed on this request; its log says more under the request id"))
