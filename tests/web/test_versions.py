"""Several models and several versions of one model, served side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import PENGUIN


@pytest.fixture
def client(models_dir: Path, make_app: Callable[..., Flask]) -> FlaskClient:
    """Penguins in the versions 1 and 2, birds in version 1; penguins is the default."""
    for name, version in (("penguins", "2"), ("birds", "1")):
        folder = Path(shutil.copytree(models_dir / "penguins" / "1", models_dir / name / version))
        manifest = json.loads((folder / "manifest.json").read_text()) | {"name": name, "version": version}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return make_app().test_client()


@pytest.mark.parametrize(
    ("path", "answered_by"),
    [
        ("/predict", "penguins/2"),
        ("/v1/models/penguins:predict", "penguins/2"),
        ("/v1/models/penguins/versions/1:predict", "penguins/1"),
        ("/v1/models/penguins/versions/2:predict", "penguins/2"),
        ("/v1/models/birds:predict", "birds/1"),
        ("/v1/models/birds/versions/1:predict", "birds/1"),
    ],
)
def test_3_20_each_is_addressed_by_its_path(path: str, answered_by: str, client: FlaskClient) -> None:
    """Every model and version answers at its own path and says so; the default answers at /predict."""
    answer = client.post(path, json={"instances": [PENGUIN]})
    assert answer.headers["Anyport-Model"] == answered_by == f"{answer.json['model']}/{answer.json['version']}"
    assert answer.json["predictions"] == ["Adelie"]
