"""Transformers of scikit-learn as columnar steps: choosing, imputing, encoding, scaling, selecting, projecting."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from service.compiler.plan import (
    UNSEEN,
    Flow,
    Node,
    NotCompiled,
    Plan,
    Raw,
    Wide,
    Words,
    calculate,
    concatenate,
    kind,
    matrix,
    weighed,
)
from service.runtimes.estimator import chosen_columns
from service.runtimes.operators import FUNCTIONS
from service.signature import TEXTS

Prepare = Callable[[Any, Flow, Plan], Flow]


def prepare(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    """Return what comes out of a fitted transformer.

    Raises:
        NotCompiled: If it, or a setting of it, has no compiled form.
    """
    if isinstance(transformer, str) and transformer == "passthrough":
        return flow
    name = kind(transformer)
    if name not in TRANSFORMERS:
        raise NotCompiled(f"the transformer {name} has no compiled form")
    return TRANSFORMERS[name](transformer, flow, plan)


def _pipeline(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    for _, step in transformer.steps:
        flow = flow if step is None else prepare(step, flow, plan)
    return flow


def _union(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    if transformer.transformer_weights:
        raise NotCompiled("a FeatureUnion with weights has no compiled form")
    parts = [part for _, part in transformer.transformer_list if part != "drop"]
    return concatenate([matrix(prepare(part, flow, plan), plan) for part in parts])


def _by_columns(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    if transformer.transformer_weights:
        raise NotCompiled("a ColumnTransformer with weights has no compiled form")
    parts: list[tuple[Flow, int]] = []
    for name, part, columns in transformer.transformers_:
        place = transformer.output_indices_[name]
        some = None if isinstance(part, str) and part == "drop" else _choose(flow, columns, transformer, plan)
        if some is not None:
            parts.append((prepare(part, some, plan), place.stop - place.start))
    if len(parts) == 1:
        return parts[0][0]
    if any(isinstance(part, Words) for part, _ in parts):
        wide = tuple(part if isinstance(part, Words) else (matrix(part, plan), width) for part, width in parts)
        return Wide(wide)
    return concatenate([matrix(part, plan) for part, _ in parts])


def _choose(flow: Flow, columns: Any, transformer: Any, plan: Plan) -> Flow | None:
    if isinstance(flow, Raw):
        names = chosen_columns(columns, flow.names)
        if not names:
            return None
        fills = None if flow.fills is None else tuple(flow.fills[flow.names.index(name)] for name in names)
        return Raw(names, fills)
    indices = np.arange(transformer.n_features_in_)[columns]
    return {"op": "take", "of": matrix(flow, plan), "columns": plan.array(indices, np.intp)} if indices.size else None


def _function(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    if transformer.func is None:
        return flow
    if _is_a_check(transformer.func):
        return flow
    if transformer.kw_args:
        raise NotCompiled("a FunctionTransformer with arguments has no compiled form")
    return {"op": "apply", "of": matrix(flow, plan), "function": function_name(transformer.func)}


def _is_a_check(function: Any) -> bool:
    """Whether it is the function by which histogram boosting looks at its numbers; it gives them back as they are."""
    from sklearn.utils import check_array

    known = {"dtype": [np.float64], "ensure_all_finite": False}
    return isinstance(function, partial) and function.func is check_array and function.keywords == known


def function_name(function: Any) -> str:
    """Return the name of one of numpy's functions.

    Raises:
        NotCompiled: If it is another function.
    """
    for name, known in FUNCTIONS.items():
        if function is known:
            return name
    raise NotCompiled(f"the function {getattr(function, '__name__', function)} has no compiled form")


def _impute(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    missing = transformer.missing_values
    if not (missing is None or missing != missing):
        raise NotCompiled(f"a SimpleImputer of {missing!r}, which is not how a request says missing, is not compiled")
    learnt = np.asarray(transformer.statistics_, dtype=object).tolist()
    text = isinstance(flow, Raw) and any(plan.dtypes[name] in TEXTS for name in flow.names)
    if not text:
        flags = transformer.indicator_.features_.tolist() if transformer.add_indicator else []
        values = plan.array([np.nan if value is None else value for value in learnt])
        return {"op": "impute", "of": matrix(flow, plan), "values": values, "flags": flags}
    assert isinstance(flow, Raw)
    if transformer.add_indicator or flow.fills is not None or any(value != value for value in learnt):
        raise NotCompiled(
            "this SimpleImputer of text has no compiled form; it flags what was missing, or learnt nothing"
        )
    return Raw(flow.names, tuple(learnt))


def _scale(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    return calculate(matrix(flow, plan), _scaling(transformer, plan))


def _scaling(transformer: Any, plan: Plan) -> Iterator[tuple[str, Any]]:
    if getattr(transformer, "with_mean", False):
        yield "subtract", plan.array(transformer.mean_)
    if getattr(transformer, "with_centering", False):
        yield "subtract", plan.array(transformer.center_)
    if getattr(transformer, "with_std", True) and getattr(transformer, "with_scaling", True):
        yield "divide", plan.array(transformer.scale_)
    if getattr(transformer, "clip", False):
        yield "at_least", -1.0
        yield "at_most", 1.0


def _scale_to_range(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    steps: list[tuple[str, Any]] = [("multiply", plan.array(transformer.scale_)), ("add", plan.array(transformer.min_))]
    if transformer.clip:
        low, high = transformer.feature_range
        steps += [("at_least", float(low)), ("at_most", float(high))]
    return calculate(matrix(flow, plan), steps)


def _normalize(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    return {"op": "normalize", "of": matrix(flow, plan), "norm": transformer.norm}


def _powers(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    return {"op": "powers", "of": matrix(flow, plan), "exponents": plan.array(transformer.powers_, np.int64)}


def _project(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    weights, mean = transformer.components_, getattr(transformer, "mean_", None)
    bias = np.zeros(len(weights)) if mean is None else -(mean @ weights.T)
    node = weighed(flow, weights, bias, plan)
    if not getattr(transformer, "whiten", False):
        return node
    return calculate(node, [("divide", plan.array(np.sqrt(transformer.explained_variance_)))])


def _select(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    kept = transformer.get_support(indices=True)
    if isinstance(flow, Raw):
        return _choose(flow, kept, transformer, plan) or flow
    return {"op": "take", "of": matrix(flow, plan), "columns": plan.array(kept, np.intp)}


def _one_hot(encoder: Any, flow: Flow, plan: Plan) -> Flow:
    raw = _raw(encoder, flow)
    widths = encoder._n_features_outs  # of no public form; `_encoded` checks that the sum is right
    starts = np.cumsum([0, *widths])
    places = []
    for index, values in enumerate(encoder.categories_):
        known, other = _encoded(encoder, index, values, int(starts[-1]), raw)
        block = slice(starts[index], starts[index + 1])
        pairs = [[value, _place(row[block], starts[index])] for value, row in known]
        places.append([pairs, -1 if other is None else _place(other[block], starts[index])])
    return {"op": "one_hot", "of": Raw(raw.names).columns(), "places": places, "width": int(starts[-1])}


def _place(row: Any, start: int) -> int:
    ones = np.flatnonzero(row)
    if len(ones) > 1 or (len(ones) == 1 and row[ones[0]] != 1.0):
        raise NotCompiled("an encoder gives something else than zeros and a one")
    return int(start + ones[0]) if len(ones) else -1


def _to_codes(encoder: Any, flow: Flow, plan: Plan) -> Flow:
    raw = _raw(encoder, flow)
    codes = []
    for index, values in enumerate(encoder.categories_):
        known, other = _encoded(encoder, index, values, len(encoder.categories_), raw)
        pairs = [[value, _or_none(row[index])] for value, row in known]
        codes.append([pairs, None if other is None else _or_none(other[index])])
    return {"op": "ordinal", "of": Raw(raw.names).columns(), "codes": codes}


def _or_none(number: Any) -> float | None:
    return None if np.isnan(number) else float(number)


def _raw(encoder: Any, flow: Flow) -> Raw:
    if not isinstance(flow, Raw):
        raise NotCompiled(f"the {kind(encoder)} encodes what another step has calculated, which has no compiled form")
    return flow


def _encoded(encoder: Any, index: int, values: Any, width: int, raw: Raw) -> tuple[list[tuple[Any, Any]], Any]:
    """Ask an encoder what it makes of each value of one column: of those that it knows, of a missing and an unseen one.

    A missing value becomes what the one that stands for it becomes.

    Returns:
        Pairs of a value and the row that it becomes, and the row of an unseen value; None if the encoder refuses that.
    """
    known = [_plain(value) for value in np.asarray(values, dtype=object).tolist()]
    pairs = list(zip(known, _rows(encoder, index, known), strict=True))
    instead = None if raw.fills is None else raw.fills[index]
    if instead is not None or None not in known:
        pairs += [(None, row) for row in _rows_or_none(encoder, index, [instead])]
    texts = any(isinstance(value, str) for value in known)
    unseen = UNSEEN if texts else min(value for value in known if value is not None) - 1
    other = next(iter(_rows_or_none(encoder, index, [unseen])), None)
    if len(pairs[0][1]) != width:
        raise NotCompiled(f"the {kind(encoder)} gives {len(pairs[0][1])} columns, and {width} were expected")
    return pairs, other


def _rows_or_none(encoder: Any, index: int, values: list[Any]) -> Any:
    try:
        return _rows(encoder, index, values)
    except (ValueError, TypeError):  # it refuses the value, and so does the signature
        return []


def _rows(encoder: Any, index: int, values: list[Any]) -> Any:
    """Return what an encoder makes of these values of one column, beside the first category of every other column."""
    cells = [[_plain(known[0])] * len(values) for known in encoder.categories_]
    cells[index] = values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = encoder.transform(_as_fitted(encoder, cells))
    return np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer, dtype=float)


def _as_fitted(encoder: Any, columns: list[list[Any]]) -> Any:
    """Make a frame or an array of columns, whichever the encoder was fitted on."""
    texts = [any(isinstance(value, str) for value in known) for known in encoder.categories_]
    if not hasattr(encoder, "feature_names_in_"):
        return np.array(columns, dtype=object if any(texts) else float).T
    import pandas

    typed = [
        pandas.array(cells, dtype="str") if text else np.array(cells, dtype=float)
        for cells, text in zip(columns, texts, strict=True)
    ]
    return pandas.DataFrame(dict(zip(encoder.feature_names_in_, typed, strict=True)))


def _plain(value: Any) -> Any:
    if value is None or value != value:
        return None
    return value.item() if isinstance(value, np.generic) else value


def _count_words(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    """A CountVectorizer, or the one in a TfidfVectorizer, upon one column of texts."""
    name = kind(transformer)
    if not isinstance(flow, Raw) or len(flow.names) != 1:
        raise NotCompiled(f"a {name} of something else than one column of texts has no compiled form")
    if transformer.analyzer != "word" or any(
        setting is not None for setting in (transformer.tokenizer, transformer.preprocessor, transformer.strip_accents)
    ):
        raise NotCompiled(f"a {name} that cuts texts in a way of its own has no compiled form")
    terms = sorted(transformer.vocabulary_, key=transformer.vocabulary_.__getitem__)
    node: Node = {
        "op": "words",
        "of": flow.columns(),
        "pattern": transformer.token_pattern,
        "lower": transformer.lowercase,
        "lengths": list(transformer.ngram_range),
        "stop": sorted(transformer.get_stop_words() or ()),
        "vocabulary": terms,
        "binary": transformer.binary,
    }
    return Words(node, len(terms))


def _count_and_weigh_words(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    return _weigh_words(transformer._tfidf, _count_words(transformer, flow, plan), plan)


def _weigh_words(transformer: Any, flow: Flow, plan: Plan) -> Flow:
    if not isinstance(flow, Words) or "idf" in flow.node:
        raise NotCompiled("a TfidfTransformer of something else than counted words has no compiled form")
    idf = plan.array(transformer.idf_) if transformer.use_idf else None
    weights = {"sublinear": transformer.sublinear_tf, "idf": idf, "norm": transformer.norm}
    return Words(flow.node | weights, flow.width)


TRANSFORMERS: dict[str, Prepare] = (
    {
        "Pipeline": _pipeline,
        "FeatureUnion": _union,
        "ColumnTransformer": _by_columns,
        "FunctionTransformer": _function,
        "SimpleImputer": _impute,
        "MinMaxScaler": _scale_to_range,
        "Normalizer": _normalize,
        "PolynomialFeatures": _powers,
        "OneHotEncoder": _one_hot,
        "OrdinalEncoder": _to_codes,
        "TargetEncoder": _to_codes,
        "CountVectorizer": _count_words,
        "TfidfVectorizer": _count_and_weigh_words,
        "TfidfTransformer": _weigh_words,
    }
    | dict.fromkeys(("StandardScaler", "MaxAbsScaler", "RobustScaler"), _scale)
    | dict.fromkeys(("PCA", "TruncatedSVD"), _project)
    | dict.fromkeys(
        ("SelectKBest", "SelectPercentile", "SelectFromModel", "SelectFpr", "SelectFdr", "SelectFwe", "RFE", "RFECV")
        + ("VarianceThreshold", "GenericUnivariateSelect", "SequentialFeatureSelector"),
        _select,
    )
)
