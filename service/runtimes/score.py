"""The score runtime: folders with a `score.py`, Azure Machine Learning's contract of `init()` once and then `run()`.

What Azure AutoML exports is such a folder. Loading one runs its code.

Sources: azureml-inference-server-http 1.5.1 server/user_script.py and server/input_parsers.py, inference-schema 1.8
schema_util.py; learn.microsoft.com/azure/machine-learning/how-to-deploy-automl-endpoint; read 2026-11-23.
"""

from __future__ import annotations

import inspect
import itertools
import json
import logging
import re
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from service.errors import UnreadableModel, shorten
from service.manifest import Layout
from service.runtimes.archive import remove, unpacked
from service.runtimes.base import Facts, Loaded, Outputs, Policy, Source, check_trust, missing_module, spell
from service.runtimes.estimator import libraries_of
from service.runtimes.own_code import alone, forget
from service.signature import Signature
from service.table import Column, Table

__all__ = [
    "EXPORTED",
    "IMPORTS",
    "LAYOUTS",
    "LIBRARIES",
    "SCRIPT",
    "SUFFIXES",
    "bind",
    "examine",
    "find_script",
    "load",
]

SUFFIXES = (".score.zip",)
LAYOUTS: tuple[Layout, ...] = ("frame", "matrix")
LIBRARIES = ()
IMPORTS = ()

SCRIPT = "score.py"
EXPORTED = "scoring_file_v*.py"
"""How Azure AutoML calls its scripts, with the version of its contract at the end."""
FOLDER = "AZUREML_MODEL_DIR"
"""The variable in which a script finds its folder."""
INPUTS, GLOBALS, HEADERS = "Inputs", "GlobalParameters", "request_headers"
DEFAULTS: Mapping[str, Any] = {GLOBALS: {"method": "predict"}, HEADERS: {}}
"""What is given for parameters that are not the rows, where the script has no default of its own."""
ANSWERS = ("Results", "predictions", "result", "prediction")
"""Under which of these an answer that is an object has its predictions."""
Call = Callable[[Any], dict[str, Any]]
"""Makes the arguments of `run()` of rows."""

log = logging.getLogger(__name__)
_numbers = itertools.count()


def find_script(folder: Path) -> Path | None:
    """Return a folder's script: `score.py`, else AutoML's of the newest version; None if there is none."""
    if (folder / SCRIPT).is_file():
        return folder / SCRIPT
    exported = sorted(folder.glob(EXPORTED), key=lambda path: [int(number) for number in re.findall(r"\d+", path.stem)])
    return exported[-1] if exported else None


class Script:
    """A script whose `init()` has run. One call at a time: nobody promised that it may be called by several threads."""

    def __init__(self, run: Callable[..., Any], call: Call, held: Mapping[str, Any]) -> None:
        self._run, self._call = run, call
        self._turn = threading.Lock()
        self.held = held
        """The script's globals, among them what `init()` has loaded."""

    def ask(self, rows: Any) -> Any:
        """Call `run()`; raises whatever it raises."""
        with self._turn:
            return self._run(**self._call(rows))


def load(stream: BinaryIO, source: Source, policy: Policy) -> Loaded:
    """Unpack a folder, import its script under a name of its own, and call `init()`."""
    check_trust(policy, source.label, "a folder with a score.py")
    with unpacked(stream, source.label) as folder:
        path = find_script(folder)
        if path is None:
            raise UnreadableModel(f"{source.label}: the archive holds no {SCRIPT} and no {EXPORTED}; pack it again")
        with alone(folder, {FOLDER: str(folder)}) as modules:
            script = _start(path, source)
        weakref.finalize(script, _end, folder, modules)
    return Loaded(script)


def _end(folder: Path, modules: list[ModuleType]) -> None:
    forget(modules)
    remove(folder)


def _start(path: Path, source: Source) -> Script:
    name = f"anyport_score_{next(_numbers)}"  # inference-schema wants every script under another name
    spec = util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # it is a .py file
    module = sys.modules[name] = util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        init, run = _functions(module, source)
        init()
    except (UnreadableModel, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise missing_module(source.label, error.name or "a module") from error
    except (Exception, SystemExit) as error:  # its code may raise anything
        log.exception("%s could not be started", source.label)
        raise UnreadableModel(
            f"{source.label}: {path.name} failed while it was imported or in init(): {spell(error, source)}"
        ) from error
    return Script(run, _call(run, source), vars(module))


def _functions(module: ModuleType, source: Source) -> tuple[Callable[[], Any], Callable[..., Any]]:
    init, run = getattr(module, "init", None), getattr(module, "run", None)
    if not callable(init) or not callable(run):
        raise UnreadableModel(f"{source.label}: the script must define init() and run(), as Azure ML wants it")
    return init, run


def _call(run: Callable[..., Any], source: Source) -> Call:
    """Find out how a script wants to be called.

    Raises:
        UnreadableModel: If it has a parameter that nobody could fill.
    """
    told = inspect.signature(run).parameters
    names = [name for name in told if name != HEADERS]
    if not names:
        raise UnreadableModel(
            f"{source.label}: run() takes no rows; give it a parameter for the request, as Azure ML has"
        )
    typed = _is_typed(run)
    rows = INPUTS if typed and INPUTS in names else names[0]
    others = {name: _filling(parameter, source) for name, parameter in told.items() if name != rows}
    if not typed:
        return lambda table: {rows: json.dumps({"data": table}), **others}
    if rows == INPUTS:
        return lambda table: {rows: {"data": table}, **others}
    return lambda table: {rows: table, **others}


def _filling(parameter: inspect.Parameter, source: Source) -> Any:
    if parameter.default is not parameter.empty:
        return parameter.default
    if parameter.name not in DEFAULTS:
        raise UnreadableModel(
            f"{source.label}: run() takes {shorten(parameter.name)!r} beside the rows, and nobody knows what; give it "
            "a default in the script"
        )
    return DEFAULTS[parameter.name]


def _is_typed(run: Callable[..., Any]) -> bool:
    """Whether `run()` has inference-schema's decorators: then it gets values, else the text of a request."""
    schema = sys.modules.get("inference_schema.schema_util")
    return schema is not None and bool(schema.is_schema_decorated(run))


class ScoreRuntime:
    """A script, and how its rows are made of a table."""

    def __init__(self, script: Script, signature: Signature, layout: Layout) -> None:
        self._script, self._names, self._layout = script, signature.names, layout

    def predict(self, table: Table, probabilities: bool) -> Outputs:
        """Call `run()` with every row; a script answers no probabilities beside its predictions."""
        rows = zip(*(table.cells(name) for name in self._names), strict=True)
        if self._layout == "frame":
            return Outputs(_predictions(self._script.ask([dict(zip(self._names, row, strict=True)) for row in rows])))
        return Outputs(_predictions(self._script.ask(list(map(list, rows)))))


def _predictions(answer: Any) -> Column:
    """Find the predictions in an answer, of shape (n_rows,) or (n_rows, n_outputs).

    Raises:
        ValueError: If it has none, or they are no plain values of one kind; or it is text and no JSON.
    """
    found = json.loads(answer) if isinstance(answer, str) else answer
    if isinstance(found, dict):
        keys = [key for key in ANSWERS if key in found]
        if len(keys) != 1:
            told = shorten(", ".join(map(str, found)))
            raise ValueError(f"run() answered an object with {told}; one of {', '.join(ANSWERS)} is needed")
        found = found[keys[0]]
    if not isinstance(found, list | tuple):
        raise ValueError(f"run() answered {type(found).__name__}; a list with a prediction for each row is needed")
    cells = np.array(found, dtype=object)
    kinds = {type(cell) for cell in cells.flat}
    if kinds == {str}:
        return cells
    if kinds and kinds <= {int, float} or kinds == {bool}:
        return np.array(found)
    named = ", ".join(sorted(kind.__name__ for kind in kinds)) or "nothing"
    raise ValueError(f"run() answered a list of {named}; texts, numbers or truths are needed")


def bind(model: Any, signature: Signature, layout: Layout) -> ScoreRuntime:
    """Make a runtime of a script that was started."""
    return ScoreRuntime(model, signature, layout)


def examine(model: Any) -> Facts:
    """Tell where what the script holds comes from; of its rows and answers it tells nothing."""
    return Facts(task="other", layouts=LAYOUTS, libraries=tuple(sorted(libraries_of(list(model.held.values())))))
