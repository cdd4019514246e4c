"""Opens a package in a process of its own: one that crashes, hangs or swallows memory there harms nobody.

Run as `python -m service.trial TERMS` with the terms as JSON; it prints one JSON object.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from service.capacity import resident_mib
from service.errors import PackageError, ServiceError, UnreadableModel, every_error
from service.kernel import end_with_parent
from service.manifest import Cost
from service.predictor import Predictor, open_predictor
from service.runtimes import RUNTIMES, Policy
from service.store import Store
from service.table import PredictRequest, table_from_rows

ROOT = Path(__file__).resolve().parent.parent
BATCHES = (1, 8, 64)
BUDGET_S = 0.3
"""Time for the measurement of one batch size."""
SAID_BYTES = 4096
"""How much of what a package prints at its end goes to the log."""
OUT_OF_MEMORY = 40

log = logging.getLogger(__name__)


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
    try:
        status, report = _run(command, limits.timeout_s)
    except OSError as error:
        raise UnreadableModel(f"{name}/{version}: no process could be started to try it ({error.strerror})") from error
    if status != 0 or report is None:
        raise UnreadableModel(f"{name}/{version}: a process of its own could not open it: {_ending(status, limits)}")
    if "error" in report:
        raise _error(**report["error"])
    return Cost.model_validate(report)


def _run(command: list[str], timeout_s: int) -> tuple[int, dict[str, Any] | None]:
    """Run a child and end whatever it has started; return its status and its report.

    The report comes by a file of its own, because what a package prints is anybody's and a pipe may outlive the child.
    """
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [*command, str(answer.fileno())],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=[answer.fileno()],
            start_new_session=True,
        )
        try:
            status = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = -signal.SIGALRM
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        said.seek(max(said.seek(0, os.SEEK_END) - SAID_BYTES, 0))
        if status:
            log.error("a trial ended with %s: %s", status, said.read().decode("utf-8", "replace"))
        answer.seek(0)
        content = answer.read()
        return status, json.loads(content) if content else None


def _ending(status: int, limits: Limits) -> str:
    if status == -signal.SIGALRM:
        return f"it took more than {limits.timeout_s} s"
    if status == OUT_OF_MEMORY:
        return f"it needs more than {limits.memory_mib} MiB"
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name}"
    return f"it ended with status {status}; the log says more"


def _error(code: str, detail: str) -> PackageError:
    kinds = [error for error in every_error() if error.code == code and issubclass(error, PackageError)]
    return (kinds or [PackageError])[0](detail)


def _restrain(limits: Limits) -> None:
    """End with the process that asked, at the time limit, and before anybody else where memory runs out."""
    end_with_parent(signal.SIGKILL)
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
        with suppress(ImportError):  # opening the package says what is missing, or takes another form of it
            importlib.import_module(module)
    before = resident_mib()
    predictor = open_predictor(store, manifest, policy)
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


def main(terms: dict[str, Any], answer: int) -> None:
    """Try the package that the terms name."""
    _restrain(Limits(**terms["limits"]))
    policy = Policy(**terms["policy"] | {"skops_types": frozenset(terms["policy"]["skops_types"])})
    name, version = terms["package"]
    try:
        cost = _report(Store(Path(terms["store"])), name, version, policy, timings=terms["timings"])
    except ServiceError as error:
        report = json.dumps({"error": {"code": error.code, "detail": error.detail}})
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
    else:
        report = cost.model_dump_json()
    os.write(answer, report.encode())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))
