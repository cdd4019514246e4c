"""The skops runtime: estimators in skops files, which run no code, of types that manifest and operator both trust."""

from __future__ import annotations

import logging
from typing import BinaryIO

from service.errors import MissingLibrary, ServiceError, UnreadableModel, UntrustedModel
from service.runtimes.base import Loaded, Policy, Source
from service.runtimes.estimator import LAYOUTS, bind, examine

__all__ = ["IMPORTS", "LAYOUTS", "LIBRARIES", "SUFFIXES", "bind", "examine", "load"]

SUFFIXES = (".skops",)
LIBRARIES = ("skops", "scikit-learn")
IMPORTS = ("skops.io", "pandas", "sklearn.compose", "sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline")

log = logging.getLogger(__name__)


def load(stream: BinaryIO, source: Source, policy: Policy) -> Loaded:
    """Build an estimator from a skops file.

    The types to trust are the manifest's; only while packing, when there is none yet, are they read from the file. In
    both cases the operator must trust them too.
    """
    try:
        import skops.io
    except ImportError as error:
        raise MissingLibrary(
            f"{source.label}: opening a .skops file needs skops; write `skops` into requirements.in and run "
            "`make lock install`"
        ) from error
    content = stream.read()
    try:
        types = skops.io.get_untrusted_types(data=content) if source.types is None else list(source.types)
        _check_trust(types, source, policy)
        return Loaded(skops.io.loads(content, trusted=types), tuple(types))
    except ServiceError:
        raise
    except skops.io.exceptions.UntrustedTypesFoundException as error:
        raise UntrustedModel(f"{source.label}: the file holds types that its manifest does not list") from error
    except Exception as error:  # a damaged archive may raise anything
        log.exception("%s could not be read by skops", source.label)
        raise UnreadableModel(
            f"{source.label}: the file is damaged or not a skops file ({type(error).__name__}); pack the model again"
        ) from error


def _check_trust(types: list[str], source: Source, policy: Policy) -> None:
    strangers = sorted(set(types) - policy.skops_types)
    if strangers:
        raise UntrustedModel(
            f"{source.label}: the file holds types that are not trusted; if you know them, set "
            f"ANYPORT_SKOPS_TRUSTED={','.join(strangers)}"
        )
