"""How each peer wants to be asked and how it answers: rows to bytes, bytes to labels. The table is at the bottom."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas

from bench.failure import PeerFailed


@dataclass(frozen=True)
class Answer:
    """Labels in row order, and probabilities where they were asked for."""

    labels: tuple[str, ...]
    probabilities: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class Wire:
    """One way to ask and be answered."""

    encode: Callable[[pandas.DataFrame], bytes]
    decode: Callable[[bytes], Answer]
    media: str = "application/json"
    accept: str = "application/json"

    def read(self, body: bytes) -> Answer:
        """Decode an answer.

        Raises:
            PeerFailed: If it is not what this wire says.
        """
        try:
            return self.decode(body)
        except (ValueError, LookupError, TypeError) as error:
            raise PeerFailed(f"its answer cannot be read: {body[:200]!r}") from error


def instances(rows: pandas.DataFrame) -> bytes:
    """Rows as objects under `instances`."""
    return json.dumps({"instances": rows.to_dict("records")}).encode()


def predictions(body: bytes) -> Answer:
    """Labels under `predictions`."""
    document = json.loads(body)
    return Answer(texts(document["predictions"]), document.get("probabilities", ()))


def records(rows: pandas.DataFrame) -> bytes:
    """Rows as objects, as MLflow wants them."""
    return json.dumps({"dataframe_records": rows.to_dict("records")}).encode()


def tensors(rows: pandas.DataFrame) -> bytes:
    """A tensor for each column, which MLServer makes a DataFrame again.

    Source: https://docs.seldon.ai/mlserver/user-guide/content-type, read 2026-11-23.
    """
    inputs = []
    for name, column in rows.items():
        number = pandas.api.types.is_numeric_dtype(column)
        tensor = {"name": name, "shape": [len(rows), 1], "datatype": "FP64" if number else "BYTES"}
        kind = {} if number else {"parameters": {"content_type": "str"}}
        inputs.append(tensor | kind | {"data": column.tolist()})
    return json.dumps({"parameters": {"content_type": "pd"}, "inputs": inputs}).encode()


def first_output(body: bytes) -> Answer:
    """Labels in the data of the first output tensor."""
    return Answer(texts(json.loads(body)["outputs"][0]["data"]))


def csv_rows(rows: pandas.DataFrame) -> bytes:
    """A header and a line for each row."""
    return rows.to_csv(index=False).encode()


def csv_labels(body: bytes) -> Answer:
    """A header and a label in each line."""
    return Answer(tuple(row[0] for row in csv.reader(io.StringIO(body.decode())))[1:])


def texts(labels: Sequence[Any]) -> tuple[str, ...]:
    """Labels as text, out of lists of one where they come so."""
    return tuple(str(label[0]) if isinstance(label, list) else str(label) for label in labels)


CSV = Wire(csv_rows, csv_labels, "text/csv", "text/csv")
WIRES = {
    "instances": Wire(instances, predictions),
    "records": Wire(records, predictions),
    "v2": Wire(tensors, first_output),
}
