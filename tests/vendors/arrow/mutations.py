"""Reads mutated Arrow streams of every type that a signature takes, in a process that may not grow.

    python -m tests.vendors.arrow.mutations SEED TIMES

It ends with an error if one of them raises anything but a refusal; a crash of the process is its own message.
"""

from __future__ import annotations

import random
import resource
import sys
from collections import Counter

import pyarrow

from service.errors import RequestError
from service.protocols.arrow_body import read_arrow
from service.protocols.arrow_messages import END
from service.signature import Feature
from tests.vendors.arrow.streams import batch_of, signature_of, write

ADDRESSES_BYTES = 2 * 2**30
"""Far more than a megabyte of streams needs, and far less than their lengths can say."""
MAX_ROWS = 100
ODD_NUMBERS = [0, 1, -1, 2, 3, 8, 16, 64, 1000, 2**31 - 1, -(2**31), 2**31, 2**40, 2**63 - 1, -(2**63)]
NULLABLE = signature_of(
    Feature(name="double", dtype="float64", nullable=True),
    Feature(name="single", dtype="float32"),
    Feature(name="short", dtype="int64", nullable=True),
    Feature(name="long", dtype="int64"),
    Feature(name="flag", dtype="bool", nullable=True),
    Feature(name="sure", dtype="bool"),
    Feature(name="text", dtype="string", nullable=True),
    Feature(name="large", dtype="string", closed=True, categories=("", "é", "éé")),
    Feature(name="view", dtype="string", nullable=True),
    Feature(name="word", dtype="string", nullable=True),
    Feature(name="time", dtype="datetime", nullable=True),
    Feature(name="day", dtype="datetime"),
    Feature(name="iso", dtype="datetime-string"),
    Feature(name="none", dtype="float64", required=False),
)


def whole(chance: random.Random, n_rows: int) -> pyarrow.RecordBatch:
    """A batch that the signature takes, of types that are drawn."""
    rows = range(n_rows)

    def gaps(values: list[object]) -> list[object]:
        return [None if chance.random() < 0.2 else value for value in values]

    def array(values: list[object], *kinds: pyarrow.DataType) -> pyarrow.Array:
        return pyarrow.array(values, chance.choice(kinds))

    words = pyarrow.string(), pyarrow.large_string()
    indices = pyarrow.int8(), pyarrow.uint32()
    units = [pyarrow.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC")]
    return batch_of(
        {
            "double": array(gaps([chance.random() for _ in rows]), pyarrow.float64()),
            "single": array([float(row) for row in rows], pyarrow.float32(), pyarrow.float16()),
            "short": array(gaps([*rows]), pyarrow.int8(), pyarrow.uint16(), pyarrow.int64()),
            "long": array([*rows], pyarrow.int64(), pyarrow.uint64()),
            "flag": array(gaps([True] * n_rows), pyarrow.bool_()),
            "sure": array([False] * n_rows, pyarrow.bool_()),
            "text": array(gaps(["é" * chance.randrange(30) for _ in rows]), *words),
            "large": array(["é" * chance.randrange(3) for _ in rows], *words),
            "view": array(gaps(["é" * chance.randrange(30) for _ in rows]), pyarrow.string_view()),
            "word": array(
                gaps([chance.choice("abc") for _ in rows]), *(pyarrow.dictionary(i, w) for i in indices for w in words)
            ),
            "time": array(gaps([1000 * chance.randrange(10**6) for _ in rows]), *units),
            "day": array([*rows], pyarrow.date32()),
            "iso": array(["2026-11-22"] * n_rows, *words),
            "none": chance.choice([pyarrow.nulls(n_rows), pyarrow.array([1.0] * n_rows)]),
        }
    )


def mutated(chance: random.Random, body: bytes) -> bytes:
    """Change bits, bytes, whole numbers or pieces of a stream, in one place or in a few; most still have an end."""
    changed, how = bytearray(body), chance.randrange(6)
    for _ in range(chance.choice([1, 1, 2, 4])):
        at, other, size = chance.randrange(len(changed)), chance.randrange(len(changed)), chance.randrange(1, 64)
        if how == 0:
            changed[at] = chance.randrange(256)
        elif how == 1:
            changed[at] ^= 1 << chance.randrange(8)
        elif how in (2, 3):
            width = 4 * (how - 1)
            at -= at % width
            number = chance.choice(ODD_NUMBERS) % 2 ** (8 * width)
            changed[at : at + width] = number.to_bytes(width, "little")
        elif how == 4:
            changed[at : at + size] = changed[other : other + size]
        else:
            changed[at : at + size] = b""
            changed = changed or bytearray(body)
    return bytes(changed) + (b"" if changed.endswith(END) or chance.random() < 0.1 else END)


def main(seed: int, times: int) -> None:
    """Read so many mutated streams and print what became of them."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES_BYTES, ADDRESSES_BYTES))
    chance, counted = random.Random(seed), Counter[str]()
    bodies = [write([whole(chance, rows)] * batches) for rows, batches in [(1, 1), (2, 2), (7, 1), (30, 3)] * 4]
    for body in bodies:
        read_arrow(body, NULLABLE, MAX_ROWS)
    for _ in range(times):
        try:
            read_arrow(mutated(chance, chance.choice(bodies)), NULLABLE, MAX_ROWS)
            counted["answered"] += 1
        except RequestError as error:
            counted["refused"] += 1
            counted[error.code] += 1
    print(dict(counted))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
