"""Writes predictions as JSON, in whatever document a protocol puts them: fast where the text is sure to be the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import Raw

from service.errors import ServiceError, shorten
from service.protocols.json_body import write_json
from service.protocols.numerals import encode_ascii, numerals
from service.signature import Signature
from service.table import Column, PredictResponse

MAX_ERROR_CHARACTERS = 600
"""In ASCII at most 8 KB."""


class Answered(NamedTuple):
    """What was predicted, ready to be written."""

    predictions: list[Any]
    """One item a row."""
    shares: list[Any] | None
    """The classes' shares row by row: a list a row, or where there are several outputs a list a row of one for each.
    None where they are not wanted."""
    classes: Any
    """The labels behind the shares: a list, or where there are several outputs a list for each."""


def write_answer(response: PredictResponse, make: Callable[[Answered], Any], *, lines: bool = False) -> bytes:
    """Write the document that `make` makes of an answer, with a final newline.

    Args:
        response: What was predicted.
        make: Makes the document.
        lines: Whether it is a list of which each item is a document of its own, in a line.
    """
    if lines:
        values = [array.tolist() for array in (response.predictions, *(response.probabilities or ()))]
        return b"".join(map(write_json, make(_answered(response, values, _classes(response.signature)))))
    arrays = (response.predictions, *(response.probabilities or ()))
    values = [_plain(array) for array in arrays]
    if None not in values:
        body = encode_ascii(make(_answered(response, values, response.signature.once(_written_classes))))
        if body is not None:
            return body
    return write_json(make(_answered(response, [array.tolist() for array in arrays], _classes(response.signature))))


def _answered(response: PredictResponse, values: list[Any], classes: Any) -> Answered:
    predictions, *shares = values
    if not shares:
        return Answered(predictions, None, classes)
    by_row = [list(row) for row in zip(*shares, strict=True)] if response.signature.multi_output else shares[0]
    return Answered(predictions, by_row, classes)


def _plain(array: Column) -> list[Any] | None:
    """Return an array as lists which msgspec and json write alike; None where that is not sure."""
    if array.dtype.kind not in "OU":
        return numerals(array)
    values: list[Any] = array.tolist()
    return values if {*map(type, values)} == {str} else None


def _classes(signature: Signature) -> Any:
    classes = [output.classes for output in signature.outputs]
    return classes if len(classes) > 1 else classes[0]


def _written_classes(signature: Signature) -> Raw:
    return Raw(write_json(_classes(signature)).rstrip())


def keyed(key: str) -> Callable[[Answered], dict[str, Any]]:
    """Return what puts predictions under a key, and shares and classes beside it where they are wanted."""

    def make(answered: Answered) -> dict[str, Any]:
        document: dict[str, Any] = {key: answered.predictions}
        if answered.shares is not None:
            document |= {"probabilities": answered.shares, "classes": answered.classes}
        return document

    return make


def write_rows(field: str, rows: list[Any], parameters: str, *, probabilities: bool) -> bytes:
    """Write a client's request: rows under one field, and under another the wish for probabilities."""
    return write_json({field: rows} | ({parameters: {"probabilities": True}} if probabilities else {}))


def error_text(error: ServiceError, request_id: str) -> str:
    """Tell an error and all its faults in one text, for protocols that have nothing but a message."""
    text = "; ".join(fault.told() for fault in error.faults) or error.detail
    return f"{shorten(text, MAX_ERROR_CHARACTERS)} (request {request_id})"
