"""Slow clients: hundreds that send or read next to nothing, while the service must stay quick and be rid of them.

    python -m tests.faults.slow_clients       # 200 of each kind; or another number: tests.faults.slow_clients 40

Each kind comes alone, then all together, to one worker and to two. Beside them, probes and predictions are asked, each
on a connection of its own. It prints the slowest of those, and how many slow clients the service was rid of in time;
the exit status is 1 if a probe took 250 ms, or a client was still there 3 s after its deadline.

Whether the service has closed a connection is read from the kernel's table: a client that does not read learns nothing.
"""

from __future__ import annotations

import json
import selectors
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service.worker import BODY_S, HEAD_S, WRITE_S
from tests.conftest import PENGUIN, ROOT
from tests.originals import keep_originals
from tests.server import Server, running

CLIENTS = 200
MARGIN_S = 3.0
PROBE_LIMIT_MS = 250
PAUSE_S = 0.05
"""Between one round of probes and the next."""
ANSWER_ROWS = 3000
"""Their answer, with probabilities, is larger than what the kernel holds for a client on Ethernet."""
ETHERNET_MSS = 1460
"""Loopback's own segments are so large that the kernel would take the whole answer from the service at once."""
RECEIVE_BYTES = 4096
ESTABLISHED = {"01", "08"}
"""The kernel's numbers for a connection whose end the process holds: ESTABLISHED and CLOSE_WAIT.

Source: Linux include/net/tcp_states.h, read 2026-11-22.
"""


def request(rows: int, **fields: object) -> tuple[bytes, bytes]:
    """A whole prediction request: its head, and its body."""
    body = json.dumps({"instances": [list(PENGUIN.values())] * rows} | fields).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body), body


HEAD, BODY = request(1)


@dataclass(frozen=True)
class Kind:
    """One way to be slow: what is sent at once, what is sent a byte a second, and how long the service bears it."""

    at_once: bytes
    trickle: bytes
    limit_s: float
    answer: str
    """How the service's answer begins, "" where it owes none."""
    reads: bool = True


KINDS = {
    "idle": Kind(b"", b"", HEAD_S, ""),
    "slow head": Kind(b"", HEAD, HEAD_S, "HTTP/1.1 408"),
    "slow body": Kind(HEAD, BODY, BODY_S, "HTTP/1.1 408"),
    "slow reader": Kind(
        b"".join(request(ANSWER_ROWS, parameters={"probabilities": True})), b"", WRITE_S, "HTTP/1.1 200", reads=False
    ),
}


class SlowClient:
    """One client, and what became of it. Its deadline runs from its connection, or a reader's from its answer."""

    def __init__(self, kind: Kind, port: int) -> None:
        self.kind = kind
        self.unsent, self.trickle = memoryview(kind.at_once), memoryview(kind.trickle)
        self.answer = ""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, ETHERNET_MSS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not kind.reads:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.since: float | None = time.monotonic() if kind.reads else None
        self.closed_at: float | None = None

    def send(self) -> None:
        """Send what is due."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.unsent = memoryview(b"")

    def tick(self) -> None:
        """Let a second pass: one byte more is due."""
        if not self.unsent:
            self.unsent, self.trickle = self.trickle[:1], self.trickle[1:]
            self.send()

    def receive(self) -> None:
        """Take note of the answer, and of its end where this client reads."""
        try:
            block = self.socket.recv(RECEIVE_BYTES, 0 if self.kind.reads else socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            block = b""
        self.answer = self.answer or block[:12].decode("ascii", "replace")
        if not block:
            self.closed_at = time.monotonic()
        elif self.since is None:
            self.since = time.monotonic()

    @property
    def lasted_s(self) -> float | None:
        """How long the service bore it; None if it is still there."""
        return None if self.closed_at is None or self.since is None else self.closed_at - self.since


def held(port: int) -> set[int]:
    """The ports of the clients whose connections the service on this port still holds."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        int(row[2].partition(":")[2], 16)
        for row in rows
        if row[3] in ESTABLISHED and int(row[1].partition(":")[2], 16) == port
    }


def besiege(port: int, kinds: dict[str, Kind], clients: int) -> dict[str, list[SlowClient]]:
    """Be so many slow clients of each kind until the service is rid of all of them, or should be."""
    selector = selectors.DefaultSelector()
    each = {name: [SlowClient(kind, port) for _ in range(clients)] for name, kind in kinds.items()}
    everyone = [client for some in each.values() for client in some]
    for client in everyone:
        selector.register(client.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, client)
    began = time.monotonic()
    longest_s = max(kind.limit_s for kind in kinds.values()) + MARGIN_S + 20  # the readers wait for their answers first
    tick_at = began + 1
    while time.monotonic() < began + longest_s and any(client.closed_at is None for client in everyone):
        for key, events in selector.select(max(0.0, tick_at - time.monotonic())):
            _serve(selector, key.data, events)
        if time.monotonic() >= tick_at:
            tick_at += 1
            _tick(everyone, held(port))
    selector.close()
    for client in everyone:
        client.socket.close()
    return each


def _serve(selector: selectors.BaseSelector, client: SlowClient, events: int) -> None:
    if events & selectors.EVENT_WRITE:
        client.send()
        if not client.unsent:
            selector.modify(client.socket, selectors.EVENT_READ, client)
    if events & selectors.EVENT_READ:
        client.receive()
        if client.closed_at is not None or not client.kind.reads:
            selector.unregister(client.socket)


def _tick(everyone: list[SlowClient], ports: set[int]) -> None:
    for client in everyone:
        if client.closed_at is None:
            client.tick()
            if not client.kind.reads and client.since is not None and client.port not in ports:
                client.closed_at = time.monotonic()


class Bystander(threading.Thread):
    """A quick client beside the slow ones: asks the probes and a prediction, each on a new connection."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.ended = threading.Event()
        self.slowest_ms: defaultdict[str, float] = defaultdict(float)
        self.counted: Counter[str] = Counter()

    def run(self) -> None:
        """Ask until told to end."""
        while not self.ended.wait(PAUSE_S):
            for method, path, body in (
                ("GET", "/livez", None),
                ("GET", "/readyz", None),
                ("POST", "/predict", BODY),
            ):
                began = time.monotonic()
                try:
                    status, _, answer = self.server.request(method, path, body, {"Content-Type": "application/json"})
                    right = status == 200 and (body is None or json.loads(answer)["predictions"] == ["Adelie"])
                    self.counted["right" if right else f"status {status}"] += 1
                except OSError as error:
                    self.counted[f"lost ({type(error).__name__})"] += 1
                elapsed_ms = 1000 * (time.monotonic() - began)
                self.slowest_ms[path] = max(self.slowest_ms[path], elapsed_ms)


@contextmanager
def bystander(server: Server) -> Iterator[Bystander]:
    """A quick client for as long as the block lasts."""
    asking = Bystander(server)
    asking.start()
    try:
        yield asking
    finally:
        asking.ended.set()
        asking.join()


@dataclass
class Siege:
    """What came of one run."""

    clients: int
    closed: Counter[str] = field(default_factory=Counter)
    """By kind, how many clients the service had closed when the run ended."""
    in_time: Counter[str] = field(default_factory=Counter)
    """By kind, how many clients the service had closed by their deadline, give or take `MARGIN_S`."""
    longest_s: dict[str, float] = field(default_factory=dict)
    answers: dict[str, Counter[str]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    slowest_ms: dict[str, float] = field(default_factory=dict)

    @property
    def slowest_probe_ms(self) -> float:
        """The slowest answer of /livez and /readyz."""
        return max(self.slowest_ms["/livez"], self.slowest_ms["/readyz"])

    @property
    def held(self) -> bool:
        """Whether the service was rid of every client in time, and answered everybody else quickly."""
        everyone = all(self.in_time[name] == self.clients for name in self.longest_s)
        return everyone and self.slowest_probe_ms < PROBE_LIMIT_MS and set(self.asked) == {"right"}


def siege(server: Server, kinds: dict[str, Kind], clients: int) -> Siege:
    """Besiege a service, ask it questions meanwhile, and count."""
    with bystander(server) as asking:
        each = besiege(server.port, kinds, clients)
    outcome = Siege(clients, asked=asking.counted, slowest_ms=dict(asking.slowest_ms))
    for name, slow in each.items():
        lasted = [client.lasted_s if client.lasted_s is not None else float("inf") for client in slow]
        outcome.closed[name] = sum(seconds < float("inf") for seconds in lasted)
        outcome.in_time[name] = sum(seconds < kinds[name].limit_s + MARGIN_S for seconds in lasted)
        outcome.longest_s[name] = max(lasted)
        outcome.answers[name] = Counter(client.answer for client in slow)
    return outcome


@contextmanager
def besieged(workers: int, clients: int) -> Iterator[Server]:
    """A service over the demo model whose queue has room for all the slow readers."""
    with tempfile.TemporaryDirectory() as folder:
        # The original is dear, so that threads compute; the event loop would answer its compiled form itself.
        models = keep_originals(Path(shutil.copytree(ROOT / "models", Path(folder) / "models")))
        with running(models, WEB_CONCURRENCY=str(workers), ANYPORT_QUEUE=str(clients + 100)) as server:
            yield server


def report(workers: int, name: str, outcome: Siege) -> str:
    """Say in one paragraph what came of one run."""
    lines = [
        f"{workers} workers, {name}: slowest probe {outcome.slowest_probe_ms:.0f} ms, "
        f"slowest prediction {outcome.slowest_ms['/predict']:.0f} ms, asked {dict(outcome.asked)}"
    ]
    for kind, longest_s in outcome.longest_s.items():
        closed = f"{outcome.in_time[kind]} of {outcome.clients} closed in time"
        lines.append(
            f"    {kind}: {closed}, the last after {longest_s:.1f} s of {KINDS[kind].limit_s:.0f} s; "
            f"answers {dict(outcome.answers[kind])}"
        )
    return "\n".join(lines)


def main(clients: int) -> bool:
    """Run every kind alone and all together, with one worker and with two; say whether the service held."""
    well = True
    for workers in (1, 2):
        with besieged(workers, clients) as server:
            server.await_lines("answers now", workers)
            for name, kinds in [*((name, {name: kind}) for name, kind in KINDS.items()), ("together", KINDS)]:
                outcome = siege(server, kinds, clients)
                well &= outcome.held
                print(report(workers, name, outcome), flush=True)
    return well


if __name__ == "__main__":
    sys.exit(not main(int(sys.argv[1]) if sys.argv[1:] else CLIENTS))
