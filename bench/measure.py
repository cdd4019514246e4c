"""One visit to one peer: start, first answer, comparison, memory, load, and the figures of it all."""

from __future__ import annotations

import http.client
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from bench.answers import Verdict, compare
from bench.drive import Ask, Result, drive, parse
from bench.failure import PeerFailed
from bench.peer import WORKERS, Peer
from bench.process_tree import cpu_s, pss_mib, settle
from bench.servers import Prepared, Server, await_answer, await_door, await_http, serving
from bench.wires import CSV, WIRES, Answer, Wire
from bench.workloads import Trained, Workload, batches

CHECK_BATCH = 100
WARM_CONNECTIONS = 16


@dataclass(frozen=True)
class Load:
    """What one peer did under one load."""

    workload: str
    connections: int
    result: Result
    cpu_ms: float


@dataclass(frozen=True)
class Waking:
    """How long after the start of the process each phase of waking ended."""

    accepts_s: float
    """Somebody takes a connection."""
    live_s: float
    """Somebody answers by HTTP, whatever it is."""
    answer_s: float
    """The first prediction, and a right one."""


@dataclass(frozen=True)
class Visit:
    """All figures of one start of one peer with one model; memory after load is by workload."""

    peer: str
    model: str
    waking: Waking | None
    idle_mib: float | None
    verdict: Verdict | None
    loads: list[Load] = field(default_factory=list)
    loaded_mib: dict[str, float] = field(default_factory=dict)

    @property
    def first_answer_s(self) -> float | None:
        """How long after the start of the process the first right answer came."""
        return self.waking.answer_s if self.waking else None


def visit(prepared: Prepared, trained: Trained, workloads: Sequence[Workload], seconds: float, folder: Path) -> Visit:
    """Start a peer and measure it.

    Raises:
        PeerFailed: If it does not start, does not answer, or answers something else than the model.
    """
    peer = prepared.peer
    if peer.in_process:
        return visit_in_process(prepared, trained, workloads, seconds)
    began = time.monotonic()
    with serving(prepared) as server:
        waking = await_waking(server, peer, trained, began)
        settle(server.process.pid)
        idle_mib = pss_mib(server.process.pid)
        verdict = None if peer.constant else check(server, peer, trained)
        seen = Visit(peer.name, trained.name, waking, idle_mib, verdict)
        for workload in workloads:
            ask = peer.ask(workload, trained)
            drive(server.port, ask, WARM_CONNECTIONS, seconds / 2, folder)
            seen.loads.extend(load(server, ask, workload, each, seconds, folder) for each in workload.connections)
            seen.loaded_mib[workload.name] = pss_mib(server.process.pid)
        if verdict and check(server, peer, trained) != verdict:
            raise PeerFailed("after the load it did not answer as before")
    return seen


def visit_in_process(prepared: Prepared, trained: Trained, workloads: Sequence[Workload], seconds: float) -> Visit:
    """Let a peer that is no server work by itself, in no more processes than there are connections and workers."""
    seen = Visit(prepared.peer.name, trained.name, None, None, None)
    for workload in workloads:
        rows = Path(prepared.values["prepared"]) / f"{workload.name}.csv"
        rows.write_bytes(CSV.encode(batches(trained, workload)[0]))
        for connections in workload.connections:
            said = side_by_side([*prepared.command, str(rows), str(seconds)], prepared, min(connections, WORKERS))
            spent_us = sum(int(cpu) for text in said for cpu in re.findall(r"^CPU (\d+)$", text, re.MULTILINE))
            result = total([parse(text) for text in said])
            seen.loads.append(Load(workload.name, connections, result, spent_us / 1000 / max(result.answered, 1)))
    return seen


def side_by_side(command: list[str], prepared: Prepared, count: int) -> list[str]:
    """Run a command in several processes at once and return what each said."""
    started = [
        subprocess.Popen(
            command,
            cwd=prepared.cwd,
            env=prepared.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(count)
    ]
    return [process.communicate()[0] for process in started]


def total(results: Sequence[Result]) -> Result:
    """Add up what several processes did at once."""
    return Result(
        answered=sum(each.answered for each in results),
        errors=sum(each.errors for each in results),
        duration_s=max(each.duration_s for each in results),
        p50_ms=median(each.p50_ms for each in results),
        p99_ms=max(each.p99_ms for each in results),
    )


def await_waking(server: Server, peer: Peer, trained: Trained, began: float) -> Waking:
    """Wait for the first right answer, and note the phases before it."""
    await_door(server)
    accepts_s = time.monotonic() - began
    await_http(server)
    live_s = time.monotonic() - began
    await_first(server, peer, trained)
    return Waking(accepts_s, live_s, time.monotonic() - began)


def await_first(server: Server, peer: Peer, trained: Trained) -> None:
    """Wait for the first right answer, to the row that nobody should get wrong."""
    wire, row = WIRES[peer.wire], trained.surest
    body = wire.encode(trained.rows.iloc[row : row + 1])
    ask = Ask(peer.path.format(name=trained.name), wire.media, wire.accept, (body,))
    await_answer(server, ask, lambda said: peer.constant or wire.read(said).labels == (trained.labels[row],))


def check(server: Server, peer: Peer, trained: Trained) -> Verdict:
    """Ask for every row by every way that the peer has, and compare; labels count by the way that is timed."""
    wire = WIRES[peer.wire]
    by_label = judge(server, wire, peer.path, trained)
    if peer.csv and judge(server, CSV, peer.csv, trained).differing != by_label.differing:
        raise PeerFailed(f"by JSON {by_label.differing} labels differ, by CSV another number")
    if by_label.wrong:
        raise PeerFailed(f"{by_label.differing} of {by_label.rows} labels are not the model's")
    if not peer.probabilities:
        return by_label
    return replace(judge(server, wire, peer.probabilities, trained), differing=by_label.differing)


def judge(server: Server, wire: Wire, path: str, trained: Trained) -> Verdict:
    """Ask for all rows by one way and compare."""
    return compare(answers(server, wire, path, trained), trained.labels, trained.probabilities)


def answers(server: Server, wire: Wire, path: str, trained: Trained) -> list[Answer]:
    """Ask for all rows in batches and return the answers in order."""
    ask = Ask(path.format(name=trained.name), wire.media, wire.accept, ())
    found = []
    for start in range(0, len(trained.rows), CHECK_BATCH):
        try:
            status, body = server.ask(ask, wire.encode(trained.rows.iloc[start : start + CHECK_BATCH]))
        except (OSError, http.client.HTTPException) as error:
            raise PeerFailed(f"{CHECK_BATCH} rows at {ask.path} were not answered: {error!r}") from error
        if status != 200:
            raise PeerFailed(f"{CHECK_BATCH} rows at {ask.path} were answered with {status}: {body[:200]!r}")
        found.append(wire.read(body))
    return found


def load(server: Server, ask: Ask, workload: Workload, connections: int, seconds: float, folder: Path) -> Load:
    """Drive a server that has nothing left to do from before, and take its processor time."""
    settle(server.process.pid)
    before = cpu_s(server.process.pid)
    result = drive(server.port, ask, connections, seconds, folder)
    spent_s = cpu_s(server.process.pid) - before
    return Load(workload.name, connections, result, 1000 * spent_s / max(result.answered, 1))
