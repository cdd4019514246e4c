"""MLflow's scoring server: `/invocations` with one of four JSON forms, or CSV with a header.

Bytes in, bytes out. NaN, which its client writes for a missing value of a frame, is null. Beside what MLflow answers
there are `probabilities` and `classes` where the parameter of that name asks for them.

Source: mlflow-skinny 3.17.2, `mlflow/pyfunc/scoring_server` and `mlflow/utils/proto_json_utils.py`, read 2026-11-23.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.errors import ServiceError
from service.protocols.csv_body import read_csv
from service.protocols.json_answer import error_text, keyed, write_answer
from service.protocols.json_body import read_json, write_json
from service.protocols.json_rows import (
    as_split,
    check_object,
    columns_table,
    only_one,
    read_counted,
    rows_table,
    split_table,
    switches,
    wants_probabilities,
)
from service.protocols.media_types import CSV, JSON, likely_type
from service.protocols.typed_csv import TypedCsv
from service.signature import Signature
from service.table import PredictRequest, PredictResponse, Table

REQUEST_TYPES = (JSON, CSV)
RESPONSE_TYPES = (JSON,)
ERROR_TYPE = JSON
STATUSES = {422: 400}
VERSION = "3.17.2"
"""Of MLflow, whose protocol this is: what `/version` tells."""
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
FIELDS = (*FORMS, "params")
EXAMPLE = '{"dataframe_split": {"columns": [...], "data": [...]}}'
CODES = {400: "BAD_REQUEST", 404: "RESOURCE_DOES_NOT_EXIST", 503: "TEMPORARILY_UNAVAILABLE"}
"""MLflow's names of statuses; it calls every other of a client's faults a bad request, and ours an internal error."""


def decode_request(
    body: bytes, content_type: str, parameters: Mapping[str, str], signature: Signature, max_rows: int
) -> PredictRequest:
    """Read a prediction request."""
    said: dict[str, bool] = {}
    if likely_type(content_type, body, REQUEST_TYPES) == CSV:
        table = signature.once(TypedCsv).read(body, max_rows) or read_csv(body, signature, max_rows)
    else:
        table, said = read_forms(read_counted(body, signature, max_rows, nan=True), signature, max_rows)
    return PredictRequest(table, wants_probabilities(parameters, said, signature))


def read_forms(document: Any, signature: Signature, max_rows: int) -> tuple[Table, dict[str, bool]]:
    """Read a document that has its rows in one of the four forms, and its switches."""
    document = check_object(document, FIELDS, EXAMPLE)
    form = only_one(document, FORMS, f"rows as {EXAMPLE}, or under {', '.join(FORMS[1:])}")
    said = switches(document.get("params"), "params")
    sent = document[form]
    if form == "dataframe_split":
        sent = check_object(sent, ("columns", "data", "index"), EXAMPLE)
        return split_table(f"`{form}`", sent.get("columns"), sent.get("data"), signature, max_rows), said
    read = columns_table if form == "inputs" and isinstance(sent, dict) else rows_table
    return read(form, sent, signature, max_rows), said


def encode_response(response: PredictResponse, content_type: str) -> bytes:
    """Write a prediction response."""
    return write_answer(response, keyed("predictions"))


def encode_error(error: ServiceError, request_id: str) -> bytes:
    """Write an error as MLflow's clients read it."""
    status = STATUSES.get(error.status, error.status)
    code = CODES.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR")
    return write_json({"error_code": code, "message": error_text(error, request_id)})


def encode_request(rows: list[Any], *, probabilities: bool = False) -> bytes:
    """Write the request that a client sends for rows, which are all objects by feature name or all lists."""
    params = {"params": {"probabilities": True}} if probabilities else {}
    if isinstance(rows[0], dict):
        columns, data = as_split(rows)
        return write_json({"dataframe_split": {"columns": columns, "data": data}} | params)
    return write_json({"inputs": rows} | params)


def decode_response(body: bytes) -> list[Any]:
    """Read the predictions out of an answer, one item a row."""
    predictions: list[Any] = read_json(body)["predictions"]
    return predictions
