"""The peers: what each is, and how it is installed, prepared, started and asked, from bench/peers/NAME/peer.toml.

To add one, copy the nearest folder and change it; nothing else names the peers.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.drive import Ask
from bench.wires import CSV, WIRES
from bench.workloads import Trained, Workload, batches

PEERS = Path(__file__).resolve().parent / "peers"
WORKERS = 2
"""Worker processes of every peer: the machines that Anyport is for have one or two processors."""


@dataclass(frozen=True)
class Peer:
    """One contestant. Commands and variables may hold {port} and {spare}, which are free, {workers}, {name}, {model},
    {sample}, {target}, {prepared}, {checkout} and {peer}: names, files and folders of the model at hand.
    """

    name: str
    about: str
    command: str
    source: str = ""
    folder: str = "{peer}"
    requirements: str = "requirements.txt"
    environment: str = ""
    """Whose virtual environment it runs in, where it is not its own."""
    prepare: str = ""
    prepare_in_project: bool = False
    variables: Mapping[str, str] | None = None
    wire: str = "instances"
    path: str = "/predict"
    probabilities: str = ""
    """The path that also answers probabilities; without one only labels are compared."""
    csv: str = ""
    """The path that takes CSV."""
    constant: bool = False
    """It answers the same to everything, so its answers are not compared: a floor, not a peer."""
    in_process: bool = False
    """It is no server: the command does the work itself, and says what wrk would."""
    models: tuple[str, ...] = ()
    """The models that it is measured with; by default all."""

    def takes(self, workload: Workload) -> bool:
        """Whether this workload is one for it."""
        if self.models and workload.model not in self.models:
            return False
        return bool(self.csv) if workload.media == CSV.media else not self.in_process

    def ask(self, workload: Workload, trained: Trained) -> Ask:
        """Return what a workload asks it."""
        wire = CSV if workload.media == CSV.media else WIRES[self.wire]
        path = self.csv if wire is CSV else self.path
        bodies = tuple(wire.encode(rows) for rows in batches(trained, workload))
        return Ask(path.format(name=trained.name), wire.media, wire.accept, bodies)


def read_peer(folder: Path) -> Peer:
    """Read a peer's facts."""
    facts = tomllib.loads((folder / "peer.toml").read_text())
    return Peer(name=folder.name, **facts | {"models": tuple(facts.get("models", ()))})


def peers() -> dict[str, Peer]:
    """Return every peer, Anyport first, then by name."""
    found = [read_peer(path.parent) for path in PEERS.glob("*/peer.toml")]
    return {peer.name: peer for peer in sorted(found, key=lambda peer: (peer.name != "anyport", peer.name))}


def words(command: str, values: Mapping[str, str]) -> list[str]:
    """Split a command and fill in the values."""
    return [word.format(**values) for word in shlex.split(command)]
