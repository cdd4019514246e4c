"""What the JSON bodies of every protocol are made of: a document with known fields, rows, columns, and switches."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from service.errors import (
    InvalidDocument,
    InvalidInstances,
    MissingField,
    UnknownField,
    UnknownParameter,
    shorten,
)
from service.protocols.guard import check_json
from service.protocols.json_body import read_json
from service.signature import Signature
from service.table import Table, check_size, table_from_columns, table_from_rows

SWITCHES = {"true": True, "false": False}


def read_counted(body: bytes, signature: Signature, max_rows: int, *, nan: bool = False) -> Any:
    """Parse a JSON body, once it is sure to hold no more values than the largest request.

    Args:
        body: The body.
        signature: The signature of the model that is asked.
        max_rows: How many rows one request may have.
        nan: Whether NaN, which is not JSON, is null.
    """
    if len(body) > max_rows:  # fewer bytes hold fewer values
        check_json(body, signature, max_rows)
    return read_json(body, nan=nan)


def check_object(document: Any, known: Collection[str], example: str) -> dict[str, Any]:
    """Return a document that is an object with none but known fields.

    Raises:
        InvalidDocument, UnknownField: If it is another.
    """
    if not isinstance(document, dict):
        raise InvalidDocument(f"the document must be an object such as {example}")
    unknown = sorted(document.keys() - set(known))
    if unknown:
        raise UnknownField(f"the field {shorten(unknown[0])!r} is not known; known are {', '.join(sorted(known))}")
    return document


def only_one(document: Mapping[str, Any], ways: Collection[str], example: str) -> str:
    """Return the one field of several that a document has.

    Raises:
        MissingField, InvalidDocument: If it has none, or more than one.
    """
    given = [field for field in ways if field in document]
    if not given:
        raise MissingField(f"send {example}")
    if len(given) > 1:
        named = " and ".join(f"`{field}`" for field in given[:2])
        raise InvalidDocument(f"{named} are two ways to send the same thing; send one of them")
    return given[0]


def rows_table(field: str, rows: Any, signature: Signature, max_rows: int) -> Table:
    """Build a table of a field's rows, each an object by feature name or a list in signature order."""
    if not isinstance(rows, list):
        raise InvalidInstances(f"`{field}` must be a list with one item a row")
    check_size(len(rows), max_rows)
    return table_from_rows(signature, rows)


def columns_table(field: str, columns: Any, signature: Signature, max_rows: int) -> Table:
    """Build a table of a field's columns, each a list of values under its feature's name."""
    if not isinstance(columns, dict):
        raise InvalidInstances(f"`{field}` must be an object with one list of values for each feature")
    lengths = [len(values) for values in columns.values() if isinstance(values, list)]
    if lengths or not columns:
        check_size(max(lengths, default=0), max_rows)
    return table_from_columns(signature, columns)


def split_table(field: str, names: Any, rows: Any, signature: Signature, max_rows: int) -> Table:
    """Build a table of column names and of rows, which are lists in the names' order.

    Args:
        field: What the client calls them, for errors.
        names: The columns' names; None for the features in signature order.
        rows: One list a row.
        signature: The signature of the model that is asked.
        max_rows: How many rows one request may have.
    """
    if not isinstance(rows, list):
        raise InvalidInstances(f"{field} must have a list with one list a row")
    check_size(len(rows), max_rows)
    if names is None:
        return table_from_rows(signature, rows)
    if isinstance(names, list) and names == list(range(len(names))):  # a frame without names numbers its columns
        names = list(signature.names) if len(names) == len(signature.names) else list(map(str, names))
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InvalidDocument(f"{field} must have a list of the columns' names")
    if len(set(names)) != len(names):
        raise InvalidDocument(f"a column stands twice in {field}; send it once")
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            found = f"has {len(row)} values" if isinstance(row, list) else "is no list"
            raise InvalidInstances(f"row {index} of {field} {found}, and there are {len(names)} columns")
    return table_from_columns(signature, dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def as_split(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Return rows, objects with the same keys, as the names of their columns and a list of values each."""
    names = list(rows[0])
    return names, [[row[name] for name in names] for row in rows]


def switches(parameters: Any, field: str = "parameters") -> dict[str, bool]:
    """Read the switches of a body: an object of which `probabilities` is the only one, or null."""
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidDocument(f"`{field}` must be an object")
    for name, value in parameters.items():
        _check_known(name)
        if not isinstance(value, bool):
            raise UnknownParameter(f"the parameter {name!r} must be true or false")
    return parameters


def wants_probabilities(query: Mapping[str, str], said: Mapping[str, bool], signature: Signature) -> bool:
    """Whether class probabilities are wanted, by the query or by the body.

    Raises:
        UnknownParameter: If there is another parameter, query and body disagree, or the model has none.
    """
    wanted = {name: _switch(name, value) for name, value in query.items()}
    for name, value in said.items():
        if wanted.setdefault(name, value) != value:
            raise UnknownParameter(f"the query says {name!r} and the body says otherwise; say it once")
    probabilities = wanted.get("probabilities", False)
    if probabilities and not signature.has_probabilities:
        raise UnknownParameter("this model answers no class probabilities; ask without `probabilities`")
    return probabilities


def _switch(name: str, value: str) -> bool:
    _check_known(name)
    if value not in SWITCHES:
        raise UnknownParameter(f"the parameter {name!r} must be true or false")
    return SWITCHES[value]


def _check_known(name: str) -> None:
    if name != "probabilities":
        raise UnknownParameter(f"the parameter {shorten(name)!r} is not known; known is `probabilities`")
