"""Packages that arrive while the service runs: each is tried in a process of its own, once, however many workers."""

from __future__ import annotations

import logging
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Literal

from service.errors import OnTrial, PackageError
from service.manifest import Manifest
from service.runtimes import Policy
from service.store import Store
from service.trial import Limits, try_out

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Terms:
    """On what terms packages are opened: whom the operator trusts, which versions are served, what a trial may take."""

    policy: Policy = Policy()
    serve: Literal["all", "active"] = "all"
    limits: Limits = Limits(timeout_s=120)


class Arrivals:
    """Packages that arrive are tried in processes of their own; in the background where the store is followed there."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.in_background = self.wary = False
        self._running: Thread | None = None
        self._outcomes: dict[str, tuple[Manifest, PackageError | None]] = {}
        self._news = Event()

    def has_news(self) -> bool:
        """Whether a trial has ended since it was last asked."""
        if not self._news.is_set():
            return False
        self._news.clear()  # news that comes now is seen by the look that follows
        return True

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
        running = self._running
        if running is not None and running.is_alive():
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
        self._running = None  # this thread lives for a moment yet, and the next trial need not wait for it
        self._news.set()


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
                adopt(spare, store, manifest)


def adopt(spare: Store, store: Store, manifest: Manifest) -> None:
    """Keep a copy of a package, where that is possible."""
    try:
        spare.adopt(store, manifest)
    except (OSError, PackageError) as error:
        log.warning("no spare copy of %s could be made: %s", manifest.label, error)
