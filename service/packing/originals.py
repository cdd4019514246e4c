"""Finds out what was given to be packed: one file of a format, or a folder whose files belong together."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from service.errors import PackingError
from service.packing.mlflow_folder import FILE, MlflowFolder
from service.packing.sample import Sample
from service.runtimes import RUNTIMES
from service.runtimes.archive import extract, write_archive
from service.runtimes.score import EXPORTED, SCRIPT, find_script


@dataclass(frozen=True)
class Original:
    """A model as it was given: the one file to pack, which runtime opens it, and what stood around it."""

    file: Path
    label: str
    runtime: str
    suffix: str
    """What the packed file's name ends in."""
    made_with: Mapping[str, str] = field(default_factory=dict)
    """Versions of libraries that the files around it name."""
    example: Callable[[], Sample | None] = lambda: None
    """Reads the rows that came with it, where they are asked for."""
    names: tuple[str, ...] | None = None
    """The features' names in a signature that came with it."""


@contextmanager
def find_original(model: Path) -> Iterator[Original]:
    """Find the file to pack; where that must be made of others, it is there until the block ends.

    Raises:
        PackingError: If nothing of what was given can be packed.
        PackageError: If files are damaged, or may not be packed.
    """
    with tempfile.TemporaryDirectory(prefix="anyport-packing-") as scratch:
        try:
            found = _find(model, Path(scratch))
        except OSError as error:
            raise PackingError(f"the model {model} cannot be read: {error.strerror}") from error
        yield found


def _find(model: Path, scratch: Path) -> Original:
    if model.is_dir():
        return _of_folder(model, model.resolve().name, scratch)
    for runtime, module in RUNTIMES.items():
        for suffix in module.SUFFIXES:
            if model.name.lower().endswith(suffix):
                return Original(model, model.name, runtime, suffix)
    if model.suffix.lower() == ".zip":
        return _of_folder(_unzipped(model, scratch), model.name, scratch)
    if model.suffix == ".py":
        return _of_script(model, scratch)
    known = ", ".join(suffix for module in RUNTIMES.values() for suffix in module.SUFFIXES)
    raise PackingError(
        f"{model.name} ends in none of {known}, .zip and .py, and is no folder; save the model in one of these formats"
    )


def _unzipped(model: Path, scratch: Path) -> Path:
    """Unpack what a platform exported; where all of it is in one folder, that is the model's."""
    folder = scratch / "unzipped"
    folder.mkdir()
    with model.open("rb") as stream:
        extract(stream, folder, model.name)
    inner = [path for path in folder.iterdir() if not path.name.startswith((".", "__"))]
    return inner[0] if len(inner) == 1 and inner[0].is_dir() else folder


def _of_folder(folder: Path, label: str, scratch: Path) -> Original:
    if (folder / FILE).is_file():
        return _of_mlflow(MlflowFolder(folder), label, scratch)
    if find_script(folder) is not None:
        return _archived(folder, label, "score", scratch)
    raise PackingError(
        f"{label} holds no `{FILE}`, as a model of MLflow does, and no {SCRIPT} or {EXPORTED}, as one for Azure ML "
        "does; give the model's file"
    )


def _of_script(script: Path, scratch: Path) -> Original:
    """Take a script with everything that stands beside it."""
    if not script.is_file():
        raise PackingError(f"the model {script} cannot be read: there is no such file")
    found = find_script(script.parent)
    if found is None or found.name != script.name:
        instead = "" if found is None else f" beside it, {found.name} is the one that would be taken;"
        raise PackingError(f"{script.name} is not called {SCRIPT} or {EXPORTED};{instead} call it {SCRIPT}")
    return _archived(script.resolve().parent, script.name, "score", scratch)


def _of_mlflow(told: MlflowFolder, label: str, scratch: Path) -> Original:
    estimator = told.estimator()
    if estimator is None:
        original = replace(_archived(told.folder, label, "mlflow", scratch), made_with=told.pins())
    else:
        version = estimator.sklearn_version
        made_with = {} if version is None else {"scikit-learn": version}
        suffix = ".skops" if estimator.runtime == "skops" else ".pkl"
        original = Original(estimator.file, label, estimator.runtime, suffix, made_with)
    return replace(original, example=told.example, names=told.names())


def _archived(folder: Path, label: str, runtime: str, scratch: Path) -> Original:
    (suffix,) = RUNTIMES[runtime].SUFFIXES
    archive = scratch / f"model{suffix}"
    write_archive(folder, archive)
    return Original(archive, label, runtime, suffix)
