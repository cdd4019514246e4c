"""The proof: a compiled form that is wrong anywhere, however little, is refused with the row and both answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from service.compiler import NotCompiled
from service.compiler.edges import end_rows, split_rows
from service.compiler.estimators import answer
from service.compiler.graph import MEMBER, Ensemble
from service.compiler.plan import Plan, Raw
from service.compiler.proof import prove
from service.compiler.trees import ensemble_node
from service.manifest import Parity
from service.runtimes.compiled import CompiledRuntime, build
from tests.compiler.fitted import Fitted
from tests.compiler.test_compile import fitted


@dataclass
class Draft:
    """A plan that is not proved yet, so that it can be spoilt."""

    it: Fitted
    plan: Plan
    answer: Any

    @property
    def ensemble(self) -> Ensemble:
        """The one ensemble of the plan."""
        (splits,) = self.plan.splits
        return splits.ensemble

    def steps(self, op: str) -> list[Any]:
        """Every step of the plan with an operator."""

        def walk(node: Any) -> list[Any]:
            below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
            here = [node] if isinstance(node, dict) and node.get("op") == op else []
            return here + [found for part in below for found in walk(part)]

        return walk(self.answer)

    def array(self, op: str, name: str) -> Any:
        """An array of the first step with an operator."""
        return self.plan.arrays[self.steps(op)[0][name]["array"]]

    def prove(self) -> Parity:
        """Hold the plan as it is now against the estimator as the compiler does: beside the plan's own splits."""
        it = self.it
        edges = split_rows(self.plan.splits, self.plan.arrays, it.signature, it.table)
        tables = [it.table, end_rows(it.signature, it.rows), *([] if edges is None else [edges])]
        compiled = CompiledRuntime(build(self.answer, self.plan.arrays))
        return prove(it.original, compiled, it.signature, tables)


def draft(case: str) -> Draft:
    """Compile an estimator of the table without a proof."""
    it = fitted(case)
    plan = Plan(it.signature)
    made = copy.deepcopy(answer(it.model, Raw(it.signature.names), plan))
    plan.arrays = {key: array.copy() for key, array in plan.arrays.items()}  # some are the estimator's own
    return Draft(it, plan, made)


def rewrite(spoilt: Draft) -> None:
    """Make the step anew after the ensemble was spoilt."""
    (step,) = [*spoilt.steps("trees"), *spoilt.steps("small_trees")]
    width = build(step["of"], spoilt.plan.arrays)(spoilt.it.table).shape[1]
    step |= ensemble_node(spoilt.ensemble, step["of"], spoilt.plan, width, single=step["single"])
    spoilt.plan.splits.pop()


def used_nodes(ensemble: Ensemble) -> list[int]:
    """The nodes that compare the first feature, which is a number and in some models has gaps; parents first."""
    nodes = zip(ensemble.modes, ensemble.features, ensemble.children, strict=True)
    return [
        number
        for number, (mode, feature, (true, false)) in enumerate(nodes)
        if mode != MEMBER and feature == 0 and true != false
    ]


def used_node(ensemble: Ensemble) -> int:
    """The last of them."""
    return used_nodes(ensemble)[-1]


def single_step(spoilt: Draft) -> None:
    node = used_node(spoilt.ensemble)
    single = np.float32(spoilt.ensemble.splits[node])
    spoilt.ensemble.splits[node] = float(np.nextafter(single, np.float32(np.inf)))


def single_step_down(spoilt: Draft) -> None:
    node = used_node(spoilt.ensemble)
    split = spoilt.ensemble.splits[node]
    single = np.float32(split)
    below = single if single < split else np.nextafter(single, np.float32(-np.inf))
    spoilt.ensemble.splits[node] = float(np.nextafter(below, np.float32(-np.inf)))


def double_step(spoilt: Draft) -> None:
    node = used_node(spoilt.ensemble)
    spoilt.ensemble.splits[node] = float(np.nextafter(spoilt.ensemble.splits[node], np.inf))


def double_step_down(spoilt: Draft) -> None:
    node = used_node(spoilt.ensemble)
    spoilt.ensemble.splits[node] = float(np.nextafter(spoilt.ensemble.splits[node], -np.inf))


def leaf_weight(spoilt: Draft) -> None:
    spoilt.ensemble.weights[-1] += 1e-3


def start(spoilt: Draft) -> None:
    spoilt.ensemble.weights[0] += 1e-3


def last_tree(spoilt: Draft) -> None:
    spoilt.ensemble.roots.pop()


def zeros(spoilt: Draft) -> None:
    spoilt.steps("apply")[0]["function"] = "relu"


def sums(spoilt: Draft) -> None:
    spoilt.steps("share")[0]["shares"] = "one-against-rest"


def missing_direction(spoilt: Draft) -> None:
    node = used_nodes(spoilt.ensemble)[0]  # below it a missing value may go past the others
    spoilt.ensemble.missing_true[node] = 1 - spoilt.ensemble.missing_true[node]


def member(spoilt: Draft) -> None:
    node, members = next(iter(spoilt.ensemble.members.items()))
    spoilt.ensemble.members[node] = members[1:] or (float(members[0]) + 1.0,)


def labels(spoilt: Draft) -> None:
    (step,) = spoilt.steps("classification")
    step["classes"] = [step["classes"][1], step["classes"][0], *step["classes"][2:]]


def leaf_numbers(spoilt: Draft) -> None:
    values = spoilt.array("leaves", "values")
    values[[0, 1]] = values[[1, 0]] if not np.array_equal(values[0], values[1]) else 1.0 - values[[1, 0]]


def category_place(spoilt: Draft) -> None:
    (known, _) = spoilt.steps("one_hot")[0]["places"][0]
    known[0][1], known[1][1] = known[1][1], known[0][1]


def category_unseen(spoilt: Draft) -> None:
    spoilt.steps("one_hot")[0]["places"][0][1] = 0


def code(spoilt: Draft) -> None:
    spoilt.steps("ordinal")[0]["codes"][0][0][0][1] += 10.0


def code_unseen(spoilt: Draft) -> None:
    spoilt.steps("ordinal")[0]["codes"][0][1] = 10.0


def missing_place(spoilt: Draft) -> None:
    (known, _) = spoilt.steps("one_hot")[0]["places"][0]
    (missing,) = [pair for pair in known if pair[0] is None]
    missing[1] = 0 if missing[1] != 0 else 1


def imputed_value(spoilt: Draft) -> None:
    spoilt.array("impute", "values")[0] += 1e-3


def indicator(spoilt: Draft) -> None:
    spoilt.steps("impute")[0]["flags"].reverse()


def scaled(spoilt: Draft) -> None:
    name, operand = spoilt.steps("calculate")[0]["steps"][1]
    spoilt.plan.arrays[operand["array"]][0] *= 1.0 + 1e-3


def centred(spoilt: Draft) -> None:
    name, operand = spoilt.steps("calculate")[0]["steps"][0]
    spoilt.plan.arrays[operand["array"]][0] += 1e-3


def weight(spoilt: Draft) -> None:
    spoilt.array("linear", "weights")[0, -1] *= 1.0 + 1e-3


def bias(spoilt: Draft) -> None:
    spoilt.array("linear", "bias")[0] += 1e-3


def kernel_width(spoilt: Draft) -> None:
    spoilt.steps("kernel")[0]["gamma"] *= 1.05


def pair(spoilt: Draft) -> None:
    pairs = spoilt.array("votes", "pairs")
    pairs[0] = pairs[0][::-1]


def columns(spoilt: Draft) -> None:
    taken = spoilt.array("take", "columns")
    taken[[0, 1]] = taken[[1, 0]]


def fractions(spoilt: Draft) -> None:
    spoilt.steps("truncate")[0]["columns"] = []


def function(spoilt: Draft) -> None:
    spoilt.steps("apply")[0]["function"] = "tanh"


def shares(spoilt: Draft) -> None:
    (step,) = spoilt.steps("classification")
    step["shares"] = "one-against-rest"


SPLIT_ENSEMBLES = (
    "random forest",
    "random forest regressor",
    "random forest with missing values",
    "extra trees",
    "gradient boosting",
    "histogram boosting",
    "histogram boosting regressor",
    "LightGBM",
    "LightGBM regressor",
    "mixed columns, forest",
    "mixed columns, boosting",
    "XGBoost",
    "XGBoost regressor",
    "mixed columns, XGBoost",
)
DOUBLE_ENSEMBLES = ("histogram boosting", "histogram boosting regressor", "LightGBM", "LightGBM regressor")
WITH_GAPS = (
    "random forest with missing values",
    "regression tree with missing values",
    "histogram boosting",
    "histogram boosting regressor",
    "LightGBM",
    "LightGBM regressor",
    "XGBoost",
    "XGBoost regressor",
)
WITH_MEMBERS = (
    "histogram boosting, categoricals of the frame",
    "histogram boosting, categoricals without gaps",
    "histogram boosting, categoricals by mask",
    "LightGBM with categoricals",
    "LightGBM regressor with categoricals",
    "LightGBM with categories of numbers",
    "XGBoost with categoricals",
    "XGBoost with categoricals, one against the rest",
)
PLANTS: list[tuple[Callable[[Draft], None], str]] = [
    *((spoil, case) for case in SPLIT_ENSEMBLES for spoil in (single_step, single_step_down)),
    *((spoil, case) for case in DOUBLE_ENSEMBLES for spoil in (double_step, double_step_down)),
    *((double_step_down, case) for case in ("random forest", "random forest regressor", "gradient boosting")),
    *((missing_direction, case) for case in WITH_GAPS),
    *((member, case) for case in WITH_MEMBERS),
    *(
        (leaf_weight, case)
        for case in ("random forest regressor", "gradient boosting", "histogram boosting", "LightGBM", "XGBoost")
    ),
    *((leaf_numbers, case) for case in ("random forest", "extra trees", "random forest of several numbers")),
    *((labels, case) for case in ("random forest", "SVC", "LightGBM", "XGBoost", "binary logistic regression")),
    (labels, "MLP classifier"),
    *((start, case) for case in ("XGBoost", "binary XGBoost from a given start", "XGBoost of counts")),
    *((last_tree, case) for case in ("XGBoost", "XGBoost regressor, stopped early", "XGBoost's random forest")),
    (zeros, "XGBoost of a sparse matrix"),
    (sums, "XGBoost"),
    (columns, "XGBoost with categoricals"),
    (category_place, "mixed columns, linear"),
    (category_place, "mixed columns, forest"),
    (category_unseen, "mixed columns, linear"),
    (category_unseen, "mixed columns, infrequent"),
    (code, "mixed columns, codes"),
    (code_unseen, "mixed columns, codes"),
    (code, "histogram boosting, categoricals of the frame"),
    (code_unseen, "histogram boosting, categoricals of the frame"),
    (missing_place, "mixed columns, linear"),
    (imputed_value, "mixed columns, linear"),
    (indicator, "mixed columns, linear"),
    (scaled, "mixed columns, linear"),
    (centred, "mixed columns, linear"),
    (weight, "linear regression"),
    (bias, "linear regression"),
    (weight, "MLP regressor"),
    (function, "MLP classifier"),
    (kernel_width, "SVR"),
    (pair, "SVC of four classes"),
    (columns, "LightGBM with categoricals"),
    (fractions, "LightGBM with categories of numbers"),
    (shares, "multinomial logistic regression"),
]


@pytest.mark.parametrize(("spoil", "case"), PLANTS, ids=lambda value: getattr(value, "__name__", value))
def test_planted_error_is_found(spoil: Callable[[Draft], None], case: str) -> None:
    """A plan with one thing in it that is not the estimator's is refused, with the row and what both answer to it."""
    spoilt = draft(case)
    spoil(spoilt)
    if spoilt.plan.splits:
        rewrite(spoilt)
    with pytest.raises(NotCompiled, match=r"differs for .* the model answers .* and the compiled form .* where .*="):
        spoilt.prove()


@pytest.mark.parametrize("case", sorted({case for _, case in PLANTS}))
def test_plan_without_a_planted_error_passes(case: str) -> None:
    """The same plans as they are made pass."""
    assert draft(case).prove().rows > 120
