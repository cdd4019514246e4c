"""The routes of an Alibaba PAI-EAS service. Its gateway takes the prefix and the service's name off the path."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service.errors import Unauthorized
from service.predictor import Predictor
from service.protocols import eas
from service.web.predict import answer
from service.web.serving import serving

bp = Blueprint("eas", __name__)


@bp.post("/api/predict/<segment:service>")
def predict(service: str) -> Response:
    """Answer a prediction request to the service, which has a model's name, or any where there is one model."""
    return answer(_predictor(service), check=_check_token)


def predict_bare() -> Response:
    """Answer a prediction request whose path the gateway has cut."""
    return answer(_predictor(None), check=_check_token)


def _predictor(service: str | None) -> Predictor:
    catalogue = serving().catalogue()
    return catalogue.predictor(None if len(catalogue.entries) == 1 else service, None)


def _check_token(body: bytes) -> None:
    token = serving().eas_token
    if not token:
        return
    path = request.path.removeprefix("/protocols/eas")
    said = [request.headers.get(name, "") for name in ("Authorization", "Content-Type", "Date")]
    if not eas.is_authorized(said[0], token, path, said[1], said[2], body):
        raise Unauthorized("the Authorization header is not the service's token, nor signed with it")
