"""Holds what a server answers against what the estimator answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from bench.failure import PeerFailed
from bench.wires import Answer

TOLERANCE = 1e-5
"""Between a probability and the estimator's; about what float32 leaves of a number near 1 after a few sums."""
MOST_DIFFERING = 0.02
"""Share of rows whose label may differ before a server is wrong, not rounding: the float32 peers stay under 0.01."""


@dataclass(frozen=True)
class Verdict:
    """How many rows were compared, and in how many the label differs; with probabilities (None: it answers none), in
    how many rows one is off by more than the tolerance, and the largest error of all.
    """

    rows: int
    differing: int
    off: int | None = None
    largest_error: float | None = None

    @property
    def wrong(self) -> bool:
        """Whether so many labels differ that this is another model."""
        return self.differing > MOST_DIFFERING * self.rows


def compare(answers: Sequence[Answer], labels: Sequence[str], probabilities: numpy.ndarray) -> Verdict:
    """Compare the answers to all rows, in order, with the estimator's.

    Raises:
        PeerFailed: If there are not as many answers as rows.
    """
    said = [label for answer in answers for label in answer.labels]
    if len(said) != len(labels):
        raise PeerFailed(f"{len(labels)} rows were asked and {len(said)} labels came")
    differing = sum(one != other for one, other in zip(said, labels, strict=True))
    numbers = [row for answer in answers for row in answer.probabilities]
    if not numbers:
        return Verdict(len(labels), differing)
    errors = numpy.abs(numpy.array(numbers) - probabilities).max(axis=1)
    return Verdict(len(labels), differing, int((errors > TOLERANCE).sum()), float(errors.max()))
