"""Fixtures: our service under gunicorn, as the clients find it without any setting."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.server import Server, running

START_LIMIT_S = 60


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our service."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path_factory.mktemp("ours") / "models"))
    with running(models, WEB_CONCURRENCY="1") as server:
        yield server


@pytest.fixture(scope="session")
def await_health() -> Callable[[Server, str], None]:
    """Wait until a server that is no Anyport answers 200 at a path."""

    def wait(server: Server, path: str) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                if server.request("GET", path)[0] == 200:
                    return
            except OSError:
                pass  # nobody listens yet
            said = server.log.read_text()[-2000:]
            assert server.process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.1)

    return wait
