"""`flask predict`: the prediction core without a server."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import click

from service.catalogue import open_package
from service.commands.console import plain_errors
from service.errors import InvalidCsv, ServiceError, UnknownParameter, UnknownVersion, shorten
from service.predictor import Predictor
from service.protocols.csv_body import csv_table, open_csv, write_csv
from service.settings import Settings
from service.store import Store
from service.table import PredictRequest, PredictResponse, Table

BLOCK_ROWS = 10_000
LONG_BYTES = 2**22


def make_commands(settings: Settings) -> Iterator[click.Command]:
    """Make the command."""

    @click.command("predict")
    @click.argument("name")
    @click.argument("rows", type=click.Path(allow_dash=True))
    @click.option("--version", help="The version to ask; by default the active one.")
    @click.option("--drop", multiple=True, help="A column of the file that is no feature, such as the target.")
    @click.option("--probabilities", is_flag=True, help="Answer class probabilities too.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object a row instead of CSV.")
    @click.option("--output", "-o", type=click.Path(), default="-", help="Write there, not to standard output.")
    def predict(
        name: str,
        rows: str,
        version: str | None,
        drop: tuple[str, ...],
        probabilities: bool,
        as_json: bool,
        output: str,
    ) -> None:
        """Score a CSV file ROWS with its header, or - for standard input, with model NAME."""
        with plain_errors(), _open_rows(rows) as lines, _open_target(output) as target, _progress(rows) as bar:
            predictor = _open(Store(settings.models_dir), settings, name, version)
            for first, response in score(predictor, lines, probabilities, drop):
                target.write(_json_lines(response) if as_json else write_csv(response, header=first))
                bar.update(lines.buffer.tell() - bar.pos if bar.length else 0)

    yield predict


def score(
    predictor: Predictor, lines: TextIO, probabilities: bool, drop: tuple[str, ...] = ()
) -> Iterator[tuple[bool, PredictResponse]]:
    """Predict a CSV stream in blocks, so that a file of any length fits into memory.

    Yields:
        Whether it is the first block, and the block's response.

    Raises:
        RequestError: At the first block that cannot be read or does not fit; it counts rows within the file.
    """
    signature = predictor.manifest.signature
    if probabilities and not signature.has_probabilities:
        raise UnknownParameter("this model answers no class probabilities; ask without --probabilities")
    try:
        header, rows = open_csv(lines, signature, drop)
        done = 0
        while block := list(islice(rows, BLOCK_ROWS)):
            yield done == 0, predictor.predict(PredictRequest(_table(predictor, header, block, done), probabilities))
            done += len(block)
    except UnicodeDecodeError as error:
        raise InvalidCsv("the file is not UTF-8; save it in UTF-8") from error
    if not done:
        raise InvalidCsv("the file has a header and no row")


def _table(predictor: Predictor, header: list[str], block: list[list[str]], done: int) -> Table:
    try:
        return csv_table(predictor.manifest.signature, header, block)
    except ServiceError as error:
        if done:
            faults = [replace(fault, row=fault.row + done) for fault in error.faults if fault.row is not None]
            raise type(error)(f"in the rows from {done} on: {error.detail}", faults=faults) from error
        raise


def _open(store: Store, settings: Settings, name: str, version: str | None) -> Predictor:
    active = store.active(name)
    if version is not None and version not in store.versions()[name]:
        raise UnknownVersion(f"{name} has no version {shorten(version)!r}; `flask models` lists what there is")
    entry = open_package(store, name, version or active, settings.policy)
    if isinstance(entry, ServiceError):
        raise entry
    return entry


@contextmanager
def _open_rows(path: str) -> Iterator[TextIO]:
    """Open a CSV file, or standard input; line ends inside quoted cells stay as they are."""
    source = sys.stdin.buffer if path == "-" else _open_file(path)
    with io.TextIOWrapper(source, encoding="utf-8-sig", newline="") as lines:
        yield lines


@contextmanager
def _open_target(path: str) -> Iterator[BinaryIO]:
    """Open a file that takes its place only when it is whole, or standard output."""
    if path == "-":
        yield sys.stdout.buffer
        return
    special = Path(path).exists() and not Path(path).is_file()  # a pipe or a device has nothing to replace
    fresh = Path(path) if special else Path(path).with_name(f".{Path(path).name}.new")
    try:
        target = fresh.open("wb")
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
    try:
        with target:
            yield target
        if not special:
            os.replace(fresh, path)
    finally:
        if not special:
            fresh.unlink(missing_ok=True)


def _open_file(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise InvalidCsv(f"{path} cannot be read: {error.strerror}") from error


def _progress(path: str) -> Any:
    """Show on a terminal how far a large file is; a small one is done before it could be read."""
    size_bytes = 0 if path == "-" else Path(path).stat().st_size
    hidden = size_bytes < LONG_BYTES or not sys.stderr.isatty()
    return click.progressbar(length=0 if hidden else size_bytes, label="scoring", file=sys.stderr, hidden=hidden)


def _json_lines(response: PredictResponse) -> bytes:
    outputs = response.signature.outputs
    lines = []
    for row, prediction in enumerate(response.predictions.tolist()):
        line: dict[str, Any] = {"prediction": prediction}
        if response.probabilities is not None:
            shares = [
                dict(zip(map(str, output.classes or ()), numbers[row].tolist(), strict=True))
                for output, numbers in zip(outputs, response.probabilities, strict=True)
            ]
            line["probabilities"] = shares if len(shares) > 1 else shares[0]
        lines.append(json.dumps(line, allow_nan=False) + "\n")
    return "".join(lines).encode()
