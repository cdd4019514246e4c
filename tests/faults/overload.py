"""Overload: ten times the requests that the service can answer, and what becomes of every one of them.

    python -m tests.faults.overload        # for 60 seconds; or another number: tests.faults.overload 10

First a closed loop finds the capacity: more clients than threads, each of which asks again once it is answered. Then
ten times as much is offered in an open loop, at its own pace whatever comes back, on new connections and kept ones. At
last the service is asked quietly until its answers take no longer than before. The exit status is 1 unless nine tenths
of the capacity was answered, 99 of 100 refusals took under 20 ms, it was itself again within 5 s, and nothing was lost.

The model sleeps, so it costs a thread and no processor; the client is one epoll loop that sends bytes made beforehand.
Its own lateness is printed, for an answer that it is late to read looks slow.
"""

from __future__ import annotations

import json
import selectors
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas

from tests.conftest import ROOT
from tests.server import Server, running
from tests.slow import SlowSum
from tests.test_server import pack_into

WORKERS, THREADS, SLOW_S = 2, 4, 0.05
SLOTS = WORKERS * THREADS
FACTOR = 10
WARM_UP_S = 1.0
QUIET_ASKED = 20
RECOVERY_LIMIT_S = 30
PATIENCE_S = 15.0
"""How long a request is waited for; the service's own deadline is later."""
KEPT = 64
"""How many connections of the open loop are kept for their next request."""
ENOUGH_SHARE, REFUSAL_LIMIT_MS, RECOVERED_S = 0.9, 20.0, 5.0


def question(number: int) -> tuple[bytes, bytes]:
    """A whole request, and the prediction that must stand in its answer."""
    body = json.dumps({"instances": [[number, 0.25]]}).encode()
    head = b"POST /v1/models/slow:predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d"
    return head % len(body) + b"\r\n\r\n" + body, b'{"predictions":[%d.25],' % number


QUESTIONS = [question(number) for number in range(1000, 1256)]


@dataclass(eq=False)
class Exchange:
    """One connection, and the request that is on it."""

    socket: socket.socket
    asked_at: float = 0.0
    expected: bytes = b""
    unsent: bytes = b""
    received: bytes = b""


@dataclass
class Load:
    """What was counted: 200 and right, 503, and by name whatever must not be."""

    right: int = 0
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    refusal_ms: list[float] = field(default_factory=list)
    answer_ms: list[float] = field(default_factory=list)
    right_meanwhile: int = 0
    """How many of the right answers came while the load was being offered."""
    emptied_s: float = 0.0
    """How long after the last request the last answer came."""
    latest_ms: float = 0.0
    """The longest that the client itself was behind its own timetable."""


class Client:
    """Any number of connections in one loop."""

    def __init__(self, port: int) -> None:
        self.address = ("127.0.0.1", port)
        self.selector = selectors.DefaultSelector()
        self.asking: set[Exchange] = set()
        self.kept: deque[Exchange] = deque()
        self.load = Load()
        self.turn = 0

    def ask(self, *, keep: bool) -> None:
        """Send one request, on a kept connection where wanted and there is one."""
        exchange = self.kept.popleft() if keep and self.kept else self._connect()
        self.turn += 1
        exchange.unsent, exchange.expected = QUESTIONS[self.turn % len(QUESTIONS)]
        exchange.received = b""
        exchange.asked_at = time.monotonic()
        self.asking.add(exchange)
        self._send(exchange)

    def serve(self, wait_s: float) -> None:
        """Wait for what comes, at most so long, and read it."""
        for key, events in self.selector.select(max(0.0, wait_s)):
            if events & selectors.EVENT_WRITE:
                self._send(key.data)
            if events & selectors.EVENT_READ:
                self._receive(key.data)

    def give_up_old(self) -> None:
        """Count requests as lost that nobody has answered for long."""
        limit = time.monotonic() - PATIENCE_S
        for exchange in [exchange for exchange in self.asking if exchange.asked_at < limit]:
            self._end(exchange, "no answer")

    def close(self) -> None:
        """Close every connection; what is still being asked counts as unanswered."""
        for exchange in list(self.asking):
            self._end(exchange, "no answer")
        while self.kept:
            self._end(self.kept.popleft())
        self.selector.close()

    def _connect(self) -> Exchange:
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connect_ex(self.address)
        exchange = Exchange(client)
        self.selector.register(client, selectors.EVENT_READ, exchange)
        return exchange

    def _send(self, exchange: Exchange) -> None:
        try:
            exchange.unsent = exchange.unsent[exchange.socket.send(exchange.unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(exchange, type(error).__name__)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if exchange.unsent else 0)
        if self.selector.get_key(exchange.socket).events != wanted:
            self.selector.modify(exchange.socket, wanted, exchange)

    def _receive(self, exchange: Exchange) -> None:
        try:
            block = exchange.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(exchange, type(error).__name__ if exchange in self.asking else None)
            return
        exchange.received += block
        head, end, body = exchange.received.partition(b"\r\n\r\n")
        if end and exchange in self.asking and len(body) >= length_of(head):
            self._answered(exchange, head, body)
        elif not block:
            if exchange in self.kept:
                self.kept.remove(exchange)
            self._end(exchange, "ended early" if exchange in self.asking else None)

    def _answered(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        elapsed_ms = 1000 * (time.monotonic() - exchange.asked_at)
        status = head[9:12]
        fault = None
        if status == b"200" and body.startswith(exchange.expected):
            self.load.right += 1
            self.load.answer_ms.append(elapsed_ms)
        elif status == b"503" and b'"/problems/overloaded"' in body:
            self.load.refused += 1
            self.load.refusal_ms.append(elapsed_ms)
        else:
            fault = "wrong answer" if status == b"200" else f"status {status.decode()}"
        if fault or b"\r\nConnection: close" in head or len(self.kept) >= KEPT:
            self._end(exchange, fault)
        else:
            self.asking.discard(exchange)
            self.kept.append(exchange)

    def _end(self, exchange: Exchange, fault: str | None = None) -> None:
        if fault:
            self.load.faults[fault] += 1
        self.asking.discard(exchange)
        self.selector.unregister(exchange.socket)
        exchange.socket.close()


def length_of(head: bytes) -> int:
    """The length of the body that follows an answer's head."""
    return int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])


def saturate(port: int, seconds: float) -> tuple[float, Load]:
    """Keep every thread busy for so long; return the answers a second, and all that was counted."""
    client = Client(port)
    began = time.monotonic()
    counted_from = None
    while (now := time.monotonic()) < began + WARM_UP_S + seconds:
        if counted_from is None and now >= began + WARM_UP_S:
            counted_from = client.load.right
        while len(client.asking) < 3 * SLOTS:
            client.ask(keep=True)
        client.serve(0.05)
    capacity = (client.load.right - (counted_from or 0)) / seconds
    finish(client)
    return capacity, client.load


def offer(port: int, rate: float, seconds: float) -> Load:
    """Send so many requests a second whatever comes back, every other one on a new connection."""
    client = Client(port)
    began, sent, total = time.monotonic(), 0, int(rate * seconds)
    while sent < total:
        now = time.monotonic()
        due = min(total, int((now - began) * rate))
        client.load.latest_ms = max(client.load.latest_ms, 1000 * (now - began - sent / rate))
        while sent < due:
            sent += 1
            client.ask(keep=sent % 2 == 0)
        client.serve(began + (sent + 1) / rate - time.monotonic())
    client.load.right_meanwhile = client.load.right
    ended = time.monotonic()
    finish(client)
    client.load.emptied_s = time.monotonic() - ended
    return client.load


def finish(client: Client) -> None:
    """Wait for the answers that are due, and close."""
    while client.asking:
        client.serve(0.1)
        client.give_up_old()
    client.close()


def plain_ms(server: Server) -> float:
    """How long one request takes on a connection of its own."""
    began = time.monotonic()
    status, _ = server.predict([[1, 2]], "/v1/models/slow:predict")
    return 1000 * (time.monotonic() - began) if status == 200 else float("inf")


def recover(server: Server, normal_ms: float) -> float:
    """Return after how many seconds a plain request takes no longer than normal, three times in a row."""
    began = time.monotonic()
    in_a_row, first = 0, began
    while in_a_row < 3 and time.monotonic() < began + RECOVERY_LIMIT_S:
        asked_at = time.monotonic()
        quick = plain_ms(server) <= normal_ms
        first = first if quick and in_a_row else asked_at
        in_a_row = in_a_row + 1 if quick else 0
    return first - began if in_a_row == 3 else float("inf")


@contextmanager
def slow_service() -> Iterator[Server]:
    """A service with a model that takes its time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "models", folder / "models")
        rows = pandas.DataFrame(np.arange(8.0).reshape(4, 2), columns=["a", "b"])
        pack_into(folder, "slow", SlowSum().fit(rows), rows)
        with running(
            folder / "models", WEB_CONCURRENCY=str(WORKERS), ANYPORT_THREADS=str(THREADS), SLOW_S=str(SLOW_S)
        ) as server:
            server.await_lines("answers now", 2 * WORKERS)  # two models in each
            yield server


@dataclass
class Outcome:
    """What came of one overload."""

    seconds: float
    capacity: float
    calm: Load
    overload: Load
    recovery_s: float
    normal_ms: float

    @property
    def share(self) -> float:
        """Which part of the capacity was answered under the overload."""
        return self.overload.right_meanwhile / self.seconds / self.capacity

    @property
    def faults(self) -> Counter[str]:
        """Everything that is neither a right answer nor a refusal, and refusals where there was no overload."""
        return self.calm.faults + self.overload.faults + Counter({"refused while calm": self.calm.refused})

    @property
    def held(self) -> bool:
        """Whether the service held."""
        quick = percentile(self.overload.refusal_ms, 0.99) < REFUSAL_LIMIT_MS
        return quick and self.share >= ENOUGH_SHARE and self.recovery_s < RECOVERED_S and not +self.faults


def percentile(numbers: list[float], share: float) -> float:
    """The number that this share of the numbers does not exceed."""
    return sorted(numbers)[min(len(numbers) - 1, int(share * len(numbers)))] if numbers else float("nan")


def overload(seconds: float) -> Outcome:
    """Overload a service for so long."""
    with slow_service() as server:
        normal_ms = 2 * max(plain_ms(server) for _ in range(QUIET_ASKED))
        capacity, calm = saturate(server.port, max(2.0, seconds / 10))
        load = offer(server.port, FACTOR * capacity, seconds)
        return Outcome(seconds, capacity, calm, load, load.emptied_s + recover(server, normal_ms), normal_ms)


def report(outcome: Outcome) -> str:
    """Say what came of it."""
    load = outcome.overload
    offered = load.right + load.refused + sum(load.faults.values())
    median_ms = statistics.median(load.refusal_ms) if load.refusal_ms else float("nan")
    return "\n".join(
        [
            f"capacity {outcome.capacity:.1f}/s of at most {SLOTS / SLOW_S:.0f}/s; offered {offered} in "
            f"{outcome.seconds:.0f} s, the client at most {load.latest_ms:.0f} ms late",
            f"goodput {load.right_meanwhile / outcome.seconds:.1f}/s, {100 * outcome.share:.1f} % of the capacity; "
            f"an answer took {percentile(load.answer_ms, 0.5):.0f} ms, at most {max(load.answer_ms):.0f} ms",
            f"{load.refused} refusals: median {median_ms:.1f} ms, p99 {percentile(load.refusal_ms, 0.99):.1f} ms, "
            f"maximum {max(load.refusal_ms, default=0):.1f} ms",
            f"faults {dict(+outcome.faults)}; normal again (under {outcome.normal_ms:.0f} ms) after "
            f"{outcome.recovery_s:.2f} s",
        ]
    )


def main(seconds: float) -> bool:
    """Overload a service, print what came of it, and say whether it held."""
    outcome = overload(seconds)
    print(report(outcome))
    return outcome.held


if __name__ == "__main__":
    sys.exit(not main(float(sys.argv[1]) if sys.argv[1:] else 60))
