"""Small trees from masks against onnxruntime: microseconds a call, by how many rows are asked at once.

    python -m bench.trees

It shows what `service.compiler.leaf_masks` keeps within its bounds: the two take turns on the same ensembles, drawing
other rows each time, and the least of each is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from service.compiler.graph import Ensemble, graph_bytes
from service.compiler.leaf_masks import leaf_masks
from service.compiler.trees import add_histogram_tree
from service.runtimes.leaf_masks import small_trees
from service.runtimes.operators import trees

ROUNDS = 15
TRAINING_ROWS = 3000


def boosted(n_features: int, n_leaves: int) -> tuple[Ensemble, Any]:
    """Fit a hundred rounds of three classes, and return the trees and rows like those that they learnt from."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(TRAINING_ROWS, n_features))
    labels = (rows[:, 0] * rows[:, 1] + rows[:, 2] > 0).astype(int) + (rows[:, 3] > 1)
    model = HistGradientBoostingClassifier(max_leaf_nodes=n_leaves, early_stopping=False).fit(rows, labels)
    ensemble = Ensemble(3)
    for members in model._predictors:
        for target, member in enumerate(members):
            add_histogram_tree(ensemble, member, target)
    return ensemble, rows


def compare(calls: dict[str, Callable[[Any], Any]], rows: Any, count: int) -> dict[str, float]:
    """Return the least time of each call on so many rows."""
    random, least = np.random.default_rng(1), dict.fromkeys(calls, float("inf"))
    repeats = max(2, 500 // count)
    for _ in range(ROUNDS):
        asked = [rows[random.integers(len(rows), size=count)] for _ in range(repeats)]
        for name, call in calls.items():
            began = time.thread_time()
            for each in asked:
                call(each)
            least[name] = min(least[name], (time.thread_time() - began) / repeats * 1e6)
    return least


def main() -> None:
    """Print the table."""
    print("features leaves    masks   rows  onnxruntime    masks")
    for n_features in (8, 24, 48):
        for n_leaves in (8, 31):
            ensemble, rows = boosted(n_features, n_leaves)
            found = leaf_masks(ensemble)
            if found is None:
                print(f"{n_features:8} {n_leaves:6}     none")
                continue
            graph = np.frombuffer(graph_bytes(ensemble, n_features), np.uint8)
            calls: dict[str, Callable[[Any], Any]] = {
                "onnxruntime": trees(lambda asked: asked, graph, False),
                "masks": small_trees(lambda asked: asked, **vars(found), n_targets=3, single=False),
            }
            for count in (1, 10, 100, 1000):
                least = compare(calls, rows, count)
                print(
                    f"{n_features:8} {n_leaves:6} {found.masks.nbytes / 2**20:4.1f} MiB {count:6} "
                    f"{least['onnxruntime']:9.0f} us {least['masks']:6.0f} us"
                )


if __name__ == "__main__":
    main()
