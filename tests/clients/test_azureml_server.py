"""Microsoft's own inference server runs our score.py: init, run, statuses, and a model that cannot be opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients.conftest import START_LIMIT_S
from tests.conftest import PENGUIN, ROOT
from tests.server import Server, free_port
from tests.vendors.tools import process, tool

ROWS = [PENGUIN, PENGUIN | {"bill_length_mm": 49.0, "flipper_length_mm": 220.0, "body_mass_g": 5200.0, "sex": None}]
LABELS = ["Adelie", "Gentoo"]
JSON = {"Content-Type": "application/json"}


@contextmanager
def microsofts(folder: Path) -> Iterator[Server]:
    """Microsoft's server, of a folder of code and a folder of models as Azure mounts it."""
    code, port = folder / "code", free_port()
    shutil.copytree(ROOT / "service", code / "service", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "container" / "azureml" / "score.py", code)
    command = [tool("azureml-inference-server-http", "bin/azmlinfsrv"), "--entry_script", "score.py"]
    variables = {"AZUREML_MODEL_DIR": str(folder / "mounted"), "HOME": str(folder), "AML_APP_INSIGHTS_ENABLED": "false"}
    log = folder / "log"
    with process([*command, "--port", str(port)], code, log, **variables) as started:
        yield Server(started, port, log)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, await_health: Callable[[Server, str], None]) -> Iterator[Server]:
    """The server, once it answers."""
    folder = tmp_path_factory.mktemp("azure")
    shutil.copytree(ROOT / "models", folder / "mounted" / "models")
    with microsofts(folder) as server:
        await_health(server, "/")
        yield server


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"data": ROWS}, {"predictions": LABELS}),
        ({"data": [list(row.values()) for row in ROWS]}, {"predictions": LABELS}),
        (
            {"input_data": {"columns": list(PENGUIN), "index": [0, 1], "data": [list(row.values()) for row in ROWS]}},
            LABELS,
        ),
        ({"Inputs": {"data": ROWS}, "GlobalParameters": {"method": "predict"}}, {"Results": LABELS}),
    ],
)
def test_bodies_are_answered(body: object, expected: object, server: Server) -> None:
    """Each of Azure's three bodies is answered in its own form, as JSON, once."""
    status, headers, answer = server.request("POST", "/score", json.dumps(body).encode(), JSON)
    assert (status, json.loads(answer)) == (200, expected)
    assert headers["Content-Type"] == "application/json" and headers["x-ms-run-function-failed"] == "False"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "line 1"),
        (json.dumps({"data": [PENGUIN | {"sex": 1}]}).encode(), 400, "'sex'"),
        (json.dumps({"rows": ROWS}).encode(), 400, "'rows'"),
        (b'{"data": "\xff"}', 400, ""),
        (b" " * 5_000_000, 413, "5000000 bytes"),
    ],
)
def test_faults_are_told(body: bytes, status: int, said: str, server: Server) -> None:
    """What is wrong with a request keeps its status and is told in the one field of Microsoft's errors."""
    found, _, answer = server.request("POST", "/score", body, JSON)
    assert found == status
    document = json.loads(answer)
    assert list(document) == ["message"] and said in document["message"]


def test_damaged_model_ends_the_server(tmp_path: Path) -> None:
    """A model that cannot be opened ends the server as a failing init() does, and the log says why."""
    shutil.copytree(ROOT / "models", tmp_path / "mounted" / "models")
    for file in (tmp_path / "mounted" / "models" / "penguins" / "1").iterdir():
        if file.name != "manifest.json":
            file.write_bytes(b"damaged")
    with microsofts(tmp_path) as server:
        assert server.process.wait(timeout=START_LIMIT_S) != 0
        assert "ChecksumMismatch" in server.log.read_text()
