"""Finds and runs the programs that `make test-platforms` installs; one that is missing fails the test that needs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.platforms.upload import Upload
from tests.conftest import ROOT

BIN = Path(sys.prefix) / "bin"
TOOLS = Path(sys.prefix) / "tools"
PATH = f"{BIN}:{os.environ['PATH']}:/usr/sbin:/sbin"
"""Where a platform's start line finds gunicorn."""
LIMIT_S = 120
Files = dict[str, tuple[bytes, bool]]
"""By path: what a file holds, and whether it may be executed."""


def tool(name: str, path: str = "bin/python") -> str:
    """Return the path of a tool's program or file."""
    found = TOOLS / name / path
    if not found.exists():
        pytest.fail(f"{found} is missing; `make test-platforms` puts it there")
    return str(found)


def machine_program(name: str) -> str:
    """Return the path of a program that the machine must have."""
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.fail(f"{name} is missing on this machine, and what it would show is not shown; install it")
    return found


def run(command: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an environment that holds nothing of the caller's but the path."""
    return subprocess.run(
        command, cwd=cwd, env={"PATH": PATH} | variables, capture_output=True, text=True, timeout=LIMIT_S
    )


def ask(name: str, code: str, *arguments: str, cwd: Path = ROOT, home: Path) -> Any:
    """Run Python code in a tool's environment, and return the JSON document that it printed last."""
    done = run([tool(name), "-W", "ignore", "-c", code, *arguments], cwd, HOME=str(home))
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def contents(upload: Upload) -> Files:
    """Return what our own rules chose, to be compared."""
    return {file.path: (file.content, file.executable) for file in upload.files}


def same(theirs: Files, ours: Files) -> None:
    """Compare what a real client packed with what our own rules chose; say which paths differ, not their bytes."""
    odd = {
        "the client only": sorted(theirs.keys() - ours.keys())[:20],
        "upload.py only": sorted(ours.keys() - theirs.keys())[:20],
        "another content or mode": [path for path in sorted(ours.keys() & theirs) if ours[path] != theirs[path]][:20],
    }
    assert not any(odd.values()), odd


@contextmanager
def process(command: list[str], cwd: Path, log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, in the same bare environment; what it says goes to `log`."""
    with log.open("wb") as target:
        started = subprocess.Popen(
            command, cwd=cwd, env={"PATH": PATH} | variables, stdout=target, stderr=subprocess.STDOUT
        )
    try:
        yield started
    finally:
        started.kill()
        started.wait(timeout=LIMIT_S)
