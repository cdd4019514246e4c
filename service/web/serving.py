"""What the routes share: what is served, and the limits of a request. It stands in `app.extensions["anyport"]`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import current_app

from service.catalogue import Catalogue
from service.keeper import Keeper
from service.signature import Signature
from service.table import most_rows


@dataclass
class Serving:
    """The models of this process, and the limits of a request."""

    keeper: Keeper
    max_body_bytes: int
    max_rows: int
    max_cells: int
    accept_gzip: bool
    client_hops: int = 0
    """Which item of X-Forwarded-For, from the right, is the client; 0 if none is to be believed."""
    deployed_model: str | None = None
    """What the platform calls the model, where it says so."""
    eas_token: str | None = field(default=None, repr=False)
    """What requests to EAS's routes must carry, where EAS does not check it itself."""
    detours: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Methods and paths that are answered as other paths are; HEAD goes with GET."""
    health_paths: Collection[str] = ()
    """Where balancers ask every few seconds, and are answered at once."""
    draining: bool = False
    """Whether this worker was told to end; set by the worker."""

    def catalogue(self) -> Catalogue:
        """Return what is served now."""
        return self.keeper.catalogue()

    def detour(self, head: Mapping[str, Any]) -> str | None:
        """Return the path as which a request is answered; None if it is its own."""
        if not self.detours:
            return None
        method = "POST" if head["REQUEST_METHOD"] == "POST" else "GET"
        return self.detours.get((method, head.get("PATH_INFO", "").rstrip("/") or "/"))

    def rows_of(self, signature: Signature) -> int:
        """Return how many rows of a model one request may have."""
        return most_rows(signature, self.max_rows, self.max_cells)


def serving() -> Serving:
    """Return what the current app serves."""
    current: Serving = current_app.extensions["anyport"]
    return current
