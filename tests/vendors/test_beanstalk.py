"""The bundle and the platform that the real EB client makes of our tree."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from service.platforms.facts import platforms
from service.platforms.upload import gather
from tests.checkout import commit
from tests.vendors.conftest import plant
from tests.vendors.tools import Files, ask, contents, same

CONFIG = "branch-defaults: {}\nglobal:\n  application_name: anyport\n  sc: git\n"
GUESS = "import json; from ebcli.lib.heuristics import find_platform_family as f; print(json.dumps(f()))"
BUNDLE = """
import json
from ebcli.objects.sourcecontrol import SourceControl
from ebcli.operations.commonops import _zip_up_project
print(json.dumps(_zip_up_project("bundle", SourceControl.get_source_control())[1]))
"""


@pytest.fixture
def eb_tree(tree: Path) -> Path:
    """The tree as `eb init` leaves it."""
    plant(tree / ".elasticbeanstalk" / "config.yml", CONFIG)
    return tree


def bundle(tree: Path, home: Path) -> Files:
    """Return what `eb deploy` would upload, and leave the tree as it was."""
    path = Path(ask("awsebcli", BUNDLE, cwd=tree, home=home))
    with zipfile.ZipFile(path) as archive:
        files = {
            os.path.normpath(entry.filename): (archive.read(entry), bool(entry.external_attr >> 16 & 0o100))
            for entry in archive.infolist()
            if not entry.is_dir()
        }
    path.unlink()
    path.parent.rmdir()
    return files


def test_eb_init_takes_the_tree_for_python(tree: Path, home: Path) -> None:
    """`eb init` proposes Python."""
    assert ask("awsebcli", GUESS, cwd=tree, home=home) == "Python"


def test_eb_init_takes_a_dockerfile_for_docker(tree: Path, home: Path) -> None:
    """The check can fail: with a Dockerfile beside it, `eb init` proposes Docker."""
    plant(tree / "Dockerfile", "FROM scratch\n")
    assert ask("awsebcli", GUESS, cwd=tree, home=home) == "Docker"


def test_the_bundle_is_the_commit(eb_tree: Path, home: Path) -> None:
    """Without .ebignore the bundle holds the last commit, as our own rule says: nothing that was planted since."""
    plant(eb_tree / "bin" / "tool", "#!/bin/sh\n", 0o755)
    plant(eb_tree / ".github" / "workflow.yml")
    commit(eb_tree)
    plant(eb_tree / "later.txt")
    plant(eb_tree / "README.md")
    theirs = bundle(eb_tree, home)
    same(theirs, contents(gather(platforms()["beanstalk"], eb_tree)))
    assert "later.txt" not in theirs and theirs["bin/tool"] == (b"#!/bin/sh\n", True)


PATTERNS = [".git/\ntests/\n*.md\n!README.md\n/bench\ndata/*\n!data/kept.txt\n", ".git/\n", "tests/\n"]


@pytest.mark.parametrize("patterns", PATTERNS, ids=["several", "git's folder only", "without git's folder"])
def test_the_bundle_is_the_working_tree_less_what_ebignore_names(patterns: str, eb_tree: Path, home: Path) -> None:
    """With .ebignore the bundle holds the working tree, secrets included, as our own rule says: less what the file
    names, itself, the client's own folder, and editors' backups."""
    plant(eb_tree / ".ebignore", patterns)
    for name in ("later.txt", ".env", "data/kept.txt", "data/other.txt", ".github/workflow.yml", "notes.txt~"):
        plant(eb_tree / name)
    plant(eb_tree / "bin" / "tool", "#!/bin/sh\n", 0o755)
    theirs = bundle(eb_tree, home)
    assert {"later.txt", ".env", ".github/workflow.yml"} <= theirs.keys()
    same(theirs, contents(gather(platforms()["beanstalk"], eb_tree)))
