"""A tree on its way to a platform, in a git repository of its own, and a cache of virtual environments."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@example.com"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the checkout, committed."""
    root = tmp_path / "tree"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    commit(root)
    return root


def commit(root: Path) -> None:
    """Commit whatever is there."""
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    subprocess.run(["git", *IDENTITY, "commit", "--quiet", "--message", "x"], cwd=root, check=True)


@pytest.fixture(scope="session")
def cache() -> Path:
    """Where virtual environments are kept from one test to the next: not below /tmp, which a rehearsal replaces."""
    return Path(sys.prefix) / "rehearsals"
