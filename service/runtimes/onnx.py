"""The ONNX runtime: graphs through onnxruntime, on one thread, from bytes that were verified."""

from __future__ import annotations

import logging
from typing import Any, BinaryIO

import numpy as np

from service.errors import MissingLibrary, UnreadableModel, shorten
from service.manifest import Layout
from service.runtimes.base import Facts, Loaded, Outputs, Policy, Source
from service.signature import Dtype, Label, Signature
from service.table import Column, Table

__all__ = ["IMPORTS", "LAYOUTS", "LIBRARIES", "SUFFIXES", "bind", "examine", "load"]

SUFFIXES = (".onnx",)
LAYOUTS: tuple[Layout, ...] = ("tensors",)
LIBRARIES = ("onnxruntime",)
IMPORTS = ("onnxruntime",)

TENSORS: dict[str, tuple[str, Dtype]] = {
    "tensor(float)": ("float32", "float32"),
    "tensor(double)": ("float64", "float64"),
    "tensor(int64)": ("int64", "int64"),
    "tensor(int32)": ("int32", "int64"),
    "tensor(bool)": ("bool", "bool"),
    "tensor(string)": ("object", "string"),
}
"""ONNX tensor type: the array type that onnxruntime wants, and the feature's dtype."""

log = logging.getLogger(__name__)


def load(stream: BinaryIO, source: Source, policy: Policy) -> Loaded:
    """Open a graph. Files outside it (ONNX external data) are never read."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingLibrary(
            f"{source.label}: opening a .onnx file needs onnxruntime; write `onnxruntime` into requirements.in and run "
            "`make lock install`"
        ) from error
    options = onnxruntime.SessionOptions()
    # Several workers share the processors; threads of their own would fight over them.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(stream.read(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no base class
        log.exception("%s could not be opened by onnxruntime", source.label)
        raise UnreadableModel(
            f"{source.label}: onnxruntime cannot open the file ({type(error).__name__}); check that it is a whole ONNX "
            "graph without external data, and pack it again"
        ) from error
    unknown = [node for node in session.get_inputs() if node.type not in TENSORS or len(node.shape) not in (1, 2)]
    if unknown:
        found = ", ".join(f"{node.name} is a {node.type} of {len(node.shape)} dimensions" for node in unknown)
        raise UnreadableModel(
            f"{source.label}: the input {shorten(found, 200)}; a graph may take tensors of one or two dimensions of "
            f"{', '.join(sorted(TENSORS))}"
        )
    return Loaded(session)


class OnnxRuntime:
    """An open session, with its inputs and outputs matched to the signature."""

    def __init__(self, session: Any, signature: Signature) -> None:
        self._session = session
        self._signature = signature
        self._inputs = session.get_inputs()
        self._output_names = [node.name for node in session.get_outputs()]
        self._fixed_rows = _fixed_rows(session)
        if signature.outputs[0].classes is None and _labels_first(session):
            self._output_names = self._output_names[:1]  # scores or probabilities whose labels nobody knows

    def predict(self, table: Table, probabilities: bool) -> Outputs:
        """Run the graph, in blocks of its own size where its first dimension is fixed."""
        tensors = self._tensors(table)
        step = self._fixed_rows or max(table.n_rows, 1)
        blocks = [self._run(tensors, start, step) for start in range(0, table.n_rows, step)]
        predictions = np.concatenate([block[0] for block in blocks])[: table.n_rows]
        if not probabilities:
            return Outputs(predictions)
        return Outputs(predictions, (np.concatenate([block[1] for block in blocks])[: table.n_rows],))

    def _tensors(self, table: Table) -> dict[str, Column]:
        columns = [table.columns[name] for name in self._signature.names]
        if len(self._inputs) == 1:
            node = self._inputs[0]
            if len(node.shape) == 1:
                return {node.name: _cast(columns[0], node.type)}
            return {node.name: np.column_stack([_cast(column, node.type) for column in columns])}
        return {
            node.name: _cast(table.columns[node.name], node.type).reshape((-1, 1)[: len(node.shape)])
            for node in self._inputs
        }

    def _run(self, tensors: dict[str, Column], start: int, step: int) -> tuple[Column, Column]:
        block = {name: _padded(tensor[start : start + step], step) for name, tensor in tensors.items()}
        answers = self._session.run(self._output_names, block)
        classes = self._signature.outputs[0].classes
        if classes is not None:
            return np.asarray(answers[0]).reshape(-1), _shares(answers[1], classes)
        columns = [np.asarray(answer).reshape(step, -1) for answer in answers]
        stacked = np.concatenate(columns, axis=1)
        return (stacked[:, 0] if stacked.shape[1] == 1 else stacked), np.empty((step, 0))


def _cast(column: Column, tensor: str) -> Column:
    cast: Column = column.astype(TENSORS[tensor][0])
    if cast.dtype.kind == "i" and not np.array_equal(cast, column):
        raise OverflowError(f"a number does not fit into {tensor}")
    return cast


def _padded(rows: Column, step: int) -> Column:
    """Repeat the last row until the block has the rows that the graph's fixed first dimension asks for."""
    return rows if len(rows) == step else np.concatenate([rows, np.repeat(rows[-1:], step - len(rows), axis=0)])


def _shares(answer: Any, classes: tuple[Any, ...]) -> Column:
    """Make an array of shape (n_rows, n_classes) of a tensor, or of ZipMap's list of dictionaries."""
    if isinstance(answer, list):
        return np.array([[row[label] for label in classes] for row in answer], dtype=float)
    return np.asarray(answer)


def _fixed_rows(session: Any) -> int | None:
    first = session.get_inputs()[0].shape[:1]
    return first[0] if first and isinstance(first[0], int) and first[0] > 0 else None


def bind(model: Any, signature: Signature, layout: Layout) -> OnnxRuntime:
    """Make a runtime of an open session; its layout is always the graph's own tensors."""
    return OnnxRuntime(model, signature)


def examine(model: Any) -> Facts:
    """Tell the inputs' names and types, and the class labels where the graph answers with a dictionary of them."""
    inputs = model.get_inputs()
    classifies = _labels_first(model) and "map" in model.get_outputs()[1].type
    dtypes = tuple(TENSORS[node.type][1] for node in inputs)
    names: tuple[str, ...] | None = tuple(node.name for node in inputs)
    n_features: int | None = len(inputs)
    if len(inputs) == 1:
        names, n_features = None, _width(inputs[0].shape)
        dtypes = dtypes * (n_features or 1)
    return Facts(
        task="classification" if classifies else "other",
        names=names,
        n_features=n_features,
        dtypes=dtypes,
        layouts=LAYOUTS,
        classes=(_labels(model),) if classifies else None,
    )


def _labels_first(session: Any) -> bool:
    """Whether the graph answers a label, and then numbers about it, as classifiers and clusterers do."""
    first, *others = session.get_outputs()
    return bool(others) and first.type in ("tensor(int64)", "tensor(string)", "tensor(bool)")


def _width(shape: list[Any]) -> int | None:
    """Return how many features one tensor holds, None if it takes any number."""
    if len(shape) == 1:
        return 1
    return shape[1] if isinstance(shape[1], int) else None


def _labels(model: Any) -> tuple[Label, ...]:
    """Read the labels off one answer to a row of zeros."""
    rows = _fixed_rows(model) or 1
    feed = {
        node.name: np.full(
            [rows, *(size if isinstance(size, int) else 1 for size in node.shape[1:])],
            "" if node.type == "tensor(string)" else 0,
            dtype=TENSORS[node.type][0],
        )
        for node in model.get_inputs()
    }
    return tuple(model.run(None, feed)[1][0])
