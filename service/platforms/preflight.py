"""Preflight: look at a tree as a platform would receive it, and say what would go wrong there."""

from __future__ import annotations

import tempfile
import time
from datetime import date
from pathlib import Path

from service.errors import PackageError, PlatformError
from service.platforms.checks import CHECKS, EVERYWHERE, WHEELS
from service.platforms.facts import Platform
from service.platforms.findings import Candidate, Finding, Ground
from service.platforms.upload import gather
from service.runtimes import Policy
from service.store import Store
from service.trial import Limits, try_out

LEVELS = ("error", "warning")


def survey_ground(root: Path, policy: Policy, limits: Limits, today: date) -> Ground:
    """Measure what all platforms share: how long each package takes to be opened and to answer its golden rows.

    Args:
        root: The checkout.
        policy: Whom the operator trusts.
        limits: What a trial may take.
        today: The day of the look, by which facts are old.
    """
    load_s, store = {}, Store(root / "models")
    for name, versions in store.versions().items():
        for version in versions:
            began = time.monotonic()
            try:
                try_out(store, name, version, policy, limits)
            except PackageError:
                continue  # a check of the upload says what is wrong with it
            load_s[f"{name}/{version}"] = time.monotonic() - began
    return Ground(root, today, load_s)


def preflight(platform: Platform, ground: Ground, *, wheels: bool = False) -> list[Finding]:
    """Run every check that concerns a platform; return what they find, errors first.

    Args:
        platform: Where the tree is to go.
        ground: What all platforms share.
        wheels: Whether to ask the package index too.
    """
    try:
        upload = gather(platform, ground.root)
    except PlatformError as error:
        return [
            Finding(
                f"{platform.name}.no-upload",
                "error",
                error.detail,
                f"{platform.title} would receive nothing",
                "git init, git add . and git commit; or, of a link, commit what it leads to, or take it away",
                platform.upload.source,
            )
        ]
    with tempfile.TemporaryDirectory() as name:
        upload.write_folder(Path(name))
        candidate = Candidate(ground, upload, Path(name))
        checks = [*EVERYWHERE, *(CHECKS[check] for check in platform.checks), *([WHEELS] if wheels else [])]
        found = [finding for check in checks for finding in check(candidate)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))
