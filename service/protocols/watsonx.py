"""watsonx.ai Runtime's scoring: `input_data`, blocks of `fields` and `values`; a block of predictions for each.

Bytes in, bytes out. Where the model has class probabilities each row is answered with both, as IBM's own scikit-learn
runtime does. Source: ibm-watsonx-ai 1.8.1, `deployments.py` and `metanames.py`; errors as in the client's own reading,
`errors[].message`. Read 2026-11-23.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from service.errors import InvalidDocument, RequestError, ServiceError, UnknownParameter, shorten
from service.protocols.json_answer import Answered, error_text, write_answer
from service.protocols.json_body import read_json, write_json
from service.protocols.json_rows import as_split, check_object, only_one, read_counted, split_table
from service.protocols.media_types import JSON, likely_type
from service.signature import Signature
from service.table import PredictRequest, PredictResponse, Table, check_size

REQUEST_TYPES = (JSON,)
RESPONSE_TYPES = (JSON,)
ERROR_TYPE = JSON
STATUSES = {422: 400}
EXAMPLE = '{"input_data": [{"fields": [...], "values": [...]}]}'
VERSION = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", re.ASCII)
CONTEXT = ("version", "space_id", "project_id")
"""Parameters of the query that clients send."""
MOST_BLOCKS = 100
PROBABILITY = "probability"


def decode_request(
    body: bytes, content_type: str, parameters: Mapping[str, str], signature: Signature, max_rows: int
) -> PredictRequest:
    """Read a prediction request; how many rows each block has goes on to its answer."""
    for name in sorted(parameters.keys() - set(CONTEXT)):
        raise UnknownParameter(f"the parameter {shorten(name)!r} is not known; known are {', '.join(CONTEXT)}")
    likely_type(content_type, body, REQUEST_TYPES)
    document = check_object(read_counted(body, signature, max_rows), ("input_data", "scoring_parameters"), EXAMPLE)
    blocks = document[only_one(document, ("input_data",), EXAMPLE)]
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= MOST_BLOCKS:
        raise InvalidDocument(f"`input_data` must be a list of 1 to {MOST_BLOCKS} blocks of `fields` and `values`")
    if document.get("scoring_parameters"):
        raise UnknownParameter("this model takes no `scoring_parameters`; leave them out")
    sent = [block.get("values") if isinstance(block, dict) else None for block in blocks]
    check_size(sum(len(values) if isinstance(values, list) else 1 for values in sent), max_rows)
    places = [f"block {index}: " if len(blocks) > 1 else "" for index in range(len(blocks))]
    tables = [_block_table(*each, signature, max_rows) for each in zip(places, blocks, strict=True)]
    return PredictRequest(_joined(tables), signature.has_probabilities, tuple(table.n_rows for table in tables))


def check_version(parameters: Mapping[str, str]) -> None:
    """Refuse a query without `version`, the date of the interface that a client was written for.

    Raises:
        UnknownParameter: If there is none, or it is no date.
    """
    version = parameters.get("version", "")
    if not VERSION.fullmatch(version):
        raise UnknownParameter(f"the query's `version` is {shorten(version)!r} and must be a date, ?version=2026-11-23")


def _block_table(where: str, block: Any, signature: Signature, max_rows: int) -> Table:
    try:
        check_object(block, ("fields", "values", "id"), '{"fields": [...], "values": [...]}')
        return split_table("`input_data`", block.get("fields"), block.get("values"), signature, max_rows)
    except RequestError as error:
        faults = [replace(fault, detail=where + fault.detail) for fault in error.faults]
        raise type(error)(where + error.detail, faults=faults) from error


def _joined(tables: list[Table]) -> Table:
    if len(tables) == 1:
        return tables[0]
    columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in tables[0].columns}
    return Table(columns, sum(table.n_rows for table in tables))


def encode_response(response: PredictResponse, content_type: str) -> bytes:
    """Write a prediction response: a block for each of the request."""
    several = [output.name for output in response.signature.outputs]
    names = several if len(several) > 1 else ["prediction"]
    fields = names if response.probabilities is None else names + [_share_name(name, names) for name in names]
    sizes = response.wishes or (len(response.predictions),)
    return write_answer(response, lambda answered: {"predictions": list(_blocks(fields, _rows(answered), sizes))})


def _share_name(name: str, names: list[str]) -> str:
    return f"{PROBABILITY}_{name}" if len(names) > 1 else PROBABILITY


def _rows(answered: Answered) -> list[list[Any]]:
    several = bool(answered.predictions) and isinstance(answered.predictions[0], list)
    rows = [list(each) if several else [each] for each in answered.predictions]
    for row, shares in zip(rows, answered.shares or (), strict=False):
        row += shares if several else [shares]
    return rows


def _blocks(fields: list[str], rows: list[list[Any]], sizes: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    at = 0
    for size in sizes:
        yield {"fields": fields, "values": rows[at : at + size]}
        at += size


def encode_error(error: ServiceError, request_id: str) -> bytes:
    """Write an error as IBM's services do, with our request's id for their trace."""
    status = STATUSES.get(error.status, error.status)
    fault = {"code": error.code.replace("-", "_"), "message": error_text(error, request_id)}
    return write_json({"trace": request_id, "errors": [fault], "status_code": str(status)})


def deployment(name: str, created: str, version: str, base: str) -> dict[str, Any]:
    """Tell a model as a deployment, as the client's `deployments.get_details` reads it.

    Args:
        name: The model's name, which is the deployment's id here.
        created: When it was packed, ISO 8601.
        version: Its active version.
        base: The service's address, with a slash at its end.
    """
    return {
        "metadata": {"id": name, "name": name, "created_at": created},
        "entity": {
            "name": name,
            "online": {},
            "asset": {"id": name, "rev": version},
            "deployed_asset_type": "model",
            "status": {"state": "ready", "online_url": {"url": f"{base}ml/v4/deployments/{name}/predictions"}},
        },
    }


def encode_request(rows: list[Any], *, probabilities: bool = False) -> bytes:
    """Write the request that a client sends for rows, all objects or all lists; probabilities come by themselves."""
    if isinstance(rows[0], dict):
        fields, values = as_split(rows)
        return write_json({"input_data": [{"fields": fields, "values": values}]})
    return write_json({"input_data": [{"values": rows}]})


def decode_response(body: bytes) -> list[Any]:
    """Read the predictions out of an answer, one item a row."""
    found = []
    for block in read_json(body)["predictions"]:
        width = sum(not name.startswith(PROBABILITY) for name in block["fields"])
        found += [row[0] if width == 1 else row[:width] for row in block["values"]]
    return found
