"""Small trees as tables of bits, which numpy alone can answer from (`service.runtimes.leaf_masks`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.compiler.graph import MEMBER, Ensemble

MOST_LEAVES = 64
"""A mask has so many bits at most."""
MOST_BYTES_A_TREE = 128
"""How many bytes a row reads of each tree: one mask a feature. Beyond that onnxruntime, which reads only the way to one
leaf, is sooner done (`python -m bench.trees`)."""
MOST_BYTES = 8 * 1024 * 1024
"""What all masks may take, in the package and in every worker."""


@dataclass(frozen=True)
class Tree:
    """A small tree: what its leaves give, from the true side to the false, and which of them each split divides."""

    target: int
    weights: list[float]
    splits: list[tuple[int, int, int]]
    """The number of a node, the first leaf on its true side, and the first on its false side."""


@dataclass(frozen=True)
class Masks:
    """The settings of `small_trees`."""

    masks: npt.NDArray[Any]
    thresholds: npt.NDArray[np.float64]
    features: list[int]
    counts: list[int]
    values: npt.NDArray[Any]


def leaf_masks(ensemble: Ensemble) -> Masks | None:
    """Return an ensemble's masks; None if its trees are not small, or split nothing or by categories."""
    if MEMBER in ensemble.modes:
        return None
    trees = [_tree(ensemble, root) for root in ensemble.roots]
    small = [tree for tree in trees if tree is not None]
    if len(small) < len(trees):
        return None
    ordered = _side_by_side(small, ensemble.n_targets)
    n_leaves = max(len(tree.weights) for tree in ordered)
    dtype = np.dtype(f"u{next(size for size in (1, 2, 4, 8) if n_leaves <= 8 * size)}")
    by_feature: dict[int, set[float]] = {}
    for tree in ordered:
        for node, _, _ in tree.splits:
            by_feature.setdefault(ensemble.features[node], set()).add(ensemble.splits[node])
    if not by_feature:
        return None
    known = {feature: sorted(thresholds) for feature, thresholds in sorted(by_feature.items())}
    n_entries = sum(len(thresholds) + 2 for thresholds in known.values())
    if len(known) * dtype.itemsize > MOST_BYTES_A_TREE or n_entries * len(ordered) * dtype.itemsize > MOST_BYTES:
        return None
    values = np.zeros((len(ordered), n_leaves), np.float32 if ensemble.single else np.float64)
    for row, tree in zip(values, ordered, strict=True):
        row[: len(tree.weights)] = tree.weights
    return Masks(
        np.concatenate([_entries(ensemble, ordered, feature, known[feature], dtype) for feature in known]),
        np.concatenate([np.array(thresholds) for thresholds in known.values()]),
        list(known),
        [len(thresholds) for thresholds in known.values()],
        values,
    )


def _tree(ensemble: Ensemble, root: int) -> Tree | None:
    """Take a tree to pieces; None if it is too large, or its leaves add to several targets."""
    tree, targets = Tree(0, [], []), set()
    pending: list[tuple[int, bool, tuple[int, int] | None]] = [(root, False, None)]
    while pending and len(tree.weights) <= MOST_LEAVES:
        number, is_leaf, begun = pending.pop()
        if is_leaf:
            targets.add(ensemble.targets[number])
            tree.weights.append(ensemble.weights[number])
        elif begun is not None:  # its true side is done
            tree.splits.append((number, begun[0], len(tree.weights)))
        else:
            (true, false), (true_is_leaf, false_is_leaf) = ensemble.children[number], ensemble.are_leaves[number]
            pending.append((false, bool(false_is_leaf), None))
            if true != false or true_is_leaf != false_is_leaf:  # else it splits nothing
                pending.append((number, False, (len(tree.weights), 0)))
                pending.append((true, bool(true_is_leaf), None))
    if pending or len(tree.weights) > MOST_LEAVES or len(targets) > 1:
        return None
    return Tree(targets.pop(), tree.weights, tree.splits)


def _side_by_side(trees: Iterable[Tree], n_targets: int) -> list[Tree]:
    """Put the trees of each target side by side, with as many for each: trees that give nothing make up for it."""
    by_target: list[list[Tree]] = [[] for _ in range(n_targets)]
    for tree in trees:
        by_target[tree.target].append(tree)
    most = max(map(len, by_target))
    return [
        tree for target, own in enumerate(by_target) for tree in [*own, *[Tree(target, [0.0], [])] * (most - len(own))]
    ]


def _entries(
    ensemble: Ensemble, trees: list[Tree], feature: int, thresholds: list[float], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Return the entries of one feature."""
    every = np.iinfo(dtype).max
    entries = np.full((len(thresholds) + 2, len(trees)), every, dtype)
    ranks = {threshold: rank for rank, threshold in enumerate(thresholds)}
    for column, tree in enumerate(trees):
        for node, first, middle in tree.splits:
            if ensemble.features[node] == feature:
                left = every ^ ((1 << middle) - (1 << first))
                entries[ranks[ensemble.splits[node]] + 1, column] &= left
                if not ensemble.missing_true[node]:
                    entries[-1, column] &= left
    np.bitwise_and.accumulate(entries[:-1], axis=0, out=entries[:-1])
    return entries
