"""OCI Data Science model deployments: `data` in, `prediction` out.

Bytes in, bytes out. `data` is rows or columns; with `data_type`, as oracle-ads sends it, also a pandas frame in JSON or
a numpy array in base64. Source: oracle-samples/oci-data-science-ai-samples, oracle-ads 2.16.1
`ads/model/serde/model_input.py`; errors as `code` and `message`, which oci 2.189.0 reads. Read 2026-11-23.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from service.errors import InvalidDocument, InvalidInstances, ServiceError, shorten
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
from service.protocols.media_types import JSON, likely_type
from service.signature import Signature
from service.table import PredictRequest, PredictResponse, check_size

REQUEST_TYPES = (JSON,)
RESPONSE_TYPES = (JSON,)
ERROR_TYPE = JSON
STATUSES = {422: 400}
EXAMPLE = '{"data": [...]}'
FRAME, ARRAY = "DataFrame", "numpy.ndarray"
ARRAY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<dtype>\|[biu]1|[<>][iu][248]|[<>]f[248])', "
    rb"'fortran_order': (?P<order>True|False), "
    rb"'shape': \((?P<rows>\d{1,9}), (?P<columns>\d{1,9})\), \} {0,200}\n",
    re.DOTALL,
)
"""Version 1.0 of numpy's format, of arrays of rank two. numpy's own reader evaluates the text of the header.

Source: numpy.org/doc/stable/reference/generated/numpy.lib.format.html, read 2026-11-23.
"""
ARRAY_START = 10
"""Where the header's text begins, after its length in two bytes."""
CODES = {400: "InvalidParameter", 404: "NotFound", 413: "RequestEntityTooLarge", 503: "ServiceUnavailable"}
"""OCI's names of statuses; it calls another of a client's faults an invalid parameter too."""


def decode_request(
    body: bytes, content_type: str, parameters: Mapping[str, str], signature: Signature, max_rows: int
) -> PredictRequest:
    """Read a prediction request."""
    likely_type(content_type, body, REQUEST_TYPES)
    document = check_object(read_counted(body, signature, max_rows), ("data", "data_type", "parameters"), EXAMPLE)
    sent = document[only_one(document, ("data",), f"rows as {EXAMPLE}")]
    if isinstance(sent, str):
        sent = _unpacked(sent, document.get("data_type"), signature, max_rows)
    elif isinstance(sent, dict) and sent and all(isinstance(column, dict) for column in sent.values()):
        sent = _columns(sent)
    said = switches(document.get("parameters"))
    read = columns_table if isinstance(sent, dict) else rows_table
    return PredictRequest(read("data", sent, signature, max_rows), wants_probabilities(parameters, said, signature))


def _unpacked(text: str, data_type: Any, signature: Signature, max_rows: int) -> Any:
    """Return the rows or columns that oracle-ads has put into one text."""
    said = data_type if isinstance(data_type, str) else ""
    if FRAME in said:
        try:
            return _columns(read_counted(text.encode(), signature, max_rows))
        except UnicodeEncodeError as error:
            raise InvalidDocument("`data` holds half a surrogate pair, which is no character") from error
    if ARRAY in said:
        return _array(text, signature, max_rows)
    raise InvalidDocument(
        f"`data` is text and `data_type` {shorten(said)!r}; send lists, or a frame or an array as oracle-ads does"
    )


def _columns(frame: Any) -> dict[str, list[Any]]:
    """Return the columns of a frame that has each cell under its row's label, in the order of the first column."""
    columns = list(frame.values()) if isinstance(frame, dict) else []
    if not columns or not all(isinstance(column, dict) for column in columns):
        raise InvalidDocument("`data` must be what DataFrame.to_json() writes: an object of columns")
    labels = list(columns[0])
    if any(column.keys() != columns[0].keys() for column in columns):
        raise InvalidDocument("the columns of `data` have other rows than the first one")
    return {name: [column[label] for label in labels] for name, column in frame.items()}


def _array(text: str, signature: Signature, max_rows: int) -> list[list[Any]]:
    """Read the rows of an array of numbers, NaN a missing value; nothing is made of them before their size is sure."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInstances("`data` is not base64") from error
    header, width = ARRAY_HEADER.match(data), len(signature.features)
    wanted = f"an array of numbers of shape [rows, {width}]"
    if header is None or header.end() - ARRAY_START != int.from_bytes(data[ARRAY_START - 2 : ARRAY_START], "little"):
        raise InvalidInstances(f"`data` must be {wanted}, as numpy.save writes it")
    dtype, shape = np.dtype(header["dtype"].decode()), (int(header["rows"]), int(header["columns"]))
    if shape[1] != width or shape[0] * width * dtype.itemsize != len(data) - header.end():
        raise InvalidInstances(f"`data` must be {wanted}, with nothing missing or left over")
    check_size(shape[0], max_rows)
    order: Literal["C", "F"] = "F" if header["order"] == b"True" else "C"
    rows = np.frombuffer(data, dtype, offset=header.end()).reshape(shape, order=order).tolist()
    return [[None if cell != cell else cell for cell in row] for row in rows]


def encode_response(response: PredictResponse, content_type: str) -> bytes:
    """Write a prediction response."""
    return write_answer(response, keyed("prediction"))


def encode_error(error: ServiceError, request_id: str) -> bytes:
    """Write an error as Oracle's clients read it."""
    status = STATUSES.get(error.status, error.status)
    code = CODES.get(status, "InvalidParameter" if status < 500 else "InternalServerError")
    return write_json({"code": code, "message": error_text(error, request_id)})


def encode_request(rows: list[Any], *, probabilities: bool = False) -> bytes:
    """Write the request that a client sends for these rows."""
    return write_rows("data", rows, "parameters", probabilities=probabilities)


def decode_response(body: bytes) -> list[Any]:
    """Read the predictions out of an answer, one item a row."""
    predictions: list[Any] = read_json(body)["prediction"]
    return predictions
