"""Copies of the working tree: the files alone, or in a repository of one commit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.conftest import ROOT


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody; return what it printed."""
    somebody = ("-c", "user.name=anyport", "-c", "user.email=anyport@localhost", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *somebody, *arguments], cwd=folder, capture_output=True, check=True)
    return done.stdout.decode()


def commit(tree: Path) -> None:
    """Commit whatever stands in a tree, ignored files too."""
    git(tree, "add", "--all", "--force")
    git(tree, "commit", "--quiet", "--allow-empty", "--message", "as it stands")


def copy_checkout(tree: Path) -> Path:
    """Copy what git tracks or would track into a folder."""
    for name in filter(None, git(ROOT, "ls-files", "-z", "-co", "--exclude-standard").split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    return tree


def commit_checkout(tree: Path) -> Path:
    """Copy it into a folder that is a repository of one commit."""
    copy_checkout(tree)
    git(tree, "init", "--quiet", "--template=")
    commit(tree)
    return tree
