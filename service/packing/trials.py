"""Finds out by trying what a model takes: the layout of its rows, missing values, unseen categories, large numbers.

Every answer here is the model's own; nothing is guessed.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from service.errors import PackingError, shorten
from service.manifest import Layout
from service.predictor import all_finite
from service.runtimes import Facts, Outputs, RuntimeModule
from service.signature import INT64_MAX, LARGEST_FLOAT32, TEXTS, Feature, Output, Signature
from service.table import Column, Table, table_from_rows

UNSEEN = "anyport-unseen-value"
LARGEST_FLOAT64 = 1.7e308
SMALLEST_LIMIT = 1e6
INT32_MAX = 2**31 - 1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A loaded model, and how it is to be called."""

    module: RuntimeModule
    model: Any
    signature: Signature
    layout: Layout

    def answer(self, table: Table, *, probabilities: bool = False) -> Outputs:
        """Predict; raises whatever the model raises."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runtime = self.module.bind(self.model, self.signature, self.layout)
            outputs = runtime.predict(table, probabilities)
        if len(outputs.predictions) != table.n_rows or outputs.predictions.ndim not in (1, 2):
            raise ValueError(f"the answer to {table.n_rows} rows has shape {outputs.predictions.shape}")
        return outputs

    def takes(self, rows: list[dict[str, Any]]) -> bool:
        """Whether the model answers these rows with finite values."""
        try:
            outputs = self.answer(table_from_rows(permissive(self.signature), rows))
        except Exception as error:  # a model may raise anything at what it does not take
            log.debug("a trial failed: %s", error)
            return False
        return all_finite(outputs.predictions)


def permissive(signature: Signature) -> Signature:
    """Return the signature without its limits, for trials of values beyond them."""
    loose = {"nullable": True, "closed": False, "largest": None}
    return signature.model_copy(update={"features": tuple(f.model_copy(update=loose) for f in signature.features)})


def possible_layouts(facts: Facts, features: Sequence[Feature]) -> list[Layout]:
    """List the layouts that a model may want, the likeliest first."""
    if facts.layouts:
        return list(facts.layouts)
    if facts.names is not None:
        return ["frame", "categorical-frame"]
    dtypes = {feature.dtype for feature in features}
    if dtypes.isdisjoint((*TEXTS, "datetime")):
        return ["matrix"]
    return ["column", "frame", "matrix"] if len(features) == 1 else ["frame", "matrix"]


def choose(candidates: list[Candidate], tables: list[Table], flag: str) -> Candidate:
    """Return the first candidate that answers its table.

    Raises:
        PackingError: If none does, with the model's own words; or if several do and answer differently, with the flag
            that decides.
    """
    answers: list[tuple[Candidate, Outputs]] = []
    failures = []
    for candidate, table in zip(candidates, tables, strict=True):
        try:
            answers.append((candidate, candidate.answer(table)))
        except Exception as error:  # a model may raise anything at what it does not take
            failures.append(f"{candidate.layout}: {type(error).__name__}: {shorten(str(error), 300)}")
    if not answers:
        raise PackingError(
            "the model cannot predict the sample: "
            + "; ".join(failures)
            + ". Give the columns that it was trained on, "
            "before any preparation outside of it, with their types by --dtype COLUMN=TYPE where the model wants others"
        )
    chosen, first = answers[0]
    if any(not np.array_equal(first.predictions, other.predictions) for _, other in answers[1:]):
        raise PackingError(f"the model answers differently depending on how it gets its rows; say which with {flag}")
    return chosen


def takes_missing(candidate: Candidate, row: dict[str, Any], name: str) -> bool:
    """Whether the model answers a row in which this feature is missing."""
    return candidate.takes([row | {name: None}])


def takes_unseen(candidate: Candidate, row: dict[str, Any], feature: Feature) -> bool:
    """Whether the model answers a row with a category that it cannot know."""
    unseen: Any = UNSEEN if feature.dtype == "string" else min(map(int, feature.categories or ())) - 1
    return candidate.takes([row | {feature.name: unseen}])


def largest_number(candidate: Candidate, row: dict[str, Any], name: str) -> float | None:
    """Return the largest magnitude that the model computes with, None if that is the type's own.

    A tree of scikit-learn computes in float32 and refuses more; a polynomial overflows sooner.
    """

    def takes(number: float) -> bool:
        return candidate.takes([row | {name: number}, row | {name: -number}])

    if takes(LARGEST_FLOAT64):
        return None
    if takes(LARGEST_FLOAT32 * 0.999):
        return LARGEST_FLOAT32
    low, high = np.log10(SMALLEST_LIMIT), np.log10(LARGEST_FLOAT32)
    if not takes(SMALLEST_LIMIT):
        return None  # it is not the size that the model refuses
    while high - low > 1:
        middle = (low + high) / 2
        low, high = (middle, high) if takes(10.0**middle) else (low, middle)
    return float(10.0 ** int(low))


def largest_whole_number(candidate: Candidate, row: dict[str, Any], name: str) -> float | None:
    """Return the largest magnitude that a whole-number feature may have, None if that is the type's own."""

    def takes(number: int) -> bool:
        return candidate.takes([row | {name: number}, row | {name: -number}])

    return None if takes(INT64_MAX) or not takes(INT32_MAX) else float(INT32_MAX)


def class_labels(candidate: Candidate, table: Table, facts: Facts) -> tuple[tuple[Any, ...], ...] | None:
    """Return the labels behind the model's probabilities, for each output; None where it answers none."""
    if facts.classes is None:
        return None
    outputs = tuple(Output(name=f"output_{i}", dtype="float64", classes=c) for i, c in enumerate(facts.classes))
    asking = replace(candidate, signature=candidate.signature.model_copy(update={"outputs": outputs}))
    try:
        shares = asking.answer(table, probabilities=True).probabilities or ()
    except Exception as error:  # a model may raise anything where it has no probabilities
        log.info("the model answers no probabilities: %s", error)
        return None
    fits = len(shares) == len(facts.classes) and all(
        share.shape == (table.n_rows, len(labels)) and all_finite(share)
        for share, labels in zip(shares, facts.classes, strict=True)
    )
    return facts.classes if fits else None


def check_labels(labels: tuple[Any, ...], predictions: Column, shares: tuple[Column, ...]) -> None:
    """Hold the labels that the user named against the model: the likeliest one must be the one that it predicts.

    Raises:
        PackingError: If it is not, for any row of the sample.
    """
    likeliest = [labels[index] for index in shares[0].argmax(axis=1).tolist()]
    for row, (expected, predicted) in enumerate(zip(likeliest, predictions.tolist(), strict=True)):
        if expected != predicted:
            raise PackingError(
                f"--classes does not fit the model: for row {row} it predicts {predicted!r} and the likeliest class is "
                f"{expected!r}; name the classes in the order of the model's probabilities"
            )
