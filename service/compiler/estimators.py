"""Fitted estimators of scikit-learn, LightGBM and XGBoost as the last steps of a plan: scores, and what they answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from service.compiler.graph import Ensemble
from service.compiler.plan import Flow, Node, NotCompiled, Plan, Raw, calculate, concatenate, kind, matrix, weighed
from service.compiler.preparation import function_name, prepare
from service.compiler.trees import (
    add_histogram_tree,
    ensemble_node,
    forest_leaves,
    lightgbm_trees,
    summed_trees,
    xgboost_trees,
)

Finish = Callable[[Any, Flow, Plan], Node]


def answer(model: Any, flow: Flow, plan: Plan) -> Node:
    """Return the step that answers as a fitted model does.

    Raises:
        NotCompiled: If it, or a setting of it, has no compiled form.
    """
    name = kind(model)
    if name not in ESTIMATORS:
        raise NotCompiled(f"the estimator {name} has no compiled form")
    return ESTIMATORS[name](model, flow, plan)


def _pipeline(model: Any, flow: Flow, plan: Plan) -> Node:
    sparse = False
    for _, step in model.steps[:-1]:
        flow = flow if step is None else prepare(step, flow, plan)
        sparse = _is_sparse(step, sparse)
    last = model.steps[-1][1]
    if sparse and kind(last).startswith("XGB"):  # which takes what a sparse matrix does not hold for missing
        flow = {"op": "apply", "of": matrix(flow, plan), "function": "zero-as-missing"}
    return answer(last, flow, plan)


def _is_sparse(step: Any, before: bool) -> bool:
    """Whether a fitted transformer gives a sparse matrix; of one that does not say, whether it gets one."""
    if hasattr(step, "steps"):
        for _, part in step.steps:
            before = _is_sparse(part, before)
        return before
    return bool(getattr(step, "sparse_output_", getattr(step, "sparse_output", before)))


def _best(model: Any, flow: Flow, plan: Plan) -> Node:
    return answer(model.best_estimator_, flow, plan)


def _several(model: Any, flow: Flow, plan: Plan) -> Node:
    return {"op": "several", "of": [answer(part, flow, plan) for part in model.estimators_]}


def _of_transformed_target(model: Any, flow: Flow, plan: Plan) -> Node:
    """A regressor of a target that was transformed by a pair of numpy's functions."""
    if model.inverse_func is None:
        raise NotCompiled("a TransformedTargetRegressor with a transformer has no compiled form")
    node = answer(model.regressor_, flow, plan)
    if node["link"] != "identity":
        raise NotCompiled("a TransformedTargetRegressor of a model with a link of its own has no compiled form")
    return node | {"link": function_name(model.inverse_func)}


# Linear models


def _scores(model: Any, flow: Flow, plan: Plan) -> Node:
    weights = np.atleast_2d(model.coef_)
    bias = np.broadcast_to(np.atleast_1d(model.intercept_), len(weights))
    return weighed(flow, weights, bias, plan)


def _naive_bayes(model: Any, flow: Flow, plan: Plan) -> Node:
    scores = weighed(flow, model.feature_log_prob_, model.class_log_prior_, plan)
    return _classification(scores, model.classes_, "softmax")


def _nearest_centre(model: Any, flow: Flow, plan: Plan) -> Node:
    """The centre with the least |x - c|^2 is that with the most x.c - |c|^2 / 2."""
    centres = np.asarray(model.cluster_centers_, dtype=float)
    scores = weighed(flow, centres, -np.einsum("ij,ij->i", centres, centres) / 2.0, plan)
    return _classification(scores, range(len(centres)), "same")


def _linear_regression(model: Any, flow: Flow, plan: Plan) -> Node:
    return _regression(_scores(model, flow, plan))


def _log_linear(model: Any, flow: Flow, plan: Plan) -> Node:
    """A generalized linear model; the link is a class of scikit-learn's without a public name."""
    return _regression(_scores(model, flow, plan), _link(model._base_loss))


def _link(loss: Any) -> str:
    links = {"IdentityLink": "identity", "LogLink": "exp"}
    name = type(loss.link).__name__
    if name not in links:
        raise NotCompiled(f"a regression through {name} has no compiled form")
    return links[name]


def _linear_classifier(shares: str) -> Finish:
    def finish(model: Any, flow: Flow, plan: Plan) -> Node:
        chosen = shares
        if len(model.classes_) == 2 and chosen in ("softmax", "one-against-rest"):
            chosen = "sigmoid"
        if kind(model) == "SGDClassifier" and model.loss != "log_loss":
            if hasattr(model, "predict_proba"):
                raise NotCompiled(f"an SGDClassifier with loss={model.loss!r} has no compiled form")
            chosen = "same"
        return _classification(_scores(model, flow, plan), model.classes_, chosen)

    return finish


def _regression(of: Node, link: str = "identity") -> Node:
    return {"op": "regression", "of": of, "link": link}


def _classification(of: Node, classes: Any, shares: str) -> Node:
    labels = np.asarray(classes)
    if labels.dtype == object:
        labels = np.array(labels.tolist())
    if labels.dtype.kind not in "biufU":
        raise NotCompiled("labels of mixed types have no compiled form")
    return {"op": "classification", "of": of, "classes": labels.tolist(), "shares": shares}


# Neural networks


def _layers(model: Any, flow: Flow, plan: Plan) -> Node:
    functions = {"relu": "relu", "tanh": "tanh", "logistic": "sigmoid"}
    node = matrix(flow, plan)
    for index, (weights, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        node = {"op": "linear", "of": node, "weights": plan.array(weights.T), "bias": plan.array(bias)}
        if index < len(model.coefs_) - 1 and model.activation != "identity":
            node = {"op": "apply", "of": node, "function": functions[model.activation]}
    return node


def _network_regression(model: Any, flow: Flow, plan: Plan) -> Node:
    return _regression(_layers(model, flow, plan))


def _network_classification(model: Any, flow: Flow, plan: Plan) -> Node:
    if model.out_activation_ == "logistic" and model.n_outputs_ > 1:
        raise NotCompiled("an MLPClassifier of several labels at once has no compiled form")
    shares = "sigmoid" if model.out_activation_ == "logistic" else "softmax"
    return _classification(_layers(model, flow, plan), model.classes_, shares)


# Support vector machines


def _kernel(model: Any, flow: Flow, plan: Plan) -> Node:
    if callable(model.kernel) or model.kernel == "precomputed" or model._sparse:
        raise NotCompiled(
            "a support vector machine with a kernel of its own, or fitted on sparse data, is not compiled"
        )
    settings = {"kind": model.kernel, "gamma": float(model._gamma), "constant": float(model.coef0)}
    vectors = plan.array(model.support_vectors_)
    return {"op": "kernel", "of": matrix(flow, plan), "vectors": vectors, "degree": float(model.degree)} | settings


def _support_regression(model: Any, flow: Flow, plan: Plan) -> Node:
    weights, bias = plan.array(model.dual_coef_), plan.array(model.intercept_)
    return _regression({"op": "linear", "of": _kernel(model, flow, plan), "weights": weights, "bias": bias})


def _support_classification(model: Any, flow: Flow, plan: Plan) -> Node:
    """One number for each pair of classes, and votes.

    Source: csie.ntu.edu.tw/~cjlin/papers/libsvm.pdf, section 7, read 2026-11-23.
    """
    if model.probability is True:
        raise NotCompiled(f"{kind(model)}(probability=True) has no compiled form; wrap it in CalibratedClassifierCV")
    if model.break_ties:
        raise NotCompiled(f"{kind(model)}(break_ties=True) has no compiled form")
    n_classes = len(model.classes_)
    pairs = list(combinations(range(n_classes), 2))
    ends = np.cumsum([0, *model.n_support_])
    weights = np.zeros((len(pairs), ends[-1]))
    dual = -model.dual_coef_ if n_classes == 2 else model.dual_coef_
    bias = -model.intercept_ if n_classes == 2 else model.intercept_
    for row, (first, second) in enumerate(pairs):
        of_first, of_second = slice(ends[first], ends[first + 1]), slice(ends[second], ends[second + 1])
        weights[row, of_first] = dual[second - 1, of_first]
        weights[row, of_second] = dual[first, of_second]
    scores = {"op": "linear", "of": _kernel(model, flow, plan), "weights": plan.array(weights)}
    node = {"op": "votes", "of": scores | {"bias": plan.array(bias)}, "pairs": plan.array(pairs, np.intp)}
    return _classification(node | {"n_classes": n_classes}, model.classes_, "same")


# Trees


def _members(model: Any) -> list[Any]:
    return list(model.estimators_) if hasattr(model, "estimators_") else [model]


def _forest_regression(model: Any, flow: Flow, plan: Plan) -> Node:
    members = _members(model)
    if model.n_outputs_ > 1:
        ensemble, values = forest_leaves(members)
        return _regression(_leaves(ensemble, values[:, :, 0], model, flow, plan))
    ensemble = summed_trees([[member] for member in members], [0.0], 1.0)
    node = ensemble_node(ensemble, matrix(flow, plan), plan, model.n_features_in_, single=True)
    return _regression(calculate(node, [("divide", float(len(members)))] if len(members) > 1 else []))


def _forest_classification(model: Any, flow: Flow, plan: Plan) -> Node:
    ensemble, values = forest_leaves(_members(model))
    if model.n_outputs_ == 1:
        node = _leaves(ensemble, values[:, 0, :], model, flow, plan)
        return _classification(node, model.classes_, "same")
    parts = [
        _classification(_leaves(ensemble, values[:, index, : len(labels)], model, flow, plan), labels, "same")
        for index, labels in enumerate(model.classes_)
    ]
    return {"op": "several", "of": parts}


def _leaves(ensemble: Ensemble, values: Any, model: Any, flow: Flow, plan: Plan) -> Node:
    of = ensemble_node(ensemble, matrix(flow, plan), plan, model.n_features_in_, single=True)
    return {"op": "leaves", "of": of, "values": plan.array(values), "n_trees": ensemble.n_targets}


def _boosted(model: Any, flow: Flow, plan: Plan) -> Node:
    if model.init_ != "zero" and not kind(model.init_).startswith("Dummy"):
        raise NotCompiled(f"gradient boosting upon a {kind(model.init_)} has no compiled form")
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))[0]
    ensemble = summed_trees(model.estimators_, start, model.learning_rate)
    return ensemble_node(ensemble, matrix(flow, plan), plan, model.n_features_in_, single=True)


def _boosted_regression(model: Any, flow: Flow, plan: Plan) -> Node:
    return _regression(_boosted(model, flow, plan))


def _boosted_classification(model: Any, flow: Flow, plan: Plan) -> Node:
    node = _boosted(model, flow, plan)
    if model.loss == "exponential":
        node = calculate(node, [("multiply", 2.0)])
    return _classification(node, model.classes_, "sigmoid" if len(model.classes_) == 2 else "softmax")


def _histogram(model: Any, flow: Flow, plan: Plan) -> Node:
    if model._preprocessor is not None:
        flow = prepare(model._preprocessor, flow, plan)
    starts = np.ravel(model._baseline_prediction).tolist()
    ensemble = Ensemble(len(starts))
    for target, start in enumerate(starts):
        ensemble.add_constant(target, start)
    for predictors in model._predictors:
        for target, predictor in enumerate(predictors):
            add_histogram_tree(ensemble, predictor, target)
    return ensemble_node(ensemble, matrix(flow, plan), plan, model.n_features_in_, single=False)


def _histogram_regression(model: Any, flow: Flow, plan: Plan) -> Node:
    return _regression(_histogram(model, flow, plan), _link(model._loss))


def _histogram_classification(model: Any, flow: Flow, plan: Plan) -> Node:
    shares = "sigmoid" if len(model.classes_) == 2 else "softmax"
    return _classification(_histogram(model, flow, plan), model.classes_, shares)


# LightGBM


def _lightgbm(model: Any, flow: Flow, plan: Plan) -> tuple[Node, dict[str, str]]:
    """Return the step that adds up a booster's trees, and its objective with its settings."""
    dump = model.booster_.dump_model()
    if dump["average_output"]:
        raise NotCompiled("LightGBM's random forests have no compiled form")
    known = model.booster_.pandas_categorical or []
    of = _with_codes(flow, known, plan) if known else matrix(flow, plan)
    name, *settings = dump["objective"].split()
    said = {"name": name} | dict(setting.split(":") for setting in settings if ":" in setting)
    ensemble = lightgbm_trees(dump)
    of = _without_fractions(of, ensemble, flow, plan)
    return ensemble_node(ensemble, of, plan, model.n_features_in_, single=False), said


def _without_fractions(of: Node, ensemble: Ensemble, flow: Flow, plan: Plan) -> Node:
    """Cut the fractions off the numbers that are split by category: to LightGBM 2.7 is the category 2."""
    columns = sorted({ensemble.features[node] for node in ensemble.members})
    if isinstance(flow, Raw):
        columns = [column for column in columns if plan.dtypes[flow.names[column]] in ("float64", "float32")]
    return {"op": "truncate", "of": of, "columns": columns} if columns else of


def _with_codes(flow: Flow, known: list[list[Any]], plan: Plan) -> Node:
    """Encode the text features by their categories, each in its place among the numbers."""
    if not isinstance(flow, Raw):
        raise NotCompiled("categoricals behind another step have no compiled form")
    texts = tuple(name for name in flow.names if plan.dtypes[name] == "string")
    others = tuple(name for name in flow.names if name not in texts)
    codes = [[[[value, code] for code, value in enumerate(values)], None] for values in known]
    encoded: Node = {"op": "ordinal", "of": Raw(texts).columns(), "codes": codes}
    parts = [encoded, matrix(Raw(others), plan)] if others else [encoded]
    places = [(*texts, *others).index(name) for name in flow.names]
    return {"op": "take", "of": concatenate(parts), "columns": plan.array(places, np.intp)}


def _lightgbm_regression(model: Any, flow: Flow, plan: Plan) -> Node:
    node, objective = _lightgbm(model, flow, plan)
    links = {"poisson": "exp", "gamma": "exp", "tweedie": "exp"}
    plain = ("regression", "regression_l1", "huber", "fair", "quantile", "mape")
    if objective["name"] not in (*links, *plain) or "sqrt" in objective:
        raise NotCompiled(f"LightGBM's objective {objective['name']!r} has no compiled form")
    return _regression(node, links.get(objective["name"], "identity"))


def _lightgbm_classification(model: Any, flow: Flow, plan: Plan) -> Node:
    node, objective = _lightgbm(model, flow, plan)
    if objective["name"] == "binary":
        steepness = float(objective.get("sigmoid", 1))
        node = calculate(node, [("multiply", steepness)] if steepness != 1.0 else [])
        return _classification(node, model.classes_, "sigmoid")
    if objective["name"] != "multiclass":
        raise NotCompiled(f"LightGBM's objective {objective['name']!r} has no compiled form")
    return _classification(node, model.classes_, "softmax")


# XGBoost

XGBOOST_LINKS = (
    dict.fromkeys(("reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror"), "identity")
    | dict.fromkeys(("reg:absoluteerror", "reg:quantileerror"), "identity")
    | dict.fromkeys(("count:poisson", "reg:gamma", "reg:tweedie"), "single-exp")
    | dict.fromkeys(("reg:logistic", "binary:logistic"), "single-sigmoid")
)
"""What a regressor makes of its sums, by objective.

Source: dmlc/xgboost, src/objective/regression_loss.h, and for the exponentials what XGBoost 2.1 to 3.4 answer, read
and asked 2026-11-23.
"""
XGBOOST_SHARES = {
    "binary:logistic": "single-sigmoid",
    "reg:logistic": "single-sigmoid",
    "multi:softprob": "single-softmax",
    "multi:softmax": "softmax",
}
"""What a classifier makes of its sums, by objective.

Source: dmlc/xgboost, src/common/math.h and python-package/xgboost/sklearn.py, read 2026-11-23.
"""


def _xgboost_regression(model: Any, flow: Flow, plan: Plan) -> Node:
    learner = _xgboost_learner(model, XGBOOST_LINKS)
    link = XGBOOST_LINKS[learner["objective"]["name"]]
    return _regression(_xgboost_sums(model, learner, link, flow, plan), link)


def _xgboost_classification(model: Any, flow: Flow, plan: Plan) -> Node:
    """The label is that of the largest probability in single precision, but of `multi:softmax` of the largest sum."""
    learner = _xgboost_learner(model, XGBOOST_SHARES)
    shares = XGBOOST_SHARES[learner["objective"]["name"]]
    if int(learner["learner_model_param"]["num_target"]) > 1:
        raise NotCompiled("an XGBClassifier of several labels at once has no compiled form")
    sums = _xgboost_sums(model, learner, shares, flow, plan)
    if shares == "softmax":
        return _classification(sums, model.classes_, shares)
    return _classification({"op": "share", "of": sums, "shares": shares}, model.classes_, "same")


def _xgboost_learner(model: Any, objectives: Mapping[str, str]) -> Any:
    """Return the document that a booster saves itself in.

    Raises:
        NotCompiled: If there is something in it that has no compiled form.
    """
    learner = json.loads(model.get_booster().save_raw("json"))["learner"]
    booster, objective = learner["gradient_booster"]["name"], learner["objective"]["name"]
    if booster != "gbtree":
        raise NotCompiled(f"XGBoost's booster {booster!r} has no compiled form")
    if objective not in objectives:
        raise NotCompiled(f"XGBoost's objective {objective!r} has no compiled form")
    if not np.isnan(model.missing):
        raise NotCompiled(f"XGBoost with missing={model.missing!r} has no compiled form")
    return learner


def _xgboost_sums(model: Any, learner: Any, link: str, flow: Flow, plan: Plan) -> Node:
    """Return the step that adds up the trees of a booster, up to the best where training stopped early."""
    trees, best = learner["gradient_booster"]["model"], learner["attributes"].get("best_iteration")
    n_trees = trees["iteration_indptr"][-1 if best is None else int(best) + 1]
    ensemble = xgboost_trees(trees, _xgboost_starts(learner["learner_model_param"], link), n_trees)
    by_category = "c" in learner["feature_types"]
    of = _with_codes(flow, _xgboost_categories(trees), plan) if by_category else matrix(flow, plan)
    return ensemble_node(ensemble, of, plan, model.n_features_in_, single=True)


def _xgboost_categories(trees: Any) -> list[list[Any]]:
    """Return the texts that a booster knows as categories, feature by feature, in the order of their codes.

    Raises:
        NotCompiled: If they are numbers, or it does not know them, as before XGBoost 3.1.
    """
    known = [found for found in trees.get("cats", {}).get("enc", ()) if found["values"]]
    if not known or any("offsets" not in found for found in known):
        raise NotCompiled("XGBoost's categoricals have a compiled form only of text, and since XGBoost 3.1")
    texts = [(bytes(found["values"]), pairwise(found["offsets"])) for found in known]
    return [[text[start:end].decode() for start, end in places] for text, places in texts]


def _xgboost_starts(said: dict[str, str], link: str) -> list[float]:
    """Return what each sum starts from, which is saved as an answer."""
    start = np.array(json.loads(said["base_score"]), np.float32)
    if link == "single-sigmoid":
        start = -_single_log(1 / start - 1)
    elif link == "single-exp":
        start = _single_log(start)
    n_targets = max(1, int(said["num_class"]), int(said["num_target"]))
    return [float(number) for number in np.broadcast_to(start, n_targets)]


def _single_log(number: Any) -> Any:
    return np.log(number.astype(np.float64)).astype(np.float32)


ESTIMATORS: dict[str, Finish] = (
    {
        "Pipeline": _pipeline,
        "TransformedTargetRegressor": _of_transformed_target,
        "LinearDiscriminantAnalysis": _linear_classifier("softmax"),
        "MultinomialNB": _naive_bayes,
        "SGDClassifier": _linear_classifier("one-against-rest"),
        "MLPRegressor": _network_regression,
        "MLPClassifier": _network_classification,
        "GradientBoostingRegressor": _boosted_regression,
        "GradientBoostingClassifier": _boosted_classification,
        "HistGradientBoostingRegressor": _histogram_regression,
        "HistGradientBoostingClassifier": _histogram_classification,
        "LGBMRegressor": _lightgbm_regression,
        "LGBMClassifier": _lightgbm_classification,
    }
    | dict.fromkeys(("XGBRegressor", "XGBRFRegressor"), _xgboost_regression)
    | dict.fromkeys(("XGBClassifier", "XGBRFClassifier"), _xgboost_classification)
    | dict.fromkeys(("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"), _best)
    | dict.fromkeys(("KMeans", "MiniBatchKMeans"), _nearest_centre)
    | dict.fromkeys(("MultiOutputRegressor", "MultiOutputClassifier"), _several)
    | dict.fromkeys(
        ("LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "Lars", "LassoLars")
        + ("LassoLarsCV", "LassoLarsIC", "OrthogonalMatchingPursuit", "BayesianRidge", "ARDRegression", "LinearSVR")
        + ("HuberRegressor", "TheilSenRegressor", "SGDRegressor", "QuantileRegressor", "MultiTaskLasso")
        + ("MultiTaskElasticNet",),
        _linear_regression,
    )
    | dict.fromkeys(("PoissonRegressor", "GammaRegressor", "TweedieRegressor"), _log_linear)
    | dict.fromkeys(("LogisticRegression", "LogisticRegressionCV"), _linear_classifier("softmax"))
    | dict.fromkeys(("LinearSVC", "RidgeClassifier", "RidgeClassifierCV", "Perceptron"), _linear_classifier("same"))
    | dict.fromkeys(("SVR", "NuSVR"), _support_regression)
    | dict.fromkeys(("SVC", "NuSVC"), _support_classification)
    | dict.fromkeys(
        ("DecisionTreeRegressor", "ExtraTreeRegressor", "RandomForestRegressor", "ExtraTreesRegressor"),
        _forest_regression,
    )
    | dict.fromkeys(
        ("DecisionTreeClassifier", "ExtraTreeClassifier", "RandomForestClassifier", "ExtraTreesClassifier"),
        _forest_classification,
    )
)
