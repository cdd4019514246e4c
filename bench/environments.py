"""One virtual environment for each peer, with exactly its pinned packages."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from bench.failure import PeerFailed
from bench.peer import PEERS, Peer

HOME = Path(sys.prefix) / "peers"
INSTALL_LIMIT_S = 900
PIP = [sys.executable, "-m", "pip"]


def environment(peer: Peer) -> Path:
    """Make or reuse the environment of a peer; return its folder.

    The pins were resolved together with the scikit-learn of requirements.txt, which some peers do not yet admit: so
    pip takes the list as it is.

    Raises:
        PeerFailed: If it cannot be installed on this Python.
    """
    owner = peer.environment or peer.name
    folder, requirements = HOME / owner, (PEERS / owner / peer.requirements).resolve()
    made, wanted = folder / ".made", hashlib.sha256(sys.version.encode() + requirements.read_bytes()).hexdigest()
    if not made.exists() or made.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        install = ["--python", str(folder / "bin" / "python"), "install", "--quiet", "--disable-pip-version-check"]
        run([*PIP, *install, "--no-deps", "-r", str(requirements)])
        made.write_text(wanted)
    return folder


def run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run a command that makes something ready.

    Raises:
        PeerFailed: If it fails, with the last line that it said.
    """
    try:
        ended = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=INSTALL_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerFailed(f"`{Path(command[0]).name}` could not be run: {error}") from error
    if ended.returncode:
        said = (ended.stderr.strip() or ended.stdout.strip() or "nothing").splitlines()[-1]
        raise PeerFailed(f"`{shlex.join(command)}` ended with status {ended.returncode} and said: {said}")


def size_mib(folder: Path) -> float:
    """Return the bytes of all files of an environment, in MiB; links are not followed."""
    total = 0
    for parent, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(parent, name)).st_size for name in names)
    return total / 2**20


def versions(folder: Path) -> dict[str, str]:
    """Return the installed packages and their versions."""
    listed = [*PIP, "--python", str(folder / "bin" / "python"), "list", "--format=json", "--disable-pip-version-check"]
    said = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    return {each["name"].lower(): each["version"] for each in json.loads(said)}
