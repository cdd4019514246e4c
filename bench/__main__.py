"""Compares Anyport with its peers: python -m bench [--peers NAME ...] [--workloads NAME ...] [--rounds N] [--seconds S]

A run of everything writes bench/RESULTS.md; any other prints the same page. Needs Linux and wrk.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.checkout import copy_tree
from bench.environments import environment, size_mib, versions
from bench.failure import PeerFailed
from bench.measure import visit
from bench.peer import Peer, peers
from bench.progress import say, tell
from bench.results import Run, document
from bench.servers import Prepared, prepare, stop_on_sigterm
from bench.workloads import ROOT, WORKLOADS, Trained, train

RESULTS = ROOT / "bench" / "RESULTS.md"


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="+", choices=list(peers()), default=list(peers()), metavar="NAME")
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each load")
    parser.add_argument("--output", type=Path, help="file to write; by default RESULTS.md if everything was measured")
    return parser.parse_args(words)


def install(run: Run, wanted: Sequence[Peer]) -> list[Peer]:
    """Make the environment of each peer; return those that could be installed."""
    ready = []
    for peer in wanted:
        say(f"{peer.name}: environment")
        try:
            folder = environment(peer)
        except PeerFailed as failure:
            leave_out(run, peer.name, failure)
            continue
        run.sizes_mib[peer.name], run.versions[peer.name] = size_mib(folder), versions(folder)
        ready.append(peer)
    return ready


def measure(run: Run, ready: Sequence[Peer], rounds: int, seconds: float, folder: Path) -> None:
    """Visit every peer with every model, in turns; who fails once is not visited with that model again."""
    checkout = copy_tree(folder / "checkout")
    for name in dict.fromkeys(workload.model for workload in run.workloads):
        say(f"{name}: training")
        trained = train(name, folder)
        wanted = {
            peer.name: [each for each in run.workloads if each.model == name and peer.takes(each)] for peer in ready
        }
        prepared = prepare_all(run, [peer for peer in ready if wanted[peer.name]], trained, checkout, folder)
        for turn in range(1, rounds + 1):
            for peer, one in list(prepared.items()):
                try:
                    seen = visit(one, trained, wanted[peer], seconds, folder)
                except PeerFailed as failure:
                    leave_out(run, f"{peer} with {name}", failure)
                    del prepared[peer]
                else:
                    run.visits.append(seen)
                    say(f"{name}, round {turn} of {rounds}: {tell(seen)}")


def prepare_all(run: Run, ready: Sequence[Peer], trained: Trained, checkout: Path, folder: Path) -> dict[str, Prepared]:
    """Make every peer ready for a model; return those that can be."""
    found = {}
    for peer in ready:
        try:
            found[peer.name] = prepare(peer, trained, checkout, folder)
        except PeerFailed as failure:
            leave_out(run, f"{peer.name} with {trained.name}", failure)
    return found


def leave_out(run: Run, what: str, failure: PeerFailed) -> None:
    """Note what is not measured any further, and why."""
    run.left_out[what] = str(failure)
    say(f"{what}: left out: {failure}")


def main(words: Sequence[str]) -> None:
    """Run what the command line asks for."""
    if shutil.which("wrk") is None:
        sys.exit("anyport: wrk is not installed; on Debian and Ubuntu: sudo apt install wrk")
    stop_on_sigterm()
    known, asked = peers(), read_arguments(words)
    run = Run(shlex.join(["python", "-m", "bench", *words]), [WORKLOADS[name] for name in asked.workloads])
    with tempfile.TemporaryDirectory() as folder:
        measure(run, install(run, [known[name] for name in asked.peers]), asked.rounds, asked.seconds, Path(folder))
    everything = set(asked.peers) == set(known) and set(asked.workloads) == set(WORKLOADS)
    output = asked.output or (RESULTS if everything else None)
    page = document(run, known)
    print(page)
    if output:
        output.write_text(page)
        say(f"wrote {output}")


if __name__ == "__main__":
    main(sys.argv[1:])
