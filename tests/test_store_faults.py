"""The models folder's bad days in short, through real gunicorn. In full: `python -m tests.faults.store`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import PENGUIN
from tests.faults.store import FAULTS, witness
from tests.faults.witness import CLIENTS, workers_of
from tests.misfits import add_misfit
from tests.server import START_LIMIT_S, Server, running

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fault", FAULTS)
def test_3_21_bad_days_of_the_store_fail_no_prediction(fault: str) -> None:
    """Whatever becomes of the folder, every request gets its right answer but those of a worker that was killed."""
    report = witness(fault, hold_s=1.0)
    counted = report.counted
    lost = sum(count for kind, count in counted.items() if kind.startswith("lost"))
    assert report.master_lives and counted["right"] > 50 and counted["wrong"] == 0
    assert lost <= CLIENTS * report.killed
    assert not [kind for kind in counted if kind.startswith("status")]
    assert report.probes["200"] and not report.probes["not-ready"]


def test_2_12_package_that_kills_its_worker_at_the_first_start_is_refused(models_dir: Path) -> None:
    """A package that ends the process that loads it costs each first worker, and whom it serves, once and no more."""
    add_misfit(models_dir, "import ctypes; ctypes.string_at(0)", "1", "fatal")
    with running(models_dir, WEB_CONCURRENCY="2") as server:
        workers = await_refusal(server, "fatal/1")
        deadline = time.monotonic() + START_LIMIT_S
        while (answer := server.predict([PENGUIN]))[0] != 200:  # after the other one's it has a trial of its own
            assert time.monotonic() < deadline, answer
            time.sleep(0.1)
        assert answer[1]["predictions"] == ["Adelie"]
        status, document = server.predict([PENGUIN], "/v1/models/fatal:predict")
        assert (status, document["type"]) == (503, "/problems/not-ready")
        assert server.request("GET", "/readyz")[0] == 503
        assert workers_of(server) == workers


def await_refusal(server: Server, label: str) -> list[int]:
    """Wait until both workers have refused a package, and so will not die of it; return them. No client asks."""
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        said = {line["pid"] for line in server.lines() if line["message"].startswith(f"{label} as the store has it is")}
        workers = workers_of(server)
        if len(workers) == 2 and said.issuperset(workers):
            return workers
        assert time.monotonic() < deadline, f"{label} was refused by {said} and not by all of {workers}"
