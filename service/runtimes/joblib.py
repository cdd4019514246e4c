"""The joblib runtime: estimators in joblib or pickle files. Loading one runs code, so the policy is asked first."""

from __future__ import annotations

import logging
import re
from typing import Any, BinaryIO

from service.errors import UnreadableModel, shorten
from service.runtimes.base import Loaded, Policy, Source, check_trust, missing_module
from service.runtimes.estimator import LAYOUTS, bind, examine

__all__ = ["IMPORTS", "LAYOUTS", "LIBRARIES", "SUFFIXES", "bind", "examine", "load"]

SUFFIXES = (".joblib", ".pkl", ".pickle")
LIBRARIES = ("joblib", "scikit-learn")
IMPORTS = ("joblib", "pandas", "sklearn.compose", "sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline")

ATTRIBUTE = re.compile(r"attribute '([^']+)'")

log = logging.getLogger(__name__)


def load(stream: BinaryIO, source: Source, policy: Policy) -> Loaded:
    """Unpickle an estimator."""
    check_trust(policy, source.label, "a pickle")
    return Loaded(_unpickle(stream, source))


def _unpickle(stream: BinaryIO, source: Source) -> Any:
    try:
        import joblib
    except ImportError as error:
        raise missing_module(source.label, error.name or "joblib") from error
    try:
        return joblib.load(stream)
    except ModuleNotFoundError as error:
        raise missing_module(source.label, error.name or "a module") from error
    except AttributeError as error:
        named = ATTRIBUTE.search(str(error))
        raise UnreadableModel(
            f"{source.label}: the pickle names {shorten(named[1]) if named else 'something'!r}, which is not there; a "
            "function or class that was defined in a notebook or script must move into a module beside `service/` and "
            "be imported from there when training"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        log.exception("%s could not be unpickled", source.label)
        raise UnreadableModel(
            f"{source.label}: the file is damaged or not a pickle ({type(error).__name__}); pack the model again"
        ) from error
