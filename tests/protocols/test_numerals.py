"""Numbers written by msgspec: byte for byte what the standard library writes."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.protocols.numerals import FEW, encode, encode_ascii, numerals, tokens

PROPERTY = settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
EDGES = [
    *(
        0.0,
        -0.0,
        1.0,
        0.1,
        1e-4,
        9.999999999999999e-05,
        0.00010000000000000002,
        1e-5,
        1.5e-7,
        5e-324,
        2.2250738585072014e-308,
    ),
    *(1e15, 9999999999999998.0, 1e16, 1.0000000000000002e16, 123456789012345680.0, 1e22, 1e23, 1.7976931348623157e308),
]
EDGES += [-edge for edge in EDGES]
NUMBERS = FLOATS | st.sampled_from(EDGES) | st.floats(-1, 1) | st.floats(1e-6, 1e-3) | st.floats(1e15, 1e17)


def by_json(document: Any) -> bytes:
    """A document as the standard library writes it."""
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()


def by_csv(rows: list[list[Any]]) -> list[bytes]:
    """Rows as the standard library writes them."""
    target = io.StringIO(newline="")
    csv.writer(target, lineterminator="\n").writerows(rows)
    return target.getvalue().encode().splitlines()


def grid(numbers: list[float], width: int, dtype: str = "float64") -> Any:
    """Numbers in rows of a width, as many as fill them; without any rows where the width is 0."""
    array = np.array(numbers, dtype)
    return array if width == 0 else np.resize(array, (-(-len(numbers) // width), width))


@PROPERTY
@given(st.lists(NUMBERS, min_size=1, max_size=8), st.integers(0, 4), st.sampled_from([1, FEW + 1]))
def test_numerals_are_written_as_json_writes_them(numbers: list[float], width: int, times: int) -> None:
    """Any floats, few or many, in a row or in rows, are the same bytes by both writers."""
    array = grid(numbers * times, width)
    assert encode(numerals(array)) == by_json(array.tolist())


@PROPERTY
@given(st.lists(NUMBERS, min_size=1, max_size=8), st.integers(0, 4), st.sampled_from([1, FEW + 1]))
def test_tokens_are_written_as_csv_writes_them(numbers: list[float], width: int, times: int) -> None:
    """Any floats, few or many, in a row or in rows, are the same cells by both writers."""
    array = grid(numbers * times, width)
    assert tokens(array) == by_csv(array.reshape(len(array), -1).tolist())


@pytest.mark.parametrize("times", [1, FEW + 1])
@pytest.mark.parametrize("width", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int64", "uint64", "bool"])
def test_numerals_of_every_dtype(dtype: str, width: int, times: int) -> None:
    """Numbers of every width, and booleans, are what json writes; their limits are the doubles' own."""
    values: list[Any] = [0, 1] * times
    if dtype.startswith("float"):
        values += [1e-4, 0.001, 1e-5, 6e-8, 1000.5, -1e-4, 1e16 if dtype == "float32" else 60000.0]
    elif dtype != "bool":
        values += [np.iinfo(dtype).min, np.iinfo(dtype).max]
    array = grid(values, width, dtype)
    assert encode(numerals(array)) == by_json(array.tolist())


@pytest.mark.parametrize("edge", EDGES)
def test_numerals_at_the_edges(edge: float) -> None:
    """The numbers at which one writer turns to exponents are written as Python writes them."""
    for array in (np.array([edge]), np.array([0.5] * FEW + [edge])):
        assert encode(numerals(array)) == by_json(array.tolist())


@pytest.mark.parametrize("times", [1, FEW + 1])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numerals_refuse_what_is_no_number(value: float, times: int) -> None:
    """NaN and infinity, which msgspec would write as null, are left to json, which refuses them."""
    for array in (np.array([0.5] * times + [value]), np.array([[0.5, value]] * times)):
        assert numerals(array) is None and tokens(array) is None


@pytest.mark.parametrize(
    "array",
    [
        np.array(["1"]),
        np.array([1.5], object),
        np.array([1j]),
        np.array([1.5], np.longdouble),
        np.zeros((1, 1, 1)),
        np.zeros((1, 1, 1), int),
        np.array(1.5),
        np.array(1),
        np.array(["2026-11-22"], "datetime64[D]"),
    ],
    ids=lambda array: f"{array.dtype} {array.ndim}",
)
def test_numerals_leave_other_arrays_alone(array: Any) -> None:
    """Arrays of anything else, or of more dimensions than a table, are left to the standard library."""
    assert numerals(array) is None


@pytest.mark.parametrize("shape", [(0,), (0, 2), (2, 0)])
def test_tokens_need_a_cell(shape: tuple[int, ...]) -> None:
    """Rows without cells are left to the standard library."""
    assert tokens(np.zeros(shape)) is None


@PROPERTY
@given(st.dictionaries(st.text(max_size=3), st.text(st.characters() | st.characters(max_codepoint=0x7F), max_size=5)))
def test_encoded_text_is_what_json_writes(document: dict[str, str]) -> None:
    """Text, half a surrogate pair too, is written as json writes it or not at all, and ASCII always."""
    found = encode_ascii(document)
    plain = "".join([*document, *document.values()])
    if found is None:
        assert not plain.isascii() or "\x7f" in plain
    else:
        assert found == by_json(document) + b"\n"
