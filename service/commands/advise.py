"""`flask advise`: which sizes of the platforms' machines hold the models, and how many workers each of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from service.commands.console import echo_json, plain_errors
from service.manifest import Manifest
from service.platforms.advise import Fit, Load, fits, measure_load, rows_a_second, smallest
from service.platforms.facts import Platform, platforms
from service.platforms.story import MARK
from service.settings import Settings
from service.store import Store

MEANING = (
    "A SECOND: single rows that one processor computed in a second where the model was packed. It is the model alone: "
    "HTTP and JSON take time of their own, and a platform's processor is another one."
)
MOST = (
    "WORKERS: as many as the memory holds. The service starts one for each processor that it finds, and no more than "
    "these."
)

Found = list[tuple[Platform, tuple[Fit, ...]]]


def make_commands(settings: Settings) -> Iterator[click.Command]:
    """Make the command."""
    store = Store(settings.models_dir)

    @click.command("advise")
    @click.argument("names", metavar="[NAME]...", nargs=-1)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def advise(names: tuple[str, ...], as_json: bool) -> None:
        """Say for each platform and size of machine how many workers with the models NAME, or with all, fit into it.

        Nothing is opened: memory and times are those that were measured when the models were packed.

        Exit status 1 if there is no package, a manifest cannot be read, or no size anywhere holds the models.
        """
        with plain_errors(as_json):
            load = measure_load(store, names, settings.serve)
            found = [(platform, fits(platform, load, settings.threads)) for platform in platforms().values()]
        if as_json:
            echo_json(_document(load, found))
        else:
            _print(load, found)
        sys.exit(not any(smallest(sizes) for _, sizes in found))

    yield advise


def _document(load: Load, found: Found) -> dict[str, Any]:
    return {
        "models": [_plain_model(manifest) for manifest in load.answering],
        "worker_mib": round(load.worker_mib, 1),
        "platforms": [_plain_platform(platform, sizes) for platform, sizes in found],
    }


def _plain_model(manifest: Manifest) -> dict[str, Any]:
    rate = rows_a_second(manifest)
    return {
        "name": manifest.name,
        "version": manifest.version,
        "runtime": manifest.artifacts[0].runtime,
        "model_mib": manifest.cost.model_mib,
        "rows_a_second": None if rate is None else round(rate),
    }


def _plain_platform(platform: Platform, sizes: tuple[Fit, ...]) -> dict[str, Any]:
    least = smallest(sizes)
    return {
        "name": platform.name,
        "confirmed": _confirmed(platform),
        "smallest": least and least.size.name,
        "usual": platform.sizes.default,
        "sizes": [
            {
                "name": fit.size.name,
                "memory_mib": fit.size.memory_mib,
                "fits": fit.workers > 0,
                "workers": fit.workers,
                "threads": fit.threads,
            }
            for fit in sizes
        ],
    }


def _confirmed(platform: Platform) -> bool:
    return "offered" not in platform.sizes.unconfirmed


def _print(load: Load, found: Found) -> None:
    _print_columns([("MODEL", "VERSION", "RUNTIME", "MEMORY", "A SECOND"), *map(_model_line, load.answering)])
    click.echo(f"\n{MEANING}\n\nA worker with all that is served needs about {load.worker_mib:.0f} MiB.\n")
    lines = [_size_line(platform, fit, sizes) for platform, sizes in found for fit in sizes]
    _print_columns([("PLATFORM", "SIZE", "MEMORY", "WORKERS", ""), *lines])
    click.echo(f"\n{MOST}")


def _model_line(manifest: Manifest) -> tuple[str, ...]:
    rate = rows_a_second(manifest)
    measured = "not measured" if rate is None else f"{rate:,.0f}"
    model_mib = f"{manifest.cost.model_mib:.0f} MiB"
    return manifest.name, manifest.version, manifest.artifacts[0].runtime, model_mib, measured


def _size_line(platform: Platform, fit: Fit, sizes: tuple[Fit, ...]) -> tuple[str, ...]:
    memory = f"{fit.size.memory_mib} MiB" + ("" if _confirmed(platform) else MARK)
    threads = f"{fit.threads} thread{'' if fit.threads == 1 else 's'}"
    workers = f"{fit.workers} x {threads}" if fit.workers else "too small"
    notes = ["smallest that fits"] if fit == smallest(sizes) and len(sizes) > 1 else []
    notes += ["usual"] if fit.size.name == platform.sizes.default and len(sizes) > 1 else []
    return platform.name, fit.size.name, memory, workers, ", ".join(notes)


def _print_columns(lines: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
