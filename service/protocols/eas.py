"""Alibaba PAI-EAS: any bytes under `/api/predict/<service>`; here rows in JSON, or CSV with a header.

Bytes in, bytes out. The body is free there: rows stand under `data` or `instances`, columns under `inputs`, and its
type is seen from its first sign, because EAS's client calls everything octets. A token is checked by EAS's gateway, or
where there is none by us: as it is, or as the client signs with it.

Source: eas-prediction 0.36, `predict_client.py`, and alibabacloud.com/help/en/pai, the pages on calls and on status
codes; read 2026-11-23.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from service.errors import ServiceError
from service.protocols.csv_body import read_csv
from service.protocols.json_answer import error_text, keyed, write_answer, write_rows
from service.protocols.json_body import read_json, write_json
from service.protocols.json_rows import (
    check_object,
    columns_table,
    only_one,
    read_counted,
    rows_table,
    switches,
    wants_probabilities,
)
from service.protocols.media_types import CSV, JSON, likely_type
from service.protocols.typed_csv import TypedCsv
from service.signature import Signature
from service.table import PredictRequest, PredictResponse

REQUEST_TYPES = (JSON, CSV)
RESPONSE_TYPES = (JSON,)
ERROR_TYPE = JSON
STATUSES = {422: 400}
"""Whatever a processor cannot read is 400 there; 401, 404, 405, 408 and 503 are the same."""
WAYS = ("data", "instances", "inputs")
EXAMPLE = '{"data": [...]}'


def decode_request(
    body: bytes, content_type: str, parameters: Mapping[str, str], signature: Signature, max_rows: int
) -> PredictRequest:
    """Read a prediction request."""
    said: dict[str, bool] = {}
    if likely_type(content_type, body, REQUEST_TYPES) == CSV:
        table = signature.once(TypedCsv).read(body, max_rows) or read_csv(body, signature, max_rows)
    else:
        document = check_object(read_counted(body, signature, max_rows), (*WAYS, "parameters"), EXAMPLE)
        way = only_one(document, WAYS, f"rows as {EXAMPLE}")
        read = columns_table if way == "inputs" else rows_table
        table = read(way, document[way], signature, max_rows)
        said = switches(document.get("parameters"))
    return PredictRequest(table, wants_probabilities(parameters, said, signature))


def encode_response(response: PredictResponse, content_type: str) -> bytes:
    """Write a prediction response."""
    return write_answer(response, keyed("predictions"))


def encode_error(error: ServiceError, request_id: str) -> bytes:
    """Write an error: EAS's clients show whatever text there is."""
    return write_json({"code": error.code, "message": error_text(error, request_id)})


def is_authorized(authorization: str, token: str, path: str, content_type: str, date: str, body: bytes) -> bool:
    """Whether a request carries the service's token, or is signed with it as EAS's client signs.

    Args:
        authorization: The Authorization header.
        token: The service's token.
        path: The path that was asked, `/api/predict/<service>`.
        content_type: The Content-Type header.
        date: The Date header.
        body: The whole body.
    """
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    signed = "\n".join(("POST", md5, content_type, date, path)).strip()
    digest = hmac.new(token.encode(), signed.encode(), hashlib.sha1).digest()
    accepted = (token, "EAS " + base64.b64encode(digest).decode())
    return any(hmac.compare_digest(authorization.encode(), each.encode()) for each in accepted)


def encode_request(rows: list[Any], *, probabilities: bool = False) -> bytes:
    """Write the request that a client sends for these rows."""
    return write_rows("data", rows, "parameters", probabilities=probabilities)


def decode_response(body: bytes) -> list[Any]:
    """Read the predictions out of an answer, one item a row."""
    predictions: list[Any] = read_json(body)["predictions"]
    return predictions
