"""The native protocol: `instances` or `inputs` in, `predictions` out, as TensorFlow Serving and KServe V1 speak it.

Bytes in, bytes out; no web framework and no model. Source: kserve/kserve, V1 protocol, and
tensorflow.org/tfx/serving/api_rest, read 2026-11-22. Errors are RFC 9457 problem documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.errors import Fault, ServiceError, UnsupportedMediaType, shorten
from service.protocols.arrow_body import ADVICE, ARROW, INSTALLED, read_arrow, write_arrow
from service.protocols.csv_body import read_csv, write_csv
from service.protocols.guard import check_json
from service.protocols.json_answer import Answered, write_answer, write_rows
from service.protocols.json_body import read_json, write_json
from service.protocols.json_rows import (
    check_object,
    columns_table,
    only_one,
    rows_table,
    switches,
    wants_probabilities,
)
from service.protocols.media_types import CSV, JSON, media_type
from service.protocols.typed_csv import TypedCsv
from service.protocols.typed_json import TypedJson
from service.signature import Signature
from service.table import PredictRequest, PredictResponse, Table

REQUEST_TYPES = (JSON, CSV, *[ARROW] * INSTALLED)
RESPONSE_TYPES = REQUEST_TYPES
ERROR_TYPE = "application/problem+json"
STATUSES: dict[int, int] = {}
"""None is another than the error's own."""
PROBLEMS = "/problems/"
MAX_ERROR_BYTES = 8192

WAYS = ("instances", "inputs", "dataRows")
"""Rows, columns, and rows as Apteo's clients call them."""
FIELDS = (*WAYS, "parameters")


def decode_request(
    body: bytes, content_type: str, parameters: Mapping[str, str], signature: Signature, max_rows: int
) -> PredictRequest:
    """Read a prediction request.

    Args:
        body: The whole body.
        content_type: The Content-Type header, "" if absent.
        parameters: The query string's parameters.
        signature: The signature of the model that is asked.
        max_rows: How many rows one request may have.

    Raises:
        RequestError: With everything that is wrong with it.
    """
    sent = _media_type(content_type)
    said: dict[str, bool] = {}
    if sent == ARROW:
        table = read_arrow(body, signature, max_rows)
    elif sent == CSV:
        table = signature.once(TypedCsv).read(body, max_rows) or read_csv(body, signature, max_rows)
    else:
        table, said = _read_json(body, signature, max_rows)
    return PredictRequest(table, wants_probabilities(parameters, said, signature))


def encode_response(response: PredictResponse, content_type: str) -> bytes:
    """Write a prediction response as JSON, CSV or Arrow."""
    if content_type == ARROW:
        return write_arrow(response)
    if content_type == CSV:
        return write_csv(response)
    return write_answer(response, lambda answered: _answer(response, answered))


def _answer(response: PredictResponse, answered: Answered) -> dict[str, Any]:
    document: dict[str, Any] = {"predictions": answered.predictions}
    if response.signature.multi_output:
        document["outputs"] = [output.name for output in response.signature.outputs]
    if answered.shares is not None:
        document |= {"probabilities": answered.shares, "classes": answered.classes}
    return document | {"model": response.model, "version": response.version}


def encode_error(error: ServiceError, request_id: str) -> bytes:
    """Write an error as an RFC 9457 problem document."""
    document: dict[str, Any] = {
        "type": PROBLEMS + error.code,
        "title": error.title,
        "status": error.status,
        "detail": shorten(error.detail, 500),
        "request_id": request_id,
    }
    body = write_json(document)
    faults = [_fault(fault) for fault in error.faults]
    while faults:
        whole = write_json(document | {"errors": faults})
        if len(whole) <= MAX_ERROR_BYTES:
            return whole
        faults.pop()
    return body


def _fault(fault: Fault) -> dict[str, Any]:
    place = {"row": fault.row, "feature": fault.feature}
    stated = {key: value for key, value in place.items() if value is not None}
    return {"type": PROBLEMS + fault.code} | stated | {"detail": shorten(fault.detail, 160)}


def encode_request(rows: list[Any], *, probabilities: bool = False) -> bytes:
    """Write the request that a client sends for these rows."""
    return write_rows("instances", rows, "parameters", probabilities=probabilities)


def decode_response(body: bytes) -> list[Any]:
    """Read the predictions out of a JSON answer, one item a row."""
    predictions: list[Any] = read_json(body)["predictions"]
    return predictions


def _media_type(content_type: str) -> str:
    found = media_type(content_type)
    if found == ARROW and not INSTALLED:
        raise UnsupportedMediaType(f"{ADVICE}, or send application/json or text/csv")
    if found not in REQUEST_TYPES:
        said = f"{shorten(found)!r} is not accepted" if found else "there is no Content-Type"
        raise UnsupportedMediaType(f"{said}; send Content-Type: application/json or text/csv")
    return found


def _read_json(body: bytes, signature: Signature, max_rows: int) -> tuple[Table, dict[str, bool]]:
    """Read a JSON body fast where it is right, else exactly, which words everything that is wrong with it."""
    if len(body) > max_rows:  # fewer bytes hold fewer values
        check_json(body, signature, max_rows)
    return signature.once(TypedJson).read(body, max_rows) or read_exactly(body, signature, max_rows)


def read_exactly(body: bytes, signature: Signature, max_rows: int) -> tuple[Table, dict[str, bool]]:
    """Read a JSON body, looking at every cell; return its rows and switches."""
    document = check_object(read_json(body), FIELDS, '{"instances": [...]}')
    way = only_one(document, WAYS, 'rows as {"instances": [...]} or columns as {"inputs": {...}}')
    said = switches(document.get("parameters", {}))
    read = columns_table if way == "inputs" else rows_table
    return read(way, document[way], signature, max_rows), said
