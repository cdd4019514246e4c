"""The routes of the Open Inference Protocol. The codec of that name does the rest."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from service.protocols import openinference
from service.protocols.json_body import write_json
from service.web.predict import answer
from service.web.probes import not_ready, what_makes_it_wait, what_stands_in_the_way
from service.web.serving import serving

bp = Blueprint("openinference", __name__)


@bp.get("/v2")
def server() -> Response:
    """Tell the server."""
    return _json({"name": "anyport", "version": "2", "extensions": []})


@bp.get("/v2/health/live")
def live() -> Response:
    """Answer that the process lives."""
    return _json({"live": True})


@bp.get("/v2/health/ready")
def ready() -> Response:
    """Answer whether this worker can predict."""
    error = what_stands_in_the_way()
    return _json({"live": True, "ready": True}) if error is None else not_ready(error)


@bp.get("/v2/models/<segment:name>/ready")
@bp.get("/v2/models/<segment:name>/versions/<segment:version>/ready")
def model_ready(name: str, version: str | None = None) -> Response:
    """Answer whether a model can predict."""
    error = what_makes_it_wait()
    if error is not None:
        return not_ready(error)
    serving().catalogue().predictor(name, version)
    return _json({"name": name, "ready": True})


@bp.get("/v2/models/<segment:name>")
@bp.get("/v2/models/<segment:name>/versions/<segment:version>")
def model(name: str, version: str | None = None) -> Response:
    """Tell a model's tensors."""
    catalogue = serving().catalogue()
    signature = catalogue.predictor(name, version).manifest.signature
    return _json(openinference.model_metadata(name, list(catalogue.entries[name]), signature))


@bp.post("/v2/models/<segment:name>/infer")
@bp.post("/v2/models/<segment:name>/versions/<segment:version>/infer")
def infer(name: str, version: str | None = None) -> Response:
    """Answer an inference request."""
    predictor = serving().catalogue().predictor(name, version)
    return answer(predictor, {openinference.JSON_LENGTH: request.headers.get(openinference.JSON_LENGTH)})


def _json(document: dict[str, Any]) -> Response:
    return Response(write_json(document), content_type="application/json")
