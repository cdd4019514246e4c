"""Packages whose model file runs code when it is loaded: ones that crash, hang, or say more than they should."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import joblib

from tests.test_catalogue import edit


def run(code: str, model: Any) -> Any:
    """Run code, then give the model. What a misfit's file names."""
    exec(code, {})
    return model


class Misfit:
    """An estimator whose file runs code when it is loaded."""

    def __init__(self, code: str, model: Any) -> None:
        self.code, self.model = code, model

    def __reduce__(self) -> Any:
        return run, (self.code, self.model)


def add_misfit(models_dir: Path, code: str, version: str = "2", name: str = "penguins") -> Path:
    """Add a version of the demo that runs code when it is loaded and else is in order; it arrives in one step."""
    demo = models_dir / "penguins" / "1"
    staged = Path(shutil.copytree(demo, models_dir / f".{name}-{version}"))
    model = staged / "model.joblib"
    joblib.dump(Misfit(code, joblib.load(demo / "model.joblib")), model)
    content = model.read_bytes()
    entry = {"name": model.name, "sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    artifact = {"runtime": "joblib", "file": model.name, "layout": "frame"}
    edit(staged, name=name, version=version, files=[entry], artifacts=[artifact])
    (models_dir / name).mkdir(exist_ok=True)
    return staged.rename(models_dir / name / version)
