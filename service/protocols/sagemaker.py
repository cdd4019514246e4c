"""SageMaker's `/invocations`: JSON, JSON lines, and CSV without a header; the answer as Accept has it.

Bytes in, bytes out. The forms of MLflow are taken too, because SageMaker runs MLflow's containers under the same path.
An answer in lines has no final newline: batch transform joins answers with its own. A header of custom attributes may
say `probabilities=true`, which is the only way for a body in CSV or in lines.

Source: aws/sagemaker-inference-toolkit `src/sagemaker_inference/{content_types,encoder,decoder}.py` and AWS's page on
inference code, docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code; read 2026-11-23.
"""

from __future__ import annotations

import csv
import io
import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Any

from service.errors import InvalidJson, TooManyRows
from service.protocols import mlflow
from service.protocols.csv_body import read_csv, write_csv
from service.protocols.guard import check_json, count
from service.protocols.json_answer import Answered, write_answer, write_rows
from service.protocols.json_body import read_json
from service.protocols.json_rows import read_counted, rows_table, wants_probabilities
from service.protocols.media_types import CSV, JSON, likely_type
from service.protocols.typed_csv import TypedCsv
from service.signature import TEXTS, Feature, Signature
from service.table import PredictRequest, PredictResponse, Table

LINES = "application/jsonlines"
LINES_TOO = ("application/x-jsonlines", "application/jsonl", "application/x-ndjson")
"""Other names of the same."""
REQUEST_TYPES = (JSON, CSV, LINES, *LINES_TOO)
RESPONSE_TYPES = (JSON, CSV, LINES)
ERROR_TYPE = mlflow.ERROR_TYPE
STATUSES = mlflow.STATUSES
encode_error = mlflow.encode_error  # SageMaker shows any text, and under `/invocations` MLflow's clients ask too
decode_response = mlflow.decode_response
ATTRIBUTES = "custom-attributes"
"""The parameter under which the header of that name is given."""
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*|", re.ASCII)
"""A cell that a header does not have, but where the features have no names but their places."""
NANS = ("nan", "NaN")
FIRST_BYTES = 64 * 1024
"""Within so many bytes a header ends."""


def decode_request(
    body: bytes, content_type: str, parameters: Mapping[str, str], signature: Signature, max_rows: int
) -> PredictRequest:
    """Read a prediction request. Its parameters may hold the custom attributes under `ATTRIBUTES`."""
    query = {name: value for name, value in parameters.items() if name != ATTRIBUTES}
    query |= _attributes(parameters.get(ATTRIBUTES, ""))
    said: dict[str, bool] = {}
    kind, bare = likely_type(content_type, body, REQUEST_TYPES), False
    if kind == CSV:
        table = _read_csv(body, signature, max_rows)
    elif kind == JSON:
        document = read_counted(body, signature, max_rows, nan=True)
        bare = isinstance(document, list)
        if bare:
            table = rows_table("the body", document, signature, max_rows)
        else:
            table, said = mlflow.read_forms(document, signature, max_rows)
    else:
        table = rows_table("the body", _lines(body, signature, max_rows), signature, max_rows)
    return PredictRequest(table, wants_probabilities(query, said, signature), bare)


def encode_response(response: PredictResponse, content_type: str) -> bytes:
    """Write a prediction response: a list for a JSON body that was one, an object for another, CSV, or lines."""
    if content_type == CSV:
        return write_csv(response, header=False).removesuffix(b"\n")
    if content_type == LINES:
        return write_answer(response, _items, lines=True).removesuffix(b"\n")
    if response.wishes:
        return write_answer(response, _items)
    return mlflow.encode_response(response, content_type)


def _items(answered: Answered) -> list[Any]:
    if answered.shares is None:
        return answered.predictions
    pairs = zip(answered.predictions, answered.shares, strict=True)
    return [{"prediction": prediction, "probabilities": shares} for prediction, shares in pairs]


def encode_request(rows: list[Any], *, probabilities: bool = False) -> bytes:
    """Write the request that a client sends for these rows, in JSON."""
    return write_rows("instances", rows, "params", probabilities=probabilities)


def _attributes(text: str) -> dict[str, str]:
    """Read what a header of custom attributes says to us; anything else in it is the client's own."""
    pairs = [part.strip().partition("=") for part in re.split("[;,]", text)]
    return {name: value for name, _, value in pairs if name == "probabilities"}


def _lines(body: bytes, signature: Signature, max_rows: int) -> list[Any]:
    """Read a body of one JSON row a line."""
    if count(body, ord("\n")) > max_rows:
        raise TooManyRows(f"more than {max_rows} lines were sent; split the request")
    check_json(body, signature, max_rows)
    rows = []
    for index, line in enumerate(body.removesuffix(b"\n").split(b"\n")):
        try:
            rows.append(read_json(line, nan=True))
        except InvalidJson as error:
            raise InvalidJson(f"line {index + 1} is not JSON: {error.detail}") from error
    return rows


def _read_csv(body: bytes, signature: Signature, max_rows: int) -> Table:
    """Read CSV with a header, or without one in signature order."""
    if not _has_header(body, signature):
        body = signature.once(_header) + body.removeprefix(BOM_UTF8)
    signature = signature.once(_with_nan)
    return signature.once(TypedCsv).read(body, max_rows) or read_csv(body, signature, max_rows)


def _has_header(body: bytes, signature: Signature) -> bool:
    """Whether the first line is a header: most of its cells are features' names, and not all of them numbers."""
    first = body[:FIRST_BYTES].decode("utf-8-sig", "replace")
    try:
        cells = next(csv.reader(io.StringIO(first, newline="")), [])
    except csv.Error:
        return False  # whoever reads it all says what is wrong with it
    named = {cell.strip().casefold() for cell in cells} & {name.casefold() for name in signature.names}
    return 2 * len(named) > len(cells) and not all(map(NUMBER.fullmatch, cells))


def _with_nan(signature: Signature) -> Signature:
    """Return the signature of CSV in which `nan` is a missing number, as AWS's serializer writes it of arrays."""
    features = tuple(map(_knowing_nan, signature.features))
    return Signature(features=features, outputs=signature.outputs, missing=(*signature.missing, *NANS))


def _knowing_nan(feature: Feature) -> Feature:
    """Return a feature of open texts as one to which `nan` is a text that it knows."""
    if feature.dtype not in TEXTS or feature.closed:
        return feature
    known = tuple(map(str, feature.categories or ()))
    return feature.model_copy(update={"categories": (*known, *NANS)})


def _header(signature: Signature) -> bytes:
    target = io.StringIO()
    csv.writer(target, lineterminator="\n").writerow(signature.names)
    return target.getvalue().encode()
