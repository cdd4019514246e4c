"""Rows at which two forms of a model are likeliest to differ: beside the splits of its trees, and where values end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from service.compiler.graph import MEMBER, Ensemble
from service.compiler.plan import UNSEEN, Splits
from service.runtimes.compiled import build
from service.signature import Feature, Signature, magnitude
from service.table import Column, Table, table_from_rows

MOST_SPLITS = 3000
"""Beside so many splits rows are made, some seven each; of larger ensembles the trees are taken at even distances."""
MOST_CATEGORIES = 50
BASES = 5
"""Rows of the sample of which each feature in turn is moved to its ends."""
FAR = 10.0
LARGEST_WHOLE = 2.0**53
"""Beyond it a double is no longer sure to be the whole number that was meant."""

Origin = tuple[str, tuple[tuple[str, float], ...]] | None
"""The feature that a column of a matrix is made of, and what is calculated on the way; None where it is no such."""


def end_rows(signature: Signature, rows: Sequence[dict[str, Any]]) -> Table:
    """Return rows in which each feature in turn is missing, unseen, zero, or as large as the signature lets it be."""
    bases = [rows[index] for index in np.linspace(0, len(rows) - 1, BASES).astype(int).tolist()]
    made = [dict(row) for row in bases]
    for row in bases:
        for feature in signature.features:
            made += [row | {feature.name: value} for value in _ends(feature)]
    return table_from_rows(signature, made)


def _ends(feature: Feature) -> Iterator[Any]:
    if feature.takes_null:
        yield None
    yield from (feature.categories or ())[:MOST_CATEGORIES]
    if feature.closed:
        return
    if feature.dtype == "string":
        yield from (UNSEEN, "")
    elif feature.dtype == "bool":
        yield from (True, False)
    elif feature.dtype in ("float64", "float32", "int64"):
        bound = magnitude(feature) or np.inf
        low, high = feature.minimum or 0.0, feature.maximum or 0.0
        numbers = (0.0, -0.0, low, high, FAR * high + 1, FAR * low - 1, 1e-30, 16777217.0, -1e15, bound)
        fitting = [float(number) for number in numbers if abs(number) <= bound and np.isfinite(number)]
        yield from map(int, fitting) if feature.dtype == "int64" else fitting


def split_rows(splits: Sequence[Splits], arrays: dict[str, Column], signature: Signature, table: Table) -> Table | None:
    """Return rows that come to a split of a tree with just its threshold, a step beside it, or nothing.

    Args:
        splits: The ensembles.
        arrays: The plan's arrays.
        signature: The model's signature.
        table: Rows of the sample; a split that none of them comes to is left out.
    """
    moved: list[tuple[int, str, Any]] = []
    features = {feature.name: feature for feature in signature.features}
    for found in splits:
        origins = _origins(found.of, arrays)
        matrix = build(found.of, arrays)(table)
        matrix = matrix.astype(np.float32).astype(float) if found.single else matrix
        for row, column, split in _reached(found.ensemble, matrix):
            origin = origins[column]
            if origin is not None:
                name, steps = origin
                moved += [(row, name, value) for value in _beside(split, steps, features[name])]
    return _moved(table, moved) if moved else None


def _beside(split: float, steps: Sequence[tuple[str, float]], feature: Feature) -> Iterator[Any]:
    """The feature's values that come to a split with its threshold, or a step beside it."""
    near = [_before(value, steps) for value in _neighbours(split)]
    split = near[0]
    near = list(dict.fromkeys([*near, *_neighbours(split)]))
    bound = magnitude(feature) or np.inf
    if feature.dtype == "bool":
        yield from (False, True)
    elif not feature.closed:
        near = [np.floor(split), np.ceil(split)] if feature.dtype == "int64" else near
        fitting = (float(value) for value in near if np.isfinite(value) and abs(value) <= min(bound, LARGEST_WHOLE))
        yield from map(int, fitting) if feature.dtype == "int64" else fitting
    if feature.takes_null:
        yield None


def _neighbours(split: float) -> Iterator[float]:
    """The number, and its neighbours in single and in double precision."""
    single, ends = np.float32(split), (-np.inf, np.inf)
    yield from map(float, (split, single, *(np.nextafter(split, end) for end in ends)))
    yield from (float(np.nextafter(single, np.float32(end))) for end in ends)


def _moved(table: Table, moved: list[tuple[int, str, Any]]) -> Table:
    rows, names, values = (np.array(part, dtype=object) for part in zip(*moved, strict=True))
    rows = rows.astype(np.intp)
    columns = {}
    for name, column in table.columns.items():
        chosen = column[rows].copy()
        here = names == name
        if here.any():
            chosen[here] = values[here]
        columns[name] = chosen
    return Table(columns, len(rows))


def _reached(ensemble: Ensemble, matrix: Any) -> Iterator[tuple[int, int, float]]:
    """Yield a row that comes to a split, the column that is split, and the threshold; at most `MOST_SPLITS`.

    Of a split by category the threshold is half a step beside a member.
    """
    wanted = max(1, MOST_SPLITS * len(ensemble.roots) // max(len(ensemble.modes), 1))
    chosen = np.unique(np.linspace(0, len(ensemble.roots) - 1, wanted).astype(int)).tolist()
    left = MOST_SPLITS
    for root in (ensemble.roots[index] for index in chosen):
        pending = [(root, np.arange(len(matrix)))]
        while pending and left:
            node, rows = pending.pop()
            if not len(rows):
                continue
            column, split, compares = ensemble.features[node], ensemble.splits[node], ensemble.modes[node] != MEMBER
            left -= 1
            yield int(rows[0]), column, split if compares else ensemble.members[node][0] + 0.5
            values = matrix[rows, column]
            true = values <= split if compares else np.isin(values, ensemble.members[node])
            true |= np.isnan(values) & bool(ensemble.missing_true[node])
            ways = zip(ensemble.children[node], ensemble.are_leaves[node], (true, ~true), strict=True)
            pending += [(child, rows[some]) for child, is_leaf, some in ways if not is_leaf]


def _origins(node: Any, arrays: dict[str, Column]) -> list[Origin]:
    """Trace each column of a node's matrix back to the feature that it is made of."""
    nowhere: list[Origin] = [None]
    match node["op"]:
        case "numbers":
            return [(name, ()) for name in node["names"]]
        case "concatenate":
            return [origin for part in node["of"] for origin in _origins(part, arrays)]
        case "impute":
            kept = np.flatnonzero(~np.isnan(arrays[node["values"]["array"]]))
            of = _origins(node["of"], arrays)
            return [of[column] for column in kept] + nowhere * len(node["flags"])
        case "calculate":
            of = _origins(node["of"], arrays)
            return [_through(origin, node["steps"], column, arrays) for column, origin in enumerate(of)]
        case "take":
            of = _origins(node["of"], arrays)
            return [of[column] for column in arrays[node["columns"]["array"]].tolist()]
        case "truncate":
            return _origins(node["of"], arrays)
        case "one_hot":
            return nowhere * int(node["width"])
        case "ordinal":
            return nowhere * len(node["codes"])
        case "linear" | "weigh":
            return nowhere * len(arrays[node["weights"]["array"]])
        case "total":
            return _origins(node["of"][0], arrays)
        case "powers":
            return nowhere * len(arrays[node["exponents"]["array"]])
        case _:
            return [None for _ in _origins(node["of"], arrays)]


def _through(origin: Origin, steps: Any, column: int, arrays: dict[str, Column]) -> Origin:
    if origin is None:
        return None
    name, before = origin
    taken = [(step, float(arrays[o["array"]][column]) if isinstance(o, dict) else float(o)) for step, o in steps]
    return name, (*before, *taken)


def _before(split: float, steps: Sequence[tuple[str, float]]) -> float:
    """Undo what was calculated on the way to a column."""
    for step, operand in reversed(steps):
        match step:
            case "subtract":
                split += operand
            case "divide":
                split *= operand
            case "multiply":
                split /= operand
            case "add":
                split -= operand
    return float(split)
