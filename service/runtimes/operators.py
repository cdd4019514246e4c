"""The operators of a compiled model: plain numpy on columns in double precision, and onnxruntime for trees.

Each function takes its settings and gives a step: from a checked table to columns, to a matrix, or at the end to
outputs. A matrix that a step gives is its own, so that the next step may write into it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.runtimes.base import Outputs
from service.runtimes.leaf_masks import small_trees
from service.signature import Label
from service.table import Column, Table

Matrix = npt.NDArray[np.float64]
"""Of shape (n_rows, n_columns)."""
Columns = Callable[[Table], list[list[Any]]]
"""Each a list of Python values, with None for what is missing."""
Numbers = Callable[[Table], Matrix]
Bags = Callable[[Table], list[tuple[Column, Column]]]
"""For each row the places of the words that it holds, and their weights."""
Answer = Callable[[Table, bool], Outputs]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(np, name) for name in ("abs", "cbrt", "exp", "expm1", "log", "log10", "log1p", "log2", "sqrt", "tanh")
} | {
    "square": np.square,
    "relu": lambda matrix: np.maximum(matrix, 0.0),
    "sigmoid": lambda matrix: _sigmoid(matrix),
    "single-exp": lambda matrix: _single_exp(matrix).astype(np.float64),
    "single-sigmoid": lambda matrix: _single_sigmoid(matrix).astype(np.float64),
    "zero-as-missing": lambda matrix: np.where(matrix == 0.0, np.nan, matrix),
}


# Columns


def features(names: Sequence[str]) -> Columns:
    """Take features as they are."""
    return lambda table: [table.cells(name) for name in names]


def fill(of: Columns, values: Sequence[Any]) -> Columns:
    """Put a value of its own into each column where something is missing; a column without a value stays."""

    def filled(column: list[Any], value: Any) -> list[Any]:
        return column if value is None else [value if cell is None else cell for cell in column]

    return lambda table: [filled(column, value) for column, value in zip(of(table), values, strict=True)]


# Matrices


def numbers(names: Sequence[str]) -> Numbers:
    """Take features as double-precision numbers; missing is NaN."""
    return lambda table: table.numbers(names)


def one_hot(of: Columns, places: Sequence[Sequence[Any]], width: int) -> Numbers:
    """Encode each column as zeros and at most a one.

    Args:
        of: The columns.
        places: For each column [value, place] pairs, and the place of a value that is not among them; a negative place
            is nowhere.
        width: How many columns the matrix has.
    """
    lookups = [(dict(map(tuple, pairs)), other) for pairs, other in places]

    def step(table: Table) -> Matrix:
        matrix = np.zeros((table.n_rows, width))
        for column, (known, other) in zip(of(table), lookups, strict=True):
            for row, value in enumerate(column):
                place = known.get(value, other)
                if place >= 0:
                    matrix[row, place] = 1.0
        return matrix

    return step


def ordinal(of: Columns, codes: Sequence[Sequence[Any]]) -> Numbers:
    """Encode each column as numbers.

    Args:
        of: The columns.
        codes: For each column [value, number] pairs, and the number of a value that is not among them; None is NaN.
    """
    lookups = [({value: _nan(code) for value, code in pairs}, _nan(other)) for pairs, other in codes]

    def step(table: Table) -> Matrix:
        matrix = np.empty((table.n_rows, len(lookups)))
        for index, (column, (known, other)) in enumerate(zip(of(table), lookups, strict=True)):
            matrix[:, index] = [known.get(value, other) for value in column]
        return matrix

    return step


def concatenate(of: Sequence[Numbers]) -> Numbers:
    """Put matrices side by side."""
    return lambda table: np.concatenate([part(table) for part in of], axis=1)


def impute(of: Numbers, values: Column, flags: Sequence[int]) -> Numbers:
    """Replace NaN by the column's value, then append a column for each of `flags` that says where NaN was.

    A column whose own value is NaN had nothing to learn from and is left out.
    """
    kept = np.flatnonzero(~np.isnan(values))
    values = values[kept]

    def step(table: Table) -> Matrix:
        matrix = of(table)
        missing = np.isnan(matrix)
        chosen = matrix if len(kept) == matrix.shape[1] else matrix[:, kept]
        np.copyto(chosen, values, where=missing if chosen is matrix else missing[:, kept])
        return np.concatenate([chosen, missing[:, flags]], axis=1) if flags else chosen

    return step


def calculate(of: Numbers, steps: Sequence[Sequence[Any]]) -> Numbers:
    """Subtract, divide, multiply or add column by column, or keep within limits, in this order."""
    calls = [(_CALCULATIONS[name], operand) for name, operand in steps]

    def step(table: Table) -> Matrix:
        matrix = of(table)
        for call, operand in calls:
            call(matrix, operand, out=matrix)
        return matrix

    return step


_CALCULATIONS: dict[str, Callable[..., Any]] = {
    "subtract": np.subtract,
    "divide": np.divide,
    "multiply": np.multiply,
    "add": np.add,
    "at_least": np.maximum,
    "at_most": np.minimum,
}


def take(of: Numbers, columns: Column) -> Numbers:
    """Keep some of the columns, in this order."""
    return lambda table: of(table)[:, columns]


def truncate(of: Numbers, columns: Sequence[int]) -> Numbers:
    """Cut the fractions off the numbers of some columns."""

    def step(table: Table) -> Matrix:
        matrix = of(table)
        matrix[:, columns] = np.trunc(matrix[:, columns])
        return matrix

    return step


def apply(of: Numbers, function: str) -> Numbers:
    """Apply one of `FUNCTIONS` to every number."""
    call = FUNCTIONS[function]
    return lambda table: call(of(table))


def powers(of: Numbers, exponents: Column) -> Numbers:
    """Multiply powers of the columns; `exponents` has shape (n_products, n_columns)."""
    chosen = [[(column, int(power)) for column, power in enumerate(row) if power] for row in exponents]

    def step(table: Table) -> Matrix:
        matrix = of(table)
        products = np.ones((len(matrix), len(chosen)))
        for index, factors in enumerate(chosen):
            for column, power in factors:
                products[:, index] *= matrix[:, column] ** power
        return products

    return step


def normalize(of: Numbers, norm: str) -> Numbers:
    """Divide each row by its norm: `l1`, `l2` or `max`; a row of zeros stays."""
    call = _NORMS[norm]

    def step(table: Table) -> Matrix:
        matrix = of(table)
        sizes = call(matrix)
        sizes[sizes == 0.0] = 1.0
        matrix /= sizes[:, np.newaxis]
        return matrix

    return step


_NORMS: dict[str, Callable[[Matrix], Column]] = {
    "l1": lambda matrix: np.abs(matrix).sum(axis=1),
    "l2": lambda matrix: np.sqrt(np.einsum("ij,ij->i", matrix, matrix)),
    "max": lambda matrix: np.abs(matrix).max(axis=1),
}


def linear(of: Numbers, weights: Column, bias: Column) -> Numbers:
    """Multiply by `weights` of shape (n_outputs, n_columns) and add `bias`."""
    transposed = weights.T
    return lambda table: of(table) @ transposed + bias


def words(
    of: Columns,
    pattern: str,
    lower: bool,
    lengths: Sequence[int],
    stop: Sequence[str],
    vocabulary: Sequence[str],
    binary: bool,
    sublinear: bool = False,
    idf: Column | None = None,
    norm: str | None = None,
) -> Bags:
    """Count the known words of one column of texts, and sequences of them, and weigh the counts by TF-IDF.

    Args:
        of: The column.
        pattern: What a word looks like.
        lower: Whether texts are put into small letters first.
        lengths: The shortest sequence and the longest.
        stop: Words that are passed over.
        vocabulary: What is counted, in the order of the weights.
        binary: Whether a word counts once however often it occurs.
        sublinear: Whether the logarithm of a count is taken, plus one.
        idf: A factor for each word.
        norm: `l1`, `l2` or `max`, by which a text's counts are divided.
    """
    find, ignored = re.compile(pattern).findall, frozenset(stop)
    places = {term: place for place, term in enumerate(vocabulary)}
    measure = None if norm is None else _NORMS[norm]

    def bag(text: str) -> tuple[Column, Column]:
        found = [word for word in find(text.lower() if lower else text) if word not in ignored]
        terms = (" ".join(found[at : at + n]) for n in range(*_within(lengths)) for at in range(len(found) - n + 1))
        known = Counter(places[term] for term in terms if term in places)
        indices = np.array(sorted(known), dtype=np.intp)
        counts = np.ones(len(known)) if binary else np.array([known[place] for place in indices.tolist()], dtype=float)
        if sublinear:
            counts = np.log(counts) + 1.0
        if idf is not None:
            counts *= idf[indices]
        if measure is not None and len(counts):
            counts /= measure(counts[np.newaxis]) or 1.0
        return indices, counts

    return lambda table: [bag(text) for text in of(table)[0]]


def _within(lengths: Sequence[int]) -> tuple[int, int]:
    return lengths[0], lengths[1] + 1


def weigh(of: Bags, weights: Column, bias: Column) -> Numbers:
    """Multiply counted words by `weights` of shape (n_outputs, n_words) and add `bias`."""
    by_word = np.ascontiguousarray(weights.T)

    def step(table: Table) -> Matrix:
        return np.array([counts @ by_word[indices] for indices, counts in of(table)]).reshape(-1, len(weights)) + bias

    return step


def total(of: Sequence[Numbers]) -> Numbers:
    """Add matrices up."""

    def step(table: Table) -> Matrix:
        matrix = of[0](table)
        for part in of[1:]:
            matrix += part(table)
        return matrix

    return step


def kernel(of: Numbers, vectors: Column, kind: str, gamma: float, constant: float, degree: float) -> Numbers:
    """Compare each row with each of `vectors`, as a support vector machine does.

    Source: scikit-learn.org/stable/modules/svm.html#kernel-functions, read 2026-11-23.
    """
    squares = np.einsum("ij,ij->i", vectors, vectors)

    def radial(matrix: Matrix) -> Matrix:
        own = np.einsum("ij,ij->i", matrix, matrix)[:, np.newaxis]
        distances: Matrix = np.maximum(own + squares - 2.0 * (matrix @ vectors.T), 0.0)
        return np.exp(-gamma * distances)

    calls: dict[str, Callable[[Matrix], Matrix]] = {
        "linear": lambda matrix: matrix @ vectors.T,
        "rbf": radial,
        "poly": lambda matrix: (gamma * (matrix @ vectors.T) + constant) ** degree,
        "sigmoid": lambda matrix: np.tanh(gamma * (matrix @ vectors.T) + constant),
    }
    call = calls[kind]
    return lambda table: call(of(table))


def votes(of: Numbers, pairs: Column, n_classes: int) -> Numbers:
    """Count, for each class, the pairs that it wins: the first of a pair where the number is positive."""
    first, second = pairs.T

    def step(table: Table) -> Matrix:
        wins = of(table) > 0.0
        counts = np.zeros((len(wins), n_classes))
        for index in range(len(pairs)):
            counts[:, first[index]] += wins[:, index]
            counts[:, second[index]] += ~wins[:, index]
        return counts

    return step


def trees(of: Numbers, graph: Column, single: bool) -> Numbers:
    """Run the ONNX graph of a tree ensemble, which computes in double or in single precision.

    Args:
        of: What the trees split.
        graph: The graph's bytes.
        single: Whether the trees were made for single precision: what they split is rounded to it first.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Several workers share the processors; threads of their own would fight over them, and add in another order.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False  # it would keep the largest request's memory
    session = onnxruntime.InferenceSession(graph.tobytes(), options, providers=["CPUExecutionProvider"])
    dtype = np.float32 if session.get_inputs()[0].type == "tensor(float)" else np.float64

    def step(table: Table) -> Matrix:
        matrix: Column = of(table)
        if single:
            matrix = matrix.astype(np.float32)
        answer: Column = session.run(["Y"], {"X": matrix.astype(dtype, copy=False)})[0]
        return answer.astype(np.float64, copy=False)

    return step


def leaves(of: Numbers, values: Column, n_trees: int) -> Numbers:
    """Average over the trees what stands in the leaves that a row falls into.

    Args:
        of: For each tree the number of the leaf.
        values: What stands in each leaf, of shape (n_leaves, n_values).
        n_trees: By how many the sum is divided.
    """

    def step(table: Table) -> Matrix:
        chosen = values.take(of(table).astype(np.intp).T, axis=0)
        total: Matrix = np.add.reduce(chosen, axis=0)  # one tree after the other, as scikit-learn adds them
        total /= n_trees
        return total

    return step


def share(of: Numbers, shares: str) -> Numbers:
    """Make probabilities of scores, by one of `SHARES`."""
    call = SHARES[shares]
    return lambda table: call(of(table))


# Outputs


def regression(of: Numbers, link: str) -> Answer:
    """Answer numbers: the matrix through `identity` or one of `FUNCTIONS`."""
    call = FUNCTIONS.get(link)

    def step(table: Table, probabilities: bool) -> Outputs:
        matrix = of(table)
        answer = matrix if call is None else call(matrix)
        return Outputs(answer[:, 0] if answer.shape[1] == 1 else answer)

    return step


def classification(of: Numbers, classes: Sequence[Label], shares: str) -> Answer:
    """Answer the class with the highest score, and probabilities out of the scores.

    Args:
        of: Scores: a column a class, or for two classes one column, which is positive for the second.
        classes: The labels.
        shares: How probabilities come out of scores, one of `SHARES`.
    """
    labels = np.array(classes)
    call = SHARES[shares]

    def step(table: Table, probabilities: bool) -> Outputs:
        scores = of(table)
        chosen = (scores[:, 0] > 0.0).astype(np.intp) if scores.shape[1] == 1 else scores.argmax(axis=1)
        return Outputs(labels[chosen], (call(scores),) if probabilities else None)

    return step


def several(of: Sequence[Answer]) -> Answer:
    """Answer several outputs, side by side."""

    def step(table: Table, probabilities: bool) -> Outputs:
        answers = [part(table, probabilities) for part in of]
        columns = [answer.predictions for answer in answers]
        kinds = {column.dtype.kind for column in columns}
        stacked = np.column_stack([column.astype(object) for column in columns] if len(kinds) > 1 else columns)
        return Outputs(stacked, tuple(answer.probabilities[0] for answer in answers if answer.probabilities) or None)

    return step


def _sigmoid(matrix: Matrix) -> Matrix:
    """1 / (1 + exp(-x)), without overflow."""
    small: Matrix = np.exp(-np.abs(matrix))
    return np.where(matrix >= 0.0, 1.0, small) / (1.0 + small)


def _two_sided(scores: Matrix) -> Matrix:
    """The probabilities of two classes out of the second one's score."""
    second = _sigmoid(scores)
    return np.concatenate([1.0 - second, second], axis=1)


def _softmax(scores: Matrix) -> Matrix:
    if scores.shape[1] == 1:
        scores = np.concatenate([-scores, scores], axis=1)
    raised: Matrix = np.exp(scores - scores.max(axis=1, keepdims=True))
    raised /= raised.sum(axis=1, keepdims=True)
    return raised


def _one_against_rest(scores: Matrix) -> Matrix:
    """Each class's own probability, as a share of all; where none has any they are equal."""
    each = _sigmoid(scores)
    each[~each.any(axis=1)] = 1.0
    each /= each.sum(axis=1, keepdims=True)
    return each


LARGEST_EXPONENT = float(np.float32(88.7))
"""Beyond it XGBoost takes no exponential, which would soon be more than single precision holds.

Source: what XGBoost 3.4.1 answers where its sums are -88.6, -88.7 and -89, asked 2026-11-23.
"""


def _single_exp(matrix: Column) -> Column:
    raised: Column = np.exp(matrix.astype(np.float64))
    return raised.astype(np.float32)


def _single_sigmoid(matrix: Column) -> Column:
    """1 / (1 + exp(-x)), rounded to single precision at each step, as XGBoost does."""
    sigmoid: Column = np.float32(1.0) / (_single_exp(np.minimum(-matrix, LARGEST_EXPONENT)) + np.float32(1.0))
    return sigmoid


def _single_two_sided(scores: Matrix) -> Matrix:
    second = _single_sigmoid(scores)
    return np.concatenate([np.float32(1.0) - second, second], axis=1).astype(np.float64)


def _single_softmax(scores: Matrix) -> Matrix:
    """The softmax, rounded to single precision at each step but the sum, as XGBoost does."""
    single = scores.astype(np.float32)
    raised = _single_exp(single - single.max(axis=1, keepdims=True))
    total = raised.sum(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    shares: Column = raised / total
    return shares.astype(np.float64)


SHARES: dict[str, Callable[[Matrix], Matrix]] = {
    "same": lambda scores: scores,
    "sigmoid": _two_sided,
    "softmax": _softmax,
    "one-against-rest": _one_against_rest,
    "single-sigmoid": _single_two_sided,
    "single-softmax": _single_softmax,
}


def _nan(code: float | None) -> float:
    return np.nan if code is None else code


OPERATORS: dict[str, Callable[..., Any]] = {
    operator.__name__: operator
    for operator in (
        *(
            features,
            fill,
            numbers,
            one_hot,
            ordinal,
            concatenate,
            impute,
            calculate,
            take,
            truncate,
            apply,
            powers,
            normalize,
        ),
        *(
            words,
            weigh,
            total,
            linear,
            kernel,
            votes,
            trees,
            small_trees,
            leaves,
            share,
            regression,
            classification,
            several,
        ),
    )
}
