"""Fixtures: the working tree in a repository of its own, of which Python is asked the same thing but once."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from service.platforms import findings
from service.platforms.findings import Candidate
from tests.checkout import commit_checkout, git

LIBRARY_FILES = functools.cache(metadata.files)
PYTHON_READS = re.compile(r".*\.py|models/.*")
PYTHON_KNOWS = re.compile(
    r"ANYPORT_|GUNICORN_|WEB_CONCURRENCY|WEBSITES_|PORT|GAE_MEMORY_MB|DOMAIN_SOCKET|\w+_NUM_THREADS"
)


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git tracks or would track, in a repository of one commit. Nobody changes it."""
    tree = commit_checkout(tmp_path_factory.mktemp("origin") / "anyport")
    git(tree, "repack", "-adq")
    return tree


@pytest.fixture
def tree(origin: Path, tmp_path: Path) -> Path:
    """A copy of that repository for one test."""
    return Path(shutil.copytree(origin, tmp_path / "tree", symlinks=True))


@pytest.fixture(autouse=True)
def _ask_once(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ask Python once what it says to the same files, command and settings: most faults leave these alone.

    What is installed here is asked once too.
    """
    monkeypatch.setattr(metadata, "files", LIBRARY_FILES)
    ask, base = Candidate.ask, tmp_path_factory.getbasetemp()
    answers = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "answers"
    answers.mkdir(exist_ok=True)

    def ask_once(self: Candidate, code: str, *arguments: str) -> Any:
        files = [(file.path, file.content) for file in self.upload.files if PYTHON_READS.fullmatch(file.path)]
        environment = sorted(item for item in self.environment().items() if PYTHON_KNOWS.match(item[0]))
        asked = repr([code, arguments, findings.PROBE_S, environment, files])
        answer = answers / hashlib.sha256(asked.encode()).hexdigest()
        if not answer.exists():
            made = answer.with_suffix(f".{os.getpid()}")
            made.write_text(json.dumps(ask(self, code, *arguments)))
            made.rename(answer)
        return json.loads(answer.read_text())

    monkeypatch.setattr(Candidate, "ask", ask_once)
