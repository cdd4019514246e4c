"""Strict CSV: exact header, exact width, plain decimal numbers; and answers that no spreadsheet runs."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import (
    EmptyInstances,
    InvalidCsv,
    InvalidInstance,
    InvalidInstances,
    MissingFeature,
    NumberOutOfRange,
    RequestError,
    TooManyRows,
    UnknownFeature,
)
from service.protocols import csv_body
from service.protocols.csv_body import open_csv, parse_cell, read_csv, write_csv
from service.signature import INT64_MAX, INT64_MIN, Dtype, Feature, Output, Signature
from service.table import PredictResponse, table_from_rows

OUTPUT = Output(name="y", dtype="float64")
MM = Feature(name="mm", dtype="float64", nullable=True)
COUNT = Feature(name="count", dtype="int64")
TOWN = Feature(name="town", dtype="string")
SIGNATURE = Signature(features=(MM, COUNT, TOWN), outputs=(OUTPUT,), missing=("", "NA", "-"))
PROPERTY = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
NO_NUMBERS = [
    *("nan", "NaN", "inf", "-inf", "Infinity", "1e", "e5", ".", "+", "-", "--1", "1-", "1,5", "1.5.2", "0x10", "1_000"),
    *("1 000", "1,000", "1'000", "١٢", "１", "½", "1d5", "1f", "$1", "1%", "true", "null", "None", "1\x00", "\ufeff1"),
]


def one(dtype: Dtype, **facts: Any) -> Signature:
    """A signature with one feature, called a; a missing value may be spelt NA."""
    return Signature(features=(Feature(name="a", dtype=dtype, **facts),), outputs=(OUTPUT,), missing=("", "NA"))


def read(body: bytes | str, of: Signature = SIGNATURE, max_rows: int = 100) -> dict[str, list[Any]]:
    """The columns that a body holds, as lists."""
    body = body.encode() if isinstance(body, str) else body
    return {name: column.tolist() for name, column in read_csv(body, of, max_rows).columns.items()}


def refusal(body: bytes | str, of: Signature = SIGNATURE, max_rows: int = 100) -> RequestError:
    """The error that a body raises."""
    with pytest.raises(RequestError) as caught:
        read(body, of, max_rows)
    return caught.value


def written(*rows: list[Any]) -> str:
    """Rows as the standard library writes them."""
    target = io.StringIO(newline="")
    csv.writer(target).writerows(rows)
    return target.getvalue()


def cell(dtype: Dtype, text: str, **facts: Any) -> Any:
    """The one value of a body with one cell, which is quoted."""
    [value] = read(written(["a"], [text]), one(dtype, **facts))["a"]
    return value


def cell_refusal(dtype: Dtype, text: str, **facts: Any) -> RequestError:
    """The error that a body with one cell raises."""
    return refusal(written(["a"], [text]), one(dtype, **facts))


# The form


@pytest.mark.parametrize(
    "body",
    [
        "mm,count,town\n1.5,2,Oslo\n",
        "mm,count,town\n1.5,2,Oslo",
        "mm,count,town\r\n1.5,2,Oslo\r\n",
        "mm,count,town\r1.5,2,Oslo\r",
        "\ufeffmm,count,town\n1.5,2,Oslo\n",
        '"mm","count","town"\n"1.5","2","Oslo"\n',
        "town,mm,count\nOslo,1.5,2\n",
        "count,town,mm\r\n2,Oslo,1.5\r\n",
    ],
)
def test_csv_reads_rows_by_their_header(body: str) -> None:
    """Columns may stand in any order, line ends of any system, and a byte order mark is skipped."""
    assert read(body) == {"mm": [1.5], "count": [2], "town": ["Oslo"]}


@pytest.mark.parametrize(
    "text",
    ["a,b", "a\nb", "a\r\nb", "a\rb", 'a"b', '"', "a;b", "a\tb", " a ", "é😀", "a\x00b", "a\u2028b", "a\x1cb", "'a'"],
)
def test_csv_reads_text_as_it_is(text: str) -> None:
    """A quoted cell holds commas, quotes, line ends and spaces as they are."""
    assert cell("string", text) == text


def test_csv_reads_a_quote_within_bare_text() -> None:
    """A quote that does not begin its cell is a sign like any other."""
    assert read('mm,count,town\n1,2,5" nail\n')["town"] == ['5" nail']


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ("", InvalidCsv, "there is no header; the first line must name the columns: mm,count,town"),
        ("\n", InvalidCsv, "there is no header"),
        ("\nmm,count,town\n1,2,a\n", InvalidCsv, "there is no header"),
        (",,\n1,2,a\n", InvalidCsv, "there is no header"),
        ("1.5,2,Oslo\n", UnknownFeature, "'1.5' is no column of this model, nor '2', 'Oslo'; they are mm,count,town"),
        ("mm;count;town\n1;2;a\n", UnknownFeature, "'mm;count;town' is no column"),
        ("mm\tcount\ttown\n1\t2\ta\n", UnknownFeature, "'mm\\tcount\\ttown' is no column"),
        ("mm,count,town,colour\n1,2,a,red\n", UnknownFeature, "'colour' is no column"),
        (",mm,count,town\n0,1,2,a\n", UnknownFeature, "'' is no column"),
        ("mm,count,Town\n1,2,a\n", UnknownFeature, "'Town' is no column"),
        ("mm, count,town\n1,2,a\n", UnknownFeature, "' count' is no column"),
        ("\ufeff\ufeffmm,count,town\n1,2,a\n", UnknownFeature, "'\\ufeffmm' is no column"),
        ("mm,count\n1,2\n", MissingFeature, "the column 'town' is missing; the columns are mm,count,town"),
        ("count,town\n2,a\n", MissingFeature, "the column 'mm' is missing"),
        ("mm,count,town,mm\n1,2,a,1\n", InvalidCsv, "a column stands twice in the header"),
    ],
)
def test_1_5_csv_needs_the_exact_header(body: str, error: type[RequestError], words: str) -> None:
    """The header names every column once; no header, index column or separator is guessed."""
    found = refusal(body)
    assert type(found) is error
    assert found.detail.startswith(words)


def test_csv_optional_column_may_be_absent() -> None:
    """A column of an optional feature may be left out; its cells are null."""
    of = Signature(
        features=(COUNT, Feature(name="a", dtype="string", required=False, nullable=True)), outputs=(OUTPUT,)
    )
    assert read("count\n1\n2\n", of) == {"count": [1, 2], "a": [None, None]}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1,2\n", "row 0 has 2 cells and there are 3 columns"),
        ("1,2,a\n1,2\n", "row 1 has 2 cells and there are 3 columns"),
        ("1,2,a,\n", "row 0 has 4 cells and there are 3 columns"),
        ("1,5,2,Oslo\n", "row 0 has 4 cells and there are 3 columns"),
        ("1,2,'a,b'\n", "row 0 has 4 cells and there are 3 columns"),
        ("1;2;a\n", "row 0 has 1 cells and there are 3 columns"),
        ("\n1,2,a\n", "row 0 has 0 cells and there are 3 columns"),
        ("1,2,a\n\n", "row 1 has 0 cells and there are 3 columns"),
        ("1,2,a\n\r\n1,2,a\n", "row 1 has 0 cells and there are 3 columns"),
    ],
)
def test_1_5_csv_refuses_ragged_rows(rows: str, words: str) -> None:
    """Every row has as many cells as the header; a blank line has none and is no row."""
    found = refusal("mm,count,town\n" + rows)
    assert type(found) is InvalidCsv
    assert found.detail.startswith(words)


@pytest.mark.parametrize("rows", ['1,2,"a\n', '1,2,"a\n1,2,b\n', '1,2,"a"b\n', '1,2,"a" \n', '"1,2,a\n', '1,2,"a""\n'])
def test_csv_refuses_unbalanced_quotes(rows: str) -> None:
    """A quote that is not closed, or closed within its cell, is refused with its line."""
    found = refusal("mm,count,town\n" + rows)
    assert type(found) is InvalidCsv
    assert found.detail.startswith("line ")


@pytest.mark.parametrize("body", [b"mm,count,town\n1,2,\xff\n", b"\xff\xfem\x00m\x00", "mm,count,é".encode("latin-1")])
def test_1_5_csv_refuses_bytes_that_are_not_utf8(body: bytes) -> None:
    """A body that is not UTF-8 is refused with the place."""
    found = refusal(body)
    assert type(found) is InvalidCsv
    assert "is not UTF-8" in found.detail


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("length", [131_073, 200_000])
def test_csv_takes_very_long_cell(length: int, quote: str) -> None:
    """A cell may be as long as the body, as in JSON."""
    body = f"mm,count,town\n1,2,{quote}{'z' * length}{quote}\n".encode()
    assert read_csv(body, SIGNATURE, 10).columns["town"].tolist() == ["z" * length]


@pytest.mark.parametrize("body", ["mm,count,town\n", "mm,count,town"])
def test_csv_needs_a_row(body: str) -> None:
    """A header alone is a request without rows."""
    assert type(refusal(body)) is EmptyInstances


def test_1_7_csv_counts_rows() -> None:
    """As many rows as the limit are read and one more is refused, before any cell is looked at."""
    assert len(read("a\n" + "1\n" * 5, one("int64"), 5)["a"]) == 5
    assert type(refusal("a\n" + "x\n" * 6, one("int64"), 5)) is TooManyRows


@PROPERTY
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "mm": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**6), 10**6),
                "count": st.integers(INT64_MIN, INT64_MAX),
                "town": st.text(min_size=1, max_size=8),
            }
        ),
        min_size=1,
        max_size=4,
    ),
    st.permutations(SIGNATURE.names),
)
def test_csv_makes_the_table_of_its_json(rows: list[dict[str, Any]], order: list[str]) -> None:
    """Rows written as CSV, in any order of columns, make the table that they make as JSON."""
    body = written(order, *([row[name] for name in order] for row in rows))
    as_json = table_from_rows(SIGNATURE, rows).columns
    assert {name: repr(column) for name, column in read(body).items()} == {
        name: repr(column.tolist()) for name, column in as_json.items()
    }


@PROPERTY
@given(
    st.text('mm,count,town"\r\n 1.5e-+0NA\x00é٣\ufeff', max_size=40).map(
        lambda rows: b"mm,count,town\n" + rows.encode()
    )
    | st.binary(max_size=30)
)
def test_csv_reads_or_refuses_any_bytes(body: bytes) -> None:
    """Any bytes at all are either read or refused as a request error."""
    try:
        read(body)
    except RequestError:
        pass


# The cells


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1", 1.0), ("-1.5", -1.5), ("+1.5", 1.5), ("1.", 1.0), (".5", 0.5), ("-.5", -0.5), ("1e3", 1000.0)),
        *(("1E-3", 0.001), ("1.e+2", 100.0), ("007", 7.0), ("-0", -0.0), ("1e-400", 0.0), (" 1.5 ", 1.5), ("\t1", 1.0)),
    ],
)
def test_csv_reads_decimal_numbers(text: str, value: float) -> None:
    """Decimal numbers are read in every usual spelling, with ASCII spaces around them."""
    assert repr(cell("float64", text)) == repr(value)


@pytest.mark.parametrize("text", NO_NUMBERS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_1_5_csv_refuses_what_is_no_number(dtype: Dtype, text: str) -> None:
    """Words, separators of thousands and digits beyond ASCII are no numbers."""
    assert type(cell_refusal(dtype, text)) is InvalidInstance


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\x1c", "\u3000", "\x85"])
@pytest.mark.parametrize("dtype", ["float64", "int64", "bool"])
def test_1_5_csv_refuses_spaces_beyond_ascii(dtype: Dtype, space: str) -> None:
    """A number or boolean is written in ASCII; the spaces around it are too."""
    text = "true" if dtype == "bool" else "1"
    assert type(cell_refusal(dtype, space + text)) is InvalidInstance


@pytest.mark.parametrize("text", ["1e400", "-1e400", "9" * 400])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_1_5_csv_refuses_overflowing_numbers(dtype: Dtype, text: str) -> None:
    """A number that overflows is out of range, and the message gives a finite limit."""
    found = cell_refusal(dtype, text)
    assert type(found) is NumberOutOfRange
    assert "up to inf" not in found.detail


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1", 1), ("-1", -1), ("+1", 1), ("3.0", 3), ("3.", 3), ("007", 7), ("-0", 0), (" 3 ", 3)),
        *((str(INT64_MAX), INT64_MAX), (str(INT64_MIN), INT64_MIN), (str(2**53 + 1), 2**53 + 1)),
        *(("0" * 60 + str(2**53 + 1), 2**53 + 1), (f"{2**53 + 1}." + "0" * 60, 2**53 + 1), ("0" * 500, 0)),
    ],
    ids=lambda value: str(value)[:24],
)
def test_csv_reads_whole_numbers_exactly(text: str, value: int) -> None:
    """A whole number within 64 bits is read exactly, however many zeros lead or trail it."""
    assert cell("int64", text) == value


@pytest.mark.parametrize("text", ["3.5", "3.01", "2e0", "1e3", ".0", "3,0"])
def test_csv_refuses_fractions_for_whole_numbers(text: str) -> None:
    """A fraction or an exponent is no whole number."""
    assert type(cell_refusal("int64", text)) is InvalidInstance


@pytest.mark.parametrize(
    "text", [str(INT64_MAX + 1), str(INT64_MIN - 1), "9" * 39, "9" * 41, "9" * 400, "-" + "9" * 400]
)
def test_csv_refuses_whole_numbers_beyond_64_bits(text: str) -> None:
    """A whole number that does not fit into 64 bits is out of range, at any length."""
    assert type(cell_refusal("int64", text)) is NumberOutOfRange


@pytest.mark.parametrize("text", ["9" * 10_000, "-" + "9" * 100_000, "0." + "1" * 10_000, "1e" + "9" * 10_000])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_csv_survives_endless_numbers(dtype: Dtype, text: str) -> None:
    """A number of ten thousand digits is read or refused like any other cell, and never fails the service."""
    try:
        cell(dtype, text)
    except RequestError as error:
        assert error.status == 422 and len(error.detail) < 200


@pytest.mark.parametrize(("text", "value"), [("true", True), ("FALSE", False), ("True", True), (" false ", False)])
def test_csv_reads_booleans(text: str, value: bool) -> None:
    """True and false are read in any case."""
    assert cell("bool", text) is value


@pytest.mark.parametrize("text", ["1", "0", "yes", "t", "truе", "NaN"])
def test_csv_refuses_other_booleans(text: str) -> None:
    """Numbers and other words are no booleans."""
    assert type(cell_refusal("bool", text)) is InvalidInstance


@pytest.mark.parametrize("marker", ["", "NA"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool", "string", "datetime", "datetime-string"])
def test_csv_reads_missing_values(dtype: Dtype, marker: str) -> None:
    """An empty cell, and every spelling of the sample, is null for a nullable feature."""
    value = cell(dtype, marker, nullable=True)
    assert value is None or math.isnan(value)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool", "string", "datetime", "datetime-string"])
def test_1_5_csv_refuses_empty_cells(dtype: Dtype) -> None:
    """An empty cell is refused where the model takes no missing value, for text too."""
    found = cell_refusal(dtype, "")
    assert type(found) is InvalidInstance
    assert "takes no missing value" in found.detail


def test_csv_takes_a_marker_as_text() -> None:
    """The sample's spelling of a missing value is plain text where the model takes none."""
    assert cell("string", "NA") == "NA"
    assert type(cell_refusal("float64", "NA")) is InvalidInstance


@pytest.mark.parametrize("marker", ["na", "NA ", "null", "None", "?"])
def test_1_5_csv_takes_no_other_marker(marker: str) -> None:
    """A spelling that the sample does not have is no missing value."""
    assert cell("string", marker, nullable=True) == marker
    assert type(cell_refusal("float64", marker, nullable=True)) is InvalidInstance


def test_csv_keeps_text_that_looks_like_a_number() -> None:
    """Text stays text: nothing is taken for a number, a date or a boolean."""
    assert read("a\n007\n", one("string"))["a"] == ["007"]
    assert parse_cell(TOWN, (), " true ") == " true "


def test_csv_reports_every_fault() -> None:
    """All faulty cells are told at once, by row and column."""
    found = refusal("mm,count,town\nx,2,a\n1,y,a\n1,2,\n")
    assert type(found) is InvalidInstance
    assert [(fault.row, fault.feature) for fault in found.faults] == [(0, "mm"), (1, "count"), (2, "town")]


def test_csv_faults_of_several_kinds() -> None:
    """Faults of several kinds come together under one code."""
    assert type(refusal("mm,count,town\n1e400,y,a\n")) is InvalidInstances


def test_csv_message_repeats_little() -> None:
    """An error repeats at most 60 signs of a name that a client made up."""
    found = refusal("é" * 100_000 + ",count,town\n1,2,a\n")
    assert type(found) is UnknownFeature
    assert "é" * 61 not in found.detail and len(found.detail) < 500


@pytest.mark.parametrize(
    "text",
    [
        "1" * 200_000 + "x",
        "1" * 200_000 + ".x",
        "." + "1" * 200_000 + "x",
        "1e" + "1" * 200_000 + "x",
        " " * 200_000 + "x",
    ],
    ids=["digits", "point", "fraction", "exponent", "spaces"],
)
@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_csv_refuses_long_cell_in_linear_time(dtype: Dtype, text: str) -> None:
    """A cell that is very long and almost a number is refused without quadratic work."""
    cell_refusal(dtype, text)


@pytest.mark.parametrize(
    "text", ["1" * 990 + "x", "." + "1" * 990 + "x", "1" * 990 + "e", "1" * 490 + "." + "1" * 490 + "x"]
)
@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_csv_refuses_many_long_cells_in_linear_time(dtype: Dtype, text: str) -> None:
    """A hundred kilobytes of cells that are almost numbers are refused without quadratic work."""
    refusal(written(["a"], *[[text]] * 100), one(dtype))


def test_csv_refuses_long_header_in_linear_time() -> None:
    """A model of 300 features refuses a header of 100,000 made-up names without quadratic work."""
    of = Signature(features=tuple(Feature(name=f"f{n}", dtype="float64") for n in range(300)), outputs=(OUTPUT,))
    header = ",".join(map(str, range(100_000)))
    refusal(header + "\n", of)


# The file


def test_open_csv_passes_over_dropped_columns() -> None:
    """Columns that are to be dropped are left out of the header and of every row, wherever they stand."""
    lines = ["target,mm,count,note,town\n", "9,1.5,2,x,Oslo\n", "9,2.5,3,x,Bergen\n"]
    header, rows = open_csv(lines, SIGNATURE, drop=("target", "note"))
    assert header == ["mm", "count", "town"]
    assert list(rows) == [["1.5", "2", "Oslo"], ["2.5", "3", "Bergen"]]


def test_open_csv_checks_width_before_dropping() -> None:
    """A ragged row is refused also where the columns that it lacks would be dropped."""
    _, rows = open_csv(["mm,count,town,note\n", "1,2,a\n"], SIGNATURE, drop=("note",))
    with pytest.raises(InvalidCsv):
        list(rows)


# The answer


def response(predictions: Any, outputs: tuple[Output, ...], probabilities: Any = None) -> PredictResponse:
    """A response of these outputs."""
    return PredictResponse("m", "1", Signature(features=(MM,), outputs=outputs), np.asarray(predictions), probabilities)


@pytest.mark.parametrize(
    ("predictions", "outputs", "body"),
    [
        ([1.5, -2.0], (OUTPUT,), "y\n1.5\n-2.0\n"),
        ([3, -4], (Output(name="n", dtype="int64"),), "n\n3\n-4\n"),
        ([True, False], (Output(name="ok", dtype="bool"),), "ok\ntrue\nfalse\n"),
        (["a,b", 'c"d', "é"], (Output(name="t", dtype="string"),), 't\n"a,b"\n"c""d"\né\n'),
        ([[1.5, 2.5], [3.5, 4.5]], (OUTPUT, Output(name="z", dtype="float64")), "y,z\n1.5,2.5\n3.5,4.5\n"),
        (np.array([["a", 1], ["b", None]], object), (OUTPUT, Output(name="z", dtype="float64")), "y,z\na,1\nb,\n"),
    ],
)
def test_csv_writes_a_column_for_each_output(predictions: Any, outputs: tuple[Output, ...], body: str) -> None:
    """An answer has the outputs' names as its header and a row for each prediction."""
    assert write_csv(response(predictions, outputs)) == body.encode()


def test_csv_writes_probabilities_behind_the_outputs() -> None:
    """Probabilities are one column for each class, named by its label."""
    outputs = (Output(name="t", dtype="string", classes=("a", "b")),)
    body = write_csv(response(["a"], outputs, (np.array([[0.75, 0.25]]),)))
    assert body == b"t,probability_a,probability_b\na,0.75,0.25\n"


def test_csv_writes_probabilities_of_several_outputs() -> None:
    """With several outputs, a probability's column is named by output and label."""
    outputs = (Output(name="t", dtype="string", classes=("a", "b")), Output(name="n", dtype="int64", classes=(0, 1)))
    shares = (np.array([[0.75, 0.25]]), np.array([[0.5, 0.5]]))
    body = write_csv(response(np.array([["a", 1]], object), outputs, shares))
    assert body == b"t,n,probability_t_a,probability_t_b,probability_n_0,probability_n_1\na,1,0.75,0.25,0.5,0.5\n"


def test_csv_writes_blocks_without_a_header() -> None:
    """A later block of one answer has no header of its own."""
    assert write_csv(response([1.5], (OUTPUT,)), header=False) == b"1.5\n"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_csv_escapes_formulas(text: str) -> None:
    """Text that a spreadsheet would run gets a quote before it."""
    [_, [found]] = csv.reader(io.StringIO(write_csv(response([text], (OUTPUT,))).decode(), newline=""))
    assert found == "'" + text


@PROPERTY
@given(st.lists(st.text("ab,;\"\r\n é'"), min_size=1, max_size=4))
def test_csv_written_is_read_again(texts: list[str]) -> None:
    """Labels with commas, quotes and line ends of any kind come back, one a row."""
    texts = [f"t{text}" for text in texts]
    body = write_csv(response(texts, (OUTPUT,))).decode()
    assert list(csv.reader(io.StringIO(body, newline=""))) == [["y"], *([text] for text in texts)]


@pytest.mark.parametrize("text", ["a=1", "1", "", "'=1", " x"])
def test_csv_leaves_other_text_alone(text: str) -> None:
    """Other text is written as it is."""
    [_, [found]] = csv.reader(io.StringIO(write_csv(response([text, "x"], (OUTPUT,))).decode().rpartition("x")[0]))
    assert found == text


@pytest.mark.parametrize("value", [-1.5, -1])
def test_csv_leaves_negative_numbers_alone(value: float) -> None:
    """A number that begins with a minus is no formula."""
    assert write_csv(response([value], (OUTPUT,))) == f"y\n{value}\n".encode()


def test_csv_escapes_formulas_in_the_header() -> None:
    """Names of outputs and classes are text cells too."""
    outputs = (Output(name="=1+1", dtype="string", classes=("a",)),)
    assert write_csv(response(["a"], outputs, (np.array([[1.0]]),))).startswith(b"'=1+1,probability_a\n")


LABELS = st.text(st.sampled_from("ab,;\"\r\n é'=+-@\t 1") | st.characters(exclude_categories=["Cs"]), max_size=4)
SHARES = st.floats(0, 1) | st.floats(allow_nan=False) | st.sampled_from([0.0, 1.0, 1e-5, 1e16, math.nan])


@st.composite
def answers(draw: st.DrawFn) -> PredictResponse:
    """An answer of any kind: labels or numbers, of one output or two, with or without probabilities."""
    n_rows = draw(st.integers(1, 4))
    kinds = {
        "text": LABELS,
        "object": LABELS | st.none() | st.booleans() | st.integers(-5, 5) | SHARES,
        "float64": SHARES,
        "float32": st.floats(width=32),
        "int64": st.integers(INT64_MIN, INT64_MAX),
        "bool": st.booleans(),
    }
    kind = draw(st.sampled_from(list(kinds)))
    classes = draw(st.none() | st.lists(LABELS | st.integers(0, 3), min_size=1, max_size=3).map(tuple))
    names = draw(st.lists(LABELS.filter(bool), min_size=1, max_size=2))
    outputs = tuple(Output(name=name, dtype="float64", classes=classes) for name in names)
    shape = n_rows if len(outputs) == 1 and draw(st.booleans()) else (n_rows, len(outputs))
    size = n_rows * (1 if isinstance(shape, int) else len(outputs))
    cells = draw(st.lists(kinds[kind], min_size=size, max_size=size))
    predictions = np.array(cells, None if kind == "text" else kind).reshape(shape)
    if classes is None or draw(st.booleans()):
        return response(predictions, outputs)
    shares = np.array(draw(st.lists(SHARES, min_size=n_rows * len(classes), max_size=n_rows * len(classes))))
    return response(predictions, outputs, (shares.reshape(n_rows, len(classes)),) * len(outputs))


@PROPERTY
@given(answers(), st.booleans())
def test_csv_is_what_the_csv_module_writes(answer: PredictResponse, header: bool) -> None:
    """An answer of any kind is, byte for byte, what the csv module writes of its cells."""
    found = write_csv(answer, header=header)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_body, "_plain_rows", lambda *_: None)
        assert found == write_csv(answer, header=header)


@pytest.mark.parametrize(
    "answer",
    [
        response(["a,b", "é"], (OUTPUT,)),
        response(np.array(["a", '"'], object), (OUTPUT,), (np.array([[0.5], [1e-9]]),)),
        response([0.5, -2.0], (OUTPUT,)),
        response([1, 2], (OUTPUT,)),
        response([True, False], (OUTPUT,)),
        response([[0.5, 1.5], [2.5, 3.5]], (OUTPUT, OUTPUT)),
    ],
    ids=["text", "objects", "floats", "integers", "booleans", "several"],
)
def test_csv_of_usual_answers_needs_no_csv_module(answer: PredictResponse) -> None:
    """Labels and numbers, with or without probabilities, are written a column at a time."""
    assert csv_body._plain_rows(answer, ["y"]) is not None
