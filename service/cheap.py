"""Which predictions cost less than handing them to a thread is worth: the worker answers those in its event loop.

Knows the catalogue and the bytes of requests, no sockets and no threads.
"""

from __future__ import annotations

import logging

from service.catalogue import Catalogue
from service.manifest import Cost
from service.predictor import Predictor

ROWS, MOST_US = "64", 1000
"""A model is cheap if predicting so many rows was measured to take at most so long: a tenth of a turn of the loop."""
MOST_BYTES = 16 * 1024
"""What a request may have, and may grow to when it is decompressed, to be answered in the loop.

The worst body of so many bytes, a CSV with a fault in each row, takes 8 ms to be refused: less than a turn.
"""
ARROW = b"application/vnd.apache.arrow.stream"
"""Whoever asks for it first waits while pyarrow is imported; the loop must not."""
SLOW_S = 0.01
"""A turn of the loop. A model whose answers take longer than that is not cheap here, whatever was measured elsewhere:
the machine may be slower."""
PATIENCE_S = 0.1
"""By how much its answers may be slow in all. Quick ones make up for it: one slow answer may be the machine's fault."""

log = logging.getLogger(__name__)


class CheapModels:
    """The paths of one catalogue's cheap models, as they stand in request lines."""

    def __init__(self, catalogue: Catalogue | None) -> None:
        self.paths = set() if catalogue is None else cheap_paths(catalogue)
        self._slow_s: dict[bytes, float] = {}

    def take(self, request: bytes, grown_bytes: int) -> bool:
        """Whether a request is for one of them, and neither it nor what it may grow to is large."""
        small = max(len(request), grown_bytes) <= MOST_BYTES and ARROW not in request.lower()
        return small and request.startswith(b"POST ") and path_of(request) in self.paths

    def note(self, request: bytes, elapsed_s: float) -> None:
        """Take account of how long an answer took; a path that turns out to be slow is taken no more."""
        if elapsed_s <= SLOW_S and not self._slow_s:
            return
        path = path_of(request)
        slow_s = self._slow_s.pop(path, 0.0) + elapsed_s - SLOW_S
        if slow_s > PATIENCE_S and path in self.paths:
            self.paths.discard(path)
            log.warning("%s took %.0f ms; from now on threads answer it", path.decode(), 1000 * elapsed_s)
        elif slow_s > 0 and path in self.paths:
            self._slow_s[path] = slow_s


def path_of(request: bytes) -> bytes:
    """Return the path of a request's line, without its query."""
    return request[: request.find(b"\r")].partition(b" ")[2].partition(b" ")[0].partition(b"?")[0]


def is_cheap(cost: Cost) -> bool:
    """Whether a model was measured, and found cheap."""
    return cost.microseconds.get(ROWS, MOST_US + 1) <= MOST_US


def cheap_paths(catalogue: Catalogue) -> set[bytes]:
    """List every path at which a cheap model predicts."""
    paths: set[str] = set()
    for name, versions in catalogue.entries.items():
        for version, entry in versions.items():
            if isinstance(entry, Predictor) and entry.preferred and is_cheap(entry.manifest.cost):
                paths.add(f"/v1/models/{name}/versions/{version}:predict")
                if catalogue.active.get(name) == version:
                    paths |= {f"/v1/models/{name}:predict"} | ({"/predict"} if name == catalogue.default else set())
    return {path.encode("ascii") for path in paths}
