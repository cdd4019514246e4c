"""The error tree: what can go wrong, as a stable code, a plain-number status and a message with the next step.

Knows nothing of HTTP libraries, models or files. The core raises these; each edge translates them into its own words.

ServiceError
├── RequestError             the client can mend it
│   ├── InvalidJson, DuplicateKey, InvalidCsv, InvalidArrow                                              400
│   ├── InvalidHeader, InvalidContentEncoding, UnknownParameter                                          400
│   ├── Unauthorized                                                                                     401
│   ├── NotFound, UnknownModel, UnknownVersion                                                           404
│   ├── MethodNotAllowed 405, NotAcceptable 406, RequestTimeout 408, PayloadTooLarge 413
│   ├── UnsupportedMediaType, UnsupportedContentEncoding                                                 415
│   └── InvalidInstances     what was read does not fit the signature                                    422
│       ├── InvalidInstance, MissingFeature, UnknownFeature, NumberOutOfRange
│       └── InvalidDocument, MissingField, UnknownField, EmptyInstances, TooManyRows
├── PredictionError          the model failed on valid input                                             500
│   └── NonFinitePrediction
├── NotReady                 the model is not being served                                               503
│   └── Overloaded, InsufficientMemory, Draining
├── PackageError             a model package cannot be opened
│   ├── OnTrial, InvalidManifest, ChecksumMismatch, VersionSkew, MissingLibrary
│   └── UnreadableModel, UntrustedModel, GoldenMismatch, UnreadableBucket
├── PackingError             `flask pack` needs something else from its user
├── PlatformError            a platform's file, tool or tree is not what a command needs
└── SettingsError            an environment variable holds an unusable value
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

MAX_FAULTS = 20
"""How many faults one error lists; the rest are only counted, so that an error stays under 8 KB."""


def shorten(text: str, limit: int = 60) -> str:
    """Cut text that came from outside to at most `limit` characters, without half surrogate pairs."""
    text = text[: limit + 1].encode("utf-8", "replace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def closest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` where a name is nearly one that is known, else nothing."""
    close = difflib.get_close_matches(name, list(known), 1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a request: where it is, its code, and what would be right."""

    code: str
    detail: str
    row: int | None = None
    feature: str | None = None

    def told(self) -> str:
        """Tell it in one line: where, unless the detail names it, and what."""
        feature = repr(self.feature) if self.feature else ""
        places = (
            f"row {self.row}" if self.row is not None else "",
            "" if feature and self.detail.startswith(feature) else feature,
        )
        return f"{', '.join(filter(None, places)) or 'the request'}: {self.detail}"


class ServiceError(Exception):
    """Anything that this service refuses or fails to do."""

    code: ClassVar[str] = "internal-error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "The service failed"

    def __init__(self, detail: str, *, faults: Iterable[Fault] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)[:MAX_FAULTS]


class RequestError(ServiceError):
    """The request cannot be answered as it was sent."""

    code = "invalid-request"
    status = 400
    title = "The request cannot be read"


class InvalidJson(RequestError):
    code = "invalid-json"
    title = "The body is not JSON"


class DuplicateKey(RequestError):
    code = "duplicate-key"
    title = "A key stands twice in one JSON object"


class InvalidCsv(RequestError):
    code = "invalid-csv"
    title = "The body is not the CSV that the signature describes"


class InvalidArrow(RequestError):
    code = "invalid-arrow"
    title = "The body is not a whole and plain Arrow IPC stream"


class InvalidHeader(RequestError):
    code = "invalid-header"
    title = "A header is malformed or does not match the body"


class InvalidContentEncoding(RequestError):
    code = "invalid-content-encoding"
    title = "The body cannot be decompressed"


class UnknownParameter(RequestError):
    code = "unknown-parameter"
    title = "The request has a parameter that this route does not know"


class Unauthorized(RequestError):
    code = "unauthorized"
    status = 401
    title = "The request does not carry the service's token"


class NotFound(RequestError):
    code = "not-found"
    status = 404
    title = "There is nothing at this path"


class UnknownModel(RequestError):
    code = "unknown-model"
    status = 404
    title = "No model has this name"


class UnknownVersion(RequestError):
    code = "unknown-version"
    status = 404
    title = "The model has no such version"


class MethodNotAllowed(RequestError):
    code = "method-not-allowed"
    status = 405
    title = "This path does not answer that method"


class NotAcceptable(RequestError):
    code = "not-acceptable"
    status = 406
    title = "None of the accepted media types can be produced"


class RequestTimeout(RequestError):
    code = "request-timeout"
    status = 408
    title = "The request did not arrive in time"


class PayloadTooLarge(RequestError):
    code = "payload-too-large"
    status = 413
    title = "The body is too large"


class UnsupportedMediaType(RequestError):
    code = "unsupported-media-type"
    status = 415
    title = "The body's media type is absent or unknown"


class UnsupportedContentEncoding(RequestError):
    code = "unsupported-content-encoding"
    status = 415
    title = "The body's content coding is not accepted"


class InvalidInstances(RequestError):
    """What was read does not fit the signature; also the code where several kinds of fault come together."""

    code = "invalid-instances"
    status = 422
    title = "The instances do not fit the model's signature"


class InvalidInstance(InvalidInstances):
    code = "invalid-instance"
    title = "A value does not fit its feature"


class MissingFeature(InvalidInstances):
    code = "missing-feature"
    title = "A required feature is missing"


class UnknownFeature(InvalidInstances):
    code = "unknown-feature"
    title = "A feature is not in the signature"


class NumberOutOfRange(InvalidInstances):
    code = "number-out-of-range"
    title = "A number is too large for the type that the model computes in"


class InvalidDocument(InvalidInstances):
    code = "invalid-document"
    title = "The JSON document does not have the shape of a prediction request"


class MissingField(InvalidInstances):
    code = "missing-field"
    title = "The JSON document has neither `instances` nor `inputs`"


class UnknownField(InvalidInstances):
    code = "unknown-field"
    title = "The JSON document has a field that a prediction request does not have"


class EmptyInstances(InvalidInstances):
    code = "empty-instances"
    title = "There is no row to predict"


class TooManyRows(InvalidInstances):
    code = "too-many-rows"
    title = "There are too many rows in one request"


class PredictionError(ServiceError):
    """The model raised on input that fits its signature."""

    code = "prediction-failed"
    title = "The model failed on this input"


class NonFinitePrediction(PredictionError):
    code = "non-finite-prediction"
    title = "The model answered NaN or infinity"


class NotReady(ServiceError):
    code = "not-ready"
    status = 503
    title = "The model is not being served"


class Overloaded(NotReady):
    code = "overloaded"
    title = "The service is busy"


class InsufficientMemory(NotReady):
    code = "insufficient-memory"
    title = "There is no memory for another large body"


class Draining(NotReady):
    code = "draining"
    title = "The service is ending"


class PackageError(ServiceError):
    """A model package cannot be opened. `detail` names package, file and fix, never a path of this machine."""

    code = "invalid-package"
    status = 503
    title = "A model package cannot be opened"


class OnTrial(PackageError):
    code = "on-trial"
    title = "The package is being tried in a process of its own"


class InvalidManifest(PackageError):
    code = "invalid-manifest"
    title = "The package's manifest is missing or malformed"


class ChecksumMismatch(PackageError):
    code = "checksum-mismatch"
    title = "A file of the package is not the one that was packed"


class VersionSkew(PackageError):
    code = "version-skew"
    title = "The model was made with other versions of its libraries"


class MissingLibrary(PackageError):
    code = "missing-library"
    title = "A library that the model needs is not installed"


class UnreadableModel(PackageError):
    code = "unreadable-model"
    title = "The model file cannot be loaded"


class UntrustedModel(PackageError):
    code = "untrusted-model"
    title = "The operator's policy does not allow this model to be loaded"


class GoldenMismatch(PackageError):
    code = "golden-mismatch"
    title = "The model does not answer its golden rows as it did when packed"


class UnreadableBucket(PackageError):
    code = "unreadable-bucket"
    title = "The bucket that holds the models cannot be read"


class PackingError(ServiceError):
    """A model cannot be packed as it was given; `detail` says what to give instead."""

    code = "packing-failed"
    title = "The model cannot be packed"


class PlatformError(ServiceError):
    """What a command for a platform needs is not there, or not as it must be."""

    code = "platform-error"
    title = "A platform cannot be served so"


class SettingsError(ServiceError):
    code = "invalid-setting"
    title = "A setting is unusable"


def every_error() -> list[type[ServiceError]]:
    """List every class of the tree, parents first."""

    def below(parent: type[ServiceError]) -> list[type[ServiceError]]:
        return [parent] + [error for child in parent.__subclasses__() for error in below(child)]

    return below(ServiceError)


def faults_error(faults: list[Fault], total: int) -> RequestError:
    """Make one error of many faults: their common kind if they share one, else `invalid-instances`."""
    codes = {fault.code for fault in faults}
    shared = next((e for e in every_error() if codes == {e.code} and issubclass(e, RequestError)), InvalidInstances)
    first = faults[0].detail
    more = f"; {total - 1} more" if total > 1 else ""
    error = shared(f"{first}{more}", faults=faults)
    assert isinstance(error, RequestError)
    return error
