"""What a compiled model is made of while it is being made: a plan, its arrays, and what flows between two steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.compiler.graph import Ensemble
from service.runtimes.compiled import write
from service.signature import Dtype, Signature

UNSEEN = "anyport-unseen-value"
"""A text that no model has learnt."""
Node = dict[str, Any]
"""A step of the plan, as `service.runtimes.compiled` reads it."""


class NotCompiled(Exception):
    """A part of the model has no compiled form; the message says which part and why."""


@dataclass(frozen=True)
class Splits:
    """An ensemble of a plan, and the step that gives what it splits."""

    of: Node
    ensemble: Ensemble
    single: bool
    """Whether what it splits is rounded to single precision first."""


class Plan:
    """A plan in the making: its arrays, and the model's features and splits."""

    def __init__(self, signature: Signature) -> None:
        self.dtypes: dict[str, Dtype] = {feature.name: feature.dtype for feature in signature.features}
        self.splits: list[Splits] = []
        self.runtime = "compiled"
        """What opens it: `compiled-trees` where onnxruntime is needed."""
        self.arrays: dict[str, npt.NDArray[Any]] = {}

    def array(self, values: Any, dtype: Any = np.float64) -> Node:
        """Keep an array, and return the node that stands for it."""
        key = f"a{len(self.arrays)}"
        self.arrays[key] = np.ascontiguousarray(values, dtype=dtype)
        return {"array": key}

    def bytes(self, answer: Node) -> bytes:
        """Return the whole as a file."""
        return write(answer, self.arrays)


@dataclass(frozen=True)
class Raw:
    """Features as they come, and what stands for a missing one; None where nothing does."""

    names: tuple[str, ...]
    fills: tuple[Any, ...] | None = None

    def columns(self) -> Node:
        """Return the step that gives the columns."""
        node = {"op": "features", "names": list(self.names)}
        return node if self.fills is None else {"op": "fill", "of": node, "values": list(self.fills)}


@dataclass(frozen=True)
class Words:
    """Counted words: the step that gives them, and how many different ones there are."""

    node: Node
    width: int


@dataclass(frozen=True)
class Wide:
    """Counted words beside matrices, each with its width, too wide to be made one matrix of."""

    parts: tuple[Words | tuple[Node, int], ...]


Flow = Raw | Words | Wide | Node
"""What comes out of a step: features as they are, words, or the node of a matrix."""


def matrix(flow: Flow, plan: Plan) -> Node:
    """Return the node of a matrix.

    Raises:
        NotCompiled: If text, dates or words would be in it.
    """
    if isinstance(flow, Words | Wide):
        raise NotCompiled("counted words have a compiled form only where a linear model follows")
    if not isinstance(flow, Raw):
        return flow
    for name in flow.names:
        if plan.dtypes[name] not in ("float64", "float32", "int64", "bool"):
            raise NotCompiled(f"the feature {name!r}, a {plan.dtypes[name]}, reaches the model without an encoder")
    node = {"op": "numbers", "names": list(flow.names)}
    if flow.fills is None:
        return node
    values = [np.nan if value is None else value for value in flow.fills]
    return {"op": "impute", "of": node, "values": plan.array(values), "flags": []}


def weighed(flow: Flow, weights: Any, bias: Any, plan: Plan) -> Node:
    """Multiply what flows by `weights` of shape (n_outputs, n_columns) and add `bias`."""
    parts = flow.parts if isinstance(flow, Wide) else (flow,)
    nodes, at = [], 0
    for index, part in enumerate(parts):
        width = part.width if isinstance(part, Words) else part[1] if isinstance(part, tuple) else weights.shape[1]
        settings = {
            "weights": plan.array(weights[:, at : at + width]),
            "bias": plan.array(bias if index == 0 else np.zeros(len(weights))),
        }
        at += width
        if isinstance(part, Words):
            nodes.append({"op": "weigh", "of": part.node} | settings)
        else:
            of = part[0] if isinstance(part, tuple) else matrix(part, plan)
            nodes.append({"op": "linear", "of": of} | settings)
    return nodes[0] if len(nodes) == 1 else {"op": "total", "of": nodes}


def concatenate(nodes: Sequence[Node]) -> Node:
    """Put matrices side by side."""
    return nodes[0] if len(nodes) == 1 else {"op": "concatenate", "of": list(nodes)}


def calculate(of: Node, steps: Iterable[tuple[str, Any]]) -> Node:
    """Calculate column by column, in place."""
    listed = [list(step) for step in steps]
    return {"op": "calculate", "of": of, "steps": listed} if listed else of


def kind(estimator: Any) -> str:
    """Return the name of an estimator's class, where it is one of a library that is known here; else say so.

    Raises:
        NotCompiled: If it is anybody's own class, which may do anything.
    """
    root = type(estimator).__module__.partition(".")[0]
    name = type(estimator).__name__
    if root not in ("sklearn", "lightgbm", "xgboost"):
        raise NotCompiled(
            f"{name} comes from {root!r}, and only scikit-learn's, LightGBM's and XGBoost's own classes are compiled"
        )
    return name
