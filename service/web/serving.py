"""What the routes share: the catalogue, loaded once, and the limits. It stands in `app.extensions["anyport"]`."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from flask import current_app

from service.catalogue import Catalogue


class Serving:
    """The models of this process, loaded at the first use, and the limits of a request."""

    def __init__(self, load: Callable[[], Catalogue], *, max_body_bytes: int, max_rows: int, accept_gzip: bool) -> None:
        self.max_body_bytes = max_body_bytes
        self.max_rows = max_rows
        self.accept_gzip = accept_gzip
        self.draining = False
        """Whether this worker was told to end; set by the worker."""
        self._load = load
        self._lock = Lock()
        self._catalogue: Catalogue | None = None

    def catalogue(self) -> Catalogue:
        """Return the catalogue; the first call loads the models, and others wait for it."""
        if self._catalogue is None:
            with self._lock:
                if self._catalogue is None:
                    self._catalogue = self._load()
        return self._catalogue


def serving() -> Serving:
    """Return what the current app serves."""
    current: Serving = current_app.extensions["anyport"]
    return current
