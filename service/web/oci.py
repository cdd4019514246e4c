"""The routes of an OCI Data Science model deployment."""

from __future__ import annotations

import re

from flask import Blueprint, Response, request

from service.web.edge import exchange
from service.web.predict import predict_default
from service.web.probes import healthy

bp = Blueprint("oci", __name__)
OWN_ID = "opc-request-id"
ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
"""As Oracle's services write it, in up to three parts."""

bp.post("/predict")(predict_default)
bp.get("/health")(healthy)


@bp.after_request
def _tell_id(response: Response) -> Response:
    """Give the caller's id back, or the request's own: Oracle's client shows it in every error."""
    theirs = request.headers.get(OWN_ID, "")
    response.headers[OWN_ID] = theirs if ID.fullmatch(theirs) else exchange().request_id
    return response
