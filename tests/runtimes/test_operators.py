"""The operators of compiled models, each alone: what it makes of numbers, of text, and of what is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.runtimes.operators import FUNCTIONS, OPERATORS, SHARES
from service.table import Table

NAN = np.nan


def table(**columns: Any) -> Table:
    """A table of these columns; text is an array of objects."""
    arrays = {name: np.array(cells, object if isinstance(cells[0], str) else None) for name, cells in columns.items()}
    return Table(arrays, len(next(iter(arrays.values()))))


def matrix(*rows: Any) -> Any:
    """A step that gives a matrix of its own, as every step does."""
    return lambda asked: np.array(rows, dtype=float)


EMPTY = table(x=[0.0])


@pytest.mark.parametrize(
    ("operator", "settings", "expected"),
    [
        ("impute", {"values": np.array([5.0, 6.0]), "flags": [1]}, [[1, 6, 1], [5, 4, 0]]),
        ("impute", {"values": np.array([NAN, 6.0]), "flags": []}, [[6], [4]]),
        ("take", {"columns": np.array([1, 1, 0])}, [[NAN, NAN, 1], [4, 4, NAN]]),
        ("truncate", {"columns": [1]}, [[1, NAN], [NAN, 4]]),
        ("calculate", {"steps": [["subtract", 1.0], ["divide", 2.0]]}, [[0, NAN], [NAN, 1.5]]),
        ("calculate", {"steps": [["at_least", 2.0], ["at_most", 3.0]]}, [[2, NAN], [NAN, 3]]),
        ("apply", {"function": "square"}, [[1, NAN], [NAN, 16]]),
        ("powers", {"exponents": np.array([[0, 0], [1, 0], [2, 0]])}, [[1, 1, 1], [1, NAN, NAN]]),
    ],
)
def test_numbers_with_gaps(operator: str, settings: dict[str, Any], expected: Any) -> None:
    """What is missing stays missing, but where it is to be replaced."""
    found = OPERATORS[operator](matrix([1.0, NAN], [NAN, 4.0]), **settings)(EMPTY)
    np.testing.assert_array_equal(found, np.array(expected, dtype=float))


@pytest.mark.parametrize(("number", "whole"), [(2.7, 2.0), (-0.5, 0.0), (-2.7, -2.0), (3.0, 3.0)])
def test_truncate_cuts_towards_zero(number: float, whole: float) -> None:
    """A fraction is cut off towards zero, on both sides of it."""
    assert OPERATORS["truncate"](matrix([number]), columns=[0])(EMPTY).tolist() == [[whole]]


@pytest.mark.parametrize(
    ("norm", "expected"),
    [("l1", [[0.6, -0.4], [0, 0]]), ("l2", [[3 / 13**0.5, -2 / 13**0.5], [0, 0]]), ("max", [[1, -2 / 3], [0, 0]])],
)
def test_normalize_leaves_zeros(norm: str, expected: Any) -> None:
    """A row is divided by its norm, and a row of zeros stays."""
    found = OPERATORS["normalize"](matrix([3.0, -2.0], [0.0, 0.0]), norm=norm)(EMPTY)
    np.testing.assert_allclose(found, expected, rtol=1e-15)


PLACES = [[[["a", 0], ["b", 1], [None, -1]], 2]]


def test_one_hot_places_values() -> None:
    """A known value has its place, a missing one may have none, and all others share one."""
    found = OPERATORS["one_hot"](OPERATORS["features"](["t"]), places=PLACES, width=3)(table(t=["b", None, "x"]))
    assert found.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_ordinal_gives_codes() -> None:
    """A known value has its number, and where there is none it is NaN."""
    codes = [[[["a", 0.0], [None, None]], 9.0]]
    found = OPERATORS["ordinal"](OPERATORS["features"](["t"]), codes=codes)(table(t=["a", None, "x"]))
    np.testing.assert_array_equal(found, [[0.0], [NAN], [9.0]])


@pytest.mark.parametrize(
    ("cells", "value", "expected"),
    [
        (["a", None], "z", ["a", "z"]),
        ([1.0, NAN], 5.0, [1.0, 5.0]),
        ([1, 2], 5, [1, 2]),
        (["a", None], None, ["a", None]),
        ([1.0, NAN], None, [1.0, None]),
    ],
    ids=str,
)
def test_fill_replaces_what_is_missing(cells: Any, value: Any, expected: Any) -> None:
    """A missing cell gets the value, if there is one; the table's own column stays as it was."""
    asked = table(x=cells)
    before = asked.columns["x"].copy()
    found = OPERATORS["fill"](OPERATORS["features"](["x"]), values=[value])(asked)
    assert found == [expected]
    np.testing.assert_array_equal(asked.columns["x"], before)


@pytest.mark.parametrize("number", [0.0, 1.5, 800.0, -800.0])
def test_sigmoid_does_not_overflow(number: float) -> None:
    """Both ends are reached without a warning, and the two sides add up to one."""
    there, back = FUNCTIONS["sigmoid"](np.array([[number], [-number]])).ravel().tolist()
    assert there == pytest.approx(np.exp(-np.logaddexp(0.0, -number)), rel=1e-12)
    assert there + back == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize("shares", ["sigmoid", "softmax"])
@pytest.mark.parametrize("scores", [[0.5], [-1e6], [1e6]])
def test_shares_of_two_classes_add_up(shares: str, scores: list[float]) -> None:
    """Of one score there are two probabilities, which add up to one."""
    found = SHARES[shares](np.array([scores]))
    assert found.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("scores", [[1e6, 0.0, 3.0], [-1e6, -1e6, -1e6], [0.0, 0.0, 0.0]])
@pytest.mark.parametrize("shares", ["softmax", "one-against-rest"])
def test_shares_are_never_nan(shares: str, scores: list[float]) -> None:
    """However far the scores lie, probabilities add up to one; where no class has any, they are equal."""
    found = SHARES[shares](np.array([scores]))
    assert found.sum() == pytest.approx(1.0)
    assert len(set(scores)) > 1 or np.allclose(found, 1 / 3)


def test_class_of_one_score_is_the_second_above_zero() -> None:
    """A score of exactly zero is the first class, as scikit-learn has it."""
    answer = OPERATORS["classification"](matrix([0.0], [1e-300], [-1.0]), classes=["no", "yes"], shares="sigmoid")
    assert answer(EMPTY, False).predictions.tolist() == ["no", "yes", "no"]
    assert answer(EMPTY, False).probabilities is None


def test_class_of_equal_scores_is_the_first() -> None:
    """Among equal scores the first class wins, as scikit-learn has it."""
    answer = OPERATORS["classification"](matrix([1.0, 1.0, 0.0], [0.0, 2.0, 2.0]), classes=[7, 8, 9], shares="same")
    assert answer(EMPTY, True).predictions.tolist() == [7, 8]


def test_votes_go_to_the_first_of_a_pair_above_zero() -> None:
    """A pair's first class has its vote where the number is positive, else the second."""
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    found = OPERATORS["votes"](matrix([1.0, -1.0, 0.0]), pairs=pairs, n_classes=3)(EMPTY)
    assert found.tolist() == [[1, 0, 2]]


def test_several_keep_their_kinds() -> None:
    """Outputs of two kinds stand side by side as what they are."""
    label = OPERATORS["classification"](matrix([1.0, 0.0]), classes=["a", "b"], shares="same")
    number = OPERATORS["regression"](matrix([2.5]), link="identity")
    found = OPERATORS["several"]([label, number])(EMPTY, False)
    assert found.predictions.tolist() == [["a", 2.5]]
