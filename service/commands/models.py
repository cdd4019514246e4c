"""`flask models`, `flask activate`, `flask example`: what the store holds, which version answers, how to ask it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import click

from service.commands.console import echo_json, plain_errors
from service.errors import ServiceError, UnknownModel
from service.manifest import Manifest
from service.runtimes import Policy
from service.settings import DEFAULT_PORT, Settings
from service.store import Store


def make_commands(settings: Settings) -> Iterator[click.Command]:
    """Make the commands."""
    store = Store(settings.models_dir)

    @click.command("models")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def models(as_json: bool) -> None:
        """List the model packages: versions, which one is active, runtime and size."""
        with plain_errors(as_json):
            rows = list(describe_packages(store))
        if as_json:
            echo_json(rows)
        elif not rows:
            click.echo("no packages; make one with: flask pack model.joblib --sample train.csv")
        else:
            _print_table(rows)

    @click.command("activate")
    @click.argument("name")
    @click.argument("version", required=False)
    @click.option("--default", "default", is_flag=True, help="Also make it the model that POST /predict asks.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def activate(name: str, version: str | None, default: bool, as_json: bool) -> None:
        """Choose the VERSION of model NAME that answers by default. Running workers take it up within a second; with
        ANYPORT_SERVE=active, as soon as they have loaded it.

        A version whose files or libraries are not what its manifest says is refused, and nothing is changed.
        """
        if version is None and not default:
            raise click.UsageError("say a VERSION, or --default, or both")
        with plain_errors(as_json):
            document = _activate(store, settings.policy, name, version, default=default)
        if as_json:
            echo_json(document)
        else:
            click.echo(f"{name}/{document['active']} is active" + (" and the default" if document["default"] else ""))

    @click.command("example")
    @click.argument("name", required=False)
    def example(name: str | None) -> None:
        """Print the address and a curl line that asks model NAME, or the default one, for a prediction."""
        with plain_errors():
            chosen = name or store.default() or next(iter(store.versions()), None)
            if chosen is None:
                raise UnknownModel("there is no package yet; make one with: flask pack model.joblib --sample train.csv")
            manifest = store.manifest(chosen, store.active(chosen))
        address = f"http://127.0.0.1:{settings.port or DEFAULT_PORT}"
        click.echo(f"{manifest.label} answers on {address}; ask it with:")
        click.echo(curl_line(manifest, address, is_default=chosen == store.default()))

    yield models
    yield activate
    yield example


def _activate(store: Store, policy: Policy, name: str, version: str | None, *, default: bool) -> dict[str, Any]:
    """Move the pointers, but not to a version that was altered; return what is active then."""
    if version is not None and version in store.versions().get(name, []):
        store.verify(store.manifest(name, version), policy)
    chosen = store.activate(name, version, default=default)
    return {"name": name, "active": chosen, "default": store.default() == name}


def curl_line(manifest: Manifest, address: str, *, is_default: bool) -> str:
    """Return a curl line that asks a model for the prediction of its signature's example."""
    path = "/predict" if is_default else f"/v1/models/{manifest.name}:predict"
    body = json.dumps({"instances": [manifest.signature.example()]}).replace("'", "\\u0027")
    return f"  curl {address}{path} -H 'Content-Type: application/json' \\\n    -d '{body}'"


def describe_packages(store: Store) -> Iterator[dict[str, Any]]:
    """Describe every package, those with a broken manifest too."""
    default = _or_none(store.default)
    for name, versions in store.versions().items():
        try:
            active = store.active(name)
        except ServiceError as error:
            yield {"name": name, "version": "", "active": False, "default": name == default, "error": error.detail}
            active = ""
        for version in versions:
            row: dict[str, Any] = {
                "name": name,
                "version": version,
                "active": version == active,
                "default": name == default,
            }
            try:
                manifest = store.manifest(name, version)
            except ServiceError as error:
                yield row | {"error": error.detail}
            else:
                yield row | {
                    "task": manifest.task,
                    "runtime": manifest.artifacts[0].runtime,
                    "size_bytes": sum(entry.size_bytes for entry in manifest.files),
                    "created": manifest.created,
                }


def _or_none(ask: Callable[[], str | None]) -> str | None:
    try:
        return ask()
    except ServiceError as error:
        click.echo(f"warning: {error.detail}", err=True)
        return None


def _print_table(rows: list[dict[str, Any]]) -> None:
    lines = [("MODEL", "VERSION", "ACTIVE", "TASK", "RUNTIME", "SIZE", "CREATED")]
    for row in rows:
        mark = ("active" if row["active"] else "") + (", default" if row["active"] and row["default"] else "")
        if "error" in row:
            lines.append((row["name"], row["version"], mark, row["error"], "", "", ""))
            continue
        size = f"{row['size_bytes'] / 1024:.0f} KiB"
        lines.append((row["name"], row["version"], mark, row["task"], row["runtime"], size, row["created"]))
    widths = [max(len(line[column]) for line in lines if line[4]) for column in range(len(lines[0]))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
