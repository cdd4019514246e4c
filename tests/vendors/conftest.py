"""Fixtures: the working tree in a repository of its own, and an empty home for programs that write there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody; return what it printed."""
    somebody = ("-c", "user.name=anyport", "-c", "user.email=anyport@localhost", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *somebody, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what git tracks or would track, in a repository of one commit."""
    tree = tmp_path / "tree"
    for name in filter(None, git(ROOT, "ls-files", "-z", "-co", "--exclude-standard").split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    git(tree, "init", "--quiet")
    commit(tree)
    return tree


def commit(tree: Path) -> None:
    """Commit whatever stands in a tree."""
    git(tree, "add", "--all", "--force")
    git(tree, "commit", "--quiet", "--message", "as it stands")


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
