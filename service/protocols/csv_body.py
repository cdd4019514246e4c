"""Strict CSV, both ways: the signature's header, one width, decimal numbers in ASCII, commas, UTF-8.

Nothing is guessed: no header, no separator, no index column. A byte order mark, which spreadsheets write, is skipped.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from service.errors import InvalidCsv, MissingFeature, TooManyRows, UnknownFeature, shorten
from service.protocols.guard import check_csv
from service.protocols.numerals import tokens
from service.signature import Feature, Signature
from service.table import Column, PredictResponse, Table, check_size, table_from_columns

FLOAT = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"[+-]?\d+(?:\.0*)?", re.ASCII)
BOOLEANS = {"true": True, "false": False}
SPACES = " \t"
MAX_LISTED = 10
csv.field_size_limit(2**31 - 1)  # a long text is a text; the body itself is bounded
MAX_INTEGER_DIGITS = 40
"""More digits are beyond 64 bits anyway, and reading them takes time that grows with the square of their number."""
UNPLAIN = re.compile('[,"\n]')
"""What the csv module quotes a text for, but for carriage returns, which are left to it."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def read_csv(body: bytes, signature: Signature, max_rows: int) -> Table:
    """Parse a CSV body with a header into a checked table.

    Raises:
        InvalidCsv: If it is not UTF-8, has no header, or a row has another width than the header.
        InvalidInstances: If a value does not fit its feature.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise InvalidCsv(f"byte {error.start} is not UTF-8; send the body in UTF-8") from error
    check_csv(body, signature, max_rows)
    # A line at a time: the whole text could take four times the body.
    header, rows = open_csv(io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", newline=""), signature)
    cells = list(islice(rows, max_rows + 1))
    if len(cells) > max_rows:
        raise TooManyRows(f"more than {max_rows} rows were sent; split the request")
    check_size(len(cells), max_rows)
    return csv_table(signature, header, cells)


def open_csv(
    lines: Iterable[str], signature: Signature, drop: tuple[str, ...] = ()
) -> tuple[list[str], Iterator[list[str]]]:
    """Read the header, check it, and return it with the rows that follow, each of the header's width.

    The columns named in `drop` are passed over.

    Raises:
        InvalidCsv, MissingFeature, UnknownFeature: If the header does not name the signature's features.
    """
    reader = csv.reader(lines, strict=True)
    rows = _rows(reader)
    header = next(rows, [])
    keep = [index for index, name in enumerate(header) if name not in drop]
    whole = _of_width(rows, len(header))
    header = [header[index] for index in keep]
    _check_header(header, signature)
    return header, ([row[index] for index in keep] for row in whole) if drop else whole


def csv_table(signature: Signature, header: list[str], rows: list[list[str]]) -> Table:
    """Build a checked table of CSV rows."""
    features = {feature.name: feature for feature in signature.features}
    columns = zip(*rows, strict=True)
    return table_from_columns(
        signature,
        {
            name: [parse_cell(features[name], signature.missing, cell) for cell in column]
            for name, column in zip(header, columns, strict=True)
        },
    )


def parse_cell(feature: Feature, missing: tuple[str, ...], cell: str) -> Any:
    """Read one cell as the value that it spells; text that is no such value stays text, for the check to refuse."""
    if cell == "" or (feature.takes_null and cell in missing and cell not in (feature.categories or ())):
        return None
    plain = cell.strip(SPACES)
    if feature.dtype in ("float64", "float32"):
        return float(plain) if FLOAT.fullmatch(plain) else cell
    if feature.dtype == "int64":
        return _whole_number(plain) if INTEGER.fullmatch(plain) else cell
    if feature.dtype == "bool":
        return BOOLEANS.get(plain.lower(), cell)
    return cell


def _whole_number(text: str) -> int | float:
    digits = text.partition(".")[0].lstrip("+-").lstrip("0")
    if len(digits) > MAX_INTEGER_DIGITS:
        return float(text)
    return -int(digits or 0) if text.startswith("-") else int(digits or 0)


def write_csv(response: PredictResponse, *, header: bool = True) -> bytes:
    """Encode predictions as CSV: one column an output, then one a class where there are probabilities."""
    names = _names(response)
    plain = _plain_rows(response, names)
    if plain is None:
        return _write_cells([names] * header + _rows_of_cells(response))
    return b"\n".join([*[",".join(map(_spell, names)).encode()] * header, *plain, b""])


def _names(response: PredictResponse) -> list[str]:
    names = [output.name for output in response.signature.outputs]
    return names if response.probabilities is None else names + probability_names(response)


def _plain_rows(response: PredictResponse, names: list[str]) -> Iterable[bytes] | None:
    """Return the rows of an answer whose numbers and texts need no csv module; None for others."""
    if "" in names or "\r" in "".join(names):
        return None
    columns = [_labels(response.predictions) or tokens(response.predictions)]
    columns += map(tokens, response.probabilities or ())
    if None in columns:
        return None
    return map(b",".join, zip(*columns, strict=True)) if len(columns) > 1 else columns[0]


def _labels(predictions: Column) -> list[bytes] | None:
    """Return text predictions as cells, each different text spelt once."""
    if predictions.dtype.kind not in "OU" or predictions.ndim > 1:
        return None
    labels = predictions.tolist()
    if {*map(type, labels)} != {str}:
        return None
    spelt = {label: _spell(label).encode() for label in set(labels)}
    return None if "" in spelt or "\r" in "".join(spelt) else [spelt[label] for label in labels]


def _spell(text: str) -> str:
    text = _safe(text)
    return '"' + text.replace('"', '""') + '"' if UNPLAIN.search(text) else text


def _rows_of_cells(response: PredictResponse) -> list[list[Any]]:
    rows: list[list[Any]] = response.predictions.reshape(len(response.predictions), -1).tolist()
    if response.probabilities is None:
        return rows
    shares = zip(*(output.tolist() for output in response.probabilities), strict=True)
    return [row + [share for output in outputs for share in output] for row, outputs in zip(rows, shares, strict=True)]


def _write_cells(rows: list[list[Any]]) -> bytes:
    lines = [[_safe(cell) for cell in row] for row in rows]
    # The csv module would not quote a lone carriage return, and every reader would take it for the end of a row.
    returns = any(isinstance(cell, str) and "\r" in cell for line in lines for cell in line)
    target = io.StringIO(newline="")
    writer = csv.writer(target, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL)
    writer.writerows(lines)
    return target.getvalue().encode()


def probability_names(response: PredictResponse) -> list[str]:
    """Name a column for every class of every output."""
    outputs = response.signature.outputs
    several = len(outputs) > 1
    return [
        f"probability_{output.name}_{label}" if several else f"probability_{label}"
        for output in outputs
        for label in output.classes or ()
    ]


def _safe(cell: Any) -> Any:
    """Quote text that a spreadsheet would run as a formula."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell


def _rows(reader: Any) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise InvalidCsv(f"line {reader.line_num} is not CSV: {error}") from error


def _check_header(header: list[str], signature: Signature) -> None:
    if not any(header):
        raise InvalidCsv(f"there is no header; the first line must name the columns: {_wanted(signature)}")
    if len(set(header)) != len(header):
        raise InvalidCsv(f"a column stands twice in the header; the columns are {_wanted(signature)}")
    known = set(signature.names)
    unknown = [name for name in header if name not in known]
    if unknown:
        first, *others = (repr(shorten(name)) for name in unknown[:MAX_LISTED])
        nor = f", nor {shorten(', '.join(others), 200)}" if others else ""
        raise UnknownFeature(f"{first} is no column of this model{nor}; they are {_wanted(signature)}")
    missing = [feature.name for feature in signature.features if feature.required and feature.name not in header]
    if missing:
        raise MissingFeature(f"the column {shorten(missing[0])!r} is missing; the columns are {_wanted(signature)}")


def _wanted(signature: Signature) -> str:
    return shorten(",".join(signature.names), 300)


def _of_width(rows: Iterator[list[str]], width: int) -> Iterator[list[str]]:
    for index, row in enumerate(rows):
        if len(row) != width:
            advice = "quote cells that hold commas" if row else "it is an empty line; remove it"
            raise InvalidCsv(f"row {index} has {len(row)} cells and there are {width} columns; {advice}")
        yield row
