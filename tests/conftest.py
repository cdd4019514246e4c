"""Fixtures: a store with the demo model, an app over it, and a zoo of packed estimators."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from hypothesis import settings as hypothesis_settings

from service import create_app
from service.packing import Choices, Packed, pack
from service.runtimes import Policy
from service.settings import Settings
from service.store import Store

ROOT = Path(__file__).resolve().parent.parent
hypothesis_settings.register_profile("long", max_examples=20_000, deadline=None)  # pytest --hypothesis-profile=long
PLATFORM_VARIABLES = {
    "AIP_HTTP_PORT",
    "AZUREML_MODEL_DIR",
    "GAE_MEMORY_MB",
    "PORT",
    "SAGEMAKER_BATCH",
    "SAGEMAKER_BIND_TO_PORT",
    "WEB_CONCURRENCY",
    "WEB_CONCURRENCY_SET_BY",
    "WEBSITES_CONTAINER_STOP_TIME_LIMIT",
}
PENGUIN = {
    "bill_length_mm": 39.1,
    "bill_depth_mm": 18.7,
    "flipper_length_mm": 181.0,
    "body_mass_g": 3750.0,
    "island": "Torgersen",
    "sex": "male",
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caller's own settings out of the tests."""
    import os

    for name in list(os.environ):
        if name.startswith(("ANYPORT_", "AIP_", "MODEL_DEPLOY")) or name in PLATFORM_VARIABLES:
            monkeypatch.delenv(name)


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A models folder that holds a copy of the committed demo package."""
    return Path(shutil.copytree(ROOT / "models", tmp_path / "models"))


@pytest.fixture
def store(models_dir: Path) -> Store:
    """The store over that folder."""
    return Store(models_dir)


@pytest.fixture
def make_app(models_dir: Path) -> Callable[..., Flask]:
    """Make an app over the models folder with settings of one's own."""

    def make(**settings: Any) -> Flask:
        app = create_app(Settings(**{"models_dir": models_dir} | settings))
        app.testing = True
        return app

    return make


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """The app with default settings."""
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the app."""
    return app.test_client()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    """A runner of the app's commands."""
    return app.test_cli_runner()


PackModel = Callable[..., Packed]


@pytest.fixture
def pack_model(tmp_path: Path) -> PackModel:
    """Pack an estimator (or a model file) with a sample frame into a store."""

    def packer(
        model: Any, sample: Any, store: Store, *, name: str = "it", policy: Policy | None = None, **said: Any
    ) -> Packed:
        model_file = model if isinstance(model, Path) else tmp_path / f"{name}.joblib"
        if model_file is not model:
            joblib.dump(model, model_file)
        sample_file = sample if isinstance(sample, Path) else tmp_path / f"{name}.csv"
        if sample_file is not sample:
            sample.to_csv(sample_file, index=False)
        return pack(model_file, sample_file, store, policy or Policy(), Choices(**said), name=name)

    return packer
