"""JSON straight into the types of a signature, for requests that are right; whatever is not, the exact reader words.

msgspec makes no object that the signature does not have, and is two to nine times faster than the exact reader
(`bench/decoders.py`). It keeps the last of two equal keys, so colons are counted: a key that was overwritten leaves one
too many.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import GenericAlias
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import astuple

from service.protocols.guard import count
from service.signature import INT64_MAX, INT64_MIN, TEXTS, Feature, Signature, magnitude
from service.table import Faults, Row, Table, check_column

ESCAPED_COLON = b"\\u003"
UNNAMEABLE = re.compile(r'["\\\x00-\x1f]')


class Parameters(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The switches of a request."""

    probabilities: bool | UnsetType = UNSET


class Sent(NamedTuple):
    """What a request sent: its columns, and how many keys were read on the way."""

    columns: list[Sequence[Any]]
    n_rows: int
    colons: int


class TypedJson:
    """The reader of one signature's requests."""

    def __init__(self, signature: Signature) -> None:
        self._decoder: msgspec.json.Decoder[Any] | None = None
        if any(UNNAMEABLE.search(name) for name in signature.names):
            return  # msgspec takes no such names
        cells: list[Any] = [_cell_type(feature) for feature in signature.features]
        self._signature = signature
        self._colons = sum(1 + name.count(":") for name in signature.names)
        self._optional = [index for index, feature in enumerate(signature.features) if not feature.required]
        self._row = _struct("Row", signature, cells)
        self._inputs = _struct("Inputs", signature, [GenericAlias(list, cell) for cell in cells])
        row: Any = self._row | GenericAlias(tuple, tuple(cells))
        fields = {"instances": GenericAlias(list, row), "inputs": self._inputs, "parameters": Parameters}
        optional = [(name, kind | UnsetType, UNSET) for name, kind in fields.items()]
        self._decoder = msgspec.json.Decoder(msgspec.defstruct("Document", optional, forbid_unknown_fields=True))

    def read(self, body: bytes, max_rows: int) -> tuple[Table, dict[str, bool]] | None:
        """Return a request's table and parameters; None for everything that the exact reader must look at."""
        if self._decoder is None:
            return None
        try:
            document = self._decoder.decode(body)
        except (ValueError, RecursionError):  # it is not right, or not UTF-8, or nested too deeply
            return None
        if (document.instances is UNSET) == (document.inputs is UNSET):
            return None
        sent = self._columns(document.inputs) if document.instances is UNSET else self._rows(document.instances)
        if sent is None or not 0 < sent.n_rows <= max_rows:
            return None
        parameters = {} if document.parameters is UNSET else msgspec.structs.asdict(document.parameters)
        parameters = {name: value for name, value in parameters.items() if value is not UNSET}
        colons = 1 + (document.parameters is not UNSET) + len(parameters) + sent.colons
        if not _has_colons(body, colons, self._signature, sent.columns):
            return None
        table = _table(self._signature, sent)
        return None if table is None else (table, parameters)

    def _rows(self, rows: list[Any]) -> Sent | None:
        kinds = set(map(type, rows))
        if len(kinds) != 1:
            return None
        if kinds == {tuple}:
            return Sent(list(zip(*rows, strict=True)), len(rows), 0)
        columns: list[Sequence[Any]] = list(zip(*map(astuple, rows), strict=True))
        colons = len(rows) * self._colons
        for index in self._optional:
            absent = columns[index].count(UNSET)
            if absent:
                colons -= absent * (1 + self._signature.features[index].name.count(":"))
                columns[index] = [None if cell is UNSET else cell for cell in columns[index]]
        return Sent(columns, len(rows), colons)

    def _columns(self, inputs: Any) -> Sent | None:
        columns = list(astuple(inputs))
        lengths = {len(column) for column in columns if column is not UNSET}
        if len(lengths) != 1:
            return None
        [n_rows] = lengths
        names = [f.name for f, column in zip(self._signature.features, columns, strict=True) if column is not UNSET]
        filled = [(None,) * n_rows if column is UNSET else column for column in columns]
        return Sent(filled, n_rows, sum(1 + name.count(":") for name in names))


def _cell_type(feature: Feature) -> Any:
    """Return the type of which msgspec accepts exactly what the exact reader accepts, or less."""
    bound = magnitude(feature)
    kind: Any
    if feature.closed and feature.dtype in (*TEXTS, "int64"):
        kind = Literal[feature.categories]
    elif feature.dtype in ("float64", "float32"):
        kind = float if bound is None else Annotated[float, Meta(ge=-bound, le=bound)]
    elif feature.dtype == "int64":
        whole = INT64_MAX + 1 if bound is None else int(bound)
        least, most = max(-whole, INT64_MIN), min(whole, INT64_MAX)
        kind = Annotated[int, Meta(ge=least, le=most)]
    else:
        kind = bool if feature.dtype == "bool" else str
    return kind | None if feature.takes_null else kind


def _struct(name: str, signature: Signature, types: Sequence[Any]) -> type[msgspec.Struct]:
    fields = [
        (f"f{index}", kind, msgspec.field(name=feature.name))
        if feature.required
        else (f"f{index}", kind | UnsetType, msgspec.field(name=feature.name, default=UNSET))
        for index, (feature, kind) in enumerate(zip(signature.features, types, strict=True))
    ]
    return msgspec.defstruct(name, fields, forbid_unknown_fields=True, gc=False, kw_only=True)


def _has_colons(body: bytes, colons: int, signature: Signature, columns: Sequence[Sequence[Any]]) -> bool:
    """Whether a body has just the colons of the keys that were read, and those in its texts."""
    found = count(body, ord(":"))
    if found != colons:
        for feature, column in zip(signature.features, columns, strict=True):
            if feature.dtype in ("datetime", *TEXTS):
                colons += "".join(filter(None, column)).count(":")
    return found == colons and ESCAPED_COLON not in body


def _table(signature: Signature, sent: Sent) -> Table | None:
    row = signature.once(_row_dtypes) if sent.n_rows == 1 else None
    if row is not None:
        return Table(Row({name: cell for name, (cell,) in zip(row, sent.columns, strict=True)}, row), 1)
    faults, columns = Faults(), {}
    for (name, dtype, feature), cells in zip(signature.once(_dtypes), sent.columns, strict=True):
        columns[name] = check_column(feature, cells, faults) if dtype is None else np.array(cells, dtype)
    return None if faults.total else Table(columns, sent.n_rows)


def _dtypes(signature: Signature) -> list[tuple[str, np.dtype[Any] | None, Feature]]:
    """Return name and feature of every column, between them the dtype of those whose cells are sure to be right."""
    return [(feature.name, _dtype(feature), feature) for feature in signature.features]


def _row_dtypes(signature: Signature) -> dict[str, np.dtype[Any]] | None:
    """Return the dtypes of a row whose cells are sure to be right as they are; None if some must be looked at."""
    dtypes = {name: dtype for name, dtype, _ in signature.once(_dtypes) if dtype is not None and dtype != np.float32}
    return dtypes if len(dtypes) == len(signature.features) else None


def _dtype(feature: Feature) -> np.dtype[Any] | None:
    if feature.dtype in ("float64", "float32"):
        return None if feature.closed else np.dtype(feature.dtype)  # null becomes NaN
    if feature.dtype in ("datetime", "datetime-string"):
        return None
    return np.dtype(object if feature.takes_null or feature.dtype == "string" else feature.dtype)
