"""What single codecs of the clouds read that others do not: bare CSV, lines, arrays, and the sizes of all of them."""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import (
    InvalidInstances,
    InvalidJson,
    RequestError,
    TooManyRows,
    UnknownParameter,
    UnsupportedMediaType,
)
from service.protocols import PROTOCOLS, eas, mlflow, oci, sagemaker
from service.signature import Feature, Output, Signature

NAMED = Signature(
    features=(
        Feature(name="mm", dtype="float64", nullable=True),
        Feature(name="a,b", dtype="string", nullable=True),
        Feature(name='q"', dtype="string"),
    ),
    outputs=(Output(name="y", dtype="string", classes=("a", "b")),),
)
FOUR = Signature(
    features=tuple(Feature(name=name, dtype="float64", nullable=True) for name in ("sl", "sw", "pl", "pw")),
    outputs=(Output(name="species", dtype="int64", classes=(0, 1, 2)),),
)
ONE = Signature(features=(Feature(name="review", dtype="string"),), outputs=(Output(name="y", dtype="float64"),))
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


def read(protocol: Any, body: bytes, content_type: str, of: Signature, max_rows: int = 10) -> list[list[Any]]:
    """The rows of a body."""
    table = protocol.decode_request(body, content_type, {}, of, max_rows).table
    return [list(row) for row in zip(*(table.cells(name) for name in table.columns), strict=True)]


# CSV with a header, and without


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e300, 1e300), TEXT.filter(bool), TEXT.filter(bool)), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_csv_is_read_with_a_header_and_without(rows: list[tuple[Any, ...]], bare: bool, end: str) -> None:
    """Rows in signature order need no header, whatever their texts and the features' names hold."""
    target = io.StringIO(newline="")
    lines = [list(row) for row in rows] if bare else [NAMED.names, *rows]
    csv.writer(target, lineterminator=end, quoting=csv.QUOTE_NONNUMERIC).writerows(lines)
    try:
        found = read(sagemaker, target.getvalue().encode(), "text/csv", NAMED)
    except RequestError as error:
        assert "\x00" in target.getvalue(), error
        return
    assert found == [list(row) for row in rows]


@pytest.mark.parametrize("first", ["sl,sw,pl,pw", "sl,sw,pl,colour", '"sl","sw","pl","pw"', "\ufeffpw,pl,sw,sl"])
def test_most_names_are_a_header(first: str) -> None:
    """A first line that is mostly features' names is a header, and checked as one."""
    body = f"{first}\n1,2,3,4\n".encode()
    if "colour" in first:
        with pytest.raises(RequestError, match="colour"):
            read(sagemaker, body, "text/csv", FOUR)
        return
    assert sorted(read(sagemaker, body, "text/csv", FOUR)[0]) == [1, 2, 3, 4]


PLACES = Signature(
    features=tuple(Feature(name=str(place), dtype="float64") for place in range(4)),
    outputs=(Output(name="y", dtype="float64"),),
)


@pytest.mark.parametrize("first", ["3,2,1,0", "0,1,2,3", "3,2,1,1", " 3 ,2,1,0", "3.0,2,,0"])
def test_numbers_are_no_header(first: str) -> None:
    """Where features are named by their places a line of numbers is a row, whatever the numbers are."""
    if ",," in first:
        with pytest.raises(RequestError, match="missing value"):
            read(sagemaker, f"{first}\n4,4,4,4\n".encode(), "text/csv", PLACES)
        return
    assert read(sagemaker, f"{first}\n4,4,4,4\n".encode(), "text/csv", PLACES) == [
        [float(cell) for cell in first.split(",")],
        [4.0] * 4,
    ]


@pytest.mark.parametrize("body", [b"1,2\r,3,4\n", b'1,"2\n,3', b"\r", b'"', b"1,2,3,4\r5,6,7,8\r"])
def test_odd_line_ends_are_no_fault_of_the_service(body: bytes) -> None:
    """Lone carriage returns and open quotes are read or refused, in a first line too."""
    try:
        assert read(sagemaker, body, "text/csv", FOUR) == [[1, 2, 3, 4], [5, 6, 7, 8]]
    except RequestError as error:
        assert error.status in (400, 422)


def test_nan_is_a_missing_number() -> None:
    """`nan` is missing in a column of numbers, and a text like others in one of texts."""
    assert read(sagemaker, b"nan,nan,NaN\n", "text/csv", NAMED) == [[None, "nan", "NaN"]]


def test_misspelt_header_is_a_header() -> None:
    """A line of names in another case is refused as a header, and not predicted as a text."""
    with pytest.raises(RequestError, match="'Review' is no column"):
        read(sagemaker, b"Review\nlovely\n", "text/csv", ONE)


@pytest.mark.parametrize("name", ["mlflow", "azureml", "watsonx"])
def test_rows_without_columns_are_refused(name: str) -> None:
    """Rows do not vanish where no column is named, though none is required."""
    optional = Signature(
        features=(Feature(name="mm", dtype="float64", required=False),), outputs=(Output(name="y", dtype="float64"),)
    )
    body = {
        "mlflow": {"dataframe_split": {"columns": [], "data": [[], []]}},
        "azureml": {"input_data": {"columns": [], "data": [[], []]}},
        "watsonx": {"input_data": [{"fields": [], "values": [[], []]}]},
    }[name]
    with pytest.raises(RequestError, match="names"):
        read(PROTOCOLS[name], json.dumps(body).encode(), "", optional)


@pytest.mark.parametrize("columns", [[0, 1, 2, 3], ["0", "1", "2", "3"]])
def test_frame_without_names_is_in_order(columns: list[Any]) -> None:
    """A frame whose columns are numbered is read in signature order, or by names that are numbers."""
    body = json.dumps({"dataframe_split": {"columns": columns, "data": [[1, 2, 3, 4]]}}).encode()
    assert read(mlflow, body, "", PLACES) == [[1, 2, 3, 4]]
    if columns == [0, 1, 2, 3]:
        assert read(mlflow, body, "", FOUR) == [[1, 2, 3, 4]]


def test_watsonx_counts_rows_before_it_reads_them() -> None:
    """The rows of all blocks are counted before a value is looked at."""
    body = json.dumps({"input_data": [{"values": [["x"] * 4] * 3}] * 4}).encode()
    with pytest.raises(TooManyRows, match="12 rows"):
        read(PROTOCOLS["watsonx"], body, "", FOUR)


def test_mlflow_s_csv_has_a_header() -> None:
    """Where MLflow is spoken alone, the first line is always the header."""
    with pytest.raises(RequestError, match="no column of this model"):
        read(mlflow, b"1,2,3,4\n", "text/csv", FOUR)


# Lines


def test_lines_are_rows() -> None:
    """Each line is a row by name or in order; NaN is a missing value."""
    body = b'[1, 2, 3, NaN]\n{"sl": 1, "sw": 2, "pl": 3, "pw": 4}\r\n'
    assert read(sagemaker, body, "application/jsonlines", FOUR) == [[1, 2, 3, None], [1, 2, 3, 4]]
    assert read(sagemaker, b'"a"\n"b"', "application/jsonlines", ONE) == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (b"[1,2,3,4]\n\n[1,2,3,4]", InvalidJson, "line 2"),
        (b"[1,2,3,4]\n[1,2,3", InvalidJson, "line 2"),
        (b"[1,2,3,4] [1,2,3,4]", InvalidJson, "line 1"),
        (b"", InvalidJson, "line 1"),
        (b"\n" * 1_000_000, TooManyRows, "lines"),
        (b"[1,2,3,4]\n" * 11, TooManyRows, "10 lines"),
    ],
)
def test_lines_are_checked(body: bytes, error: type[RequestError], said: str) -> None:
    """A line that is no JSON is named; more lines than rows are allowed are refused before they are read."""
    with pytest.raises(error, match=said):
        read(sagemaker, body, "application/jsonlines", FOUR)


# Arrays of oracle-ads


def packed(array: Any, **changed: Any) -> bytes:
    """A request as oracle-ads sends an array."""
    stream = io.BytesIO()
    np.save(stream, array)
    text = base64.b64encode(stream.getvalue()).decode()
    return json.dumps({"data": text, "data_type": "<class 'numpy.ndarray'>"} | changed).encode()


@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8", "i4", "u1", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read(dtype: str, order: Any) -> None:
    """An array of any numbers in any order is read row by row; NaN is a missing value."""
    array = np.array([[1, 0, 1, 0], [0, 0, 1, 1]], dtype, order=order)
    if dtype == "?":
        with pytest.raises(InvalidInstances, match="a number"):
            read(oci, packed(array), "", FOUR)
        return
    assert read(oci, packed(array), "", FOUR) == [[1, 0, 1, 0], [0, 0, 1, 1]]
    if "f" in dtype:
        array[0, 3] = np.nan
        assert read(oci, packed(array), "", FOUR)[0] == [1, 0, 1, None]


def header(shape: Any, descr: str = "<f8") -> str:
    """A file of numpy's with this shape in its header, and 32 bytes of data."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return base64.b64encode(
        b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + b"\0" * 32
    ).decode()


@pytest.mark.parametrize(
    "sent",
    [
        {"data": header((1, 4))[:-8]},
        {"data": header((10**12, 4))},
        {"data": header((-1, -4))},
        {"data": header((4,))},
        {"data": header((2, 2))},
        {"data": header((0, 4))},
        {"data": header((1, 4), "|O")},
        {"data": header("(1, 4).__class__")},
        {"data": header("-" * 60 + "1")},
        {"data": header("(1, 4), 'descr': '<f8'")},
        {"data": header((1, 4), "<b2")},
        {"data": header((1, 4), "<f1")},
        {"data": header((1, 4), "<c16")},
        {"data": base64.b64encode(b"PK\x03\x04" + b"\0" * 100).decode()},
        {"data": base64.b64encode(b"\x93NUMPY\x02\x00" + b"\xff" * 100).decode()},
        {"data": "x" * 7},
        {"data_type": None},
        {"data_type": 3},
    ],
    ids=range(18),
)
def test_arrays_are_checked(sent: dict[str, Any]) -> None:
    """A header that lies about its size, objects, archives and cut files are refused, and nothing is made for them."""
    with pytest.raises(RequestError):
        read(oci, packed(np.zeros((1, 4)), **sent), "", FOUR)


# All of them


@pytest.mark.parametrize("name", ["mlflow", "sagemaker", "vertex", "azureml", "watsonx", "oci", "eas"])
def test_far_too_many_values_are_refused_by_their_number(name: str) -> None:
    """A body with far more values than the largest request is refused before an object is made of it."""
    with pytest.raises(TooManyRows, match="far more values"):
        read(PROTOCOLS[name], b'{"instances": [' + b"[]," * 100_000 + b"[]]}", "application/json", FOUR)


def test_far_too_many_values_in_a_text_are_refused_too() -> None:
    """What is packed into a text is counted as the body is."""
    frame = '{"sl": {' + ",".join(f'"{index}": 1' for index in range(1000)) + "}}"
    body = json.dumps({"data": frame, "data_type": "pandas.core.frame.DataFrame"}).encode()
    with pytest.raises(TooManyRows, match="far more values"):
        read(oci, body, "", FOUR)


@pytest.mark.parametrize("name", ["vertex", "azureml", "watsonx", "oci"])
def test_other_types_are_refused(name: str) -> None:
    """A body that says it is of another type is refused, and one that says nothing is JSON."""
    with pytest.raises(UnsupportedMediaType, match="text/csv"):
        read(PROTOCOLS[name], b"1,2,3,4", "text/csv", FOUR)
    with pytest.raises(InvalidJson):
        read(PROTOCOLS[name], b"1,2,3,4", "", FOUR)


@pytest.mark.parametrize("name", ["mlflow", "sagemaker", "vertex", "azureml", "oci", "eas"])
@pytest.mark.parametrize("query", [{"probabilities": "yes"}, {"colour": "red"}])
def test_query_is_checked(name: str, query: dict[str, str]) -> None:
    """The query has the one switch."""
    body = PROTOCOLS[name].encode_request([[1, 2, 3, 4]])
    with pytest.raises(UnknownParameter):
        PROTOCOLS[name].decode_request(body, "", query, FOUR, 10)
    assert PROTOCOLS[name].decode_request(body, "", {"probabilities": "true"}, FOUR, 10).probabilities


def test_token_is_bound_to_path_body_type_and_date() -> None:
    """A signature is good for just what was signed, and the token itself for everything."""
    signed: dict[str, Any] = {"path": "/api/predict/s", "content_type": "a/b", "date": "Mon", "body": b"body"}
    text = "POST\n" + hashlib.md5(b"body").hexdigest() + "\na/b\nMon\n/api/predict/s"
    good = "EAS " + base64.b64encode(hmac.new(b"t", text.encode(), hashlib.sha1).digest()).decode()
    assert eas.is_authorized(good, "t", **signed)
    for name, other in {"path": "/api/predict/x", "content_type": "", "date": "Tue", "body": b""}.items():
        assert not eas.is_authorized(good, "t", **signed | {name: other})
    assert not eas.is_authorized(good, "u", **signed)
    assert not eas.is_authorized("", "t", **signed)
    assert eas.is_authorized("t", "t", **signed)
