"""What the messages of an Arrow IPC stream say of themselves, looked at before anything is made of them.

A reader does what the messages ask for: it decompresses buffers to any size, takes one piece of the body for a hundred
columns, and joins dictionaries again and again. Only pyarrow reads the values; here their frame is checked.

Source: https://arrow.apache.org/docs/format/Columnar.html and, for the tables' fields, Message.fbs beside it, read
2026-11-23; https://arrow.apache.org/docs/dev/format/Security.html on streams from outside, read 2026-11-23.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from service.errors import InvalidArrow
from service.table import check_size

END = b"\xff\xff\xff\xff\0\0\0\0"
"""The message that ends a stream: without it nobody knows whether the stream is whole."""
MAX_BATCHES = 256
"""A request fits into one batch, and each one more takes time however few rows it has."""


class Batch(NamedTuple):
    """What a message says of the columns in its body."""

    dictionary: int | None
    """The number of the dictionary that it is; None for rows."""
    n_rows: int
    compressed: bool
    sizes: np.ndarray[Any, np.dtype[np.int64]]
    """The bytes of every buffer."""


def check_messages(body: bytes, n_features: int, max_rows: int) -> None:
    """Refuse a stream that would take more than its body, or that is not whole.

    Raises:
        InvalidArrow: If it is damaged, cut short, compressed, or in too many pieces.
        EmptyInstances, TooManyRows: If its batches say that they have no row, or more than `max_rows`.
    """
    if not body.endswith(END):
        raise InvalidArrow("the stream has no end; close its writer before the body is sent")
    with reading():
        batches = list(islice(_batches(body), MAX_BATCHES + n_features + 1))
    dictionaries = [batch.dictionary for batch in batches if batch.dictionary is not None]
    if any(batch.compressed for batch in batches):
        raise InvalidArrow("the batches are compressed; write them without compression")
    if len(set(dictionaries)) != len(dictionaries):
        raise InvalidArrow("a dictionary is sent in pieces or replaced; send one dictionary for a column")
    if len(batches) - len(dictionaries) > MAX_BATCHES or len(dictionaries) > n_features:
        raise InvalidArrow(f"there are more than {MAX_BATCHES} batches, or dictionaries than columns; send one batch")
    check_size(sum(batch.n_rows for batch in batches if batch.dictionary is None), max_rows)


@contextmanager
def reading() -> Iterator[None]:
    """Make one error of ours of all that pyarrow raises on a damaged stream."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, struct.error) as error:
        raise InvalidArrow("the stream is damaged; write it anew with an Arrow library") from error


def _batches(body: bytes) -> Iterator[Batch]:
    from pyarrow import BufferReader
    from pyarrow.ipc import MessageReader

    source = BufferReader(body)
    for message in MessageReader.open_stream(source):
        if message.type not in ("schema", "record batch", "dictionary"):
            raise ValueError(f"a stream has no message of type {message.type}")
        if message.type != "schema":
            batch = _batch(message.metadata.to_pybytes(), message.type == "dictionary")
            _check_sizes(batch, message.body.size)
            yield batch
    if source.tell() != len(body):
        raise ValueError("something follows the stream's end")


def _check_sizes(batch: Batch, size: int) -> None:
    """Hold that a body has room for all buffers side by side, so that no two of them are the same piece of it."""
    outside = (batch.sizes < 0) | (batch.sizes > size)
    if batch.n_rows < 0 or outside.any() or batch.sizes.sum() > size:
        raise ValueError("the buffers are larger than the body")


def _batch(metadata: bytes, is_dictionary: bool) -> Batch:
    """Read the table of a message that pyarrow has verified; the numbers are places in Message.fbs."""
    header = _target(metadata, _field(metadata, _target(metadata, 0), 2))
    dictionary = _int64(metadata, _field(metadata, header, 0)) if is_dictionary else None
    table = _target(metadata, _field(metadata, header, 1)) if is_dictionary else header
    n_rows = _int64(metadata, _field(metadata, table, 0))
    compressed = _field(metadata, table, 3) is not None
    buffers = _field(metadata, table, 2)
    if buffers is None:
        return Batch(dictionary, n_rows, compressed, np.empty(0, np.int64))
    start = _target(metadata, buffers)
    (n_buffers,) = struct.unpack_from("<I", metadata, start)
    pairs = np.frombuffer(metadata, "<i8", 2 * n_buffers, start + 4)
    return Batch(dictionary, n_rows, compressed, pairs[1::2])


def _field(metadata: bytes, table: int, number: int) -> int | None:
    """Return where a table has its field of that number; None where it has none."""
    (back,) = struct.unpack_from("<i", metadata, table)
    entry = table - back + 4 + 2 * number
    (size,) = struct.unpack_from("<H", metadata, table - back)
    offset = struct.unpack_from("<H", metadata, entry)[0] if 4 + 2 * number < size else 0
    return table + offset if offset else None


def _target(metadata: bytes, at: int | None) -> int:
    """Follow the offset that stands at a place."""
    if at is None:
        raise ValueError("a field that must be there is not")
    target: int = at + struct.unpack_from("<I", metadata, at)[0]
    return target


def _int64(metadata: bytes, at: int | None) -> int:
    number: int = 0 if at is None else struct.unpack_from("<q", metadata, at)[0]
    return number
