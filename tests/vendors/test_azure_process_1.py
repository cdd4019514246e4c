"""Azure's start: a generated script in Debian's dash, which is process 1 and gets the signal."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import pytest

from service.platforms.facts import platforms
from tests.server import START_LIMIT_S, free_port
from tests.vendors.tools import machine_program, process, run

SCRIPT = """\
#!/bin/sh
export APP_PATH="{tree}"
cd "$APP_PATH"
export PORT={port}
PATH="$PATH:{tree}" {line}
"""
"""The form that Oryx generates. Source: microsoft/Oryx fsvalidation.go, by way of paas.md, section 4."""


@contextmanager
def container(line: str, tree: Path, home: Path) -> Iterator[tuple[Popen[bytes], int]]:
    """Run a start line as Azure would, until it is ready; give the process that waits, and the id of process 1."""
    port = free_port()
    script = home / "startup.sh"
    script.write_text(SCRIPT.format(tree=tree, port=port, line=line))
    injected = {k: v.format(port=port) for k, v in platforms()["azure"].start.environment.items()}
    apart = [machine_program("unshare"), *(["--map-root-user"] if os.geteuid() else []), "--pid", "--fork"]
    command = [*apart, "--mount-proc", "--kill-child", machine_program("dash"), str(script)]
    log = home / "log"
    with process(command, tree, log, HOME=str(home), **injected) as outside:
        wait_until_ready(outside, port, log)
        children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()
        assert len(children) == 1
        yield outside, int(children[0])


def wait_until_ready(outside: Popen[bytes], port: int, log: Path) -> None:
    """Wait until the service inside answers that it is ready."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and outside.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError(f"it did not become ready: {log.read_text()[-2000:]}")


@pytest.fixture
def line(tree: Path, home: Path) -> str:
    """What Azure reads of our startup file."""
    return run(["head", "-1", "startup.txt"], tree, HOME=str(home)).stdout.rstrip("\n")


def test_the_signal_reaches_gunicorn(line: str, tree: Path, home: Path) -> None:
    """SIGTERM to process 1 ends the service in order, long before Azure kills it."""
    with container(line, tree, home) as (outside, process_1):
        os.kill(process_1, signal.SIGTERM)
        assert outside.wait(timeout=platforms()["azure"].limits.stop_s or 5) == 0
        assert '"message":"Shutting down: Master"' in (home / "log").read_text()


def test_a_line_without_exec_hears_no_signal(line: str, tree: Path, home: Path) -> None:
    """The check can fail: the shell would be process 1, and the kernel delivers it no SIGTERM."""
    assert line.startswith("exec ")
    with container(line.removeprefix("exec "), tree, home) as (outside, process_1):
        os.kill(process_1, signal.SIGTERM)
        with pytest.raises(TimeoutExpired):
            outside.wait(timeout=3)
        assert "Handling signal" not in (home / "log").read_text()
