"""The routes that watsonx.ai's client asks: a model's name is the deployment's id."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service.protocols import watsonx
from service.protocols.json_body import write_json
from service.web.predict import answer, query
from service.web.serving import serving

bp = Blueprint("watsonx", __name__)


@bp.post("/ml/v4/deployments/<segment:name>/predictions")
def score(name: str) -> Response:
    """Answer a scoring request."""
    watsonx.check_version(query())
    return answer(serving().catalogue().predictor(name, None))


@bp.get("/ml/v4/deployments/<segment:name>")
def deployment(name: str) -> Response:
    """Tell a model as a deployment."""
    watsonx.check_version(query())
    manifest = serving().catalogue().predictor(name, None).manifest
    told = watsonx.deployment(manifest.name, manifest.created, manifest.version, request.host_url)
    return Response(write_json(told), content_type="application/json")
