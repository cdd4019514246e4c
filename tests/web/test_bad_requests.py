"""Every bad request meets its status and its problem type, and the next good one is answered."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from service import create_app, errors
from service.settings import Settings
from service.store import Store
from tests.bad_requests import BAD_REQUESTS, JSON, LIMITS, Bad, one
from tests.conftest import ROOT
from tests.zoo import counts


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """A client of an app that serves penguins and the small regressor, with small limits."""
    from service.packing import Choices, pack
    from service.runtimes import Policy

    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(ROOT / "models", folder / "models")
    animal = counts()
    import joblib

    joblib.dump(animal.model, folder / "counts.joblib")
    animal.sample.to_csv(folder / "counts.csv", index=False)
    pack(folder / "counts.joblib", folder / "counts.csv", Store(folder / "models"), Policy(), Choices(**animal.choices))
    return create_app(Settings(models_dir=folder / "models", **LIMITS)).test_client()


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: bad.name)
def test_bad_request_meets_its_problem(bad: Bad, served: FlaskClient) -> None:
    """A bad request gets its own status and problem type, and disturbs nobody."""
    path, _, query = bad.path.partition("?")
    answer = served.open(path, query_string=query, method=bad.method, data=bad.body, headers=bad.headers)
    check_problem(answer.status_code, answer.headers, answer.json, bad)
    assert served.post("/predict", data=one(), headers=JSON).json["predictions"] == ["Adelie"]


def check_problem(status: int, headers: Any, document: Any, bad: Bad) -> None:
    """Check one answer against RFC 9457 and the list."""
    assert (status, document["type"]) == (bad.status, f"/problems/{bad.problem}"), document
    assert headers["Content-Type"] == "application/problem+json"
    assert document["status"] == bad.status
    assert document["title"] and document["detail"]
    assert document["request_id"] == headers["X-Request-ID"]
    assert str(Path.cwd()) not in str(document) and "Traceback" not in str(document)


def test_every_request_error_is_provoked() -> None:
    """The list of bad requests provokes every problem type that a client can cause by a request alone."""
    elsewhere = {"invalid-request", "invalid-content-encoding", "invalid-arrow", "request-timeout", "unauthorized"}
    """The first is only a base class and Flask's own refusals; others need a setting, pyarrow, time, a token."""
    codes = {error.code for error in errors.every_error() if issubclass(error, errors.RequestError)}
    assert codes - elsewhere == {bad.problem for bad in BAD_REQUESTS}


@pytest.mark.parametrize("depth", [50, 1_000, 100_000])
def test_1_4_nesting_is_bounded(depth: int, client: FlaskClient) -> None:
    """Nesting of any depth is a fault of the client; how deep the parser goes is up to the version of Python."""
    answer = client.post("/predict", data=b'{"instances": ' + b"[" * depth + b"]" * depth + b"}", headers=JSON)
    assert (answer.status_code, answer.json["type"]) in [
        (400, "/problems/invalid-json"),
        (422, "/problems/invalid-instance"),
        (422, "/problems/too-many-rows"),
    ]


def test_several_faults_are_reported_at_once(client: FlaskClient) -> None:
    """One answer names every bad field by row and feature."""
    rows = [{"island": 3}, {"bill_length_mm": "x", "colour": "red"}]
    answer = client.post("/predict", json={"instances": rows})
    found = {(fault["row"], fault["feature"]) for fault in answer.json["errors"]}
    assert {(0, "island"), (0, "sex"), (1, "bill_length_mm"), (1, "colour"), (1, "island")} <= found


def test_faults_are_capped(client: FlaskClient) -> None:
    """An answer to a thousand bad rows stays small and says how many faults there are."""
    answer = client.post("/predict", json={"instances": [{"x" * 500: 1}] * 1000})
    assert answer.status_code == 422
    assert "6999 more" in answer.json["detail"]
    assert len(answer.data) < 8192
