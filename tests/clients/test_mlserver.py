"""MLServer beside our Open Inference Protocol, with the same model: the same answers, or a difference that is named."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.clients.test_mlflow_server import row
from tests.conftest import ROOT
from tests.server import Server, free_port
from tests.vendors.tools import process, tool

N_VALID = N_INVALID = 200
INFER = "/v2/models/penguins/infer"
Rows = list[dict[str, Any]]


class Sent(NamedTuple):
    """One request: what kind it is, its document or its body, and where it goes."""

    kind: str
    body: Any
    path: str = INFER


def tensors(rows: Rows, *, flat: bool = True) -> list[dict[str, Any]]:
    """A tensor for each column, with what MLServer needs to be told of texts."""
    found = []
    for name, value in rows[0].items():
        number = isinstance(value, float)
        kind = {"datatype": "FP64"} if number else {"datatype": "BYTES", "parameters": {"content_type": "str"}}
        shape = [len(rows)] if flat else [len(rows), 1]
        found.append({"name": name, "shape": shape, **kind, "data": [each[name] for each in rows]})
    return found


def asking(rows: Rows, **fields: Any) -> dict[str, Any]:
    """A request for rows; the parameter makes a frame of its tensors there."""
    return {"parameters": {"content_type": "pd"}, "inputs": tensors(rows)} | fields


def first(rows: Rows, **changed: Any) -> dict[str, Any]:
    """A request whose first tensor is another."""
    head, *others = tensors(rows)
    head = {key: value for key, value in (head | changed).items() if value is not None}
    return asking(rows, inputs=[head, *others])


VALID: dict[str, Callable[[Rows], Any]] = {
    "columns": asking,
    "columns of rank two": lambda rows: asking(rows, inputs=tensors(rows, flat=False)),
    "turned columns": lambda rows: asking(rows, inputs=tensors(rows)[::-1]),
    "with an id": lambda rows: asking(rows, id="asked-1"),
    "with no outputs named": lambda rows: asking(rows, outputs=[]),
    "single precision": lambda rows: first(rows, datatype="FP32"),
}
INVALID: dict[str, Callable[[Rows], Sent]] = {
    "cut": lambda rows: Sent("cut", json.dumps(asking(rows))[:-5].encode()),
    "empty": lambda rows: Sent("empty", b""),
    "list": lambda rows: Sent("list", tensors(rows)),
    "nothing": lambda rows: Sent("nothing", {}),
    "no inputs": lambda rows: Sent("no inputs", {"inputs": []}),
    "inputs of numbers": lambda rows: Sent("inputs of numbers", {"inputs": [1, 2]}),
    "no name": lambda rows: Sent("no name", first(rows, name=None)),
    "no shape": lambda rows: Sent("no shape", first(rows, shape=None)),
    "no datatype": lambda rows: Sent("no datatype", first(rows, datatype=None)),
    "no data": lambda rows: Sent("no data", first(rows, data=None)),
    "shape of text": lambda rows: Sent("shape of text", first(rows, shape="two")),
    "other datatype": lambda rows: Sent("other datatype", first(rows, datatype="FP80")),
    "text in a number": lambda rows: Sent("text in a number", first(rows, data=["long"] * len(rows))),
    "unknown model": lambda rows: Sent("unknown model", asking(rows), "/v2/models/nobody/infer"),
    "unknown version": lambda rows: Sent("unknown version", asking(rows), "/v2/models/penguins/versions/99/infer"),
    "missing column": lambda rows: Sent("missing column", asking(rows, inputs=tensors(rows)[1:])),
    "column too many": lambda rows: Sent(
        "column too many", asking(rows, inputs=[*tensors(rows), tensors(rows)[0] | {"name": "colour"}])
    ),
    "column twice": lambda rows: Sent("column twice", asking(rows, inputs=[*tensors(rows), tensors(rows)[0]])),
    "unequal columns": lambda rows: Sent(
        "unequal columns", first(rows, shape=[len(rows) + 1], data=[1.5] * (len(rows) + 1))
    ),
    "shape of more": lambda rows: Sent("shape of more", first(rows, shape=[len(rows) + 1])),
    "negative shape": lambda rows: Sent("negative shape", first(rows, shape=[-1])),
    "unknown output": lambda rows: Sent("unknown output", asking(rows, outputs=[{"name": "colour"}])),
    "id of a number": lambda rows: Sent("id of a number", asking(rows, id=3)),
    "extra field": lambda rows: Sent("extra field", asking(rows, colour="grey")),
    "true in a number": lambda rows: Sent("true in a number", first(rows, data=[True] * len(rows))),
}
DIFFERENCES: dict[str, tuple[int, int, str]] = {
    "text in a number": (400, 500, "what the client can mend is no fault of the server; MLServer's model raises"),
    "missing column": (400, 500, "the same"),
    "column too many": (400, 200, "MLServer's pipeline passes over it, and over a misspelt optional column"),
    "column twice": (400, 200, "MLServer takes one of them; nobody says which is meant"),
    "unequal columns": (400, 200, "MLServer pads what is short with NaN: rows that nobody sent are predicted"),
    "shape of more": (400, 200, "MLServer does not hold the data against the shape"),
    "negative shape": (400, 200, "the same"),
    "extra field": (400, 200, "MLServer passes over it; a misspelt `outputs` would be passed over too"),
    "true in a number": (400, 200, "ours is strict, so that no type is guessed"),
}
"""By kind of request: our status, MLServer's, and why ours is another."""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, await_health: Callable[[Server, str], None]) -> Iterator[Server]:
    """MLServer, with the same file in its own runtime for scikit-learn."""
    folder, port = tmp_path_factory.mktemp("theirs"), free_port()
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    (folder / "settings.json").write_text(json.dumps(ports | {"host": "127.0.0.1", "parallel_workers": 0}))
    model = {"uri": str(ROOT / "models/penguins/1/model.joblib"), "version": "1"}
    settings = {"name": "penguins", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": model}
    (folder / "model-settings.json").write_text(json.dumps(settings))
    command = [tool("mlserver"), "-W", "ignore", "-m", "mlserver.cli.main", "start", str(folder)]
    with process(command, folder, folder / "log", HOME=str(folder)) as started:
        server = Server(started, port, folder / "log")
        await_health(server, "/v2/models/penguins/ready")
        yield server


def asked(server: Server, sent: Sent) -> tuple[int, Any]:
    """Send a request; return status, and the labels where it is 200."""
    body = sent.body if isinstance(sent.body, bytes) else json.dumps(sent.body).encode()
    status, _, answer = server.request("POST", sent.path, body, {"Content-Type": "application/json"})
    return status, json.loads(answer)["outputs"][0]["data"] if status == 200 else None


def test_valid_requests_are_answered_alike(ours: Server, theirs: Server) -> None:
    """Requests that both take give the same labels."""
    dice = random.Random(20261123)
    for number in range(N_VALID):
        kind = list(VALID)[number % len(VALID)]
        rows = [row(dice, gaps=False) for _ in range(dice.randint(1, 5))]
        sent = Sent(kind, VALID[kind](rows))
        here = asked(ours, sent)
        assert here[0] == 200 and here == asked(theirs, sent), sent


def test_invalid_requests_are_refused_alike(ours: Server, theirs: Server) -> None:
    """What MLServer refuses is refused with a status of the same class, but for the differences above."""
    dice = random.Random(20261124)
    found: dict[str, set[tuple[int, int]]] = {}
    for number in range(N_INVALID):
        sent = list(INVALID.values())[number % len(INVALID)]([row(dice, gaps=False) for _ in range(dice.randint(2, 5))])
        here, there = asked(ours, sent)[0], asked(theirs, sent)[0]
        if here // 100 != there // 100:
            found.setdefault(sent.kind, set()).add((here, there))
    assert found == {kind: {(here, there)} for kind, (here, there, _) in DIFFERENCES.items()}
