"""MLflow's own scoring server beside ours, with the same model: the same answers, or a difference that is named."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.conftest import PENGUIN, ROOT
from tests.server import Server, free_port
from tests.vendors.tools import process, tool

SERVE = """
import sys
import joblib, pandas, uvicorn
import mlflow.sklearn
from mlflow.models import ModelSignature
from mlflow.pyfunc import load_model
from mlflow.pyfunc.scoring_server import init
from mlflow.types import ColSpec, Schema
file, folder, port = sys.argv[1:]
names = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
columns = [ColSpec("double", name, required=False) for name in names]
columns += [ColSpec("string", "island"), ColSpec("string", "sex", required=False)]
mlflow.sklearn.save_model(
    joblib.load(file), folder, signature=ModelSignature(Schema(columns)), pip_requirements=[],
    skops_trusted_types=None, serialization_format="cloudpickle",
)
app = init(load_model(folder))
for route in list(app.router.routes):
    if route.path == "/invocations":
        app.add_api_route("/protocols/mlflow/invocations", route.endpoint, methods=["POST"])
uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")
"""
N_VALID = N_INVALID = 200
JSON = {"Content-Type": "application/json"}
NUMBERS = [name for name, value in PENGUIN.items() if isinstance(value, float)]


class Sent(NamedTuple):
    """One request: what kind it is, its body and its headers."""

    kind: str
    body: bytes
    headers: dict[str, str]


def row(dice: random.Random, *, gaps: bool = True) -> dict[str, Any]:
    """A penguin, some of whose values may be missing."""
    low_and_high = {"bill_length_mm": (32, 60), "bill_depth_mm": (13, 22), "flipper_length_mm": (172, 231)}
    found: dict[str, Any] = {name: round(dice.uniform(*ends), 1) for name, ends in low_and_high.items()}
    found["body_mass_g"] = float(dice.randrange(2700, 6300, 25))
    found |= {"island": dice.choice(["Torgersen", "Biscoe", "Dream"]), "sex": dice.choice(["male", "female"])}
    if gaps and dice.random() < 0.2:
        found[dice.choice(NUMBERS)] = None
    return found


def written(rows: list[dict[str, Any]]) -> bytes:
    """Rows as CSV with a header."""
    target = io.StringIO()
    writer = csv.DictWriter(target, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return target.getvalue().encode()


def split(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows as `dataframe_split`."""
    columns = list(rows[0])
    return {"dataframe_split": {"columns": columns, "data": [[each[name] for name in columns] for each in rows]}}


FORMS: dict[str, Callable[[list[dict[str, Any]]], Sent]] = {
    "split": lambda rows: Sent("split", json.dumps(split(rows)).encode(), JSON),
    "split turned": lambda rows: Sent(
        "split turned", json.dumps(split([dict(reversed(each.items())) for each in rows])).encode(), JSON
    ),
    "split with index": lambda rows: Sent(
        "split with index",
        json.dumps({"dataframe_split": split(rows)["dataframe_split"] | {"index": list(range(len(rows)))}}).encode(),
        JSON,
    ),
    "records": lambda rows: Sent("records", json.dumps({"dataframe_records": rows}).encode(), JSON),
    "nan": lambda rows: Sent("nan", json.dumps(split(rows)).replace("null", "NaN").encode(), JSON),
    "charset": lambda rows: Sent(
        "charset", json.dumps(split(rows)).encode(), {"Content-Type": "application/json; charset=utf-8"}
    ),
    "csv": lambda rows: Sent("csv", written(rows), {"Content-Type": "text/csv"}),
}


def spoilt(change: Callable[[dict[str, Any]], dict[str, Any]], kind: str) -> Callable[[list[dict[str, Any]]], Sent]:
    """Records, in each of which one thing is wrong."""
    return lambda rows: Sent(kind, json.dumps({"dataframe_records": [change(each) for each in rows]}).encode(), JSON)


def body(kind: str, document: Callable[[list[dict[str, Any]]], Any]) -> Callable[[list[dict[str, Any]]], Sent]:
    """A document that is no request."""
    return lambda rows: Sent(kind, json.dumps(document(rows)).encode(), JSON)


SPOILT: list[Callable[[list[dict[str, Any]]], Sent]] = [
    spoilt(lambda each: {k: v for k, v in each.items() if k != "island"}, "required column missing"),
    spoilt(lambda each: each | {"bill_depth_mm": "deep"}, "text for a number"),
    spoilt(lambda each: each | {"bill_depth_mm": [1.5]}, "list for a number"),
    spoilt(lambda each: each | {"bill_depth_mm": {"a": 1}}, "object for a number"),
    body("bare list", lambda rows: [list(each.values()) for each in rows]),
    body("number", lambda rows: len(rows)),
    body("no form", lambda rows: {"rows": rows}),
    body("two forms", lambda rows: split(rows) | {"dataframe_records": rows}),
    body("nothing", lambda rows: {}),
    body("records of numbers", lambda rows: {"dataframe_records": [1] * len(rows)}),
    body("ragged", lambda rows: {"dataframe_split": {"columns": list(PENGUIN), "data": [[1.0]] * len(rows)}}),
    body("split of text", lambda rows: {"dataframe_split": "penguins"}),
    lambda rows: Sent("cut", json.dumps(split(rows)).encode()[:-5], JSON),
    lambda rows: Sent("empty", b"", JSON),
    lambda rows: Sent("not utf-8", b'{"dataframe_split": "\xff"}', JSON),
    lambda rows: Sent("other type", json.dumps(split(rows)).encode(), {"Content-Type": "application/x-npy"}),
    lambda rows: Sent(
        "latin-1", json.dumps(split(rows)).encode(), {"Content-Type": "application/json; charset=latin-1"}
    ),
    lambda rows: Sent("empty csv", b"", {"Content-Type": "text/csv"}),
    lambda rows: Sent("csv of other columns", b"a,b\n1,2\n", {"Content-Type": "text/csv"}),
    # What MLflow's server takes, and ours does not, or the other way round:
    spoilt(lambda each: each | {"island": None}, "null where none is taken"),
    spoilt(lambda each: each | {"colour": "grey"}, "column too many"),
    spoilt(lambda each: each | {"bill_depth_mm": "18.7"}, "number as text"),
    spoilt(lambda each: each | {"bill_depth_mm": True}, "true for a number"),
    spoilt(lambda each: each | {"island": 3}, "number for text"),
    spoilt(lambda each: each | {"island": "Atlantis"}, "unknown island"),
    body("extra field", lambda rows: split(rows) | {"colour": "grey"}),
    body("no rows", lambda rows: {"dataframe_records": []}),
    lambda rows: Sent("infinity", json.dumps(split([each | {"bill_depth_mm": 1e999} for each in rows])).encode(), JSON),
    lambda rows: Sent("key twice", b'{"dataframe_records": [], ' + json.dumps(split(rows)).encode()[1:], JSON),
    lambda rows: Sent(
        "other parameter of the type", json.dumps(split(rows)).encode(), {"Content-Type": "application/json; a=b"}
    ),
]
DIFFERENCES: dict[str, tuple[int, int, str]] = {
    "null where none is taken": (400, 200, "MLflow hands the model the text `None`, or a NaN that it was not made for"),
    "column too many": (400, 200, "MLflow drops it; a misspelt optional column would be dropped too, and be missing"),
    "number as text": (400, 200, "MLflow casts what it can; ours is strict, so that no type is guessed"),
    "true for a number": (400, 200, "the same"),
    "number for text": (400, 200, "the same: 3 becomes the text `3`, which the model does not know"),
    "extra field": (400, 200, "MLflow passes over it; a misspelt `params` would be passed over too"),
    "other parameter of the type": (200, 415, "a parameter that changes nothing is no fault"),
}
"""By kind of request: our status, MLflow's, and why ours is another. One more shows in no status: of a missing text
MLflow makes the text `None`, which the model does not know; ours is missing, as it was when the model was made."""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, await_health: Callable[[Server, str], None]) -> Iterator[Server]:
    """MLflow's own server of the same file."""
    folder, port = tmp_path_factory.mktemp("theirs"), free_port()
    command = [
        tool("mlflow"),
        "-W",
        "ignore",
        "-c",
        SERVE,
        str(ROOT / "models/penguins/1/model.joblib"),
        str(folder / "model"),
        str(port),
    ]
    variables = {"HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
    with process(command, folder, folder / "log", **variables) as started:
        server = Server(started, port, folder / "log")
        await_health(server, "/ping")
        yield server


def asked(server: Server, sent: Sent) -> tuple[int, Any]:
    """Send a request; return status, and what is answered where it is 200."""
    status, _, answer = server.request("POST", "/protocols/mlflow/invocations", sent.body, sent.headers)
    return status, json.loads(answer) if status == 200 else None


def test_valid_requests_are_answered_alike(ours: Server, theirs: Server) -> None:
    """Requests that both take give the same labels."""
    dice = random.Random(20261123)
    for number in range(N_VALID):
        sent = list(FORMS.values())[number % len(FORMS)]([row(dice) for _ in range(dice.randint(1, 5))])
        assert asked(ours, sent) == asked(theirs, sent), sent
        assert asked(ours, sent)[0] == 200, sent


def test_invalid_requests_are_refused_alike(ours: Server, theirs: Server) -> None:
    """What MLflow's server refuses is refused with a status of the same class, but for the differences above."""
    dice = random.Random(20261124)
    found: dict[str, set[tuple[int, int]]] = {}
    for number in range(N_INVALID):
        sent = SPOILT[number % len(SPOILT)]([row(dice) for _ in range(dice.randint(2, 5))])
        here, there = asked(ours, sent)[0], asked(theirs, sent)[0]
        if here // 100 != there // 100:
            found.setdefault(sent.kind, set()).add((here, there))
    assert found == {kind: {(here, there)} for kind, (here, there, _) in DIFFERENCES.items()}
