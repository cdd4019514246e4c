"""Prepares a peer for a model, starts it as its users would, and ends all that it started."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.drive import Ask
from bench.environments import environment, run
from bench.failure import PeerFailed
from bench.peer import PEERS, WORKERS, Peer, words
from bench.process_tree import members
from bench.workloads import Trained

START_LIMIT_S = 120
STOP_LIMIT_S = 20
POLL_S = 0.01
PATIENCE_S = 30
"""How long one connection or answer is waited for."""
LIVE = "/livez"
"""Anyport's path for it. What others answer there, mostly 404, shows as well that they answer."""
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
"""For everybody alike: two workers with a pool of threads each would only disturb each other."""


@dataclass(frozen=True)
class Prepared:
    """A peer that is ready to serve a model: a port of its own, its values, its working folder and its variables."""

    peer: Peer
    port: int
    values: dict[str, str]
    cwd: Path
    variables: dict[str, str]

    @property
    def command(self) -> list[str]:
        """What starts it."""
        return words(self.peer.command, self.values)


@dataclass
class Server:
    """A running peer."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(self, ask: Ask, body: bytes, path: str = "") -> tuple[int, bytes]:
        """Send one body on a connection of its own; return status and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request("POST", path or ask.path, body, ask.headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def last_words(self) -> str:
        """Return the last line that it logged."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "nothing"


def prepare(peer: Peer, trained: Trained, checkout: Path, folder: Path) -> Prepared:
    """Make a peer ready for a model in a folder of its own.

    Raises:
        PeerFailed: If it cannot be installed, or its own tools cannot pack the model.
    """
    home = environment(peer)
    prepared = folder / peer.name / trained.name
    prepared.mkdir(parents=True, exist_ok=True)
    port = free_port()
    values = {
        "port": str(port),
        "spare": str(free_port()),
        "workers": str(WORKERS),
        "name": trained.name,
        "target": trained.target,
    }
    values |= {"model": str(trained.path), "sample": str(trained.sample), "prepared": str(prepared)}
    values |= {"checkout": str(checkout), "peer": str(PEERS / peer.name)}
    variables = {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "HOME": str(prepared), "LANG": "C.UTF-8"} | ONE_THREAD
    variables |= {name: value.format(**values) for name, value in (peer.variables or {}).items()}
    cwd = Path(peer.folder.format(**values))
    if peer.prepare:
        program, *rest = words(peer.prepare, values)
        program = sys.executable if peer.prepare_in_project else str(home / "bin" / program)
        run([program, *rest], cwd, variables)
    return Prepared(peer, port, values, cwd, variables)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def stop_on_sigterm() -> None:
    """End the servers as well where the benchmark itself is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("anyport: the benchmark was ended"))


@contextmanager
def serving(prepared: Prepared) -> Iterator[Server]:
    """Run a server until the block ends, and leave no process behind."""
    log = Path(prepared.values["prepared"]) / "server.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            prepared.command,
            cwd=prepared.cwd,
            env=prepared.variables,
            stdout=said,
            stderr=said,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield Server(process, prepared.port, log)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process with SIGTERM, and whatever is left of its tree with SIGKILL."""
    started = members(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_LIMIT_S)
    alive = {each.pid for each in members(process.pid)}
    for each in started:
        if each.pid in alive:
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
    process.wait()


def await_door(server: Server) -> None:
    """Try until a connection is taken.

    Raises:
        PeerFailed: If the server ends, or the limit is over.
    """

    def connect() -> str:
        socket.create_connection(("127.0.0.1", server.port), PATIENCE_S).close()
        return ""

    insist(server, "connection", connect)


def await_http(server: Server) -> None:
    """Ask until there is an answer, whatever it says: not every peer has a path for this.

    Raises:
        PeerFailed: If the server ends, or the limit is over.
    """

    def get() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        with closing(connection):
            connection.request("GET", LIVE)
            connection.getresponse()
        return ""

    insist(server, "answer by HTTP", get)


def await_answer(server: Server, ask: Ask, right: Callable[[bytes], bool]) -> None:
    """Ask until the answer is right.

    Raises:
        PeerFailed: If the server ends, or the limit is over.
    """

    def predict() -> str:
        status, body = server.ask(ask, ask.bodies[0])
        return "" if status == 200 and right(body) else f"{status} {body[:200]!r}"

    insist(server, "right answer", predict)


def insist(server: Server, wanted: str, attempt: Callable[[], str]) -> None:
    """Make an attempt again and again, until it returns nothing instead of what came of it.

    Raises:
        PeerFailed: If the server ends, or the limit is over.
    """
    deadline, last = time.monotonic() + START_LIMIT_S, "nothing"
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise PeerFailed(f"it ended with status {server.process.returncode}, its log says: {server.last_words()}")
        with suppress(OSError, http.client.HTTPException):
            last = attempt()
            if not last:
                return
        time.sleep(POLL_S)
    raise PeerFailed(f"no {wanted} within {START_LIMIT_S} s; the last was {last}")
