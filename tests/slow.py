"""An estimator that takes its time, so that a request can be caught in the middle."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin


class SlowSum(RegressorMixin, BaseEstimator):
    """Sums its columns, after as many seconds as SLOW_S says; by default so many that threads answer it."""

    def fit(self, rows: Any, target: Any = None) -> SlowSum:
        self.n_features_in_ = np.asarray(rows).shape[1]
        return self

    def predict(self, rows: Any) -> Any:
        time.sleep(float(os.environ.get("SLOW_S", "0.002")))
        return np.asarray(rows, dtype=float).sum(axis=1)
