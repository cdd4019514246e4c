"""Describes a sample: how each feature is distributed, what kind of task it is, and how well the model does on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.errors import PackingError
from service.manifest import Statistics
from service.packing.sample import Sample, infer_dtype
from service.signature import Feature, Signature, Task
from service.table import Column, Table

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MAX_SHARES = 20


def describe_columns(signature: Signature, table: Table) -> dict[str, Statistics]:
    """Describe every feature of the sample."""
    return {feature.name: _describe(feature, table.columns[feature.name]) for feature in signature.features}


def _describe(feature: Feature, column: Column) -> Statistics:
    values = column.tolist()
    present = [value for value in values if value is not None and value == value]
    missing_share = round(1 - len(present) / len(values), 6)
    if not present or feature.dtype in ("datetime", "datetime-string"):
        return Statistics(missing_share=missing_share)
    if feature.dtype in ("string", "bool"):
        common = Counter(map(str, present)).most_common(MAX_SHARES)
        shares = {value: round(count / len(present), 6) for value, count in common if count > 1}
        return Statistics(missing_share=missing_share, shares=shares)
    numbers = np.array(present, dtype=float)
    return Statistics(
        missing_share=missing_share,
        mean=float(numbers.mean()),
        std=float(numbers.std()),
        quantiles=tuple(np.quantile(numbers, QUANTILES).tolist()),
    )


def target_values(sample: Sample, target: str, predictions: Column) -> list[Any]:
    """Return the target column as values of the type that the model predicts; None where missing or unreadable."""
    texts = any(isinstance(value, str) for value in predictions.flat)
    dtype = "string" if texts else infer_dtype(sample.present(target), has_missing=False)
    return sample.values(Feature(name=target, dtype=dtype))


def settle_task(task: Task, targets: Sequence[str], truths: Sequence[list[Any]]) -> Task:
    """Take the model's word for the task; where it says nothing, numbers with fractions as a target mean regression.

    Raises:
        PackingError: If a classifier's target has only one class in the sample.
    """
    for target, values in zip(targets, truths, strict=True):
        if len({value for value in values if value is not None}) < 2 and task in ("classification", "regression"):
            raise PackingError(
                f"the target {target!r} has the same value in every row of the sample; give a sample with two, "
                "or leave out --target"
            )
    fractions = any(isinstance(value, float) for values in truths for value in values)
    return "regression" if task == "other" and fractions else task


def measure_quality(
    task: Task, names: Sequence[str], truths: Sequence[list[Any]], predictions: Column
) -> dict[str, float]:
    """Measure the model on the sample: accuracy for classes; r2 and mean absolute error for numbers."""
    if task not in ("classification", "regression") or len(truths) != len(names):
        return {}
    answers = predictions.reshape(len(predictions), -1)
    metrics: dict[str, float] = {}
    for index, (name, truth) in enumerate(zip(names, truths, strict=True)):
        prefix = f"{name}_" if len(names) > 1 else ""
        pairs = [(a, t) for a, t in zip(answers[:, index].tolist(), truth, strict=True) if t is not None]
        quality = _accuracy(pairs) if task == "classification" else _closeness(pairs)
        metrics |= {f"{prefix}{metric}": round(value, 6) for metric, value in quality.items()}
    return metrics


def _accuracy(pairs: list[tuple[Any, Any]]) -> dict[str, float]:
    return {"accuracy": sum(answer == truth for answer, truth in pairs) / len(pairs)}


def _closeness(pairs: list[tuple[Any, Any]]) -> dict[str, float]:
    try:
        answers, truths = np.array(pairs, dtype=float).T
    except ValueError as error:
        raise PackingError(
            "the target holds text and the model answers numbers; name the right column by --target"
        ) from error
    spread = float(((truths - truths.mean()) ** 2).sum())
    quality = {"mean_absolute_error": float(np.abs(answers - truths).mean())}
    return quality | ({"r2": 1 - float(((answers - truths) ** 2).sum()) / spread} if spread else {})
