"""`flask compile`: a package that is there already gets a lighter form, as its next version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from service.commands.console import plain_errors, tell
from service.commands.pack import read_separator, report
from service.packing import compile_package
from service.settings import Settings
from service.store import Store


def make_commands(settings: Settings) -> Iterator[click.Command]:
    """Make the command."""

    @click.command("compile")
    @click.argument("name")
    @click.argument("version", required=False)
    @click.option("--sample", type=click.Path(path_type=Path), help="CSV of more rows to ask both forms.")
    @click.option("--separator", default=",", show_default=True, help="What separates the sample's columns.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def compile_model(name: str, version: str | None, sample: Path | None, separator: str, as_json: bool) -> None:
        """Make the next version of model NAME, out of VERSION or the active one, with a lighter form in front.

        That form is kept only if it answers as the original does: the golden rows, the sample's, and rows beside the
        splits of trees, 3,000 of an ensemble at most, and at the ends of every feature's values.
        """
        store = Store(settings.models_dir)
        with plain_errors(as_json):
            separated = read_separator(separator)
            packed = compile_package(
                *(name, version, store, settings.policy), sample_file=sample, separator=separated, tell=tell
            )
        report(packed, store, as_json)

    yield compile_model
