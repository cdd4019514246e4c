"""What a model package says of itself: its manifest, as a typed value.

Knows neither the file system nor any model library.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from service.errors import InvalidManifest, shorten
from service.signature import Noun, Scalar, Signature, Task

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

OriginalLayout = Literal["frame", "categorical-frame", "matrix", "column", "tensors"]
"""How a model wants its rows: a pandas frame, a frame whose text columns are categoricals, a 2-D array, the one
column as a 1-D array, or the tensors that an ONNX graph names. A score.py gets objects for a frame,
lists for a 2-D array."""
Layout = Literal[OriginalLayout, "table", "prepared"]
"""Compiled forms want the service's own columns, and the last step of a pipeline the 2-D array that a compiled
preparation makes."""

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Answer = Scalar | tuple[Scalar, ...]


class PackedFile(Noun):
    """One file of the package, as it was when packed."""

    name: FileName
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class Parity(Noun):
    """The proof that a compiled form answers like the original, as it was made when packed. No label differed."""

    rows: int
    """How many rows both were asked: the sample, and rows beside the splits of trees and at the ends of values."""
    refused_rows: int = 0
    """Rows that the original itself could not answer."""
    largest_error: float
    """Largest difference between two predicted numbers, as a part of the number where that is above 1; 0 for labels."""
    largest_probability_error: float | None = None


class Artifact(Noun):
    """One form of the model: which runtime opens which file, and how the model wants its rows."""

    runtime: str
    file: FileName
    layout: Layout
    preparation: FileName | None = None
    """The compiled steps that make what the last step of the original gets; None where the original gets the rows."""
    parity: Parity | None = None
    """Of a form that was compiled, wholly or but for its last step, the proof; None for the original."""

    @model_validator(mode="after")
    def _consistent(self) -> Artifact:
        if (self.layout == "prepared") != (self.preparation is not None):
            raise ValueError("the layout `prepared` and a preparation go together")
        return self


class Golden(Noun):
    """Rows whose answers are known. A worker serves the model only after it has given the same answers.

    Rows are lists in signature order. Labels must be equal; numbers must be within `atol + rtol * |expected|`.
    `probabilities` holds, for each row and each output, one number a class.
    """

    rows: tuple[tuple[Scalar, ...], ...] = Field(min_length=1)
    predictions: tuple[Answer, ...]
    probabilities: tuple[tuple[tuple[float, ...], ...], ...] | None = None
    rtol: float = 1e-5
    atol: float = 1e-6

    @model_validator(mode="after")
    def _whole(self) -> Golden:
        lengths = {len(self.rows), len(self.predictions)} | (
            {len(self.probabilities)} if self.probabilities is not None else set()
        )
        if len(lengths) > 1:
            raise ValueError("there must be one answer for each golden row")
        return self


class Cost(Noun):
    """What the model cost where it was packed."""

    microseconds: dict[str, float]
    """Median time of one prediction, by number of rows."""
    model_mib: float
    """Growth of a fresh process by opening the model and answering the golden rows, in MiB."""
    process_mib: float
    """Resident memory of that process as a whole, in MiB."""


class Statistics(Noun):
    """How one feature was distributed in the sample."""

    missing_share: float
    mean: float | None = None
    std: float | None = None
    quantiles: tuple[float, ...] | None = None
    """At 0.05, 0.25, 0.5, 0.75 and 0.95."""
    shares: dict[str, float] | None = None
    """The most frequent values and their shares, at most 20."""


class Manifest(Noun):
    """`manifest.json` of a model package."""

    format: Literal[1] = 1
    name: str = Field(pattern=rf"^{NAME.pattern}$")
    version: str = Field(pattern=rf"^{VERSION.pattern}$")
    created: str
    task: Task
    signature: Signature
    files: tuple[PackedFile, ...] = Field(min_length=1)
    artifacts: tuple[Artifact, ...] = Field(min_length=1)
    """In order of preference; the first that can be opened and answers the golden rows is served."""
    libraries: dict[Annotated[str, Field(min_length=1)], str]
    """Libraries that the original cannot be loaded without, and the versions it was made with."""
    environment: dict[str, str]
    """Python and other libraries at the time of packing, for the record."""
    skops_types: tuple[str, ...] = ()
    """Types beyond skops' own trusted ones that a skops file holds; the operator's settings must trust them too."""
    golden: Golden
    metrics: dict[str, float] = {}
    """Measured on the sample that was packed, which may be the training data."""
    statistics: dict[str, Statistics]
    cost: Cost

    @property
    def label(self) -> str:
        """`name/version`, as messages and headers say it."""
        return f"{self.name}/{self.version}"

    def file(self, name: str) -> PackedFile:
        """Return the entry of one file.

        Raises:
            InvalidManifest: If the manifest does not list it.
        """
        for entry in self.files:
            if entry.name == name:
                return entry
        raise InvalidManifest(f"{self.label}: the manifest does not list {name!r}; pack the model again")


def read_manifest(label: str, content: bytes) -> Manifest:
    """Parse `manifest.json`.

    Raises:
        InvalidManifest: If it is not a manifest of this format.
    """
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        detail = f"{label}: manifest.json is not valid at {shorten(where)} ({first['msg']}); pack the model again"
        raise InvalidManifest(detail) from error
