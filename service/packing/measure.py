"""Opens a staged package in a fresh process: proof that it can be served from its files, and what that costs.

Run as `python -m service.packing.measure STORE NAME VERSION POLICY`; it prints one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from service.errors import PackingError, ServiceError, shorten
from service.manifest import Cost
from service.runtimes import RUNTIMES, Policy

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_S = 600
BATCHES = (1, 8, 64)
BUDGET_S = 0.3
"""Time for the measurement of one batch size."""


def measure(store: Path, name: str, version: str, policy: Policy) -> Cost:
    """Open a package in a child process, replay its golden rows, and return its cost.

    Raises:
        PackingError: If the package cannot be opened there, or does not answer as the estimator did.
    """
    terms = json.dumps(asdict(policy) | {"skops_types": sorted(policy.skops_types)})
    command = [sys.executable, "-m", "service.packing.measure", str(store.resolve()), name, version, terms]
    try:
        child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise PackingError(f"the packed model did not answer its golden rows within {TIMEOUT_S} s") from error
    lines = child.stdout.splitlines()
    if child.returncode != 0 or not lines:
        last = (child.stderr.splitlines() or ["it said nothing"])[-1]
        raise PackingError(f"a fresh process could not open the packed model: {shorten(last, 300)}")
    report = json.loads(lines[-1])
    if "error" in report:
        raise PackingError(f"a fresh process could not serve the packed model: {report['error']}")
    return Cost.model_validate(report)


def resident_mib() -> float:
    """Return this process's resident memory in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise PackingError("/proc/self/status tells no VmRSS; pack on Linux")


def _report(store: Path, name: str, version: str, policy: Policy) -> dict[str, Any]:
    import importlib

    from service.predictor import Predictor
    from service.store import Store

    manifest = Store(store).manifest(name, version)
    for module in RUNTIMES[manifest.artifacts[0].runtime].IMPORTS:
        importlib.import_module(module)
    before = resident_mib()
    predictor = Predictor(manifest, Store(store).open(manifest, policy))
    predictor.replay()
    after = resident_mib()
    microseconds = {str(rows): _microseconds(predictor, rows) for rows in BATCHES}
    return {
        "microseconds": microseconds,
        "model_mib": round(max(after - before, 0.0), 1),
        "process_mib": round(after, 1),
    }


def _microseconds(predictor: Any, n_rows: int) -> float:
    from service.table import PredictRequest, table_from_rows

    rows = [list(row) for row in predictor.manifest.golden.rows]
    request = PredictRequest(table_from_rows(predictor.manifest.signature, (rows * n_rows)[:n_rows]))
    times: list[float] = []
    while sum(times) < BUDGET_S and len(times) < 100:
        began = time.perf_counter()
        predictor.predict(request)
        times.append(time.perf_counter() - began)
    return round(median(times) * 1e6, 1)


def main() -> None:
    """Measure the package named on the command line."""
    store, name, version, terms = sys.argv[1:]
    policy = json.loads(terms)
    policy["skops_types"] = frozenset(policy["skops_types"])
    try:
        report = _report(Path(store), name, version, Policy(**policy))
    except ServiceError as error:
        report = {"error": error.detail}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
