"""The routes of the Open Inference Protocol answer as the native ones do, and fail in its own words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.protocols import openinference
from tests.conftest import PENGUIN

INFER = "/v2/models/penguins/infer"
ROWS = [PENGUIN, PENGUIN | {"bill_length_mm": 49.0, "flipper_length_mm": 220.0, "body_mass_g": 5200.0}]


@pytest.mark.parametrize("path", [INFER, "/v2/models/penguins/versions/1/infer"])
@pytest.mark.parametrize("content_type", [None, "application/json", "application/octet-stream"])
def test_answers_are_the_native_ones(path: str, content_type: str | None, client: FlaskClient) -> None:
    """The same rows give the same labels and shares, whatever Content-Type a client sends."""
    native = client.post("/predict", json={"instances": ROWS, "parameters": {"probabilities": True}}).json
    sent = openinference.encode_request(ROWS, probabilities=True)
    answer = client.post(path, data=sent, headers={"Content-Type": content_type} if content_type else {})
    assert answer.status_code == 200 and answer.headers["Anyport-Model"] == "penguins/1"
    labels, shares = answer.json["outputs"]
    assert labels["data"] == native["predictions"] == openinference.decode_response(answer.data)
    assert shares["shape"] == [2, 3] and shares["data"] == [x for row in native["probabilities"] for x in row]


def test_id_is_echoed(client: FlaskClient) -> None:
    """The answer has the request's id."""
    sent = json.loads(openinference.encode_request(ROWS)) | {"id": "é-1"}
    assert client.post(INFER, json=sent).json["id"] == "é-1"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2", {"name": "anyport", "version": "2", "extensions": []}),
        ("/v2/", {"name": "anyport", "version": "2", "extensions": []}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
        ("/v2/models/penguins/ready", {"name": "penguins", "ready": True}),
        ("/v2/models/penguins/versions/1/ready", {"name": "penguins", "ready": True}),
    ],
)
def test_server_and_health_are_told(path: str, expected: dict[str, Any], client: FlaskClient) -> None:
    """Clients find what the specification has, as JSON."""
    answer = client.get(path)
    assert (answer.status_code, answer.json) == (200, expected)


def test_metadata_fits_the_answer(client: FlaskClient) -> None:
    """The tensors that a model declares are those that it takes and answers."""
    told = client.get("/v2/models/penguins").json
    assert told == client.get("/v2/models/penguins/versions/1").json
    assert told["versions"] == ["1"] and [tensor["name"] for tensor in told["inputs"]] == list(PENGUIN)
    answer = client.post(INFER, data=openinference.encode_request(ROWS, probabilities=True)).json
    kept = ("name", "datatype")
    assert [[each[key] for key in kept] for each in told["outputs"]] == [
        [each[key] for key in kept] for each in answer["outputs"]
    ]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", INFER, b"{", 400, "line 1"),
        ("POST", INFER, openinference.encode_request([PENGUIN | {"sex": 1}]), 400, "sex"),
        ("POST", INFER, openinference.encode_request([PENGUIN | {"cm": 1}]), 400, "'cm'"),
        ("POST", INFER + "?a=b", openinference.encode_request(ROWS), 400, "'a'"),
        ("POST", "/v2/models/nobody/infer", b"{}", 404, "'nobody'"),
        ("POST", "/v2/models/penguins/versions/9/infer", b"{}", 404, "'9'"),
        ("POST", INFER + "?inference-header-content-length=3", b"{}x", 400, "is a header"),
        ("GET", INFER, b"", 405, "POST"),
        ("POST", "/v2/repository/index", b"", 404, "nothing at this path"),
        ("GET", "/v2//models", b"", 404, "//"),
        ("GET", "/v2/models/nobody", b"", 404, "'nobody'"),
        ("GET", "/v2/models/nobody/ready", b"", 404, "'nobody'"),
    ],
)
def test_errors_are_in_the_protocol_s_words(
    method: str, path: str, body: bytes, status: int, said: str, client: FlaskClient
) -> None:
    """An error is an object with the one field `error`, which names what is wrong and the request."""
    answer = client.open(path, method=method, data=body)
    assert (answer.status_code, answer.content_type, list(answer.json)) == (status, "application/json", ["error"])
    assert said in answer.json["error"] and answer.headers["X-Request-ID"] in answer.json["error"]


def test_large_body_is_refused(make_app: Callable[..., Flask]) -> None:
    """The limit of a body holds for this protocol too."""
    answer = make_app(max_body_bytes=1024).test_client().post(INFER, data=b" " * 1025)
    assert answer.status_code == 413 and list(answer.json) == ["error"]


def test_not_ready_without_a_model(make_app: Callable[..., Flask], models_dir: Path) -> None:
    """Where nothing can answer, ready says so with 503 and live stays."""
    shutil.rmtree(models_dir / "penguins")
    client = make_app().test_client()
    answer = client.get("/v2/health/ready")
    assert answer.status_code == 503 and "no package" in answer.json["error"]
    assert answer.headers["Retry-After"] == "5"
    assert client.get("/v2/health/live").status_code == 200


def test_a_worker_that_ends_is_not_ready(app: Flask) -> None:
    """While a worker ends, it says of no model that it is ready."""
    app.extensions["anyport"].draining = True
    for path in ("/v2/health/ready", "/v2/models/penguins/ready"):
        answer = app.test_client().get(path)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5") and "ending" in answer.json["error"]


def test_a_damaged_model_is_not_ready(make_app: Callable[..., Flask], models_dir: Path) -> None:
    """A model that cannot be opened is not ready, in this protocol's words."""
    for file in (models_dir / "penguins" / "1").iterdir():
        if file.name != "manifest.json":
            file.write_bytes(b"damaged")
    answer = make_app().test_client().get("/v2/models/penguins/ready")
    assert answer.status_code == 503 and list(answer.json) == ["error"]


def test_health_is_not_logged(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    """Health, which is asked every few seconds, leaves no line; predictions leave one, with model and rows."""
    caplog.set_level("INFO", logger="service.requests")
    for path in ("/v2/health/live", "/v2/health/ready"):
        client.get(path)
    assert client.post(INFER, data=openinference.encode_request(ROWS)).status_code == 200
    [facts] = [record.facts for record in caplog.records if hasattr(record, "facts")]
    assert facts["route"] == "/v2/models/<name>/infer"
    assert (facts["model"], facts["version"], facts["rows"]) == ("penguins", "1", 2)
