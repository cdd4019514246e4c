"""README.md says what is true: its generated parts match the code, and every block of the user's path runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.checkout import copy_checkout
from tests.conftest import ROOT
from tests.reference import README, render
from tests.server import Server, running

BLOCK = re.compile(r"```(sh|python|json)\n(.*?)```", re.DOTALL)


def test_generated_parts_are_current() -> None:
    """The tables and help texts in README.md are what the code says; `make docs` writes them."""
    text = README.read_text()
    assert render(text) == text


def blocks() -> list[tuple[str, str]]:
    """The code blocks of the user's path, in order."""
    path = README.read_text().partition("## Start")[2].partition("## Deploy")[0]
    return BLOCK.findall(path)


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A copy of the tracked files, with this test's virtualenv, and a curl where the machine has none."""
    copy_checkout(tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shim = tmp_path / "shim" / "curl"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "tests" / "curl.py"}" "$@"\n')
    shim.chmod(0o755)
    yield tmp_path


@pytest.mark.slow
def test_every_block_of_the_users_path_runs(clone: Path) -> None:
    """A newcomer who copies every block of README.md in order ends with a model of their own, served."""
    servers = ExitStack()
    server: Server | None = None
    said = ""
    with servers:
        for language, text in blocks():
            if language == "python":
                (clone / "train.py").write_text(text)
            elif language == "json":
                assert said == text
            elif text.strip() == "make serve":
                servers.close()
                server = servers.enter_context(running(clone / "models", ["make", "serve"], cwd=clone))
            else:
                said = run(text, clone, server.port if server else 0)
    assert (clone / "models" / "wine" / "1" / "manifest.json").is_file()
    assert len((clone / "predictions.csv").read_text().splitlines()) == 179
    assert '"ready":true' in said


def run(script: str, folder: Path, port: int) -> str:
    """Run a block as a shell would, with the test's port, and return what it printed."""
    path = f"{os.environ['PATH']}:{folder / 'shim'}"
    environment = {"PATH": path, "HOME": str(folder), "PORT": str(port or ""), "LC_ALL": "C.UTF-8"}
    script = f"set -e\n[ ! -e train.py ] || source .venv/bin/activate\n{script.replace(':8000', f':{port}')}"
    command = ["bash", "-c", script]
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
