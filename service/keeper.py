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
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Literal

from service.catalogue import Catalogue, Entry, open_package
from service.errors import NotReady, OnTrial, PackageError, ServiceError, UnknownModel
from service.manifest import Manifest
from service.predictor import Predictor
from service.runtimes import Policy
from service.store import Mark, Store
from service.trial import Limits, try_out

LOOK_S = 0.4
"""How often the store is looked at; a change takes effect in less than a second."""
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
MOST_DOUBLINGS = 30
LOADING = ".loading-"
EMPTY = Catalogue({}, {}, None)
NOWHERE = Store(Path("/dev/null"))

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Terms:
    """On what terms packages are opened: whom the operator trusts, which versions are served, what a trial may take."""

    policy: Policy = Policy()
    serve: Literal["all", "active"] = "all"
    limits: Limits = Limits(timeout_s=120)


class Keeper:
    """The catalogue of this process, and how it follows the store.

    Without `follow`, as under a server that has no threads, the store is looked at by the requests themselves.
    """

    def __init__(self, store: Store, terms: Terms, patience_s: float | None = None) -> None:
        self._store, self._terms = store, terms
        self._patience_s = patience_s
        self._spare: Store | None = None
        self._catalogue: Catalogue | None = None
        self._marks: dict[str, Mark] = {}
        self._look_at = 0.0
        self._retry_at = math.inf
        self._failures = 0
        self._trials = Trials(terms)
        self._out_of_order = False
        self._turn = Lock()
        self._followed = False
        self._loaded = Event()

    def catalogue(self) -> Catalogue:
        """Return what is served now; where nothing is yet, wait for it.

        Raises:
            NotReady: If the models are still being loaded after `patience_s`.
        """
        if self._followed:
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
        self._followed = self._trials.in_background = True
        Thread(target=self._follow, args=(changed,), name="keeper", daemon=True).start()

    def _follow(self, changed: Callable[[], None]) -> None:
        note = None if self._spare is None else self._note_loading(self._spare)
        while True:
            before = self._catalogue
            self.refresh()
            self._loaded.set()
            if note is not None:
                note.unlink(missing_ok=True)
            if self._catalogue is not before:
                changed()
                self._keep_spare()
            time.sleep(LOOK_S)

    def _note_loading(self, spare: Store) -> Path | None:
        """Leave a note for as long as this process loads its first models; one of a dead process is a warning."""
        notes = spare.folder.glob(f"{LOADING}*")
        self._trials.wary = any(not Path("/proc", note.name.removeprefix(LOADING)).exists() for note in notes)
        if self._trials.wary:
            log.error("a worker has died while it loaded the models; each is tried in a process of its own first")
        note = spare.folder / f"{LOADING}{os.getpid()}"
        try:
            note.touch()
        except OSError as error:
            log.warning("whoever dies while loading a model will not be noticed: %s", error.strerror)
            return None
        return note

    def _keep_spare(self) -> None:
        if self._spare is None or self._catalogue is None:
            return
        try:
            keep_spare(self._spare, self._store, self._catalogue)
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
            failures, self._out_of_order = self._failures, True
            self._look(NOWHERE)
            self._failures = failures
            self._plan_retry(troubled=True)
        finally:
            self._look_at = time.monotonic() + LOOK_S
            self._turn.release()

    def _look(self, store: Store) -> None:
        marks = store.marks()
        due = time.monotonic() >= self._retry_at or self._trials.has_news()
        changed = {path for path in marks.keys() | self._marks.keys() if marks.get(path) != self._marks.get(path)}
        if self._catalogue is not None and not changed and not due:
            return
        before = self._catalogue
        self._catalogue = Survey(store, self._spare, self._terms, before, self._trials).run(changed, again=due)
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


class Trials:
    """Packages that arrive are tried in processes of their own; in the background where the store is followed there."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.in_background = self.wary = False
        self._running: Thread | None = None
        self._outcomes: dict[str, tuple[Manifest, PackageError | None]] = {}
        self._news = Event()

    def has_news(self) -> bool:
        """Whether a trial has ended since it was last asked."""
        news = self._news.is_set()
        self._news.clear()
        return news

    def require(self, manifest: Manifest, store: Store, spare: Store | None) -> None:
        """Let a package pass that was tried with success, and have one tried that was not.

        Raises:
            OnTrial: If its trial has not ended.
            PackageError: If its trial has failed; the next time it is tried anew.
        """
        if spare is not None and spare.holds(manifest):
            return  # it has answered here, or another worker has tried it
        if not self.in_background:
            _prove(manifest, store, spare, self._terms)
            return
        if self._running is not None and self._running.is_alive():
            if manifest.label in self._outcomes and self._outcomes[manifest.label] == (manifest, None):
                return
            raise OnTrial(f"{manifest.label} waits for another package's trial to end")
        tried, error = self._outcomes.pop(manifest.label, (None, None))
        if tried != manifest:
            self._running = Thread(target=self._try, args=(manifest, store, spare), name="trial", daemon=True)
            self._running.start()
            raise OnTrial(f"{manifest.label} is being tried in a process of its own")
        if error is not None:
            raise error

    def _try(self, manifest: Manifest, store: Store, spare: Store | None) -> None:
        error = None
        try:
            _prove(manifest, store, spare, self._terms)
        except PackageError as raised:
            error = raised
        except Exception:  # nothing that a package does may end in silence
            log.exception("%s could not be tried", manifest.label)
            error = PackageError(f"{manifest.label} could not be tried; the log says more")
        self._outcomes[manifest.label] = (manifest, error)
        self._running = None
        self._news.set()


class Survey:
    """One look at the whole store, which makes the next catalogue of it and of the one before."""

    def __init__(
        self, store: Store, spare: Store | None, terms: Terms, before: Catalogue | None, trials: Trials
    ) -> None:
        self._store, self._spare, self._terms, self._trials = store, spare, terms, trials
        self._first = before is None
        self._arriving = not self._first or trials.wary or (spare is not None and bool(spare.versions()))
        """Whether the service runs already, so that what it has not yet served must be tried first."""
        self._before = before or EMPTY
        self._stale: dict[str, ServiceError] = {}
        self._changed: set[str] = set()
        self._again = False

    def run(self, changed: set[str], *, again: bool) -> Catalogue:
        """Make the catalogue.

        Args:
            changed: Paths inside the store that are not as they were at the last look.
            again: Whether to try once more what could not be opened.
        """
        self._changed, self._again = changed, again
        listed = self._store.versions()
        spare = self._spare.versions() if self._spare is not None else {}
        entries: dict[str, dict[str, Entry]] = {}
        active: dict[str, str] = {}
        for name in sorted({*listed, *self._before.entries, *spare}):
            found, answers = self._model(name, listed.get(name, []), spare.get(name, []))
            if found:
                entries[name], active[name] = found, answers
        return Catalogue(entries, active, *self._default(), stale=self._stale)

    def _model(self, name: str, listed: list[str], spare: list[str]) -> tuple[dict[str, Entry], str]:
        """Open the versions of one model, and choose the one that answers."""
        before = [version for version in self._before.entries.get(name, {}) if self._before.held(name, version)]
        wanted, trouble = None, None
        if listed:
            try:
                wanted = self._store.active(name)
            except PackageError as error:
                trouble = error
            except UnknownModel as error:  # it has gone since it was listed
                trouble = PackageError(error.detail)
        chosen = listed if self._terms.serve == "all" else [wanted] if wanted else []
        entries = {version: self._entry(name, version) for version in (chosen if listed else before or spare)}
        if wanted is not None and isinstance(entries.get(wanted), Predictor):
            return entries, wanted
        last = self._last_good(name, before)
        if last is not None:
            if last not in entries:
                entries[last] = self._entry(name, last)
            if trouble is not None:
                self._stale[name] = trouble
            if isinstance(entries[last], Predictor):
                return entries, last
        if trouble is not None:
            log.error("%s is not served: %s", name, trouble.detail)
            return dict.fromkeys(listed, trouble), listed[-1]
        return (entries, wanted) if wanted is not None else ({}, "")

    def _last_good(self, name: str, before: list[str]) -> str | None:
        """Return the version that answered until now, here or in a worker before this one."""
        active = self._before.active.get(name)
        spare = self._spare
        return active if active in before else _ask(lambda: spare.active(name) if spare is not None else None)

    def _entry(self, name: str, version: str) -> Entry:
        """Open one version, or keep what there is of it."""
        label = f"{name}/{version}"
        before = self._before.entries.get(name, {}).get(version)
        if before is not None and not self._is_due(name, version, before):
            if label in self._before.stale:
                self._stale[label] = self._before.stale[label]
            return before
        held = before if isinstance(before, Predictor) else None
        entry = self._open(name, version, held)
        if isinstance(entry, Predictor):
            return entry
        spare = held or self._open_spare(name, version)
        if spare is None:
            return entry
        self._stale[label] = entry
        return spare

    def _is_due(self, name: str, version: str, before: Entry) -> bool:
        label = f"{name}/{version}"
        if any(path.startswith(label + "/") for path in self._changed):
            return True
        troubled = isinstance(before, ServiceError) or label in self._before.stale
        return troubled and (self._again or f"{name}/active" in self._changed)

    def _open(self, name: str, version: str, held: Predictor | None) -> Entry:
        try:
            manifest = self._store.manifest(name, version)
            if held is not None and held.manifest == manifest:
                self._store.verify(manifest, self._terms.policy)
                return held
            if self._arriving:
                self._store.verify(manifest, self._terms.policy)
                self._trials.require(manifest, self._store, self._spare)
        except OnTrial as error:
            log.info("%s", error.detail)
            return error
        except PackageError as error:
            log.error("%s/%s as the store has it is not served: %s", name, version, error.detail)
            return error
        except Exception:  # nothing that a package does may keep the others from following the store
            log.exception("%s/%s as the store has it is not served", name, version)
            return PackageError(f"{name}/{version} could not be opened; the log says more")
        return open_package(self._store, name, version, self._terms.policy)

    def _open_spare(self, name: str, version: str) -> Predictor | None:
        if self._spare is None or version not in self._spare.versions().get(name, []):
            return None
        entry = open_package(self._spare, name, version, self._terms.policy)
        return entry if isinstance(entry, Predictor) else None

    def _default(self) -> tuple[str | None, str]:
        """Return the default model, and what to say where there is none."""
        try:
            default, trouble = self._store.default(), None
        except PackageError as error:
            default, trouble = None, error
        last = self._before.default
        if self._first and self._spare is not None:
            last = _ask(self._spare.default)
        if default is None and last is not None and (trouble is not None or last not in self._store.versions()):
            if trouble is not None:
                self._stale["default"] = trouble
            return last, ""
        if trouble is not None:
            log.error("POST /predict will not answer: %s", trouble.detail)
            return None, trouble.detail
        return default, "no model is the default"


def _prove(manifest: Manifest, store: Store, spare: Store | None, terms: Terms) -> None:
    """Try a package that arrives while the service runs in a process of its own; once, however many workers."""
    with ExitStack() as stack:
        if spare is not None:
            with suppress(OSError):  # the folder is gone or full: then each worker tries for itself
                stack.enter_context(spare.alone("-trial"))
        if spare is not None and spare.holds(manifest):
            return  # another worker has
        try_out(store, manifest.name, manifest.version, terms.policy, terms.limits)
        if spare is not None:
            with suppress(OSError), spare.alone():
                _adopt(spare, store, manifest)


def _ask(pointer: Callable[[], str | None]) -> str | None:
    """Follow a pointer of the spare store; None where it leads nowhere, for no worker has had what it should name."""
    try:
        return pointer()
    except ServiceError:
        return None


def _tell(before: Catalogue, now: Catalogue) -> None:
    for name, version in now.active.items():
        if now.held(name, version) and before.active.get(name) != version:
            log.info("%s/%s answers now", name, version)
    for label, error in now.stale.items():
        if label not in before.stale:
            log.error("%s goes on answering as it was: %s", label, error.detail)


def keep_spare(spare: Store, store: Store, catalogue: Catalogue) -> None:
    """Keep copies of what answers, and of nothing else."""
    with spare.alone():
        for name, versions in catalogue.entries.items():
            for version, entry in versions.items():
                if isinstance(entry, Predictor) and f"{name}/{version}" not in catalogue.stale:
                    if not spare.holds(entry.manifest):
                        _adopt(spare, store, entry.manifest)
        for name, copies in spare.versions().items():
            for version in copies:
                if version not in catalogue.entries.get(name, {}):
                    spare.remove(name, version)
        for name, version in catalogue.active.items():
            if version in spare.versions().get(name, []) and not {name, f"{name}/{version}"} & catalogue.stale.keys():
                spare.activate(name, version, default=catalogue.default == name)


def _adopt(spare: Store, store: Store, manifest: Manifest) -> None:
    try:
        spare.adopt(store, manifest)
    except (OSError, PackageError) as error:
        log.warning("no spare copy of %s could be made: %s", manifest.label, error)
