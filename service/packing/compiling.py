"""Puts the compiled form of a model into its package, in front of the original, where both answer alike."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from service.compiler import NotCompiled, compile_model, compile_preparation
from service.errors import PackingError
from service.manifest import Artifact, Manifest, PackedFile
from service.packing.sample import Sample
from service.runtimes import RUNTIMES, Policy, Runtime
from service.signature import Signature
from service.store import Store, add_file
from service.table import Table, table_from_rows

Compiling = Literal["auto", "never", "require"]
FILE = "compiled.npz"
PREPARATION = "preparation.npz"
TAKEN_APART = ("joblib", "skops")
"""Runtimes whose models are estimators, and so can be compiled."""


@dataclass(frozen=True)
class Evidence:
    """A fitted estimator, and rows to hold its compiled form against."""

    model: Any
    table: Table
    rows: Sequence[dict[str, Any]]


def add_compiled(
    staged: Path, draft: Manifest, evidence: Evidence, compiling: Compiling
) -> tuple[Manifest, tuple[str, ...]]:
    """Write the compiled form into a staged package.

    Returns:
        The manifest with that form in front, or as it was; and what the user should know.

    Raises:
        PackingError: If a compiled form is required and there is none; it says why.
    """
    original = draft.artifacts[-1]
    if compiling == "never" or (compiling == "auto" and original.runtime not in TAKEN_APART):
        return draft, ()
    runtime = RUNTIMES[original.runtime].bind(evidence.model, draft.signature, original.layout)
    try:
        compiled = compile_model(evidence.model, runtime, draft.signature, evidence.table, evidence.rows)
    except NotCompiled as error:
        if compiling == "require":
            detail = f"no compiled form: {error}; leave out --compile require to serve the original"
            raise PackingError(detail) from error
        return _add_preparation(staged, draft, evidence, runtime, str(error))
    entry = add_file(staged, FILE, io.BytesIO(compiled.content))
    artifact = Artifact(runtime=compiled.runtime, file=FILE, layout="table", parity=compiled.parity)
    return _in_front(draft, entry, artifact), ()


def _add_preparation(
    staged: Path, draft: Manifest, evidence: Evidence, runtime: Runtime, reason: str
) -> tuple[Manifest, tuple[str, ...]]:
    """Write what comes before the last step of a pipeline, so that the original need not be called on a frame."""
    original = draft.artifacts[-1]
    try:
        compiled = compile_preparation(evidence.model, runtime, draft.signature, evidence.table, evidence.rows)
    except NotCompiled as error:
        second = "" if str(error) == reason else f"; nor is its preparation: {error}"
        return draft, (f"not compiled, the original answers: {reason}{second}",)
    entry = add_file(staged, PREPARATION, io.BytesIO(compiled.content))
    changes = {"layout": "prepared", "preparation": PREPARATION, "parity": compiled.parity}
    artifact = Artifact.model_validate(original.model_dump() | changes)
    return _in_front(draft, entry, artifact), (f"compiled but for its last step, which stays as it is: {reason}",)


def _in_front(draft: Manifest, entry: PackedFile, artifact: Artifact) -> Manifest:
    return draft.model_copy(update={"files": (*draft.files, entry), "artifacts": (artifact, draft.artifacts[-1])})


def stage_compiled(
    store: Store, staged: Path, manifest: Manifest, version: str, policy: Policy, sample: Sample | None
) -> Manifest:
    """Stage a package that is there already as another version, with a compiled form of its original.

    Raises:
        PackingError: If it has one, or there is none; it says why.
        PackageError: If the package cannot be opened.
    """
    original = manifest.artifacts[-1]
    if original is not manifest.artifacts[0]:
        raise PackingError(f"{manifest.label} has a compiled form already; `flask models` shows which runtime it has")
    model = store.load(manifest, policy, original).model
    draft = manifest.model_copy(
        update={"version": version, "created": datetime.now(UTC).isoformat(timespec="seconds")},
    )
    store.copy_files(manifest, staged)
    rows = _golden_rows(manifest) + ([] if sample is None else _sample_rows(sample, manifest.signature))
    evidence = Evidence(model, table_from_rows(manifest.signature, rows), rows)
    return add_compiled(staged, draft, evidence, "require")[0]


def _golden_rows(manifest: Manifest) -> list[dict[str, Any]]:
    return [dict(zip(manifest.signature.names, row, strict=True)) for row in manifest.golden.rows]


def _sample_rows(sample: Sample, signature: Signature) -> list[dict[str, Any]]:
    """Return the sample's rows that miss nothing which the model cannot miss."""
    absent = [feature.name for feature in signature.features if feature.name not in sample.columns]
    if absent:
        raise PackingError(f"the sample has no column {absent[0]!r}, which the model takes")
    columns = [sample.values(feature) for feature in signature.features]
    needed = [name for name, feature in zip(signature.names, signature.features, strict=True) if not feature.takes_null]
    rows = [dict(zip(signature.names, row, strict=True)) for row in zip(*columns, strict=True)]
    return [row for row in rows if all(row[name] is not None for name in needed)]
