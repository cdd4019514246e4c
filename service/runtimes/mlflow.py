"""The MLflow runtime: model folders through MLflow's own `python_function` flavour. Loading one runs its code.

Folders of the scikit-learn flavour are not opened here: packing takes the estimator out of them.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from service.errors import MissingLibrary, UnreadableModel, shorten
from service.manifest import Layout
from service.runtimes.archive import remove, unpacked
from service.runtimes.base import Facts, Loaded, Policy, Source, check_trust, missing_module, spell
from service.runtimes.estimator import EstimatorRuntime, arrange
from service.runtimes.own_code import alone
from service.signature import Dtype, Signature
from service.table import Table

__all__ = ["IMPORTS", "LAYOUTS", "LIBRARIES", "SUFFIXES", "bind", "examine", "load"]

SUFFIXES = (".mlflow.zip",)
LAYOUTS: tuple[Layout, ...] = ("frame", "matrix")
LIBRARIES = ("mlflow-skinny",)
IMPORTS = ("pandas",)

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true"}
"""MLflow reads it while it is imported; without it, it reports to its makers.

Source: mlflow-skinny 3.17.2 mlflow/telemetry/utils.py, read 2026-11-23.
"""
DTYPES: dict[str, Dtype] = {
    "double": "float64",
    "float": "float32",
    "long": "int64",
    "integer": "int64",
    "boolean": "bool",
    "string": "string",
    "datetime": "datetime",
}
"""MLflow's column types and ours. Source: mlflow.org/docs/latest/ml/model/signatures, read 2026-11-23."""
NARROW = {"float": "float32", "integer": "int32"}
"""Types of columns that MLflow refuses wider ones for."""

log = logging.getLogger(__name__)


def load(stream: BinaryIO, source: Source, policy: Policy) -> Loaded:
    """Unpack a model folder and let MLflow open it."""
    check_trust(policy, source.label, "an MLflow folder")
    with unpacked(stream, source.label) as folder:
        if not (folder / "MLmodel").is_file():
            raise UnreadableModel(f"{source.label}: the archive holds no file `MLmodel`; pack the model again")
        with alone(folder, QUIET):
            model = _open(folder, source)
        weakref.finalize(model, remove, folder)
    return Loaded(model)


def _open(folder: Path, source: Source) -> Any:
    try:
        from mlflow import pyfunc
    except ImportError as error:
        raise MissingLibrary(
            f"{source.label}: opening an MLflow folder needs mlflow-skinny; write `mlflow-skinny` into requirements.in "
            "and run `make lock install`"
        ) from error
    try:
        return pyfunc.load_model(str(folder), suppress_warnings=True)
    except ModuleNotFoundError as error:
        raise missing_module(source.label, error.name or "a module") from error
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # its code may raise anything
        log.exception("%s could not be opened by MLflow", source.label)
        raise UnreadableModel(
            f"{source.label}: MLflow cannot open the folder ({spell(error, source)}); check that it holds a whole "
            "model with the python_function flavour"
        ) from error


def bind(model: Any, signature: Signature, layout: Layout) -> EstimatorRuntime:
    """Make a runtime of an open model, whose rows have the types that its own signature names."""
    return EstimatorRuntime(model, _Typed(arrange(signature, layout), model.metadata.get_input_schema()))


class _Typed:
    """Makes rows of a table, of the types that MLflow's signature asks for."""

    def __init__(self, arrange: Callable[[Table], Any], schema: Any) -> None:
        self._arrange = arrange
        self._tensor = schema.inputs[0].type if schema is not None and schema.is_tensor_spec() else None
        columns = [] if schema is None or schema.is_tensor_spec() else schema.inputs
        self._narrow = {at: NARROW[kind] for at, kind in enumerate(map(_kind, columns)) if kind in NARROW}

    def __call__(self, table: Table) -> Any:
        rows = self._arrange(table)
        if self._tensor is not None:
            return _cast(rows, self._tensor)
        for at, dtype in self._narrow.items():
            name = rows.columns[at]
            rows[name] = _cast(rows[name], dtype)
        return rows


def _cast(values: Any, dtype: Any) -> Any:
    cast = values.astype(dtype)
    if cast.dtype.kind in "iub" and not np.array_equal(cast, values):
        raise OverflowError(f"a number does not fit into {dtype}")
    return cast


def examine(model: Any) -> Facts:
    """Tell the names and types of the model's own signature, where it has one.

    Raises:
        UnreadableModel: If it takes what no row of plain values is.
    """
    schema = model.metadata.get_input_schema()
    if schema is None:
        return Facts(task="other", layouts=LAYOUTS, libraries=LIBRARIES)
    if schema.is_tensor_spec():
        width = _width(schema)
        return Facts(task="other", n_features=width, layouts=("matrix",), libraries=LIBRARIES)
    unknown = [
        f"{column.name or 'a column'}: {_kind(column)}" for column in schema.inputs if _kind(column) not in DTYPES
    ]
    if unknown:
        raise UnreadableModel(
            f"the signature in MLmodel has {shorten(', '.join(unknown), 200)}; a row may have columns of "
            f"{', '.join(DTYPES)}"
        )
    return Facts(
        task="other",
        names=tuple(map(str, schema.input_names())) if schema.has_input_names() else None,
        n_features=len(schema.inputs),
        dtypes=tuple(DTYPES[_kind(column)] for column in schema.inputs),
        layouts=("frame",),
        libraries=LIBRARIES,
    )


def _kind(column: Any) -> str:
    """The name of a column's type; of an array or an object it is MLflow's whole description."""
    return str(getattr(column.type, "name", column.type))


def _width(schema: Any) -> int | None:
    """How many features one tensor holds, None if it takes any number.

    Raises:
        UnreadableModel: If it is not one tensor of numbers in two dimensions.
    """
    shapes = [tuple(tensor.shape) for tensor in schema.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or schema.inputs[0].type.kind not in "fiub":
        raise UnreadableModel(
            f"the signature in MLmodel has the tensors {shorten(str(schema.inputs), 200)}; rows of plain values fit "
            "into one of numbers in two dimensions"
        )
    return shapes[0][1] if shapes[0][1] > 0 else None
