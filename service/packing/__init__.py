"""Makes a model package of a fitted model and a sample: signature, evidence and files, atomically into the store.

Only the commands import this room; a worker never does.
"""

from __future__ import annotations

import platform
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from service.errors import PackageError, PackingError
from service.manifest import Artifact, Cost, Manifest, PackedFile
from service.packing import golden, statistics
from service.packing.compiling import Compiling, Evidence, add_compiled, stage_compiled
from service.packing.sample import read_sample
from service.packing.study import Choices, Study
from service.runtimes import RUNTIMES, Loaded, Policy, RuntimeModule, Source
from service.runtimes.base import check_skew
from service.store import Store, add_file, write_manifest
from service.trial import Limits, try_out

__all__ = ["Choices", "Compiling", "Packed", "compile_package", "pack"]

RECORDED = ("numpy", "scipy", "pandas", "scikit-learn", "joblib", "skops", "onnxruntime")


@dataclass(frozen=True)
class Packed:
    """A new package, where it is, and what the user should know about it."""

    manifest: Manifest
    folder: Path
    notes: tuple[str, ...]


def pack(
    model_file: Path,
    sample_file: Path,
    store: Store,
    policy: Policy,
    choices: Choices,
    *,
    name: str | None = None,
    version: str | None = None,
    compiling: Compiling = "auto",
    tell: Callable[[str], None] = lambda message: None,
) -> Packed:
    """Make a package of a fitted model and a CSV sample of the rows that it was made for.

    Raises:
        PackingError: If something is wrong with the model, the sample or the choices. Nothing is left behind.
        PackageError: If the model file cannot be loaded.
    """
    name = name or _slug(model_file.stem)
    version = version or store.next_version(name)
    store.check_free(name, version)
    tell("reading the sample")
    sample = read_sample(sample_file, choices.separator)
    tell("loading the model")
    runtime, module = _runtime(model_file)
    loaded, made_with = _load(model_file, module, policy)
    facts = module.examine(loaded.model)
    sample = sample.knowing(facts.categories)
    tell("finding out what it takes")
    study = Study(module, loaded.model, facts, sample, choices)
    study.run()
    with store.staging() as folder:
        staged = folder / name / version
        staged.mkdir(parents=True)
        with model_file.open("rb") as stream:
            entry = add_file(staged, f"model{model_file.suffix}", stream)
        artifact = Artifact(runtime=runtime, file=entry.name, layout=study.candidate.layout)
        libraries = {library: metadata.version(library) for library in facts.libraries} | made_with
        draft = _draft(name, version, entry, artifact, study, libraries, loaded.types)
        tell("compiling it, and asking both forms the same rows")
        evidence = Evidence(loaded.model, study.table, study.rows)
        draft, notes = add_compiled(staged, draft, evidence, compiling)
        manifest = _measure(Store(folder), staged, draft, policy, tell)
        return Packed(manifest, store.add(staged, manifest), (*study.notes, *notes))


def compile_package(
    name: str,
    version: str | None,
    store: Store,
    policy: Policy,
    *,
    sample_file: Path | None = None,
    separator: str = ",",
    tell: Callable[[str], None] = lambda message: None,
) -> Packed:
    """Make the next version of a package, with a compiled form in front of the original.

    Raises:
        PackingError: If there is no compiled form that answers like the original; it says why.
        PackageError: If the package cannot be opened.
    """
    manifest = store.manifest(name, version or store.active(name))
    sample = read_sample(sample_file, separator) if sample_file is not None else None
    with store.staging() as folder:
        staged = folder / name / store.next_version(name)
        staged.mkdir(parents=True)
        tell("compiling it, and asking both forms the same rows")
        draft = stage_compiled(store, staged, manifest, staged.name, policy, sample)
        made = _measure(Store(folder), staged, draft, policy, tell)
        return Packed(made, store.add(staged, made), ())


def _measure(folder: Store, staged: Path, draft: Manifest, policy: Policy, tell: Callable[[str], None]) -> Manifest:
    write_manifest(staged, draft)
    tell("opening it in a fresh process and measuring")
    return draft.model_copy(update={"cost": _cost(folder, draft, policy)})


def _draft(
    name: str,
    version: str,
    entry: PackedFile,
    artifact: Artifact,
    study: Study,
    libraries: dict[str, str],
    types: tuple[str, ...],
) -> Manifest:
    """Make the manifest, but for the cost, which is measured on what it describes."""
    return Manifest(
        name=name,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=study.task,
        signature=study.candidate.signature,
        files=(entry,),
        artifacts=(artifact,),
        libraries=libraries,
        environment=_environment(),
        skops_types=types,
        golden=golden.choose_golden(study.candidate, study.rows, study.predictions),
        metrics=study.metrics,
        statistics=statistics.describe_columns(study.candidate.signature, study.table),
        cost=Cost(microseconds={}, model_mib=0, process_mib=0),
    )


def _cost(staged: Store, draft: Manifest, policy: Policy) -> Cost:
    try:
        return try_out(staged, draft.name, draft.version, policy, Limits(), timings=True)
    except PackageError as error:
        raise PackingError(f"a fresh process could not serve the packed model: {error.detail}") from error


def _runtime(model_file: Path) -> tuple[str, RuntimeModule]:
    for name, module in RUNTIMES.items():
        if model_file.suffix.lower() in module.SUFFIXES:
            return name, module
    known = ", ".join(suffix for module in RUNTIMES.values() for suffix in module.SUFFIXES)
    raise PackingError(f"{model_file.name} ends in none of {known}; save the model in one of these formats")


def _load(model_file: Path, module: RuntimeModule, policy: Policy) -> tuple[Loaded, dict[str, str]]:
    """Load a model that has no manifest yet; return the version of scikit-learn in its state too, where it is another.

    Only packing may catch warnings: their filters are the whole process's, and threads take them from each other.

    Source: docs.python.org/3/library/warnings.html#warnings.catch_warnings, read 2026-11-23.
    """
    from sklearn.exceptions import InconsistentVersionWarning

    made_with: dict[str, str] = {}
    with warnings.catch_warnings(record=True, action="always", category=InconsistentVersionWarning) as caught:
        loaded = _read(model_file, module, policy)
    for warning in caught:
        if isinstance(warning.message, InconsistentVersionWarning):
            made_with.setdefault("scikit-learn", warning.message.original_sklearn_version)
        else:
            warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
    for library, version in made_with.items():
        check_skew(policy, model_file.name, library, version, metadata.version(library))
    return loaded, made_with


def _read(model_file: Path, module: RuntimeModule, policy: Policy) -> Loaded:
    try:
        with model_file.open("rb") as stream:
            return module.load(stream, Source(model_file.name), policy)
    except OSError as error:
        raise PackingError(f"the model {model_file} cannot be read: {error.strerror}") from error


def _slug(stem: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_") or "model"


def _environment() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for library in RECORDED:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found
