"""CSV straight into columns, for bodies that are right; whatever is not, the exact reader words.

Where no cell is in quotes, commas and line ends are all that parts the cells. Such a body is split a block at a time,
and every column of a block is converted at once: six times faster than the exact reader (`bench/decoders.py`).
"""

from __future__ import annotations

import math
import re
import sys
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from service.protocols.csv_body import BOOLEANS, parse_cell
from service.signature import Feature, Signature, magnitude
from service.table import NUMPY_DTYPES, Column, Faults, Table, check_column

BLOCK_BYTES = 2**16
"""The cells of so much text stay in the processor's cache, and are many enough for a column to be worth a call."""
NEEDLESS_QUOTES = re.compile(rb'(?<![^,\r\n])"([^",\r\n]*)"(?![^,\r\n])')
"""A cell in quotes that would be the same cell without them."""
# All bytes but those that part cells.
NO_MARKS = bytes(set(range(256)) - set(b",\n"))
WHOLE = b"0123456789+- \t"
DECIMAL = WHOLE + b".eE"
"""Of text in these signs alone, `int` and `float` read no more than what the exact reader takes."""
# Any other case is read one by one.
SPELLINGS = {spelt: value for word, value in BOOLEANS.items() for spelt in (word, word.title(), word.upper())}


class TypedCsv:
    """The reader of one signature's CSV bodies."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._columns = {feature.name: TypedColumn(feature, signature.missing) for feature in signature.features}
        self._required = {feature.name for feature in signature.features if feature.required}

    def read(self, body: bytes, max_rows: int) -> Table | None:
        """Return the table of a body; None for everything that the exact reader must look at."""
        start = len(BOM_UTF8) * body.startswith(BOM_UTF8)
        end = (body.find(b"\n", start) + 1) or len(body)
        width = 1 + body.count(b",", start, end)
        header = _plain(body[start:end], width) if width <= len(self._columns) else None
        try:
            names = [] if header is None else header[:-1].decode().split(",")
            return self._table(names, body, end, max_rows) if self._takes(names) else None
        except UnicodeDecodeError:
            return None

    def _takes(self, names: Sequence[str]) -> bool:
        known = set(names)
        return 0 < len(known) == len(names) and self._required <= known <= self._columns.keys()

    def _table(self, names: Sequence[str], body: bytes, start: int, max_rows: int) -> Table | None:
        n_rows, width = body.count(b"\n", start) + (not body.endswith(b"\n")), len(names)
        if not 0 < n_rows <= min(max_rows, len(body) - start):
            return None
        faults, first = Faults(), 0
        columns = {name: np.empty(n_rows, typed.dtype) for name, typed in self._columns.items()}
        for rows in (_plain(lines, width) for lines in _blocks(body, start)):
            if rows is None:
                return None
            cells = rows[:-1].decode().replace("\n", ",").split(",")
            end = first + len(cells) // width
            for index, name in enumerate(names):
                self._columns[name].fill(columns[name][first:end], cells[index::width], faults)
            if faults.total:
                return None
            first = end
        for name in columns.keys() - set(names):
            self._columns[name].fill(columns[name], [""] * n_rows, faults)
        return Table(columns, n_rows)


class TypedColumn:
    """The reader of one feature's cells."""

    def __init__(self, feature: Feature, missing: tuple[str, ...]) -> None:
        categories = feature.categories or ()
        self._feature, self._missing = feature, missing
        self._known = frozenset(categories) if feature.closed else None
        self._words = {"", *(set(missing) - set(categories))} if feature.takes_null else set()
        as_objects = feature.takes_null and feature.dtype in ("int64", "bool")
        self.dtype = np.dtype("object" if as_objects else NUMPY_DTYPES[feature.dtype])
        bound = magnitude(feature)
        self._bound = sys.float_info.max if bound is None else bound
        self._convert = CONVERSIONS.get(feature.dtype)

    def fill(self, column: Column, cells: list[str], faults: Faults) -> None:
        """Write cells into a column: converted at once where that is sure to be right, else one by one."""
        if not self._fill_at_once(column, cells):
            values = [parse_cell(self._feature, self._missing, cell) for cell in cells]
            column[:] = check_column(self._feature, values, faults)

    def _fill_at_once(self, column: Column, cells: list[str]) -> bool:
        if self._convert is None:
            return False
        present = [cell for cell in cells if cell not in self._words] if self._words else cells
        try:
            values = self._convert(present)
        except (KeyError, OverflowError, ValueError):
            return False
        if not self._allows(values):
            return False
        if len(present) == len(cells):
            column[:] = values
        else:
            column[:] = math.nan if self.dtype.kind == "f" else None
            column[[cell not in self._words for cell in cells]] = values
        return True

    def _allows(self, values: Column | list[str]) -> bool:
        if self._known is not None and not self._known.issuperset(values):
            return False
        if isinstance(values, list) or values.dtype.kind == "b" or not len(values):
            return True
        least, most = values.min().item(), values.max().item()  # Python compares whole numbers with floats exactly
        return bool(-self._bound <= least and most <= self._bound)


def _floats(cells: list[str]) -> Column:
    _check_signs(cells, DECIMAL)
    return np.fromiter(map(float, cells), np.float64, len(cells))


def _whole_numbers(cells: list[str]) -> Column:
    _check_signs(cells, WHOLE)
    return np.fromiter(map(int, cells), np.int64, len(cells))


def _booleans(cells: list[str]) -> Column:
    return np.fromiter(map(SPELLINGS.__getitem__, cells), np.bool_, len(cells))


def _texts(cells: list[str]) -> list[str]:
    if "" in cells:
        raise ValueError("an empty cell is no text")
    return cells


CONVERSIONS: dict[str, Callable[[list[str]], Column | list[str]]] = {
    "float64": _floats,
    "float32": _floats,
    "int64": _whole_numbers,
    "bool": _booleans,
    "string": _texts,
}
"""How the cells of a column become an array; an error means that some cell is rare, or at fault."""


def _check_signs(cells: list[str], signs: bytes) -> None:
    if "".join(cells).encode().translate(None, signs):
        raise ValueError("a sign that stands in no number")


def _plain(lines: bytes, width: int) -> bytes | None:
    """Return lines of which commas and line ends alone part the cells, without needless quotes.

    Returns:
        None where a line has not `width` cells, or more than that parts them.
    """
    if not lines.endswith(b"\n"):
        lines += b"\n"  # before the quotes go, which may be all that the last line has
    # Quotes go from so many cells only as there may be: each costs twenty times its bytes.
    if lines.translate(None, NO_MARKS) != (b"," * (width - 1) + b"\n") * lines.count(b"\n"):
        return None
    if b'"' in lines:
        lines = NEEDLESS_QUOTES.sub(rb"\1", lines)
    if b"\r" in lines:
        lines = lines.replace(b"\r\n", b"\n")
    empty = width == 1 and (lines.startswith(b"\n") or b"\n\n" in lines)
    return None if empty or b'"' in lines or b"\r" in lines else lines


def _blocks(body: bytes, start: int) -> Iterator[bytes]:
    """Cut the lines from `start` on into blocks, so that what is made of the text on the way stays small."""
    while start < len(body):
        # One line may be longer than a block.
        end = (body.rfind(b"\n", start, start + BLOCK_BYTES) + 1) or (body.find(b"\n", start) + 1) or len(body)
        yield body[start:end]
        start = end
