"""The `flask` commands: one module for each verb family. They print; the rooms below them return values."""

from __future__ import annotations

from collections.abc import Iterator

import click

from service.commands import advise, compile, deploy, fetch, models, pack, platforms, predict
from service.settings import Settings


def make_commands(settings: Settings) -> Iterator[click.Command]:
    """Make every command, with the operator's settings."""
    for room in (pack, compile, models, fetch, predict, platforms, advise, deploy):
        yield from room.make_commands(settings)
