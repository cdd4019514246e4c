"""One look at the whole store: the next catalogue, made of what the store holds now and of what was served before."""

from __future__ import annotations

import logging
from collections.abc import Callable

from service.arrivals import Arrivals, Terms
from service.catalogue import Catalogue, Entry, open_package
from service.errors import OnTrial, PackageError, ServiceError, UnknownModel
from service.predictor import Predictor
from service.store import Store

EMPTY = Catalogue({}, {}, None)

log = logging.getLogger(__name__)


class Survey:
    """One look at the whole store, which makes the next catalogue of it and of the one before."""

    def __init__(
        self, store: Store, spare: Store | None, terms: Terms, before: Catalogue | None, arrivals: Arrivals
    ) -> None:
        self._store, self._spare, self._terms, self._arrivals = store, spare, terms, arrivals
        self._first = before is None
        self._arriving = not self._first or arrivals.wary or (spare is not None and bool(spare.versions()))
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
                self._arrivals.require(manifest, self._store, self._spare)
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


def _ask(pointer: Callable[[], str | None]) -> str | None:
    """Follow a pointer of the spare store; None where it leads nowhere, for no worker has had what it should name."""
    try:
        return pointer()
    except ServiceError:
        return None
