"""The compiler: a fitted estimator becomes a plan of plain operators, if it provably answers like the original.

It knows scikit-learn, LightGBM and XGBoost, which the compiled form does not. Only packing imports this room.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from service.compiler.edges import end_rows, split_rows
from service.compiler.estimators import answer
from service.compiler.plan import Flow, NotCompiled, Plan, Raw, matrix
from service.compiler.preparation import prepare
from service.compiler.proof import prove
from service.errors import PackageError, shorten
from service.manifest import Parity
from service.runtimes import RUNTIMES, Policy, Runtime, Source
from service.runtimes.estimator import bind_prepared
from service.signature import Signature
from service.table import Table

__all__ = ["Compiled", "NotCompiled", "compile_model", "compile_preparation"]

log = logging.getLogger(__name__)

MOST_ROWS = 10_000
"""How many rows of the sample are asked."""


@dataclass(frozen=True)
class Compiled:
    """A model's compiled form: its file's content, the runtime that opens it, and the proof."""

    content: bytes
    runtime: str
    parity: Parity


def compile_model(
    model: Any, original: Runtime, signature: Signature, table: Table, rows: Sequence[dict[str, Any]]
) -> Compiled:
    """Compile a fitted estimator and prove that the result answers like it.

    Args:
        model: The estimator.
        original: The estimator as a runtime, which the result is held against.
        signature: What it takes and gives.
        table: Rows to ask both.
        rows: The same rows, as values by feature.

    Raises:
        NotCompiled: If a part of it has no compiled form, or any answer differs; the message says which and where.
    """
    plan = Plan(signature)
    with _refusing():
        content = plan.bytes(answer(model, Raw(signature.names), plan))
    compiled = RUNTIMES[plan.runtime].bind(_steps(content, plan.runtime), signature, "table")
    some = table.rows(0, MOST_ROWS)
    edges = split_rows(plan.splits, plan.arrays, signature, some)
    tables = [some, end_rows(signature, rows), *([edges] if edges is not None else [])]
    return Compiled(content, plan.runtime, prove(original, compiled, signature, tables))


def compile_preparation(
    model: Any, original: Runtime, signature: Signature, table: Table, rows: Sequence[dict[str, Any]]
) -> Compiled:
    """Compile all steps of a pipeline but the last, or only how a table becomes a matrix; else as `compile_model`.

    Raises:
        NotCompiled: If a part of it has no compiled form, or any answer differs; the message says which and where.
    """
    plan = Plan(signature)
    flow: Flow = Raw(signature.names)
    with _refusing():
        for _, step in model.steps[:-1] if hasattr(model, "steps") else []:
            flow = flow if step is None else prepare(step, flow, plan)
        content = plan.bytes(matrix(flow, plan))
    prepared = bind_prepared(deepcopy(model), _steps(content, "compiled"))
    tables = [table.rows(0, MOST_ROWS), end_rows(signature, rows)]
    return Compiled(content, "compiled", prove(original, prepared, signature, tables))


@contextmanager
def _refusing() -> Iterator[None]:
    """Take whatever goes wrong while a model is taken to pieces for a refusal: the original is there to answer."""
    try:
        yield
    except NotCompiled:
        raise
    except Exception as error:  # estimators differ from version to version in what nobody promised
        log.warning("a model could not be compiled", exc_info=error)
        raise NotCompiled(f"it is not made as was expected ({type(error).__name__}: {shorten(str(error))})") from error


def _steps(content: bytes, runtime: str) -> Any:
    """Open a compiled form as a worker would."""
    try:
        return RUNTIMES[runtime].load(io.BytesIO(content), Source("the model"), Policy()).model
    except PackageError as error:
        raise NotCompiled(error.detail) from error
