"""Our worker next to stock gthread: the same app, model, workers and threads, in turns, in one run.

    python -m bench.worker [ROUNDS=3] [SECONDS=8]

Needs wrk (Debian's package of that name). Every answer of a first request is checked; wrk counts the others' status.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import PENGUIN, ROOT
from tests.server import START_LINE, Server, free_port, running

CONNECTIONS = 16
WORKERS, THREADS = 2, 4
SCRIPT = """
wrk.method = "POST"
wrk.body = '%s'
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency, requests)
  local failed = summary.errors.status + summary.errors.read + summary.errors.timeout
  io.write(string.format("RESULT %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), failed))
end
"""


def commands(port: int, folder: Path) -> dict[str, list[str]]:
    """The start line of each server; without a file of its own gunicorn would read ours."""
    plain = folder / "stock.py"
    plain.touch()
    stock = ["--worker-class", "gthread", "--workers", str(WORKERS), "--threads", str(THREADS), "--keep-alive", "95"]
    return {
        "anyport": START_LINE,
        "gthread": [*START_LINE[:3], "-c", str(plain), *stock, "--bind", f"127.0.0.1:{port}", START_LINE[-1]],
    }


@contextmanager
def served(name: str) -> Iterator[Server]:
    """Run one of the servers on a copy of the demo model, and check its answer."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(shutil.copytree(ROOT / "models", Path(folder) / "models"))
        variables = {"WEB_CONCURRENCY": str(WORKERS), "ANYPORT_THREADS": str(THREADS)}
        with running(models, commands(port, Path(folder))[name], port=port, **variables) as server:
            assert server.predict([PENGUIN])[1]["predictions"] == ["Adelie"]
            yield server


def drive(server: Server, path: str, seconds: int, script: Path) -> tuple[float, float, float]:
    """Drive a server with wrk; return requests a second, and milliseconds at p50 and p99."""
    url = f"http://127.0.0.1:{server.port}{path}"
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", said)
    assert found, said
    requests, duration_us, p50_us, p99_us, errors = map(int, found.groups())
    assert errors == 0, said
    return requests / duration_us * 1e6, p50_us / 1000, p99_us / 1000


def main(rounds: int, seconds: int) -> None:
    """Print each server's medians, and the ratio of ours to stock."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; on Debian: apt-get install wrk")
    figures: dict[str, list[tuple[float, float, float]]] = {"anyport": [], "gthread": []}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "predict.lua"
        script.write_text(SCRIPT % json.dumps({"instances": [PENGUIN]}))
        for _ in range(rounds):
            for name, taken in figures.items():
                with served(name) as server:
                    drive(server, "/predict", 2, script)  # warm
                    taken.append(drive(server, "/predict", seconds, script))
    medians = {
        name: [statistics.median(column) for column in zip(*taken, strict=True)] for name, taken in figures.items()
    }
    print(f"{WORKERS} workers of {THREADS} threads, {CONNECTIONS} connections, one penguin a request, {rounds} rounds")
    for name, (rate, p50, p99) in medians.items():
        each = ", ".join(f"{taken[0]:.0f}" for taken in figures[name])
        print(f"{name:8} {rate:7.1f} requests/s ({each}), p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    ours, stock = medians.values()
    print(f"ratio: requests/s {ours[0] / stock[0]:.2f}, p50 {ours[1] / stock[1]:.2f}, p99 {ours[2] / stock[2]:.2f}")


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    main(*(numbers + [3, 8][len(numbers) :]))
