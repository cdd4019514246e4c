"""Small trees answered from masks: to the last bit what the ONNX graph of the same ensemble answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.compiler.graph import Ensemble, graph_bytes
from service.compiler.leaf_masks import MOST_BYTES, MOST_BYTES_A_TREE, MOST_LEAVES, leaf_masks
from service.runtimes.leaf_masks import small_trees
from service.runtimes.operators import trees
from service.table import Table

N_FEATURES = 4
SPLITS = [-1.5, 0.0, 0.1, float(np.float32(0.1)), 2.0, float(np.nextafter(2.0, 3.0))]
VALUES = [*SPLITS, float("nan"), float("inf"), -float("inf"), *(float(np.nextafter(split, -9.0)) for split in SPLITS)]


def grow(ensemble: Ensemble, random: np.random.Generator, target: int, n_leaves: int) -> None:
    """Add a tree of any shape with so many leaves."""

    def subtree(leaves: int) -> tuple[int, int]:
        if leaves == 1:
            return ensemble.add_leaf(target, float(random.normal())), 1
        node = ensemble.add_node(int(random.integers(N_FEATURES)), SPLITS[random.integers(6)], missing_true=True)
        ensemble.missing_true[node] = int(random.integers(2))
        true = int(random.integers(1, leaves))
        ends = subtree(true), subtree(leaves - true)
        ensemble.children[node], ensemble.are_leaves[node] = zip(*ends, strict=True)  # type: ignore[assignment]
        return node, 0

    if n_leaves == 1:
        ensemble.add_constant(target, float(random.normal()))
    else:
        ensemble.roots.append(subtree(n_leaves)[0])


def ensemble_of(leaves: list[list[int]], seed: int, *, single: bool = False) -> Ensemble:
    """An ensemble of random trees, given how many leaves each tree of each target has."""
    random, ensemble = np.random.default_rng(seed), Ensemble(len(leaves), single=single)
    for target, trees_of_target in enumerate(leaves):
        for n_leaves in trees_of_target:
            grow(ensemble, random, target, n_leaves)
    if single:
        ensemble.splits = [float(np.float32(split)) for split in ensemble.splits]
    return ensemble


def answers(ensemble: Ensemble, matrix: Any) -> tuple[Any, Any, Any]:
    """What the graph answers to some rows, the masks to all of them, and the masks to each alone."""
    found = leaf_masks(ensemble)
    assert found is not None
    single = ensemble.single
    graph = np.frombuffer(graph_bytes(ensemble, N_FEATURES), np.uint8)

    def of(table: Table) -> Any:
        return matrix[table.columns["from"][0] :][: table.n_rows].copy()

    def rows(start: int, count: int) -> Table:
        return Table({"from": np.array([start])}, count)

    by_masks = small_trees(of, **vars(found), n_targets=ensemble.n_targets, single=single)
    every = rows(0, len(matrix))
    alone = [by_masks(rows(row, 1)) for row in range(len(matrix))]
    return trees(of, graph, single)(every), by_masks(every), np.concatenate(alone)


@settings(max_examples=150, deadline=None)
@given(
    leaves=st.lists(st.lists(st.integers(1, 12) | st.integers(30, MOST_LEAVES), max_size=9), min_size=1, max_size=3),
    seed=st.integers(0, 10**6),
    single=st.booleans(),
)
def test_masks_answer_as_the_graph(leaves: list[list[int]], seed: int, single: bool) -> None:
    """Whatever the trees, at their thresholds and beside them, beyond every bound and where values are missing."""
    ensemble = ensemble_of([[2], *leaves], seed, single=single)
    matrix = np.random.default_rng(seed).choice(VALUES, (40, N_FEATURES))
    graph, together, alone = answers(ensemble, matrix)
    np.testing.assert_array_equal(together, graph)
    np.testing.assert_array_equal(alone, graph)


@pytest.mark.parametrize(
    ("n_leaves", "itemsize"), [(2, 1), (8, 1), (9, 2), (16, 2), (17, 4), (32, 4), (33, 8), (64, 8)]
)
def test_mask_has_a_bit_for_each_leaf(n_leaves: int, itemsize: int) -> None:
    """Masks are as narrow as the largest tree lets them be."""
    found = leaf_masks(ensemble_of([[2, n_leaves]], 0))
    assert found is not None and found.masks.itemsize == itemsize


@pytest.mark.parametrize("n_rows", [2, 3, 4, 5])
def test_many_rows_are_scored_in_blocks(n_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than one block holds are answered like each alone, a last one by itself too."""
    monkeypatch.setattr("service.runtimes.leaf_masks.CACHE_BYTES", 1)
    ensemble = ensemble_of([[60] * 150], 1, single=True)
    graph, together, alone = answers(ensemble, np.random.default_rng(1).choice(VALUES, (n_rows, N_FEATURES)))
    np.testing.assert_array_equal(together, graph)
    np.testing.assert_array_equal(alone, graph)


def by_category() -> Ensemble:
    ensemble = Ensemble(1)
    leaves = ensemble.add_leaf(0, 1.0), ensemble.add_leaf(0, 2.0)
    node = ensemble.add_node(0, 0.0, missing_true=False, members=(1.0,))
    ensemble.children[node], ensemble.are_leaves[node] = leaves, (1, 1)
    ensemble.roots.append(node)
    return ensemble


def of_two_targets() -> Ensemble:
    ensemble = ensemble_of([[2], [2]], 0)
    ensemble.targets[0] = 1
    return ensemble


def of_many_features() -> Ensemble:
    ensemble = ensemble_of([[2]] * (MOST_BYTES_A_TREE + 1), 0)
    ensemble.features = list(range(len(ensemble.features)))
    return ensemble


def of_many_thresholds() -> Ensemble:
    n_trees = int(MOST_BYTES**0.5) + 1
    ensemble = ensemble_of([[2] * n_trees], 0)
    ensemble.splits = [float(number) for number in range(n_trees)]
    return ensemble


@pytest.mark.parametrize(
    "ensemble",
    [
        lambda: ensemble_of([[1, 1]], 0),
        lambda: ensemble_of([[MOST_LEAVES + 1, 2]], 0),
        by_category,
        of_two_targets,
        of_many_features,
        of_many_thresholds,
    ],
    ids=["constants", "large", "category", "targets", "features", "thresholds"],
)
def test_other_ensembles_are_left_to_onnxruntime(ensemble: Any) -> None:
    """Trees that are not small, split categories or would take too many masks have none."""
    assert leaf_masks(ensemble()) is None


def test_deep_tree_is_told_soon() -> None:
    """A tree that leans to one side, however deep, is refused without being walked to its end."""
    ensemble = Ensemble(1)
    last = ensemble.add_leaf(0, 1.0), 1
    for _ in range(5000):
        node = ensemble.add_node(0, 1.0, missing_true=True)
        other = ensemble.add_leaf(0, 2.0)
        ensemble.children[node], ensemble.are_leaves[node] = (last[0], other), (last[1], 1)
        last = node, 0
    ensemble.roots.append(last[0])
    assert leaf_masks(ensemble) is None
