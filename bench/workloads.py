"""What is asked: the models, trained once, and the bodies that are made of rows they have not seen."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy
import pandas
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

ROOT = Path(__file__).resolve().parent.parent
GRADES = ["color", "clarity"]
TRAINING_ROWS = 5_000
"""Enough for a forest of about 20 MiB, which is an ordinary size."""
CHECKED_ROWS = 1_000
JITTER = 0.01
"""Drawn rows differ from the originals by about one percent, so that no two requests need be equal."""


@dataclass(frozen=True)
class Workload:
    """One table of results: which model, how many rows a request, over how many connections."""

    name: str
    model: str
    rows: int
    connections: tuple[int, ...] = (1, 16, 64)
    bodies: int = 64
    media: str = "application/json"


WORKLOADS = {
    each.name: each
    for each in (
        Workload("penguins", "penguins", 1),
        Workload("forest", "forest", 1),
        Workload("boosting", "boosting", 1),
        Workload("boosting-100", "boosting", 100),
        # A body is about 450 KiB: more connections than processors would only measure a queue.
        Workload("csv-10000", "boosting", 10_000, connections=(1, 4), bodies=8, media="text/csv"),
    )
}


@dataclass(frozen=True)
class Trained:
    """A fitted model in a file, its training rows, and rows it has not seen with what it answers to them."""

    name: str
    target: str
    path: Path
    sample: Path
    features: tuple[str, ...]
    rows: pandas.DataFrame
    labels: tuple[str, ...]
    probabilities: numpy.ndarray

    @property
    def surest(self) -> int:
        """The row about which the model has least doubt: every sound copy of it answers the same."""
        return int(self.probabilities.max(axis=1).argmax())


def train(name: str, folder: Path) -> Trained:
    """Fit a model by its name in MODELS, and write it and its sample into the folder."""
    estimator, table, target = MODELS[name]()
    features = [column for column in estimator.feature_names_in_]
    path, sample = folder / f"{name}.joblib", folder / f"{name}.csv"
    joblib.dump(estimator, path)
    table[[*features, target]].to_csv(sample, index=False)
    rows = draw(table, CHECKED_ROWS, seed=1)[features]
    labels = tuple(map(str, estimator.predict(rows)))
    return Trained(name, target, path, sample, tuple(features), rows, labels, estimator.predict_proba(rows))


def draw(table: pandas.DataFrame, count: int, seed: int) -> pandas.DataFrame:
    """Draw rows with replacement and move every number a little, to two decimals."""
    random = numpy.random.default_rng(seed)
    drawn = table.iloc[random.integers(0, len(table), count)].reset_index(drop=True)
    for column in drawn.select_dtypes("number").columns:
        drawn[column] = (drawn[column] * random.normal(1, JITTER, count)).round(2)
    return drawn


def penguins() -> tuple[Any, pandas.DataFrame, str]:
    """The logistic regression of examples/penguins; every peer gets complete rows, as not all take null."""
    example = ROOT / "examples" / "penguins"
    estimator = runpy.run_path(str(example / "train.py"))["train"]()
    return estimator, pandas.read_csv(example / "penguins.csv").drop(columns="year").dropna(), "species"


def forest() -> tuple[Any, pandas.DataFrame, str]:
    """A hundred full trees which say how well a diamond is cut."""
    return diamonds(RandomForestClassifier(100, random_state=0))


def boosting() -> tuple[Any, pandas.DataFrame, str]:
    """A hundred rounds of boosting to the same question, with a tree for each of five classes."""
    return diamonds(GradientBoostingClassifier(n_estimators=100, random_state=0))


def diamonds(classifier: Any) -> tuple[Any, pandas.DataFrame, str]:
    """Fit a pipeline over mixed columns, numbers and grades."""
    table = pandas.read_csv(ROOT / "examples" / "diamonds" / "diamonds.csv")
    table = draw(table, TRAINING_ROWS, seed=0)
    numbers = [column for column in table.columns if column not in ("cut", *GRADES)]
    prepare = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), GRADES),
    )
    estimator = make_pipeline(prepare, classifier).fit(table[[*numbers, *GRADES]], table["cut"])
    return estimator, table, "cut"


MODELS: dict[str, Callable[[], tuple[Any, pandas.DataFrame, str]]] = {
    "penguins": penguins,
    "forest": forest,
    "boosting": boosting,
}


def batches(trained: Trained, workload: Workload) -> list[pandas.DataFrame]:
    """Return the rows of each body of a workload."""
    count = workload.rows * workload.bodies
    drawn = trained.rows if count <= len(trained.rows) else draw(trained.rows, count, seed=2)
    return [drawn.iloc[start : start + workload.rows] for start in range(0, count, workload.rows)]
