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
from service.runtimes.archive import write_archive


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
            found = _of_folder(model, Path(scratch)) if model.is_dir() else _of_file(model)
        except OSError as error:
            raise PackingError(f"the model {model} cannot be read: {error.strerror}") from error
        yield found


def _of_file(model: Path) -> Original:
    for runtime, module in RUNTIMES.items():
        for suffix in module.SUFFIXES:
            if model.name.lower().endswith(suffix):
                return Original(model, model.name, runtime, suffix)
    known = ", ".join(suffix for module in RUNTIMES.values() for suffix in module.SUFFIXES)
    raise PackingError(
        f"{model.name} ends in none of {known}, and is no folder; save the model in one of these formats"
    )


def _of_folder(folder: Path, scratch: Path) -> Original:
    if not (folder / FILE).is_file():
        raise PackingError(
            f"the folder {folder} holds no file `{FILE}`, as a model of MLflow does; give the model's file"
        )
    told = MlflowFolder(folder)
    estimator = told.estimator()
    if estimator is None:
        archive = scratch / "model.mlflow.zip"
        write_archive(folder, archive)
        original = Original(archive, folder.name, "mlflow", ".mlflow.zip", told.pins())
    else:
        version = estimator.sklearn_version
        made_with = {} if version is None else {"scikit-learn": version}
        suffix = ".skops" if estimator.runtime == "skops" else ".pkl"
        original = Original(estimator.file, folder.name, estimator.runtime, suffix, made_with)
    return replace(original, example=told.example, names=told.names())
