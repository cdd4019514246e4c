"""Compares the tree with the last commit: python -m bench.quick [--rounds N] [--seconds S] [--fall PERCENT]

Both run in the same environment, in turns. Exit status 1 if requests a second fell by more than the argument says, or
if requests failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.checkout import copy_tree, unpack_last_commit
from bench.failure import PeerFailed
from bench.measure import Visit, visit
from bench.peer import peers
from bench.progress import say, tell
from bench.servers import Prepared, prepare, stop_on_sigterm
from bench.table import loads, middle, number, rates, ratio
from bench.workloads import WORKLOADS, Workload, train

BEFORE, AFTER = "last commit", "tree"
QUICK = ("penguins", "boosting")


def judge(visits: dict[str, list[Visit]], workload: Workload, fall: float) -> list[str]:
    """Print how the two compare at each number of connections; return a line for each that fell too far or failed."""
    worse = []
    for connections in workload.connections:
        before, after = (loads(visits[side], "anyport", workload.name, connections) for side in (BEFORE, AFTER))
        share, errors = ratio(rates(after), rates(before)) or 0.0, sum(each.result.errors for each in after)
        line = f"{workload.name} at {connections} connections: {number(middle(rates(before)))} requests/s, then "
        line += f"{number(middle(rates(after)))}: {share:.2f} of the last commit, {errors} errors"
        print(line)
        if errors or share < 1 - fall / 100:
            worse.append(line)
    return worse


def compare(workload: Workload, rounds: int, seconds: float, folder: Path) -> dict[str, list[Visit]]:
    """Visit the last commit and the tree with a model, in turns."""
    anyport, trained = peers()["anyport"], train(workload.model, folder)
    sides: dict[str, Prepared] = {}
    for side in (BEFORE, AFTER):
        home = folder / side / workload.model
        home.mkdir(parents=True)
        sides[side] = prepare(anyport, trained, folder / side / "checkout", home)
    visits: dict[str, list[Visit]] = {BEFORE: [], AFTER: []}
    for _ in range(rounds):
        for side, prepared in sides.items():
            visits[side].append(visit(prepared, trained, [workload], seconds, folder))
            say(f"{side}: {tell(visits[side][-1])}")
    return visits


def main(words: Sequence[str]) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.quick", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="of each load")
    parser.add_argument("--fall", type=float, default=10, help="per cent by which requests a second may fall")
    asked, worse = parser.parse_args(words), []
    stop_on_sigterm()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack_last_commit(folder / BEFORE / "checkout")
        copy_tree(folder / AFTER / "checkout")
        try:
            for workload in map(WORKLOADS.get, QUICK):
                worse += judge(compare(workload, asked.rounds, asked.seconds, folder), workload, asked.fall)
        except PeerFailed as failure:
            sys.exit(f"anyport: the benchmark could not be run: {failure}")
    if worse:
        sys.exit("\n".join([f"anyport: requests a second fell by more than {asked.fall:g} %, or failed:", *worse]))


if __name__ == "__main__":
    main(sys.argv[1:])
