"""`flask fetch`: packages come out of a bucket."""

from __future__ import annotations

from collections.abc import Iterator

import click

from service.bucket import Bucket
from service.commands.console import echo_json, plain_errors, tell
from service.fetch import fetch
from service.settings import Settings
from service.store import Store


def make_commands(settings: Settings) -> Iterator[click.Command]:
    """Make the command."""

    @click.command("fetch")
    @click.argument("address", required=False)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.pass_context
    def fetch_models(context: click.Context, address: str | None, as_json: bool) -> None:
        """Bring every package below ADDRESS, by default ANYPORT_MODELS_URI, into the models folder.

        Each is verified before it takes its place; those that are there already are not downloaded again, and nothing
        is removed. The version that is active there becomes active here. Running workers take it up within a second.

        Exit status 1 if anything could not be had as it was packed.
        """
        chosen = address or settings.models_uri
        if chosen is None:
            raise click.UsageError("say an ADDRESS, or set ANYPORT_MODELS_URI")
        store = Store(settings.models_dir)
        with plain_errors(as_json):
            outcome = fetch(Bucket(chosen), store, settings.models_sha256, tell)
        if as_json:
            refused = {what: {"code": error.code, "detail": error.detail} for what, error in outcome.refused.items()}
            echo_json({"arrived": outcome.arrived, "held": outcome.held, "refused": refused})
        else:
            for label in outcome.arrived:
                click.echo(f"{label} is here now")
            for label in outcome.held:
                click.echo(f"{label} was here already")
            for what, error in outcome.refused.items():
                click.echo(f"{what} is not fetched: {error.detail}", err=True)
        context.exit(1 if outcome.refused else 0)

    yield fetch_models
