"""`flask pack`: a fitted model and a sample become a package."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, get_args

import click

from service.commands.console import echo_json, plain_errors, tell
from service.commands.models import curl_line
from service.errors import PackingError
from service.manifest import Manifest, OriginalLayout
from service.packing import Choices, Compiling, Packed, pack
from service.settings import DEFAULT_PORT, Settings
from service.signature import Dtype
from service.store import Store

TABS = {"\\t": "\t", "tab": "\t"}
"""How a tab is written where a shell makes it hard."""
CHOICES = (
    click.option("--separator", default=",", show_default=True, help="What separates the sample's columns."),
    click.option("--drop", multiple=True, help="A column of the sample that is no feature."),
    click.option(
        "--dtype", multiple=True, metavar="COLUMN=TYPE", help=f"A feature's type: {', '.join(get_args(Dtype))}."
    ),
    click.option("--nullable", multiple=True, help="A feature that may be null though the sample has it everywhere."),
    click.option("--optional", multiple=True, help="A feature that a row may leave out; it counts as null then."),
    click.option(
        "--categories", multiple=True, metavar="COLUMN=A,B", help="The values that the model knows of a feature."
    ),
    click.option("--classes", help="Labels A,B,C of the probabilities, where an ONNX graph does not name them."),
    click.option("--layout", type=click.Choice(get_args(OriginalLayout)), help="How the model wants its rows."),
)
"""Options for what the model and its sample do not tell, in the order of the help text."""


def make_commands(settings: Settings) -> Iterator[click.Command]:
    """Make the command."""

    @click.command("pack")
    @click.argument("model", type=click.Path(path_type=Path))
    @click.option(
        "--sample",
        type=click.Path(path_type=Path),
        help="CSV of rows that the model was made for; by default the example in an MLflow folder.",
    )
    @click.option("--target", multiple=True, help="The sample's column that the model predicts; again for each output.")
    @click.option("--name", help="The package's name; by default the file's.")
    @click.option("--version", help="The package's version; by default the next whole number.")
    @click.option("--default", "default", is_flag=True, help="Make it the model that POST /predict asks.")
    @_with_choices
    @click.option(
        "--compile",
        "compiling",
        type=click.Choice(get_args(Compiling)),
        default="auto",
        show_default=True,
        help="Whether to make a lighter form that provably answers the same: where there is one, never, or else fail.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def pack_model(model: Path, sample: Path | None, default: bool, as_json: bool, **said: Any) -> None:
        """Make a package of MODEL: a fitted estimator in a .joblib, .pkl, .skops or .onnx file, an MLflow
        folder, or a score.py with what stands beside it, also in a .zip as Azure AutoML exports it.

        The signature comes from the estimator and the sample; what cannot be inferred is asked for.
        """
        store = Store(settings.models_dir)
        with plain_errors(as_json), redirect_stdout(sys.stderr):  # a model's own code may print
            wanted = {option: said[option] for option in ("name", "version", "compiling")}
            packed = pack(model, sample, store, settings.policy, _choices(said), **wanted, tell=tell)
            if default:
                store.activate(packed.manifest.name, None, default=True)
        report(packed, store, as_json)

    yield pack_model


def _with_choices(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(CHOICES):
        command = option(command)
    return command


def _choices(said: dict[str, Any]) -> Choices:
    dtypes = dict(_pair("--dtype", text) for text in said["dtype"])
    for name, dtype in dtypes.items():
        if dtype not in get_args(Dtype):
            raise PackingError(f"--dtype {name}={dtype} is no type; types are {', '.join(get_args(Dtype))}")
    return Choices(
        targets=said["target"],
        separator=read_separator(said["separator"]),
        dtypes=dtypes,
        drop=said["drop"],
        nullable=said["nullable"],
        optional=said["optional"],
        categories={n: tuple(v.split(",")) for n, v in (_pair("--categories", text) for text in said["categories"])},
        classes=tuple(said["classes"].split(",")) if said["classes"] else (),
        layout=said["layout"],
    )


def read_separator(said: str) -> str:
    """Return the one character that `--separator` says.

    Raises:
        PackingError: If it says more, or nothing.
    """
    separator = TABS.get(said, said)
    if len(separator) != 1:
        raise PackingError(f"--separator {said!r} must be one character")
    return separator


def _pair(flag: str, text: str) -> tuple[str, Any]:
    name, equals, value = text.rpartition("=")
    if not equals or not name or not value:
        raise PackingError(f"{flag} {text} must be written as COLUMN=VALUE")
    return name, value


def report(packed: Packed, store: Store, as_json: bool) -> None:
    """Print what was packed, what of it answers now, and how to ask it."""
    manifest = packed.manifest
    active, default = store.active(manifest.name), store.default()
    if as_json:
        shown = {"name", "version", "task", "signature", "metrics", "cost", "artifacts"}
        facts = manifest.model_dump(mode="json", include=shown)
        echo_json(facts | {"folder": str(packed.folder), "notes": packed.notes, "active": active, "default": default})
        return
    click.echo(f"packed {manifest.label} into {packed.folder}")
    for line in [*_told(packed), *_passed_over(manifest, active, default)]:
        click.echo(f"  {line}")
    click.echo("serve it with `make serve`, then ask it with:")
    click.echo(curl_line(manifest, f"http://127.0.0.1:{DEFAULT_PORT}", is_default=default == manifest.name))


def _told(packed: Packed) -> Iterator[str]:
    """What is worth knowing of the package itself."""
    manifest = packed.manifest
    for note in packed.notes:
        yield f"note: {note}"
    for feature in manifest.signature.features:
        yield f"{feature.name}: {feature.dtype}{' or null' if feature.nullable else ''}"
    metrics = ", ".join(f"{metric} {value:g}" for metric, value in manifest.metrics.items())
    yield f"task: {manifest.task}" + (f" ({metrics} on the sample)" if metrics else "")
    parity = manifest.artifacts[0].parity
    if parity is not None:
        worst = max(parity.largest_error, parity.largest_probability_error or 0.0)
        yield f"compiled: answers {parity.rows} rows as the original does, to within {worst:.1g}"
    yield f"cost: {manifest.cost.microseconds['1']:.0f} us a row, {manifest.cost.process_mib:.0f} MiB a worker"


def _passed_over(manifest: Manifest, active: str, default: str | None) -> Iterator[str]:
    """Whom a request without a version, or without a name, asks instead."""
    name = manifest.name
    if active != manifest.version:
        yield f"version {active} stays active; change it with: flask activate {name} {manifest.version}"
    if default != name:
        yield f"POST /predict asks {default or 'nobody'}; change it with: flask activate {name} --default"
