"""Reads the sample: a CSV file of the rows that a model was made for, as text and then as typed columns."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.errors import PackingError, shorten
from service.protocols.csv_body import BOOLEANS, FLOAT, INTEGER, SPACES, parse_cell
from service.signature import INT64_MAX, INT64_MIN, Dtype, Feature, parse_datetime

MISSING_WORDS = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"]
    + ["NULL", "NaN", "None", "n/a", "nan", "null"]
)
"""What `pandas.read_csv` takes as missing, and so what the model saw. Source: pandas 3.1 read_csv, read 2026-11-22."""

MAX_NAME = 256
MAX_NUMBER_CHARACTERS = 1000
SEPARATORS = {";": "semicolon", "\t": "tab", "|": "vertical bar"}
DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")


@dataclass(frozen=True)
class Sample:
    """The sample's cells as text, column by column."""

    columns: dict[str, list[str]]
    n_rows: int
    known: Mapping[str, frozenset[Any]] = field(default_factory=dict)
    """Values that the model itself knows, by column; what it knows is not missing, even if it is spelt `NA`."""
    _typed: dict[tuple[str, str], list[Any]] = field(default_factory=dict, repr=False)

    def missing_in(self, name: str) -> frozenset[str]:
        """Return the spellings of a missing value that a column holds."""
        return self._words(name).intersection(self.columns[name])

    def _words(self, name: str) -> frozenset[str]:
        return MISSING_WORDS - self.known.get(name, frozenset())

    def knowing(self, categories: Mapping[str, Sequence[Any]]) -> Sample:
        """Return the sample with the values that the model knows."""
        known = {name: frozenset(values) - {""} for name, values in categories.items()}
        return Sample(self.columns, self.n_rows, known)

    def present(self, name: str) -> list[str]:
        """Return the cells of a column that are not missing."""
        words = self._words(name)
        return [cell for cell in self.columns[name] if cell not in words]

    def values(self, feature: Feature) -> list[Any]:
        """Return a column as typed values; None where missing."""
        key = feature.name, feature.dtype
        if key not in self._typed:
            cells, words = self.columns[feature.name], self._words(feature.name)
            self._typed[key] = [None if c in words else parse_cell(feature, ("",), c) for c in cells]
        return self._typed[key]

    def whole_rows(self, names: list[str]) -> list[int]:
        """Return the numbers of the rows that miss nothing in these columns."""
        columns = [(self.columns[name], self._words(name)) for name in names]
        return [row for row in range(self.n_rows) if not any(column[row] in words for column, words in columns)]

    def rows(self, keep: list[int]) -> Sample:
        """Return the sample with only these rows."""
        columns = {name: [cells[row] for row in keep] for name, cells in self.columns.items()}
        return Sample(columns, len(keep), self.known)


def read_sample(path: Path, separator: str) -> Sample:
    """Read a CSV file with a header.

    Raises:
        PackingError: If it is missing, empty, not UTF-8, separated by something else, or ragged.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise PackingError(f"the sample {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PackingError(
            f"the sample {path} is not UTF-8 at byte {error.start}; save it in UTF-8, for example with "
            "`iconv -f latin1 -t utf-8`"
        ) from error
    rows = _parse(text, separator, path)
    if not rows or not any(rows[0]):
        raise PackingError(f"the sample {path} is empty; give the rows that the model was trained on, with a header")
    header, *body = rows
    header = [name or f"Unnamed: {index}" for index, name in enumerate(header)]  # as pandas names an index column
    _check_header(header, separator, path)
    if not body:
        raise PackingError(f"the sample {path} has a header and no row; give at least one, better a hundred")
    for line, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise PackingError(f"row {line} of the sample {path} has {len(row)} cells and the header {len(header)}")
    return Sample({name: list(cells) for name, cells in zip(header, zip(*body, strict=True), strict=True)}, len(body))


def _parse(text: str, separator: str, path: Path) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        return [row for row in reader if row]
    except csv.Error as error:
        raise PackingError(f"line {reader.line_num} of the sample {path} is not CSV: {error}") from error


def _check_header(header: list[str], separator: str, path: Path) -> None:
    if len(header) == 1:
        for other, name in SEPARATORS.items():
            if other != separator and other in header[0]:
                raise PackingError(
                    f"the sample {path} has one column called {shorten(header[0])!r}; it looks separated by {name}s: "
                    f"say --separator {other!r}"
                )
    long = [name for name in header if len(name) > MAX_NAME]
    if long:
        raise PackingError(f"the sample's column {shorten(long[0])!r} has a name of more than {MAX_NAME} characters")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise PackingError(f"the sample's header names {shorten(twice[0])!r} twice; rename one of them")


def infer_dtype(cells: list[str], *, has_missing: bool) -> Dtype:
    """Infer what `pandas.read_csv` would make of a column: bool, int64, float64, or else text.

    A whole-number column with missing values is float64, as in pandas.
    """
    if cells and all(cell.strip(SPACES).lower() in BOOLEANS for cell in cells) and not has_missing:
        return "bool"
    if cells and all(INTEGER.fullmatch(cell.strip(SPACES)) and "." not in cell for cell in cells) and not has_missing:
        return "int64" if all(_fits_int64(cell) for cell in cells) else "float64"
    if all(FLOAT.fullmatch(cell.strip(SPACES)) for cell in cells):
        return "float64"
    return "string"


def _fits_int64(cell: str) -> bool:
    return len(cell) < MAX_NUMBER_CHARACTERS and INT64_MIN <= int(cell) <= INT64_MAX


def looks_like_dates(cells: list[str]) -> bool:
    """Whether every cell is an ISO 8601 date or time, so that a model may want it as text or as a moment."""
    return bool(cells) and all(DATE.fullmatch(cell) and _is_moment(cell) for cell in cells)


def _is_moment(cell: str) -> bool:
    try:
        parse_datetime(cell)
    except ValueError:
        return False
    return True
