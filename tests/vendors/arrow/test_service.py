"""Arrow over HTTP, asked of the app and of real gunicorn: both ways to an answer, and what is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from flask.testing import FlaskClient

from service.protocols.arrow_body import ARROW
from tests.conftest import PENGUIN, ROOT
from tests.server import running
from tests.vendors.arrow.streams import stream

BODY = stream(**{name: [value, value] for name, value in PENGUIN.items()})
ROWS = {"instances": [PENGUIN, PENGUIN]}
PATHS = ["/predict", "/v1/models/penguins:predict", "/v1/models/penguins/versions/1:predict"]


def columns(body: bytes) -> dict[str, list[Any]]:
    """The columns of an answer."""
    return pyarrow.ipc.open_stream(body).read_all().to_pydict()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("accept", [ARROW, f"{ARROW};q=0.9, text/csv;q=0.5"], ids=["lane", "flask"])
def test_arrow_is_answered_with_arrow(client: FlaskClient, path: str, accept: str) -> None:
    """Every route reads a stream and answers one, on the lane and through Flask, with what JSON says."""
    told = client.post(f"{path}?probabilities=true", json=ROWS).get_json()
    answer = client.post(f"{path}?probabilities=true", data=BODY, content_type=ARROW, headers={"Accept": accept})
    assert (answer.status_code, answer.content_type) == (200, ARROW)
    found = columns(answer.data)
    assert found.pop("species") == told["predictions"]
    assert [*found] == [f"probability_{label}" for label in told["classes"]]
    assert [list(row) for row in zip(*found.values(), strict=True)] == told["probabilities"]


@pytest.mark.parametrize(
    ("accept", "kind"), [("", "application/json"), ("*/*", "application/json"), ("text/csv", "text/csv")]
)
def test_arrow_in_is_not_arrow_out(client: FlaskClient, accept: str, kind: str) -> None:
    """The answer's form is the one that was asked for, JSON where the client does not mind."""
    answer = client.post("/predict", data=BODY, content_type=ARROW, headers={"Accept": accept})
    assert (answer.status_code, answer.content_type.partition(";")[0]) == (200, kind)


@pytest.mark.parametrize("accept", [ARROW, f"{ARROW};q=0.9"], ids=["lane", "flask"])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (BODY[:-8], 400, "invalid-arrow"),
        (stream(island=["Biscoe"]), 422, "missing-feature"),
        (b"", 400, "invalid-arrow"),
    ],
    ids=["cut", "missing", "empty"],
)
def test_errors_are_problem_documents(client: FlaskClient, body: bytes, status: int, code: str, accept: str) -> None:
    """What is refused is refused in JSON, whatever form of answer was asked for."""
    answer = client.post("/predict", data=body, content_type=ARROW, headers={"Accept": accept})
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert answer.get_json(force=True)["type"] == f"/problems/{code}"


@pytest.mark.parametrize("send_arrow", [False, True])
def test_only_who_gets_arrow_imports_it(send_arrow: bool) -> None:
    """Who answered JSON and CSV has not imported pyarrow; who read and wrote Arrow has imported no pandas for it."""
    arrow = f"data={BODY!r}, content_type={ARROW!r}, headers={{'Accept': {ARROW!r}}}"
    code = (
        "import json, sys\n"
        "from service import create_app\n"
        "client = create_app().test_client()\n"
        f"asked = [dict(json={ROWS!r}, headers={{'Accept': 'text/csv'}}), *[dict({arrow})] * {send_arrow}]\n"
        "answers = [client.post('/predict', **each).status_code for each in asked]\n"
        "assert {*answers} == {200}, answers\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(json.loads(child.stdout.splitlines()[-1]))
    assert ("pyarrow" in loaded) is send_arrow
    assert not loaded & {"pandas", "pyarrow.compute"}


def test_gunicorn_answers_arrow(models_dir: Path) -> None:
    """Workers read and write Arrow, and go on answering others."""
    with running(models_dir, WEB_CONCURRENCY="2", PYTHONPATH=str(Path(pyarrow.__file__).parent.parent)) as server:
        for _ in range(6):
            headers = {"Content-Type": ARROW, "Accept": ARROW}
            status, _, body = server.request("POST", "/predict", BODY, headers)
            assert (status, columns(body)) == (200, {"species": ["Adelie", "Adelie"]})
            assert server.predict([PENGUIN])[0] == 200
