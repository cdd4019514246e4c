"""A witness: clients that check every answer while the service is restarted, reloaded, recycled and killed.

    python -m tests.faults.witness restart 20      # 20 times SIGTERM and a new start; also: reload, recycle, kill

It prints what it counted. A request is lost if its connection ended without an answer after it was sent; a connection
that was refused carried no request. Only requests in flight in a worker that was killed may be lost.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.conftest import PENGUIN, ROOT
from tests.server import Server, running

CLIENTS = 16
ROWS = [
    (PENGUIN, "Adelie"),
    (PENGUIN | {"flipper_length_mm": 230.0, "bill_depth_mm": 13.0, "island": "Biscoe"}, "Gentoo"),
]


class Client(threading.Thread):
    """One client: even ones keep their connection, odd ones make a new one for every request."""

    def __init__(self, number: int, port: int, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number, self.port, self.ended = number, port, ended
        self.counted: Counter[str] = Counter()
        self.connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        """Ask until the witness ends."""
        turn = self.number
        while not self.ended.is_set():
            turn += 1
            self.counted[self.ask(turn)] += 1
        self.close()

    def ask(self, turn: int) -> str:
        """Send one request and say what became of it."""
        row, species = ROWS[turn % 2]
        as_csv = turn % 3 == 0
        body = f"{','.join(row)}\n{','.join(map(str, row.values()))}\n" if as_csv else json.dumps({"instances": [row]})
        headers = {"Content-Type": "text/csv" if as_csv else "application/json"}
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                self.connection.connect()
        except OSError:
            self.close()
            time.sleep(0.01)
            return "refused"
        try:
            self.connection.request("POST", "/predict", body, headers)
            answer = self.connection.getresponse()
            document = json.loads(answer.read())
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return f"lost ({type(error).__name__})"
        if self.number % 2 or answer.getheader("Connection") == "close":
            self.close()
        if answer.status != 200:
            return f"status {answer.status}"
        return "right" if document["predictions"] == [species] and document["version"] == "1" else "wrong"

    def close(self) -> None:
        """Give the connection up."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def watch(port: int, disturb: Callable[[], None]) -> Counter[str]:
    """Run the clients while something disturbs the service, and return what they counted."""
    ended = threading.Event()
    clients = [Client(number, port, ended) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        disturb()
    finally:
        ended.set()
        for client in clients:
            client.join()
    return sum((client.counted for client in clients), Counter())


def workers_of(server: Server) -> list[int]:
    """The worker processes' ids."""
    master = server.process.pid
    return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def restart(times: int, models: Path) -> Counter[str]:
    """SIGTERM and a new start on the same port."""
    with running(models, WEB_CONCURRENCY="2") as first:
        port = first.port

        def disturb() -> None:
            first.stop()
            for _ in range(times - 1):
                with running(models, port=port, WEB_CONCURRENCY="2"):
                    time.sleep(0.3)

        return watch(port, disturb)


def reload(times: int, models: Path) -> Counter[str]:
    """SIGHUP: new workers take over from the old ones."""
    with running(models, WEB_CONCURRENCY="2") as server:

        def disturb() -> None:
            for _ in range(times):
                server.process.send_signal(signal.SIGHUP)
                time.sleep(1)

        return watch(server.port, disturb)


def recycle(times: int, models: Path) -> Counter[str]:
    """Workers that are replaced after some requests."""
    with running(models, WEB_CONCURRENCY="2", GUNICORN_CMD_ARGS="--max-requests 200") as server:

        def disturb() -> None:
            while sum("is replaced" in line["message"] for line in server.lines()) < times:
                time.sleep(0.5)

        return watch(server.port, disturb)


def kill(times: int, models: Path) -> Counter[str]:
    """SIGKILL of one worker."""
    with running(models, WEB_CONCURRENCY="2") as server:

        def disturb() -> None:
            for _ in range(times):
                time.sleep(1)
                os.kill(workers_of(server)[0], signal.SIGKILL)
            time.sleep(1)

        return watch(server.port, disturb)


FAULTS = {"restart": restart, "reload": reload, "recycle": recycle, "kill": kill}


def witness(fault: str, times: int) -> Counter[str]:
    """Run one fault on a copy of the demo model."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(shutil.copytree(ROOT / "models", Path(folder) / "models"))
        return FAULTS[fault](times, models)


if __name__ == "__main__":
    print(dict(witness(sys.argv[1], int(sys.argv[2]))))
