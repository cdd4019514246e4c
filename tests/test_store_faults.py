"""The models folder's bad days in short, through real gunicorn. In full: `python -m tests.faults.store`."""

from __future__ import annotations

import pytest

from tests.faults.store import FAULTS, witness
from tests.faults.witness import CLIENTS

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
