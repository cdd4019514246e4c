"""The proof that two forms of a model answer alike: both are asked the same rows, and the first difference refuses."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.compiler.plan import NotCompiled
from service.errors import shorten
from service.manifest import Golden, Parity
from service.predictor import BLOCK_ROWS
from service.runtimes import Outputs, Runtime
from service.signature import Signature
from service.table import Column, Table

RTOL, ATOL = Golden.model_fields["rtol"].default, Golden.model_fields["atol"].default


@dataclass
class Tally:
    """What was seen of the differences between two forms."""

    rows: int = 0
    refused: int = 0
    largest_error: float = 0.0
    largest_probability_error: float = 0.0


def prove(original: Runtime, compiled: Runtime, signature: Signature, tables: Sequence[Table]) -> Parity:
    """Ask both forms every row of the tables, with probabilities where there are any.

    Raises:
        NotCompiled: At the first row whose answers differ by more than the tolerance of golden rows.
    """
    tally = Tally()
    for table in tables:
        for block in _blocks(table):
            _compare_block(original, compiled, signature, block, tally)
    return Parity(
        rows=tally.rows,
        refused_rows=tally.refused,
        largest_error=tally.largest_error,
        largest_probability_error=tally.largest_probability_error if signature.has_probabilities else None,
    )


def _blocks(table: Table) -> Iterator[Table]:
    for start in range(0, table.n_rows, BLOCK_ROWS):
        yield table.rows(start, start + BLOCK_ROWS)


def _compare_block(original: Runtime, compiled: Runtime, signature: Signature, block: Table, tally: Tally) -> None:
    try:
        expected = _answer(original, signature, block)
    except Exception:  # a model may raise anything at an extreme row
        if block.n_rows > 1:
            middle = block.n_rows // 2  # of many rows few are refused
            for part in (block.rows(0, middle), block.rows(middle, block.n_rows)):
                _compare_block(original, compiled, signature, part, tally)
        else:
            tally.refused += 1
        return
    try:
        answered = _answer(compiled, signature, block)
    except Exception as error:
        raise NotCompiled(f"the compiled form failed on rows that the model answers: {type(error).__name__}") from error
    difference = _compare(expected.predictions, answered.predictions, "the prediction", signature, block)
    tally.largest_error = max(tally.largest_error, difference)
    for wanted, found in zip(expected.probabilities or (), answered.probabilities or (), strict=True):
        difference = _compare(wanted, found, "a probability", signature, block)
        tally.largest_probability_error = max(tally.largest_probability_error, difference)
    tally.rows += block.n_rows


def _answer(runtime: Runtime, signature: Signature, block: Table) -> Outputs:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return runtime.predict(block, signature.has_probabilities)


def _compare(wanted: Column, found: Column, what: str, signature: Signature, block: Table) -> float:
    """Return the largest difference of numbers, 0 for labels; refuse what is beyond the tolerance."""
    if wanted.shape != found.shape:
        raise NotCompiled(f"the compiled form answers {what} of shape {found.shape}, and the model {wanted.shape}")
    if wanted.dtype.kind != "f":
        alike = np.array(wanted.tolist(), dtype=object) == np.array(found.tolist(), dtype=object)
        _refuse_unless(alike, wanted, found, what, signature, block)
        return 0.0
    with np.errstate(all="ignore"):
        error = np.abs(found - wanted)
    both = ~np.isfinite(wanted) & ~np.isfinite(found)  # neither is answered: the service refuses both alike
    _refuse_unless(both | (error <= ATOL + RTOL * np.abs(wanted)), wanted, found, what, signature, block)
    return float(np.max(error / np.maximum(np.abs(wanted), 1.0), where=~both, initial=0.0))


def _refuse_unless(alike: Any, wanted: Column, found: Column, what: str, signature: Signature, block: Table) -> None:
    alike = np.asarray(alike, dtype=bool).reshape(block.n_rows, -1).all(axis=1)
    if alike.all():
        return
    row = int(np.flatnonzero(~alike)[0])
    values = {name: block.columns[name][row] for name in signature.names}
    shown = shorten(", ".join(f"{name}={value}" for name, value in values.items()), 300)
    answers = wanted.tolist()[row], found.tolist()[row]
    raise NotCompiled(
        f"{what} differs for {int((~alike).sum())} of {block.n_rows} rows: the model answers {answers[0]!r} and the "
        f"compiled form {answers[1]!r} where {shown}"
    )
