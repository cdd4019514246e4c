"""Azure Machine Learning's `/score`: the three bodies that its users send, each answered as Azure answers it.

- `data`: rows, as in Microsoft's samples of score.py, answered with `predictions`;
- `input_data`: `columns`, `index` and `data`, or bare rows, as of MLflow models deployed without code, answered with a
  bare list;
- `Inputs` and `GlobalParameters`, as of AutoML's models, answered with `Results`; its method `predict_proba` asks for
  the classes' shares instead of labels.

Bytes in, bytes out. Source: azureml-examples `cli/endpoints/online`, MicrosoftDocs/azure-ai-docs
`how-to-deploy-automl-endpoint.md`, azureml-inference-server-http 1.5.1; read 2026-11-23.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.errors import InvalidDocument, ServiceError, UnknownParameter, shorten
from service.protocols.json_answer import Answered, error_text, keyed, write_answer, write_rows
from service.protocols.json_body import read_json, write_json
from service.protocols.json_rows import (
    check_object,
    only_one,
    read_counted,
    rows_table,
    split_table,
    switches,
    wants_probabilities,
)
from service.protocols.media_types import JSON, likely_type
from service.signature import Signature
from service.table import PredictRequest, PredictResponse, Table

REQUEST_TYPES = (JSON,)
RESPONSE_TYPES = (JSON,)
ERROR_TYPE = JSON
STATUSES = {422: 400}
WAYS = ("data", "input_data", "Inputs")
FIELDS = {
    "data": ("data", "parameters"),
    "input_data": ("input_data", "params"),
    "Inputs": ("Inputs", "GlobalParameters"),
}
EXAMPLE = '{"data": [...]}'
METHODS = ("predict", "predict_proba")


def decode_request(
    body: bytes, content_type: str, parameters: Mapping[str, str], signature: Signature, max_rows: int
) -> PredictRequest:
    """Read a prediction request; which of the three bodies it has goes on to its answer."""
    likely_type(content_type, body, REQUEST_TYPES)
    document = read_counted(body, signature, max_rows, nan=True)
    known = [field for fields in FIELDS.values() for field in fields]
    way = only_one(check_object(document, known, EXAMPLE), WAYS, f"rows as {EXAMPLE}")
    check_object(document, FIELDS[way], EXAMPLE)
    if way == "Inputs":
        said = {"probabilities": _method(document.get("GlobalParameters")) == "predict_proba"}
    else:
        said = switches(document.get(FIELDS[way][1]), FIELDS[way][1])
    table = _table(way, document[way], signature, max_rows)
    return PredictRequest(table, wants_probabilities(parameters, said, signature), way)


def _table(way: str, sent: Any, signature: Signature, max_rows: int) -> Table:
    if way == "Inputs":
        sent = check_object(sent, ("data",), '{"Inputs": {"data": [...]}}').get("data")
        return rows_table("Inputs.data", sent, signature, max_rows)
    if way == "input_data" and isinstance(sent, dict):
        check_object(sent, ("columns", "index", "data"), '{"input_data": {"columns": [...], "data": [...]}}')
        return split_table("`input_data`", sent.get("columns"), sent.get("data"), signature, max_rows)
    return rows_table(way, sent, signature, max_rows)


def _method(said: Any) -> str:
    """Read AutoML's global parameters; older scoring files have the number 1.0 there."""
    if said is None or (type(said) in (int, float) and said == 1):
        return METHODS[0]
    if not isinstance(said, dict):
        raise InvalidDocument('`GlobalParameters` must be an object such as {"method": "predict"}')
    for name in sorted(said.keys() - {"method"}):
        raise UnknownParameter(f"the global parameter {shorten(name)!r} is not known; known is `method`")
    method = said.get("method", METHODS[0])
    if method not in METHODS:
        raise UnknownParameter(f"the method must be {' or '.join(METHODS)}")
    found: str = method
    return found


def encode_response(response: PredictResponse, content_type: str) -> bytes:
    """Write a prediction response in the form that the body asked for."""
    return write_answer(response, lambda answered: _document(response.wishes or "data", answered))


def _document(way: str, answered: Answered) -> Any:
    if way == "Inputs":
        return {"Results": answered.predictions if answered.shares is None else answered.shares}
    bare = way == "input_data" and answered.shares is None
    return answered.predictions if bare else keyed("predictions")(answered)


def encode_error(error: ServiceError, request_id: str) -> bytes:
    """Write an error as Microsoft's server does."""
    return write_json({"message": error_text(error, request_id)})


def encode_request(rows: list[Any], *, probabilities: bool = False) -> bytes:
    """Write the request that a client sends for these rows."""
    return write_rows("data", rows, "parameters", probabilities=probabilities)


def decode_response(body: bytes) -> list[Any]:
    """Read the predictions out of an answer to any of the three bodies, one item a row."""
    found = read_json(body)
    predictions: list[Any] = found if isinstance(found, list) else found.get("predictions", found.get("Results"))
    return predictions
