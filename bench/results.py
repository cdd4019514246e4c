"""Writes bench/RESULTS.md: what was measured, on what, how, and what was left out."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from bench.answers import TOLERANCE
from bench.measure import Visit
from bench.peer import WORKERS, Peer
from bench.table import BASE, LOAD_COLUMNS, NOTHING, START_COLUMNS, load_rows, markdown, start_rows
from bench.workloads import ROOT, Workload

MAIN_PACKAGES = re.compile(
    r"scikit-learn|numpy|pandas|onnxruntime|flask|gunicorn|fastapi|uvicorn|uvloop|httptools|orjson|msgspec|granian"
    r"|mlserver|mlserver-sklearn|bentoml|litserve|mlflow|azureml-inference-server-http"
)
"""What decides about speed; the rest of each list is in bench/peers/NAME/requirements.txt."""

READING = f"""\
Every peer has {WORKERS} workers, and the libraries that compute have one thread each. One server runs at a time, on the
machine that also runs wrk; peers take turns, and each figure is the median of the rounds, with the lowest and highest
rate beside it. A ratio is the median of the rounds' own ratios to `{BASE}`: above 1 is faster, and dearer in CPU.

- **requests/s** counts good answers only; **errors** are all other answers, refused or broken connections and
  time-outs, over all rounds.
- **p50, p99** are as wrk's closed loop sees them, at that number of connections. A prefork server may give a few
  connections to one worker and none to the other.
- **CPU ms** is user and system time of the whole process tree for each good answer.
- **accepts**, **live** and **first answer** are from the start of the process until a connection is taken, until
  anything is answered by HTTP, and to the first right answer. **idle** and **loaded** are the tree's proportional set
  size after that and after the load; **environment** is all files of its virtual environment.
- **labels differ** counts rows, none of them in the training data, that are labelled otherwise than by the estimator;
  **numbers off** counts rows of which a probability is off by more than {TOLERANCE:g}, and **largest error** is the
  worst, where a peer answers probabilities."""


@dataclass
class Run:
    """All that a run has found."""

    command: str
    workloads: Sequence[Workload]
    visits: list[Visit] = field(default_factory=list)
    sizes_mib: dict[str, float] = field(default_factory=dict)
    versions: dict[str, Mapping[str, str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def document(run: Run, peers: Mapping[str, Peer]) -> str:
    """Return the whole page."""
    parts = ["# What was measured", conditions(run), READING]
    for workload in run.workloads:
        parts += [f"## {workload.name}", describe(workload)]
        parts += [markdown(LOAD_COLUMNS, load_rows(run.visits, workload))]
        parts += [markdown(START_COLUMNS, start_rows(run.visits, workload, run.sizes_mib))]
    parts += ["## Peers", markdown(("peer", "what it is", "packages"), described(run, peers))]
    if run.left_out:
        rows = [{"peer": name, "why": tell(why)} for name, why in run.left_out.items()]
        parts += ["## Left out", markdown(("peer", "why"), rows)]
    return "\n\n".join(parts) + "\n"


def conditions(run: Run) -> str:
    """Say when, where, of what and how."""
    return (
        f"{date.today()}, commit {commit()}, Python {platform.python_version()}, {os.cpu_count()} processors "
        f"({processor()}), Linux.\n\n    {run.command}"
    )


def describe(workload: Workload) -> str:
    """Say what a workload asks."""
    rows = "one row" if workload.rows == 1 else f"{workload.rows:,} rows"
    form = "CSV" if workload.media == "text/csv" else "JSON"
    return f"Model `{workload.model}`, {rows} a request as {form}, {workload.bodies} bodies in rotation."


def described(run: Run, peers: Mapping[str, Peer]) -> list[dict[str, str]]:
    """Return what each peer is and its main packages."""
    rows = []
    for name, versions in run.versions.items():
        main = [f"{package} {version}" for package, version in versions.items() if MAIN_PACKAGES.fullmatch(package)]
        rows.append({"peer": name, "what it is": tell(peers[name].about), "packages": ", ".join(main) or NOTHING})
    return rows


def tell(text: str) -> str:
    """Keep a text inside its cell, and the machine's own folders out of it."""
    return " ".join(re.sub(r"(/[\w.+-]+)+/", "", text).replace("|", "/").split())


def commit() -> str:
    """Return the commit, and whether the tree differs from it."""
    said = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


def processor() -> str:
    """Return the processor's name."""
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[0] if names else platform.machine()
