"""Chooses golden rows out of a sample, some of them hard, and records what the model answers to them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from service.errors import PackingError, RequestError
from service.manifest import Golden
from service.packing.trials import UNSEEN, Candidate
from service.predictor import all_finite
from service.signature import Feature, Scalar, Signature
from service.table import Column, table_from_rows

MAX_GOLDEN = 24
MAX_PER_KIND = 4

Row = dict[str, Any]
log = logging.getLogger(__name__)


def choose_golden(candidate: Candidate, rows: list[Row], predictions: Column) -> Golden:
    """Choose ordinary and hard rows, and record the answers.

    Args:
        candidate: The model, with its final signature.
        rows: The sample's rows.
        predictions: What the model answers to them.

    Raises:
        PackingError: If the model answers none of them alone with a finite value.
    """
    chosen: list[tuple[list[Scalar], Any, Any]] = []
    for row in _without_repeats([*_ordinary(rows, predictions), *_hard(candidate.signature, rows)]):
        answer = _answer(candidate, row)
        if answer is not None and len(chosen) < MAX_GOLDEN:
            chosen.append((list(row.values()), *answer))
    if not chosen:
        raise PackingError("the model answers no row of the sample with a finite value; check the sample's columns")
    values, answers, shares = zip(*chosen, strict=True)
    return Golden(
        rows=tuple(map(tuple, values)),
        predictions=tuple(tuple(a) if isinstance(a, list) else a for a in answers),
        probabilities=shares if candidate.signature.has_probabilities else None,
    )


def _ordinary(rows: list[Row], predictions: Column) -> Iterator[Row]:
    """The first row, one of each predicted label, and some from all over the sample."""
    yield rows[0]
    _, firsts = np.unique(predictions.astype(str), return_index=True, axis=0)
    for index in sorted(firsts.tolist())[:MAX_PER_KIND]:
        yield rows[index]
    for index in np.linspace(0, len(rows) - 1, MAX_PER_KIND).astype(int).tolist():
        yield rows[index]


def _hard(signature: Signature, rows: list[Row]) -> Iterator[Row]:
    """Rows with missing values, an unseen category, and numbers at and far beyond the sample's extremes."""
    gaps = [row for row in rows if None in row.values()]
    yield from sorted(gaps, key=lambda row: -list(row.values()).count(None))[:MAX_PER_KIND]
    plain = next((row for row in rows if None not in row.values()), rows[0])
    open_texts = [f.name for f in signature.features if f.dtype == "string" and not f.closed]
    if open_texts:
        yield plain | {name: UNSEEN for name in open_texts}
    nullable = [f.name for f in signature.features if f.nullable]
    if nullable:
        yield plain | {name: None for name in nullable}
    numbers = [f for f in signature.features if f.minimum is not None and f.maximum is not None and not f.closed]
    if numbers:
        yield plain | {f.name: _number(f, f.minimum) for f in numbers}
        yield plain | {f.name: _number(f, f.maximum) for f in numbers}
        yield plain | {f.name: _number(f, 10 * (f.maximum or 0) + 1) for f in numbers}
        yield plain | {f.name: _number(f, (f.minimum or 0) * 10 - 1) for f in numbers}


def _number(feature: Feature, value: float | None) -> Scalar:
    return int(value or 0) if feature.dtype == "int64" else value


def _without_repeats(rows: list[Row]) -> Iterator[Row]:
    seen = set()
    for row in rows:
        key = repr(row)
        if key not in seen:
            seen.add(key)
            yield row


def _answer(candidate: Candidate, row: Row) -> tuple[Any, Any] | None:
    """Return prediction and probabilities of one row, None if the model does not answer it."""
    try:
        outputs = candidate.answer(
            table_from_rows(candidate.signature, [row]), probabilities=candidate.signature.has_probabilities
        )
    except RequestError as error:
        log.debug("no golden row, the signature refuses it: %s", error)
        return None
    except Exception as error:  # a model may raise anything at a hard row
        log.debug("no golden row, the model refuses it: %s", error)
        return None
    shares = outputs.probabilities or ()
    if not all(map(all_finite, (outputs.predictions, *shares))):
        return None
    return outputs.predictions.tolist()[0], tuple(tuple(share[0].tolist()) for share in shares)
