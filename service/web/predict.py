"""The native prediction routes, and what every protocol's prediction route does.

They keep HTTP matters only: body, media types, status; the codec does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, request

from service.errors import NotAcceptable, UnknownParameter, shorten
from service.predictor import Predictor
from service.protocols.arrow_body import ADVICE, ARROW, INSTALLED
from service.web.body import read_body
from service.web.edge import exchange, respond
from service.web.serving import serving

bp = Blueprint("native", __name__)


@bp.post("/predict")
@bp.post("/v1/models/<segment:name>:predict")
@bp.post("/v1/models/<segment:name>/versions/<segment:version>:predict")
def predict(name: str | None = None, version: str | None = None) -> Response:
    """Answer a prediction request to the named model, or to the default one."""
    check = exchange().hear if request.path == "/predict" else None
    return answer(serving().catalogue().predictor(name, version), check=check)


def predict_default() -> Response:
    """Answer a prediction request to the default model, in the words of the path's protocol."""
    return answer(serving().catalogue().predictor(None, None))


def answer(
    predictor: Predictor,
    headers: Mapping[str, str | None] | None = None,
    check: Callable[[bytes], Any] | None = None,
) -> Response:
    """Answer a prediction request in the words of the path's protocol.

    Args:
        predictor: The model that is asked.
        headers: What the protocol wants to know beside the query, by the names under which the codec takes it.
        check: Looks at the body before it is decoded.

    Raises:
        RequestError: If the request cannot be answered as it was sent.
    """
    exchange().ask(predictor)
    accepted = _accepted()
    said = query()
    for name, value in (headers or {}).items():
        if name in said:
            raise UnknownParameter(f"{name} is a header and no parameter of the query")
        said |= {} if value is None else {name: value}
    body = read_body(request.environ, serving().max_body_bytes, accept_gzip=serving().accept_gzip)
    if check is not None:
        check(body)
    content_type = request.headers.get("Content-Type", "")
    max_rows = serving().rows_of(predictor.manifest.signature)
    return respond(exchange().predict(predictor, body, content_type, said, max_rows, accepted))


def _accepted() -> str:
    """Choose the answer's media type by Accept; the first where a client does not mind or has no choice."""
    first, *others = types = exchange().codec.RESPONSE_TYPES
    if not others or not request.accept_mimetypes:
        return first
    wanted = request.accept_mimetypes
    plain = [value.partition(";")[0].strip().lower() for value, quality in wanted if quality]
    chosen = wanted.best_match(types) or next((value for value in plain if value in types), None)
    if chosen is None:
        accepted = repr(shorten(request.headers.get("Accept", "")))
        advice = f"; {ADVICE}" if ARROW in accepted and not INSTALLED else ""
        raise NotAcceptable(f"Accept is {accepted} and the answer may be {' or '.join(types)}{advice}")
    return chosen


def query() -> dict[str, str]:
    """Return the query string's parameters, each of which stands once."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise UnknownParameter(f"the parameter {shorten(name)!r} stands twice in the query; send it once")
    return request.args.to_dict()
