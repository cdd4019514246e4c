"""A witness: clients that check every answer while the service is restarted, reloaded, recycled and killed.

    python -m tests.faults.witness restart 20    # an end and a new start; also: reload, recycle, kill, activate
    python -m tests.faults.witness restart 20 threads    # the model's original, which threads answer

It prints what it counted. A request is lost if its connection ended without an answer after it was sent; a connection
that was refused carried no request. Only requests in flight in a worker that was killed may be lost.
"""

from __future__ import annotations

import http.client
import json
import os
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np

from service.packing import Choices, pack
from service.runtimes import Policy
from service.store import Store
from tests.conftest import PENGUIN, ROOT
from tests.originals import keep_originals
from tests.server import Server, running

CLIENTS = 16
ROWS = [
    (PENGUIN, "Adelie"),
    (PENGUIN | {"flipper_length_mm": 230.0, "bill_depth_mm": 13.0, "island": "Biscoe"}, "Gentoo"),
]
RIGHT: dict[str, Callable[[str], list[str]]] = {"1": lambda species: [species], "2": lambda species: [species.upper()]}
EFFECT_S = 1.0
"""How long an activation may take until every worker has taken it up."""


@dataclass
class Activation:
    """The version that should answer, and since when."""

    version: str = "1"
    since: float = 0.0


class Client(threading.Thread):
    """One client: even ones keep their connection, odd ones make a new one for every request."""

    def __init__(self, number: int, port: int, ended: threading.Event, active: Activation) -> None:
        super().__init__(daemon=True)
        self.number, self.port, self.ended, self.active = number, port, ended, active
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
        active = replace(self.active)
        settled = time.monotonic() > active.since + EFFECT_S
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
        version = document["version"]
        right = RIGHT[version](species), f"penguins/{version}"
        if (document["predictions"], answer.getheader("Anyport-Model")) != right:
            return "wrong"
        return "late" if settled and active == self.active and version != active.version else "right"

    def close(self) -> None:
        """Give the connection up."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def watch(port: int, disturb: Callable[[], None], active: Activation | None = None) -> Counter[str]:
    """Run the clients while something disturbs the service, and return what they counted."""
    ended = threading.Event()
    clients = [Client(number, port, ended, active or Activation()) for number in range(CLIENTS)]
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


def end_by_master(server: Server) -> None:
    """SIGTERM to the master, as gunicorn's manual has it."""
    server.stop()


def end_by_group(server: Server) -> None:
    """SIGTERM to every process at once, as Heroku does."""
    server.stop(group=True)


def end_by_workers(server: Server) -> None:
    """The same, where the workers hear it well before the master."""
    for worker in workers_of(server):
        os.kill(worker, signal.SIGTERM)
    time.sleep(0.3)
    server.stop()


def end_by_kill(server: Server) -> None:
    """SIGKILL of the master, after which the workers end on their own."""
    workers = workers_of(server)
    server.stop(signal.SIGKILL)
    while any(Path("/proc", str(worker)).exists() for worker in workers):
        time.sleep(0.05)


ENDINGS = (end_by_master, end_by_group, end_by_workers, end_by_kill)


def restart(times: int, models: Path) -> Counter[str]:
    """The service's end, in every way in turn, and a new start on the same port."""
    with running(models, WEB_CONCURRENCY="2") as first:
        port = first.port

        def disturb() -> None:
            ENDINGS[0](first)
            for turn in range(1, times):
                with running(models, port=port, WEB_CONCURRENCY="2") as server:
                    time.sleep(0.3)
                    ENDINGS[turn % len(ENDINGS)](server)

        return watch(port, disturb)


def reload(times: int, models: Path) -> Counter[str]:
    """SIGHUP: new workers take over from the old ones."""
    with running(models, WEB_CONCURRENCY="2") as server:

        def disturb() -> None:
            server.await_lines("answers now", 2)
            for turn in range(times):
                server.process.send_signal(signal.SIGHUP)
                server.await_lines("answers now", 2 * (turn + 2))

        return watch(server.port, disturb)


def recycle(times: int, models: Path) -> Counter[str]:
    """Workers that are replaced after some requests."""
    with running(models, WEB_CONCURRENCY="2", GUNICORN_CMD_ARGS="--max-requests 100") as server:

        def disturb() -> None:
            for turn in range(times):
                server.await_lines("is replaced", turn + 1)

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


def activate(times: int, models: Path) -> Counter[str]:
    """`flask activate` and rollback: a version that arrives while the service runs, then to and fro.

    Every tenth time it waits long enough to see that every worker has taken it up; an answer of the other version to a
    request that was sent more than `EFFECT_S` after that is late.
    """
    store, active = Store(models), Activation()
    store.activate("penguins", "1", default=False)
    with running(models, WEB_CONCURRENCY="2") as server:

        def disturb() -> None:
            pack_shouting(models)
            while not all(has_loaded(server, "2") for _ in range(20)):
                time.sleep(0.1)
            for turn in range(times):
                version = "21"[turn % 2]
                store.activate("penguins", version, default=False)
                active.version, active.since = version, time.monotonic()
                time.sleep(2 * EFFECT_S if turn % (times // 10 or 1) == 0 else 0.02)

        return watch(server.port, disturb, active)


def has_loaded(server: Server, version: str) -> bool:
    """Whether the worker that happens to answer has loaded a version."""
    models = json.loads(server.request("GET", "/v1/models")[2])["models"]
    return bool(models[0]["versions"].get(version) == "ready")


def pack_shouting(models: Path) -> None:
    """Pack version 2 of penguins, which answers in capitals."""
    demo = ROOT / "examples" / "penguins"
    model = runpy.run_path(str(demo / "train.py"))["train"]()
    model[-1].classes_ = np.char.upper(model[-1].classes_.astype(str)).astype(object)
    joblib.dump(model, models.parent / "penguins.joblib")
    choices = Choices(drop=("year", "species"))
    pack(models.parent / "penguins.joblib", demo / "penguins.csv", Store(models), Policy(), choices)


FAULTS = {"restart": restart, "reload": reload, "recycle": recycle, "kill": kill, "activate": activate}


def witness(fault: str, times: int, *, threads: bool = False) -> Counter[str]:
    """Run one fault on a copy of the demo model, or on its original, which threads answer."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(shutil.copytree(ROOT / "models", Path(folder) / "models"))
        return FAULTS[fault](times, keep_originals(models) if threads else models)


if __name__ == "__main__":
    print(dict(witness(sys.argv[1], int(sys.argv[2]), threads="threads" in sys.argv[3:])))
