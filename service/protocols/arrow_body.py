"""Arrow streams, both ways: one IPC stream whose columns are the features, and one whose columns are the outputs.

pyarrow is no requirement of the service; where it is installed, the first request that wants it imports it. It is
asked only for what imports no pandas, which would take 50 MiB more: numbers are read and written as their buffers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from service.errors import InvalidArrow, PayloadTooLarge, shorten
from service.protocols.arrow_messages import check_messages, reading
from service.protocols.csv_body import probability_names
from service.signature import INT64_MAX, INT64_MIN, TEXTS, Feature, Signature, magnitude
from service.table import NUMPY_DTYPES, Column, Faults, PredictResponse, Table, check_column, table_from_columns

ARROW = "application/vnd.apache.arrow.stream"
"""Source: https://www.iana.org/assignments/media-types/application/vnd.apache.arrow.stream, read 2026-11-23."""
INSTALLED = find_spec("pyarrow") is not None
ADVICE = f"{ARROW} needs pyarrow, which is not installed; add pyarrow to requirements.in, then `make lock install`"
SPELT_OUT_BYTES = 4 * 2**20
"""What texts may come to that stand once in the body and are used by many rows: as much as the largest body has by
default, and never less than the body itself."""

INTEGERS = {f"{sign}int{bits}": f"{sign or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
SINGLES = {"halffloat": "f2", "float": "f4"}
FLOATS = {**SINGLES, "double": "f8"}
TIMES = {"date32[day]": "D"} | {f"timestamp[{unit}]": unit for unit in ("s", "ms", "us", "ns")}
STORAGE = INTEGERS | FLOATS | {name: "i4" if unit == "D" else "i8" for name, unit in TIMES.items()}
"""How the values of an Arrow type lie in their buffer, as numpy calls it."""
STRINGS = {"string": np.int32, "large_string": np.int64, "string_view": None}
"""What a string type counts its bytes in; a view holds its length itself."""
DICTIONARY = "dictionary of "
DICTIONARIES = {DICTIONARY + name for name in STRINGS}
TAKEN = {
    "float64": ("floats or integers", FLOATS.keys() | INTEGERS.keys()),
    "float32": ("floats of at most 32 bits or integers", SINGLES.keys() | INTEGERS.keys()),
    "int64": ("integers", INTEGERS.keys()),
    "bool": ("bool", {"bool"}),
    "string": ("strings or a dictionary of strings", STRINGS.keys() | DICTIONARIES),
    "datetime": ("timestamps or date32", TIMES.keys()),
    "datetime-string": ("strings that are ISO 8601 dates or times", STRINGS.keys() | DICTIONARIES),
}
"""By a feature's dtype the Arrow types that it takes, in words and by name; and null where it takes null."""
MICROSECONDS = {"D": 86_400_000_000, "s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}
FIRST_MOMENT, LAST_MOMENT = (
    np.datetime64(moment, "us").astype(np.int64).item() for moment in ("0001-01-01", "9999-12-31T23:59:59.999999")
)
"""The ends of the calendar that JSON's dates have, in microseconds."""


class Sent(NamedTuple):
    """One column of a stream: the name of its Arrow type, and an array of each batch."""

    kind: str
    arrays: list[Any]


def read_arrow(body: bytes, signature: Signature, max_rows: int) -> Table:
    """Read one Arrow IPC stream into a checked table.

    Raises:
        InvalidArrow: If the body is no whole, plain stream.
        PayloadTooLarge: If its texts, spelt out, are much more than the body.
        InvalidInstances: If its columns are not the features, or a value does not fit its feature.
    """
    from pyarrow import BufferReader, ipc

    check_messages(body, len(signature.features), max_rows)
    with reading():
        reader = ipc.open_stream(BufferReader(body), options=ipc.IpcReadOptions(use_threads=False))
        kinds = [(field.name, _kind(field.type)) for field in reader.schema]
    _check_kinds(signature, kinds)
    with reading():
        batches = [batch for batch in reader if batch.num_rows]
        for batch in batches:
            batch.validate(full=True)  # before it nothing may look at a value
    sent = {
        name: Sent(kind, [batch.column(place) for batch in batches])
        for place, (name, kind) in enumerate(kinds)
        if kind != "null"
    }
    _check_texts(
        chain.from_iterable(column.arrays for column in sent.values() if column.kind not in STORAGE), len(body)
    )
    return _table(signature, sent, sum(batch.num_rows for batch in batches))


def _kind(arrow_type: Any) -> str:
    """Name a type, a time without its zone and a dictionary without its indices."""
    name = str(arrow_type)
    if name.startswith("dictionary<"):
        return f"{DICTIONARY}{arrow_type.value_type}"
    return name.partition(",")[0] + "]" if name.startswith("timestamp[") and "," in name else name


def _check_kinds(signature: Signature, kinds: Sequence[tuple[str, str]]) -> None:
    [(name, times)] = Counter(name for name, _ in kinds).most_common(1) or [("", 0)]
    if times > 1:
        raise InvalidArrow(f"the column {shorten(name)!r} stands twice; send it once")
    found, faults = dict(kinds), Faults()
    table_from_columns(signature, dict.fromkeys(found, ()))  # no row: it looks at the names
    for feature in signature.features:
        wanted, taken = TAKEN[feature.dtype]
        kind = found.get(feature.name, "null")  # what may be absent takes null
        if kind not in taken and not (kind == "null" and feature.takes_null):
            detail = f"expected an Arrow column of {wanted}, found {shorten(kind)}"
            faults.add("invalid-instance", detail, feature=feature.name)
    faults.raise_if_any()


def _table(signature: Signature, sent: dict[str, Sent], n_rows: int) -> Table:
    faults, columns = Faults(), {}
    for feature in signature.features:
        if feature.name in sent:
            columns[feature.name] = _column(feature, sent[feature.name], faults)
        else:
            columns[feature.name] = np.full(n_rows, None, _dtype(feature))
    faults.raise_if_any()
    return Table(columns, n_rows)


def _column(feature: Feature, sent: Sent, faults: Faults) -> Column:
    """Return a column at once where it is sure to be right, else by the check that every format has in common."""
    if feature.dtype in TEXTS:
        return _text_column(feature, list(chain.from_iterable(map(_texts, sent.arrays))), faults)
    numbers = np.concatenate([_numbers(array, sent.kind) for array in sent.arrays])
    gaps = np.concatenate([_gaps(array) for array in sent.arrays])
    if feature.dtype == "datetime":
        return _moment_column(feature, numbers.astype(np.int64).view(f"M8[{TIMES[sent.kind]}]"), gaps, faults)
    return _number_column(feature, numbers, gaps, faults)


def _number_column(feature: Feature, numbers: Column, gaps: Column, faults: Faults) -> Column:
    dtype, present = np.dtype(NUMPY_DTYPES[feature.dtype]), numbers[~gaps]
    if not _holds(dtype, present):
        detail = f"has whole numbers beyond 2**{_digits(dtype)}, which {dtype} does not hold exactly"
        faults.add("number-out-of-range", detail, feature=feature.name)
    if not _fits(feature, present) or not _may_have(feature, gaps):
        # NaN is no number here, as it is none in CSV, where it is a text.
        cells = ["NaN" if cell != cell else cell for cell in numbers.tolist()]
        return check_column(feature, _cells(cells, gaps), faults)
    column = _as_objects(numbers) if _dtype(feature).kind == "O" else numbers.astype(dtype)
    if gaps.any():
        column[gaps] = None
    return column


def _dtype(feature: Feature) -> np.dtype[Any]:
    as_objects = feature.takes_null and feature.dtype in ("int64", "bool")
    return np.dtype(object if as_objects else NUMPY_DTYPES[feature.dtype])


def _as_objects(numbers: Column) -> Column:
    """Return numbers as Python has them, of short ones one object for each: they would take forty times the body."""
    if numbers.itemsize > 2:
        return numbers.astype(object)
    different, places = np.unique(numbers, return_inverse=True)
    return different.astype(object)[places]


def _fits(feature: Feature, present: Column) -> bool:
    """Whether numbers are sure to be in range; NaN never is."""
    if feature.closed or not len(present):
        return not feature.closed
    bound = magnitude(feature)
    if bound is None:
        least, most = (INT64_MIN, INT64_MAX) if feature.dtype == "int64" else (-sys.float_info.max, sys.float_info.max)
    else:
        least, most = -bound, bound
    return bool(least <= present.min().item() and present.max().item() <= most)


def _may_have(feature: Feature, gaps: Column) -> bool:
    return feature.takes_null or not gaps.any()


def _holds(dtype: np.dtype[Any], present: Column) -> bool:
    """Whether a dtype holds each number exactly; only whole numbers may be too long, for a float."""
    if dtype.kind != "f" or present.dtype.kind == "f" or not len(present):
        return True
    most = 2 ** _digits(dtype)
    return bool(-most <= present.min().item() and present.max().item() <= most)


def _digits(dtype: np.dtype[Any]) -> int:
    return int(np.finfo(dtype).nmant) + 1


def _cells(cells: Iterable[Any], gaps: Column) -> list[Any]:
    return [None if gap else cell for cell, gap in zip(cells, gaps.tolist(), strict=True)]


def _moment_column(feature: Feature, moments: Column, gaps: Column, faults: Faults) -> Column:
    moments[gaps] = np.datetime64("NaT")
    if _may_have(feature, gaps) and _is_calendar(moments[~gaps]):
        column = moments.astype("M8[us]")
        if (column == moments)[~gaps].all():
            return column
    return check_column(feature, _cells(_spell(moments), gaps), faults)


def _spell(moments: Column) -> list[str]:
    """Write moments as JSON has them, to the microsecond; those that are finer have more digits than it takes."""
    too_fine = "000" if np.datetime_data(moments.dtype)[0] == "ns" else ""
    return [text.removesuffix(too_fine) for text in np.datetime_as_string(moments).tolist()]


def _is_calendar(present: Column) -> bool:
    """Whether moments lie in the calendar, so that they are still themselves in microseconds."""
    unit, _ = np.datetime_data(present.dtype)
    numbers = present.astype(np.int64)
    ends = [int(end) * MICROSECONDS[unit] for end in (numbers.min(), numbers.max())] if len(numbers) else []
    return all(FIRST_MOMENT <= end <= LAST_MOMENT for end in ends)


def _text_column(feature: Feature, cells: list[str | None], faults: Faults) -> Column:
    """Return a column of texts whose UTF-8 was validated."""
    different = set(cells) - ({None} if feature.takes_null else set())
    known = different if not feature.closed else set(feature.categories or ())
    if feature.dtype != "string" or None in different or not different <= known:
        return check_column(feature, cells, faults)
    column = np.empty(len(cells), dtype=object)
    column[:] = cells
    return column


def _numbers(array: Any, kind: str) -> Column:
    """Return a validated array's numbers as they lie in the body; those in its gaps mean nothing."""
    buffer = array.buffers()[1]
    if kind == "bool":
        return _bits(buffer, len(array))
    return np.frombuffer(buffer, STORAGE[kind], len(array))


def _gaps(array: Any) -> Column:
    """Return which values of a validated array are null."""
    validity = array.buffers()[0]
    return np.zeros(len(array), np.bool_) if validity is None else ~_bits(validity, len(array))


def _bits(buffer: Any, n_bits: int) -> Column:
    return np.unpackbits(np.frombuffer(buffer, np.uint8), count=n_bits, bitorder="little").view(np.bool_)


def _texts(array: Any) -> list[str | None]:
    """Return a validated array's texts; those of a dictionary are made once."""
    if not _kind(array.type).startswith(DICTIONARY):
        texts: list[str | None] = array.to_pylist()
        return texts
    texts = [*array.dictionary.to_pylist(), None]
    return [texts[place] for place in _places(array).tolist()]


def _places(array: Any) -> Column:
    """Return where in its dictionary each value stands; a gap stands after its end."""
    places = _numbers(array.indices, str(array.type.index_type)).astype(np.int64)
    return np.where(_gaps(array), len(array.dictionary), places)


def _check_texts(arrays: Iterable[Any], body_bytes: int) -> None:
    """Refuse texts that would take far more than the body, because rows share them."""
    found, limit = sum(map(_text_bytes, arrays)), max(body_bytes, SPELT_OUT_BYTES)
    if found > limit:
        raise PayloadTooLarge(f"its texts spelt out have {found} bytes and may have {limit}; send fewer rows at once")


def _text_bytes(array: Any) -> int:
    if not _kind(array.type).startswith(DICTIONARY):
        return int(_lengths(array).sum())
    lengths = _lengths(array.dictionary)
    return int(lengths.sum() + np.append(lengths, 0)[_places(array)].sum())


def _lengths(array: Any) -> Column:
    """Return the bytes of each text of a validated array; 0 for bits."""
    kind = _kind(array.type)
    if kind not in STRINGS or not len(array):
        return np.zeros(len(array), np.int64)
    buffer, offset = array.buffers()[1], STRINGS[kind]
    if offset is not None:
        return np.diff(np.frombuffer(buffer, offset, len(array) + 1).astype(np.int64))
    views = np.frombuffer(buffer, np.int32, 4 * len(array))  # of the four, the first is the length
    return np.where(_gaps(array), 0, views[::4]).astype(np.int64)


def write_arrow(response: PredictResponse) -> bytes:
    """Write predictions as one Arrow IPC stream of one batch, with the columns of the CSV answer."""
    import pyarrow

    n_rows = len(response.predictions)
    names = [output.name for output in response.signature.outputs]
    columns = list(response.predictions.reshape(n_rows, -1).T)
    if response.probabilities is not None:
        names += probability_names(response)
        columns += chain.from_iterable(output.T for output in response.probabilities)
    arrays = [_array(column) for column in columns]
    schema = pyarrow.schema([(name, array.type) for name, array in zip(names, arrays, strict=True)])
    target = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(target, schema) as writer:
        writer.write_batch(pyarrow.RecordBatch.from_arrays(arrays, schema=schema))
    body: bytes = target.getvalue().to_pybytes()
    return body


def _array(values: Column) -> Any:
    """Return numbers, booleans or texts as an Arrow array; numbers beside texts as texts, too."""
    import pyarrow

    if values.dtype.kind not in "biuf":
        cells = values.tolist()
        kinds = {*map(type, cells)}
        if str in kinds:
            return _string_array(cells if len(kinds) == 1 else [*map(str, cells)])
        values = np.array(cells)
    kind = pyarrow.from_numpy_dtype(values.dtype)
    packed = np.packbits(values, bitorder="little") if values.dtype.kind == "b" else np.ascontiguousarray(values)
    return pyarrow.Array.from_buffers(kind, len(values), [None, pyarrow.py_buffer(packed)])


def _string_array(texts: Sequence[str]) -> Any:
    import pyarrow

    encoded = {text: text.encode() for text in set(texts)}
    parts = [*map(encoded.__getitem__, texts)]
    offsets = np.zeros(len(parts) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, parts), np.int32, len(parts)), out=offsets[1:])
    buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(b"".join(parts))]
    return pyarrow.Array.from_buffers(pyarrow.string(), len(parts), buffers)
