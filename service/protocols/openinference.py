"""The Open Inference Protocol, version 2 of KServe's, Triton's and MLServer's REST: tensors in, tensors out.

A request has one tensor a feature, of shape [rows] or [rows, 1] under the feature's name, or a single tensor of shape
[rows, features] in signature order. Tensors are lists in JSON, or bytes after it (the binary tensor extension, which
tritonclient uses by itself); NaN and null are a missing value. Answers are always JSON, which the extension allows.

Source: kserve/open-inference-protocol specification/protocol/inference_rest.md, and triton-inference-server/server
docs/protocol/extension_binary_data.md, read 2026-11-22.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

from service.errors import (
    InvalidDocument,
    InvalidHeader,
    InvalidInstances,
    MissingField,
    ServiceError,
    TooManyRows,
    UnknownField,
    UnknownParameter,
    closest,
    shorten,
)
from service.protocols.guard import check_json
from service.protocols.json_answer import error_text
from service.protocols.json_body import read_json, write_json
from service.signature import Dtype, Signature
from service.table import (
    Column,
    PredictRequest,
    PredictResponse,
    Table,
    check_size,
    describe,
    table_from_columns,
)

REQUEST_TYPES = ("application/json", "application/octet-stream")
RESPONSE_TYPES = ("application/json",)
ERROR_TYPE = "application/json"
STATUSES = {422: 400}
"""The protocol does not tell apart what cannot be read and what does not fit."""
JSON_LENGTH = "inference-header-content-length"
"""The header that says how many bytes of the body are JSON, where tensors follow it."""
FIELDS = {"id", "parameters", "inputs", "outputs", "model_name"}
"""KServe's client says the model's name again; the path is what counts."""
TENSOR_FIELDS = {"name", "shape", "datatype", "data", "parameters"}
IGNORED = {"binary_data_output", "content_type"}
"""Parameters of well-known clients that change nothing here."""
SUFFIX = "_probabilities"
MAX_ID_CHARACTERS = 256
LENGTH_BYTES = 4
"""Of the number before each element of a binary BYTES tensor."""

DATATYPES: dict[Dtype, str] = {
    "float64": "FP64",
    "float32": "FP32",
    "int64": "INT64",
    "bool": "BOOL",
    "string": "BYTES",
    "datetime": "BYTES",
    "datetime-string": "BYTES",
}
BINARY = {"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"} | {
    f"{kind}{8 * size}": f"<{letter}{size}" for kind, letter in (("INT", "i"), ("UINT", "u")) for size in (1, 2, 4, 8)
}
FLOATS = ("FP16", "FP32", "FP64")


class Wishes(NamedTuple):
    """What the answer owes to the request beside predictions: its id, and which outputs, None for all."""

    id: str | None
    outputs: tuple[str, ...] | None


class Tensor(NamedTuple):
    """One input as it was declared, and where its elements are."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: Any
    binary_bytes: int | None


def decode_request(
    body: bytes, content_type: str, parameters: Mapping[str, str], signature: Signature, max_rows: int
) -> PredictRequest:
    """Read a prediction request.

    Args:
        body: The whole body.
        content_type: The Content-Type header; clients send any, or none.
        parameters: The query string's parameters, of which there are none, and the header `JSON_LENGTH` if it was sent.
        signature: The signature of the model that is asked.
        max_rows: How many rows one request may have.

    Raises:
        RequestError: With what is wrong with it.
    """
    unknown = sorted(parameters.keys() - {JSON_LENGTH})
    if unknown:
        raise UnknownParameter(f"the query's {shorten(unknown[0])!r} is not known; parameters stand in the body")
    text, tail = _split(body, parameters.get(JSON_LENGTH))
    if len(text) > max_rows:
        check_json(text, signature, max_rows, most_lists=max_rows * len(signature.features))
    document = _document(read_json(text))
    tensors = [_tensor(each) for each in document["inputs"]]
    _check_shapes(tensors, signature, max_rows)
    table = _table(tensors, _elements(tensors, tail), signature)
    wishes = Wishes(_id(document), _wanted(document, signature))
    probabilities = _switch(document.get("parameters", {}), signature)
    asked = bool(set(wishes.outputs or ()) - {output.name for output in signature.outputs})
    return PredictRequest(table, probabilities or asked, wishes)


def encode_response(response: PredictResponse, content_type: str) -> bytes:
    """Write a prediction response: a tensor of shape [rows] for each output, and one of its classes' shares."""
    wishes = response.wishes or Wishes(None, None)
    tensors = [each for each in _outputs(response) if wishes.outputs is None or each["name"] in wishes.outputs]
    said = {"model_name": response.model, "model_version": response.version}
    return write_json(said | ({} if wishes.id is None else {"id": wishes.id}) | {"outputs": tensors})


def encode_error(error: ServiceError, request_id: str) -> bytes:
    """Write an error as `{"error": TEXT}`, which is all that the protocol has."""
    return write_json({"error": error_text(error, request_id)})


def encode_request(rows: list[Any], *, probabilities: bool = False) -> bytes:
    """Write the request that a client sends for rows, which are objects by feature name: a tensor for each feature."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    inputs = [
        {"name": name, "shape": [len(rows)], "datatype": _datatype(values), "data": values}
        for name, values in columns.items()
    ]
    return write_json({"inputs": inputs} | ({"parameters": {"probabilities": True}} if probabilities else {}))


def decode_response(body: bytes) -> list[Any]:
    """Read the predictions out of an answer, one item a row: the tensors of rank one."""
    columns = [tensor["data"] for tensor in read_json(body)["outputs"] if len(tensor["shape"]) == 1]
    return columns[0] if len(columns) == 1 else [list(row) for row in zip(*columns, strict=True)]


def model_metadata(name: str, versions: Sequence[str], signature: Signature) -> dict[str, Any]:
    """Tell a model's tensors; -1 stands for any number of rows."""
    return {
        "name": name,
        "versions": list(versions),
        "platform": "anyport",
        "inputs": [{"name": f.name, "datatype": DATATYPES[f.dtype], "shape": [-1]} for f in signature.features],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1, *shape]}
            for name, (datatype, shape) in _declared(signature).items()
        ],
    }


# Reading


def _split(body: bytes, length: str | None) -> tuple[bytes, bytes]:
    """Part a body into its JSON and the tensors after it."""
    if length is None:
        return body, b""
    if not (length.isascii() and length.isdecimal() and len(length) < 16) or int(length) > len(body):
        raise InvalidHeader(f"Inference-Header-Content-Length is {shorten(length)!r}; the body has {len(body)} bytes")
    return body[: int(length)], body[int(length) :]


def _document(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise InvalidDocument('the document must be an object such as {"inputs": [...]}')
    _check_fields(document, FIELDS, "the request")
    if "inputs" not in document:
        raise MissingField('send tensors as {"inputs": [{"name": ..., "shape": ..., "datatype": ..., "data": ...}]}')
    if not isinstance(document["inputs"], list) or not document["inputs"]:
        raise InvalidDocument("`inputs` must be a list of tensors")
    return document


def _check_fields(found: dict[str, Any], known: set[str], what: str) -> None:
    for name in sorted(found.keys() - known):
        raise UnknownField(f"{what} has no field {shorten(name)!r}; its fields are {', '.join(sorted(known))}")


def _tensor(declared: Any) -> Tensor:
    if not isinstance(declared, dict):
        raise InvalidDocument("each of `inputs` must be an object with name, shape, datatype and data")
    _check_fields(declared, TENSOR_FIELDS, "a tensor")
    name, shape, datatype = (declared.get(field) for field in ("name", "shape", "datatype"))
    if not isinstance(name, str):
        raise MissingField("each of `inputs` must have a `name`, which is text")
    called = f"the tensor {shorten(name)!r}"
    if not isinstance(shape, list) or not 1 <= len(shape) <= 2 or not all(map(_is_count, shape)):
        raise InvalidInstances(f"{called} must have a `shape` of one or two whole numbers, such as [2] or [2, 4]")
    if not isinstance(datatype, str) or (datatype not in BINARY and datatype != "BYTES"):
        raise InvalidInstances(f"{called} must have a `datatype` of {', '.join(sorted(BINARY))} or BYTES")
    size = _parameters(declared).get("binary_data_size")
    if (size is None) == ("data" not in declared):
        raise MissingField(f"{called} must have either `data` or the parameter `binary_data_size`")
    if size is not None and not _is_count(size):
        raise InvalidInstances(f"{called}: `binary_data_size` must be a number of bytes")
    return Tensor(name, tuple(shape), datatype, declared.get("data"), size)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _parameters(found: dict[str, Any]) -> dict[str, Any]:
    parameters = found.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidDocument("`parameters` must be an object")
    return parameters


def _elements(tensors: Sequence[Tensor], tail: bytes) -> list[list[Any]]:
    """Read every tensor's elements as Python values, row by row."""
    declared = sum(tensor.binary_bytes or 0 for tensor in tensors)
    if declared != len(tail):
        raise InvalidInstances(
            f"{len(tail)} bytes follow the JSON and the tensors declare {declared}; "
            "Inference-Header-Content-Length says where the JSON ends"
        )
    found, at = [], 0
    for tensor in tensors:
        if tensor.binary_bytes is None:
            found.append(_from_json(tensor))
        else:
            found.append(_from_binary(tensor, tail[at : at + tensor.binary_bytes]))
            at += tensor.binary_bytes
    return found


def _from_json(tensor: Tensor) -> list[Any]:
    data = tensor.data
    if not isinstance(data, list):
        raise InvalidInstances(f"the tensor {shorten(tensor.name)!r}: `data` must be a list")
    if len(tensor.shape) == 2 and data and all(isinstance(row, list) for row in data):
        if len(data) != tensor.shape[0] or {*map(len, data)} != {tensor.shape[1]}:
            raise _misshapen(tensor)
        data = list(chain.from_iterable(data))
    if len(data) != math.prod(tensor.shape):
        raise _misshapen(tensor)
    fits = _fits(tensor.datatype)
    odd = next((value for value in data if value is not None and not fits(value)), None)
    if odd is not None:
        raise InvalidInstances(
            f"the tensor {shorten(tensor.name)!r} is declared {tensor.datatype} and holds {describe(odd)}"
        )
    return data


def _fits(datatype: str) -> Callable[[Any], bool]:
    """Return what tells whether a JSON value is of a datatype."""
    if datatype in ("BOOL", "BYTES"):
        kind = bool if datatype == "BOOL" else str
        return lambda value: type(value) is kind
    if datatype in FLOATS:
        largest = float(np.finfo(BINARY[datatype]).max)
        return lambda value: type(value) in (int, float) and abs(value) <= largest
    limits = np.iinfo(BINARY[datatype])
    least, most = int(limits.min), int(limits.max)
    return lambda value: type(value) is int and least <= value <= most


def _misshapen(tensor: Tensor) -> InvalidInstances:
    return InvalidInstances(
        f"the tensor {shorten(tensor.name)!r} does not hold what its shape says, {list(tensor.shape)}"
    )


def _from_binary(tensor: Tensor, data: bytes) -> list[Any]:
    count = math.prod(tensor.shape)
    if tensor.datatype == "BYTES":
        texts = list(islice(_texts(tensor, data), count + 1))
        if len(texts) != count:
            raise _misshapen(tensor)
        return texts
    dtype = np.dtype(BINARY[tensor.datatype])
    if len(data) != count * dtype.itemsize:
        raise _misshapen(tensor)
    if tensor.datatype == "BOOL" and set(data) - {0, 1}:
        raise InvalidInstances(f"the tensor {shorten(tensor.name)!r} is BOOL and holds bytes other than 0 and 1")
    values: list[Any] = np.frombuffer(data, dtype).tolist()
    return [None if value != value else value for value in values]


def _texts(tensor: Tensor, data: bytes) -> Iterator[str]:
    """Read elements that stand each after its length."""
    at = 0
    while at < len(data):
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data) or start > len(data):
            raise _misshapen(tensor)
        try:
            yield data[start:at].decode()
        except UnicodeDecodeError as error:
            raise InvalidInstances(f"the tensor {shorten(tensor.name)!r} holds text that is not UTF-8") from error


def _is_whole(tensors: Sequence[Tensor], signature: Signature) -> bool:
    """Whether a request is a single tensor of whole rows."""
    if len(tensors) != 1:
        return False
    width = len(signature.features)
    return tensors[0].name not in signature.names or (width > 1 and tensors[0].shape[1:] == (width,))


def _check_shapes(tensors: Sequence[Tensor], signature: Signature, max_rows: int) -> None:
    """Refuse tensors that are not rows of this model, before an element is read."""
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise InvalidInstances("two tensors have the same name")
    width = len(signature.features)
    whole = _is_whole(tensors, signature)
    for tensor in tensors:
        if tensor.shape[1:] not in ([(width,)] if whole else [(), (1,)]):
            wanted = f"one of whole rows has [rows, {width}], and is alone; one of a feature has [rows], and its name"
            raise InvalidInstances(
                f"the tensor {shorten(tensor.name)!r} has the shape {shorten(str(list(tensor.shape)))}; {wanted}"
            )
    check_size(max(tensor.shape[0] for tensor in tensors), max_rows)
    if sum(math.prod(tensor.shape) for tensor in tensors) > width * max_rows:
        raise TooManyRows(f"the tensors hold far more values than {max_rows} rows, which one request may have")


def _table(tensors: Sequence[Tensor], elements: Sequence[list[Any]], signature: Signature) -> Table:
    if _is_whole(tensors, signature):
        width, [values] = len(signature.features), elements
        return table_from_columns(signature, {name: values[at::width] for at, name in enumerate(signature.names)})
    return table_from_columns(signature, {tensor.name: each for tensor, each in zip(tensors, elements, strict=True)})


def _id(document: dict[str, Any]) -> str | None:
    found = document.get("id")
    if found is None:
        return None
    if not isinstance(found, str) or len(found) > MAX_ID_CHARACTERS or not found.isprintable():
        raise InvalidDocument(f"`id` must be text of at most {MAX_ID_CHARACTERS} printable characters")
    return found


def _wanted(document: dict[str, Any], signature: Signature) -> tuple[str, ...] | None:
    """Read which outputs are wanted; None if all are."""
    if "outputs" not in document:
        return None
    wanted, known = document["outputs"], _declared(signature)
    if not isinstance(wanted, list) or not all(isinstance(each, dict) for each in wanted):
        raise InvalidDocument('`outputs` must be a list of objects such as {"name": ...}')
    for each in wanted:
        _check_fields(each, {"name", "parameters"}, "an output")
        for parameter in sorted(_parameters(each).keys() - {"binary_data"}):
            raise UnknownParameter(f"an output has no parameter {shorten(parameter)!r}; it has `binary_data`")
        name = each.get("name")
        if not isinstance(name, str) or name not in known:
            found = shorten(name) if isinstance(name, str) else describe(name)
            raise InvalidInstances(
                f"the model has no output {found!r}; it has {shorten(', '.join(known), 120)}{closest(found, known)}"
            )
    return tuple(each["name"] for each in wanted) or None


def _switch(parameters: Any, signature: Signature) -> bool:
    if not isinstance(parameters, dict):
        raise InvalidDocument("`parameters` must be an object")
    for name in sorted(parameters.keys() - IGNORED - {"probabilities"}):
        raise UnknownParameter(f"the parameter {shorten(name)!r} is not known; known is `probabilities`")
    wanted = parameters.get("probabilities", False)
    if not isinstance(wanted, bool):
        raise UnknownParameter("the parameter 'probabilities' must be true or false")
    if wanted and not signature.has_probabilities:
        raise UnknownParameter("this model answers no class probabilities; ask without `probabilities`")
    return wanted


# Writing


def _declared(signature: Signature) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every output tensor's datatype, and its shape after the rows."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {o.name: (DATATYPES[o.dtype], ()) for o in signature.outputs}
    if signature.has_probabilities:
        for name, output in zip(_share_names(signature), signature.outputs, strict=True):
            found[name] = ("FP64", (len(output.classes or ()),))
    return found


def _share_names(signature: Signature) -> list[str]:
    """Name the tensor of each output's shares, as no output is called."""
    taken = {output.name for output in signature.outputs}
    suffix = SUFFIX
    while any(name + suffix in taken for name in taken):
        suffix += "_"
    return [output.name + suffix for output in signature.outputs]


def _outputs(response: PredictResponse) -> Iterator[dict[str, Any]]:
    outputs = response.signature.outputs
    for index, output in enumerate(outputs):
        column = response.predictions[:, index] if len(outputs) > 1 else response.predictions
        yield _written(output.name, DATATYPES[output.dtype], column)
    for name, shares in zip(_share_names(response.signature), response.probabilities or (), strict=False):
        yield _written(name, "FP64", shares)


def _written(name: str, datatype: str, column: Column) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(column.shape), "data": column.ravel().tolist()}


def _datatype(values: Sequence[Any]) -> str:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {bool} and kinds:
        return "BOOL"
    if kinds <= {str} and kinds:
        return "BYTES"
    return "INT64" if kinds == {int} else "FP64"
