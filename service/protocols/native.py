"""The native protocol: `instances` or `inputs` in, `predictions` out, as TensorFlow Serving and KServe V1 speak it.

Bytes in, bytes out; no web framework and no model. Source: kserve/kserve, V1 protocol, and
tensorflow.org/tfx/serving/api_rest, read 2026-11-22. Errors are RFC 9457 problem documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from msgspec import Raw

from service.errors import (
    Fault,
    InvalidDocument,
    InvalidInstances,
    MissingField,
    ServiceError,
    UnknownField,
    UnknownParameter,
    UnsupportedMediaType,
    shorten,
)
from service.protocols.arrow_body import ADVICE, ARROW, INSTALLED, read_arrow, write_arrow
from service.protocols.csv_body import read_csv, write_csv
from service.protocols.guard import check_json
from service.protocols.json_body import read_json, write_json
from service.protocols.numerals import encode_ascii, numerals
from service.protocols.typed_csv import TypedCsv
from service.protocols.typed_json import TypedJson
from service.signature import Signature
from service.table import (
    Column,
    PredictRequest,
    PredictResponse,
    Table,
    check_size,
    table_from_columns,
    table_from_rows,
)

REQUEST_TYPES = ("application/json", "text/csv", *[ARROW] * INSTALLED)
RESPONSE_TYPES = REQUEST_TYPES
ERROR_TYPE = "application/problem+json"
STATUSES: dict[int, int] = {}
"""None is another than the error's own."""
PROBLEMS = "/problems/"
MAX_ERROR_BYTES = 8192

FIELDS = {"instances", "inputs", "parameters"}
SWITCHES = {"true": True, "false": False}


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
    wanted = {name: _switch(name, value) for name, value in parameters.items()}
    media_type = _media_type(content_type)
    if media_type == ARROW:
        table = read_arrow(body, signature, max_rows)
    elif media_type == "text/csv":
        table = signature.once(TypedCsv).read(body, max_rows) or read_csv(body, signature, max_rows)
    else:
        table, said = _read_json(body, signature, max_rows)
        for name, value in said.items():
            if wanted.setdefault(name, value) != value:
                raise UnknownParameter(f"the query says {name!r} and the body says otherwise; say it once")
    probabilities = _probabilities(wanted, signature)
    return PredictRequest(table, probabilities)


def encode_response(response: PredictResponse, content_type: str) -> bytes:
    """Write a prediction response as JSON, CSV or Arrow."""
    if content_type == ARROW:
        return write_arrow(response)
    if content_type == "text/csv":
        return write_csv(response)
    arrays = (response.predictions, *(response.probabilities or ()))
    values = [_plain(array) for array in arrays]
    if None not in values:
        classes = None if response.probabilities is None else response.signature.once(_written_classes)
        body = encode_ascii(_answer(response, classes, *values))
        if body is not None:
            return body
    return write_json(_answer(response, _classes(response.signature), *(array.tolist() for array in arrays)))


def _plain(array: Column) -> list[Any] | None:
    """Return an array as lists which msgspec and json write alike; None where that is not sure."""
    if array.dtype.kind not in "OU":
        return numerals(array)
    values: list[Any] = array.tolist()
    return values if {*map(type, values)} == {str} else None


def _answer(response: PredictResponse, classes: Any, predictions: Any, *shares: Any) -> dict[str, Any]:
    document: dict[str, Any] = {"predictions": predictions}
    if response.signature.multi_output:
        document["outputs"] = [output.name for output in response.signature.outputs]
    if response.probabilities is not None:
        document["probabilities"] = [list(row) for row in zip(*shares, strict=True)] if len(shares) > 1 else shares[0]
        document["classes"] = classes
    return document | {"model": response.model, "version": response.version}


def _classes(signature: Signature) -> Any:
    classes = [output.classes for output in signature.outputs]
    return classes if len(classes) > 1 else classes[0]


def _written_classes(signature: Signature) -> Raw:
    return Raw(write_json(_classes(signature)).rstrip())


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
    parameters = {"parameters": {"probabilities": True}} if probabilities else {}
    return write_json({"instances": rows} | parameters)


def decode_response(body: bytes) -> list[Any]:
    """Read the predictions out of a JSON answer, one item a row."""
    predictions: list[Any] = read_json(body)["predictions"]
    return predictions


@lru_cache(maxsize=32)
def _media_type(content_type: str) -> str:
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType(f"the charset {shorten(value)!r} is not accepted; send UTF-8")
    if media_type.startswith("application/") and media_type.endswith("+json"):
        return "application/json"
    if media_type == ARROW and not INSTALLED:
        raise UnsupportedMediaType(f"{ADVICE}, or send application/json or text/csv")
    if media_type not in REQUEST_TYPES:
        found = f"{shorten(media_type)!r} is not accepted" if media_type else "there is no Content-Type"
        raise UnsupportedMediaType(f"{found}; send Content-Type: application/json or text/csv")
    return media_type


def _read_json(body: bytes, signature: Signature, max_rows: int) -> tuple[Table, dict[str, bool]]:
    """Read a JSON body fast where it is right, else exactly, which words everything that is wrong with it."""
    if len(body) > max_rows:  # fewer bytes hold fewer values
        check_json(body, signature, max_rows)
    typed = signature.once(TypedJson).read(body, max_rows)
    if typed is not None:
        return typed
    document = _document(body)
    said = _parameters(document)
    return _table(document, signature, max_rows), said


def _document(body: bytes) -> dict[str, Any]:
    document = read_json(body)
    if not isinstance(document, dict):
        raise InvalidDocument('the document must be an object such as {"instances": [...]}')
    unknown = sorted(document.keys() - FIELDS)
    if unknown:
        raise UnknownField(f"the field {shorten(unknown[0])!r} is not known; known are {', '.join(sorted(FIELDS))}")
    given = document.keys() & {"instances", "inputs"}
    if not given:
        raise MissingField('send rows as {"instances": [...]} or columns as {"inputs": {...}}')
    if len(given) > 1:
        raise InvalidDocument("`instances` and `inputs` are two ways to send the same thing; send one of them")
    return document


def _table(document: dict[str, Any], signature: Signature, max_rows: int) -> Table:
    if "instances" in document:
        rows = document["instances"]
        if not isinstance(rows, list):
            raise InvalidInstances("`instances` must be a list with one item a row")
        check_size(len(rows), max_rows)
        return table_from_rows(signature, rows)
    columns = document["inputs"]
    if not isinstance(columns, dict):
        raise InvalidInstances("`inputs` must be an object with one list of values for each feature")
    check_size(max((len(v) for v in columns.values() if isinstance(v, list)), default=0), max_rows)
    return table_from_columns(signature, columns)


def _parameters(document: dict[str, Any]) -> dict[str, bool]:
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidDocument("`parameters` must be an object")
    for name, value in parameters.items():
        _check_known(name)
        if not isinstance(value, bool):
            raise UnknownParameter(f"the parameter {name!r} must be true or false")
    return parameters


def _switch(name: str, value: str) -> bool:
    _check_known(name)
    if value not in SWITCHES:
        raise UnknownParameter(f"the parameter {name!r} must be true or false")
    return SWITCHES[value]


def _check_known(name: str) -> None:
    if name != "probabilities":
        raise UnknownParameter(f"the parameter {shorten(name)!r} is not known; known is `probabilities`")


def _probabilities(wanted: Mapping[str, bool], signature: Signature) -> bool:
    probabilities = wanted.get("probabilities", False)
    if probabilities and not signature.has_probabilities:
        raise UnknownParameter("this model answers no class probabilities; ask without `probabilities`")
    return probabilities
