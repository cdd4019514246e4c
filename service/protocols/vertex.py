"""Vertex AI's custom containers: `instances` and `parameters` in, `predictions` out, one for each instance.

Bytes in, bytes out. With the parameter `probabilities` a prediction is an object of its value, `classes` and `scores`,
which are named as in the answers of Vertex's own tabular models: the platform passes on nothing beside `predictions`.

Source: cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements, version 1.0.0 of that page, and
google-cloud-aiplatform 2.7.0; errors as google/api-core reads them, and aip.dev/193 has them. Read 2026-11-23.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.errors import ServiceError
from service.protocols.json_answer import Answered, error_text, write_answer, write_rows
from service.protocols.json_body import read_json, write_json
from service.protocols.json_rows import check_object, only_one, read_counted, rows_table, switches, wants_probabilities
from service.protocols.media_types import JSON, likely_type
from service.signature import Signature
from service.table import PredictRequest, PredictResponse

REQUEST_TYPES = (JSON,)
RESPONSE_TYPES = (JSON,)
ERROR_TYPE = JSON
STATUSES = {422: 400}
FIELDS = ("instances", "parameters")
EXAMPLE = '{"instances": [...]}'
DEPLOYED_MODEL = "deployed-model"
"""The parameter under which the deployed model's id is given, where the platform tells it."""
NAMES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    503: "UNAVAILABLE",
}
"""Google's names of statuses; another of a client's faults is a failed precondition, and of ours internal."""


def decode_request(
    body: bytes, content_type: str, parameters: Mapping[str, str], signature: Signature, max_rows: int
) -> PredictRequest:
    """Read a prediction request. Its parameters may hold the deployed model's id under `DEPLOYED_MODEL`."""
    query = {name: value for name, value in parameters.items() if name != DEPLOYED_MODEL}
    likely_type(content_type, body, REQUEST_TYPES)
    document = check_object(read_counted(body, signature, max_rows), FIELDS, EXAMPLE)
    field = only_one(document, ("instances",), f"rows as {EXAMPLE}")
    said = switches(document.get("parameters"))
    table = rows_table(field, document[field], signature, max_rows)
    return PredictRequest(table, wants_probabilities(query, said, signature), parameters.get(DEPLOYED_MODEL))


def encode_response(response: PredictResponse, content_type: str) -> bytes:
    """Write a prediction response."""
    told = {"deployedModelId": response.wishes} if response.wishes else {}
    return write_answer(response, lambda answered: {"predictions": _predictions(answered)} | told)


def _predictions(answered: Answered) -> list[Any]:
    if answered.shares is None:
        return answered.predictions
    pairs = zip(answered.predictions, answered.shares, strict=True)
    return [{"prediction": value, "classes": answered.classes, "scores": shares} for value, shares in pairs]


def encode_error(error: ServiceError, request_id: str) -> bytes:
    """Write an error as Google's clients read it."""
    status = STATUSES.get(error.status, error.status)
    name = NAMES.get(status, "FAILED_PRECONDITION" if status < 500 else "INTERNAL")
    return write_json({"error": {"code": status, "message": error_text(error, request_id), "status": name}})


def encode_request(rows: list[Any], *, probabilities: bool = False) -> bytes:
    """Write the request that a client sends for these rows."""
    return write_rows("instances", rows, "parameters", probabilities=probabilities)


def decode_response(body: bytes) -> list[Any]:
    """Read the predictions out of an answer, one item a row."""
    found = read_json(body)["predictions"]
    return [each["prediction"] if isinstance(each, dict) else each for each in found]
