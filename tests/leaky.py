"""An estimator that keeps some memory at every prediction, as careless models do."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

KEPT: list[bytes] = []


class LeakySum(RegressorMixin, BaseEstimator):
    """Sums its columns, and keeps as many MiB each time as LEAK_MIB says."""

    def fit(self, rows: Any, target: Any = None) -> LeakySum:
        self.n_features_in_ = np.asarray(rows).shape[1]
        return self

    def predict(self, rows: Any) -> Any:
        KEPT.append(b"x" * int(float(os.environ.get("LEAK_MIB", "0")) * 2**20))
        return np.asarray(rows, dtype=float).sum(axis=1)
