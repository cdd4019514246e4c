"""The routes of Azure Machine Learning's own inference server, with its request ids."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service.errors import InvalidHeader, NotFound, shorten
from service.protocols.json_body import write_json
from service.protocols.swagger import SWAGGERS
from service.web.edge import exchange, problem
from service.web.predict import predict_default, query
from service.web.probes import healthy
from service.web.serving import serving

IDS = ("X-Request-ID", "X-Ms-Request-ID", "X-Ms-Client-Request-ID")
MOST_ID_CHARACTERS = 100
FAILED = "x-ms-run-function-failed"
"""What tells Azure that the model failed, and not the server."""

bp = Blueprint("azureml", __name__)
bp.post("/score")(predict_default)


@bp.before_request
def _check_ids() -> Response | None:
    """Refuse ids that are longer than Azure's server takes."""
    for name in IDS:
        if len(request.headers.get(name, "")) > MOST_ID_CHARACTERS:
            response = problem(InvalidHeader(f"{name} must have at most {MOST_ID_CHARACTERS} characters"))
            response.status_code = 431
            return response
    return None


@bp.after_request
def _tell_ids(response: Response) -> Response:
    """Give the caller's ids back; Azure's own is ours where the caller has none."""
    _, older, client = (request.headers.get(name, "")[:MOST_ID_CHARACTERS] for name in IDS)
    response.headers["x-ms-request-id"] = older or client or exchange().request_id
    if older or client:
        response.headers["x-ms-client-request-id"] = client or older
    if response.status_code == 500:
        response.headers[FAILED] = "True"
    return response


@bp.get("/swagger.json")
def swagger() -> Response:
    """Describe `/score`, as Swagger 2 or, with `?version=3`, as OpenAPI 3."""
    said = query()
    version = said.get("version", "2")
    if version not in SWAGGERS:
        raise NotFound(f"there is no Swagger {shorten(version)!r}; versions are {', '.join(SWAGGERS)}")
    manifest = serving().catalogue().predictor(None, None).manifest
    document = SWAGGERS[version](manifest.name, manifest.version, manifest.signature)
    return Response(write_json(document), content_type="application/json")


def say_healthy() -> Response:
    """Answer `Healthy`, as Azure's server does, once this worker can predict."""
    response = healthy()
    if response.status_code == 200:
        response.set_data("Healthy")
        response.content_type = "text/plain; charset=utf-8"
    return response
