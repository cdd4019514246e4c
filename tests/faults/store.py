"""A witness of the models folder's bad days: clients that check every answer while the folder is lost, cut and mended.

    python -m tests.faults.store        # every fault, about a minute; or name some: gone, cut, flip, arrive, crash

It prints what it counted, and how long `/readyz` took to tell the truth about the damage and about its mending. The
promises: no wrong answer, no 5xx, nothing lost but what was in flight in a worker that was killed, no worker that has
loaded and is not ready, and the master lives. Exit status 1 if one of them is broken.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service.board import PREFIX
from service.store import ACTIVE, Store
from tests.conftest import ROOT
from tests.faults.witness import CLIENTS, Activation, has_loaded, pack_shouting, watch, workers_of
from tests.misfits import add_misfit
from tests.server import Server, running

TOLD_S = 1.0
"""How long `/readyz` may go on saying what is no longer true."""
ARRIVAL_S = 30.0
RETRY_S = 1.25
"""The longest wait before the first retry, which a mending that leaves no mark takes."""


@dataclass
class Told:
    """What `/readyz` said to one probe."""

    at: float
    status: int
    troubled: bool = False
    """Whether anything was stale or refused."""
    code: str = ""


class Prober(threading.Thread):
    """Asks `/readyz` many times a second, each time on a new connection, so that every worker is asked."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.ended = threading.Event()
        self.told: list[Told] = []

    def run(self) -> None:
        """Ask until the prober is told to end."""
        while not self.ended.wait(0.02):
            self.told.append(self.ask())

    def ask(self) -> Told:
        """Ask once."""
        began = time.monotonic()
        try:
            status, _, body = self.server.request("GET", "/readyz")
        except OSError:
            return Told(began, 0)
        document = json.loads(body)
        troubled = bool(document.get("stale") or document.get("refused"))
        code = document.get("type", "").removeprefix("/problems/")
        return Told(began, status, troubled, "loading" if b"being loaded" in body else code)


@dataclass
class Day:
    """One bad day: the service, its models, and when which damage was done and mended."""

    server: Server
    models: Path
    active: Activation
    hold_s: float
    """How long a state is kept, so that every worker is seen in it."""
    killed: int = 0
    damages: list[tuple[float, float]] = field(default_factory=list)

    @contextmanager
    def damage(self, damage: Callable[[], object], mend: Callable[[], object], *, timed: bool = True) -> Iterator[None]:
        """Do damage, and mend it at the end of the block; it is timed where nothing must be tried to see it."""
        damage()
        began = time.monotonic()
        time.sleep(self.hold_s)
        yield
        mend()
        if timed:
            self.damages.append((began, time.monotonic()))
        time.sleep(self.hold_s + RETRY_S)

    def kill(self) -> None:
        """SIGKILL of the oldest worker, and time for another one to take its place."""
        for oldest in sorted(workers_of(self.server))[:1]:  # where a promise is broken there is none
            self.killed += 1
            os.kill(oldest, signal.SIGKILL)
        time.sleep(self.hold_s)

    def hang_up(self) -> None:
        """SIGHUP of the master: every worker is replaced."""
        self.server.process.send_signal(signal.SIGHUP)
        time.sleep(self.hold_s)

    def wait_for(self, version: str) -> None:
        """Wait until every worker has loaded a version: each one asked says so, many times in a row."""
        deadline, said = time.monotonic() + ARRIVAL_S, 0
        while said < 20:
            said = said + 1 if has_loaded(self.server, version) else 0
            assert time.monotonic() < deadline, f"version {version} has not arrived"
            time.sleep(0.02)

    @property
    def package(self) -> Path:
        """The package that answers."""
        return self.models / "penguins" / "1"

    @property
    def aside(self) -> Path:
        """Where something is put aside, on the same file system."""
        return self.models.parent / "aside"


@dataclass
class Report:
    """What became of one fault."""

    fault: str
    counted: Counter[str]
    probes: Counter[str]
    stale_s: list[float]
    fresh_s: list[float]
    killed: int
    master_lives: bool

    def broken(self) -> list[str]:
        """Which promises were broken."""
        lost = sum(count for kind, count in self.counted.items() if kind.startswith("lost"))
        found = {
            "the master ended": not self.master_lives,
            "no right answer": not self.counted["right"],
            "wrong answers": self.counted["wrong"],
            "late answers": self.counted["late"],
            "answers of 4xx or 5xx": any(kind.startswith("status") for kind in self.counted),
            "lost without a kill": lost > CLIENTS * self.killed,
            "refused connections": self.counted["refused"],
            "a worker that was not ready": self.probes["not-ready"],
            "damage was not told": any(seconds > TOLD_S for seconds in self.stale_s),
            "mending was not told": any(seconds > TOLD_S + RETRY_S for seconds in self.fresh_s),
        }
        return [promise for promise, is_broken in found.items() if is_broken]

    def __str__(self) -> str:
        stale = ", ".join(f"{seconds:.2f}" for seconds in self.stale_s)
        fresh = ", ".join(f"{seconds:.2f}" for seconds in self.fresh_s)
        return (
            f"{self.fault}: {dict(self.counted)}; probes {dict(self.probes)}; killed {self.killed}; "
            f"told after s: damage {stale}, mending {fresh}; "
            f"master {'lives' if self.master_lives else 'ended'}; broken: {', '.join(self.broken()) or 'nothing'}"
        )


def gone(day: Day) -> None:
    """The folder is renamed away, then closed to everybody, while workers are recycled, killed and replaced."""

    def close() -> None:
        day.models.chmod(0)
        day.models.rename(day.aside)  # root reads what is closed

    def open_again() -> None:
        day.aside.rename(day.models)
        day.models.chmod(0o755)

    with day.damage(lambda: day.models.rename(day.aside), lambda: day.aside.rename(day.models)):
        day.kill()
    with day.damage(close, open_again):
        day.kill()
        day.hang_up()


def cut(day: Day) -> None:
    """The model file is truncated, then a worker is killed."""
    shutil.copytree(day.package, day.aside)
    model = day.package / "model.joblib"
    with day.damage(lambda: os.truncate(model, 100), lambda: shutil.copy2(day.aside / model.name, model)):
        day.kill()


def flip(day: Day) -> None:
    """One bit of the model file is flipped, then every worker is replaced."""

    def flip_bit() -> None:
        with (day.package / "model.joblib").open("r+b") as file:
            file.seek(1000)
            byte = file.read(1)[0]
            file.seek(1000)
            file.write(bytes([byte ^ 1]))

    with day.damage(flip_bit, flip_bit):
        day.hang_up()


def arrive(day: Day) -> None:
    """The manifest is truncated while a new version arrives, which is then activated."""
    shutil.copytree(day.package, day.aside)
    manifest = day.package / "manifest.json"

    def damage() -> None:
        (day.models.parent / "workshop" / "penguins" / "2").rename(day.models / "penguins" / "2")
        os.truncate(manifest, 100)

    with day.damage(damage, lambda: shutil.copy2(day.aside / manifest.name, manifest)):
        day.wait_for("2")
        Store(day.models).activate("penguins", "2", default=False)
        day.active.version, day.active.since = "2", time.monotonic()
        day.kill()


def crash(day: Day) -> None:
    """A version arrives that ends the process that loads it, then workers are recycled and killed."""
    arrived = day.models / "penguins" / "13"
    code = "import ctypes; ctypes.string_at(0)"
    with day.damage(lambda: add_misfit(day.models, code, "13"), lambda: shutil.rmtree(arrived), timed=False):
        time.sleep(2 * day.hold_s)
        day.kill()
        day.kill()


FAULTS = {"gone": gone, "cut": cut, "flip": flip, "arrive": arrive, "crash": crash}
RECYCLED = {"gone", "crash"}
"""Faults under which workers are recycled all the time."""


def witness(fault: str, hold_s: float = 2.0) -> Report:
    """Run one fault on a copy of the demo model."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(shutil.copytree(ROOT / "models", Path(folder) / "models"))
        Store(models).activate("penguins", "1", default=True)
        if fault == "arrive":
            pack_shouting(Path(shutil.copytree(models, Path(folder) / "workshop")))
        variables = {"GUNICORN_CMD_ARGS": "--max-requests 100"} if fault in RECYCLED else {}
        with running(models, WEB_CONCURRENCY="2", **variables) as server:
            await_copies(server)
            day, prober = Day(server, models, Activation(), hold_s), Prober(server)
            prober.start()
            counted = watch(server.port, lambda: FAULTS[fault](day), day.active)
            prober.ended.set()
            prober.join()
            lives = server.process.poll() is None and server.stop() == 0
        return report(fault, day, prober.told, counted, lives)


def await_copies(server: Server) -> None:
    """Wait until both workers have loaded the demo model, and its copy for bad days is kept."""
    server.await_lines("answers now", 2)
    kept = f"{PREFIX}{server.process.pid}-*/penguins/{ACTIVE}"
    deadline = time.monotonic() + ARRIVAL_S
    while not any(Path(tempfile.gettempdir()).glob(kept)):
        assert time.monotonic() < deadline, "no copies are kept"
        time.sleep(0.02)


def report(fault: str, day: Day, told: list[Told], counted: Counter[str], lives: bool) -> Report:
    """Say how long after each damage, and each mending, the last probe was told what was no longer true."""
    stale_s, fresh_s = [], []
    for turn, (began, ended) in enumerate(day.damages):
        following = [began for began, _ in day.damages[turn + 1 :]]
        until = min(following, default=float("inf"))
        ready = [one for one in told if one.status == 200]
        stale_s.append(max((one.at - began for one in ready if began < one.at < ended and not one.troubled), default=0))
        fresh_s.append(max((one.at - ended for one in ready if ended < one.at < until and one.troubled), default=0))
    probes = Counter(one.code or str(one.status or "lost") for one in told)
    return Report(fault, counted, probes, stale_s, fresh_s, day.killed, lives)


if __name__ == "__main__":
    reports = []
    for chosen in sys.argv[1:] or FAULTS:
        reports.append(witness(chosen))
        print(reports[-1], flush=True)
    sys.exit(any(one.broken() for one in reports))
