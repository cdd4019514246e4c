"""The routes of a SageMaker container."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service.capacity import cpu_limit
from service.errors import InvalidHeader, NotFound
from service.protocols.json_body import write_json
from service.protocols.sagemaker import ATTRIBUTES
from service.web.predict import answer
from service.web.probes import healthy
from service.web.serving import serving

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
MOST_ATTRIBUTES = 1024
"""Characters that AWS allows there."""
MOST_PAYLOAD_MB = 100
"""What AWS allows for the payload of batch transform times the number of transforms at once."""

bp = Blueprint("sagemaker", __name__)
bp.get("/ping")(healthy)


@bp.post("/invocations")
def invocations() -> Response:
    """Answer an invocation with the default model, and give the caller's custom attributes back."""
    attributes = request.headers.get(CUSTOM_ATTRIBUTES)
    if attributes is not None and not (
        len(attributes) <= MOST_ATTRIBUTES and attributes.isascii() and attributes.isprintable()
    ):
        raise InvalidHeader(f"{CUSTOM_ATTRIBUTES} must be printable ASCII of at most {MOST_ATTRIBUTES} characters")
    response = answer(serving().catalogue().predictor(None, None), {ATTRIBUTES: attributes})
    if attributes is not None:
        response.headers[CUSTOM_ATTRIBUTES] = attributes
    return response


@bp.get("/execution-parameters")
def execution_parameters() -> Response:
    """Tell batch transform how much to send at once: what a body may have here, on every processor.

    Its strategy is left to it: AWS's local mode does not know the names that AWS's pages give for this answer.
    """
    payload_mb = min(serving().max_body_bytes // 2**20, MOST_PAYLOAD_MB)
    if not payload_mb:
        raise NotFound("less than a megabyte may be sent at once, which these parameters cannot say")
    at_once = max(1, min(int(cpu_limit()), MOST_PAYLOAD_MB // payload_mb))
    told = {"MaxConcurrentTransforms": at_once, "MaxPayloadInMB": payload_mb}
    return Response(write_json(told), content_type="application/json")
