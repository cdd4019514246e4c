"""Counts what a body holds before anything decodes it, so that no body makes more objects than the largest request."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from itertools import chain

import numpy as np

from service.errors import TooManyRows
from service.signature import Signature

SMALL_BYTES = 2**16
SLACK = 2
"""More than twice the largest request's values are refused here; of less, the decoder says better what is wrong."""
SPARE = 100
"""Brackets and commas of a document around its rows."""
QUOTED_CELL = re.compile(rb'(?<![^,\r\n])"[^"]*+(?:""[^"]*+)*+(?:"|\Z)')
"""A quote opens a text only where a cell begins; elsewhere the csv module takes it for a sign like others."""


def check_json(body: bytes, signature: Signature, max_rows: int, most_lists: int | None = None) -> None:
    """Refuse a JSON body with far more values, or far more lists and objects, than `max_rows` rows have.

    Args:
        body: The body.
        signature: The signature of the model that is asked.
        max_rows: How many rows one request may have.
        most_lists: How many lists and objects these are; by default one a row or one a feature.

    Raises:
        TooManyRows: If it has.
    """
    n_features = len(signature.features)
    most_lists = max_rows + n_features if most_lists is None else most_lists
    limits = _limits({b",": max_rows * n_features, b"[{": most_lists})
    if not _exceeds(body, limits):
        return
    data = np.frombuffer(body.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    within_text = np.bitwise_xor.accumulate(data == ord('"'))
    if _exceeds(data[~within_text].tobytes(), limits):
        raise _too_many(max_rows)


def check_csv(body: bytes, signature: Signature, max_rows: int) -> None:
    """Refuse a CSV body with far more cells or lines than a header and `max_rows` rows have.

    Raises:
        TooManyRows: If it has.
    """
    limits = _limits({b",": (max_rows + 1) * len(signature.features), b"\n\r": 2 * max_rows})
    if not _exceeds(body, limits):
        return
    body = body.removeprefix(BOM_UTF8)
    found, at = dict.fromkeys(limits, 0), 0
    cells = (match.span() for match in QUOTED_CELL.finditer(body))
    for start, end in chain(cells, [(len(body), len(body))]):  # each has a mark before it, so their number is bounded
        for marks, limit in limits.items():
            found[marks] += sum(body.count(mark, at, start) for mark in marks)
            if found[marks] > limit:
                raise _too_many(max_rows)
        at = end


def _limits(most: dict[bytes, int]) -> dict[bytes, int]:
    return {marks: SLACK * number + SPARE for marks, number in most.items()}


def _too_many(max_rows: int) -> TooManyRows:
    return TooManyRows(
        f"the body holds far more values than {max_rows} rows, which is what one request may have; split it"
    )


def _exceeds(body: bytes, limits: dict[bytes, int]) -> bool:
    return any(sum(count(body, mark) for mark in marks) > limit for marks, limit in limits.items())


def count(body: bytes, mark: int) -> int:
    """Return how often a byte stands in a body; on a large one numpy is six times faster than `bytes.count`."""
    if len(body) <= SMALL_BYTES:
        return body.count(mark)
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == mark))
