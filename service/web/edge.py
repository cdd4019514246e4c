"""What holds for every route: a request id, safe headers, one log line, and errors in the protocol's words."""

from __future__ import annotations

import re

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from service import errors
from service.protocols import PROTOCOLS, Codec, native
from service.web.exchange import HEADERS, Answer, Exchange, client_address
from service.web.serving import serving

HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
PROBES = {"alive", "live", "ready", "healthy", "say_healthy", "ready_deployed"}
"""Views that balancers ask every few seconds, and that answer at once."""
UNLOGGED = PROBES | {"warm"}
WORDS = {
    "/v2": PROTOCOLS["openinference"],
    "/invocations": PROTOCOLS["sagemaker"],
    "/ping": PROTOCOLS["sagemaker"],
    "/execution-parameters": PROTOCOLS["sagemaker"],
    "/version": PROTOCOLS["mlflow"],
    "/v1/endpoints": PROTOCOLS["vertex"],
    "/score": PROTOCOLS["azureml"],
    "/swagger.json": PROTOCOLS["azureml"],
    "/ml": PROTOCOLS["watsonx"],
    "/api/predict": PROTOCOLS["eas"],
} | {f"/protocols/{name}": codec for name, codec in PROTOCOLS.items()}
"""In whose words everything at a path and below it is told; elsewhere in the native ones."""


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


def exchange() -> Exchange:
    """Return what is known of the current request."""
    current: Exchange = g.exchange
    return current


def codec_of(path: str) -> Codec:
    """Return the protocol whose words are spoken at a path."""
    return next((codec for start, codec in WORDS.items() if path == start or path.startswith(f"{start}/")), native)


def _begin() -> None:
    path = request.environ.get("PATH_INFO", "")
    g.exchange = Exchange(request.environ.get("HTTP_X_REQUEST_ID", ""), codec_of(path))
    if "//" in path:
        raise errors.NotFound("a path with // is not answered; GET / lists the routes")
    host = request.environ.get("HTTP_HOST")
    if host is None and request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
        raise errors.InvalidHeader("there is no Host header, which HTTP/1.1 requires")
    if host is not None and not HOST.fullmatch(host):
        raise errors.InvalidHeader("the Host header is not a host name or address")


def _finish(response: Response) -> Response:
    response.headers.setdefault("X-Request-ID", exchange().request_id)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.method == "OPTIONS" and response.status_code == 200:
        response.status_code = 204
        del response.headers["Content-Type"]
    if (request.endpoint or "").rpartition(".")[2] not in UNLOGGED:
        route = request.url_rule.rule.replace("<segment:", "<") if request.url_rule else "unmatched"
        forwarded_for = request.environ.get("HTTP_X_FORWARDED_FOR", "")
        client = client_address(forwarded_for, request.environ.get("REMOTE_ADDR") or "", serving().client_hops)
        exchange().log(request.method, route, response.status_code, client)
    return response


def _end(error: BaseException | None) -> None:
    Exchange.end()


def respond(answer: Answer) -> Response:
    """Make Flask's response of an answer."""
    return Response(answer.body, answer.status, answer.headers, content_type=answer.content_type)


def problem(error: errors.ServiceError) -> Response:
    """Answer with an error, in the words of the path's protocol."""
    return respond(exchange().problem(error))


def _answer(error: errors.ServiceError) -> Response:
    return respond(exchange().refuse(error))


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
    return respond(exchange().fail(error))
