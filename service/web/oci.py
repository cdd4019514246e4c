"""The routes of an OCI Data Science model deployment."""

from __future__ import annotations

from flask import Blueprint

from service.web.predict import predict_default
from service.web.probes import healthy

bp = Blueprint("oci", __name__)
bp.post("/predict")(predict_default)
bp.get("/health")(healthy)
