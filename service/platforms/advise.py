"""Advice: which sizes of each platform hold the models, with how many workers. Knows manifests and facts, no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from service.capacity import fitting_by_memory, worker_mib
from service.errors import UnknownModel
from service.manifest import Manifest
from service.platforms.facts import Platform, Size
from service.store import Store

ONE_ROW = "1"
"""The batch whose measured time tells how many requests a model computes in a second."""


@dataclass(frozen=True)
class Load:
    """What one worker is to carry: every version that is served, and of each model the one that answers."""

    answering: tuple[Manifest, ...]
    worker_mib: float
    """What the worker needs, as measured where the models were packed."""


@dataclass(frozen=True)
class Fit:
    """One size of a platform's machines, and what it holds."""

    size: Size
    workers: int
    """How many workers its memory holds; 0 if not even one."""
    threads: int


def measure_load(store: Store, names: Sequence[str], serve: Literal["all", "active"]) -> Load:
    """Read what these models need, or all of them if none is named.

    Raises:
        UnknownModel: If there is no package, or none of a name.
        PackageError: If a manifest cannot be read.
    """
    chosen = list(dict.fromkeys(names)) or list(store.versions())
    if not chosen:
        raise UnknownModel("there is no package yet; make one with: flask pack model.joblib --sample train.csv")
    answering = [store.manifest(name, store.active(name)) for name in chosen]
    served = answering if serve == "active" else [manifest for name in chosen for manifest in _versions(store, name)]
    return Load(tuple(answering), worker_mib(manifest.cost for manifest in served))


def _versions(store: Store, name: str) -> Iterator[Manifest]:
    return (store.manifest(name, version) for version in store.versions()[name])


def rows_a_second(manifest: Manifest) -> float | None:
    """Return how many rows one processor was measured to predict, each alone; None if nobody measured it.

    It was the processor of the machine that packed the model, and it did nothing else: no HTTP, no JSON, no network.
    """
    microseconds = manifest.cost.microseconds.get(ONE_ROW)
    return 1e6 / microseconds if microseconds else None


def fits(platform: Platform, load: Load, threads: int) -> tuple[Fit, ...]:
    """Return what each size of a platform holds, in the order of its facts: the smallest first.

    Where the platform starts the processes itself each of them is one worker; elsewhere gunicorn starts as many as fit,
    but no more than there are processors.
    """
    most = 1 if platform.start.rule == "wsgi-file" else None
    found = [(size, fitting_by_memory(size.memory_mib, load.worker_mib)) for size in platform.sizes.offered]
    each = threads if platform.start.threads else 1
    return tuple(Fit(size, workers if most is None else min(workers, most), each) for size, workers in found)


def smallest(found: Sequence[Fit]) -> Fit | None:
    """Return the first size that holds a worker, None if none does."""
    return next((fit for fit in found if fit.workers), None)
