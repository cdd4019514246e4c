"""Opens a package in a process of its own: one that crashes, hangs or swallows memory there harms nobody.

Run as `python -m service.trial TERMS` with the terms as JSON; it prints one JSON object.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from service.capacity import resident_mib
from service.errors import PackageError, ServiceError, UnreadableModel, every_error, shorten
from service.manifest import Cost
from service.predictor import Predictor
from service.runtimes import RUNTIMES, Policy
from service.store import Store
from service.table import PredictRequest, table_from_rows

ROOT = Path(__file__).resolve().parent.parent
BATCHES = (1, 8, 64)
BUDGET_S = 0.3
"""Time for the measurement of one batch size."""
PR_SET_PDEATHSIG = 1
"""Source: man 2 prctl, read 2026-11-22."""


@dataclass(frozen=True)
class Limits:
    """What a trial may take: seconds, and MiB of private memory where that is limited."""

    timeout_s: int = 600
    memory_mib: int | None = None


def try_out(store: Store, name: str, version: str, policy: Policy, limits: Limits, *, timings: bool = False) -> Cost:
    """Open a package in a child process, replay its golden rows, and return what it cost there.

    Raises:
        PackageError: If it cannot be opened there, does not answer its golden rows, or goes beyond the limits.
    """
    terms = {
        "store": str(store.folder.resolve()),
        "package": [name, version],
        "policy": asdict(policy) | {"skops_types": sorted(policy.skops_types)},
        "limits": asdict(limits),
        "timings": timings,
    }
    command = [sys.executable, "-m", "service.trial", json.dumps(terms)]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = child.stdout.splitlines()
    if child.returncode != 0 or not lines:
        raise UnreadableModel(f"{name}/{version}: a process of its own could not open it: {_ending(child, limits)}")
    report = json.loads(lines[-1])
    if "error" in report:
        raise _error(**report["error"])
    return Cost.model_validate(report)


def _ending(child: subprocess.CompletedProcess[str], limits: Limits) -> str:
    if child.returncode == -signal.SIGALRM:
        return f"it took more than {limits.timeout_s} s"
    if child.returncode < 0:
        return f"it was ended by {signal.Signals(-child.returncode).name}"
    return shorten((child.stderr.splitlines() or ["it said nothing"])[-1], 300)


def _error(code: str, detail: str) -> PackageError:
    kinds = [error for error in every_error() if error.code == code and issubclass(error, PackageError)]
    return (kinds or [PackageError])[0](detail)


def _restrain(limits: Limits) -> None:
    """End with the process that asked, at the time limit, and before anybody else where memory runs out."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.alarm(limits.timeout_s)
    with suppress(OSError):  # a sandbox without this file; the limit below still holds
        Path("/proc/self/oom_score_adj").write_text("1000")
    if limits.memory_mib is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = limits.memory_mib * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def _report(store: Store, name: str, version: str, policy: Policy, *, timings: bool) -> Cost:
    manifest = store.manifest(name, version)
    for module in RUNTIMES[manifest.artifacts[0].runtime].IMPORTS:
        importlib.import_module(module)
    before = resident_mib()
    predictor = Predictor(manifest, store.open(manifest, policy))
    predictor.replay()
    after = resident_mib()
    return Cost(
        microseconds={str(rows): _microseconds(predictor, rows) for rows in BATCHES} if timings else {},
        model_mib=round(max(after - before, 0.0), 1),
        process_mib=round(after, 1),
    )


def _microseconds(predictor: Predictor, n_rows: int) -> float:
    rows = [list(row) for row in predictor.manifest.golden.rows]
    request = PredictRequest(table_from_rows(predictor.manifest.signature, (rows * n_rows)[:n_rows]))
    times: list[float] = []
    while sum(times) < BUDGET_S and len(times) < 100:
        began = time.perf_counter()
        predictor.predict(request)
        times.append(time.perf_counter() - began)
    return round(median(times) * 1e6, 1)


def main(terms: dict[str, Any]) -> None:
    """Try the package that the terms name."""
    _restrain(Limits(**terms["limits"]))
    policy = Policy(**terms["policy"] | {"skops_types": frozenset(terms["policy"]["skops_types"])})
    name, version = terms["package"]
    try:
        cost = _report(Store(Path(terms["store"])), name, version, policy, timings=terms["timings"])
    except ServiceError as error:
        print(json.dumps({"error": {"code": error.code, "detail": error.detail}}))
    except MemoryError:
        sys.exit(f"it needs more than {terms['limits']['memory_mib']} MiB")
    else:
        print(cost.model_dump_json())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
