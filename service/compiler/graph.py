"""Writes the one ONNX graph that is needed: a tree ensemble in double or single precision, as bytes.

It is written here because the `onnx` package, which can write any graph, would take 31 MiB in every deployment; the
tests read what is written with it. Source: onnx/onnx, onnx/onnx.proto and docs/Operators-ml.md (TreeEnsemble of
ai.onnx.ml 5); protobuf.dev/programming-guides/encoding; read 2026-11-23.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

IR_VERSION = 10
OPSET, ML_OPSET = 21, 5
FLOAT, DOUBLE, UINT8 = 1, 11, 2
"""Types of a tensor's elements."""
INT, TENSOR, INTS = 2, 4, 7
"""Types of an attribute."""
LESS_OR_EQUAL, MEMBER = 0, 6
"""How a node compares."""
SUM = 1


@dataclass
class Ensemble:
    """Trees as lists of nodes and leaves. A child is a node's number, or a leaf's where that is said."""

    n_targets: int
    single: bool = False
    """Whether it compares and adds in single precision, one tree after the other, and not in double."""
    roots: list[int] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    members: dict[int, Sequence[float]] = field(default_factory=dict)
    """The members, by the number of the node that asks for membership, in order."""
    missing_true: list[int] = field(default_factory=list)
    """Whether a missing value goes the way of a true comparison."""
    children: list[tuple[int, int]] = field(default_factory=list)
    """Where a true comparison leads, and where a false one."""
    are_leaves: list[tuple[int, int]] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add_node(self, feature: int, split: float, *, missing_true: bool, members: Sequence[float] = ()) -> int:
        """Add a node whose children are not known yet, and return its number."""
        self.modes.append(MEMBER if members else LESS_OR_EQUAL)
        self.features.append(feature)
        self.splits.append(split)
        if members:
            self.members[len(self.modes) - 1] = members
        self.missing_true.append(int(missing_true))
        self.children.append((0, 0))
        self.are_leaves.append((0, 0))
        return len(self.modes) - 1

    def add_leaf(self, target: int, weight: float) -> int:
        """Add a leaf, and return its number."""
        self.targets.append(target)
        self.weights.append(weight)
        return len(self.weights) - 1

    def add_constant(self, target: int, weight: float) -> None:
        """Add a tree that always gives the same."""
        leaf = self.add_leaf(target, weight)
        root = self.add_node(0, 0.0, missing_true=True)
        self.children[root], self.are_leaves[root] = (leaf, leaf), (1, 1)
        self.roots.append(root)


def graph_bytes(ensemble: Ensemble, n_features: int) -> bytes:
    """Write a model that takes `X` of shape (n_rows, n_features) and gives `Y` of shape (n_rows, n_targets)."""
    kind = FLOAT if ensemble.single else DOUBLE
    node = b"".join(
        [
            _text(1, "X"),
            _text(2, "Y"),
            _text(4, "TreeEnsemble"),
            *(_block(5, attribute) for attribute in _attributes(ensemble)),
            _text(7, "ai.onnx.ml"),
        ]
    )
    shapes = {11: ("X", n_features), 12: ("Y", ensemble.n_targets)}
    values = b"".join(_block(number, _value(name, kind, width)) for number, (name, width) in shapes.items())
    graph = _block(1, node) + _text(2, "trees") + values
    opsets = _block(8, _text(1, "") + _number(2, OPSET)) + _block(8, _text(1, "ai.onnx.ml") + _number(2, ML_OPSET))
    return _number(1, IR_VERSION) + _text(2, "anyport") + _block(7, graph) + opsets


def _attributes(ensemble: Ensemble) -> list[bytes]:
    true, false = zip(*ensemble.children, strict=True)
    true_leaf, false_leaf = zip(*ensemble.are_leaves, strict=True)
    attributes = [
        _attribute("n_targets", INT, _number(3, ensemble.n_targets)),
        _attribute("aggregate_function", INT, _number(3, SUM)),
        _ints("tree_roots", ensemble.roots),
        _ints("nodes_featureids", ensemble.features),
        _ints("nodes_truenodeids", true),
        _ints("nodes_trueleafs", true_leaf),
        _ints("nodes_falsenodeids", false),
        _ints("nodes_falseleafs", false_leaf),
        _ints("nodes_missing_value_tracks_true", ensemble.missing_true),
        _tensor("nodes_modes", UINT8, np.array(ensemble.modes, np.uint8)),
        _numbers("nodes_splits", ensemble.splits, ensemble),
        _ints("leaf_targetids", ensemble.targets),
        _numbers("leaf_weights", ensemble.weights, ensemble),
    ]
    if ensemble.members:
        parted = [value for members in ensemble.members.values() for value in (*members, np.nan)]
        attributes.append(_numbers("membership_values", parted, ensemble))
    return attributes


def _attribute(name: str, kind: int, content: bytes) -> bytes:
    return _text(1, name) + _number(20, kind) + content


def _ints(name: str, values: Sequence[int]) -> bytes:
    return _attribute(name, INTS, _block(8, b"".join(map(_varint, values))))


def _numbers(name: str, values: Sequence[float], ensemble: Ensemble) -> bytes:
    if ensemble.single:
        return _tensor(name, FLOAT, np.array(values, np.float32))
    return _tensor(name, DOUBLE, np.array(values, np.float64))


def _tensor(name: str, kind: int, values: npt.NDArray[Any]) -> bytes:
    content = _number(1, len(values)) + _number(2, kind) + _block(9, values.tobytes())
    return _attribute(name, TENSOR, _block(5, content))


def _value(name: str, kind: int, width: int) -> bytes:
    shape = _block(1, _text(2, "n_rows")) + _block(1, _number(1, width))
    return _text(1, name) + _block(2, _block(1, _number(1, kind) + _block(2, shape)))


def _number(field_number: int, value: int) -> bytes:
    return _varint(field_number << 3) + _varint(value)


def _text(field_number: int, value: str) -> bytes:
    return _block(field_number, value.encode())


def _block(field_number: int, content: bytes) -> bytes:
    return _varint(field_number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _SHORT[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SHORT = [bytes([value]) for value in range(0x80)]
