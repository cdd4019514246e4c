"""Tables: checked columns out of rows or columns, and every fault by row and feature."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import (
    MAX_FAULTS,
    EmptyInstances,
    Fault,
    InvalidInstance,
    InvalidInstances,
    MissingFeature,
    NumberOutOfRange,
    RequestError,
    TooManyRows,
    UnknownFeature,
)
from service.signature import INT64_MAX, INT64_MIN, LARGEST_FLOAT32, Dtype, Feature, Signature
from service.table import (
    NUMPY_DTYPES,
    Column,
    Faults,
    Row,
    Table,
    _column_at_once,
    _column_by_cell,
    check_column,
    check_size,
    describe,
    table_from_columns,
    table_from_rows,
)
from tests.test_signature import (
    DTYPES,
    EDGE_NUMBERS,
    NO_MOMENTS,
    PROPERTY,
    cells,
    features,
    fitting_cells,
    signature,
)

LENGTH = Feature(name="length", dtype="float64")
COUNT = Feature(name="count", dtype="int64")
TOWN = Feature(name="town", dtype="string")
THREE = signature(LENGTH, COUNT, TOWN)
GOOD = {"length": 1.5, "count": 2, "town": "Oslo"}


def only(dtype: Dtype, **facts: Any) -> Signature:
    """A signature with one feature, called a."""
    return signature(Feature(name="a", dtype=dtype, **facts))


def column_of(of: Signature, *values: Any) -> Column:
    """The first feature's column, made of one-cell rows."""
    return table_from_rows(of, [[value] for value in values]).columns["a"]


def refusal(of: Signature, rows: list[Any]) -> RequestError:
    """The error that these rows raise."""
    with pytest.raises(RequestError) as caught:
        table_from_rows(of, rows)
    return caught.value


def refusal_of_columns(of: Signature, columns: dict[str, Any]) -> RequestError:
    """The error that these columns raise."""
    with pytest.raises(RequestError) as caught:
        table_from_columns(of, columns)
    return caught.value


def places(error: RequestError) -> list[tuple[int | None, str | None]]:
    """Where the faults of an error are."""
    return [(fault.row, fault.feature) for fault in error.faults]


def assert_same(left: Column, right: Column) -> None:
    """Check that two columns have one type, one length and the same values."""
    assert left.dtype == right.dtype
    assert list(map(repr, left.tolist())) == list(map(repr, right.tolist()))


# The two ways of checking a column


@PROPERTY
@given(st.data())
def test_fast_path_agrees_with_the_cells(data: st.DataObject) -> None:
    """Where a column is converted at once, the look at single cells finds no fault and makes the same array."""
    feature = data.draw(features())
    values = data.draw(st.lists(fitting_cells(feature), max_size=4))
    values += data.draw(st.lists(cells(), max_size=1))
    at_once = _column_at_once(feature, values)
    if at_once is not None:
        faults = Faults()
        assert_same(at_once, _column_by_cell(feature, values, faults))
        assert faults.listed == []


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", EDGE_NUMBERS + NO_MOMENTS, ids=lambda value: ascii(value)[:30])
def test_neighbour_does_not_change_the_verdict(dtype: Dtype, nullable: bool, value: Any) -> None:
    """A cell is accepted or refused, and converted, alike whether its column holds a faulty cell or none."""
    feature = Feature(name="a", dtype=dtype, nullable=nullable)
    alone, beside = Faults(), Faults()
    column = check_column(feature, [value], alone)
    together = check_column(feature, [value, {}], beside)
    assert [fault for fault in beside.listed if fault.row == 0] == alone.listed
    if not alone.listed:
        assert_same(column, together[:1])


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("float64", [1, 2.5, None], [1.0, 2.5, math.nan]),
        ("float32", [1, 2.5, None], [1.0, 2.5, math.nan]),
        ("int64", [1, 2.0, None], [1, 2, None]),
        ("bool", [True, False, None], [True, False, None]),
        ("string", ["", "é", None], ["", "é", None]),
        ("datetime", ["2024-05-01T12:00:00+02:00", None], [datetime(2024, 5, 1, 10), None]),
        ("datetime-string", ["2024-05-01T12:00:00+02:00", None], ["2024-05-01T12:00:00+02:00", None]),
    ],
)
def test_column_holds_nulls_of_its_type(dtype: Dtype, values: list[Any], expected: list[Any]) -> None:
    """Null is NaN among floats, NaT among moments, and None among objects."""
    assert list(map(repr, column_of(only(dtype, nullable=True), *values).tolist())) == list(map(repr, expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_column_has_its_numpy_type(dtype: Dtype) -> None:
    """A column without missing values has the numpy type of its feature."""
    value = {"bool": True, "string": "x", "datetime": "2024-05-01", "datetime-string": "2024-05-01"}.get(dtype, 1)
    assert column_of(only(dtype), value, value).dtype == NUMPY_DTYPES[dtype]


@pytest.mark.parametrize("row", [{"b": True}, {"a": None, "b": True}], ids=["absent", "null"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_optional_feature_may_be_absent(dtype: Dtype, row: dict[str, Any]) -> None:
    """An absent optional feature counts as null, whatever its type, even where it is not called nullable."""
    of = signature(Feature(name="a", dtype=dtype, required=False), Feature(name="b", dtype="bool"))
    [value] = table_from_rows(of, [row]).columns["a"].tolist()
    assert value is None or math.isnan(value)


# Values


@pytest.mark.parametrize("value", [INT64_MIN, INT64_MAX, 2**53 + 1, -1, 0, 3.0, -0.0])
def test_int64_takes_every_whole_number_in_its_range(value: float) -> None:
    """A whole number within 64 bits is taken exactly, with a point and a zero too."""
    assert column_of(only("int64"), value).tolist() == [int(value)]


@pytest.mark.parametrize("value", [INT64_MIN - 1, INT64_MAX + 1, float(INT64_MAX), 1e300, 10**400, math.inf, -math.inf])
def test_1_6_int64_refuses_numbers_beyond_64_bits(value: float) -> None:
    """A number that does not fit into 64 bits is out of range, never wrapped or rounded."""
    assert type(refusal(only("int64"), [[value]])) is NumberOutOfRange


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400, -(10**400)])
def test_1_4_float_refuses_what_is_not_finite(dtype: Dtype, value: float) -> None:
    """Infinity, NaN and numbers that overflow a double are out of range."""
    assert type(refusal(only(dtype), [[value]])) is NumberOutOfRange


@pytest.mark.parametrize("value", [LARGEST_FLOAT32, -LARGEST_FLOAT32, 0.1, 5e-324])
def test_1_6_float32_takes_what_is_finite_in_it(value: float) -> None:
    """A number up to the largest float32 is rounded to float32."""
    assert column_of(only("float32"), value).tolist() == [float(np.float32(value))]


@pytest.mark.parametrize("value", [3.4028235e38, 3.5e38, -3.5e38, 1e39, 10**39, 1e300])
def test_1_6_float32_refuses_what_is_infinite_in_it(value: float) -> None:
    """A number beyond the largest float32 is out of range, without a warning."""
    assert type(refusal(only("float32"), [[value]])) is NumberOutOfRange


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_largest_is_the_last_number_taken(dtype: Dtype) -> None:
    """A feature's own limit is taken, the next double is not, and the sign does not matter."""
    of, beyond = only(dtype, largest=0.1), math.nextafter(0.1, 1)
    assert len(column_of(of, 0.1, -0.1)) == 2
    assert places(refusal(of, [[beyond], [-beyond]])) == [(0, "a"), (1, "a")]


@pytest.mark.parametrize(
    ("dtype", "value", "words"),
    [
        ("float64", True, "expected a number, found true"),
        ("float64", "1.5", "expected a number, found the text '1.5'"),
        ("float32", [1], "expected a number, found a list"),
        ("int64", False, "expected a whole number, found false"),
        ("int64", 3.5, "expected a whole number, found the number 3.5"),
        ("int64", "3", "expected a whole number, found the text '3'"),
        ("bool", 1, "expected true or false, found the number 1"),
        ("bool", "true", "expected true or false, found the text 'true'"),
        ("string", 1, "expected text, found the number 1"),
        ("string", {}, "expected text, found an object"),
        ("datetime", 0, "expected an ISO 8601 date or time as text, found the number 0"),
        ("datetime", "now", "expected an ISO 8601 date or time as text, found the text 'now'"),
        ("datetime-string", "2024-13-01", "expected an ISO 8601 date or time as text, found the text '2024-13-01'"),
        ("float64", None, "'a' is null and the model takes no missing value here"),
    ],
)
def test_1_4_value_of_another_type_is_refused(dtype: Dtype, value: Any, words: str) -> None:
    """Nothing is coerced: the fault says what was expected and what was found."""
    error = refusal(only(dtype), [[value]])
    assert type(error) is InvalidInstance
    assert error.faults == (Fault("invalid-instance", words, 0, "a"),)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
@pytest.mark.parametrize("dtype", ["datetime", "datetime-string"])
def test_moment_beyond_the_calendar_is_refused(dtype: Dtype, text: str) -> None:
    """A moment that its offset moves out of the years 1 to 9999 is a fault of the request, not of the service."""
    assert type(refusal(only(dtype), [[text]])) is InvalidInstance


@pytest.mark.parametrize("text", ["\ud83d", "a\udc00b", "2024-05-01\ud80012:00"])
@pytest.mark.parametrize("dtype", ["string", "datetime", "datetime-string"])
def test_half_a_surrogate_pair_is_refused(dtype: Dtype, text: str) -> None:
    """Text that UTF-8 cannot hold never reaches a model, in a date neither."""
    assert type(refusal(only(dtype), [[text]])) is InvalidInstance


@pytest.mark.parametrize("text", ["2024-05-01\x0012:00", "2024-05-01x12:00", "2024-05-01\n12:00", "2024-W01-1"])
def test_date_as_text_is_spelt_plainly(text: str) -> None:
    """A date that a model gets as text is a year, month and day, then T or a space; others would fail in the model."""
    assert type(refusal(only("datetime-string"), [[text]])) is InvalidInstance


def test_halves_of_a_pair_do_not_join_across_rows() -> None:
    """Two halves of a surrogate pair in neighbouring rows are two faults."""
    assert places(refusal(only("string"), [["\ud83d"], ["\ude00"]])) == [(0, "a"), (1, "a")]


@pytest.mark.parametrize(
    ("dtype", "categories", "value"), [("string", ("b", "a"), "a"), ("int64", (3, 1), 1), ("int64", (3, 1), 3.0)]
)
def test_closed_feature_takes_its_categories(dtype: Dtype, categories: Any, value: Any) -> None:
    """A closed feature takes each of its categories."""
    assert column_of(only(dtype, categories=categories, closed=True), value).tolist() == [value]


@pytest.mark.parametrize(
    ("dtype", "categories", "value"),
    [("string", ("b", "a"), "A"), ("string", ("b", "a"), ""), ("int64", (3, 1), 2), ("int64", (3, 1), -1)],
)
def test_closed_feature_refuses_other_values(dtype: Dtype, categories: Any, value: Any) -> None:
    """A closed feature refuses everything else, and names what is known."""
    error = refusal(only(dtype, categories=categories, closed=True), [[value]])
    assert type(error) is InvalidInstance
    assert "known are " + ", ".join(map(str, categories)) in error.detail


def test_open_feature_takes_unknown_categories() -> None:
    """Categories of an open feature describe and do not refuse."""
    assert column_of(only("string", categories=("a",)), "unseen").tolist() == ["unseen"]


def test_known_values_in_a_fault_are_cut() -> None:
    """A fault stays short where a feature has thousands of categories."""
    of = only("string", categories=tuple(f"category-{number}" for number in range(5000)), closed=True)
    assert len(refusal(of, [["x"]]).detail) < 250


def test_many_categories_are_looked_up() -> None:
    """10,000 cells of a feature with 50,000 categories are checked without searching through them."""
    of = only("string", categories=tuple(map(str, range(50_000))), closed=True)
    assert column_of(of, *["49999"] * 10_000).tolist() == ["49999"] * 10_000


def test_faults_of_many_categories_are_cheap() -> None:
    """A thousand faulty cells of a feature with thousands of categories are refused without quadratic work."""
    of = only("string", categories=tuple(f"category-{number}" for number in range(5000)), closed=True)
    refusal(of, [["x"]] * 1000)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "true"),
        (None, "null"),
        (3, "the number 3"),
        (-2.5, "the number -2.5"),
        (10**40, "a very large number"),
        ("a\n", "the text 'a\\n'"),
        ([1], "a list"),
        ({"a": 1}, "an object"),
        (b"", "another type"),
    ],
)
def test_describe_names_type_and_value(value: Any, words: str) -> None:
    """A value is named by its type, with the value itself where it is short."""
    assert describe(value) == words


@pytest.mark.parametrize("value", ["x" * 100_000, "é" * 50, "\ud83d" * 50, 10**40, [[]] * 1000], ids=range(5))
def test_describe_is_short(value: Any) -> None:
    """The description of any value is short and made of characters that UTF-8 has."""
    assert len(describe(value).encode()) < 300


# Rows


@pytest.mark.parametrize(
    "row", [GOOD, dict(reversed(GOOD.items())), [1.5, 2, "Oslo"]], ids=["object", "any order", "list"]
)
def test_row_is_an_object_or_a_list(row: Any) -> None:
    """A row is an object in any order or a list in signature order; both make the same columns."""
    table = table_from_rows(THREE, [row, row])
    assert table.n_rows == 2
    assert {name: column.tolist() for name, column in table.columns.items()} == {
        "length": [1.5, 1.5],
        "count": [2, 2],
        "town": ["Oslo", "Oslo"],
    }


def test_rows_of_both_kinds_may_be_mixed() -> None:
    """Objects and lists may stand in one request."""
    assert table_from_rows(THREE, [GOOD, [2.5, 3, "Bergen"]]).columns["town"].tolist() == ["Oslo", "Bergen"]


def test_columns_stand_in_signature_order() -> None:
    """A table's columns are in signature order, whatever the order of the request."""
    assert list(table_from_rows(THREE, [dict(reversed(GOOD.items()))]).columns) == list(THREE.names)
    assert list(table_from_columns(THREE, {n: [GOOD[n]] for n in reversed(GOOD)}).columns) == list(THREE.names)


@pytest.mark.parametrize("row", ["Oslo", ["Oslo"], {"a": "Oslo"}], ids=["bare", "list", "object"])
def test_one_feature_takes_bare_values(row: Any) -> None:
    """A model with one feature takes bare values too."""
    assert table_from_rows(only("string"), [row]).columns["a"].tolist() == ["Oslo"]


def test_one_feature_takes_bare_null() -> None:
    """A bare null is a missing value for a model with one nullable feature."""
    assert table_from_rows(only("string", nullable=True), [None, "x"]).columns["a"].tolist() == [None, "x"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (1.5, "expected an object or a list, found the number 1.5"),
        (None, "expected an object or a list, found null"),
        ("Oslo", "expected an object or a list, found the text 'Oslo'"),
        ([], "expected 3 values in signature order, found 0"),
        ([1.5, 2], "expected 3 values in signature order, found 2"),
        ([1.5, 2, "Oslo", 4], "expected 3 values in signature order, found 4"),
    ],
)
def test_row_of_another_shape_is_one_fault(row: Any, words: str) -> None:
    """A row of the wrong shape is one fault of that row, not one for each of its features."""
    assert refusal(THREE, [GOOD, row]).faults == (Fault("invalid-instance", words, 1),)


def test_missing_feature_is_one_fault() -> None:
    """A missing feature is one fault, under its own code."""
    error = refusal(THREE, [GOOD, {"length": 1.5, "town": "Oslo"}])
    assert type(error) is MissingFeature
    assert error.faults == (Fault("missing-feature", "'count' is missing", 1, "count"),)


def test_1_4_unknown_feature_is_one_fault() -> None:
    """A feature that the signature does not have is one fault, under its own code."""
    error = refusal(THREE, [GOOD | {"colour": 1}])
    assert type(error) is UnknownFeature
    assert error.faults == (Fault("unknown-feature", "'colour' is not a feature of this model", 0, "colour"),)


def test_every_fault_is_reported() -> None:
    """All that is wrong is told at once, by row and feature, in the order of the rows."""
    rows = [{"length": "x", "count": 1.5, "town": 3}, GOOD, {"length": None, "colour": 1, "town": "x"}]
    error = refusal(THREE, rows)
    assert type(error) is InvalidInstances
    assert [row for row, _ in places(error)] == [0, 0, 0, 2, 2, 2]
    assert set(places(error)) == {
        *((0, "length"), (0, "count"), (0, "town")),
        *((2, "count"), (2, "colour"), (2, "length")),
    }
    assert error.detail.endswith("; 5 more")


def test_faults_are_capped_and_counted() -> None:
    """An error lists the first MAX_FAULTS faults and counts them all."""
    error = refusal(THREE, [GOOD] + [["x", "x", 1]] * 1000)
    assert len(error.faults) == MAX_FAULTS
    assert error.detail.endswith("; 2999 more")


def test_client_text_in_faults_is_cut() -> None:
    """A fault repeats at most 60 signs of a name that a client made up."""
    [fault] = refusal(THREE, [GOOD | {"x" * 100_000: 1}]).faults
    assert len(fault.feature or "") == 60 and len(fault.detail) < 120


# Columns


def test_columns_make_the_same_table_as_rows() -> None:
    """A request by columns makes the table that its rows would make."""
    by_columns = table_from_columns(THREE, {name: [value] * 3 for name, value in GOOD.items()})
    by_rows = table_from_rows(THREE, [GOOD] * 3)
    assert by_columns.n_rows == by_rows.n_rows == 3
    assert {n: c.tolist() for n, c in by_columns.columns.items()} == {n: c.tolist() for n, c in by_rows.columns.items()}


@pytest.mark.parametrize("values", [{"length": [1.5]}, {"length": [1.5, 1.5, 1.5]}, {"town": []}])
def test_columns_must_have_one_length(values: dict[str, Any]) -> None:
    """A column shorter than the longest is one fault of that feature; its cells are not faults too."""
    columns: dict[str, Any] = {"length": [1.5, 1.5], "count": [2, 2], "town": ["a", "b"]}
    error = refusal_of_columns(THREE, columns | values)
    longest = max(map(len, (columns | values).values()))
    short = [name for name, column in (columns | values).items() if len(column) < longest]
    assert places(error) == [(None, name) for name in short]
    assert f"another column {longest}" in error.detail


@pytest.mark.parametrize("values", [1.5, "text", {"0": 1.5}, None, True])
def test_column_must_be_a_list(values: Any) -> None:
    """A column that is no list is one fault of that feature, and of no other."""
    error = refusal_of_columns(THREE, {"length": values, "count": [1, 2], "town": ["a", "b"]})
    assert type(error) is InvalidInstance
    assert error.faults == (Fault("invalid-instance", "expected a list of values, one a row", None, "length"),)


def test_text_in_place_of_a_column_counts_no_rows() -> None:
    """A long text in place of a column is not taken for that many rows, which would cost memory for each of them."""
    error = refusal_of_columns(THREE, {"length": "x" * 1000, "count": [1], "town": ["a"]})
    assert "1000" not in error.detail and places(error) == [(None, "length")]


def test_missing_column_is_one_fault() -> None:
    """A missing column is one fault under the code of a missing feature, however many rows there are."""
    error = refusal_of_columns(THREE, {"length": [1.5] * 50, "town": ["a"] * 50})
    assert type(error) is MissingFeature
    assert error.faults == (Fault("missing-feature", "'count' is missing", None, "count"),)


def test_unknown_column_is_one_fault() -> None:
    """An unknown column is one fault under the code of an unknown feature."""
    error = refusal_of_columns(THREE, {name: [value] for name, value in GOOD.items()} | {"colour": [1]})
    assert type(error) is UnknownFeature
    assert places(error) == [(None, "colour")]


def test_absent_optional_column_is_null() -> None:
    """An absent optional column is null in every row."""
    of = signature(LENGTH, Feature(name="a", dtype="int64", nullable=True, required=False))
    assert table_from_columns(of, {"length": [1.5, 2.5]}).columns["a"].tolist() == [None, None]


def test_columns_report_faults_by_row() -> None:
    """A fault in a column names its row and its feature."""
    error = refusal_of_columns(THREE, {"length": [1.5, "x"], "count": [1.5, 2], "town": ["a", "b"]})
    assert places(error) == [(0, "count"), (1, "length")]


# Sizes


@pytest.mark.parametrize("n_rows", [1, 5])
def test_size_within_the_limit_passes(n_rows: int) -> None:
    """From one row up to the limit, a request may have any number of rows."""
    check_size(n_rows, 5)


def test_no_row_is_refused() -> None:
    """A request without a row is refused under its own code."""
    with pytest.raises(EmptyInstances, match="send at least 1"):
        check_size(0, 5)


def test_1_7_too_many_rows_are_refused() -> None:
    """A request with more rows than the limit is refused and told both numbers."""
    with pytest.raises(TooManyRows, match="6 rows were sent and one request may have 5"):
        check_size(6, 5)


SURE = {"x": 1.5, "gap": None, "n": 2**62 + 1, "flag": True, "text": None}
SURE_DTYPES = {"x": "float64", "gap": "float64", "n": "int64", "flag": "bool", "text": "object"}


def test_row_makes_its_columns_when_asked() -> None:
    """The columns of a row are the arrays that a table of one row has."""
    row = Row(SURE, {name: np.dtype(dtype) for name, dtype in SURE_DTYPES.items()})
    assert list(row) == list(SURE) and len(row) == len(SURE)
    assert {name: str(column.dtype) for name, column in row.items()} == SURE_DTYPES
    assert [None if cell != cell else cell for (cell,) in row.values()] == list(SURE.values())


def test_row_gives_what_its_columns_give() -> None:
    """Cells and numbers are the same, whether a row is asked or its columns as arrays."""
    row = Row(SURE, {name: np.dtype(dtype) for name, dtype in SURE_DTYPES.items()})
    lazy, made = Table(row, 1), Table(dict(row), 1)
    assert [lazy.cells(name) for name in SURE] == [made.cells(name) for name in SURE] == [[v] for v in SURE.values()]
    names = ["n", "gap", "flag", "x"]
    assert lazy.numbers(names).dtype == made.numbers(names).dtype == np.float64
    np.testing.assert_array_equal(lazy.numbers(names), made.numbers(names))


def test_table_is_frozen() -> None:
    """A table cannot be given other columns."""
    with pytest.raises(AttributeError):
        Table({}, 0).n_rows = 1  # type: ignore[misc]
