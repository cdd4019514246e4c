"""Signatures: the derived row schema accepts what the service accepts, and moments are read in UTC.

The strategies for signatures and cells stand here; the tests of tables use them too.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.errors import InvalidInstances
from service.protocols.json_body import read_json, write_json
from service.signature import (
    INT64_MAX,
    INT64_MIN,
    LARGEST_FLOAT32,
    Dtype,
    Feature,
    Output,
    Signature,
    magnitude,
    parse_datetime,
    row_model,
    row_schema,
)
from service.table import table_from_rows

DTYPES: tuple[Dtype, ...] = get_args(Dtype)
OUTPUT = Output(name="y", dtype="float64")
ODD_NAMES = ["a b", "class", "1st", "größe", "feature_0", "feature_1", "__init__", "model_config", "$ref", "\x00", " "]
TEXTS_OF_MOMENTS = ["2024-05-01", "2024-05-01T12:00:00", "2024-05-01 12:00:00.25Z", "2024-05-01T12:00:00+05:30"]
EDGE_NUMBERS: list[Any] = [
    *(0, 1, -1, 3.0, -0.0, 3.5, 5e-324, 2**53 + 1, 1e300, 10**30, 10**400, -(10**400), math.inf, -math.inf),
    *(INT64_MAX, INT64_MAX + 1, INT64_MIN, INT64_MIN - 1, float(INT64_MAX), float(INT64_MIN)),
    *(LARGEST_FLOAT32, -LARGEST_FLOAT32, 3.40282350e38, 3.5e38, 10**39, int(LARGEST_FLOAT32), int(LARGEST_FLOAT32) + 1),
]
NO_MOMENTS = ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2024-05-01\ud80012:00", "2024-13-01", "now"]
OTHERS: list[Any] = [None, True, False, "", "1", "3.5", "true", "null", "half \ud83d", [], [1], {}, {"a": 1}]

PROPERTY = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def signature(*features: Feature) -> Signature:
    """A signature with one output, which does not matter here."""
    return Signature(features=features, outputs=(OUTPUT,))


def cells() -> st.SearchStrategy[Any]:
    """Any value that a JSON document may hold in place of a cell."""
    return st.one_of(
        st.sampled_from(EDGE_NUMBERS + NO_MOMENTS + TEXTS_OF_MOMENTS + OTHERS),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False),
        st.text(st.characters(codec=None), max_size=5),
    )


def fitting_cells(feature: Feature) -> st.SearchStrategy[Any]:
    """Values that mostly fit a feature."""
    if feature.closed and feature.categories:
        fitting: st.SearchStrategy[Any] = st.sampled_from(feature.categories)
    else:
        fitting = {
            "float64": st.floats(-1e6, 1e6) | st.integers(-1000, 1000),
            "float32": st.floats(-1e6, 1e6) | st.integers(-1000, 1000),
            "int64": st.integers(INT64_MIN, INT64_MAX) | st.integers(-1000, 1000).map(float),
            "bool": st.booleans(),
            "string": st.text(max_size=5),
            "datetime": st.sampled_from(TEXTS_OF_MOMENTS) | st.datetimes().map(datetime.isoformat),
            "datetime-string": st.sampled_from(TEXTS_OF_MOMENTS) | st.datetimes().map(datetime.isoformat),
        }[feature.dtype]
    return st.none() | fitting if feature.nullable or not feature.required else fitting


@st.composite
def features(draw: st.DrawFn, name: str = "a") -> Feature:
    """Any feature that packing makes: an optional one is nullable, a closed one has categories of its own type."""
    dtype = draw(st.sampled_from(DTYPES))
    required = draw(st.booleans())
    facts: dict[str, Any] = {"required": required, "nullable": draw(st.booleans()) or not required}
    if dtype in ("string", "int64") and draw(st.booleans()):
        values = st.text(min_size=1, max_size=5) if dtype == "string" else st.integers(-5, 5)
        facts["categories"] = tuple(draw(st.lists(values, min_size=1, max_size=4, unique=True)))
        facts["closed"] = draw(st.booleans())
    if dtype in ("float64", "float32") and draw(st.booleans()):
        facts["largest"] = draw(st.sampled_from([0.1, 1.0, 1e6, LARGEST_FLOAT32]))
    return Feature(name=name, dtype=dtype, **facts)


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    """A signature of up to four features with any names."""
    names = st.sampled_from(ODD_NAMES) | st.text(min_size=1, max_size=5)
    chosen = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    return signature(*(draw(features(name)) for name in chosen))


@st.composite
def rows(draw: st.DrawFn, of: Signature) -> dict[str, Any]:
    """A row that fits a signature, or nearly: with other values, and names missing or too many."""
    row = {feature.name: draw(fitting_cells(feature)) for feature in of.features}
    for name in draw(st.lists(st.sampled_from(of.names), max_size=2)):
        row[name] = draw(cells())
    if draw(st.integers(0, 3)) == 0:
        row.pop(draw(st.sampled_from(of.names)), None)
    if draw(st.integers(0, 7)) == 0:
        row[draw(st.sampled_from(ODD_NAMES))] = draw(cells())
    return row


def refusal_by_model(of: Signature, row: Any) -> str | None:
    """What the schema has against a row, None if it accepts it."""
    try:
        row_model(of).model_validate(row)
    except ValidationError as error:
        return ascii(error)
    return None


def refusal_by_table(of: Signature, row: Any) -> str | None:
    """What the service has against a row, None if it accepts it."""
    try:
        table_from_rows(of, [row])
    except InvalidInstances as error:
        return error.detail
    return None


def assert_they_agree(of: Signature, row: dict[str, Any]) -> None:
    """Check that schema and service give one verdict."""
    by_model, by_table = refusal_by_model(of, row), refusal_by_table(of, row)
    assert (by_model is None) == (by_table is None), f"schema: {by_model}; service: {by_table}"


@PROPERTY
@given(st.data())
def test_schema_accepts_what_the_service_accepts(data: st.DataObject) -> None:
    """For any signature and any JSON row, schema and service give the same verdict."""
    of = data.draw(signatures())
    assert_they_agree(of, data.draw(rows(of)))


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", EDGE_NUMBERS + NO_MOMENTS + TEXTS_OF_MOMENTS + OTHERS, ids=lambda v: ascii(v)[:30])
def test_schema_and_service_agree_on_edge(dtype: Dtype, nullable: bool, value: Any) -> None:
    """Every awkward value is accepted by both the schema and the service, or by neither, for every type."""
    assert_they_agree(signature(Feature(name="a", dtype=dtype, nullable=nullable)), {"a": value})


@pytest.mark.parametrize("value", [3, 3.0, True, "3", 4, None, math.inf, "a", 10**30])
@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize(("dtype", "categories"), [("int64", (1, 3)), ("string", ("a", "3"))])
def test_schema_and_service_agree_on_closed_categories(
    dtype: Dtype, categories: Any, nullable: bool, value: Any
) -> None:
    """A value of a closed feature is accepted by both the schema and the service, or by neither."""
    feature = Feature(name="a", dtype=dtype, nullable=nullable, categories=categories, closed=True)
    assert_they_agree(signature(feature), {"a": value})


@pytest.mark.parametrize("value", [0.1, 0.10000000000000002, -0.1, 0.11, 0, 1, -1, 1e39])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_schema_and_service_agree_on_the_largest(dtype: Dtype, value: float) -> None:
    """A number at a feature's own limit is accepted by both the schema and the service, or by neither."""
    assert_they_agree(signature(Feature(name="a", dtype=dtype, largest=0.1)), {"a": value})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", [{}, {"a": None}, {"b": 1}], ids=["absent", "null", "another"])
@pytest.mark.parametrize(("required", "nullable"), [(True, False), (True, True), (False, True), (False, False)])
def test_schema_and_service_agree_on_absence(dtype: Dtype, required: bool, nullable: bool, row: dict[str, Any]) -> None:
    """An absent, null or unknown feature is accepted by both the schema and the service, or by neither."""
    assert_they_agree(signature(Feature(name="a", dtype=dtype, required=required, nullable=nullable)), row)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_schema_takes_names_that_are_no_identifiers(name: str) -> None:
    """A feature may have any name; only that name is a key of the row, never the model's own attribute."""
    of = signature(Feature(name=name, dtype="float64", example=1.5), Feature(name="other", dtype="bool", example=True))
    assert refusal_by_model(of, {name: 1.5, "other": True}) is None
    assert refusal_by_model(of, {name: 1.5, "feature_1": True}) is not None
    assert list(row_schema(of)["properties"]) == [name, "other"]
    assert of.example() == {name: 1.5, "other": True}


def test_schema_says_what_a_row_needs() -> None:
    """The JSON Schema is closed, requires the required features and carries types, ranges, values and examples."""
    of = signature(
        Feature(name="mm", dtype="float32", minimum=1, maximum=9, example=4.5),
        Feature(name="n", dtype="int64", nullable=True),
        Feature(name="grade", dtype="string", categories=("a", "b"), closed=True, example="a"),
        Feature(name="town", dtype="string", categories=("x", "y"), required=False, nullable=True),
        Feature(name="day", dtype="datetime-string"),
        Feature(name="ok", dtype="bool"),
    )
    schema = row_schema(of)
    properties = schema["properties"]
    assert schema["type"] == "object" and schema["additionalProperties"] is False
    assert schema["required"] == ["mm", "n", "grade", "day", "ok"]
    assert properties["mm"] == {
        "type": "number",
        "minimum": -LARGEST_FLOAT32,
        "maximum": LARGEST_FLOAT32,
        "examples": [4.5],
        "x-training-range": [1.0, 9.0],
        "title": properties["mm"]["title"],
    }
    assert properties["n"]["anyOf"] == [
        {"type": "integer", "minimum": INT64_MIN, "maximum": INT64_MAX},
        {"type": "null"},
    ]
    assert properties["grade"]["enum"] == ["a", "b"]
    assert properties["town"]["x-known-values"] == ["x", "y"] and properties["town"]["default"] is None
    assert properties["day"]["format"] == "date-time" and properties["ok"]["type"] == "boolean"


@PROPERTY
@given(signatures())
def test_schema_is_json(of: Signature) -> None:
    """The schema of any signature survives being written and read as JSON."""
    schema = row_schema(of)
    assert read_json(write_json(schema)) == schema


@pytest.mark.parametrize(
    ("feature", "limit"),
    [
        (Feature(name="a", dtype="float64"), None),
        (Feature(name="a", dtype="float32"), LARGEST_FLOAT32),
        (Feature(name="a", dtype="float64", largest=1e6), 1e6),
        (Feature(name="a", dtype="float32", largest=1e6), 1e6),
    ],
)
def test_magnitude_is_the_tightest_limit(feature: Feature, limit: float | None) -> None:
    """A feature's own limit wins over its type's; float64 has none below infinity."""
    assert magnitude(feature) == limit


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-01", datetime(2024, 5, 1)),
        ("2024-05-01T12:00:00", datetime(2024, 5, 1, 12)),
        ("2024-05-01T12:00:00Z", datetime(2024, 5, 1, 12)),
        ("2024-05-01T12:00:00+02:00", datetime(2024, 5, 1, 10)),
        ("2024-05-01T00:30:00+05:30", datetime(2024, 4, 30, 19)),
        ("2023-12-31T20:00:00-05:00", datetime(2024, 1, 1, 1)),
        ("2024-05-01 12:00:00.250-00:00", datetime(2024, 5, 1, 12, 0, 0, 250_000)),
    ],
)
def test_parse_datetime_turns_offsets_into_utc(text: str, moment: datetime) -> None:
    """A moment with an offset is moved to UTC; one without is taken as it stands; neither keeps an offset."""
    assert parse_datetime(text) == moment
    assert parse_datetime(text).tzinfo is None


@PROPERTY
@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)), st.integers(-1439, 1439))
@example(datetime(2024, 2, 29, 23, 59, 59, 999_999), 1439)
def test_parse_datetime_agrees_with_the_standard_library(moment: datetime, minutes: int) -> None:
    """The text of any moment, at any offset, is read as that moment in UTC."""
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert parse_datetime(aware.isoformat()) == aware.astimezone(UTC).replace(tzinfo=None)


@pytest.mark.parametrize("text", ["", "now", "2024-13-01", "2024-02-30", "1714564800", "12:00", "2024-05-01T25:00:00"])
def test_parse_datetime_refuses_other_text(text: str) -> None:
    """Text that is no ISO 8601 moment is a ValueError."""
    with pytest.raises(ValueError):
        parse_datetime(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_parse_datetime_refuses_moments_beyond_the_calendar(text: str) -> None:
    """A moment whose offset moves it out of the years 1 to 9999 is a ValueError like any other bad text."""
    with pytest.raises(ValueError):
        parse_datetime(text)


def test_signature_says_what_it_answers() -> None:
    """Several outputs make a list of each prediction; probabilities need the classes of every output."""
    one, labelled = OUTPUT, Output(name="z", dtype="string", classes=("a", "b"))
    inputs = (Feature(name="a", dtype="bool"), Feature(name="b", dtype="bool"))
    single = Signature(features=inputs, outputs=(labelled,))
    double = Signature(features=inputs, outputs=(one, labelled))
    assert (single.names, single.multi_output, single.has_probabilities) == (("a", "b"), False, True)
    assert (double.multi_output, double.has_probabilities) == (True, False)


@pytest.mark.parametrize(
    "facts",
    [
        {"name": "", "dtype": "bool"},
        {"name": "x" * 257, "dtype": "bool"},
        {"name": "a", "dtype": "int32"},
        {"name": "a", "dtype": "bool", "unit": "mm"},
        {"name": "a"},
    ],
)
def test_feature_refuses_what_it_does_not_know(facts: dict[str, Any]) -> None:
    """A feature needs a name of 1 to 256 signs and a known type, and takes no other field."""
    with pytest.raises(ValidationError):
        Feature(**facts)


@pytest.mark.parametrize("facts", [{"features": ()}, {"outputs": ()}])
def test_signature_needs_inputs_and_outputs(facts: dict[str, Any]) -> None:
    """A signature without features or without outputs is refused."""
    with pytest.raises(ValidationError):
        Signature(**({"features": (Feature(name="a", dtype="bool"),), "outputs": (OUTPUT,)} | facts))


def test_signature_is_frozen() -> None:
    """A signature, a feature and an output cannot be changed once they are made."""
    of = signature(Feature(name="a", dtype="bool"))
    with pytest.raises(ValidationError):
        of.features[0].name = "b"
