"""The step of a build that follows the libraries, run as the platform runs it, and what becomes of its files then."""

from __future__ import annotations

import subprocess
from pathlib import Path

from service.platforms.declared import Declared
from service.platforms.facts import Platform
from service.platforms.rehearsal.install import Installed, date_anew
from service.platforms.report import Failed

BUILD_S = 900
"""Heroku's limit for a build, the shortest. Source: devcenter.heroku.com/articles/slug-compiler, read 2026-11-22."""


def build(platform: Platform, chosen: Declared, tree: Path, installed: Installed) -> str:
    """Run in a tree what it has its platform run there; return what is to be said of it.

    Raises:
        Failed: If the step fails, which ends the build there.
    """
    if not chosen.build.line:
        return "nothing of the tree is run there"
    _run(chosen, tree, platform.deploy.settings | chosen.environment | {"PATH": _path(installed)})
    if platform.build.redates:
        date_anew(tree)
        return f"{chosen.build.line}; then every file got another date"
    return chosen.build.line


def _path(installed: Installed) -> str:
    return f"{installed.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin"


def _run(chosen: Declared, tree: Path, environment: dict[str, str]) -> None:
    command = ["bash", "-c", chosen.build.line]
    plain = {"HOME": str(tree), "LANG": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=plain | environment, capture_output=True, text=True, timeout=BUILD_S
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{chosen.build.line!r} took more than {BUILD_S} s") from error
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise Failed(f"{chosen.build.line!r} ended with status {done.returncode}: {said[-1] if said else 'no word'}")
