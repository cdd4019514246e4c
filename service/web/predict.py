"""The native prediction routes. They keep HTTP matters only: body, media types, status; the codec does the rest."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service.errors import NotAcceptable, UnknownParameter, shorten
from service.protocols import native
from service.protocols.arrow_body import ADVICE, ARROW, INSTALLED
from service.web.body import read_body
from service.web.edge import exchange, respond
from service.web.serving import serving

bp = Blueprint("predict", __name__)


@bp.post("/predict")
@bp.post("/v1/models/<segment:name>:predict")
@bp.post("/v1/models/<segment:name>/versions/<segment:version>:predict")
def predict(name: str | None = None, version: str | None = None) -> Response:
    """Answer a prediction request to the named model, or to the default one."""
    predictor = serving().catalogue().predictor(name, version)
    exchange().ask(predictor)
    accepted = _accepted()
    body = read_body(request.environ, serving().max_body_bytes, accept_gzip=serving().accept_gzip)
    content_type = request.headers.get("Content-Type", "")
    max_rows = serving().rows_of(predictor.manifest.signature)
    return respond(exchange().predict(predictor, body, content_type, query(), max_rows, accepted))


def _accepted() -> str:
    """Choose the answer's media type by Accept; JSON where the client does not mind."""
    chosen = (
        request.accept_mimetypes.best_match(native.RESPONSE_TYPES) if request.accept_mimetypes else "application/json"
    )
    if chosen is None:
        accepted = repr(shorten(request.headers.get("Accept", "")))
        advice = f"; {ADVICE}" if ARROW in accepted and not INSTALLED else ""
        raise NotAcceptable(f"Accept is {accepted} and the answer may be {' or '.join(native.RESPONSE_TYPES)}{advice}")
    return chosen


def query() -> dict[str, str]:
    """Return the query string's parameters, each of which stands once."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise UnknownParameter(f"the parameter {shorten(name)!r} stands twice in the query; send it once")
    return request.args.to_dict()
