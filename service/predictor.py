"""The prediction core: a checked request in, a checked response out. Knows neither wire formats nor model formats."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from service.batching import Batches, pays, rows_of, rows_together
from service.errors import GoldenMismatch, NonFinitePrediction, PackageError, PredictionError, ServiceError
from service.manifest import Manifest
from service.runtimes import Outputs, Policy, Runtime
from service.store import Store
from service.table import Column, PredictRequest, PredictResponse, Table, table_from_rows

BLOCK_ROWS = 2000
"""Rows that a model scores at once. A pipeline may make thousands of numbers of each."""
Score = Callable[[Table, bool], Outputs]
"""Predicts a table, with probabilities where wanted."""

log = logging.getLogger(__name__)


class Predictor:
    """One version of one model, loaded. Immutable, so that one request is answered by one version."""

    def __init__(self, manifest: Manifest, runtime: Runtime) -> None:
        self.manifest = manifest
        self.preferred = True
        """Whether it is the form that was measured when packed; set where another one stands in."""
        self._runtime = runtime
        self._batches: Batches | None = None

    def predict(self, request: PredictRequest) -> PredictResponse:
        """Predict every row of the request's table, in its order.

        Raises:
            PredictionError: If the model raises, or answers with another number of rows.
            NonFinitePrediction: If any number of the answer is NaN or infinite.
        """
        return self._respond(request, self._score if self._batches is None else self._batches.score)

    def _respond(self, request: PredictRequest, score: Score) -> PredictResponse:
        outputs = _run(score, request.table, request.probabilities)
        _check_finite(outputs, self.manifest.label)
        return PredictResponse(
            self.manifest.name,
            self.manifest.version,
            self.manifest.signature,
            outputs.predictions,
            outputs.probabilities,
            request.wishes,
        )

    def replay(self) -> None:
        """Answer the golden rows and compare.

        Raises:
            GoldenMismatch: If any answer differs from the packed one, or cannot be given.
        """
        golden = self.manifest.golden
        label = self.manifest.label
        try:
            table = self._golden_table()
            response = self._respond(PredictRequest(table, golden.probabilities is not None), self._score)
        except ServiceError as error:
            raise GoldenMismatch(
                f"{label}: the golden rows cannot be answered ({error.code}); pack it again"
            ) from error
        answers = response.predictions.tolist()
        wrong = [row for row in range(table.n_rows) if not self._agrees(answers[row], response.probabilities, row)]
        if wrong:
            raise GoldenMismatch(
                f"{label}: {len(wrong)} of {table.n_rows} golden rows are answered differently than when packed, the "
                f"first is row {wrong[0]}; install the libraries of requirements.txt, bring back modules of your own "
                "as they were, or pack the model again"
            )

    def batch_where_right(self) -> None:
        """From now on predict requests that meet together, if that pays and changes no answer."""
        cost, signature = self.manifest.cost, self.manifest.signature
        if not pays(cost) or not self.preferred:
            return
        if self._is_row_wise():
            self._batches = Batches(self._score, signature, rows_together(cost, BLOCK_ROWS))
        else:
            log.info("%s answers a row otherwise among others; requests are not joined", self.manifest.label)

    def _is_row_wise(self) -> bool:
        """Whether the golden rows are answered alike, to the last bit, together and one by one.

        A linear model's may not be: BLAS adds up in another order where there are more rows.
        """
        table, probabilities = self._golden_table(), self.manifest.signature.has_probabilities
        try:
            together = self._score(table, probabilities)
            alone = (self._score(table.rows(row, row + 1), probabilities) for row in range(table.n_rows))
            return all(_digits(one) == _digits(rows_of(together, row, row + 1)) for row, one in enumerate(alone))
        except PredictionError:  # the log has it
            return False

    def _golden_table(self) -> Table:
        return table_from_rows(self.manifest.signature, [list(row) for row in self.manifest.golden.rows])

    def _score(self, table: Table, probabilities: bool) -> Outputs:
        try:
            outputs = self._runtime.predict(table, probabilities)
        except Exception as error:  # a model may raise anything, and what it says may hold the client's values
            trace = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s failed on %d rows: %s\n%s", self.manifest.label, table.n_rows, type(error).__name__, trace)
            raise PredictionError(f"{self.manifest.label} failed on these rows; the log says more") from error
        answered = [column.shape[:1] for column in (outputs.predictions, *(outputs.probabilities or ()))]
        if set(answered) != {(table.n_rows,)}:
            log.error("%s answered %s to %d rows", self.manifest.label, answered, table.n_rows)
            raise PredictionError(f"{self.manifest.label} did not answer every row; the log says more")
        return outputs

    def _agrees(self, answer: Any, probabilities: tuple[Column, ...] | None, row: int) -> bool:
        golden = self.manifest.golden
        shares = [output[row].tolist() for output in probabilities or ()]
        expected = golden.probabilities[row] if golden.probabilities is not None else ()
        return _close([answer, shares], [golden.predictions[row], expected], golden.rtol, golden.atol)


def open_predictor(store: Store, manifest: Manifest, policy: Policy) -> Predictor:
    """Open the first form of a package that can be opened and answers its golden rows.

    Raises:
        PackageError: If none does; it is what stands in the way of the preferred one.
    """
    errors: list[PackageError] = []
    for artifact in manifest.artifacts:
        try:
            predictor = Predictor(manifest, store.open(manifest, policy, artifact))
            predictor.replay()
            predictor.preferred = artifact is manifest.artifacts[0]
            predictor.batch_where_right()
        except PackageError as error:
            log.warning("%s as %s is not served: %s", manifest.label, artifact.file, error.detail)
            errors.append(error)
        else:
            return predictor
    raise errors[0]


def _run(score: Score, table: Table, probabilities: bool) -> Outputs:
    """Score a table in blocks: what the model makes of its rows on the way stays small, and others get their turn."""
    if table.n_rows <= BLOCK_ROWS:
        return score(table, probabilities)
    blocks = [score(table.rows(at, at + BLOCK_ROWS), probabilities) for at in range(0, table.n_rows, BLOCK_ROWS)]
    shares = zip(*(block.probabilities or () for block in blocks), strict=True)
    return Outputs(
        np.concatenate([block.predictions for block in blocks]),
        tuple(map(np.concatenate, shares)) if probabilities else None,
    )


def _digits(outputs: Outputs) -> str:
    """Everything that tells two answers apart."""
    return repr([column.tolist() for column in (outputs.predictions, *(outputs.probabilities or ()))])


def _check_finite(outputs: Outputs, label: str) -> None:
    for numbers in (outputs.predictions, *(outputs.probabilities or ())):
        if not all_finite(numbers):
            raise NonFinitePrediction(f"{label} answered NaN or infinity, which is no prediction; check these rows")


def all_finite(numbers: Column) -> bool:
    """Whether an array holds no NaN and no infinity; text and labels are finite."""
    if numbers.dtype.kind == "f":
        return bool(np.isfinite(numbers).all())
    if numbers.dtype.kind == "O":
        return all(math.isfinite(value) for value in numbers.flat if isinstance(value, float))
    return True


def _close(answered: Any, expected: Any, rtol: float, atol: float) -> bool:
    """Compare nested lists: floats within the tolerance, everything else exactly."""
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(answered, Sequence) or len(answered) != len(expected):
            return False
        return all(_close(a, e, rtol, atol) for a, e in zip(answered, expected, strict=True))
    if isinstance(expected, float) and isinstance(answered, float | int):
        return abs(answered - expected) <= atol + rtol * abs(expected)
    return bool(answered == expected and type(answered) is type(expected))
