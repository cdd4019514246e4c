"""Edge rows: they come to every split with its threshold and beside it, and take every feature to its ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from service.compiler import edges
from service.compiler.edges import end_rows, split_rows
from service.compiler.plan import UNSEEN
from service.runtimes.compiled import build
from service.signature import LARGEST_FLOAT32, Feature, Output, Signature
from tests.compiler.test_proof import Draft, draft


def signature_of(**said: Any) -> Signature:
    """A signature of one feature."""
    return Signature(features=(Feature(name="x", **said),), outputs=(Output(name="y", dtype="float64"),))


def values_at_ends(signature: Signature, value: Any) -> list[Any]:
    """What a feature is moved to, where the sample has one row."""
    return end_rows(signature, [{"x": value}]).columns["x"].tolist()


@pytest.mark.parametrize(
    ("said", "value", "wanted"),
    [
        ({"dtype": "string"}, "a", {UNSEEN, ""}),
        ({"dtype": "string", "nullable": True}, "a", {None, UNSEEN, ""}),
        ({"dtype": "string", "categories": ("a", "b"), "closed": True}, "a", {"b"}),
        ({"dtype": "bool"}, True, {True, False}),
        ({"dtype": "int64", "minimum": 1.0, "maximum": 4.0}, 2, {0, 1, 4, 41, 9, -(10**15)}),
        ({"dtype": "float32"}, 2.0, {0.0, LARGEST_FLOAT32}),
        ({"dtype": "float64", "largest": 100.0}, 2.0, {0.0, 100.0, 1e-30}),
    ],
    ids=["text", "text with gaps", "known text", "truth", "whole", "single", "bounded"],
)
def test_ends_of_a_feature(said: dict[str, Any], value: Any, wanted: set[Any]) -> None:
    """A feature is moved to nothing, to what nobody has seen, and to its smallest and largest, as its kind allows."""
    assert wanted <= set(values_at_ends(signature_of(**said), value))


def test_closed_feature_is_never_moved_out_of_its_categories() -> None:
    """What the service refuses is not asked."""
    signature = signature_of(dtype="string", categories=("a", "b"), closed=True)
    assert set(values_at_ends(signature, "a")) == {"a", "b"}


def split_values(made: Draft) -> tuple[Any, Any]:
    """The rows beside a plan's splits, as its trees get them, and the splits that compare."""
    (splits,) = made.plan.splits
    table = split_rows(made.plan.splits, made.plan.arrays, made.it.signature, made.it.table)
    assert table is not None
    matrix = build(splits.of, made.plan.arrays)(table)
    return matrix.astype(np.float32).astype(float) if splits.single else matrix, splits.ensemble


def beside_in_single(matrix: Any, column: int, split: float) -> list[bool]:
    """Whether there are rows at the last single-precision number that goes one way, and the first of the other."""
    single = np.float32(split)
    last = single if single <= split else np.nextafter(single, np.float32(-np.inf))
    return [float(number) in matrix[:, column] for number in (last, np.nextafter(last, np.float32(np.inf)))]


def beside_in_double(matrix: Any, column: int, split: float) -> list[bool]:
    """The same in double precision."""
    return [number in matrix[:, column] for number in (split, np.nextafter(split, np.inf))]


@pytest.mark.parametrize(
    ("case", "beside"),
    [
        ("random forest", beside_in_single),
        ("extra trees", beside_in_single),
        ("gradient boosting regressor", beside_in_single),
        ("mixed columns, forest", beside_in_single),
        ("XGBoost regressor", beside_in_single),
        ("mixed columns, XGBoost", beside_in_single),
        ("histogram boosting", beside_in_double),
        ("LightGBM regressor", beside_in_double),
    ],
)
def test_every_split_has_rows_on_both_sides(case: str, beside: Callable[[Any, int, float], list[bool]]) -> None:
    """For each split of a number there is a row at the last value of one side and one at the first of the other, though
    a scaler stands between."""
    made = draft(case)
    matrix, ensemble = split_values(made)
    numbers = {"a", "b", "c"}
    (splits,) = made.plan.splits
    origins = edges._origins(splits.of, made.plan.arrays)
    asked = [
        beside(matrix, column, split)
        for column, split, ways in zip(ensemble.features, ensemble.splits, ensemble.children, strict=True)
        if origins[column] is not None and origins[column][0] in numbers and ways[0] != ways[1]
    ]
    assert len(asked) > 10
    assert all(all(found) for found in asked)


def test_large_ensemble_is_asked_of_at_even_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an ensemble with more splits than are asked, the trees at both ends and between are."""
    monkeypatch.setattr(edges, "MOST_SPLITS", 60)
    made = draft("random forest")
    (splits,) = made.plan.splits
    matrix = build(splits.of, made.plan.arrays)(made.it.table)
    reached = list(edges._reached(splits.ensemble, matrix))
    assert 0 < len(reached) <= 60


def test_plan_without_trees_has_no_split_rows() -> None:
    """A linear model splits nothing."""
    made = draft("linear regression")
    assert split_rows(made.plan.splits, made.plan.arrays, made.it.signature, made.it.table) is None
