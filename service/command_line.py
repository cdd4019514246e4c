"""Hangs the `flask` commands onto the app without importing them: a worker never needs them."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from service.errors import SettingsError
from service.settings import Settings, read_settings


def settings_or_message() -> Settings:
    """Read the settings; under a `flask` command an unusable one is a message instead of a traceback."""
    try:
        return read_settings()
    except SettingsError as error:
        if click.get_current_context(silent=True) is None:
            raise
        raise click.ClickException(error.detail) from error


class LazyCommands(AppGroup):
    """A command group that imports `service.commands` when it is first asked for a command."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands' names."""
        self._fill()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command."""
        self._fill()
        return super().get_command(ctx, cmd_name)

    def _fill(self) -> None:
        from service.commands import make_commands

        for command in make_commands(self._settings):
            self.add_command(command)
