"""Fixtures: the working tree in a repository of its own, and an empty home for programs that write there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkout import commit_checkout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what git tracks or would track, in a repository of one commit."""
    return commit_checkout(tmp_path / "tree")


def plant(path: Path, text: str = "planted\n", mode: int = 0o644) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home."""
    home = tmp_path / "home"
    home.mkdir()
    return home
