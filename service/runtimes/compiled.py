"""The compiled runtime: a model as arrays and a plan of operators. Loading one runs no code of its maker's.

The file is numpy's .npz without pickles: arrays, and the plan as JSON. In the plan, `{"op": NAME, ...}` is a step and
`{"array": KEY}` one of the arrays.
"""

from __future__ import annotations

import io
import json
import logging
from typing import Any, BinaryIO

import numpy as np

from service.errors import MissingLibrary, UnreadableModel
from service.manifest import Layout
from service.runtimes.base import Facts, Loaded, Outputs, Policy, Source
from service.runtimes.operators import OPERATORS
from service.signature import Signature
from service.table import Column, Table

SUFFIXES: tuple[str, ...] = ()
"""None: `flask pack` takes no such file, it makes them."""
LAYOUTS: tuple[Layout, ...] = ("table",)
LIBRARIES = ("numpy",)
IMPORTS = ("numpy",)
PLAN = "plan"

log = logging.getLogger(__name__)


class CompiledRuntime:
    """The steps of a plan, called on a table."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def predict(self, table: Table, probabilities: bool) -> Outputs:
        """Run the steps."""
        with np.errstate(all="ignore"):  # what is not finite in the end is refused by whoever asks
            outputs: Outputs = self._answer(table, probabilities)
        return outputs


def load(stream: BinaryIO, source: Source, policy: Policy) -> Loaded:
    """Read the arrays and put the steps together."""
    try:
        content = stream.read()
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            if sum(entry.file_size for entry in file.zip.infolist()) > len(content):
                raise ValueError("what `write` writes is not compressed")  # so that a small file takes little memory
            arrays = {key: file[key] for key in file.files}
        steps = build(json.loads(arrays.pop(PLAN).tobytes()), arrays)
        if not callable(steps):
            raise ValueError("the plan is no step")
        return Loaded(steps)
    except ImportError as error:
        raise MissingLibrary(
            f"{source.label}: its trees need onnxruntime; write `onnxruntime` into requirements.in and run "
            "`make lock install`"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise anything; onnxruntime's errors share no base class
        log.exception("%s could not be read as a compiled model", source.label)
        raise UnreadableModel(
            f"{source.label}: the compiled form cannot be read ({type(error).__name__}); run `flask compile` again"
        ) from error


def build(plan: Any, arrays: dict[str, Column]) -> Any:
    """Make of a plan's node what it stands for: a step, an array, or a plain value."""
    if isinstance(plan, list):
        return [build(node, arrays) for node in plan]
    if not isinstance(plan, dict):
        return plan
    if set(plan) == {"array"}:
        return arrays[plan["array"]]
    settings = {key: build(node, arrays) for key, node in plan.items() if key != "op"}
    return OPERATORS[plan["op"]](**settings)


def write(plan: Any, arrays: dict[str, Column]) -> bytes:
    """Write what `load` reads."""
    target = io.BytesIO()
    named: dict[str, Any] = arrays | {PLAN: np.frombuffer(json.dumps(plan).encode(), np.uint8)}
    np.savez(target, **named)
    return target.getvalue()


def bind(model: Any, signature: Signature, layout: Layout) -> CompiledRuntime:
    """Make a runtime of the steps."""
    return CompiledRuntime(model)


def examine(model: Any) -> Facts:
    """Tell nothing: a compiled model is made of one that was examined."""
    return Facts(task="other")
