"""What a rehearsal or a look at a live service saw: scenes, each passed or not, and the verdict that follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Scene:
    """One thing that was tried."""

    name: str
    passed: bool
    said: str
    seconds: float


class Failed(Exception):
    """A scene did not pass; the message says why."""


@dataclass
class Report:
    """What was seen."""

    subject: str
    scenes: list[Scene] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """What could not be done as the platform does it."""
    figures: dict[str, float] = field(default_factory=dict)
    watch: Callable[[Scene], None] = lambda scene: None
    """Called with each scene as it ends."""

    @property
    def passed(self) -> bool:
        """Whether every scene passed."""
        return bool(self.scenes) and all(scene.passed for scene in self.scenes)

    @contextmanager
    def scene(self, name: str) -> Iterator[list[str]]:
        """Play a scene: what the block appends is said of it; one that raises `Failed` did not pass, and ends the play.

        Raises:
            Failed: As the block does.
        """
        said: list[str] = []
        began = time.monotonic()
        try:
            yield said
        except Failed as failure:
            self._end(Scene(name, False, str(failure), time.monotonic() - began))
            raise
        self._end(Scene(name, True, "; ".join(said), time.monotonic() - began))

    def _end(self, scene: Scene) -> None:
        self.scenes.append(scene)
        self.watch(scene)

    def document(self) -> dict[str, Any]:
        """Return the report as plain data."""
        scenes = [
            {"name": scene.name, "passed": scene.passed, "said": scene.said, "seconds": round(scene.seconds, 2)}
            for scene in self.scenes
        ]
        figures = {name: round(value, 2) for name, value in self.figures.items()}
        return {
            "subject": self.subject,
            "passed": self.passed,
            "scenes": scenes,
            "figures": figures,
            "remarks": self.remarks,
        }
