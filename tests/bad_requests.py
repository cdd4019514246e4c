"""One list of what clients get wrong, with the status and problem type that each must meet. Sent both to the app in
process and to a real gunicorn, which run with `LIMITS`."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import Any

from tests.conftest import PENGUIN

LIMITS = {"max_body_bytes": 20_000, "max_rows": 50}
JSON = {"Content-Type": "application/json"}
CSV = {"Content-Type": "text/csv"}
COUNTS = "/v1/models/counts:predict"
"""A regressor with the features `n`, a whole number, and `cut`, one of the diamonds' grades (see `counts`)."""
HEADER = ",".join(PENGUIN)
CELLS = ",".join(map(str, PENGUIN.values()))


@dataclass(frozen=True)
class Bad:
    """One bad request and the answer that it must get."""

    name: str
    status: int
    problem: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))
    path: str = "/predict"
    method: str = "POST"


def rows(*instances: Any, **fields: Any) -> bytes:
    """The body of a prediction request."""
    return json.dumps({"instances": instances} | fields).encode()


def csv(*lines: str) -> bytes:
    """A CSV body."""
    return "\n".join(lines).encode()


def one(**values: Any) -> bytes:
    """A request of one penguin with some values replaced."""
    return rows(PENGUIN | values)


def raw(value: str) -> bytes:
    """A request whose first value is this JSON text."""
    return one(bill_length_mm="@").replace(b'"@"', value.encode())


BAD_REQUESTS = [
    Bad("missing column", 422, "missing-feature", rows({k: v for k, v in PENGUIN.items() if k != "sex"})),
    Bad("unknown column", 422, "unknown-feature", one(age=3)),
    Bad("null where not nullable", 422, "invalid-instance", one(island=None)),
    Bad("number in a string", 422, "invalid-instance", one(bill_length_mm="39.1")),
    Bad("bool as number", 422, "invalid-instance", one(bill_length_mm=True)),
    Bad("number as text", 422, "invalid-instance", one(island=1)),
    Bad("list as value", 422, "invalid-instance", one(island=["Torgersen"])),
    Bad("half a surrogate pair", 422, "invalid-instance", one(island="\ud800")),
    Bad("row of another width", 422, "invalid-instance", rows([1.0, 2.0])),
    Bad("row that is a number", 422, "invalid-instance", rows(5)),
    Bad("several kinds of fault", 422, "invalid-instances", rows(PENGUIN | {"island": None}, {})),
    Bad("number over float64", 422, "number-out-of-range", raw("1e400")),
    Bad("integer over float64", 422, "number-out-of-range", raw("1" * 400)),
    Bad("number of thousands of digits", 422, "number-out-of-range", raw("1" * 5000)),
    Bad("number out of int64", 422, "number-out-of-range", rows([2**63, "Fair"]), path=COUNTS),
    Bad("fraction for an integer", 422, "invalid-instance", rows([1.5, "Fair"]), path=COUNTS),
    Bad("unseen category", 422, "invalid-instance", rows([1, "Huge"]), path=COUNTS),
    Bad("NaN", 400, "invalid-json", raw("NaN")),
    Bad("Infinity", 400, "invalid-json", raw("-Infinity")),
    Bad("truncated JSON", 400, "invalid-json", one()[:-3]),
    Bad("bytes after the JSON", 400, "invalid-json", one() + b"x"),
    Bad("empty body", 400, "invalid-json", b""),
    Bad("not UTF-8", 400, "invalid-json", b'{"instances": ["\xff"]}'),
    Bad("duplicate key in a row", 400, "duplicate-key", one().replace(b'"sex"', b'"island"')),
    Bad("duplicate key in the document", 400, "duplicate-key", b'{"instances": [], "instances": []}'),
    Bad("document is a list", 422, "invalid-document", b"[1, 2]"),
    Bad("both instances and inputs", 422, "invalid-document", rows(PENGUIN, inputs={})),
    Bad("neither instances nor inputs", 422, "missing-field", b"{}"),
    Bad("unknown field", 422, "unknown-field", rows(PENGUIN, signature_name="x")),
    Bad("instances is an object", 422, "invalid-instances", b'{"instances": {}}'),
    Bad("inputs is a list", 422, "invalid-instances", b'{"inputs": []}'),
    Bad(
        "columns of unequal length", 422, "invalid-instance", b'{"inputs": {"n": [1, 2], "cut": ["Fair"]}}', path=COUNTS
    ),
    Bad("empty batch", 422, "empty-instances", rows()),
    Bad("too many rows", 422, "too-many-rows", rows(*[[1]] * 51)),
    Bad("too many CSV rows", 422, "too-many-rows", csv(HEADER, *[CELLS] * 51), CSV),
    Bad("too large a body", 413, "payload-too-large", b" " * 20_001),
    Bad("absent content type", 415, "unsupported-media-type", one(), {}),
    Bad("wrong content type", 415, "unsupported-media-type", one(), {"Content-Type": "application/xml"}),
    Bad("form", 415, "unsupported-media-type", b"a=1", {"Content-Type": "application/x-www-form-urlencoded"}),
    Bad("wrong charset", 415, "unsupported-media-type", one(), {"Content-Type": "application/json; charset=latin1"}),
    Bad("gzip body", 415, "unsupported-content-encoding", gzip.compress(one()), JSON | {"Content-Encoding": "gzip"}),
    Bad("CSV of another header", 422, "unknown-feature", csv("a,b", "1,2"), CSV),
    Bad("CSV without a column", 422, "missing-feature", csv("island,sex", "Dream,male"), CSV),
    Bad("CSV with a ragged row", 400, "invalid-csv", csv(HEADER, CELLS + ",1"), CSV),
    Bad("CSV with a column twice", 400, "invalid-csv", csv(HEADER + ",sex", CELLS + ",male"), CSV),
    Bad("CSV of nothing", 400, "invalid-csv", b"", CSV),
    Bad("CSV without a row", 422, "empty-instances", csv(HEADER), CSV),
    Bad("CSV with an open quote", 400, "invalid-csv", csv(HEADER, '"' + CELLS), CSV),
    Bad("CSV with text for a number", 422, "invalid-instance", csv(HEADER, CELLS.replace("39.1", "long")), CSV),
    Bad("CSV with infinity", 422, "invalid-instance", csv(HEADER, CELLS.replace("39.1", "inf")), CSV),
    Bad("CSV that is not UTF-8", 400, "invalid-csv", HEADER.encode() + b"\n\xff", CSV),
    Bad("unknown parameter", 400, "unknown-parameter", rows(PENGUIN, parameters={"explain": True})),
    Bad("unknown query parameter", 400, "unknown-parameter", one(), path="/predict?explain=true"),
    Bad("parameter of a wrong type", 400, "unknown-parameter", rows(PENGUIN, parameters={"probabilities": 1})),
    Bad(
        "probabilities of a regressor", 400, "unknown-parameter", rows([1, "Fair"]), path=COUNTS + "?probabilities=true"
    ),
    Bad("nothing that can be accepted", 406, "not-acceptable", one(), JSON | {"Accept": "image/png"}),
    Bad("unknown model", 404, "unknown-model", one(), path="/v1/models/nobody:predict"),
    Bad("unknown version", 404, "unknown-version", one(), path="/v1/models/penguins/versions/99:predict"),
    Bad("model name with a path in it", 404, "not-found", one(), path="/v1/models/..%2F..:predict"),
    Bad("unknown path", 404, "not-found", path="/nothing"),
    Bad("double slash", 404, "not-found", one(), path="//predict"),
    Bad("wrong method", 405, "method-not-allowed", method="GET"),
    Bad("DELETE of a model", 405, "method-not-allowed", path="/v1/models/penguins", method="DELETE"),
    Bad("malformed Host", 400, "invalid-header", one(), JSON | {"Host": "a b"}),
]
