"""Copies of the working tree, and what is done to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.platforms.facts import Platform, platforms
from service.platforms.findings import Ground
from service.platforms.upload import Upload, Uploaded
from tests.checkout import commit, git

TODAY = max(group.checked for platform in platforms().values() for _, group in platform.groups())
"""A day on which every fact is fresh."""
EVERY = list(platforms())
TAKE_COMMITS = [name for name, platform in platforms().items() if platform.upload.rule in ("commits", "ebignore")]
MANIFEST = "models/penguins/1/manifest.json"

Plant = Callable[[Path], None]


def put(path: Path, text: str = "planted\n", mode: int = 0o644) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    path.chmod(mode)


def ground(tree: Path, **load_s: float) -> Ground:
    """What the platforms share of a tree, measured by nobody."""
    return Ground(tree, TODAY, {name.replace("_", "/"): seconds for name, seconds in load_s.items()})


def uploaded(name: str, **files: str) -> Upload:
    """An upload of files with these texts; `__` in a name stands for a dot."""
    texts = {path.replace("__", "."): text for path, text in files.items()}
    return upload_of(platforms()[name], texts)


def upload_of(platform: Platform, texts: dict[str, str]) -> Upload:
    """An upload of files with these texts."""
    return Upload(platform, tuple(Uploaded(path, text.encode(), False) for path, text in sorted(texts.items())))


# What may be planted in a tree


def left(path: str, text: str = "planted\n") -> Plant:
    """Leave a file in the working tree that nobody commits."""
    return lambda tree: put(tree / path, text)


def added(path: str, text: str = "planted\n", mode: int = 0o644) -> Plant:
    """Commit a file, in place of what was there."""

    def plant(tree: Path) -> None:
        put(tree / path, text, mode)
        commit(tree)

    return plant


def changed(path: str, old: str, new: str) -> Plant:
    """Commit a file in which one text stands for another."""

    def plant(tree: Path) -> None:
        text = (tree / path).read_bytes().decode()
        assert old in text, f"{path} no longer has {old!r}"
        put(tree / path, text.replace(old, new, 1))
        commit(tree)

    return plant


def removed(path: str) -> Plant:
    """Commit that a file or a folder is gone."""

    def plant(tree: Path) -> None:
        git(tree, "rm", "-r", "--quiet", path)
        commit(tree)

    return plant


def forgotten(path: str) -> Plant:
    """Commit everything but a file, which stays in the working tree."""

    def plant(tree: Path) -> None:
        git(tree, "rm", "-r", "--quiet", "--cached", path)
        git(tree, "commit", "--quiet", "--message", "without it")

    return plant


def manifest(change: Callable[[dict[str, Any]], Any]) -> Plant:
    """Commit another manifest of the demo package."""

    def plant(tree: Path) -> None:
        document = json.loads((tree / MANIFEST).read_text())
        change(document)
        put(tree / MANIFEST, json.dumps(document))
        commit(tree)

    return plant


def together(*plants: Plant) -> Plant:
    """Plant one after the other."""

    def plant(tree: Path) -> None:
        for each in plants:
            each(tree)

    return plant
