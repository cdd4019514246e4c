"""Strict JSON, both ways: UTF-8 only, no duplicate keys, no NaN or Infinity, bounded depth."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from service.errors import DuplicateKey, InvalidJson, NumberOutOfRange, shorten

ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def read_json(body: bytes, *, nan: bool = False) -> Any:
    """Parse a JSON document.

    A number that overflows a double becomes infinity, which no signature accepts.

    Args:
        body: The document in UTF-8.
        nan: Whether NaN, which is not JSON but is what clients of Python's write for a missing value, is null.

    Raises:
        InvalidJson: If the body is not one JSON document in UTF-8.
        DuplicateKey: If a key stands twice in one object.
        NumberOutOfRange: If an integer has more digits than Python reads.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJson(f"byte {error.start} is not UTF-8; send the body in UTF-8") from error
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_null_nan if nan else _refuse_constant)
    except json.JSONDecodeError as error:
        raise InvalidJson(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise InvalidJson("lists and objects are nested too deeply; a request needs three levels") from error
    except ValueError as error:  # int() refuses thousands of digits
        raise NumberOutOfRange("a number has thousands of digits; no model computes with it") from error


def write_json(document: Any) -> bytes:
    """Encode a document as ASCII JSON with a final newline; NaN and infinity are refused."""
    return ENCODER.encode(document).encode("ascii") + b"\n"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise DuplicateKey(f"the key {shorten(twice)!r} stands twice in one object; send it once")
    return document


def _null_nan(token: str) -> None:
    if token != "NaN":
        _refuse_constant(token)


def _refuse_constant(token: str) -> Any:
    raise InvalidJson(f"{token} is not JSON; send null for a missing value")
