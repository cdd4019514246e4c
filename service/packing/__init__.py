"""Makes a model package of a fitted model and a sample: signature, evidence and files, atomically into the store.

Only the commands import this room; a worker never does.
"""

from __future__ import annotations

import platform
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from service.errors import PackageError, PackingError, shorten
from service.manifest import Artifact, Cost, Manifest, PackedFile
from service.packing import golden, statistics
from service.packing.compiling import Compiling, Evidence, add_compiled, stage_compiled
from service.packing.originals import Original, find_original
from service.packing.sample import Sample, read_sample
from service.packing.study import Choices, Study
from service.runtimes import RUNTIMES, Loaded, Policy, RuntimeModule, Source
from service.runtimes.base import check_skew
from service.store import Store, add_file, suits, write_manifest
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
    model: Path,
    sample_file: Path | None,
    store: Store,
    policy: Policy,
    choices: Choices,
    *,
    name: str | None = None,
    version: str | None = None,
    compiling: Compiling = "auto",
    tell: Callable[[str], None] = lambda message: None,
) -> Packed:
    """Make a package of a fitted model, a file or a folder, and a CSV sample of the rows that it was made for.

    Without a sample, the rows that an MLflow folder has as its example are the sample.

    Raises:
        PackingError: If something is wrong with the model, the sample or the choices. Nothing is left behind.
        PackageError: If the model file cannot be loaded.
    """
    name = name or _slug(_stem(model))
    version = version or store.next_version(name)
    store.check_free(name, version)
    with find_original(model) as original:
        tell("reading the sample")
        sample = _sample(original, sample_file, choices)
        tell("loading the model")
        module = RUNTIMES[original.runtime]
        loaded, made_with = _load(original, module, policy)
        facts = module.examine(loaded.model)
        sample = sample.knowing(facts.categories)
        tell("finding out what it takes")
        study = Study(module, loaded.model, facts, sample, choices)
        study.run()
        with store.staging() as folder:
            staged = folder / name / version
            staged.mkdir(parents=True)
            with original.file.open("rb") as stream:
                entry = add_file(staged, f"model{original.suffix}", stream)
            artifact = Artifact(runtime=original.runtime, file=entry.name, layout=study.candidate.layout)
            libraries = {library: metadata.version(library) for library in facts.libraries} | made_with
            draft = _draft(name, version, entry, artifact, study, libraries, loaded.types)
            tell("compiling it, and asking both forms the same rows")
            evidence = Evidence(loaded.model, study.table, study.rows)
            draft, notes = add_compiled(staged, draft, evidence, compiling)
            manifest = _measure(Store(folder), staged, draft, policy, tell)
            told = _signature_notes(original, manifest)
            return Packed(manifest, store.add(staged, manifest), (*study.notes, *told, *notes))


def _sample(original: Original, sample_file: Path | None, choices: Choices) -> Sample:
    if sample_file is not None:
        return read_sample(sample_file, choices.separator)
    example = original.example()
    if example is None:
        raise PackingError(
            f"{original.label} brings no example of its rows; say --sample with a CSV of rows that it was made for"
        )
    return example


def _signature_notes(original: Original, manifest: Manifest) -> Iterator[str]:
    """Tell where a signature that came with the model names other features, or names them in another order."""
    names = manifest.signature.names
    if original.names is not None and original.names != names:
        yield (
            f"the signature that came with the model has {shorten(', '.join(original.names), 200)}, and the package "
            f"has {shorten(', '.join(names), 200)}: requests must have these"
        )


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


def _load(original: Original, module: RuntimeModule, policy: Policy) -> tuple[Loaded, dict[str, str]]:
    """Load a model that has no manifest yet; return also versions of libraries that it says it was made with.

    Only packing may catch warnings: their filters are the whole process's, and threads take them from each other.

    Source: docs.python.org/3/library/warnings.html#warnings.catch_warnings, read 2026-11-23.
    """
    from sklearn.exceptions import InconsistentVersionWarning

    made_with = dict(_installed_of(original.made_with))
    for library, version in made_with.items():
        _check_version(policy, original, library, version)
    with warnings.catch_warnings(record=True, action="always", category=InconsistentVersionWarning) as caught:
        loaded = _read(original, module, policy)
    for warning in caught:
        if isinstance(warning.message, InconsistentVersionWarning):
            made_with["scikit-learn"] = warning.message.original_sklearn_version
        else:
            warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
    if "scikit-learn" in made_with:
        _check_version(policy, original, "scikit-learn", made_with["scikit-learn"])
    return loaded, made_with


def _installed_of(versions: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Leave out what is not installed: if the model needs it, loading it says so."""
    for library, version in versions.items():
        with suppress(metadata.PackageNotFoundError):
            metadata.version(library)
            yield library, version


def _check_version(policy: Policy, original: Original, library: str, made_with: str) -> None:
    here = metadata.version(library)
    if not suits(library, made_with, here):
        check_skew(policy, original.label, library, made_with, here)


def _read(original: Original, module: RuntimeModule, policy: Policy) -> Loaded:
    try:
        with original.file.open("rb") as stream:
            return module.load(stream, Source(original.label), policy)
    except OSError as error:
        raise PackingError(f"the model {original.file} cannot be read: {error.strerror}") from error


def _stem(model: Path) -> str:
    """What a model is called by the user: its folder, or its file; a script is called like everybody's."""
    if model.is_dir():
        return model.resolve().name
    return model.resolve().parent.name if model.suffix == ".py" else model.stem


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
