"""Arrow in and out: the tables that JSON makes of the same rows, the same refusals, and the answers that CSV has."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import InvalidArrow, InvalidInstance, PayloadTooLarge, RequestError, TooManyRows
from service.protocols import arrow_body, native
from service.protocols.arrow_body import ARROW, SPELT_OUT_BYTES, read_arrow, write_arrow
from service.signature import INT64_MAX, INT64_MIN, LARGEST_FLOAT32, Dtype, Feature, Output, Signature
from service.table import PredictResponse, Table
from tests.vendors.arrow.streams import OUTPUTS, batch_of, one, signature_of, stream, write

PROPERTY = settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
MAX_ROWS = 1000
DTYPES: tuple[Dtype, ...] = ("float64", "float32", "int64", "bool", "string", "datetime", "datetime-string")
INTEGERS = [getattr(pyarrow, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)]
STRINGS = [pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()]
WORDS = STRINGS + [pyarrow.dictionary(index, word) for index in INTEGERS for word in STRINGS[:2]]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda text: text != "Infinity")
MOMENTS = ["2026-11-22", "2026-11-22T15:30", "2026-11-22 15:30:00.5", "2026-11-22T15:30:00+01:00"]


def contents(table: Table) -> Any:
    """Every value of a table with its type, by which NaN equals NaN and -0.0 is not 0.0."""
    columns = [
        (name, column.dtype, [(type(value), repr(value)) for value in column.tolist()])
        for name, column in table.columns.items()
    ]
    return columns, table.n_rows


def outcome(read: Callable[[], Table]) -> Any:
    """What becomes of a body: its table, or everything that the error says."""
    try:
        return contents(read())
    except RequestError as error:
        return type(error), error.detail, error.faults


def refusal(body: bytes, of: Signature) -> RequestError:
    """The error that a stream is refused with."""
    with pytest.raises(RequestError) as raised:
        read_arrow(body, of, MAX_ROWS)
    return raised.value


def column(body: bytes, of: Signature) -> Any:
    """The only column of a stream's table."""
    [found] = read_arrow(body, of, MAX_ROWS).columns.values()
    return found


# The same as JSON


def within(kind: pyarrow.DataType) -> st.SearchStrategy[int]:
    """Integers that an Arrow type holds, and a double too."""
    signed = str(kind).startswith("int")
    least, most = (
        (-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1) if signed else (0, 2**kind.bit_width - 1)
    )
    return st.integers(max(least, -(2**53)), min(most, 2**53))


def moments(unit: str) -> st.SearchStrategy[Any]:
    """Moments of the calendar that a unit holds."""
    if unit == "ns":
        return st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))
    whole = {"s": 1_000_000, "ms": 1_000, "us": 1}[unit]
    return st.datetimes().map(lambda found: found.replace(microsecond=found.microsecond // whole * whole))


def floats(bits: int, *, wild: bool) -> st.SearchStrategy[float]:
    """Numbers of so many bits; among wild ones infinity."""
    ends = st.sampled_from([float("inf"), -float("inf"), LARGEST_FLOAT32])
    numbers = st.floats(allow_nan=False, allow_infinity=False, width=bits)
    return numbers | ends.filter(lambda end: bits == 64 or np.isinf(end)) if wild else numbers


@st.composite
def typed_values(draw: st.DrawFn, dtype: Dtype, *, wild: bool) -> tuple[pyarrow.DataType, st.SearchStrategy[Any]]:
    """An Arrow type that a feature takes, and its values."""
    if dtype in ("float64", "float32") and draw(st.booleans()):
        some = draw(st.sampled_from([kind for kind in INTEGERS if dtype == "float64" or kind.bit_width <= 16]))
        return some, within(some)
    if dtype in ("float64", "float32"):
        bits = draw(st.sampled_from([16, 32, 64] if dtype == "float64" else [16, 32]))
        return {16: pyarrow.float16(), 32: pyarrow.float32(), 64: pyarrow.float64()}[bits], floats(bits, wild=wild)
    if dtype == "int64":
        kind = draw(st.sampled_from(INTEGERS))
        numbers = within(kind) | st.sampled_from([INT64_MAX, INT64_MIN]) if str(kind) == "int64" else within(kind)
        return kind, numbers | st.just(2**64 - 1) if wild and str(kind) == "uint64" else numbers
    if dtype == "datetime":
        unit = draw(st.sampled_from(["D", "s", "ms", "us", "ns"]))
        zone = draw(st.sampled_from([None, "UTC", "Europe/Paris"]))
        return (pyarrow.date32(), st.dates()) if unit == "D" else (pyarrow.timestamp(unit, zone), moments(unit))
    if dtype == "bool":
        return pyarrow.bool_(), st.booleans()
    texts = TEXT if dtype == "string" else st.sampled_from(MOMENTS + ["noon"] * wild)
    return draw(st.sampled_from(WORDS)), texts


@st.composite
def asked(draw: st.DrawFn, *, wild: bool) -> tuple[Signature, dict[str, list[Any]], bytes]:
    """A signature, and the same rows as Python values and as a stream in a few batches; wild ones are not all right."""
    n_rows, features, columns, arrays = draw(st.integers(1, 6)), [], {}, {}
    for name in draw(
        st.lists(st.sampled_from(["a", "b", " c", "中 文", "😀", ""]), min_size=1, max_size=4, unique=True)
    ):
        name, dtype, facts = name or "d", draw(st.sampled_from(DTYPES)), {}
        kind, values = draw(typed_values(dtype, wild=wild))
        facts["nullable"], facts["required"] = draw(st.booleans()), draw(st.booleans())
        null = st.none() if wild or facts["nullable"] or not facts["required"] else st.nothing()
        cells = draw(st.lists(values | null, min_size=n_rows, max_size=n_rows))
        present = sorted({*cells} - {None, 2**64 - 1})
        if dtype in ("int64", "string") and present and draw(st.booleans()):
            facts |= {"closed": True, "categories": tuple(present[:1] if wild else present)}
        elif dtype in ("float64", "float32", "int64") and wild and draw(st.booleans()):
            facts["largest"] = draw(st.sampled_from([0.0, 1.0, 100.0, 2.0**53, 2.0**63]))
        features.append(Feature(name=name, dtype=dtype, **facts))
        if facts["required"] or draw(st.booleans()):
            columns[name] = cells
            empty = set(cells) == {None} and features[-1].takes_null and draw(st.booleans())
            arrays[name] = pyarrow.nulls(n_rows) if empty else pyarrow.array(cells, kind)
    if not columns:
        columns, arrays = {features[0].name: [None] * n_rows}, {features[0].name: pyarrow.nulls(n_rows)}
    order = draw(st.permutations(sorted(arrays)))
    batch, cut = batch_of({name: arrays[name] for name in order}), draw(st.integers(0, n_rows))
    parts = [batch] if draw(st.booleans()) else [batch.slice(0, cut), batch.slice(cut)]
    return signature_of(*features), columns, write(parts)


def json_body(columns: dict[str, list[Any]]) -> bytes:
    """The same columns in JSON, where infinity is a number that no double holds."""
    text = json.dumps({"inputs": columns}, default=lambda moment: moment.isoformat())
    return re.sub('(?<!")Infinity(?!")', "1e999", text).encode()


@PROPERTY
@given(asked(wild=False))
def test_the_table_is_the_one_of_json(request_: tuple[Signature, dict[str, list[Any]], bytes]) -> None:
    """Of every Arrow type that a feature takes, the values are those of the same rows in JSON, to dtype and digit."""
    of, columns, body = request_
    found = contents(native.decode_request(body, ARROW, {}, of, MAX_ROWS).table)
    assert found == contents(native.decode_request(json_body(columns), "application/json", {}, of, MAX_ROWS).table)


@PROPERTY
@given(asked(wild=True))
def test_what_does_not_fit_is_refused_as_in_json(request_: tuple[Signature, dict[str, list[Any]], bytes]) -> None:
    """Nulls, large numbers and unknown values are refused by row and feature, in the words that JSON has for them."""
    of, columns, body = request_
    found = outcome(lambda: native.decode_request(body, ARROW, {}, of, MAX_ROWS).table)
    assert found == outcome(
        lambda: native.decode_request(json_body(columns), "application/json", {}, of, MAX_ROWS).table
    )


def test_a_frame_of_pandas_is_read() -> None:
    """What pyarrow makes of a frame with a gap, labels and dates is read as it is."""
    dates = pandas.to_datetime(MOMENTS[:1] * 2)
    frame = pandas.DataFrame({"a": [1.5, None], "b": pandas.Categorical(["x", "y"]), "c": dates})
    of = signature_of(
        Feature(name="a", dtype="float64", nullable=True),
        Feature(name="b", dtype="string"),
        Feature(name="c", dtype="datetime"),
    )
    columns = read_arrow(write(pyarrow.Table.from_pandas(frame).to_batches()), of, MAX_ROWS).columns
    assert repr(columns["a"].tolist()) == "[1.5, nan]"
    assert [columns[name].tolist() for name in "bc"] == [["x", "y"], [datetime(2026, 11, 22)] * 2]


def test_columns_are_the_models_own() -> None:
    """A model may write into its columns, which are no views of the body."""
    found = column(stream(a=np.arange(3.0)), one("float64"))
    found[0] = 7
    assert found.flags.owndata


# Types

REFUSED = {
    "float64": [["1"], [True], [[1.5]], [Decimal("1.5")], [b"1"], [date(2026, 1, 1)], [{"x": 1.5}]],
    "float32": [np.array([1.5]), ["1"], [True]],
    "int64": [
        np.array([1.0]),
        ["1"],
        [True],
        pyarrow.array([1]).dictionary_encode(),
        pyarrow.array([1], pyarrow.duration("s")),
    ],
    "bool": [[1], ["true"], [0.0]],
    "string": [[1], [b"x"], [["x"]], pyarrow.array([1]).dictionary_encode(), pyarrow.array([b"x"]).dictionary_encode()],
    "datetime": [MOMENTS[:1], [1], pyarrow.array([1], pyarrow.time32("s")), pyarrow.array([1], pyarrow.date64())],
    "datetime-string": [[date(2026, 1, 1)], [1]],
}


@pytest.mark.parametrize(
    ("dtype", "values"), [(dtype, values) for dtype, every in REFUSED.items() for values in every], ids=str
)
def test_1_4_other_types_are_refused(dtype: Dtype, values: Any) -> None:
    """A type whose values the feature does not hold, or would have to guess, is refused before any value is read."""
    found = refusal(stream(a=values), one(dtype, nullable=True))
    kind = arrow_body._kind(pyarrow.array(values).type)
    assert type(found) is InvalidInstance
    assert found.detail.endswith(f"found {kind}") and found.detail.startswith("expected an Arrow column of ")


NUMBERS = pyarrow.array([1.5, 1.5])
WRAPPED = {
    "extension": pyarrow.ExtensionArray.from_storage(pyarrow.opaque(pyarrow.float64(), "x", "y"), NUMBERS),
    "run ends": pyarrow.RunEndEncodedArray.from_arrays(pyarrow.array([2], pyarrow.int32()), NUMBERS[:1]),
    "union": pyarrow.UnionArray.from_sparse(pyarrow.array([0, 0], pyarrow.int8()), [NUMBERS]),
    "dictionary": pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, 0]), NUMBERS),
    "dictionary of lists": pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, 0]), pyarrow.array([[1.5]])),
}


@pytest.mark.parametrize("array", WRAPPED.values(), ids=WRAPPED)
def test_1_8_wrapped_types_are_refused(array: pyarrow.Array) -> None:
    """A type around another is not unpacked, though what is in it would fit."""
    assert type(refusal(stream(a=array), one("float64"))) is InvalidInstance


# Values


def test_1_4_nan_is_no_number() -> None:
    """NaN is refused as it is in CSV, also where null would be a gap."""
    found = refusal(stream(a=np.array([1.0, np.nan])), one("float64", nullable=True))
    assert (found.detail, found.faults[0].row) == ("expected a number, found the text 'NaN'", 1)


@pytest.mark.parametrize(("dtype", "most"), [("float64", 2**53), ("float32", 2**24)])
@pytest.mark.parametrize("kind", ["int64", "uint64"])
def test_whole_numbers_become_floats_without_loss(dtype: Dtype, most: int, kind: str) -> None:
    """Integers of any width are floats as long as the float holds each of them exactly."""
    assert column(stream(a=np.array([most], kind)), one(dtype)).tolist() == [most]
    found = refusal(stream(a=np.array([most + 1], kind)), one(dtype))
    assert found.code == "number-out-of-range"
    assert found.detail == f"has whole numbers beyond 2**{most.bit_length() - 1}, which {dtype} does not hold exactly"


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (1, "ns", "1970-01-01T00:00:00.000000001"),
        (253402300800, "s", "10000-01-01T00:00:00"),
        (-62135596801, "s", "0000-12-31T23:59:59"),
        (INT64_MIN, "ns", "NaT"),
        (INT64_MAX, "us", "294247-01-10T04:00:54.775807"),
        (INT64_MAX, "s", None),
    ],
)
def test_moments_are_those_of_json(number: int, unit: str, text: str | None) -> None:
    """What JSON cannot say, beyond the calendar or finer than microseconds, is refused as JSON refuses it."""
    found = refusal(stream(a=pyarrow.array([number], pyarrow.timestamp(unit))), one("datetime"))
    assert found.detail.startswith(f"expected an ISO 8601 date or time as text, found the text '{text or ''}")


def test_1_4_texts_are_utf8() -> None:
    """Bytes that are no UTF-8, half a surrogate pair among them, are no text."""
    for wrong in (b"\xff", b"\xed\xa0\x80", b"\xc0\x80"):
        array = pyarrow.StringArray.from_buffers(
            1, pyarrow.py_buffer(np.array([0, len(wrong)], np.int32)), pyarrow.py_buffer(wrong)
        )
        assert (
            type(refusal(write([pyarrow.RecordBatch.from_arrays([array], names=["a"])]), one("string"))) is InvalidArrow
        )


# Columns


@pytest.mark.parametrize(
    ("names", "code"),
    [("b", "missing-feature"), ("ac", "unknown-feature"), ("c", "invalid-instances"), ("aba", "invalid-arrow")],
)
def test_1_4_columns_are_the_features(names: str, code: str) -> None:
    """A column that is missing, unknown or there twice is refused."""
    of = signature_of(Feature(name="a", dtype="float64"), Feature(name="b", dtype="float64", required=False))
    batch = pyarrow.RecordBatch.from_arrays([pyarrow.array([1.5])] * len(names), names=[*names])
    assert refusal(write([batch]), of).code == code


def test_1_7_rows_are_limited() -> None:
    """One row more than a request may have is refused."""
    assert read_arrow(stream(a=np.zeros(MAX_ROWS)), one("float64"), MAX_ROWS).n_rows == MAX_ROWS
    assert type(refusal(stream(a=np.zeros(MAX_ROWS + 1)), one("float64"))) is TooManyRows


@pytest.mark.parametrize("kind", WORDS[2:5], ids=str)
def test_1_7_shared_texts_are_limited(kind: pyarrow.DataType) -> None:
    """Texts that rows share are weighed as if each row had its own, so that no small body holds gigabytes of text."""
    ninth = "x" * (SPELT_OUT_BYTES // 9)
    assert set(column(shared(kind, ninth, 8), one("string"))) == {ninth}
    found = refusal(shared(kind, ninth, 10), one("string"))
    assert type(found) is PayloadTooLarge
    assert found.detail.endswith(f" bytes and may have {SPELT_OUT_BYTES}; send fewer rows at once")


def shared(kind: pyarrow.DataType, text: str, n_rows: int) -> bytes:
    """A stream of rows that share one text."""
    array = pyarrow.array([text], kind)
    if pyarrow.types.is_dictionary(kind):
        array = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * n_rows, kind.index_type), array.dictionary)
    else:
        views = pyarrow.py_buffer(array.buffers()[1].to_pybytes() * n_rows)
        array = pyarrow.Array.from_buffers(kind, n_rows, [None, views, array.buffers()[2]])
    return write([pyarrow.RecordBatch.from_arrays([array], names=["a"])])


# Answers

CLASSES = ("Ädam", "=b", "c")
LABELLED = Signature(features=one("float64").features, outputs=(Output(name="y", dtype="string", classes=CLASSES),))
NUMBER = Signature(features=one("float64").features, outputs=OUTPUTS)
SEVERAL = NUMBER.model_copy(update={"outputs": (Output(name="y", dtype="string"), Output(name="z", dtype="int64"))})
SHARES = np.array([[0.5, 0.25, 0.25], [1e-9, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("of", "predictions", "probabilities"),
    [
        (NUMBER, np.array([1.5, -2e-7]), None),
        (NUMBER, np.array([1.5, 2], np.float32), None),
        (NUMBER, np.array([1, -(2**62)]), None),
        (NUMBER, np.array([True, False]), None),
        (LABELLED, np.array(["Ädam", "c"]), None),
        (LABELLED, np.array(["Ädam", "c"], object), (SHARES,)),
        (LABELLED, np.array(["Ädam", ""], object), (np.asfortranarray(SHARES),)),
        (SEVERAL, np.array([["a", 1], ["b", 2]], object), None),
        (SEVERAL, np.array([[1.5, 2.5], [3.5, 4.5]]), None),
        (NUMBER, np.array([1, "x"], object), None),
    ],
    ids=range(10),
)
def test_the_answer_has_the_columns_of_csv(of: Signature, predictions: Any, probabilities: Any) -> None:
    """Names and values are those of the CSV answer, one row each, but that no text is quoted for a spreadsheet."""
    response = PredictResponse("m", "1", of, predictions, probabilities)
    body = native.encode_response(response, ARROW)
    found = pyarrow.ipc.open_stream(body).read_all()
    found.validate(full=True)
    frame = pandas.read_csv(io.BytesIO(native.encode_response(response, "text/csv")), keep_default_na=False)
    assert found.column_names == [*frame.columns]
    assert [list(map(str, values)) for values in found.to_pydict().values()] == [
        list(map(str, frame[name].tolist())) for name in frame
    ]


@pytest.mark.parametrize(
    ("predictions", "kind"),
    [
        (np.array([1.5]), "double"),
        (np.array([1], np.int32), "int32"),
        (np.array([True]), "bool"),
        (np.array(["=x"]), "string"),
        (np.array([1], object), "int64"),
        (np.array([True], object), "bool"),
    ],
)
def test_the_answer_has_the_models_types(predictions: Any, kind: str) -> None:
    """Numbers, booleans and texts keep their type and value, also where a model answers objects."""
    [field] = pyarrow.ipc.open_stream(write_arrow(PredictResponse("m", "1", NUMBER, predictions))).schema
    found = pyarrow.ipc.open_stream(write_arrow(PredictResponse("m", "1", NUMBER, predictions))).read_all()
    assert (field.name, str(field.type), found["y"].to_pylist()) == ("y", kind, predictions.tolist())
