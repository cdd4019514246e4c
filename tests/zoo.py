"""Estimators that the repository has never packed: each with its sample, and what `flask pack` is told about it.

`inputs` is what the estimator itself is called on; the packed model must answer the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder

DIAMONDS = Path(__file__).resolve().parent.parent / "examples" / "diamonds" / "diamonds.csv"
GRADES = ["cut", "color", "clarity"]
NUMBERS = ["carat", "depth", "table", "x", "y", "z"]
GOOD = "lovely great superb charming fine".split()
BAD = "awful dreadful poor dull broken".split()


@dataclass(frozen=True)
class Animal:
    """A fitted model, the frame that is its sample, and the flags of `flask pack`."""

    model: Any
    sample: Any
    inputs: Any
    choices: dict[str, Any] = field(default_factory=dict)
    probabilities: Any = None


def diamonds() -> Any:
    """The first 200 rows of the second demo's data."""
    return pandas.read_csv(DIAMONDS).head(200)


def boosting() -> Animal:
    rows = diamonds()
    prepare = make_column_transformer((OrdinalEncoder(), GRADES), ("passthrough", NUMBERS))
    model = make_pipeline(prepare, HistGradientBoostingRegressor(max_iter=20, random_state=0))
    inputs = rows[GRADES + NUMBERS]
    return Animal(model.fit(inputs, rows.price), rows, inputs, {"targets": ("price",)})


def text() -> Animal:
    words = [
        f"{(GOOD if i % 2 else BAD)[i % 5]} thing, {(GOOD if i % 2 else BAD)[i // 5 % 5]} indeed {i}"
        for i in range(200)
    ]
    rows = pandas.DataFrame({"review": words, "liked": [bool(i % 2) for i in range(200)]})
    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(rows.review, rows.liked)
    return Animal(model, rows, rows.review, {"targets": ("liked",)}, model.predict_proba(rows.review))


def outliers() -> Animal:
    rows = diamonds()[NUMBERS]
    return Animal(IsolationForest(n_estimators=20, random_state=0).fit(rows), rows, rows)


def clusters() -> Animal:
    rows = diamonds()[NUMBERS]
    return Animal(KMeans(4, n_init=1, random_state=0).fit(rows.to_numpy()), rows, rows.to_numpy())


def several_numbers() -> Animal:
    rows = diamonds()
    inputs, targets = rows[["carat", "depth", "table"]], ["x", "y", "z"]
    model = RandomForestRegressor(10, random_state=0).fit(inputs, rows[targets])
    return Animal(model, rows, inputs, {"targets": tuple(targets), "drop": ("price",)})


def several_labels() -> Animal:
    rows = diamonds()
    inputs, targets = rows[NUMBERS], ["cut", "color"]
    model = MultiOutputClassifier(RandomForestClassifier(5, random_state=0)).fit(inputs, rows[targets])
    return Animal(model, rows, inputs, {"targets": tuple(targets)}, model.predict_proba(inputs))


def lightgbm() -> Animal:
    from lightgbm import LGBMClassifier

    rows = diamonds()
    inputs = rows[["color", "price", *NUMBERS]].astype({"color": "category"})
    model = LGBMClassifier(n_estimators=10, verbose=-1, n_jobs=1, random_state=0).fit(inputs, rows.cut)
    return Animal(model, rows, inputs, {"targets": ("cut",)}, model.predict_proba(inputs))


def nameless() -> Animal:
    rows = diamonds()
    inputs = rows[NUMBERS].to_numpy()
    model = LogisticRegression(max_iter=50).fit((inputs - inputs.mean(0)) / inputs.std(0), rows.price > 2800)
    return Animal(model, rows[[*NUMBERS, "price"]], inputs, {"drop": ("price",)}, model.predict_proba(inputs))


def dates() -> Animal:
    days = pandas.date_range("2024-01-01", periods=200).strftime("%Y-%m-%d")
    rows = pandas.DataFrame({"day": days, "open": [bool(i % 3) for i in range(200)], "count": range(200)})
    prepare = make_column_transformer((FunctionTransformer(weekday), ["day"]), ("passthrough", ["open"]))
    model = make_pipeline(prepare, RandomForestRegressor(5, random_state=0))
    inputs = rows[["day", "open"]]
    return Animal(model.fit(inputs, rows["count"]), rows, inputs, {"targets": ("count",)})


def weekday(frame: Any) -> Any:
    """The day of the week of ISO dates written as text."""
    return np.array([[pandas.Timestamp(day).day_of_week] for day in frame.iloc[:, 0]])


def open_categories() -> Animal:
    rows = diamonds()
    rows.loc[::7, "carat"] = None
    rows.loc[::9, "cut"] = None
    encode = make_pipeline(OneHotEncoder(handle_unknown="ignore"))
    prepare = make_column_transformer((encode, ["cut"]), ("passthrough", ["carat", "price"]))
    model = make_pipeline(prepare, HistGradientBoostingRegressor(max_iter=5, random_state=0))
    prepare.sparse_threshold = 0
    inputs = rows[["cut", "carat", "price"]]
    return Animal(model.fit(inputs, rows.x), rows, inputs, {"targets": ("x",)})


def codes() -> Animal:
    """Codes that look like numbers and like missing values, and that the model knows as text."""
    codes = ["01", "02", "NA", "10"] * 50
    rows = pandas.DataFrame({"code": codes, "x": range(200), "y": [code in ("01", "NA") for code in codes]})
    prepare = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["code"]), ("passthrough", ["x"]))
    prepare.sparse_threshold = 0
    inputs = rows[["code", "x"]]
    model = make_pipeline(prepare, LogisticRegression(max_iter=5000)).fit(inputs, rows.y)
    return Animal(model, rows, inputs, {"targets": ("y",)}, model.predict_proba(inputs))


def counts() -> Animal:
    """A regressor with a whole-number feature and one of closed categories."""
    rows = diamonds().assign(n=range(200))[["n", "cut", "price"]]
    prepare = make_column_transformer((OrdinalEncoder(), ["cut"]), ("passthrough", ["n"]))
    model = make_pipeline(prepare, HistGradientBoostingRegressor(max_iter=5, random_state=0))
    return Animal(model.fit(rows[["n", "cut"]], rows.price), rows, rows[["n", "cut"]], {"targets": ("price",)})


ZOO: dict[str, Callable[[], Animal]] = {
    make.__name__.replace("_", "-"): make
    for make in (
        boosting,
        text,
        outliers,
        clusters,
        several_numbers,
        several_labels,
        lightgbm,
        codes,
        nameless,
        dates,
        open_categories,
    )
}
