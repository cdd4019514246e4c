"""CSV read straight into columns: the same tables as the exact reader, or none, and never a guess."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from service.errors import RequestError
from service.protocols import native
from service.protocols.csv_body import read_csv
from service.protocols.typed_csv import BLOCK_BYTES, TypedCsv
from service.signature import INT64_MAX, INT64_MIN, LARGEST_FLOAT32, Dtype, Feature, Output, Signature
from service.table import Table

PROPERTY = settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
MAX_ROWS = 5
DTYPES: tuple[Dtype, ...] = ("float64", "float32", "int64", "bool", "string", "datetime", "datetime-string")
OUTPUTS = (Output(name="y", dtype="int64"),)
NAMES = ["a", "b", " c", "naïve", "中 文", "😀", "\ufeff", "1", "NA", 'd"e', "f,g"]
MISSING = ["", "NA", "-", "1", "nan", " ", "é"]
MOMENTS = ["2026-11-22", "2026-11-22T15:30", "2026-11-22 15:30:00.5", "2026-11-22T15:30:00+01:00"]
NUMBERS = [
    *(
        "0",
        "1",
        "-0",
        "+1",
        "007",
        "1.",
        ".5",
        "-.5",
        "1.0",
        "3.00",
        "1e3",
        "1E-3",
        "1.e+2",
        " 1",
        "1 ",
        "\t1.5 ",
        "1e-400",
    ),
    *("0.1", "2.675", "9007199254740993", "9007199254740993.0", "123456789.123456789", "4.35e-17", "5e-324", "1e23"),
    *(
        str(INT64_MAX),
        str(INT64_MIN),
        str(INT64_MAX + 1),
        str(INT64_MIN - 1),
        "9" * 41,
        "0" * 60 + "1",
        "1." + "0" * 60,
    ),
    *("1e400", "-1e400", "3.5e38", "1e38", "1" * 400, "1" * 5000, "0." + "1" * 5000, "1e" + "9" * 5000),
]
WILD = [
    *(
        "nan",
        "NaN",
        "inf",
        "-inf",
        "Infinity",
        "1e",
        "e5",
        ".",
        "+",
        "-",
        "--1",
        "1-",
        "1.5.2",
        "0x10",
        "1_000",
        "1 000",
    ),
    *(
        "١٢",
        "１",
        "½",
        "1d5",
        "1f",
        "1%",
        "\u00a01",
        "1\u2003",
        "\x1c1",
        "1\x85",
        "\x0b1",
        "1\x0c",
        "\x00",
        "1\x00",
        "n",
        "an",
    ),
    *(
        "true",
        "false",
        "TRUE",
        "False",
        "tRue",
        " true",
        "yes",
        "x",
        "é",
        "NA",
        "-",
        "",
        " ",
        "null",
        "None",
        "2026-13-01",
    ),
    *(
        '"',
        'a"b',
        '"x"',
        '""',
        '"1"',
        ' "1"',
        '"1" ',
        '"x,y"',
        '"x""y"',
        '"x\ny"',
        '"1"2',
        "'1'",
        "1;2",
        "\u2028",
        "1\ud7ff",
    ),
    *("1,2", "1\n2", "1\r2", "1\r\n2", "\n", "\r", ",", "\ufeff1"),
]


@st.composite
def feature(draw: st.DrawFn, name: str) -> Feature:
    """A feature of any dtype, with any of what may be said of it."""
    dtype: Dtype = draw(st.sampled_from(DTYPES))
    facts: dict[str, Any] = {"nullable": draw(st.booleans()), "required": draw(st.booleans())}
    if dtype in ("string", "int64", "float64", "float32") and draw(st.booleans()):
        known = st.sampled_from(["x", "NA", "", "é", "1"]) if dtype == "string" else st.integers(-1, 3)
        some = st.lists(known, min_size=1, max_size=3).filter(lambda values: values != [""] * len(values))
        facts |= {"closed": draw(st.booleans()), "categories": draw(some.map(tuple))}
    elif dtype in ("float64", "float32", "int64") and draw(st.booleans()):
        facts["largest"] = draw(st.sampled_from([0.0, 0.5, 1.0, 100.0, 2.0**31 - 1, 2.0**53, 2.0**62, 2.0**63]))
    return Feature(name=name, dtype=dtype, **facts)


@st.composite
def signatures(draw: st.DrawFn, names: list[str] = NAMES) -> Signature:
    """A signature of up to four features, with its spellings of a missing value."""
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
    missing = tuple(draw(st.lists(st.sampled_from(MISSING), max_size=3, unique=True)))
    return Signature(features=tuple(draw(feature(name)) for name in chosen), outputs=OUTPUTS, missing=missing)


def honest(of: Feature) -> st.SearchStrategy[str]:
    """Cells that a feature takes."""
    most = of.largest if of.largest is not None else LARGEST_FLOAT32 if of.dtype == "float32" else 1.7e308
    whole = int(min(most, INT64_MAX))
    cells: dict[str, st.SearchStrategy[Any]] = {
        "bool": st.sampled_from(["true", "false", "True", "False", "TRUE", "FALSE"]),
        "string": st.text(st.characters(exclude_categories=["Cs"], exclude_characters=',"\r\n'), min_size=1),
        "datetime": st.sampled_from(MOMENTS),
        "datetime-string": st.sampled_from(MOMENTS),
        "int64": st.integers(max(INT64_MIN, -whole), whole),
        "float64": st.floats(-most, most) | st.integers(-whole, whole),
        "float32": st.floats(-most, most, width=64) | st.integers(-whole, whole),
    }
    known = [str(each) for each in of.categories or () if each != ""]
    found = st.sampled_from(known) if of.closed and known else cells[of.dtype]
    return (found | st.just("") if of.takes_null else found).map(str)


@st.composite
def bodies(draw: st.DrawFn, of: Signature, *, wild: bool) -> bytes:
    """A CSV body; a wild one is right in most places."""
    kept = [f for f in draw(st.permutations(of.features)) if f.required or draw(st.booleans())] or [of.features[0]]

    def cell(feature: Feature) -> str:
        if wild and draw(st.integers(0, 5)) == 0:
            return draw(st.sampled_from(WILD + NUMBERS + MISSING))
        return draw(honest(feature))

    n_rows = draw(st.integers(0 if wild else 1, MAX_ROWS + wild))
    rows = [[f.name for f in kept], *([cell(f) for f in kept] for _ in range(n_rows))]
    if draw(st.booleans()):
        rows = [[f'"{cell}"' if draw(st.booleans()) else cell for cell in row] for row in rows]
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"] if wild else ["\n", "\r\n"]))
    text = draw(st.sampled_from(["", "", "\ufeff"])) + end.join(map(",".join, rows)) + draw(st.sampled_from(["", end]))
    return text.encode("utf-8", "surrogatepass")


@st.composite
def asked(draw: st.DrawFn, *, wild: bool, names: list[str] = NAMES) -> tuple[Signature, bytes]:
    """A signature and a body for it."""
    of = draw(signatures(names))
    return of, draw(bodies(of, wild=wild))


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


def check_agrees(of: Signature, body: bytes) -> Any:
    """Check that the service makes of a body what the exact reader makes of it, and return it."""
    found = outcome(lambda: native.decode_request(body, "text/csv", {}, of, MAX_ROWS).table)
    assert found == outcome(lambda: read_csv(body, of, MAX_ROWS))
    return found


def is_taken(of: Signature, body: bytes, max_rows: int = MAX_ROWS) -> bool:
    """Whether a body is read at once."""
    return TypedCsv(of).read(body, max_rows) is not None


def one(dtype: Dtype, **facts: Any) -> Signature:
    """A signature with one feature, called a; a missing value may be spelt NA."""
    return Signature(features=(Feature(name="a", dtype=dtype, **facts),), outputs=OUTPUTS, missing=("", "NA"))


def two(dtype: Dtype, **facts: Any) -> Signature:
    """A signature with a second feature, so that a line may hold an empty cell."""
    return Signature(features=(*one(dtype, **facts).features, Feature(name="b", dtype="bool")), outputs=OUTPUTS)


# The same as the exact reader


@PROPERTY
@given(asked(wild=True))
def test_1_5_typed_csv_agrees_with_the_exact_reader(of_and_body: tuple[Signature, bytes]) -> None:
    """Whatever stands in a body, the fast reader makes the exact reader's table of it, or leaves it to that one."""
    check_agrees(*of_and_body)


@PROPERTY
@given(asked(wild=False), st.data())
def test_1_5_typed_csv_agrees_on_damaged_bodies(of_and_body: tuple[Signature, bytes], data: st.DataObject) -> None:
    """A body that is cut, or has bytes replaced, added or repeated, is never read as another table."""
    of, body = of_and_body
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(body))] * 2)))
    stop = min(stop, start + data.draw(st.integers(0, 8)))
    marks = [
        *(b",", b"\n", b"\r", b'"', b'"",', b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x00", b" ", b"1", b"_", b"n")
    ]
    middle = data.draw(st.sampled_from([*marks, body[start:stop] * 2, b""]) | st.binary(max_size=3))
    check_agrees(of, body[:start] + middle + body[stop:])
    check_agrees(of, body[:start])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", sorted({*NUMBERS, *WILD, *MISSING}), ids=lambda cell: ascii(cell)[:24])
def test_1_5_typed_csv_agrees_on_every_cell(cell: str, dtype: Dtype) -> None:
    """No spelling of a cell is read more leniently than by the exact reader, missing values being allowed or not."""
    check_agrees(one(dtype, nullable=True), f"a\n{cell}\n".encode())
    check_agrees(two(dtype), f"a,b\n{cell},true\n".encode())


@pytest.mark.parametrize(
    "body",
    [
        *(
            "",
            "\n",
            "a",
            "a\n",
            "a\n\n",
            "a\n1\n\n",
            "\na\n1\n",
            "a\n1\n\n2\n",
            'a\n""\n',
            'a\n""',
            'a\n1\n""',
            'a\n"1"\n',
            '"a"\n1\n',
        ),
        *("a\r1\r", "a\n1\r", "a\r\n1\n\r", "a\r\r\n1\r\n", "a\n1\r\r\n", "a\n\r\n1\n", "\ufeff\ufeffa\n1\n"),
        *(
            "a,a\n1,2\n",
            "A\n1\n",
            "a,\n1,\n",
            "a\n1,2\n",
            "a\n1\n1,2\n",
            "a\n" + "1\n" * (MAX_ROWS + 1),
            "a\n" + "," * 300,
        ),
        *(
            'a\n"1\n',
            'a\n1"\n',
            'a\n""1""\n',
            '"a\n1"\n',
            'a"\n"1\n',
            '"a""\n1\n',
            'a\n"1""2"\n',
            "a\n\x00\n",
            "a\x00\n1\n",
        ),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("dtype", ["float64", "string"])
def test_1_5_typed_csv_agrees_on_every_form(body: str, dtype: Dtype) -> None:
    """Headers, line ends, quotes and rows of every kind are read or refused as by the exact reader."""
    check_agrees(one(dtype), body.encode())


@PROPERTY
@given(st.text('a,b"\n1', max_size=12))
def test_1_5_quotes_are_taken_away_only_where_they_are_needless(rows: str) -> None:
    """However quotes, commas and line ends follow one another, no cell begins or ends elsewhere than it did."""
    of = Signature(features=tuple(Feature(name=name, dtype="string") for name in "ab"), outputs=OUTPUTS)
    check_agrees(of, b"a,b\n" + rows.encode())
    check_agrees(one("string"), b"a\n" + rows.encode())


# Taken for whatever is right


@PROPERTY
@given(asked(wild=False, names=["a", "b", " c", "naïve", "中 文", "😀", "1"]))
def test_typed_csv_takes_every_honest_body(of_and_body: tuple[Signature, bytes]) -> None:
    """A body of several columns with values that the features take is read at once, as the exact reader reads it."""
    of, body = of_and_body
    assume(b"," in body.partition(b"\n")[0])
    assert not isinstance(check_agrees(of, body)[0], type)
    assert is_taken(of, body)


@pytest.mark.parametrize(
    ("dtype", "cells"),
    [
        ("float64", ["1.5", " -2", "+.5", "1.", "1e3\t", "007"]),
        ("float32", ["0.1", "16777217", "1e-50"]),
        ("int64", ["1", " -2", "+3", "007", str(INT64_MIN), str(INT64_MAX), "3.0", "4."]),
        ("bool", ["true", "FALSE", "True", " true", "tRUE"]),
        ("string", ["x", " x ", '5" nail'.replace('"', "'"), "é", "1"]),
        ("datetime", MOMENTS),
        ("datetime-string", MOMENTS),
    ],
)
@pytest.mark.parametrize("nullable", [False, True])
def test_typed_csv_takes_every_usual_spelling(dtype: Dtype, cells: list[str], nullable: bool) -> None:
    """Spaces, signs, leading zeros, whole numbers with a point and missing values are read at once."""
    cells = cells + ["", "NA"] * nullable
    body = "".join(["a,b\n", *(f"{cell},true\n" for cell in cells)]).encode()
    of = Signature(features=two(dtype, nullable=nullable).features, outputs=OUTPUTS, missing=("", "NA"))
    assert is_taken(of, body, 20)
    assert contents(TypedCsv(of).read(body, 20)) == contents(read_csv(body, of, 20))


@pytest.mark.parametrize(
    "body",
    [
        "a,b\n1,true\n",
        "a,b\n1,true",
        "a,b\r\n1,true\r\n",
        "a,b\r\n1,true",
        "\ufeffa,b\n1,true\n",
        '"a","b"\n"1","true"\n',
        '\ufeff"a",b\r\n1,"true"',
        "b,a\ntrue,1\n",
    ],
    ids=ascii,
)
def test_typed_csv_takes_every_usual_form(body: str) -> None:
    """A byte order mark, needless quotes, line ends of two systems and any order of columns are read at once."""
    assert is_taken(two("int64"), body.encode())
    assert check_agrees(two("int64"), body.encode())[1] == 1


# Blocks


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nullable", [False, True])
def test_typed_csv_joins_its_blocks(dtype: Dtype, nullable: bool) -> None:
    """A body of many blocks, whose spellings change from one to the next, makes one column of one dtype."""
    first, last = {"float64": ("1", "2.5"), "float32": ("1", "2.5"), "int64": ("1", "2.0")}.get(
        dtype, (MOMENTS[0],) * 2
    )
    if dtype == "bool":
        first, last = "true", " false"
    cells = [first] * (BLOCK_BYTES // 4) + [""] * 3 * nullable + [last] * (BLOCK_BYTES // 4)
    body = "".join(["a,b\n", *(f"{cell},true\n" for cell in cells)]).encode()
    of = two(dtype, nullable=nullable)
    assert len(body) > 2 * BLOCK_BYTES and is_taken(of, body, len(cells))
    assert contents(TypedCsv(of).read(body, len(cells))) == contents(read_csv(body, of, len(cells)))


@pytest.mark.parametrize("length", [BLOCK_BYTES - 4, BLOCK_BYTES - 3, BLOCK_BYTES - 2, BLOCK_BYTES, 3 * BLOCK_BYTES])
@pytest.mark.parametrize("sign", ["x", "é", "😀"])
def test_typed_csv_takes_rows_longer_than_a_block(length: int, sign: str) -> None:
    """A row that fills a block, or more than one, is one row, whatever its signs are made of."""
    rows = ["y", sign * (length // len(sign.encode())), "z", "x" * length, "y"]
    body = "\n".join(["a", *rows, ""]).encode()
    assert contents(TypedCsv(one("string")).read(body, 5)) == contents(read_csv(body, one("string"), 5))


def test_typed_csv_fault_in_a_later_block_is_the_exact_readers() -> None:
    """A fault behind the first block is told with its row in the body."""
    body = ("a\n" + "1\n" * BLOCK_BYTES + "x\n").encode()
    with pytest.raises(RequestError) as caught:
        native.decode_request(body, "text/csv", {}, one("float64"), 2 * BLOCK_BYTES)
    assert [fault.row for fault in caught.value.faults] == [BLOCK_BYTES]


@pytest.mark.parametrize("number", [2**53, 2**53 + 1, -(2**53) - 1])
def test_whole_numbers_are_held_against_their_bound_exactly(number: int) -> None:
    """A whole number that a float would round to the bound is beyond it."""
    of = Signature(features=(Feature(name="a", dtype="int64", largest=2.0**53),), outputs=OUTPUTS)
    assert (TypedCsv(of).read(f"a\n{number}\n".encode(), MAX_ROWS) is None) == (abs(number) > 2**53)
