"""Says on standard error how far a run has come."""

from __future__ import annotations

import sys
import time

from bench.measure import Visit


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def tell(seen: Visit) -> str:
    """Return a visit in one line."""
    loads = ", ".join(f"{each.workload} c{each.connections} {each.result.rate:.0f}/s" for each in seen.loads)
    differing = "" if seen.verdict is None else f" {seen.verdict.differing} labels differ,"
    errors = sum(each.result.errors for each in seen.loads)
    started = "" if seen.first_answer_s is None else f" first answer {seen.first_answer_s:.2f} s,{differing}"
    return f"{seen.peer}:{started} {loads}, {errors} errors"
