"""What gunicorn's master and its workers tell each other, in memory that they share."""

from __future__ import annotations

import fcntl
import logging
import math
import mmap
import os
import shutil
import tempfile
from pathlib import Path

SLOTS = 256
"""More workers than this, old and new, would write over each other's numbers."""

PREFIX = "anyport-"

log = logging.getLogger(__name__)


def _remove_orphans() -> None:
    """Remove the spare copies of services that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid = folder.name.split("-")[1]
        if pid.isdecimal() and folder.stat().st_uid == os.getuid() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


class Board:
    """Made in the master before it forks. A worker is known by its age, which gunicorn counts up."""

    def __init__(self) -> None:
        shared = mmap.mmap(-1, 4 * (1 + 2 * SLOTS))
        numbers = memoryview(shared).cast("I")
        self._stop = numbers[:1]
        self._connections = numbers[1 : 1 + SLOTS]
        """Each worker's connections plus one; 0 where there is no worker."""
        self._answering = numbers[1 + SLOTS :]
        """How many models each worker has loaded."""
        self._retiring = os.memfd_create("retiring")  # needs no file system that can be written
        self.worker_mib = math.inf
        """Memory that one worker may fill before it is replaced."""
        self.body_bytes = 2**62
        """Memory that the requests of one worker may take at once."""
        self.spare: Path | None = None
        """Where copies of what has answered are kept while the service runs."""

    def prepare(self, worker_mib: float, bodies_mib: float) -> None:
        """Set up, in the master before it forks, what the workers need to know."""
        self.worker_mib = worker_mib
        self.body_bytes = int(bodies_mib * 2**20)
        try:
            _remove_orphans()
            self.spare = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        except OSError as error:
            log.warning("no copies of the models are kept for bad days: %s", error.strerror)

    def clear(self) -> None:
        """Remove, in the master at its end, what it has set up."""
        if self.spare is not None:
            shutil.rmtree(self.spare, ignore_errors=True)

    @property
    def stopping(self) -> bool:
        """Whether the whole service ends, so that nobody will accept after its workers."""
        return bool(self._stop[0])

    def announce_stop(self) -> None:
        """Tell every worker, from the master, that the whole service ends."""
        self._stop[0] = 1

    def note(self, age: int, connections: int, answering: int) -> None:
        """Say how many connections a worker has, and how many models it answers with."""
        self._answering[age % SLOTS] = answering
        self._connections[age % SLOTS] = 1 + connections

    def forget(self, age: int) -> None:
        """Take a worker that ends or has ended off the board."""
        self._connections[age % SLOTS] = 0

    def may_accept(self, answering: int) -> bool:
        """Whether no other worker has more models loaded than this one."""
        return all(other <= answering for other, _ in self._workers())

    def over_share(self, connections: int, answering: int) -> bool:
        """Whether a worker has an eighth more connections than the mean of those that answer with as many models."""
        peers = [held for other, held in self._workers() if other >= answering]
        return 8 * connections * len(peers) > 9 * sum(peers)

    def may_retire(self, answering: int, workers: int) -> bool:
        """Whether every worker answers and none is being replaced; if so it is this process's turn, until it ends."""
        if sum(other >= answering for other, _ in self._workers()) < workers:
            return False
        try:
            fcntl.lockf(self._retiring, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _workers(self) -> list[tuple[int, int]]:
        pairs = zip(self._answering, self._connections, strict=True)
        return [(answering, held - 1) for answering, held in pairs if held]
