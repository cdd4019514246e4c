"""Verify: ask a live service what is known of its models, and say whether it answers so."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from service.errors import PlatformError
from service.manifest import Manifest
from service.platforms.client import JSON, PRINTABLE, Address, golden_body, golden_path, mismatches
from service.platforms.report import Failed, Report, Scene

SAMPLES = 20
POLL_S = 2.0


def verify(
    subject: str, address: Address, manifests: list[Manifest], key: str | None, watch: Callable[[Scene], None]
) -> Report:
    """Ask a live service for its health and for every golden row.

    Args:
        subject: What the report calls it.
        address: Where it is.
        manifests: Of the versions that should be live there.
        key: Sent as a bearer token, where it wants one.
        watch: Called with each scene as it ends.
    """
    report = Report(subject, watch=watch)
    if key is not None and not PRINTABLE.fullmatch(key):
        raise PlatformError("ANYPORT_VERIFY_KEY holds something that no header can carry; give the key alone")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with _scene(report, "alive") as said:
            said.append(_alive(address))
        with _scene(report, "ready") as said:
            said.append(_ready(address))
        for manifest in manifests:
            with _scene(report, f"golden rows of {manifest.label}") as said:
                said.append(_golden(address, manifest, headers))
        if manifests:
            with _scene(report, "latency") as said:
                said.append(_latency(address, manifests[0], headers, report))
    except Failed:
        pass  # the scene that failed is in the report
    return report


def await_ready(address: Address, seconds: float) -> None:
    """Wait at most so long until what is being deployed says that it is ready. `verify` says whether it is."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(OSError):
            if address.ask("GET", "/readyz", timeout_s=POLL_S + 8).status == 200:
                return
        time.sleep(POLL_S)


@contextmanager
def _scene(report: Report, name: str) -> Iterator[list[str]]:
    with report.scene(name) as said:
        try:
            yield said
        except OSError as error:
            raise Failed(f"there is no answer: {error}") from error


def _alive(address: Address) -> str:
    answer = address.ask("GET", "/livez")
    if answer.status in (301, 302, 307, 308):
        raise Failed(f"it redirects to {answer.headers.get('location')}; give that address")
    if answer.status != 200 or answer.document() != {"alive": True}:
        raise Failed(f"GET /livez is answered {answer.status}, and not by this service")
    return "GET /livez answers 200"


def _ready(address: Address) -> str:
    answer = address.ask("GET", "/readyz")
    if answer.status != 200:
        raise Failed(f"GET /readyz answers {answer.status}: {answer.document().get('detail', '')}")
    stale = answer.document().get("stale")
    if not isinstance(stale, dict):
        raise Failed("GET /readyz is answered 200, and not by this service")
    return f"GET /readyz answers 200; stale: {', '.join(stale) or 'none'}"


def _golden(address: Address, manifest: Manifest, headers: dict[str, str]) -> str:
    answer = address.ask("POST", golden_path(manifest), golden_body(manifest.golden), JSON | headers)
    faults = list(mismatches(manifest, answer))
    if faults:
        raise Failed(f"{len(faults)} differ, such as {faults[0]}")
    return f"{len(manifest.golden.rows)} rows are answered as when it was packed"


def _latency(address: Address, manifest: Manifest, headers: dict[str, str], report: Report) -> str:
    one = manifest.golden.model_copy(update={"rows": manifest.golden.rows[:1]})
    taken_ms = []
    for _ in range(SAMPLES):
        began = time.monotonic()
        answer = address.ask("POST", golden_path(manifest), golden_body(one), JSON | headers)
        taken_ms.append((time.monotonic() - began) * 1000)
        if answer.status != 200:
            raise Failed(f"one row is answered {answer.status}")
    report.figures = {"median_ms": statistics.median(taken_ms), "slowest_ms": max(taken_ms)}
    return (
        f"one row, each on a new connection: median {statistics.median(taken_ms):.0f} ms, slowest {max(taken_ms):.0f}"
    )
