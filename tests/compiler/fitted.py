"""Fitted estimators for the compiler's tests: their samples, rows that they have never seen, and both forms.

Numbers of the samples are eighths, so that the thresholds of trees, which lie halfway, are sixteenths and exact in
single precision: fresh rows, which are sixteenths too, come to many splits with just the threshold.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from service.compiler import Compiled, compile_model
from service.manifest import Layout
from service.runtimes import RUNTIMES, Outputs, Policy, Runtime, Source
from service.signature import Dtype, Feature, Output, Signature
from service.table import Table, table_from_rows

COLOURS = ("red", "green", "blue", "ochre")
RARE = "puce"


def sample(n_rows: int = 120, *, gaps: bool = False, seed: int = 0) -> Any:
    """Rows of three numbers, a whole number, a switch and two texts; with gaps in three of them where wanted."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(-24, 25, (n_rows, 3)) / 8
    frame = pandas.DataFrame(numbers, columns=["a", "b", "c"]).assign(
        n=rng.integers(0, 9, n_rows),
        open=rng.random(n_rows) < 0.5,
        colour=pandas.array(rng.choice(COLOURS, n_rows), dtype="str"),
        size=pandas.array(rng.choice(["S", "M", "L"], n_rows), dtype="str"),
    )
    frame.loc[3, "colour"] = RARE
    if gaps:
        for name in ("a", "b", "colour"):
            frame.loc[rng.random(n_rows) < 0.2, name] = np.nan
    return frame


def number(frame: Any) -> Any:
    """A target for regressors that hangs on every kind of column."""
    return (
        (frame.a.fillna(0.3) * 2 - frame.b.fillna(-1) ** 2 + frame.c * (frame.n % 3))
        .add(frame.open * 1.5)
        .add(frame.colour.map({"red": 1.0, "green": -2.0, "blue": 0.5}).fillna(3.0))
        .to_numpy()
    )


def kinds(frame: Any, n_classes: int = 3) -> Any:
    """Labels for classifiers, of about equal number."""
    ranks = number(frame).argsort().argsort()
    return np.array(["high", "low", "middle", "odd"])[ranks * n_classes // len(frame)]


def fresh(frame: Any, signature: Signature, n_rows: int = 400, *, seed: int = 1) -> list[dict[str, Any]]:
    """Rows that no sample has: sixteenths, far numbers, and what is missing or unseen where the signature takes it."""
    rng = np.random.default_rng(seed)
    cells = {}
    for feature in signature.features:
        known = list(frame[feature.name].dropna().unique())
        if feature.dtype == "string":
            values = rng.choice([*known, *([] if feature.closed else ["never seen", ""])], n_rows).tolist()
        elif feature.dtype == "bool":
            values = (rng.random(n_rows) < 0.5).tolist()
        elif feature.dtype == "int64":
            values = rng.integers(-3, 14, n_rows).tolist()
        else:
            values = rng.integers(-60, 61, n_rows) / 16
            wide = rng.random(n_rows) < 0.2
            values = np.where(wide, rng.normal(0, 50, n_rows), values).tolist()
        if feature.takes_null:
            values = [None if gone else value for value, gone in zip(values, rng.random(n_rows) < 0.15, strict=True)]
        cells[feature.name] = values
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def outputs_of(model: Any, answers: Any) -> tuple[Output, ...]:
    """The outputs of a model that answered these."""
    width = answers.shape[1] if answers.ndim == 2 else 1
    dtype: Dtype = "float64" if answers.dtype.kind == "f" else "int64" if answers.dtype.kind in "iu" else "string"
    found = getattr(model, "classes_", None) if hasattr(model, "predict_proba") else None
    classes = [None] * width if found is None else found if isinstance(found, list) else [found]
    labels = [None if known is None else tuple(np.asarray(known).tolist()) for known in classes]
    return tuple(Output(name=f"y{index}", dtype=dtype, classes=labels[index]) for index in range(width))


def feature_of(frame: Any, name: str, closed: tuple[str, ...], takes_null: bool) -> Feature:
    """A feature as packing would describe it."""
    column = frame[name]
    dtypes: dict[str, Dtype] = {"f": "float64", "i": "int64", "b": "bool"}
    dtype = dtypes.get(column.dtype.kind, "string")
    ends = {} if dtype in ("string", "bool") else {"minimum": float(column.min()), "maximum": float(column.max())}
    categories = tuple(column.dropna().unique().tolist()) if dtype == "string" else None
    return Feature(
        name=name,
        dtype=dtype,
        nullable=takes_null and bool(column.isna().any()),
        categories=categories,
        closed=name in closed,
        **ends,
    )


@dataclass
class Fitted:
    """A fitted estimator, and the frame that it was fitted on.

    `closed` names the text features whose unseen values the estimator refuses; `takes_null` says whether gaps of the
    sample are values that it takes.
    """

    model: Any
    frame: Any
    layout: Layout = "frame"
    closed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        features = tuple(feature_of(self.frame, name, self.closed, True) for name in self.frame.columns)
        bare = Signature(features=features, outputs=(Output(name="y", dtype="float64"),))
        runtime = RUNTIMES["joblib"].bind(self.model, bare, self.layout)
        answers = runtime.predict(table_from_rows(bare, self.rows[:20]), False).predictions
        self.signature = Signature(features=features, outputs=outputs_of(self.model, answers))
        self.original: Runtime = RUNTIMES["joblib"].bind(self.model, self.signature, self.layout)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The sample's rows, as values by feature."""
        plain = self.frame.astype(object).where(self.frame.notna(), None)
        return plain.to_dict("records")

    @property
    def table(self) -> Table:
        """The sample's rows, as the service holds them."""
        return table_from_rows(self.signature, self.rows)

    def fresh(self, n_rows: int = 400, seed: int = 1) -> Table:
        """Rows that neither the estimator nor the proof has seen."""
        return table_from_rows(self.signature, fresh(self.frame, self.signature, n_rows, seed=seed))

    def compile(self) -> Compiled:
        """Compile and prove it as packing does."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile_model(self.model, self.original, self.signature, self.table, self.rows)

    def open(self, compiled: Compiled) -> Runtime:
        """Open the compiled form as a worker does."""
        module = RUNTIMES[compiled.runtime]
        loaded = module.load(io.BytesIO(compiled.content), Source("it/1"), Policy())
        return module.bind(loaded.model, self.signature, "table")

    def ask(self, runtime: Runtime, table: Table) -> Outputs:
        """Ask one of the forms for everything that it can answer."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return runtime.predict(table, self.signature.has_probabilities)


def assert_alike(expected: Outputs, found: Outputs, *, rtol: float = 1e-9, atol: float = 1e-9) -> None:
    """Assert that labels are equal and numbers as good as equal."""
    if expected.predictions.dtype.kind == "f":
        _assert_close(expected.predictions, found.predictions, rtol, atol)
    else:
        assert found.predictions.tolist() == expected.predictions.tolist()
    for wanted, given in zip(expected.probabilities or (), found.probabilities or (), strict=True):
        _assert_close(wanted, given, rtol, atol)


def _assert_close(wanted: Any, given: Any, rtol: float, atol: float) -> None:
    """Of numbers that were calculated in single precision the last digits are not sure: four steps are granted."""
    steps = 4 * float(np.finfo(np.float32).eps) if wanted.dtype == np.float32 else 0.0
    np.testing.assert_allclose(given, wanted, rtol=max(rtol, steps), atol=atol)
