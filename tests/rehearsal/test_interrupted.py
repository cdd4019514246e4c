"""A rehearsal that is ended early leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ended_rehearsal_leaves_nothing(tree: Path, cache: Path, sent: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and a closed terminal end every process of it and clear every folder that it made."""
    before = set(cache.glob("anyport-*"))
    command = [sys.executable, "-m", "flask", "rehearse", "render"]
    environment = os.environ | {"ANYPORT_CACHE_DIR": str(cache), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
    ) as rehearsal:
        assert rehearsal.stdout is not None
        said = next(line for line in rehearsal.stdout if "listens" in line)
        [stage] = {path.name for path in cache.glob("anyport-stage-*")} - {path.name for path in before}
        rehearsal.send_signal(sent)
        rehearsal.wait(30)
    assert "ok" in said and rehearsal.returncode != 0
    assert set(cache.glob("anyport-*")) == before
    assert not [path for path in Path("/proc").glob("[0-9]*/environ") if stage.encode() in read(path)]


def hear_ctrl_c() -> None:
    """As a terminal's process does, though these tests may run in the background of a shell, which switches it off."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def read(path: Path) -> bytes:
    """The environment of a process; nothing of one that has ended or is not ours."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
