"""Reads what an MLflow model folder says of itself: its flavours, signature, example and requirements, without MLflow.

Source of the format: mlflow-skinny 3.17.2, mlflow/models/{model,utils}.py, mlflow/sklearn/__init__.py; read 2026-11-23.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import PackingError, shorten
from service.packing.sample import Sample

FILE = "MLmodel"
REQUIREMENTS = "requirements.txt"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)
ITSELF = ("mlflow", "mlflow-skinny")
RUNTIMES_OF_FORMATS = {"pickle": "joblib", "cloudpickle": "joblib", "skops": "skops"}


@dataclass(frozen=True)
class Estimator:
    """The scikit-learn flavour: a file that needs no MLflow."""

    file: Path
    runtime: str
    sklearn_version: str | None


class MlflowFolder:
    """A model folder and its `MLmodel`."""

    def __init__(self, folder: Path) -> None:
        """Read `MLmodel`.

        Raises:
            PackingError: If it is not what MLflow writes.
        """
        import yaml  # only packing needs it

        self.folder = folder
        try:
            document = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise PackingError(
                f"{FILE} is not YAML ({type(error).__name__}); save the model again with MLflow"
            ) from error
        if not isinstance(document, dict) or not isinstance(document.get("flavors"), dict):
            raise PackingError(f"{FILE} names no flavors; save the model again with MLflow")
        self._document: dict[str, Any] = document

    def estimator(self) -> Estimator | None:
        """Return the file of the scikit-learn flavour; None where there is only the python_function one.

        Raises:
            PackingError: If there is neither, or the file is of a format that nobody knows, or lies elsewhere.
        """
        flavors = self._document["flavors"]
        told = flavors.get("sklearn")
        if not isinstance(told, dict):
            if "python_function" not in flavors:
                known = shorten(", ".join(map(str, flavors)))
                raise PackingError(f"{FILE} has the flavors {known}; sklearn or python_function is needed")
            return None
        form = told.get("serialization_format", "pickle")
        if form not in RUNTIMES_OF_FORMATS:
            known = ", ".join(RUNTIMES_OF_FORMATS)
            raise PackingError(f"{FILE} has the serialization_format {shorten(str(form))!r}, known are {known}")
        version = told.get("sklearn_version")
        file = self._inside(told.get("pickled_model"), "pickled_model")
        return Estimator(file, RUNTIMES_OF_FORMATS[form], None if version is None else str(version))

    def pins(self) -> dict[str, str]:
        """Return the versions of libraries that the folder's requirements name exactly, but for MLflow's own."""
        try:
            text = (self.folder / REQUIREMENTS).read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return {}
        found = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in PIN.findall(text)}
        return {name: version for name, version in found.items() if name not in ITSELF}

    def names(self) -> tuple[str, ...] | None:
        """Return the features' names in the folder's signature; None where it has none, or one without names."""
        with _as_mlflow_writes("signature"):
            signature = self._document.get("signature")
            inputs = self._json(signature["inputs"], "signature") if signature and signature.get("inputs") else []
            names = [column.get("name") for column in inputs]
            return tuple(map(str, names)) if names and all(name is not None for name in names) else None

    def example(self) -> Sample | None:
        """Return the rows of the folder's input example; None where it has none, or none of plain values.

        Raises:
            PackingError: If it cannot be read.
        """
        with _as_mlflow_writes("saved_input_example_info"):
            told = self._document.get("saved_input_example_info")
            if not told or told.get("type") not in ("dataframe", "ndarray", "json_object"):
                return None
            path = self._inside(told.get("artifact_path"), "artifact_path")
            content = self._json(path.read_text(encoding="utf-8"), path.name)
            if told.get("example_params"):
                content = content["inputs"]
            return _sample(*_rows(content))

    def _inside(self, name: Any, key: str) -> Path:
        path = self.folder / str(name)
        if not path.resolve().is_relative_to(self.folder.resolve()) or not path.is_file():
            raise PackingError(f"{FILE} says {key}: {shorten(str(name))}, and there is no such file in the folder")
        return path

    def _json(self, text: Any, where: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise PackingError(f"{where} of the MLflow folder is not JSON; save the model again with MLflow") from error


@contextmanager
def _as_mlflow_writes(part: str) -> Iterator[None]:
    """Refuse a part that does not have the shape that MLflow gives it."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise PackingError(
            f"{part} of {FILE} is not what MLflow writes ({type(error).__name__}); save the model again with MLflow"
        ) from error


def _rows(content: Any) -> tuple[list[str], list[list[Any]]]:
    """Find names and rows in a frame split into columns and data, in a list of objects, or in a list of lists."""
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        data = content["data"]
        return list(map(str, content.get("columns") or _made_up(data))), data
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        names = list(content[0])
        return names, [[row.get(name) for name in names] for row in content]
    if isinstance(content, list) and content and all(isinstance(row, list) for row in content):
        return _made_up(content), content
    return [], []


def _made_up(rows: list[list[Any]]) -> list[str]:
    return [f"x{index}" for index in range(len(rows[0]) if rows else 0)]


def _sample(names: list[str], rows: list[list[Any]]) -> Sample | None:
    cells = [value for row in rows for value in row]
    if (
        not cells
        or any(isinstance(value, list | dict) for value in cells)
        or {len(row) for row in rows} != {len(names)}
    ):
        return None
    columns = zip(*([_cell(value) for value in row] for row in rows), strict=True)
    return Sample(dict(zip(names, map(list, columns), strict=True)), len(rows))


def _cell(value: Any) -> str:
    """Write a value as a CSV file has it."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
