"""Code that comes with a model: it finds its neighbours and its variables, and leaves nothing of itself behind."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from service.runtimes.own_code import alone, forget


def module(folder: Path, name: str, text: str) -> Path:
    """Write a module into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return folder


def test_two_models_have_modules_of_one_name(tmp_path: Path) -> None:
    """What one model imports by a name, another does not get, and nobody else does."""
    for word in ("one", "two"):
        folder = module(tmp_path / word, "own_steps", f"word = {word!r}\ndef tell(): return word\n")
        path = list(sys.path)
        with alone(folder, {}) as modules:
            own = importlib.import_module("own_steps")
            tell = own.tell
        assert (own.word, tell(), modules) == (word, word, [own])
        assert sys.path == path and "own_steps" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("own_steps")


@pytest.mark.parametrize("before", [None, "", "theirs"])
def test_variables_are_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    """A variable is set for the model's code, and as it was when that has run or failed."""
    if before is not None:
        monkeypatch.setenv("AZUREML_MODEL_DIR", before)
    with pytest.raises(KeyError), alone(tmp_path, {"AZUREML_MODEL_DIR": "ours"}):
        assert os.environ["AZUREML_MODEL_DIR"] == "ours"
        raise KeyError
    assert os.environ.get("AZUREML_MODEL_DIR") == before


def test_a_path_that_code_adds_goes_too(tmp_path: Path) -> None:
    """Folders inside the model's own that its code puts before the import path are taken off again, no others."""
    path = list(sys.path)
    with alone(tmp_path / "1", {}):
        sys.path = [str(tmp_path / "1" / "code"), *sys.path, str(tmp_path / "10")]
    assert sys.path == [*path, str(tmp_path / "10")]
    sys.path[:] = path


def test_forgotten_modules_are_empty(tmp_path: Path) -> None:
    """A module that nobody needs lets go of what its functions hold."""
    with alone(module(tmp_path, "own_steps", "word = 1\n"), {}) as modules:
        own = importlib.import_module("own_steps")
    forget(modules)
    assert not vars(own)
