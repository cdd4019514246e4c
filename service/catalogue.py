"""Every model that this process serves, or the reason why it does not. Requests name models from here only."""

from __future__ import annotations

import logging

from service.errors import NotReady, PackageError, ServiceError, UnknownModel, UnknownVersion, shorten
from service.predictor import Predictor, open_predictor
from service.runtimes import Policy
from service.store import Store

log = logging.getLogger(__name__)

Entry = Predictor | ServiceError


class Catalogue:
    """Predictors by name and version, as they are at one moment. It is never changed; a new one takes its place.

    A package that failed to open stands here as the error that it raised. `stale` holds, by label, what answers though
    the store no longer has it as it was, each with the error that says why.
    """

    def __init__(
        self,
        entries: dict[str, dict[str, Entry]],
        active: dict[str, str],
        default: str | None,
        no_default: str = "no model is the default",
        stale: dict[str, ServiceError] | None = None,
    ) -> None:
        self.entries = entries
        self.active = active
        self.default = default
        self.stale = stale or {}
        self._no_default = no_default

    def predictor(self, name: str | None = None, version: str | None = None) -> Predictor:
        """Return the predictor that a request names; the default model and the active version where it names none.

        Raises:
            UnknownModel, UnknownVersion: If there is no such package.
            NotReady: If there is one, but it could not be opened; or if the default is asked and there is none at all.
        """
        if name is None:
            name = self._default()
        if name not in self.entries:
            raise UnknownModel(f"no model is called {shorten(name)!r}; GET /v1/models lists them")
        chosen = self.active[name] if version is None else version
        entry = self.entries[name].get(chosen)
        if entry is None:
            raise UnknownVersion(f"{name} has no version {shorten(chosen)!r} here; GET /v1/models/{name} lists them")
        if isinstance(entry, ServiceError):
            raise NotReady(f"{name}/{chosen} is not being served ({entry.code}); GET /readyz says why")
        return entry

    def refusals(self) -> dict[str, ServiceError]:
        """Return what is not served, by label, with its reason."""
        return {
            f"{name}/{version}": entry
            for name, versions in self.entries.items()
            for version, entry in versions.items()
            if isinstance(entry, ServiceError)
        }

    def answering(self) -> int:
        """Return how many models have an active version that has replayed its golden rows in this process."""
        return sum(isinstance(self.entries[name].get(version), Predictor) for name, version in self.active.items())

    def ready(self) -> bool:
        """Whether there is a model, and every model answers."""
        return 0 < self.answering() == len(self.active)

    def held(self, name: str, version: str | None) -> Predictor | None:
        """Return a predictor, None if there is none of this name and version."""
        entry = self.entries.get(name, {}).get(version or "")
        return entry if isinstance(entry, Predictor) else None

    def _default(self) -> str:
        if self.default is not None:
            return self.default
        if not self.entries:
            raise NotReady("the models folder holds no package; make one with `flask pack`")
        names = ", ".join(self.entries)
        raise UnknownModel(
            f"{self._no_default} (there are: {names}); name one in the path as /v1/models/NAME:predict, or run "
            "`flask activate NAME --default`"
        )


def open_package(store: Store, name: str, version: str, policy: Policy) -> Entry:
    """Open one package and replay its golden rows; return the error if it cannot be served."""
    try:
        return open_predictor(store, store.manifest(name, version), policy)
    except PackageError as error:
        log.error("%s/%s is not served: %s", name, version, error.detail)
        return error
    except (Exception, SystemExit):  # nothing that a package does may end the worker
        log.exception("%s/%s is not served", name, version)
        return PackageError(f"{name}/{version} could not be opened; the log says more")
