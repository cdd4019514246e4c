"""Fitted trees of scikit-learn, LightGBM and XGBoost as one ensemble, node by node.

The sums are in double precision, but XGBoost's in single, as its own are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from service.compiler.graph import Ensemble, graph_bytes
from service.compiler.leaf_masks import leaf_masks
from service.compiler.plan import Node, NotCompiled, Plan, Splits

LIGHTGBM_ZERO = float(np.float32(1e-35))
"""What is no farther from zero is zero before it comes to a tree.

Source: microsoft/LightGBM, include/LightGBM/meta.h (kZeroThreshold) and src/c_api.cpp, read 2026-11-23.
"""


def ensemble_node(ensemble: Ensemble, of: Node, plan: Plan, n_features: int, *, single: bool) -> Node:
    """Return the step that runs an ensemble."""
    plan.splits.append(Splits(of, ensemble, single))
    small = leaf_masks(ensemble)
    if small is not None:
        return {
            "op": "small_trees",
            "of": of,
            "masks": plan.array(small.masks, small.masks.dtype),
            "thresholds": plan.array(small.thresholds),
            "features": small.features,
            "counts": small.counts,
            "values": plan.array(small.values, small.values.dtype),
            "n_targets": ensemble.n_targets,
            "single": single,
        }
    graph = np.frombuffer(graph_bytes(ensemble, n_features), np.uint8)
    plan.runtime = "compiled-trees"
    return {"op": "trees", "of": of, "graph": plan.array(graph, np.uint8), "single": single}


def add_tree(ensemble: Ensemble, tree: Any, target: int, weights: Sequence[float]) -> None:
    """Add a tree of scikit-learn's, which goes left where the value, in single precision, is at most the threshold.

    Args:
        ensemble: Where it is added.
        tree: The fitted tree.
        target: What its leaves add to.
        weights: What they add, by node; of a node that is no leaf it means nothing.
    """
    numbers: list[tuple[int, bool]] = []
    lefts, rights = tree.children_left.tolist(), tree.children_right.tolist()
    features, thresholds = tree.feature.tolist(), tree.threshold.tolist()
    missing = tree.missing_go_to_left.tolist()
    for node in range(tree.node_count):
        if lefts[node] < 0:
            numbers.append((ensemble.add_leaf(target, weights[node]), True))
        else:
            made = ensemble.add_node(features[node], thresholds[node], missing_true=bool(missing[node]))
            numbers.append((made, False))
    inner = (node for node in range(tree.node_count) if lefts[node] >= 0)
    _link(ensemble, ((numbers[node], numbers[lefts[node]], numbers[rights[node]]) for node in inner), numbers[0])


def add_histogram_tree(ensemble: Ensemble, predictor: Any, target: int) -> None:
    """Add a tree of scikit-learn's histogram gradient boosting."""
    numbers: dict[int, tuple[int, bool]] = {}
    nodes = predictor.nodes
    for index, node in enumerate(nodes):
        if node["is_leaf"]:
            numbers[index] = ensemble.add_leaf(target, float(node["value"])), True
            continue
        members = _members(predictor.raw_left_cat_bitsets[node["bitset_idx"]]) if node["is_categorical"] else ()
        nowhere = node["is_categorical"] and not members  # only what is missing goes to the left
        split = -np.inf if nowhere else float(node["num_threshold"])
        missing_true = bool(node["missing_go_to_left"])
        feature = int(node["feature_idx"])
        numbers[index] = ensemble.add_node(feature, split, missing_true=missing_true, members=members), False
    links = (
        (numbers[index], numbers[int(node["left"])], numbers[int(node["right"])])
        for index, node in enumerate(nodes)
        if not node["is_leaf"]
    )
    _link(ensemble, links, numbers[0])


def _members(bitset: Any) -> tuple[float, ...]:
    """Return the categories of a bitset of eight words."""
    bits = np.unpackbits(np.asarray(bitset, dtype="<u4").view(np.uint8), bitorder="little")
    return tuple(float(category) for category in np.flatnonzero(bits))


def _link(ensemble: Ensemble, links: Iterable[tuple[Any, Any, Any]], root: tuple[int, bool]) -> None:
    """Join nodes to their children, and name the root; a tree that is one leaf gets a node above it."""
    for (node, _), (true, true_is_leaf), (false, false_is_leaf) in links:
        ensemble.children[node] = true, false
        ensemble.are_leaves[node] = int(true_is_leaf), int(false_is_leaf)
    number, is_leaf = root
    if is_leaf:
        above = ensemble.add_node(0, 0.0, missing_true=True)
        ensemble.children[above], ensemble.are_leaves[above] = (number, number), (1, 1)
        number = above
    ensemble.roots.append(number)


def forest_leaves(members: Sequence[Any]) -> tuple[Ensemble, Any]:
    """Number the leaves of a forest: each tree is a target of its own, and gives the number of the leaf.

    Returns:
        The ensemble, and what stands in the leaves, of shape (n_leaves, n_outputs, n_values).
    """
    ensemble, values = Ensemble(len(members)), []
    for target, member in enumerate(members):
        tree = member.tree_
        are_leaves = tree.children_left < 0
        numbers = np.cumsum(are_leaves) - 1 + len(ensemble.weights)
        add_tree(ensemble, tree, target, numbers.astype(float).tolist())
        values.append(tree.value[are_leaves])
    return ensemble, np.concatenate(values)


def summed_trees(rows: Iterable[Iterable[Any]], start: Sequence[float], rate: float) -> Ensemble:
    """Make an ensemble that adds up scikit-learn's trees: `start`, then row by row `rate` times a tree a target."""
    ensemble = Ensemble(len(start))
    for target, value in enumerate(start):
        ensemble.add_constant(target, value)
    for members in rows:
        for target, member in enumerate(members):
            add_tree(ensemble, member.tree_, target, (rate * member.tree_.value[:, 0, 0]).tolist())
    return ensemble


def lightgbm_trees(dump: dict[str, Any]) -> Ensemble:
    """Make an ensemble of a booster's trees, as its `dump_model` tells of them.

    Source: microsoft/LightGBM, include/LightGBM/tree.h (decisions and missing values), read 2026-11-23.
    """
    n_targets = dump["num_tree_per_iteration"]
    ensemble = Ensemble(n_targets)
    for index, info in enumerate(dump["tree_info"]):
        _link(ensemble, [], _lightgbm_node(ensemble, info["tree_structure"], index % n_targets))
    return ensemble


def _lightgbm_split(threshold: float) -> float:
    """Return the threshold that splits numbers as they are like LightGBM, to which the tiniest are zero."""
    if -LIGHTGBM_ZERO <= threshold < 0.0:
        return float(np.nextafter(-LIGHTGBM_ZERO, -np.inf))
    return max(threshold, LIGHTGBM_ZERO) if threshold >= 0.0 else threshold


def _lightgbm_node(ensemble: Ensemble, node: dict[str, Any], target: int) -> tuple[int, bool]:
    if "split_feature" not in node:
        return ensemble.add_leaf(target, float(node["leaf_value"])), True
    by_category = node["decision_type"] == "=="
    if not by_category and (node["decision_type"] != "<=" or node["missing_type"] == "Zero"):
        raise NotCompiled("a tree that takes zero for missing has no compiled form")
    members = tuple(map(float, node["threshold"].split("||"))) if by_category else ()
    split = 0.0 if by_category else _lightgbm_split(float(node["threshold"]))
    if by_category:
        missing_true = False
    else:
        missing_true = bool(node["default_left"]) if node["missing_type"] == "NaN" else split >= 0.0
    number = ensemble.add_node(int(node["split_feature"]), split, missing_true=missing_true, members=members)
    (true, true_is_leaf), (false, false_is_leaf) = (
        _lightgbm_node(ensemble, node[child], target) for child in ("left_child", "right_child")
    )
    ensemble.children[number] = true, false
    ensemble.are_leaves[number] = int(true_is_leaf), int(false_is_leaf)
    return number, False


def xgboost_trees(model: dict[str, Any], starts: Sequence[float], n_trees: int) -> Ensemble:
    """Make an ensemble of a booster's first trees, as the document that it saves itself in holds them.

    Where trees were dropped out in training each has a weight.

    XGBoost adds in single precision, to the start one tree after the other. So does the ensemble, and gives the same
    to the last bit.

    Source: dmlc/xgboost, include/xgboost/tree_model.h and src/common/categorical.h (what is less goes to the left, a
    category that is named to the right), read 2026-11-23.
    """
    ensemble = Ensemble(len(starts), single=True)
    for target, value in enumerate(starts):
        ensemble.add_constant(target, value)
    weights = np.array(model.get("weight_drop") or np.ones(len(model["trees"])), np.float32)
    trees = zip(model["trees"], model["tree_info"], weights, strict=True)
    for tree, target, weight in islice(trees, n_trees):
        _add_xgboost_tree(ensemble, tree, target, weight)
    return ensemble


def _add_xgboost_tree(ensemble: Ensemble, tree: dict[str, Any], target: int, weight: np.float32) -> None:
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise NotCompiled("XGBoost's trees with several numbers in a leaf have no compiled form")
    lefts, rights, by_category = tree["left_children"], tree["right_children"], tree["split_type"]
    conditions = np.array(tree["split_conditions"], np.float32)
    weights, splits = (weight * conditions).tolist(), np.nextafter(conditions, np.float32(-np.inf)).tolist()
    members = _xgboost_members(tree)
    numbers: dict[int, tuple[int, bool]] = {}
    pending = [0]  # pruned nodes are still among the others
    while pending:
        node = pending.pop()
        if lefts[node] < 0:
            numbers[node] = ensemble.add_leaf(target, weights[node]), True
            continue
        feature, to_left = tree["split_indices"][node], bool(tree["default_left"][node])
        if by_category[node]:
            made = ensemble.add_node(feature, -np.inf, missing_true=not to_left, members=members[node])
        else:
            made = ensemble.add_node(feature, splits[node], missing_true=to_left)
        numbers[node] = made, False
        pending += [lefts[node], rights[node]]
    ways = {node: (rights, lefts) if by_category[node] else (lefts, rights) for node in numbers if lefts[node] >= 0}
    links = ((numbers[node], numbers[true[node]], numbers[false[node]]) for node, (true, false) in ways.items())
    _link(ensemble, links, numbers[0])


def _xgboost_members(tree: dict[str, Any]) -> dict[int, tuple[float, ...]]:
    """Return the categories that a node names, by node."""
    starts, sizes = tree["categories_segments"], tree["categories_sizes"]
    named = (tree["categories"][start : start + size] for start, size in zip(starts, sizes, strict=True))
    return {node: tuple(map(float, some)) for node, some in zip(tree["categories_nodes"], named, strict=True)}
