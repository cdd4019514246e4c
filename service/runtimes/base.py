"""What every runtime takes and gives, and how a runtime module looks from outside.

A runtime sees tables and never a wire format.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol

from service.errors import MissingLibrary, UntrustedModel, VersionSkew, shorten
from service.manifest import Layout
from service.signature import Dtype, Label, Signature, Task
from service.table import Column, Table

log = logging.getLogger(__name__)


class Outputs(NamedTuple):
    """What a model answered.

    `predictions` has shape (n_rows,) or (n_rows, n_outputs); `probabilities` one array of shape (n_rows, n_classes) for
    each output.
    """

    predictions: Column
    probabilities: tuple[Column, ...] | None = None


class Runtime(Protocol):
    """A loaded model, bound to its signature."""

    def predict(self, table: Table, probabilities: bool) -> Outputs:
        """Predict every row of the table, with class probabilities where wanted."""


@dataclass(frozen=True)
class Policy:
    """What the operator trusts. It comes from settings, never from a package."""

    pickle: bool = True
    """Whether pickle-family files may be loaded at all; loading one runs its code."""
    skops_types: frozenset[str] = frozenset()
    """Types beyond skops' own trusted ones that a skops file may hold."""
    skew: Literal["refuse", "warn"] = "refuse"
    """What happens to a model made with other versions of its libraries."""


@dataclass(frozen=True)
class Source:
    """Where a model comes from: a label for messages, and the types that its manifest lists (None while packing)."""

    label: str
    types: tuple[str, ...] | None = None


def check_skew(policy: Policy, label: str, library: str, made_with: str, here: str) -> None:
    """Refuse a model that was made with another version of a library, or log it, as the policy says.

    Raises:
        VersionSkew: With both versions and the two ways to mend it.
    """
    detail = (
        f"{label} was made with {library} {made_with} and here is {here}; train and pack it again here, or write "
        f"`{library}=={made_with}` into requirements.in and run `make lock install`"
    )
    if policy.skew == "refuse":
        raise VersionSkew(detail)
    log.warning(detail)


def check_trust(policy: Policy, label: str, kind: str) -> None:
    """Refuse a model whose loading runs code that it brings, where the policy does not allow that.

    Raises:
        UntrustedModel: With the setting that allows it.
    """
    if not policy.pickle:
        raise UntrustedModel(
            f"{label} is {kind}, and loading one runs its code; allow it with ANYPORT_ALLOW_PICKLE=true, or "
            "pack the model as .skops or .onnx"
        )


def missing_module(label: str, module: str) -> MissingLibrary:
    """Make the error of a model that imports what is not there."""
    return MissingLibrary(
        f"{label}: the model needs the Python module {module!r}, which is not installed; if it is a library, "
        "write its name into requirements.in and run `make lock install`; if it is your own, put it beside `service/`"
    )


def spell(error: BaseException, source: Source) -> str:
    """Tell an error of a model's own code; its words, which may name paths, only to whoever packs it."""
    return type(error).__name__ + (f": {shorten(str(error), 300)}" if source.types is None else "")


@dataclass(frozen=True)
class Loaded:
    """A model out of its file, and the types beyond skops' own trusted ones that the file holds."""

    model: Any
    types: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What a model tells about itself; None where it does not tell."""

    task: Task
    names: tuple[str, ...] | None = None
    n_features: int | None = None
    dtypes: tuple[Dtype, ...] | None = None
    layouts: tuple[Layout, ...] = ()
    """How it may want its rows, the likeliest first; empty where it tells no more than any estimator does."""
    classes: tuple[tuple[Label, ...], ...] | None = None
    categories: dict[str, tuple[str, ...] | tuple[int, ...]] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    """Distributions that the model's own classes come from."""


class RuntimeModule(Protocol):
    """One model format. A module with these names is one."""

    @property
    def SUFFIXES(self) -> tuple[str, ...]:
        """What the format's file names end in."""

    @property
    def LAYOUTS(self) -> tuple[Layout, ...]:
        """How its models may want their rows."""

    @property
    def LIBRARIES(self) -> tuple[str, ...]:
        """Distributions that must be installed to open the format."""

    @property
    def IMPORTS(self) -> tuple[str, ...]:
        """Modules that gunicorn's master may import before it forks, so that the workers share their pages."""

    def load(self, stream: BinaryIO, source: Source, policy: Policy) -> Loaded:
        """Read a model from an open file.

        Threads may predict meanwhile, so it leaves alone what they share, such as the filters of warnings. Versions are
        the manifest's matter, which whoever calls has looked at, and while there is none yet packing's.

        Raises:
            PackageError: If it is untrusted or unreadable, or a library is missing.
        """

    def bind(self, model: Any, signature: Signature, layout: Layout) -> Runtime:
        """Make a runtime of a loaded model."""

    def examine(self, model: Any) -> Facts:
        """Tell what the model tells about itself; only packing asks."""
