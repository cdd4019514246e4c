"""Transformers as columnar steps: pipelines of any make either answer as they were fitted, or are refused."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.feature_selection import SelectFromModel, SelectKBest, SelectPercentile, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier

from service.compiler import NotCompiled
from service.runtimes import Outputs
from service.table import Table
from tests.compiler.fitted import Fitted, assert_alike, kinds, number, sample

YES_OR_NO = st.booleans()
NUMERIC = st.one_of(
    st.builds(StandardScaler, with_mean=YES_OR_NO, with_std=YES_OR_NO),
    st.builds(MinMaxScaler, feature_range=st.sampled_from([(0, 1), (-2, 3)]), clip=YES_OR_NO),
    st.builds(MaxAbsScaler),
    st.builds(RobustScaler, with_centering=YES_OR_NO, with_scaling=YES_OR_NO),
    st.builds(
        SimpleImputer,
        strategy=st.sampled_from(["mean", "median", "most_frequent", "constant"]),
        add_indicator=YES_OR_NO,
        keep_empty_features=YES_OR_NO,
    ),
    st.builds(Normalizer, norm=st.sampled_from(["l1", "l2", "max"])),
    st.builds(PolynomialFeatures, st.just(2), interaction_only=YES_OR_NO, include_bias=YES_OR_NO),
    st.builds(PCA, st.sampled_from([1, 2]), whiten=YES_OR_NO),
    st.builds(TruncatedSVD, st.just(1)),
    st.builds(SelectKBest, k=st.sampled_from([1, 2])),
    st.builds(SelectPercentile, percentile=st.just(60)),
    st.builds(VarianceThreshold, st.sampled_from([0.0, 0.5])),
    st.builds(SelectFromModel, st.just(LinearRegression())),
    st.builds(FunctionTransformer, st.sampled_from([None, np.tanh, np.cbrt, np.abs, np.expm1])),
    st.just("passthrough"),
)
NESTED = st.recursive(
    NUMERIC,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda steps: make_pipeline(*steps)),
        st.lists(inner, min_size=1, max_size=2).map(
            lambda parts: FeatureUnion([(f"p{index}", part) for index, part in enumerate(parts)])
        ),
    ),
    max_leaves=4,
)
ENCODERS = st.one_of(
    st.builds(
        OneHotEncoder,
        handle_unknown=st.sampled_from(["ignore", "error", "infrequent_if_exist"]),
        drop=st.sampled_from([None, "first", "if_binary"]),
        min_frequency=st.sampled_from([None, 8, 0.3]),
        max_categories=st.sampled_from([None, 3]),
        sparse_output=YES_OR_NO,
    ),
    st.builds(OrdinalEncoder),
    st.builds(
        OrdinalEncoder,
        handle_unknown=st.just("use_encoded_value"),
        unknown_value=st.sampled_from([-1, np.nan]),
        encoded_missing_value=st.sampled_from([np.nan, -2]),
        min_frequency=st.sampled_from([None, 20]),
    ),
    st.builds(TargetEncoder, cv=st.just(2), random_state=st.just(0)),
)
FILLS = st.sampled_from(
    [None, SimpleImputer(strategy="most_frequent"), SimpleImputer(strategy="constant", fill_value="none")]
)
TEXTUAL = st.builds(lambda fill, encoder: encoder if fill is None else make_pipeline(fill, encoder), FILLS, ENCODERS)
NUMBER_COLUMNS: st.SearchStrategy[Any] = st.sampled_from(
    [
        ["a", "b", "c"],
        ["c"],
        ["b", "n"],
        [2, 0],
        [-7, -5],
        slice(0, 3),
        slice("a", "c"),
        [True, True, False, True, False, False, False],
        np.array([0, 1, 2]),
        make_column_selector(dtype_include="number"),
        make_column_selector(pattern="^[ab]$"),
        lambda frame: ["c", "a"],
    ]
)
TEXT_COLUMNS: st.SearchStrategy[Any] = st.sampled_from(
    [
        ["colour", "size"],
        ["size"],
        slice(5, 7),
        [5],
        [False] * 5 + [True, True],
        make_column_selector(dtype_exclude=["number", "bool"]),
    ]
)
REGRESSORS = st.sampled_from(
    [
        Ridge(),
        LinearRegression(),
        HistGradientBoostingRegressor(max_iter=4, max_leaf_nodes=8, random_state=0),
        GradientBoostingRegressor(n_estimators=4, random_state=0),
        SVR(),
        MLPRegressor((4,), max_iter=20, random_state=0),
    ]
)
CLASSIFIERS = st.sampled_from(
    [
        LogisticRegression(max_iter=50),
        DecisionTreeClassifier(max_depth=5, random_state=0),
        RandomForestClassifier(4, random_state=0),
        HistGradientBoostingClassifier(max_iter=4, max_leaf_nodes=8, random_state=0),
        SVC(),
    ]
)


@st.composite
def pipelines(draw: st.DrawFn) -> Fitted:
    """A fitted pipeline of any make; one that cannot be fitted is drawn again."""
    parts = [("numbers", draw(NESTED), draw(NUMBER_COLUMNS)), ("texts", draw(TEXTUAL), draw(TEXT_COLUMNS))]
    if draw(YES_OR_NO):
        parts.append(("more", draw(NESTED), draw(NUMBER_COLUMNS)))
    remainder = draw(st.sampled_from(["drop", "drop", "passthrough", SimpleImputer()]))
    prepare = ColumnTransformer(draw(st.permutations(parts)), remainder=remainder)
    rows = sample(90, gaps=draw(YES_OR_NO), seed=draw(st.integers(0, 2)))
    is_regression = draw(YES_OR_NO)
    final = draw(REGRESSORS if is_regression else CLASSIFIERS)
    between = draw(st.lists(NESTED, max_size=2))
    model = Pipeline([("prepare", prepare), *((f"s{i}", step) for i, step in enumerate(between)), ("final", final)])
    target = number(rows) if is_regression else kinds(rows, draw(st.sampled_from([2, 3])))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Fitted(model.fit(rows, target), rows)
    except (ValueError, TypeError, IndexError):
        event("cannot be fitted")
        return draw(st.nothing())


def answered(it: Fitted, table: Table) -> tuple[Table, Outputs]:
    """The rows that the estimator answers, with its answers: one that refuses a row refuses the whole table."""
    try:
        return table, it.ask(it.original, table)
    except Exception:  # an estimator may raise anything at what it does not take
        kept = [row for row in range(table.n_rows) if is_answered(it, table.rows(row, row + 1))]
        some = Table({name: column[kept] for name, column in table.columns.items()}, len(kept))
        return some, it.ask(it.original, some)


def is_answered(it: Fitted, row: Table) -> bool:
    """Whether the estimator answers a row."""
    try:
        it.ask(it.original, row)
    except Exception:
        return False
    return True


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(pipelines())
def test_any_pipeline_is_compiled_right_or_refused(it: Fitted) -> None:
    """A pipeline of any make either answers fresh rows as it does itself, or has no compiled form."""
    try:
        compiled = it.compile()
    except NotCompiled as error:
        event(f"refused: {str(error)[:60]}")
        return
    event("compiled")
    table, expected = answered(it, it.fresh(60))
    assert_alike(expected, it.ask(it.open(compiled), table), rtol=1e-8, atol=1e-8)
