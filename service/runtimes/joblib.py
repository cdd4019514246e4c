"""The joblib runtime: estimators in joblib or pickle files. Loading one runs code, so the policy is asked first."""

from __future__ import annotations

import logging
import re
import warnings
from typing import Any, BinaryIO

from service.errors import MissingLibrary, UnreadableModel, UntrustedModel, VersionSkew, shorten
from service.runtimes.base import Policy, Source
from service.runtimes.estimator import bind, examine

__all__ = ["IMPORTS", "LIBRARIES", "SUFFIXES", "bind", "examine", "load"]

SUFFIXES = (".joblib", ".pkl", ".pickle")
LIBRARIES = ("joblib", "scikit-learn")
IMPORTS = ("joblib", "pandas", "sklearn.compose", "sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline")

ATTRIBUTE = re.compile(r"attribute '([^']+)'")

log = logging.getLogger(__name__)


def load(stream: BinaryIO, source: Source, policy: Policy) -> Any:
    """Unpickle an estimator."""
    if not policy.pickle:
        raise UntrustedModel(
            f"{source.label} is a pickle, and loading one runs its code; allow it with ANYPORT_ALLOW_PICKLE=true, or "
            "pack the model as .skops or .onnx"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = _unpickle(stream, source)
    _check_versions(caught, source, policy)
    return model


def _unpickle(stream: BinaryIO, source: Source) -> Any:
    try:
        import joblib
    except ImportError as error:
        raise MissingLibrary(_missing(source, error.name or "joblib")) from error
    try:
        return joblib.load(stream)
    except ModuleNotFoundError as error:
        raise MissingLibrary(_missing(source, error.name or "a module")) from error
    except AttributeError as error:
        named = ATTRIBUTE.search(str(error))
        raise UnreadableModel(
            f"{source.label}: the pickle names {shorten(named[1]) if named else 'something'!r}, which is not there; a "
            "function or class that was defined in a notebook or script must move into a module beside `service/` and "
            "be imported from there when training"
        ) from error
    except Exception as error:  # a damaged pickle may raise anything
        log.exception("%s could not be unpickled", source.label)
        raise UnreadableModel(
            f"{source.label}: the file is damaged or not a pickle ({type(error).__name__}); pack the model again"
        ) from error


def _missing(source: Source, module: str) -> str:
    return (
        f"{source.label}: the model needs the Python module {module!r}, which is not installed; if it is a library, "
        "write its name into requirements.in and run `make lock install`; if it is your own, put it beside `service/`"
    )


def _check_versions(caught: list[warnings.WarningMessage], source: Source, policy: Policy) -> None:
    from sklearn.exceptions import InconsistentVersionWarning

    for warning in caught:
        if isinstance(warning.message, InconsistentVersionWarning):
            made_with = warning.message.original_sklearn_version
            detail = skew_detail(source.label, "scikit-learn", made_with, warning.message.current_sklearn_version)
            if policy.skew == "refuse":
                raise VersionSkew(detail)
            log.warning(detail)
            return


def skew_detail(label: str, library: str, made_with: str, here: str) -> str:
    """Say which version a model was made with, which one is here, and the two ways to mend it."""
    return (
        f"{label} was made with {library} {made_with} and here is {here}; train and pack it again here, or write "
        f"`{library}=={made_with}` into requirements.in and run `make lock install`"
    )
