"""What the routes share: what is served, and the limits of a request. It stands in `app.extensions["anyport"]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flask import current_app

from service.catalogue import Catalogue
from service.keeper import Keeper
from service.signature import Signature


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
    eas_token: str | None = None
    """What requests to EAS's routes must carry, where EAS does not check it itself."""
    detours: Mapping[str, str] = field(default_factory=dict)
    """Paths that are answered as others are."""
    draining: bool = False
    """Whether this worker was told to end; set by the worker."""

    def catalogue(self) -> Catalogue:
        """Return what is served now."""
        return self.keeper.catalogue()

    def rows_of(self, signature: Signature) -> int:
        """Return how many rows of a model one request may have."""
        return min(self.max_rows, max(1, self.max_cells // len(signature.features)))


def serving() -> Serving:
    """Return what the current app serves."""
    current: Serving = current_app.extensions["anyport"]
    return current
