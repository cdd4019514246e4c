"""What preflight finds, and what it looks at. A check never prints: it is a function from a candidate to findings."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from service.errors import PlatformError
from service.platforms.declared import Declared, declared
from service.platforms.facts import Platform
from service.platforms.upload import Upload

PROBE_S = 120
OTHER_PORT = 49731
"""What the service is told where the platform gives it a port, so that one that it has fixed for itself is seen."""


def number(text: str | None, default: float) -> float:
    """Return a setting as a number; the default where there is none, or one that the service refuses itself."""
    try:
        return float(text) if text is not None else default
    except ValueError:
        return default


@dataclass(frozen=True)
class Mend:
    """A mechanical fix of one file of the tree."""

    path: str
    text: str | None = None
    """Its new text, where that changes."""
    before: str | None = None
    """The text that it was found in."""

    def apply(self, root: Path) -> bool:
        """Change the file; one without a new text becomes executable.

        Returns:
            Whether that was done: a file that was edited since is left alone.
        """
        file = root / self.path
        if self.text is None:
            file.chmod(0o755)
        elif self.before is None or file.read_bytes().decode("utf-8", "replace") == self.before:
            file.write_text(self.text, newline="\n")
        else:
            return False
        return True


@dataclass(frozen=True)
class Finding:
    """One thing that preflight found."""

    id: str
    """Stable: the platform's name, a dot, and the check's own name for it."""
    level: Literal["error", "warning"]
    what: str
    why: str
    fix: str
    source: str
    mend: Mend | None = None


@dataclass(frozen=True)
class Ground:
    """What all platforms have in common: the checkout, the day, and what was measured once."""

    root: Path
    today: date
    load_s: dict[str, float]
    """How long each package takes to be opened and to answer its golden rows, by label."""


class Candidate:
    """A tree on its way to a platform: the checkout, the upload made of it, and that upload written down."""

    def __init__(self, ground: Ground, upload: Upload, tree: Path) -> None:
        self.ground, self.upload, self.tree = ground, upload, tree
        self.known: dict[str, Any] = {}
        """What was asked of the upload already, by the name of the check that asked."""

    @property
    def platform(self) -> Platform:
        """The platform that it is on its way to."""
        return self.upload.platform

    @cached_property
    def declared(self) -> Declared:
        """What the tree tells the platform.

        Raises:
            PlatformError: If that cannot be read.
        """
        return declared(self.upload)

    def readable(self) -> bool:
        """Whether what the tree tells the platform can be read; where not, one check says so and the others pass."""
        try:
            return bool(self.declared)
        except PlatformError:
            return False

    @property
    def port(self) -> int | None:
        """Where the service must listen, None where that is no port."""
        return OTHER_PORT if self.platform.start.gives_port else self.platform.start.port

    def environment(self) -> dict[str, str]:
        """What the service finds in its environment there."""
        sizes = self.platform.sizes
        wanted = self.declared.size if self.readable() else None
        size = next((size for size in sizes.offered if size.name == wanted), sizes.size(sizes.default))
        given = self.platform.environment(self.port or 0, Path("/tmp/socket"), size.memory_mib)
        limit = {"ANYPORT_MEMORY_MIB": str(size.memory_mib)}  # there the container says it
        return limit | given | (self.declared.environment if self.readable() else {})

    def ask(self, code: str, *arguments: str) -> tuple[Any, str]:
        """Run Python in the upload, under the platform's environment and nothing else.

        Returns:
            The document that it prints last, or None and why there is none.
        """
        variables = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"} | self.environment()
        command = [sys.executable, "-c", code, *arguments]
        try:
            child = subprocess.run(
                command, cwd=self.tree, env=variables, capture_output=True, text=True, timeout=PROBE_S
            )
        except subprocess.TimeoutExpired:
            return None, f"it did not end within {PROBE_S} s"
        try:
            return json.loads(child.stdout.strip().splitlines()[-1]), ""
        except (ValueError, IndexError):
            said = child.stderr.strip().splitlines()
            return None, said[-1] if said else f"it ended with status {child.returncode} and said nothing"

    def error(self, name: str, what: str, why: str, fix: str, source: str, mend: Mend | None = None) -> Finding:
        """Make a finding that will make the deployment fail, or do harm."""
        return Finding(f"{self.platform.name}.{name}", "error", what, why, fix, source, mend)

    def warning(self, name: str, what: str, why: str, fix: str, source: str, mend: Mend | None = None) -> Finding:
        """Make a finding that is worth a look."""
        return Finding(f"{self.platform.name}.{name}", "warning", what, why, fix, source, mend)
