"""Checks of the model packages as the platform would receive them: there, whole, of the right libraries, fitting."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from service.capacity import MEMORY_SHARE, worker_mib
from service.errors import PackageError, PlatformError
from service.manifest import Manifest
from service.platforms.checks.service import configured, runs_gunicorn
from service.platforms.checks.tree import normal, pins
from service.platforms.declared import minor_version, size_mib
from service.platforms.findings import Candidate, Finding
from service.runtimes import RUNTIMES, Policy
from service.store import Lack, Store, lacks

MACHINES = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
"""What every platform's machines are, as wheels name it."""
PATIENCE = 0.8
"""The part of a start limit that loading may take here; the platform's machine may be slower."""


def packages(candidate: Candidate) -> Iterator[Finding]:
    """There is a package, and each is whole: every file that its manifest lists, with its checksum."""
    here, there = Store(candidate.ground.root / "models"), Store(candidate.tree / "models")
    arriving = there.versions()
    for name, versions in here.versions().items():
        for version in set(versions) - set(arriving.get(name, [])):
            yield candidate.error(
                "model-not-uploaded",
                f"models/{name}/{version} is here, and {candidate.platform.title} does not receive it",
                "the service there would answer 404 or with another version",
                f"git add models/{name}/{version} && git commit" if _takes_commits(candidate) else _unignore(candidate),
                candidate.platform.upload.source,
            )
    if not arriving and not here.versions():
        yield candidate.error(
            "no-model",
            "the models folder holds no package",
            "there is nothing to serve",
            "flask pack model.joblib --sample train.csv, then commit models/",
            "README.md, Your own model",
        )
    for label, error in _damaged(there):
        yield candidate.error(
            "model-damaged",
            f"{label} as it arrives is not what its manifest says: {error.detail}",
            "the service refuses to open it",
            "pack the model again; keep `models/** -text` in .gitattributes",
            "README.md, How it is built",
        )


def _takes_commits(candidate: Candidate) -> bool:
    return candidate.platform.upload.rule in ("commits", "ebignore")


def _unignore(candidate: Candidate) -> str:
    return f"take away the pattern of {candidate.platform.upload.ignore_file or 'the platform'} that leaves it out"


def _damaged(store: Store) -> Iterator[tuple[str, PackageError]]:
    for name, versions in store.versions().items():
        for version in versions:
            try:
                store.verify(store.manifest(name, version), Policy(skew="warn"))
            except PackageError as error:
                yield f"{name}/{version}", error


def manifests(candidate: Candidate) -> list[Manifest]:
    """The manifests that can be read of what arrives."""
    store, found = Store(candidate.tree / "models"), []
    for name, versions in store.versions().items():
        for version in versions:
            try:
                found.append(store.manifest(name, version))
            except PackageError:
                continue  # `packages` has said so
    return found


def libraries(candidate: Candidate) -> Iterator[Finding]:
    """requirements.txt pins what at least one form of each model needs."""
    pinned = pins(candidate.upload.text("requirements.txt") or "")
    for manifest in manifests(candidate) if pinned else ():
        for library, wanted, there in _lacking(manifest, pinned):
            told = f"was made with {library} {wanted}" if wanted else f"needs {library}"
            fix = f"pack it again with what requirements.txt pins, or pin {library}=={wanted}"
            yield candidate.error(
                "library-differs",
                f"{manifest.label} {told}, and requirements.txt has {there or 'none'}",
                "the service refuses a model without its libraries, or of others, because it may answer differently",
                fix if wanted else f"write {library} into requirements.in and run: make lock",
                "scikit-learn.org/stable/model_persistence.html",
            )


def _lacking(manifest: Manifest, pinned: dict[str, str]) -> list[Lack]:
    """Return what the preferred form lacks; nothing if the store could open any form with these versions."""
    forms = [artifact for artifact in manifest.artifacts if artifact.runtime in RUNTIMES]  # `packages` tells the others
    lacking = [list(lacks(manifest, form, lambda name: pinned.get(normal(name)))) for form in forms]
    return lacking[0] if lacking and all(lacking) else []


def wanted_python(candidate: Candidate) -> str | None:
    """Return the minor version that .python-version asks for, None if it is not a bare version."""
    text = (candidate.upload.text(".python-version") or "").strip()
    return minor_version(text) if re.fullmatch(r"3\.\d{1,2}(\.\d+)?", text) else None


def python(candidate: Candidate) -> Iterator[Finding]:
    """Every file that names a Python names the same one, and the platform has it."""
    minor = wanted_python(candidate)
    if minor is None:
        yield candidate.error(
            "python-version-file",
            ".python-version is missing, or holds more than a bare version such as 3.12",
            "the platforms read it by different rules, and all of them only a bare version",
            "write 3.12 into it, and nothing else",
            "heroku-buildpack-python v351 lib/python_version.sh; GoogleCloudPlatform/buildpacks pkg/python",
        )
        return
    told = _told_python(candidate)
    if told is not None and told != minor:
        yield candidate.error(
            "python-disagrees",
            f"{candidate.platform.python.chosen_by} is Python {told}, and .python-version says {minor}",
            "what was tried here is not what runs there, and a pickle may not load",
            "write the same minor version into both",
            candidate.platform.python.source,
        )
    if minor not in candidate.platform.python.offered:
        yield candidate.error(
            "python-not-offered",
            f"{candidate.platform.title} has Python {', '.join(candidate.platform.python.offered)}, and not {minor}",
            "the build ends",
            f"write {candidate.platform.python.offered[-1]} into .python-version",
            candidate.platform.python.source,
        )


def _told_python(candidate: Candidate) -> str | None:
    """What the platform's own file chooses; None if it chooses none, or what a check of that file refuses."""
    if not candidate.readable() or candidate.declared.python is None:
        return None
    try:
        told = minor_version(candidate.declared.python.removeprefix("python-"))
    except PlatformError:
        return None
    return told if told.startswith("3.") else None


def memory(candidate: Candidate) -> Iterator[Finding]:
    """One worker with every model fits into the machine that was chosen."""
    if not candidate.readable():
        return
    sizes = candidate.platform.sizes
    try:
        there_mib = size_mib(candidate.platform, candidate.declared)
    except PlatformError as error:
        yield candidate.error(
            "unknown-size",
            error.detail,
            "the platform refuses it, or takes its smallest",
            f"choose one with {sizes.change}",
            sizes.source,
        )
        return
    workers = _workers(candidate)
    needed_mib = workers * worker_mib(manifest.cost for manifest in manifests(candidate)) / MEMORY_SHARE
    if needed_mib > there_mib:
        fitting = [size.name for size in sizes.offered if size.memory_mib >= needed_mib]
        fix = f"choose {fitting[0]}: {sizes.change}" if fitting else "serve fewer models, or with ANYPORT_SERVE=active"
        yield candidate.error(
            "too-little-memory",
            f"{workers} of the workers, with every model, need {needed_mib:.0f} MiB with some to spare, "
            f"and {candidate.declared.size or sizes.default} has {there_mib}",
            "the platform kills it, or it swaps",
            fix,
            sizes.source,
        )


def _workers(candidate: Candidate) -> int:
    """How many workers gunicorn would start there, whoever says so; where there is no gunicorn, one."""
    effective, _ = configured(candidate) if runs_gunicorn(candidate) else (None, "")
    return int(effective["workers"]) if effective else 1


def load_time(candidate: Candidate) -> Iterator[Finding]:
    """The models are loaded within the platform's start limit."""
    limit = candidate.platform.limits.start_s
    load_s = sum(candidate.ground.load_s.get(manifest.label, 0.0) for manifest in manifests(candidate))
    if limit is not None and load_s > PATIENCE * limit:
        yield candidate.error(
            "slow-start",
            f"loading the models took {load_s:.0f} s here, and {candidate.platform.title} waits {limit:.0f} s",
            "it gives up on the service, or answers 503 until then",
            "serve fewer versions with ANYPORT_SERVE=active, or a smaller model",
            candidate.platform.limits.source,
        )


def wheels(candidate: Candidate) -> Iterator[Finding]:
    """Every pinned library has a wheel for the platform's Python. Asks the package index."""
    minor = wanted_python(candidate)
    if minor is None:
        return  # `python` says so
    with tempfile.TemporaryDirectory() as folder:
        told = ("--dry-run", "--no-deps", "--ignore-installed", "--only-binary", ":all:", "--quiet", "--target", folder)
        machine = [word for name in MACHINES for word in ("--platform", name)]
        asked = ["-m", "pip", "install", *told, "--python-version", minor, *machine, "-r", "requirements.txt"]
        child = subprocess.run([sys.executable, *asked], cwd=candidate.tree, capture_output=True, text=True)
    if child.returncode:
        lines = [line for line in child.stderr.splitlines() if line.startswith("ERROR")]
        yield candidate.error(
            "no-wheel",
            lines[-1] if lines else f"pip ended with status {child.returncode}",
            "the platform would have to compile it, for which it has neither the time nor the tools",
            "pin a version that has a wheel, or choose another Python",
            "pip.pypa.io/en/stable/cli/pip_download",
        )
