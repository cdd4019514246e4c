"""The graph that is written by hand: the `onnx` package reads it, finds nothing wrong, and would write the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from service.compiler.graph import MEMBER, Ensemble, graph_bytes
from tests.compiler.test_proof import draft

CASES = (
    "random forest",
    "random forest regressor",
    "random forest with missing values",
    "extra trees regressor",
    "gradient boosting",
    "histogram boosting",
    "histogram boosting, categoricals of the frame",
    "histogram boosting, categoricals by mask",
    "LightGBM",
    "LightGBM with categoricals",
    "XGBoost",
    "XGBoost regressor",
    "XGBoost with categoricals",
)
WIDTH = 7


def ensemble(case: str) -> Ensemble:
    """The trees of an estimator of the table."""
    return draft(case).ensemble


def written(trees: Ensemble, width: int = WIDTH) -> Any:
    """What the `onnx` package reads of a graph."""
    return onnx.load_from_string(graph_bytes(trees, width))


def element(trees: Ensemble) -> int:
    """The type of its numbers."""
    return onnx.TensorProto.FLOAT if trees.single else onnx.TensorProto.DOUBLE


def attributes(trees: Ensemble) -> dict[str, Any]:
    """The attributes as the operator's specification names them, each told to the `onnx` package in its own words."""

    def numbers(name: str, values: list[float]) -> Any:
        return helper.make_tensor(name, element(trees), [len(values)], values)

    members = [value for some in trees.members.values() for value in (*some, np.nan)]
    modes = helper.make_tensor("nodes_modes", onnx.TensorProto.UINT8, [len(trees.modes)], trees.modes)
    said: dict[str, Any] = {
        "n_targets": trees.n_targets,
        "aggregate_function": 1,
        "tree_roots": trees.roots,
        "nodes_featureids": trees.features,
        "nodes_modes": modes,
        "nodes_splits": numbers("nodes_splits", trees.splits),
        "nodes_truenodeids": [true for true, _ in trees.children],
        "nodes_falsenodeids": [false for _, false in trees.children],
        "nodes_trueleafs": [true for true, _ in trees.are_leaves],
        "nodes_falseleafs": [false for _, false in trees.are_leaves],
        "nodes_missing_value_tracks_true": trees.missing_true,
        "leaf_targetids": trees.targets,
        "leaf_weights": numbers("leaf_weights", trees.weights),
    }
    return said | ({"membership_values": numbers("membership_values", members)} if members else {})


def plain(attribute: Any) -> Any:
    """An attribute's value and type, comparable; NaN parts the members of two nodes."""
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        array = numpy_helper.to_array(value)
        return attribute.type, str(array.dtype), array.shape, array.tobytes()
    return attribute.type, value


@pytest.mark.parametrize("case", CASES)
def test_graph_is_valid(case: str) -> None:
    """The checker of the `onnx` package, which also infers every shape, finds nothing wrong."""
    onnx.checker.check_model(written(ensemble(case)), full_check=True)


@pytest.mark.parametrize("case", CASES)
def test_attributes_are_those_that_onnx_would_write(case: str) -> None:
    """Every attribute has the type and the value that the `onnx` package gives it."""
    trees = ensemble(case)
    node = helper.make_node("TreeEnsemble", ["X"], ["Y"], domain="ai.onnx.ml", **attributes(trees))
    (found,) = written(trees).graph.node
    assert (found.op_type, found.domain, list(found.input), list(found.output)) == (
        *("TreeEnsemble", "ai.onnx.ml"),
        *(["X"], ["Y"]),
    )
    assert {a.name: plain(a) for a in found.attribute} == {a.name: plain(a) for a in node.attribute}


@pytest.mark.parametrize("case", ["gradient boosting", "XGBoost"])
def test_graph_says_its_inputs_and_outputs(case: str) -> None:
    """It takes numbers of any number of rows, gives one for each target, and says the versions of its operators."""
    trees = ensemble(case)
    model = written(trees)
    values = (*model.graph.input, *model.graph.output)
    types = [(value.name, value.type.tensor_type) for value in values]
    shapes = [(name, t.elem_type, [size.dim_param or size.dim_value for size in t.shape.dim]) for name, t in types]
    kind = element(trees)
    assert shapes == [("X", kind, ["n_rows", WIDTH]), ("Y", kind, ["n_rows", trees.n_targets])]
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 21, "ai.onnx.ml": 5}
    assert model.ir_version == 10


def rows_at(trees: Ensemble) -> Any:
    """Rows of small numbers, thresholds of the trees, and what is missing, in the precision of the trees."""
    rng = np.random.default_rng(0)
    rows = rng.integers(-3, 9, (60, WIDTH)).astype(float)
    splits = np.array([split for split in trees.splits if np.isfinite(split)])
    some = rng.random(rows.shape)
    rows[some < 0.4] = rng.choice(splits, rows.shape)[some < 0.4]
    rows[some > 0.9] = np.nan
    return rows.astype(precision(trees))


def precision(trees: Ensemble) -> Any:
    """The type of numbers that the trees compute in."""
    return np.float32 if trees.single else np.float64


def run(trees: Ensemble, rows: Any) -> Any:
    """What onnxruntime answers with one thread, which adds the trees up in their order."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = graph_bytes(trees, rows.shape[1])
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"X": rows})[0]


def walk(trees: Ensemble, root: int, row: Any) -> int:
    """The leaf that a row falls into, by the words of the specification."""
    node, is_leaf = root, 0
    while not is_leaf:
        value = row[trees.features[node]]
        true = value in trees.members[node] if trees.modes[node] == MEMBER else value <= trees.splits[node]
        way = 0 if true or (np.isnan(value) and trees.missing_true[node]) else 1
        node, is_leaf = trees.children[node][way], trees.are_leaves[node][way]
    return node


@pytest.mark.parametrize("case", CASES)
def test_onnxruntime_walks_the_trees(case: str) -> None:
    """onnxruntime gives the sums of the leaves that a plain walk comes to, at thresholds and gaps too, and in single
    precision, where the order of a sum tells, to the last bit."""
    trees = ensemble(case)
    rows = rows_at(trees)
    expected = np.zeros((len(rows), trees.n_targets), precision(trees))
    for index, row in enumerate(rows):
        for leaf in (walk(trees, root, row) for root in trees.roots):
            expected[index, trees.targets[leaf]] += trees.weights[leaf]
    tolerance = 0.0 if trees.single else 1e-12
    np.testing.assert_allclose(run(trees, rows), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", [case for case in CASES if "categoricals" not in case])
def test_onnxruntime_answers_as_the_reference(case: str) -> None:
    """onnxruntime gives what the reference implementation gives, which reads no category 0 and so is asked of none."""
    trees = ensemble(case)
    rows = rows_at(trees)
    expected = ReferenceEvaluator(written(trees)).run(None, {"X": rows})[0]
    tolerance = 1e-6 if trees.single else 1e-12
    np.testing.assert_allclose(run(trees, rows), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**21, 2**40])
def test_whole_numbers_of_any_size_are_read_back(number: int) -> None:
    """Numbers that take one byte and numbers that take several come back as they were."""
    trees = Ensemble(1)
    trees.add_constant(0, 2.5)
    trees.features[0] = number
    found = {a.name: helper.get_attribute_value(a) for a in written(trees, number + 1).graph.node[0].attribute}
    assert found["nodes_featureids"] == [number]


def test_tree_of_one_leaf_is_a_constant() -> None:
    """A tree that never splits gives the same to every row, to a missing value too."""
    trees = Ensemble(2)
    trees.add_constant(1, 2.5)
    assert run(trees, np.array([[0.0], [np.nan], [1e300]])).tolist() == [[0.0, 2.5]] * 3
