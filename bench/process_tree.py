"""Reads what a process and all that it started take: memory and processor time, from Linux's /proc."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
QUIET_SHARE = 0.05
"""Part of one processor below which a tree counts as idle; a server that only waits takes about 0.01."""


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat: `ticks` is user and system time, with that of children that were waited for."""

    pid: int
    parent: int
    session: int
    ticks: int


def processes() -> list[Process]:
    """Return every process that can be read; those that end meanwhile are passed over."""
    found = []
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                found.append(parse_stat((folder / "stat").read_text()))
    return found


def parse_stat(text: str) -> Process:
    """Read one stat line; the name in brackets may hold spaces and brackets.

    Source: man 5 proc_pid_stat, read 2026-11-23: fields 4 ppid, 6 session, 14 to 17 utime, stime, cutime, cstime.
    """
    before, _, after = text.rpartition(")")
    fields = after.split()
    return Process(int(before.split()[0]), int(fields[1]), int(fields[3]), sum(map(int, fields[11:15])))


def members(root: int) -> list[Process]:
    """Return the process, what it and its children started, and whoever else is in its session."""
    everyone = processes()
    inside = {process.pid for process in everyone if process.pid == root or process.session == root}
    while grown := {p.pid for p in everyone if p.parent in inside} - inside:
        inside |= grown
    return [process for process in everyone if process.pid in inside]


def cpu_s(root: int) -> float:
    """Return the processor seconds that the tree has taken so far."""
    return sum(process.ticks for process in members(root)) / TICKS_PER_S


def pss_mib(root: int) -> float:
    """Return the tree's proportional set size: a page that n processes share counts 1/n for each."""
    total_kib = 0
    for process in members(root):
        with suppress(OSError):  # it has ended, or is another user's
            rollup = (PROC / str(process.pid) / "smaps_rollup").read_text()
            total_kib += int(re.findall(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)[0])
    return total_kib / 1024


def settle(root: int, limit_s: float = 10.0, step_s: float = 0.2) -> None:
    """Wait until the tree has stopped working on what was asked before, or for as long as the limit says."""
    deadline = time.monotonic() + limit_s
    before = cpu_s(root)
    while time.monotonic() < deadline:
        time.sleep(step_s)
        before, last = cpu_s(root), before
        if before - last <= QUIET_SHARE * step_s:
            return
