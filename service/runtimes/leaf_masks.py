"""Ensembles of small trees by numpy alone: every split of every tree is answered at once, and no branch is taken.

Each leaf of a tree is a bit. A split whose answer is false rules out the leaves on its true side; the lowest bit that
is left when all have answered is the leaf that the row falls into. What a value rules out in all trees together stands
in a table, by how many thresholds of its feature lie below it.

Source: Lucchese et al., QuickScorer: A Fast Algorithm to Rank Documents with Additive Ensembles of Regression Trees,
SIGIR 2015, doi.org/10.1145/2766462.2767733, read 2026-11-23.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np

from service.table import Column, Table

CACHE_BYTES = 512 * 1024
"""What the masks of the rows that are scored at once may take, so that they stay in the processor's cache."""
LOWEST_BIT = np.array([(byte & -byte).bit_length() - 1 if byte else 0 for byte in range(256)], np.intp)
FRACTION_BITS, BIAS = 52, 1023
"""Of a double: its exponent tells which bit a power of two is."""


def small_trees(
    of: Callable[[Table], Column],
    masks: Column,
    thresholds: Column,
    features: Sequence[int],
    counts: Sequence[int],
    values: Column,
    n_targets: int,
    single: bool,
) -> Callable[[Table], Column]:
    """Add up the trees of each target.

    Args:
        of: What the trees split, of shape (n_rows, n_columns).
        masks: Which leaves of each tree are left, of shape (n_entries, n_trees). A feature has an entry for each number
            of its thresholds that may lie below a value, from none to all, and one for a missing value.
        thresholds: Those of the first feature in their order, then those of the next.
        features: The columns that are split.
        counts: How many thresholds each has.
        values: What stands in each leaf, of shape (n_trees, n_leaves); the trees of a target lie side by side.
        n_targets: How many targets there are, each of as many trees.
        single: Whether what is split is rounded to single precision first.
    """
    ends = np.cumsum(counts)
    known = np.split(thresholds, ends[:-1])
    entries: Column = ends - counts + 2 * np.arange(len(counts))
    missing = entries + np.array(counts) + 1
    listed = list(zip(features, map(np.ndarray.tolist, known), entries.tolist(), missing.tolist(), strict=True))
    flat, first_leaves = values.ravel(), np.arange(len(values)) * values.shape[1]
    block_rows = max(2, CACHE_BYTES // (len(counts) * masks.shape[1] * masks.itemsize))

    def score(places: Column) -> Column:
        left = np.bitwise_and.reduce(masks.take(places, axis=0), axis=1)
        chosen = flat.take((_lowest_bits(left) + first_leaves).T).reshape(n_targets, -1, len(places))
        if len(places) > 1:
            sums: Column = np.add.reduce(chosen, axis=1)
        else:
            sums = np.add.accumulate(chosen, axis=1)[:, -1]  # numpy would not add up one after the other
        return sums.T

    def find_one(row: list[float]) -> list[int]:
        return [
            entry + bisect_left(splits, row[at]) if row[at] == row[at] else other for at, splits, entry, other in listed
        ]

    def find(matrix: Column) -> Column:
        places = np.empty(matrix.shape, np.intp)
        for index, splits in enumerate(known):
            places[:, index] = splits.searchsorted(matrix[:, index])
        places += entries
        return np.where(np.isnan(matrix), missing, places)

    def step(table: Table) -> Column:
        matrix = of(table)
        if single:
            matrix = matrix.astype(np.float32).astype(np.float64)
        places = np.array([find_one(matrix[0].tolist())]) if len(matrix) == 1 else find(matrix[:, features])
        answer = np.empty((len(matrix), n_targets))
        for start in range(0, len(matrix), block_rows):
            answer[start : start + block_rows] = score(places[start : start + block_rows])
        return answer

    return step


def _lowest_bits(masks: Column) -> Column:
    """Return the place of each mask's lowest bit."""
    if masks.itemsize == 1:
        return LOWEST_BIT.take(masks)
    lowest: Column = (masks & (~masks + masks.dtype.type(1))).astype(np.float64)
    return (lowest.view(np.int64) >> FRACTION_BITS) - BIAS
