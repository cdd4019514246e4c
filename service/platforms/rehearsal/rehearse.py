"""One rehearsal from the bundle to the verdict."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from service.errors import PackageError, PlatformError
from service.manifest import Manifest
from service.platforms.declared import Declared, declared, minor_version, size_mib
from service.platforms.facts import Platform
from service.platforms.rehearsal.build import build
from service.platforms.rehearsal.install import Installed, install
from service.platforms.rehearsal.scenes import NOT_UNDER_UWSGI, SCENES, Play
from service.platforms.rehearsal.stage import stage
from service.platforms.report import Failed, Report, Scene
from service.platforms.upload import Upload, gather
from service.store import Store


def rehearse(platform: Platform, root: Path, cache: Path, watch: Callable[[Scene], None]) -> Report:
    """Boot what a platform would receive of a tree as it would, here, and play every scene until one fails.

    Args:
        platform: Where the tree is to go.
        root: The checkout.
        cache: Where virtual environments are kept, and the tree is put meanwhile.
        watch: Called with each scene as it ends.
    """
    report = Report(platform.name, watch=watch)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="anyport-bundle-", dir=cache) as name:
        tree = Path(name).resolve()
        try:
            _play(report, platform, root, tree, cache)
        except Failed:
            pass  # the scene that failed is in the report
    return report


def _play(report: Report, platform: Platform, root: Path, tree: Path, cache: Path) -> None:
    with report.scene("upload") as said:
        upload, chosen, memory_mib = _upload(platform, root, tree)
        said.append(f"{len(upload.files)} files, {upload.size_mib:.1f} MiB")
    with report.scene("install") as said:
        installed = _install(upload, chosen, cache)
        said.append(installed.said)
    with report.scene("build") as said:
        said.append(build(platform, chosen, tree, installed))
    with report.scene("models") as said:
        manifests = _active(Store(tree / "models"))
        said.append(", ".join(manifest.label for manifest in manifests))
    with stage(platform, chosen, tree, installed, memory_mib, cache) as here:
        with report.scene("start"):
            try:
                here.start()
            except (PlatformError, OSError, ValueError) as error:
                raise Failed(f"{chosen.line!r} cannot be started: {error}") from error
        play = Play(here, manifests, report)
        report.remarks = here.remarks
        for name, scene in SCENES.items():
            if platform.start.front == "uwsgi" and name in NOT_UNDER_UWSGI:
                report.remarks.append(f"{name}: not played, because nginx stands before uWSGI there and not here")
                continue
            with report.scene(name) as said:
                try:
                    said.append(scene(play))
                except OSError as error:
                    raise Failed(f"no answer ({error}): {here.last_words()}") from error


def _upload(platform: Platform, root: Path, tree: Path) -> tuple[Upload, Declared, int]:
    try:
        upload = gather(platform, root)
        upload.write_folder(tree)
        chosen = declared(upload)
        return upload, chosen, size_mib(platform, chosen)
    except PlatformError as error:
        raise Failed(error.detail) from error


def _install(upload: Upload, chosen: Declared, cache: Path) -> Installed:
    try:
        minor = minor_version(chosen.python or (upload.text(".python-version") or "").strip())
        settings = upload.platform.deploy.settings | chosen.environment
        text, redated = upload.text("requirements.txt") or "", upload.platform.build.redates
        return install(text, minor, cache, settings, redated=redated)
    except PlatformError as error:
        raise Failed(error.detail) from error


def _active(store: Store) -> list[Manifest]:
    try:
        found = [store.manifest(name, store.active(name)) for name in store.versions()]
    except PackageError as error:
        raise Failed(error.detail) from error
    if not found:
        raise Failed("the upload holds no model; commit models/")
    return found
