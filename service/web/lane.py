"""The fast lane: plain prediction requests from WSGI's environ to bytes, without Flask's machinery around them.

It reads, predicts, answers and logs by the very functions that the Flask route uses. Whatever it does not know for
plain goes on to Flask with its body unread. So what is to hold for predictions belongs into those functions: a
`before_request` of Flask's would not see them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from werkzeug.http import HTTP_STATUS_CODES

from service.catalogue import Catalogue
from service.errors import ServiceError
from service.protocols import native
from service.web.body import read_body
from service.web.exchange import HEADERS, Answer, Exchange, client_address
from service.web.serving import Serving

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

PATH = re.compile(r"/predict|/v1/models/([A-Za-z0-9_-]+)(?:/versions/([A-Za-z0-9._-]+))?:predict")
ROUTES = ("/predict", "/v1/models/<name>:predict", "/v1/models/<name>/versions/<version>:predict")
"""What the log calls a path, by the number of names in it."""
HOST = re.compile(r"(?!.{254})[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*(:[0-9]{1,5})?")
"""Hosts that Werkzeug, which makes IDNA of them, takes as well as we do."""
JSON = "application/json"
ACCEPTED = {"": JSON, "*/*": JSON} | {media_type: media_type for media_type in native.RESPONSE_TYPES}
QUERIES = {"": {}, "probabilities=true": {"probabilities": "true"}, "probabilities=false": {"probabilities": "false"}}
STATUSES = {status: f"{status} {phrase.upper()}" for status, phrase in HTTP_STATUS_CODES.items()}
UNUSUAL = {"HTTP_CONTENT_ENCODING", "HTTP_TRANSFER_ENCODING", "HTTP_UPGRADE"}
"""Fields that ask for more than a plain answer to a plain body."""


class Plain(NamedTuple):
    """What a plain head asks for."""

    route: str
    name: str | None
    version: str | None
    parameters: dict[str, str]
    accepted: str
    content_type: str
    request_id: str
    """The id that the client gives its request, "" if none."""
    forwarded_for: str


class Said(NamedTuple):
    """A whole answer, as WSGI has it."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


def read_plain(head: dict[str, Any]) -> Plain | None:
    """Read the head of a prediction request; None if anything about it is not plain.

    Args:
        head: What the head says, or the environ.
    """
    path, parameters = PATH.fullmatch(head.get("PATH_INFO", "")), QUERIES.get(head.get("QUERY_STRING", ""))
    accepted = ACCEPTED.get(head.get("HTTP_ACCEPT", ""))
    if path is None or parameters is None or accepted is None or not HOST.fullmatch(head.get("HTTP_HOST", "")):
        return None
    if head["REQUEST_METHOD"] != "POST" or head.get("SCRIPT_NAME") or not head.keys().isdisjoint(UNUSUAL):
        return None
    said = [head.get(name, "") for name in ("CONTENT_TYPE", "HTTP_X_REQUEST_ID", "HTTP_X_FORWARDED_FOR")]
    return Plain(ROUTES[path.lastindex or 0], path[1], path[2], parameters, accepted, *said)


class Lane:
    """WSGI middleware that answers plain prediction requests itself."""

    def __init__(self, flask: Application, serving: Serving) -> None:
        self.flask = flask
        self._serving = serving

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a plain prediction request here, and have Flask answer any other."""
        elsewhere = self._serving.detour(environ)
        if elsewhere is not None:
            environ["PATH_INFO"] = elsewhere
            return self.flask(environ, start_response)
        said = self.answer(environ, environ, environ.get("REMOTE_ADDR") or "")
        if said is None:
            return self.flask(environ, start_response)
        start_response(said.status, said.headers)
        return [said.body]

    def answer(self, head: dict[str, Any], body: bytes | dict[str, Any], peer: str) -> Said | None:
        """Answer a plain prediction request; None if it is another, or Flask must wait for the models.

        Args:
            head: What its head says, or its environ.
            body: Its body, or the environ to read it from.
            peer: The address that it came from.
        """
        plain = read_plain(head) if self._serving.detour(head) is None else None
        catalogue = None if plain is None else self._serving.keeper.peek()
        if plain is None or catalogue is None:
            return None
        exchange = Exchange(plain.request_id)
        try:
            answer = self._answer(exchange, plain, catalogue, body)
            client = client_address(plain.forwarded_for, peer, self._serving.client_hops)
            exchange.log("POST", plain.route, answer.status, client)
        finally:
            exchange.end()
        return Said(STATUSES[answer.status], headers_of(answer, exchange), answer.body)

    def _answer(self, exchange: Exchange, plain: Plain, catalogue: Catalogue, body: bytes | dict[str, Any]) -> Answer:
        try:
            predictor = catalogue.predictor(plain.name, plain.version)
            exchange.ask(predictor)
            if isinstance(body, dict):
                body = read_body(body, self._serving.max_body_bytes, accept_gzip=False)
            if plain.route == "/predict":
                exchange.hear(body)
            max_rows = self._serving.rows_of(predictor.manifest.signature)
            return exchange.predict(predictor, body, plain.content_type, plain.parameters, max_rows, plain.accepted)
        except ServiceError as error:
            return exchange.refuse(error)
        except Exception as error:
            return exchange.fail(error)


def headers_of(answer: Answer, exchange: Exchange) -> list[tuple[str, str]]:
    """Every header of an answer, in the order that Flask sends them."""
    return [
        *answer.headers.items(),
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("X-Request-ID", exchange.request_id),
        *HEADERS.items(),
    ]
