"""What joblib and skops files have in common: a fitted estimator with scikit-learn's `predict`, called on a table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np

from service.errors import UnreadableModel
from service.manifest import Layout
from service.runtimes.base import Facts, Outputs
from service.signature import TEXTS, Label, Signature, Task
from service.table import NUMPY_DTYPES, Column, Table

log = logging.getLogger(__name__)

PASSING = ("SimpleImputer", "KNNImputer", "IterativeImputer", "FunctionTransformer")
"""Transformers that keep the columns' order, so that an encoder behind them still sees the features one to one."""


class EstimatorRuntime:
    """A fitted estimator, and how its rows are made of a table."""

    def __init__(self, estimator: Any, arrange: Callable[[Table], Any]) -> None:
        self._estimator = estimator
        self._arrange = arrange

    def predict(self, table: Table, probabilities: bool) -> Outputs:
        """Call `predict`, and `predict_proba` where wanted."""
        rows = self._arrange(table)
        predictions = _dense(self._estimator.predict(rows))
        if predictions.ndim == 2 and predictions.shape[1] == 1:
            predictions = predictions[:, 0]
        if not probabilities:
            return Outputs(predictions)
        shares = self._estimator.predict_proba(rows)
        return Outputs(predictions, tuple(map(_dense, shares if isinstance(shares, list) else [shares])))


def bind(model: Any, signature: Signature, layout: Layout) -> EstimatorRuntime:
    """Make a runtime of a loaded estimator."""
    return EstimatorRuntime(model, arrange(signature, layout))


def arrange(signature: Signature, layout: Layout) -> Callable[[Table], Any]:
    """Return what makes the rows of a table as the layout says."""
    return partial(_ARRANGE[layout], signature)


def bind_prepared(model: Any, prepare: Callable[[Table], Any]) -> EstimatorRuntime:
    """Make a runtime of the last step of a loaded pipeline, upon a matrix that steps of our own prepare.

    What it was fitted on may have had names. It gets the same columns in their order, and forgets the names, for it
    would warn of their absence at every call.
    """
    estimator = model.steps[-1][1] if hasattr(model, "steps") else model
    for part in _parts(estimator):
        if hasattr(part, "get_params"):
            vars(part).pop("feature_names_in_", None)
    return EstimatorRuntime(estimator, prepare)


def _dense(answer: Any) -> Column:
    array = np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)
    if array.dtype == object:  # text, and in a multi-output classifier numbers beside it
        plain = np.frompyfunc(lambda cell: cell.item() if isinstance(cell, np.generic) else cell, 1, 1)
        array = plain(array)
    return array


def _frame(signature: Signature, table: Table) -> Any:
    """Make the frame that `pandas.read_csv` would have made of the same rows: missing text is NaN in a `str` column."""
    import pandas

    def series(name: str, dtype: str) -> Any:
        column = table.columns[name]
        if dtype in TEXTS:
            return pandas.array(column, dtype="str")
        gaps = column.dtype == object and any(value is None for value in column)
        if dtype == "int64":
            return column.astype("float64" if gaps else "int64")
        return column if gaps else column.astype(NUMPY_DTYPES[dtype])

    return pandas.DataFrame({f.name: series(f.name, f.dtype) for f in signature.features}, copy=False)


def _categorical_frame(signature: Signature, table: Table) -> Any:
    frame = _frame(signature, table)
    return frame.astype({f.name: "category" for f in signature.features if f.dtype == "string"})


def _matrix(signature: Signature, table: Table) -> Any:
    texts = any(feature.dtype in (*TEXTS, "datetime") for feature in signature.features)
    return np.column_stack([table.columns[name].astype(object if texts else float) for name in signature.names])


def _column(signature: Signature, table: Table) -> Any:
    return table.columns[signature.names[0]]


_ARRANGE: dict[Layout, Callable[[Signature, Table], Any]] = {
    "frame": _frame,
    "categorical-frame": _categorical_frame,
    "matrix": _matrix,
    "column": _column,
}
LAYOUTS: tuple[Layout, ...] = (*_ARRANGE, "prepared")


def examine(model: Any) -> Facts:
    """Tell what a fitted estimator tells about itself.

    Raises:
        UnreadableModel: If the object is not an estimator that predicts.
    """
    if not callable(getattr(model, "predict", None)):
        raise UnreadableModel(
            f"the file holds a {type(model).__name__}, which has no predict(); save the fitted estimator "
            "or pipeline itself"
        )
    _check_categoricals(model)
    names = _feature_names(model)
    n_features = getattr(model, "n_features_in_", None)
    if names is None and n_features is None and _is_unfitted(model):
        raise UnreadableModel(f"the {type(model).__name__} in the file is not fitted; call fit() before saving it")
    return Facts(
        task=_task(model),
        names=names,
        n_features=None if n_features is None else int(n_features),
        classes=_classes(model) if hasattr(model, "predict_proba") else None,
        categories=dict(_known_categories(model, names)) if names else {},
        libraries=tuple(sorted(libraries_of(model) | {"scikit-learn", "numpy"})),
    )


def _check_categoricals(model: Any) -> None:
    """Refuse LightGBM's categoricals of numbers: a CSV shows no difference to numbers, and text would match none."""
    for part in _parts(model):
        known = getattr(getattr(part, "_Booster", None), "pandas_categorical", None) or []
        if any(not isinstance(value, str) for values in known for value in values):
            raise UnreadableModel(
                "the model was trained on a pandas categorical of numbers, which a request cannot tell from numbers; "
                "train it on the numbers themselves, or on a categorical of text"
            )


def _is_unfitted(model: Any) -> bool:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError:
        return True
    except TypeError:
        log.debug("%s is not of scikit-learn's family", type(model).__name__)
    return False


def _feature_names(model: Any) -> tuple[str, ...] | None:
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        return None
    found = tuple(map(str, names))
    # LightGBM makes these names up when it was fitted on an array.
    return None if found == tuple(f"Column_{index}" for index in range(len(found))) else found


def _classes(model: Any) -> tuple[tuple[Label, ...], ...] | None:
    classes = getattr(model, "classes_", None)
    if classes is None:
        return None
    outputs = classes if isinstance(classes, list) else [classes]
    return tuple(tuple(np.asarray(labels).tolist()) for labels in outputs)


def _task(model: Any) -> Task:
    from sklearn import base

    kinds: list[tuple[Any, Task]] = [
        (base.is_classifier, "classification"),
        (base.is_regressor, "regression"),
        (base.is_outlier_detector, "outliers"),
        (base.is_clusterer, "clustering"),
    ]
    for is_kind, task in kinds:
        try:
            if is_kind(model):
                return task
        except (AttributeError, TypeError):  # not scikit-learn's own family: it carries no tags
            break
    return "classification" if hasattr(model, "classes_") else "other"


def _parts(model: Any) -> Iterator[Any]:
    """Walk over an estimator and everything that it was composed of."""
    pending, seen = [model], set()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, list | tuple):
            pending.extend(part)
        elif isinstance(part, dict):
            pending.extend(part.values())
        elif hasattr(part, "get_params"):
            pending.extend(vars(part).values())


@cache
def _owners() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def libraries_of(model: Any) -> set[str]:
    """Return the distributions that the classes, functions and modules come from which make up a model."""
    owners = _owners()
    modules = {_module(part) for part in _parts(model)}
    roots = {module.partition(".")[0] for module in modules if isinstance(module, str)}
    found = {owners[root][0] for root in roots if root in owners}
    return found


def _module(part: Any) -> Any:
    if isinstance(part, ModuleType):
        return part.__name__
    return getattr(part, "__module__", None) or type(part).__module__


def _known_categories(model: Any, names: tuple[str, ...]) -> Iterable[tuple[str, tuple[Any, ...]]]:
    """Find the categories that fitted encoders hold for single features."""
    if hasattr(model, "best_estimator_"):
        yield from _known_categories(model.best_estimator_, names)
    elif hasattr(model, "transformers_"):
        for _, transformer, columns in model.transformers_:
            chosen = chosen_columns(columns, names)
            if chosen and not isinstance(transformer, str):
                yield from _known_categories(transformer, chosen)
    elif hasattr(model, "steps"):
        for _, step in model.steps:
            yield from _known_categories(step, names)
            if type(step).__name__ not in PASSING:
                return
    elif len(getattr(model, "categories_", ())) == len(names):
        for name, values in zip(names, model.categories_, strict=True):
            known = [_plain_category(value) for value in np.asarray(values).tolist()]
            known = [value for value in known if value is not None]
            if known and len({type(value) for value in known}) == 1:
                yield name, tuple(known)


def _plain_category(value: Any) -> str | int | None:
    """A text or whole number as it is; None for a missing value, and for what no feature has as a category."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) in (str, int) else None


def _by_position(columns: slice, names: tuple[str, ...]) -> slice:
    """Translate a slice between two names, which holds the last one too, into one between positions."""
    if not isinstance(columns.start, str) and not isinstance(columns.stop, str):
        return columns
    start, stop = columns.start, columns.stop
    return slice(start and names.index(start), stop and names.index(stop) + 1, columns.step)


def chosen_columns(columns: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    """Translate a ColumnTransformer's column selection into names."""
    if isinstance(columns, str):
        return (columns,)
    if isinstance(columns, slice):
        return names[_by_position(columns, names)]
    wanted = np.atleast_1d(columns).tolist()
    if wanted and all(isinstance(column, bool) for column in wanted):
        return tuple(name for name, keep in zip(names, wanted, strict=True) if keep)
    return tuple(column if isinstance(column, str) else names[column] for column in wanted)
