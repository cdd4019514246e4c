"""PythonAnywhere's classic web app: our WSGI file in a real uWSGI with processes and without threads."""

from __future__ import annotations

import json
import signal
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.platforms.facts import platforms
from tests.conftest import ROOT
from tests.server import Server, free_port, running
from tests.vendors.tools import tool

PACKAGES = sysconfig.get_path("purelib")
GOLDEN = json.loads((ROOT / "models/penguins/1/manifest.json").read_text())["golden"]

TICKING = """
import threading, time

ticks = []

def tick():
    while True:
        ticks.append(time.sleep(0.01))

def application(environ, start_response):
    if not ticks:
        ticks.append(None)
        threading.Thread(target=tick, daemon=True).start()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(len(ticks)).encode()]
"""
"""Counts a hundred times a second, where threads run."""


@contextmanager
def uwsgi(models_dir: Path, tree: Path, wsgi_file: str) -> Iterator[Server]:
    """Serve a WSGI file as PythonAnywhere does.

    pyuwsgi is a module of a Python that runs already, so that its `--virtualenv` says nothing.
    """
    port = free_port()
    address = ["--http-socket", f"127.0.0.1:{port}", "--wsgi-file", wsgi_file]
    limits = ["--master", "--processes", "1", "--harakiri", "300"]
    command = [tool("pyuwsgi", "bin/uwsgi"), *address, *limits]
    injected = platforms()["pythonanywhere"].start.environment
    with running(models_dir, command, cwd=tree, port=port, PYTHONPATH=PACKAGES, **injected) as server:
        try:
            yield server
        finally:
            server.stop(signal.SIGINT)  # SIGTERM makes uWSGI's master load everything again


def lines(server: Server) -> list[dict[str, Any]]:
    """Return the service's own lines; uWSGI writes others between them."""
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]


def answered(server: Server) -> list[dict[str, Any]]:
    """Return the lines on predictions."""
    return [line for line in lines(server) if line.get("route") == "/predict"]


def test_uwsgi_serves_the_models(models_dir: Path, tree: Path) -> None:
    """The file loads, every golden row gets its answer, and each request's line is written before the next."""
    with uwsgi(models_dir, tree, "pythonanywhere_wsgi.py") as server:
        assert server.request("GET", "/readyz")[0] == 200
        for asked in (1, 2, 3):
            status, document = server.predict(GOLDEN["rows"])
            assert (status, document["predictions"]) == (200, GOLDEN["predictions"])
            deadline = time.monotonic() + 5
            while len(answered(server)) < asked:
                assert time.monotonic() < deadline, server.log.read_text()[-2000:]
                time.sleep(0.01)
        assert "Python threads support is disabled" in server.log.read_text()
        assert {line["status"] for line in answered(server)} == {200}


def test_uwsgi_runs_no_threads(models_dir: Path, tree: Path) -> None:
    """The check can fail: a thread hardly runs while no request is answered, so it would write no line."""
    (tree / "ticking_wsgi.py").write_text(TICKING)
    with uwsgi(models_dir, tree, "ticking_wsgi.py") as server:
        before = int(server.request("GET", "/")[2])
        time.sleep(2)
        assert int(server.request("GET", "/")[2]) - before < 20
