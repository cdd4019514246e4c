"""The frame of an Arrow stream: whole, plain, and no larger than the body; and no mutation of one ends the process."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pyarrow
import pytest

from service.errors import EmptyInstances, InvalidArrow, RequestError, TooManyRows
from service.protocols.arrow_body import read_arrow
from service.protocols.arrow_messages import END, MAX_BATCHES, check_messages
from tests.conftest import ROOT
from tests.vendors.arrow.streams import batch_of, one, stream, write

MAX_ROWS = 1000
NUMBERS = batch_of({"a": [1.5, 2.5, 3.5]})
WHOLE = write([NUMBERS])
DAMAGED = "the stream is damaged; write it anew with an Arrow library"


def refusal(body: bytes, n_features: int = 1, max_rows: int = MAX_ROWS) -> RequestError:
    """The error that a stream is refused with."""
    with pytest.raises(RequestError) as raised:
        check_messages(body, n_features, max_rows)
    return raised.value


def texts(*values: str) -> pyarrow.RecordBatch:
    """A batch with a dictionary of texts."""
    return batch_of({"a": pyarrow.array(values).dictionary_encode()})


@pytest.mark.parametrize("batches", [[NUMBERS], [NUMBERS] * MAX_BATCHES, [texts("x", "y", "x")] * 2], ids=range(3))
def test_a_whole_stream_is_let_through(batches: list[pyarrow.RecordBatch]) -> None:
    """Batches of rows, and one dictionary for a column, are what a stream may hold."""
    check_messages(write(batches), 1, MAX_ROWS)


@pytest.mark.parametrize("end", range(len(WHOLE)))
def test_1_1_every_cut_is_refused(end: int) -> None:
    """A stream that lacks its last byte, or any more, is refused, also where it is cut between two messages."""
    assert type(refusal(WHOLE[:end])) is InvalidArrow


@pytest.mark.parametrize("body", [WHOLE + END, WHOLE + WHOLE, END + WHOLE, WHOLE[:-8] + b"\0" * 8 + END])
def test_what_stands_beside_the_stream_is_refused(body: bytes) -> None:
    """Nothing may stand before a stream or follow it."""
    assert type(refusal(body)) in (InvalidArrow, EmptyInstances)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_1_3_compressed_batches_are_refused(codec: str) -> None:
    """Nothing is decompressed, neither rows nor a dictionary, whatever it says that it grows to."""
    words = "the batches are compressed; write them without compression"
    assert refusal(write([batch_of({"a": np.zeros(999)})], compression=codec)).detail == words
    assert refusal(write([texts(*map(str, range(99)))], compression=codec)).detail == words


@pytest.mark.parametrize("emit_deltas", [False, True])
def test_1_7_dictionaries_in_pieces_are_refused(emit_deltas: bool) -> None:
    """A dictionary is neither replaced nor continued, which would copy it again each time."""
    body = write([texts("x"), texts("x", "y")], emit_dictionary_deltas=emit_deltas)
    assert refusal(body).detail == "a dictionary is sent in pieces or replaced; send one dictionary for a column"


def test_1_7_many_batches_are_refused() -> None:
    """Small batches cost far more than their rows, so their number is bounded, and they are looked at no further."""
    words = f"there are more than {MAX_BATCHES} batches, or dictionaries than columns; send one batch"
    assert refusal(write([NUMBERS] * (MAX_BATCHES + 1))).detail == words
    assert refusal(write([NUMBERS.slice(0, 0)] * 5000)).detail == words


def test_1_7_rows_are_counted_before_anything_is_read() -> None:
    """Batches say how many rows they have; too many are refused by that, and so is none."""
    assert type(refusal(write([NUMBERS, NUMBERS]), max_rows=5)) is TooManyRows
    assert type(refusal(write([NUMBERS.slice(0, 0)]))) is EmptyInstances
    check_messages(write([NUMBERS, NUMBERS.slice(0, 0), NUMBERS]), 1, 6)


@pytest.mark.parametrize("value", [-1, -(2**63), 2**40, 2**63 - 1, 1000])
def test_1_7_sizes_that_are_no_truth_are_refused(value: int) -> None:
    """Where a length stands in the frame, another one is refused, and nothing is set aside for it."""
    places = [at for at in range(0, len(WHOLE) - 8, 4) if WHOLE[at : at + 8] in (struct.pack("<q", n) for n in (3, 24))]
    assert places
    for at in places:
        with pytest.raises(RequestError):
            read_arrow(WHOLE[:at] + struct.pack("<q", value) + WHOLE[at + 8 :], one("float64"), MAX_ROWS)


def test_1_7_buffers_have_room_beside_each_other() -> None:
    """No piece of the body is counted twice: a hundred columns that share one would be a hundred times the body."""
    body, second = stream(a=np.zeros(8), b=np.zeros(8)), struct.pack("<4q", 64, 0, 64, 64)
    assert body.count(second) == 1
    assert refusal(body.replace(second, struct.pack("<4q", 64, 0, 0, 128)), 2).detail == DAMAGED


@pytest.mark.parametrize(
    "body", [b"", b"\0", END, b"{}", b"a\n1\n", b"ARROW1\0\0" + WHOLE + b"ARROW1", b"\xff" * 64 + END]
)
def test_1_8_another_body_is_refused(body: bytes) -> None:
    """JSON, CSV, an Arrow file and bytes are no Arrow stream."""
    assert type(refusal(body)) in (InvalidArrow, EmptyInstances)


def test_a_tensor_is_refused() -> None:
    """A stream of rows holds no other messages than a schema, dictionaries and batches."""
    target = pyarrow.BufferOutputStream()
    pyarrow.ipc.write_tensor(pyarrow.Tensor.from_numpy(np.zeros(3)), target)
    assert refusal(target.getvalue().to_pybytes() + END).detail == DAMAGED


@pytest.mark.parametrize("seed", range(4))
def test_7_37_no_mutation_ends_the_process(seed: int) -> None:
    """Thousands of mutated streams are each answered or refused by an error of ours, in little memory."""
    child = [sys.executable, "-W", "error", "-m", "tests.vendors.arrow.mutations", str(seed), "2500"]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "refused" in done.stdout and "answered" in done.stdout
