"""Checked values in columns: what stands between every wire format and every runtime.

A `Table` holds only values that fit its signature. The functions that build one report every fault at once, by row and
feature, and know nothing of JSON, CSV or models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.errors import MAX_FAULTS, EmptyInstances, Fault, TooManyRows, faults_error, shorten
from service.signature import INT64_MAX, INT64_MIN, Feature, Signature, magnitude, parse_datetime

Column = npt.NDArray[Any]

NUMPY_DTYPES = {
    "float64": "float64",
    "float32": "float32",
    "int64": "int64",
    "bool": "bool",
    "string": "object",
    "datetime": "datetime64[us]",
    "datetime-string": "object",
}
_WANTED = {
    "float64": "a number",
    "float32": "a number",
    "int64": "a whole number",
    "bool": "true or false",
    "string": "text",
    "datetime": "an ISO 8601 date or time as text",
    "datetime-string": "an ISO 8601 date or time as text",
}
LARGEST_FLOAT64 = 1.797e308
_MISSING = object()


class Table(NamedTuple):
    """Checked columns of equal length, in signature order.

    Null is NaN in a float column, NaT in a datetime column and None in a column of objects.
    """

    columns: Mapping[str, Column]
    n_rows: int

    def cells(self, name: str) -> list[Any]:
        """Return a column as Python values, with None for what is missing."""
        if isinstance(self.columns, Row):
            return [self.columns.cells[name]]
        column = self.columns[name]
        cells: list[Any] = column.tolist()
        return [None if cell != cell else cell for cell in cells] if column.dtype.kind == "f" else cells

    def numbers(self, names: Sequence[str]) -> Column:
        """Return columns of numbers side by side in double precision, with NaN for what is missing."""
        if isinstance(self.columns, Row):
            cells = self.columns.cells
            return np.array([[cells[name] for name in names]], dtype=np.float64)
        matrix = np.empty((self.n_rows, len(names)))
        for index, name in enumerate(names):
            matrix[:, index] = self.columns[name]  # None becomes NaN
        return matrix

    def rows(self, start: int, stop: int) -> Table:
        """Return a view of some rows."""
        stop = min(stop, self.n_rows)
        return Table({name: column[start:stop] for name, column in self.columns.items()}, stop - start)


class Row(Mapping[str, Column]):
    """The columns of a single row, made when they are asked for: most models take the cells as they are.

    Args:
        cells: The checked values, in signature order.
        dtypes: What the columns are made of; none is a narrower float than the cells.
    """

    __slots__ = ("_dtypes", "cells")

    def __init__(self, cells: dict[str, Any], dtypes: Mapping[str, np.dtype[Any]]) -> None:
        self.cells, self._dtypes = cells, dtypes

    def __getitem__(self, name: str) -> Column:
        return np.array([self.cells[name]], self._dtypes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)


class PredictRequest(NamedTuple):
    """What a codec makes of a request: rows to predict, and whether class probabilities are wanted."""

    table: Table
    probabilities: bool = False
    wishes: Any = None
    """What the codec wants to have back when it writes the answer."""


class PredictResponse(NamedTuple):
    """What the predictor answers; a codec makes bytes of it.

    `predictions` has shape (n_rows,), or (n_rows, n_outputs) for a multi-output model. `probabilities` has one array of
    shape (n_rows, n_classes) for each output, or is None where they were not asked for.
    """

    model: str
    version: str
    signature: Signature
    predictions: Column
    probabilities: tuple[Column, ...] | None = None
    wishes: Any = None
    """What the codec made of the request for its answer."""


class Faults:
    """Collects faults: the first `MAX_FAULTS` of them whole, of the others their number."""

    def __init__(self) -> None:
        self.listed: list[Fault] = []
        self.total = 0

    @property
    def full(self) -> bool:
        """Whether further faults are only counted."""
        return len(self.listed) >= MAX_FAULTS

    def add(self, code: str, detail: str, row: int | None = None, feature: str | None = None) -> None:
        """Take note of one fault."""
        self.total += 1
        if not self.full:
            self.listed.append(Fault(code, detail, row, None if feature is None else shorten(feature)))

    def raise_if_any(self) -> None:
        """Raise the faults as one error, in order of their rows."""
        if self.total:
            ordered = sorted(self.listed, key=lambda fault: -1 if fault.row is None else fault.row)
            raise faults_error(ordered, self.total)


def most_rows(signature: Signature, max_rows: int, max_cells: int) -> int:
    """Return how many rows of a model one request may have: of one with many features fewer."""
    return min(max_rows, max(1, max_cells // len(signature.features)))


def check_size(n_rows: int, max_rows: int) -> None:
    """Refuse a request with no row, or with more rows than one request may have."""
    if n_rows == 0:
        raise EmptyInstances("0 rows were sent; send at least 1")
    if n_rows > max_rows:
        raise TooManyRows(f"{n_rows} rows were sent and one request may have {max_rows}; split it")


def table_from_rows(signature: Signature, rows: Sequence[Any]) -> Table:
    """Build a table of rows, each an object by feature name or a list in signature order.

    A model with one feature also takes bare values.

    Raises:
        InvalidInstances: If any value does not fit; it lists the faults by row and feature.
    """
    faults = Faults()
    cells = [_row_cells(signature, index, row, faults) for index, row in enumerate(rows)]
    columns = zip(*cells, strict=True)
    return _checked(signature, list(columns), len(cells), faults)


def table_from_columns(signature: Signature, columns: Mapping[str, Any]) -> Table:
    """Build a table of columns, each a list of values under its feature's name.

    Raises:
        InvalidInstances: If any value does not fit, or the columns differ in length.
    """
    faults = Faults()
    lengths = {name: len(values) for name, values in columns.items() if isinstance(values, list | tuple)}
    n_rows = max((lengths[name] for name in lengths), default=0)
    _check_names(signature, columns.keys(), faults)
    cells: list[Sequence[Any]] = []
    for feature in signature.features:
        values = columns.get(feature.name, [_MISSING if feature.required else None] * n_rows)
        if not isinstance(values, list | tuple):
            faults.add("invalid-instance", "expected a list of values, one a row", feature=feature.name)
        elif len(values) != n_rows:
            faults.add(
                "invalid-instance", f"has {len(values)} values and another column {n_rows}", feature=feature.name
            )
        else:
            cells.append(values)
            continue
        cells.append([_MISSING] * n_rows)
    return _checked(signature, cells, n_rows, faults)


def _row_cells(signature: Signature, index: int, row: Any, faults: Faults) -> Sequence[Any]:
    features = signature.features
    if isinstance(row, dict):
        _check_names(signature, row.keys(), faults, index)
        return [row.get(f.name, _MISSING if f.required else None) for f in features]
    if isinstance(row, list):
        if len(row) == len(features):
            return row
        faults.add("invalid-instance", f"expected {len(features)} values in signature order, found {len(row)}", index)
    elif len(features) == 1:
        return [row]
    else:
        faults.add("invalid-instance", f"expected an object or a list, found {describe(row)}", index)
    return [_MISSING] * len(features)


def _check_names(signature: Signature, found: Iterable[str], faults: Faults, row: int | None = None) -> None:
    names, known = set(found), set(signature.names)
    if names == known:
        return
    missing = [f.name for f in signature.features if f.required and f.name not in names]
    if faults.full:
        faults.total += len(missing) + len(names - known)
        return
    for name in missing:
        faults.add("missing-feature", f"{shorten(name)!r} is missing", row, name)
    for name in sorted(names - known):
        faults.add("unknown-feature", f"{shorten(name)!r} is not a feature of this model", row, name)


def _checked(signature: Signature, cells: Sequence[Sequence[Any]], n_rows: int, faults: Faults) -> Table:
    columns = {
        feature.name: check_column(feature, values, faults)
        for feature, values in zip(signature.features, cells, strict=True)
    }
    faults.raise_if_any()
    return Table(columns, n_rows)


def check_column(feature: Feature, values: Sequence[Any], faults: Faults) -> Column:
    """Check one column of Python values and return it as an array of shape (n_rows,).

    The array is only meaningful if no fault was added.
    """
    column = _column_at_once(feature, values)
    return _column_by_cell(feature, values, faults) if column is None else column


def _column_at_once(feature: Feature, values: Sequence[Any]) -> Column | None:
    """Convert a column that needs no look at single cells; None means that some cell may be at fault."""
    kinds = set(map(type, values))
    if feature.takes_null:
        kinds.discard(type(None))
    if feature.dtype in ("float64", "float32") and kinds <= {float, int} and not feature.closed:
        try:
            column: Column = np.array(values, dtype="float64")  # None becomes NaN
        except OverflowError:
            return None
        bound = magnitude(feature)
        fits = np.isfinite(column) if bound is None else np.abs(column) <= bound
        return column.astype(feature.dtype) if fits.sum() + values.count(None) == len(values) else None
    if feature.dtype == "string" and kinds <= {str} and not feature.closed:
        try:
            "".join(filter(None, values)).encode()
        except UnicodeEncodeError:
            return None
        column = np.empty(len(values), dtype=object)
        column[:] = values
        return column
    return None


def _column_by_cell(feature: Feature, values: Sequence[Any], faults: Faults) -> Column:
    checked = []
    known = frozenset(feature.categories or ()) if feature.closed else None
    for row, value in enumerate(values):
        if value is _MISSING:
            checked.append(_filler(feature))
            continue
        fault, cell = _check_cell(feature, value, known)
        if fault is not None:
            if faults.full:
                faults.total += 1  # a body of nothing but faults must not cost a sentence each
            else:
                faults.add(fault, cell(feature, value), row, feature.name)
            cell = _filler(feature)
        checked.append(cell)
    column = np.empty(len(checked), dtype=NUMPY_DTYPES[feature.dtype])
    if feature.takes_null and feature.dtype in ("int64", "bool"):
        column = column.astype(object)
    column[:] = checked
    return column


def _filler(feature: Feature) -> Any:
    """A value that keeps a faulty column's shape; the column itself is never used."""
    return {"string": "", "datetime-string": "", "datetime": None, "bool": False}.get(feature.dtype, 0)


Saying = Callable[[Feature, Any], str]
"""Says what is wrong with a value; asked only for the faults that are listed."""


def _check_cell(feature: Feature, value: Any, known: frozenset[Any] | None) -> tuple[str | None, Any]:
    """Check one value, against the known ones of a closed feature too.

    Returns:
        (None, the value as the column holds it), or (the fault's code, a `Saying`).
    """
    if value is None:
        if feature.takes_null:
            return None, math.nan if feature.dtype in ("float64", "float32") else None
        return "invalid-instance", _say_null
    fault, cell = _CHECKS[feature.dtype](feature, value)
    if fault is None and known is not None and cell not in known:
        return "invalid-instance", _say_unknown
    return fault, cell


def _say_null(feature: Feature, value: Any) -> str:
    return f"{shorten(feature.name)!r} is null and the model takes no missing value here"


def _say_unknown(feature: Feature, value: Any) -> str:
    some = shorten(", ".join(map(str, (feature.categories or ())[:MAX_FAULTS])), 120)
    return f"{describe(value)} is not a known value; known are {some}"


def _say_type(feature: Feature, value: Any) -> str:
    return f"expected {_WANTED[feature.dtype]}, found {describe(value)}"


def _say_large(feature: Feature, value: Any) -> str:
    return f"{describe(value)} is too large; the model computes up to {magnitude(feature) or LARGEST_FLOAT64:.3g}"


def _say_beyond_64_bits(feature: Feature, value: Any) -> str:
    return "the number is too large for a 64-bit integer"


def _say_large_integer(feature: Feature, value: Any) -> str:
    return f"{describe(value)} does not fit into the integers that the model computes in"


def _say_surrogate(feature: Feature, value: Any) -> str:
    return "the text holds half a surrogate pair, which is no character"


def describe(value: Any) -> str:
    """Name a value's JSON type, and the value itself where it is short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {shorten(value, 40)!r}"
    if isinstance(value, float) and math.isinf(value):
        return "a very large number"
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**40):
        return f"the number {value}"
    names: dict[type, str] = {type(None): "null", list: "a list", dict: "an object", int: "a very large number"}
    return names.get(type(value), "another type")


def _check_float(feature: Feature, value: Any) -> tuple[str | None, Any]:
    if type(value) not in (int, float):
        return "invalid-instance", _say_type
    bound = magnitude(feature)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or (bound is not None and abs(number) > bound):
        return "number-out-of-range", _say_large
    return None, number


def _check_int(feature: Feature, value: Any) -> tuple[str | None, Any]:
    whole = int(value) if type(value) is float and value.is_integer() else value
    if type(whole) is float and math.isinf(whole):
        return "number-out-of-range", _say_beyond_64_bits
    if type(whole) is not int:
        return "invalid-instance", _say_type
    bound = magnitude(feature)
    if not INT64_MIN <= whole <= INT64_MAX or (bound is not None and abs(whole) > bound):
        return "number-out-of-range", _say_large_integer
    return None, whole


def _check_bool(feature: Feature, value: Any) -> tuple[str | None, Any]:
    return (None, value) if type(value) is bool else ("invalid-instance", _say_type)


def _check_string(feature: Feature, value: Any) -> tuple[str | None, Any]:
    if type(value) is not str:
        return "invalid-instance", _say_type
    try:
        value.encode()
    except UnicodeEncodeError:
        return "invalid-instance", _say_surrogate
    return None, value


def _check_datetime(feature: Feature, value: Any) -> tuple[str | None, Any]:
    if type(value) is not str:
        return "invalid-instance", _say_type
    try:
        return None, parse_datetime(value)
    except ValueError:
        return "invalid-instance", _say_type


def _check_datetime_string(feature: Feature, value: Any) -> tuple[str | None, Any]:
    fault, found = _check_datetime(feature, value)
    return (None, value) if fault is None else (fault, found)


_CHECKS: dict[str, Callable[[Feature, Any], tuple[str | None, Any]]] = {
    "float64": _check_float,
    "float32": _check_float,
    "int64": _check_int,
    "bool": _check_bool,
    "string": _check_string,
    "datetime": _check_datetime,
    "datetime-string": _check_datetime_string,
}
