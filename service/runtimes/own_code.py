"""Lets the code that comes with a model run as if it were alone in the process, and clears up behind it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

_ALONE = threading.Lock()
"""The import path and the environment are the whole process's, so one model's code is loaded at a time."""


@contextmanager
def alone(folder: Path, variables: Mapping[str, str]) -> Iterator[list[ModuleType]]:
    """Let code in a folder import its neighbours and read variables of the environment, until the block ends.

    Then path and environment are as they were, and the modules that came from the folder are forgotten: another model
    or version has modules of the same names. What other threads import and read meanwhile stays theirs; they may see
    the variables.

    Yields:
        A list that holds, once the block has ended, the modules that came from the folder.
    """
    modules: list[ModuleType] = []
    with _ALONE:
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        sys.path.insert(0, str(folder))
        try:
            yield modules
        finally:
            sys.path[:] = [entry for entry in sys.path if not _is_inside(entry, folder)]
            for name in [name for name, module in sys.modules.copy().items() if _comes_from(module, folder)]:
                modules.append(sys.modules.pop(name))
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _is_inside(entry: str, folder: Path) -> bool:
    return entry == str(folder) or entry.startswith(f"{folder}/")


def _comes_from(module: object, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and _is_inside(file, folder)


def forget(modules: list[ModuleType]) -> None:
    """Empty modules that nobody needs any more: a function and its module hold each other, and would stay."""
    for module in modules:
        vars(module).clear()
