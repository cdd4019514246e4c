"""Writes Arrow streams as clients do, and signatures to read them by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow

from service.signature import Dtype, Feature, Output, Signature

OUTPUTS = (Output(name="y", dtype="int64"),)


def signature_of(*features: Feature) -> Signature:
    """A signature with these features."""
    return Signature(features=features, outputs=OUTPUTS)


def one(dtype: Dtype, **facts: Any) -> Signature:
    """A signature with one feature, called a."""
    return signature_of(Feature(name="a", dtype=dtype, **facts))


def write(batches: list[pyarrow.RecordBatch], **options: Any) -> bytes:
    """Write batches as one stream."""
    target = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(target, batches[0].schema, options=pyarrow.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return target.getvalue().to_pybytes()


def batch_of(columns: Mapping[str, Any]) -> pyarrow.RecordBatch:
    """A batch of arrays, or of what pyarrow makes arrays of."""
    return pyarrow.RecordBatch.from_arrays([pyarrow.array(column) for column in columns.values()], names=[*columns])


def stream(**columns: Any) -> bytes:
    """Write columns as a stream of one batch."""
    return write([batch_of(columns)])
