"""The compiled runtime: what it writes it reads, and of what is not that it executes and allocates nothing."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from service.errors import UnreadableModel
from service.runtimes import Policy, Source
from service.runtimes.compiled import bind, build, load, write
from service.signature import Feature, Output, Signature
from service.table import table_from_columns

SIGNATURE = Signature(
    features=(Feature(name="a", dtype="float64"), Feature(name="b", dtype="int64")),
    outputs=(Output(name="y", dtype="float64"),),
)
ARRAYS: dict[str, Any] = {"w": np.array([[2.0, -1.0]]), "b": np.array([0.5])}
NUMBERS = {"op": "numbers", "names": ["a", "b"]}
LINEAR = {"op": "linear", "of": NUMBERS, "weights": {"array": "w"}, "bias": {"array": "b"}}
PLAN: Any = {"op": "regression", "of": LINEAR, "link": "identity"}


def read(content: bytes) -> Any:
    """Load a compiled form under the strictest policy."""
    return load(io.BytesIO(content), Source("it/1"), Policy(pickle=False)).model


def test_what_is_written_is_read() -> None:
    """A plan and its arrays come back as steps that calculate with them."""
    table = table_from_columns(SIGNATURE, {"a": [1.0, 2.0], "b": [3, 4]})
    runtime = bind(read(write(PLAN, ARRAYS)), SIGNATURE, "table")
    assert runtime.predict(table, False).predictions.tolist() == [-0.5, 0.5]


def test_predicting_leaves_the_table_as_it_was() -> None:
    """Steps that calculate in place do so in their own matrix, and never in the request's columns or the arrays."""
    scaled = {"op": "calculate", "of": NUMBERS, "steps": [["subtract", {"array": "b"}], ["multiply", 3.0]]}
    filled = {"op": "impute", "of": scaled, "values": {"array": "v"}, "flags": [1]}
    arrays = ARRAYS | {"v": np.array([7.0, 8.0])}
    kept = {key: array.copy() for key, array in arrays.items()}
    table = table_from_columns(SIGNATURE, {"a": [1.0, 2.0], "b": [3, 4]})
    step = build(filled, arrays)
    first, second = step(table), step(table)
    assert first.tolist() == second.tolist()
    assert [column.tolist() for column in table.columns.values()] == [[1.0, 2.0], [3, 4]]
    assert all(np.array_equal(kept[key], arrays[key]) for key in kept)


def test_numbers_that_overflow_warn_nobody() -> None:
    """What is not finite is left to whoever asks: it is no warning."""
    table = table_from_columns(SIGNATURE, {"a": [1e308], "b": [0]})
    runtime = bind(read(write(PLAN, ARRAYS | {"w": np.array([[1e10, 0.0]])})), SIGNATURE, "table")
    assert runtime.predict(table, False).predictions.tolist() == [np.inf]


@pytest.mark.parametrize(
    "plan",
    [
        None,
        [],
        {},
        {"op": "eval", "of": "1"},
        {"op": "regression"},
        PLAN | {"more": 1},
        PLAN | {"of": {"array": "x"}},
        PLAN | {"of": LINEAR | {"weights": {"array": "x"}}},
        PLAN | {"op": ["regression"]},
    ],
    ids=json.dumps,
)
def test_refuses_plan_that_is_none(plan: Any) -> None:
    """A plan of which no steps can be made is unreadable, and the message says how to make it anew."""
    with pytest.raises(UnreadableModel, match="it/1.*run `flask compile` again"):
        read(write(plan, ARRAYS))


def test_refuses_what_is_larger_than_its_file() -> None:
    """A file that would grow when it is read is refused: it is no file of the compiler's."""
    target = io.BytesIO()
    named: dict[str, Any] = ARRAYS | {"plan": np.frombuffer(json.dumps(PLAN).encode(), np.uint8)}
    np.savez_compressed(target, zeros=np.zeros(10**6), **named)
    with pytest.raises(UnreadableModel, match="ValueError"):
        read(target.getvalue())
