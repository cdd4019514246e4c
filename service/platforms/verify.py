"""Verify: ask a live service what is known of its models, and say whether it answers so."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from service.manifest import Manifest
from service.platforms.client import JSON, Address, golden_body, golden_path, mismatches
from service.platforms.report import Failed, Report, Scene

SAMPLES = 20


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
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with report.scene("alive") as said:
            said.append(_alive(address))
        with report.scene("ready") as said:
            said.append(_ready(address))
        for manifest in manifests:
            with report.scene(f"golden rows of {manifest.label}") as said:
                said.append(_golden(address, manifest, headers))
        if manifests:
            with report.scene("latency") as said:
                said.append(_latency(address, manifests[0], headers, report))
    except Failed:
        pass  # the scene that failed is in the report
    return report


def _alive(address: Address) -> str:
    try:
        answer = address.ask("GET", "/livez")
    except OSError as error:
        raise Failed(f"there is no answer: {error}") from error
    if answer.status in (301, 302, 307, 308):
        raise Failed(f"it redirects to {answer.headers.get('location')}; give that address")
    if answer.status != 200 or answer.document() != {"alive": True}:
        raise Failed(f"GET /livez is answered {answer.status}, and not by this service")
    return "GET /livez answers 200"


def _ready(address: Address) -> str:
    answer = address.ask("GET", "/readyz")
    if answer.status != 200:
        raise Failed(f"GET /readyz answers {answer.status}: {(answer.document() or {}).get('detail', '')}")
    document = answer.document() or {}
    stale = ", ".join(document.get("stale", {})) or "none"
    return f"GET /readyz answers 200; stale: {stale}"


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
