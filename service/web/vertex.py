"""The routes of a Vertex AI container, where the platform gives no others."""

from __future__ import annotations

from flask import Blueprint, Response

from service.protocols.vertex import DEPLOYED_MODEL
from service.web.predict import answer
from service.web.probes import healthy
from service.web.serving import serving

DEFAULT_PATH = "/v1/endpoints/<segment:endpoint>/deployedModels/<segment:deployed>"
"""Where the platform asks if it is told no route; the names are its own."""

bp = Blueprint("vertex", __name__)
bp.get("/health")(healthy)


@bp.post("/predict")
def predict() -> Response:
    """Answer a prediction request with the default model."""
    return answer(serving().catalogue().predictor(None, None), {DEPLOYED_MODEL: serving().deployed_model})


@bp.post(DEFAULT_PATH + ":predict")
def predict_deployed(endpoint: str, deployed: str) -> Response:
    """Answer at the platform's own default path."""
    return answer(serving().catalogue().predictor(None, None), {DEPLOYED_MODEL: deployed})


@bp.get(DEFAULT_PATH)
@bp.get(DEFAULT_PATH + ":predict")
def ready_deployed(endpoint: str, deployed: str) -> Response:
    """Answer whether this worker can predict, at the platform's own default paths: of its pages, and of its API."""
    return healthy()
