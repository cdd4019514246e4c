"""Waking: what gunicorn's master imports before it forks, and what a worker with a compiled model never does."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT

START = """
import gc, json, runpy, sys, types

master = runpy.run_path("gunicorn.conf.py")
master["when_ready"](types.SimpleNamespace())
shared, frozen, collecting = set(sys.modules), gc.get_freeze_count(), gc.isenabled()
import service.wsgi

loaded = service.wsgi.app.extensions["anyport"].catalogue().answering()  # opens the model and replays its golden rows
worker = set(sys.modules)
runpy.run_path("gunicorn.conf.py")  # as SIGHUP does
print(json.dumps({
    "loaded": loaded,
    "worker": sorted(worker),
    "own": sorted(worker - shared),
    "frozen": frozen,
    "collecting": [collecting, gc.isenabled()],
}))
"""
NEEDLESS = [
    *("asyncio", "dotenv", "pydantic_settings", "yaml"),
    *("joblib", "onnxruntime", "pandas", "scipy", "skl2onnx", "sklearn", "skops"),
    *("service.commands", "service.compiler", "service.packing", "service.platforms"),
]
OWN = {"service.wsgi", "logging.config", "logging.handlers", "encodings.cp437"}
"""What a worker imports itself: its entry, the logging that gunicorn's own logger has imported by then, and the names
in a .npz file."""


@pytest.fixture(scope="module")
def woken() -> dict[str, Any]:
    """What a master and a worker in one process tell once the demo model, which is compiled, is loaded."""
    child = subprocess.run([sys.executable, "-c", START], cwd=ROOT, capture_output=True, text=True, check=True)
    told: dict[str, Any] = next(line for line in map(json.loads, child.stdout.splitlines()) if "loaded" in line)
    return told


@pytest.mark.parametrize("module", NEEDLESS)
def test_worker_has_not_imported(woken: dict[str, Any], module: str) -> None:
    """A worker with a compiled model wakes up without this module."""
    assert woken["loaded"] == 1
    assert module not in woken["worker"]


def test_master_has_imported_what_workers_need(woken: dict[str, Any]) -> None:
    """Beside its own entry a worker imports nothing that it could share with the master and the other workers."""
    assert set(woken["own"]) <= OWN


def test_collector_passes_over_what_was_imported(woken: dict[str, Any]) -> None:
    """What the imports made is frozen before the fork, and the collector works again, after SIGHUP too."""
    assert woken["frozen"] > 10_000
    assert woken["collecting"] == [True, True]
