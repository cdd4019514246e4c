"""Keeps what is served in step with the store, and never lets go of a model that answers for one that does not.

The store is looked at several times a second. What has changed is opened beside what answers and takes its place in one
step, so that every request is answered by one version. A package that arrives while the service runs is first tried in
a process of its own. What cannot be opened is tried again, later each time; meanwhile the last good one goes on.
"""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread

from service.arrivals import Arrivals, Terms, adopt
from service.catalogue import Catalogue
from service.errors import NotReady
from service.kernel import settle_objects
from service.predictor import Predictor
from service.store import Mark, Store
from service.survey import EMPTY, Survey

__all__ = ["Keeper", "Terms"]

LOOK_S = 0.4
"""How often the store is looked at; a change takes effect in less than a second."""
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
MOST_DOUBLINGS = 30
LOADING = ".loading-"
NOWHERE = Store(Path("/dev/null"))

log = logging.getLogger(__name__)


class Keeper:
    """The catalogue of this process, and how it follows the store.

    Without `follow`, as under a server that has no threads, the store is looked at by the requests themselves.
    """

    def __init__(self, store: Store, terms: Terms, patience_s: float | None = None, *, fetched: bool = False) -> None:
        self._store, self._terms = store, terms
        self._patience_s = patience_s
        self._fetched = fetched
        """Whether a process of its own brings packages into the store."""
        self.awaited: str | None = None
        """Why the store's first packages have not been fetched yet."""
        self._spare: Store | None = None
        self._catalogue: Catalogue | None = None
        self._marks: dict[str, Mark] = {}
        self._look_at = 0.0
        self._retry_at = math.inf
        self._failures = 0
        self._arrivals = Arrivals(terms)
        self._out_of_order = False
        self._note: Path | None = None
        self._turn = Lock()
        self._followed = False
        self._loaded = Event()

    def catalogue(self) -> Catalogue:
        """Return what is served now; where nothing is yet, wait for it.

        Raises:
            NotReady: If the models are still being loaded after `patience_s`.
        """
        if self._followed:
            if self.awaited is not None:
                raise NotReady(self.awaited)
            if not self._loaded.wait(self._patience_s):
                raise NotReady("the models are still being loaded; send it again")
        elif time.monotonic() >= self._look_at:
            self.refresh(wait=self._catalogue is None)
        assert self._catalogue is not None
        return self._catalogue

    def peek(self) -> Catalogue | None:
        """Return what is served now, None while the models are first loaded in the background."""
        return self._catalogue if self._followed else self.catalogue()

    def follow(self, spare: Store | None, changed: Callable[[], None]) -> None:
        """From now on follow the store in the background, and say each time that another catalogue is served.

        Args:
            spare: Where copies of what has answered are kept, for workers that start while the store is out of order.
            changed: Called in the background.
        """
        self._spare = spare
        self._followed = self._arrivals.in_background = True
        self.awaited = self._store.awaited() if self._fetched else None
        Thread(target=self._follow, args=(changed,), name="keeper", daemon=True).start()

    def _follow(self, changed: Callable[[], None]) -> None:
        self._await_packages()
        self._note_loading()
        while True:
            before = self._catalogue
            self.refresh()
            if _predictors(self._catalogue) - _predictors(before):
                settle_objects()
            self._loaded.set()
            self.forget_loading()
            if self._catalogue is not before:
                changed()
                self._keep_spare()
            time.sleep(LOOK_S)

    def _await_packages(self) -> None:
        """Wait until the active version of every model is there: to answer with some would be to answer wrongly."""
        while self.awaited is not None:
            time.sleep(LOOK_S)
            self.awaited = self._store.awaited()

    def _note_loading(self) -> None:
        """Leave a note for as long as this process loads its first models; one of a dead process is a warning."""
        if self._spare is None:
            return
        try:
            self._arrivals.wary = bool(_notes_of_dead(self._spare))
            self._note = self._spare.folder / f"{LOADING}{os.getpid()}"
            self._note.touch()
        except OSError as error:
            log.warning("whoever dies while loading a model will not be noticed: %s", error.strerror)
        if self._arrivals.wary:
            log.error("a worker has died while it loaded the models; each is tried in a process of its own first")

    def forget_loading(self) -> None:
        """Take the note away: the models are loaded, or the process ends as it should before they are."""
        note, self._note = self._note, None
        if note is not None:
            with suppress(OSError):  # then the next worker is wary without need
                note.unlink(missing_ok=True)

    def _keep_spare(self) -> None:
        if self._spare is None or self._catalogue is None:
            return
        try:
            keep_spare(self._spare, self._store, self._catalogue)
            if self._spare.versions():  # from now on whatever is not kept there is tried first, with or without a note
                for note in _notes_of_dead(self._spare):
                    note.unlink(missing_ok=True)
        except Exception:  # a full disk must not end the thread
            log.exception("the spare copies could not be kept")

    def refresh(self, *, wait: bool = True) -> None:
        """Look at the store, and serve what it holds now where that can be opened. Never raises.

        Calls join: while one is at work another returns at once, or waits for it where wanted.
        """
        if not self._turn.acquire(blocking=wait):
            return
        try:
            if not self._out_of_order or time.monotonic() >= self._retry_at:
                self._look(self._store)
                self._out_of_order = False
        except Exception:  # whatever the store does, what answers goes on answering: as if the folder were not there
            log.exception("the models folder could not be followed")
            self._look_nowhere()
        finally:
            self._look_at = time.monotonic() + LOOK_S
            self._turn.release()

    def _look_nowhere(self) -> None:
        failures, self._out_of_order = self._failures, True
        try:
            self._look(NOWHERE)
        except Exception:  # the spare copies are out of order as well
            log.exception("the spare copies could not be followed either")
            self._catalogue = self._catalogue or EMPTY
        self._failures = failures
        self._plan_retry(troubled=True)

    def _look(self, store: Store) -> None:
        marks = store.marks()
        due = time.monotonic() >= self._retry_at or self._arrivals.has_news()
        changed = {path for path in marks.keys() | self._marks.keys() if marks.get(path) != self._marks.get(path)}
        if self._catalogue is not None and not changed and not due:
            return
        before = self._catalogue
        self._catalogue = Survey(store, self._spare, self._terms, before, self._arrivals).run(changed, again=due)
        if changed and not self._out_of_order:
            self._failures = 0
        self._marks = marks
        _tell(before or EMPTY, self._catalogue)
        self._plan_retry(troubled=bool(self._catalogue.stale or self._catalogue.refusals()))

    def _plan_retry(self, *, troubled: bool) -> None:
        self._failures = self._failures + 1 if troubled else 0
        growth = 2 ** min(self._failures - 1, MOST_DOUBLINGS)
        delay = min(FIRST_RETRY_S * growth, LONGEST_RETRY_S) * random.uniform(0.75, 1.25)
        self._retry_at = time.monotonic() + delay if troubled else math.inf


def _predictors(catalogue: Catalogue | None) -> set[int]:
    """Which models a catalogue has loaded."""
    entries = [entry for versions in (catalogue or EMPTY).entries.values() for entry in versions.values()]
    return {id(entry) for entry in entries if isinstance(entry, Predictor)}


def _tell(before: Catalogue, now: Catalogue) -> None:
    for name, version in now.active.items():
        if now.held(name, version) and not (before.active.get(name) == version and before.held(name, version)):
            log.info("%s/%s answers now", name, version)
    for label, error in now.stale.items():
        if label not in before.stale:
            log.error("%s goes on answering as it was: %s", label, error.detail)


def _notes_of_dead(spare: Store) -> list[Path]:
    notes = spare.folder.glob(f"{LOADING}*")
    return [note for note in notes if not Path("/proc", note.name.removeprefix(LOADING)).exists()]


def keep_spare(spare: Store, store: Store, catalogue: Catalogue) -> None:
    """Keep copies of what answers, and of nothing else."""
    with spare.alone():
        for name, versions in catalogue.entries.items():
            for version, entry in versions.items():
                if isinstance(entry, Predictor) and f"{name}/{version}" not in catalogue.stale:
                    if not spare.holds(entry.manifest):
                        adopt(spare, store, entry.manifest)
        for name, copies in spare.versions().items():
            for version in copies:
                if version not in catalogue.entries.get(name, {}):
                    spare.remove(name, version)
        for name, version in catalogue.active.items():
            if version in spare.versions().get(name, []) and not {name, f"{name}/{version}"} & catalogue.stale.keys():
                spare.activate(name, version, default=catalogue.default == name)
