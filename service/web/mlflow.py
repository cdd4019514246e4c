"""The routes of MLflow's scoring server."""

from __future__ import annotations

from flask import Blueprint, Response

from service.protocols import mlflow
from service.web.predict import predict_default
from service.web.probes import healthy

bp = Blueprint("mlflow", __name__)
bp.post("/invocations")(predict_default)
bp.get("/ping")(healthy)
bp.get("/health")(healthy)


@bp.get("/version")
def version() -> Response:
    """Tell whose protocol this is: MLflow's clients log it."""
    return Response(mlflow.VERSION, content_type="application/json")
