"""Procfile before `heroku local` and before honcho, which starts what it says."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.server import START_LIMIT_S, running
from tests.vendors.tools import PATH, ask, machine_program, run, tool

PROCFILE = (ROOT / "Procfile").read_text()
LINE = "gunicorn -c gunicorn.conf.py service.wsgi:app"
LOAD = """
const { loadProc } = await import(process.argv[1])
try {
  console.log(JSON.stringify(loadProc(process.argv[2])))
} catch (error) {
  console.log(JSON.stringify(error.message))
}
"""
PROCESSES = """
import json, sys
from honcho.environ import parse_procfile
print(json.dumps(parse_procfile(sys.argv[1]).processes))
"""


def heroku_local(procfile: Path, home: Path) -> Any:
    """Return the processes that `heroku local` finds, or its complaint."""
    loader = tool("heroku", "dist/lib/local/load-foreman-procfile.js")
    node = [machine_program("node"), "--input-type=module", "--eval", LOAD]
    done = run([*node, loader, str(procfile)], ROOT, HOME=str(home))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_heroku_local_finds_one_process(home: Path) -> None:
    """The Heroku client reads our line under `web`, and nothing else."""
    assert heroku_local(ROOT / "Procfile", home) == {"web": LINE}


@pytest.mark.parametrize("added", ["web-2: sleep 1\n", "sleep 1\n"], ids=["a dash", "no name"])
def test_heroku_local_refuses_a_damaged_procfile(added: str, tmp_path: Path, home: Path) -> None:
    """The check can fail: a name with a dash and a line without a name are refused."""
    procfile = tmp_path / "Procfile"
    procfile.write_text(PROCFILE + added)
    assert heroku_local(procfile, home) == f"line 2 parse error: {added.strip()}"


def test_honcho_finds_one_process(home: Path) -> None:
    """honcho reads our line under `web`, and nothing else; its `check` would accept garbage."""
    assert ask("honcho", PROCESSES, PROCFILE, home=home) == {"web": LINE}


def test_honcho_starts_and_ends_the_service(tree: Path, models_dir: Path) -> None:
    """What Procfile says starts on the port of the environment, becomes ready, and ends in order with SIGTERM, before
    honcho loses patience after 5 s."""
    with running(models_dir, [tool("honcho", "bin/honcho"), "start", "web"], cwd=tree, PATH=PATH) as server:
        deadline = time.monotonic() + START_LIMIT_S
        while server.request("GET", "/readyz")[0] != 200:  # each worker says so for itself
            assert time.monotonic() < deadline
        server.stop(signal.SIGTERM)
        assert '"message":"Shutting down: Master"' in server.log.read_text()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=1)
