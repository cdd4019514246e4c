"""Compares codecs of the native protocol: microseconds on honest bodies and answers, memory growth on hostile bodies.

    python -m bench.decoders speed
    python -m bench.decoders answers
    python -m bench.decoders growth [decoder ...]

`service` is what the service does: it counts the values, then reads with msgspec, then leaves what is not right to
`exact`, the standard library's json with a look at every cell. `pydantic` is pydantic-core before `exact`. All answer
equal tables. Of CSV, `exact` is the standard library's csv with a look at every cell, and `pandas` is what pandas makes
of the body, which is neither checked nor a table. Answers are compared with what json and csv write. The growth needs
Linux.
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from pydantic_core import SchemaValidator, ValidationError, core_schema

from service.errors import ServiceError
from service.protocols import csv_body, json_answer, native
from service.protocols.csv_body import read_csv
from service.protocols.json_body import write_json
from service.protocols.typed_json import Sent, _has_colons, _table
from service.signature import INT64_MAX, INT64_MIN, TEXTS, Feature, Output, Signature, magnitude
from service.table import PredictResponse, Table

Decode = Callable[[bytes], Table]
MAX_ROWS = 10_000
BOMB_BYTES = 4 * 2**20
MAX_CELLS = 1_000_000
ROUNDS = {1: 2000, 100: 200, 10_000: 9}


def service(signature: Signature) -> Decode:
    """Read as the service does."""
    return lambda body: native.decode_request(body, "application/json", {}, signature, _max_rows(signature)).table


def exact(signature: Signature) -> Decode:
    """Read with the standard library's json, then check every cell."""
    return lambda body: native.read_exactly(body, signature, MAX_ROWS)[0]


def validated(signature: Signature) -> Decode:
    """Read and check with pydantic-core, then build columns; it keeps the last of two equal keys, too."""
    cells = {feature.name: _cell_schema(feature) for feature in signature.features}
    lists = {name: core_schema.list_schema(cell) for name, cell in cells.items()}
    rows = [
        core_schema.list_schema(_object(signature, cells)),
        core_schema.list_schema(core_schema.tuple_schema([*cells.values()])),
    ]
    fields = {"instances": core_schema.union_schema([*rows]), "inputs": _object(signature, lists)}
    document = {name: core_schema.typed_dict_field(kind, required=False) for name, kind in fields.items()}
    validator = SchemaValidator(core_schema.typed_dict_schema(document, extra_behavior="forbid", strict=True))
    slow = exact(signature)

    def fast(body: bytes) -> Table | None:
        try:
            found = validator.validate_json(body, strict=True)
        except ValidationError:
            return None
        sent = found.get("instances", [found.get("inputs", {})])
        if len(found) != 1 or not sent:
            return None
        colons = 1 + sum(map(len, sent)) * isinstance(sent[0], dict)
        columns: list[Any]
        if "inputs" in found:
            columns = [sent[0].get(name, ()) for name in cells]
        elif isinstance(sent[0], dict):
            columns = [[each.get(name) for each in sent] for name in cells]
        else:
            columns = list(zip(*sent, strict=True))
        n_rows = len(columns[0])
        if not 0 < n_rows <= MAX_ROWS or any(len(column) != n_rows for column in columns):
            return None
        if not _has_colons(body, colons, signature, columns):
            return None
        return _table(signature, Sent(columns, n_rows, colons))

    return lambda body: fast(body) or slow(body)


def _object(signature: Signature, kinds: dict[str, Any]) -> Any:
    fields = {f.name: core_schema.typed_dict_field(kinds[f.name], required=f.required) for f in signature.features}
    return core_schema.typed_dict_schema(fields, extra_behavior="forbid", strict=True)


def _cell_schema(feature: Feature) -> Any:
    bound = magnitude(feature)
    schema: Any
    if feature.closed and feature.dtype in (*TEXTS, "int64"):
        schema = core_schema.literal_schema(list(feature.categories or ()))
    elif feature.dtype in ("float64", "float32"):
        least = None if bound is None else -bound
        schema = core_schema.float_schema(allow_inf_nan=False, strict=True, ge=least, le=bound)
    elif feature.dtype == "int64":
        lowest, highest = (INT64_MIN, INT64_MAX) if bound is None else (-int(bound), int(bound))
        schema = core_schema.int_schema(strict=True, ge=lowest, le=highest)
    else:
        schema = {"type": "bool" if feature.dtype == "bool" else "str", "strict": True}
    return core_schema.nullable_schema(schema) if feature.takes_null else schema


def service_csv(signature: Signature) -> Decode:
    """Read CSV as the service does."""
    return lambda body: native.decode_request(body, "text/csv", {}, signature, _max_rows(signature)).table


def exact_csv(signature: Signature) -> Decode:
    """Read with the standard library's csv, then check every cell."""
    return lambda body: read_csv(body, signature, _max_rows(signature))


def pandas_csv(signature: Signature) -> Callable[[bytes], Any]:
    """Read as pandas does, whatever it takes for a number or for missing."""
    return lambda body: pandas.read_csv(io.BytesIO(body))


def _max_rows(signature: Signature) -> int:
    return min(MAX_ROWS, MAX_CELLS // len(signature.features))


DECODERS: dict[str, Callable[[Signature], Decode]] = {"exact": exact, "service": service, "pydantic": validated}
CSV_DECODERS: dict[str, Callable[[Signature], Callable[[bytes], Any]]] = {
    "exact": exact_csv,
    "service": service_csv,
    "pandas": pandas_csv,
}


# --- Honest bodies


def signature_of(*features: Feature) -> Signature:
    """Return a signature of these features and one output."""
    return Signature(features=features, outputs=(Output(name="y", dtype="float64"),))


PENGUINS = signature_of(
    *(
        Feature(name=name, dtype="float64", nullable=True)
        for name in ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")
    ),
    Feature(name="island", dtype="string"),
    Feature(name="sex", dtype="string", nullable=True),
)
FLOATS = signature_of(*(Feature(name=f"feature_{index}", dtype="float64") for index in range(30)))
MIXED = signature_of(
    Feature(name="amount", dtype="float64", nullable=True),
    Feature(name="share", dtype="float32", required=False),
    Feature(name="age", dtype="int64"),
    Feature(name="children", dtype="int64", nullable=True),
    Feature(name="member", dtype="bool"),
    Feature(name="city", dtype="string"),
    Feature(name="plan", dtype="string", categories=("basic", "plus", "pro"), closed=True),
)
DIAMONDS = signature_of(
    *(Feature(name=name, dtype="float64") for name in ("carat", "depth", "table", "x", "y", "z")),
    *(Feature(name=name, dtype="string", categories=("basic", "plus", "pro")) for name in ("cut", "color", "clarity")),
)
ONE_FLOAT = signature_of(Feature(name="x", dtype="float64"))
ONE_TEXT = signature_of(Feature(name="x", dtype="string"))
WIDE = signature_of(*(Feature(name=f"f{index}", dtype="float64", required=False) for index in range(1000)))
WIDE_TEXT = signature_of(*(Feature(name=f"f{index}", dtype="string") for index in range(1000)))
HONEST = {"penguins": PENGUINS, "30 floats": FLOATS, "mixed": MIXED, "diamonds": DIAMONDS}
SIGNATURES = {"float": ONE_FLOAT, "text": ONE_TEXT, "wide": WIDE, "wide text": WIDE_TEXT, "penguins": PENGUINS}
SHAPES = ("objects", "lists", "columns", "csv")


def honest_row(signature: Signature, index: int) -> dict[str, Any]:
    """Return one row of ordinary values."""
    values: dict[str, Any] = {
        "int64": index % 97,
        "bool": index % 2 == 0,
        "string": ("basic", "plus", "pro")[index % 3],
    }
    row = {f.name: values.get(f.dtype, round(31.7 + index % 1013 * 0.137, 2)) for f in signature.features}
    return {
        name: None if signature.features[i].nullable and (index + i) % 20 == 0 else value
        for i, (name, value) in enumerate(row.items())
    }


def honest_body(signature: Signature, shape: str, n_rows: int) -> bytes:
    """Return a request of ordinary rows: objects, lists or columns in JSON, or CSV."""
    rows = [honest_row(signature, index) for index in range(n_rows)]
    if shape == "csv":
        cells = [["" if cell is None else str(cell) for cell in row.values()] for row in rows]
        return "".join(",".join(row) + "\n" for row in [signature.names, *cells]).encode()
    if shape == "columns":
        return json.dumps({"inputs": {name: [row[name] for row in rows] for name in signature.names}}).encode()
    return json.dumps({"instances": rows if shape == "objects" else [list(row.values()) for row in rows]}).encode()


def speed() -> None:
    """Print the median microseconds of each decoder, taken in turns."""
    print("| body | shape | rows | KiB | exact µs | service µs (ratio) | pydantic, of CSV pandas, µs (ratio) |")
    print("|" + "---|" * 7)
    for (label, signature), shape in product(HONEST.items(), SHAPES):
        decoders = [prepare(signature) for prepare in (CSV_DECODERS if shape == "csv" else DECODERS).values()]
        for n_rows, rounds in ROUNDS.items():
            body = honest_body(signature, shape, n_rows)
            medians = medians_us([partial(decode, body) for decode in decoders], rounds)
            print(f"| {label} | {shape} | {n_rows} | {len(body) // 1024} | {_ratios(medians)} |", flush=True)


def medians_us(calls: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Return the median microseconds of each call, taken in turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append((time.perf_counter() - start) * 1e6)
    return [statistics.median(each) for each in times]


def _ratios(medians: Sequence[float]) -> str:
    first, *others = medians
    return " | ".join([f"{first:.0f}", *(f"{median:.0f} ({first / median:.1f}x)" for median in others)])


# --- Answers

LABELS = ("Fair", "Good", "Ideal", "Premium", "Very Good")


def honest_answers(n_rows: int) -> dict[str, PredictResponse]:
    """Return answers of ordinary labels, probabilities and numbers; one probability in fifteen is below 1e-4."""
    random = np.random.default_rng(0)
    shares = random.dirichlet([0.3] * len(LABELS), n_rows)
    labels = np.array(LABELS)[shares.argmax(axis=1)]
    classes = signature_of(*ONE_FLOAT.features).model_copy(
        update={"outputs": (Output(name="cut", dtype="string", classes=LABELS),)}
    )
    return {
        "labels": PredictResponse("m", "1", classes, labels),
        "labels, probabilities": PredictResponse("m", "1", classes, labels, (shares,)),
        "numbers": PredictResponse("m", "1", ONE_FLOAT, random.standard_normal(n_rows)),
    }


def exact_answer(answer: PredictResponse, content_type: str) -> bytes:
    """Write an answer with the standard library alone."""
    if content_type == "text/csv":
        return csv_body._write_cells([csv_body._names(answer), *csv_body._rows_of_cells(answer)])
    arrays = (answer.predictions, *(answer.probabilities or ()))
    classes = json_answer._classes(answer.signature)
    return write_json(native._answer(answer, json_answer._answered(answer, [a.tolist() for a in arrays], classes)))


def answers() -> None:
    """Print the median microseconds of each encoder, taken in turns; both write the same bytes."""
    print("| answer | rows | type | KiB | json or csv µs | service µs (ratio) |")
    print("|" + "---|" * 6)
    for n_rows, content_type in product((1, 10_000), ("application/json", "text/csv")):
        for label, answer in honest_answers(n_rows).items():
            calls = [partial(write, answer, content_type) for write in (exact_answer, native.encode_response)]
            expected, found = (call() for call in calls)
            assert expected == found
            medians = medians_us(calls, ROUNDS[n_rows])
            print(f"| {label} | {n_rows} | {content_type} | {len(found) // 1024} | {_ratios(medians)} |", flush=True)


# --- Bombs


def bombs() -> Iterator[tuple[str, str, bytes]]:
    """Yield hostile bodies, with a name and the signature's name; those that begin with x are CSV."""
    ones = {"[{},..": "{}", "[[],..": "[]", "[[[]],..": "[[]]", "[[1],..": "[1]", "[1,..": "1", "[1e9,..": "1e9"}
    ones |= {"[null,..": "null", '[{"x":1},..': '{"x":1}', '[{"":{}},..': '{"":{}}', "[1e999,..": "1e999"}
    ones |= {'["ab",..': '"ab"', '["\\u0041",..': '"\\u0041"', '["中",..': '"中"'}
    for name, item in ones.items():
        yield name, "float", _fill('{"instances":[', item, "]}")
    for item in ("{}", "[]", "1e9", '"ab"'):
        yield f"one row [[{item},..", "float", _fill('{"instances":[[', item, "]]}")
        yield f"one column [{item},..", "float", _fill('{"inputs":{"x":[', item, "]}}")
    yield (
        "one row, 300,000 keys",
        "float",
        b'{"instances":[{%b}]}' % b",".join(b'"k%06d":1' % i for i in range(300_000)),
    )
    yield "a new key a row", "float", b'{"instances":[%b]}' % b",".join(b'{"%06d":1}' % i for i in range(300_000))
    yield "deep [[[[..", "float", _fill('{"instances":', "[", "", "")
    yield "900 deep, again and again", "float", _fill('{"instances":[', "[" * 900 + "]" * 900, "]}")
    yield "one number", "float", _fill('{"instances":[', "1", "]}", "")
    yield "4,000 digits each", "float", _fill('{"instances":[', "1" * 4000, "]}")
    yield "one text", "text", _fill('{"instances":["', "a", '"]}', "")
    yield "one text, an emoji", "text", _fill('{"instances":["😀', "a", '"]}', "")
    yield "one text of escapes", "text", _fill('{"instances":["😀', "\\n", '"]}', "")
    yield "1,000 texts, an emoji each", "text", _fill('{"instances":[', '["😀' + "a" * 4180 + '"]', "]}")
    yield "1,000 texts with colons", "text", _fill('{"instances":[', '["😀' + ":" * 4180 + '"]', "]}")
    for item in ("1e9", '"ab"', "{}"):
        row = ",".join([item] * 1000)
        yield f"rows of 1000 {item}", "wide", _fill('{"instances":[', f"[{row}]", "]}")
    yield "45 unknown keys a row", "penguins", _fill('{"instances":[', json.dumps({str(i): 1 for i in range(45)}), "]}")
    yield "10,000 rows {} of 1000 optional", "wide", b'{"instances":[%b]}' % b",".join([b"{}"] * MAX_ROWS)
    header = ",".join(SIGNATURES["wide"].names)
    yield r'x\na",..', "float", _fill('x\na",', "ab,", "", "")
    yield r'x\na"\n..', "float", _fill('x\na"\n', "ab,", "", "")
    for item in (",", "\n", "1\n", "ab,", '"",', '"'):
        yield f"x\\n{item!r}..", "float", _fill("x\n", item, "", "")
    yield "x\\nan emoji, then ab,..", "float", _fill("x\n😀,", "ab,", "", "")
    yield "x: one text, an emoji", "text", _fill('x\n"😀', "a", '"', "")
    yield "x,x,x,..", "float", _fill("", "x,", "", "")
    yield "x: 300,000 names", "float", b",".join(b"x%06d" % i for i in range(300_000))
    yield "x: wide rows of 1", "wide", _fill(header + "\n", "1," * 999 + "1\n", "", "")
    yield "x: wide rows of ab", "wide", _fill(header + "\n", "ab," * 999 + "ab\n", "", "")
    for quote, kind in product(("", '"'), ("wide", "wide text")):
        cells = quote + f"{quote},{quote}".join(["%s"] * 1000) + quote
        first = cells % SIGNATURES[kind].names
        for cell in ("1", "12", "ab", "é"):
            row = cells % ((cell,) * 1000)
            yield f"x: {kind}, 999 rows of {quote}{cell}", kind, "\n".join([first, *[row] * 999]).encode()
    yield "x: wide empty cells", "wide", _fill(header + "\n", "," * 999 + "\n", "", "")


def _fill(head: str, item: str, tail: str, separator: str = ",") -> bytes:
    n_items = (BOMB_BYTES - len(head + tail)) // len((item + separator).encode())
    return (head + separator.join([item] * n_items) + tail).encode()


def growth(names: Sequence[str]) -> None:
    """Print what each bomb costs each decoder: memory as a multiple of the body, seconds, and the answer."""
    print("| bomb | MiB |", " | ".join(names), "|")
    print("|" + "---|" * (2 + len(names)))
    for name, signature, body in bombs():
        with tempfile.NamedTemporaryFile() as file:
            file.write(body)
            file.flush()
            cells = [_in_fresh_process(signature, decoder, file.name) for decoder in names]
        print(f"| `{name}` | {len(body) / 2**20:.1f} |", " | ".join(cells), "|", flush=True)


def _in_fresh_process(signature: str, decoder: str, path: str) -> str:
    command = [sys.executable, "-m", "bench.decoders", "measure", signature, decoder, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or f"killed ({done.returncode})"


def measure(signature_name: str, decoder: str, path: str) -> None:
    """Print what one bomb costs in this process."""
    signature = SIGNATURES[signature_name]
    decode = DECODERS[decoder](signature)
    for warm_up in (b'{"instances":[[1]]}', b'{"instances":[{}]}', b"{"):
        with suppress(ServiceError):
            decode(warm_up)
    body = Path(path).read_bytes()
    if body.startswith((b"x", b"f0,", b'"f0",')):
        decode = (service_csv if decoder == "service" else exact_csv)(signature)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start, answer = _status("VmRSS"), time.perf_counter(), "200"
    try:
        decode(body)
    except ServiceError as error:
        answer = error.code
    seconds = time.perf_counter() - start
    print(f"{(_status('VmHWM') - before) / len(body):.1f}x {seconds:.2f} s {answer}")


def _status(field: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(field)[2].split()[1]) * 1024


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["measure", signature, decoder, path]:
            measure(signature, decoder, path)
        case ["answers"]:
            answers()
        case ["growth", *names]:
            growth(names or list(DECODERS))
        case _:
            speed()
