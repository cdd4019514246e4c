"""The compiler as a whole: which estimators become a compiled form that answers the same, and which do not, and why."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    TweedieRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from service.compiler import NotCompiled
from tests.compiler.fitted import Fitted, assert_alike, kinds, number, sample

NUMBERS = ["a", "b", "c", "n"]
TEXTS = ["colour", "size"]


def fit(model: Any, rows: Any, target: Any, **said: Any) -> Fitted:
    """Fit a model on a frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations are enough here
        return Fitted(model.fit(rows, target), rows, **said)


def regressor(model: Any) -> Callable[[], Fitted]:
    """A regressor of numbers, fitted when it is asked for."""
    return lambda: fit(model, sample()[NUMBERS], number(sample()))


def classifier(model: Any, n_classes: int = 3) -> Callable[[], Fitted]:
    """A classifier of numbers, fitted when it is asked for."""
    return lambda: fit(model, sample()[NUMBERS], kinds(sample(), n_classes))


def with_gaps(model: Any) -> Callable[[], Fitted]:
    """A model of numbers of which some are missing, fitted when it is asked for."""
    rows = sample(gaps=True)
    return lambda: fit(model, rows[NUMBERS], kinds(rows) if is_classifier(model) else number(rows))


def is_classifier(model: Any) -> bool:
    return type(model).__name__.endswith("Classifier")


def nameless() -> Fitted:
    """A regression of an array."""
    rows = sample()[["a", "b"]]
    return Fitted(LinearRegression().fit(rows.to_numpy(), number(sample())), rows, layout="matrix")


def mixed(model: Any, *, unknown: str = "ignore", encoder: Any = None) -> Callable[[], Fitted]:
    """A pipeline for columns of every kind, with missing and, where it takes them, unseen values."""

    def made() -> Fitted:
        rows = sample(gaps=True)
        encode = encoder or OneHotEncoder(handle_unknown=unknown, sparse_output=False)
        prepare = make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()), ["a", "b"]),
            (make_pipeline(SimpleImputer(strategy="most_frequent"), encode), TEXTS),
            ("passthrough", ["c", "open"]),
            ("drop", ["n"]),
        )
        target = kinds(rows) if is_classifier(model) or isinstance(model, LogisticRegression) else number(rows)
        closed = ("colour", "size") if unknown == "error" else ()
        return fit(make_pipeline(prepare, model), rows, target, closed=closed)

    return made


def categorical(model: Any, *, gaps: bool = True) -> Callable[[], Fitted]:
    """A model that is given its texts as pandas categoricals."""

    def made() -> Fitted:
        whole = sample(gaps=gaps)
        rows = whole[["a", "colour", "b", "size"]]
        inputs = rows.astype(dict.fromkeys(TEXTS, "category"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = model.fit(inputs, kinds(whole) if is_classifier(model) else number(whole))
        return Fitted(fitted, rows, layout="categorical-frame")

    return made


def categorical_by_mask() -> Fitted:
    """A boosting whose categories are whole numbers, told by a mask."""
    rows = sample(gaps=True)[["a", "n", "b"]]
    model = HistGradientBoostingRegressor(categorical_features=[False, True, False], **SMALL)
    return fit(model, rows, number(sample(gaps=True)) + 9.0 * rows.n.isin([1, 4, 6]))


def categories_of_numbers() -> Fitted:
    """LightGBM on whole numbers as categories, which gaps have made floats: a request may have fractions there."""
    rows = sample(gaps=True)[["a", "n", "b"]].astype({"n": float})
    rows.loc[::9, "n"] = np.nan
    target = number(sample(gaps=True)) + 9.0 * rows.n.isin([1, 4, 6])
    return Fitted(lightgbm("LGBMRegressor").fit(rows, target, categorical_feature=["n"]), rows)


def several_numbers(model: Any) -> Callable[[], Fitted]:
    """A regressor of two targets."""
    return lambda: fit(model, sample()[NUMBERS], np.column_stack([number(sample()), sample().c]))


def several_labels(model: Any) -> Callable[[], Fitted]:
    """A classifier of two outputs, of three labels and of two."""
    labels = np.column_stack([kinds(sample()), kinds(sample(), 2)])
    return lambda: fit(model, sample()[NUMBERS], labels)


def text() -> Fitted:
    """A classifier of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = pandas.DataFrame({"review": ["a fine day", "a dull day", "fine fine", "dull, dull"] * 10})
    model = make_pipeline(TfidfVectorizer(), LogisticRegression())
    return Fitted(model.fit(words.review, [1, 0, 1, 0] * 10), words, layout="column")


def lightgbm(name: str, **settings: Any) -> Any:
    """An estimator of LightGBM's, small and quiet."""
    import lightgbm

    small = {"n_estimators": 8, "num_leaves": 7, "min_child_samples": 3, "min_data_per_group": 3, "cat_smooth": 1}
    return getattr(lightgbm, name)(**small | {"verbose": -1, "n_jobs": 1, "random_state": 0} | settings)


def xgboost(name: str, **settings: Any) -> Any:
    """An estimator of XGBoost's, small."""
    import xgboost

    small = {"n_estimators": 8, "max_depth": 3, "n_jobs": 1, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its random forests will go one day
        return getattr(xgboost, name)(**small | settings)


def numbered(n_classes: int, rows: Any = None) -> Any:
    """Labels for XGBoost, which wants the numbers from 0."""
    return np.unique(kinds(sample() if rows is None else rows, n_classes), return_inverse=True)[1]


def boosted_classes(model: Any, n_classes: int = 3) -> Callable[[], Fitted]:
    """A classifier of XGBoost's, of numbers some of which are missing."""
    rows = sample(gaps=True)
    return lambda: fit(model, rows[NUMBERS], numbered(n_classes, rows))


def boosted_amounts(objective: str) -> Callable[[], Fitted]:
    """A regressor of XGBoost's, of what is always positive."""
    model = xgboost("XGBRegressor", objective=objective)
    return lambda: fit(model, sample()[NUMBERS], np.abs(number(sample())) + 0.1)


def stopped_early() -> Fitted:
    """A boosting that was trained on beyond its best iteration."""
    rows = sample(gaps=True)
    model = xgboost("XGBRegressor", n_estimators=60, learning_rate=0.9, early_stopping_rounds=2)
    train, rest, target = rows[NUMBERS][:80], rows[NUMBERS][80:], number(rows)
    model.fit(train, target[:80], eval_set=[(rest, target[80:])], verbose=False)
    assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1
    return Fitted(model, rows[NUMBERS])


def sparse(model: Any) -> Callable[[], Fitted]:
    """A pipeline that gives its model a sparse matrix, of which XGBoost takes the zeros for missing."""
    encode = OneHotEncoder(handle_unknown="ignore")
    prepare = make_column_transformer((encode, TEXTS), ("passthrough", ["a", "n"]), sparse_threshold=1.0)
    return lambda: fit(make_pipeline(make_pipeline(prepare), model), sample(), number(sample()))


def closed_categories(**settings: Any) -> Callable[[], Fitted]:
    """XGBoost on pandas categoricals, of which it refuses those that it has not seen."""

    def made() -> Fitted:
        it = categorical(xgboost("XGBRegressor", enable_categorical=True, **settings))()
        return Fitted(it.model, it.frame, layout=it.layout, closed=("colour", "size"))

    return made


def categories_of_codes() -> Fitted:
    """XGBoost on numbers that it was told to take for categories."""
    rows = sample()[["a", "n"]]
    model = xgboost("XGBRegressor", enable_categorical=True, feature_types=["q", "c"])
    return Fitted(model.fit(rows.to_numpy(), number(sample())), rows, layout="matrix")


class Own(RegressorMixin, BaseEstimator):
    """An estimator of somebody's own."""

    def fit(self, rows: Any, target: Any) -> Own:
        self.n_features_in_ = rows.shape[1]
        return self

    def predict(self, rows: Any) -> Any:
        return np.asarray(rows)[:, 0]


FEW = {"n_estimators": 6, "random_state": 0}
SMALL: dict[str, Any] = {"max_iter": 8, "min_samples_leaf": 4, "max_leaf_nodes": 12, "random_state": 0}
LAYERS: dict[str, Any] = {"hidden_layer_sizes": (7, 5), "max_iter": 40, "random_state": 0}

COMPILED: dict[str, Callable[[], Fitted]] = {
    "linear regression": regressor(LinearRegression()),
    "linear regression of an array": nameless,
    "linear regression of several": several_numbers(LinearRegression()),
    "ridge without intercept": regressor(Ridge(fit_intercept=False)),
    "poisson": lambda: fit(PoissonRegressor(), sample()[NUMBERS], np.abs(number(sample()))),
    "tweedie": lambda: fit(TweedieRegressor(power=1.5), sample()[NUMBERS], np.abs(number(sample()))),
    "target in logarithms": lambda: fit(
        TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1),
        sample()[NUMBERS],
        np.abs(number(sample())),
    ),
    "multinomial logistic regression": classifier(LogisticRegression(max_iter=200)),
    "binary logistic regression": classifier(LogisticRegression(max_iter=200), 2),
    "logistic regression of booleans": lambda: fit(
        LogisticRegression(max_iter=200), sample()[NUMBERS], number(sample()) > 0
    ),
    "logistic regression of whole numbers": lambda: fit(
        LogisticRegression(max_iter=200), sample()[NUMBERS], (number(sample()) > 0) * 3 - 1
    ),
    "discriminant analysis": classifier(LinearDiscriminantAnalysis()),
    "binary discriminant analysis": classifier(LinearDiscriminantAnalysis(), 2),
    "SGD of log loss": classifier(SGDClassifier(loss="log_loss", random_state=0)),
    "binary SGD of log loss": classifier(SGDClassifier(loss="log_loss", random_state=0), 2),
    "SGD of hinge loss": classifier(SGDClassifier(random_state=0)),
    "ridge classifier": classifier(RidgeClassifier()),
    "perceptron": classifier(Perceptron(random_state=0)),
    "linear SVC": classifier(LinearSVC(random_state=0)),
    "binary linear SVC": classifier(LinearSVC(random_state=0), 2),
    "SVC": classifier(SVC()),
    "binary SVC": classifier(SVC(), 2),
    "SVC of four classes": classifier(SVC(C=10.0, gamma=0.3), 4),
    "SVC, one against rest": classifier(SVC(decision_function_shape="ovr"), 4),
    "linear-kernel SVC": classifier(SVC(kernel="linear")),
    "polynomial SVC": classifier(SVC(kernel="poly", coef0=1.0, degree=2)),
    "sigmoid SVC": classifier(SVC(kernel="sigmoid", gamma=0.01)),
    "nu-SVC": classifier(NuSVC(nu=0.2)),
    "SVR": regressor(SVR(C=3.0)),
    "decision tree": classifier(DecisionTreeClassifier(max_depth=6, random_state=0)),
    "regression tree with missing values": with_gaps(DecisionTreeRegressor(max_depth=6, random_state=0)),
    "random forest": classifier(RandomForestClassifier(**FEW)),
    "random forest with missing values": with_gaps(RandomForestClassifier(**FEW)),
    "random forest regressor": regressor(RandomForestRegressor(**FEW)),
    "random forest of several numbers": several_numbers(RandomForestRegressor(**FEW)),
    "random forest of several labels": several_labels(RandomForestClassifier(**FEW)),
    "extra trees": classifier(ExtraTreesClassifier(**FEW)),
    "extra trees regressor": regressor(ExtraTreesRegressor(**FEW)),
    "histogram boosting": with_gaps(HistGradientBoostingClassifier(**SMALL)),
    "binary histogram boosting": lambda: fit(
        HistGradientBoostingClassifier(**SMALL), sample(gaps=True)[NUMBERS], kinds(sample(gaps=True), 2)
    ),
    "histogram boosting regressor": with_gaps(HistGradientBoostingRegressor(**SMALL)),
    "histogram boosting of counts": lambda: fit(
        HistGradientBoostingRegressor(loss="poisson", **SMALL), sample()[NUMBERS], np.abs(number(sample()))
    ),
    "histogram boosting, categoricals of the frame": categorical(
        HistGradientBoostingClassifier(categorical_features="from_dtype", **SMALL)
    ),
    "histogram boosting, categoricals without gaps": categorical(
        HistGradientBoostingRegressor(categorical_features="from_dtype", **SMALL), gaps=False
    ),
    "histogram boosting, categoricals by mask": categorical_by_mask,
    "gradient boosting": classifier(GradientBoostingClassifier(**FEW)),
    "binary gradient boosting": classifier(GradientBoostingClassifier(**FEW), 2),
    "exponential gradient boosting": classifier(GradientBoostingClassifier(loss="exponential", **FEW), 2),
    "gradient boosting from zero": classifier(GradientBoostingClassifier(init="zero", **FEW)),
    "gradient boosting regressor": regressor(GradientBoostingRegressor(**FEW)),
    "gradient boosting of quantiles": regressor(GradientBoostingRegressor(loss="quantile", **FEW)),
    "MLP classifier": classifier(MLPClassifier(**LAYERS)),
    "binary MLP classifier": classifier(MLPClassifier(activation="tanh", **LAYERS), 2),
    "MLP regressor": regressor(MLPRegressor(activation="logistic", **LAYERS)),
    "MLP regressor of several": several_numbers(MLPRegressor(**LAYERS)),
    "multi-output regressor": several_numbers(MultiOutputRegressor(GradientBoostingRegressor(**FEW))),
    "multi-output classifier": several_labels(MultiOutputClassifier(LogisticRegression(max_iter=200))),
    "grid search": classifier(GridSearchCV(make_pipeline(StandardScaler(), SVC()), {"svc__C": [1.0, 2.0]}, cv=2)),
    "mixed columns, linear": mixed(LogisticRegression(max_iter=200)),
    "mixed columns, forest": mixed(RandomForestClassifier(**FEW)),
    "mixed columns, boosting": mixed(HistGradientBoostingRegressor(**SMALL)),
    "mixed columns, closed": mixed(LogisticRegression(max_iter=200), unknown="error"),
    "mixed columns, infrequent": mixed(
        LogisticRegression(max_iter=200),
        encoder=OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=10, sparse_output=False),
    ),
    "mixed columns, codes": mixed(
        GradientBoostingRegressor(**FEW), encoder=OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    ),
    "union of steps": lambda: fit(
        make_pipeline(
            make_union(StandardScaler(), make_pipeline(PCA(2), MinMaxScaler(clip=True)), FunctionTransformer(np.tanh)),
            PolynomialFeatures(2, interaction_only=True),
            SelectKBest(k=8),
            Ridge(),
        ),
        sample()[["a", "b", "c"]],
        number(sample()),
    ),
    "columns by kind": lambda: fit(
        make_pipeline(
            make_column_transformer(
                (StandardScaler(), make_column_selector(dtype_include="float")),
                (
                    OneHotEncoder(handle_unknown="ignore", drop="if_binary", sparse_output=False),
                    slice("colour", "size"),
                ),
                remainder="passthrough",
            ),
            Ridge(),
        ),
        sample(),
        number(sample()),
    ),
    "LightGBM": lambda: fit(lightgbm("LGBMClassifier"), sample(gaps=True)[NUMBERS], kinds(sample(gaps=True))),
    "binary LightGBM": lambda: fit(lightgbm("LGBMClassifier"), sample(gaps=True)[NUMBERS], kinds(sample(gaps=True), 2)),
    "LightGBM without missing values": classifier(lightgbm("LGBMClassifier")),
    "LightGBM regressor": with_gaps(lightgbm("LGBMRegressor")),
    "LightGBM of counts": lambda: fit(
        lightgbm("LGBMRegressor", objective="poisson"), sample()[NUMBERS], np.abs(number(sample()))
    ),
    "LightGBM with categoricals": categorical(lightgbm("LGBMClassifier")),
    "LightGBM with categories of numbers": categories_of_numbers,
    "LightGBM regressor with categoricals": categorical(lightgbm("LGBMRegressor"), gaps=False),
    "XGBoost": boosted_classes(xgboost("XGBClassifier")),
    "XGBoost, softmax": boosted_classes(xgboost("XGBClassifier", objective="multi:softmax")),
    "XGBoost, several trees a round": boosted_classes(xgboost("XGBClassifier", num_parallel_tree=3, subsample=0.7)),
    "binary XGBoost": boosted_classes(xgboost("XGBClassifier"), 2),
    "binary XGBoost from a given start": boosted_classes(xgboost("XGBClassifier", base_score=0.2), 2),
    "XGBoost's random forest": boosted_classes(xgboost("XGBRFClassifier")),
    "XGBoost regressor": with_gaps(xgboost("XGBRegressor")),
    "XGBoost regressor without missing values": regressor(xgboost("XGBRegressor")),
    "XGBoost regressor, pruned": with_gaps(xgboost("XGBRegressor", tree_method="exact", gamma=5.0, max_depth=6)),
    "XGBoost regressor, by leaves": with_gaps(
        xgboost("XGBRegressor", grow_policy="lossguide", max_leaves=20, max_depth=0)
    ),
    "XGBoost regressor, stopped early": stopped_early,
    "XGBoost regressor with dropout": with_gaps(xgboost("XGBRegressor", rate_drop=0.5)),
    "XGBoost's random forest regressor": with_gaps(xgboost("XGBRFRegressor")),
    "XGBoost of absolute errors": regressor(xgboost("XGBRegressor", objective="reg:absoluteerror")),
    "XGBoost of counts": boosted_amounts("count:poisson"),
    "XGBoost of amounts": boosted_amounts("reg:gamma"),
    "XGBoost of many zeros": boosted_amounts("reg:tweedie"),
    "XGBoost of shares": lambda: fit(
        xgboost("XGBRegressor", objective="reg:logistic"), sample()[NUMBERS], 1 / (1 + np.exp(-number(sample())))
    ),
    "XGBoost of several numbers": several_numbers(xgboost("XGBRegressor")),
    "XGBoost of two quantiles": regressor(
        xgboost("XGBRegressor", objective="reg:quantileerror", quantile_alpha=[0.3, 0.8])
    ),
    "XGBoost of a sparse matrix": sparse(xgboost("XGBRegressor")),
    "XGBoost of a target in logarithms": lambda: fit(
        TransformedTargetRegressor(xgboost("XGBRegressor"), func=np.log1p, inverse_func=np.expm1),
        sample()[NUMBERS],
        np.abs(number(sample())),
    ),
    "XGBoost with categoricals": closed_categories(max_cat_to_onehot=1),
    "XGBoost with categoricals, one against the rest": closed_categories(max_cat_to_onehot=9),
    "mixed columns, XGBoost": mixed(xgboost("XGBRegressor")),
}

REFUSED: dict[str, tuple[Callable[[], Fitted], str]] = {
    "nearest neighbours": (classifier(KNeighborsClassifier()), "KNeighborsClassifier has no compiled form"),
    "somebody's own": (regressor(Own()), "Own comes from 'tests'"),
    "calibrated": (classifier(CalibratedClassifierCV(LinearSVC(), cv=2)), "CalibratedClassifierCV has no compiled"),
    "ties broken": (classifier(SVC(break_ties=True)), r"SVC\(break_ties=True\) has no compiled form"),
    "probabilities of modified Huber": (
        classifier(SGDClassifier(loss="modified_huber", random_state=0)),
        "loss='modified_huber' has no compiled form",
    ),
    "boosting upon a model": (
        regressor(GradientBoostingRegressor(init=LinearRegression(), **FEW)),
        "upon a LinearRegression has no compiled form",
    ),
    "own function": (
        regressor(make_pipeline(FunctionTransformer(np.negative), Ridge())),
        "the function negative has no compiled form",
    ),
    "zero for missing": (regressor(lightgbm("LGBMRegressor", zero_as_missing=True)), "takes zero for missing"),
    "random forest of LightGBM's": (
        regressor(lightgbm("LGBMRegressor", boosting_type="rf", subsample=0.5, subsample_freq=1)),
        "random forests have no compiled form",
    ),
    "one against all": (
        classifier(lightgbm("LGBMClassifier", objective="multiclassova")),
        "objective 'multiclassova' has no compiled form",
    ),
    "linear XGBoost": (regressor(xgboost("XGBRegressor", booster="gblinear")), "booster 'gblinear' has no compiled"),
    "another missing value": (regressor(xgboost("XGBRegressor", missing=-1.0)), "missing=-1.0 has no compiled form"),
    "hinge of XGBoost's": (
        boosted_classes(xgboost("XGBClassifier", objective="binary:hinge"), 2),
        "objective 'binary:hinge' has no compiled form",
    ),
    "several numbers in a leaf": (
        several_numbers(xgboost("XGBRegressor", multi_strategy="multi_output_tree")),
        "several numbers in a leaf have no compiled form",
    ),
    "categories of codes": (categories_of_codes, "categoricals have a compiled form only of text"),
}


@cache
def fitted(case: str) -> Fitted:
    """An estimator of the table, fitted once."""
    return COMPILED[case]()


@pytest.mark.parametrize("case", COMPILED)
def test_compiled_form_answers_fresh_rows(case: str) -> None:
    """On rows that the proof did not see the compiled form answers as the estimator: labels equal, numbers to 1e-9."""
    it = fitted(case)
    compiled = it.compile()
    assert compiled.parity.rows > len(it.frame)
    table = it.fresh()
    assert_alike(it.ask(it.original, table), it.ask(it.open(compiled), table))


@pytest.mark.parametrize("case", REFUSED)
def test_refusal_names_the_reason(case: str) -> None:
    """What has no compiled form is named, with what it is that has none."""
    make, reason = REFUSED[case]
    with pytest.raises(NotCompiled, match=reason):
        make().compile()


def test_estimator_that_is_not_made_as_expected_is_refused() -> None:
    """Whatever goes wrong while an estimator is taken to pieces is a refusal with its reason, and no crash."""
    fitted = classifier(LogisticRegression())()
    fitted.model.coef_ = "gone"
    with pytest.raises(NotCompiled, match="not made as was expected"):
        fitted.compile()
