"""Anyport: one Flask service that serves packed models. This module wires the rooms together and does nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from service.settings import Settings

TRIAL_S = 120
"""How long a package that arrives may take to be opened and to answer its golden rows, in a process of its own."""
PATIENCE = 0.8
"""The part of its deadline that a request may wait for the models to be loaded."""


def create_app(settings: Settings | None = None) -> Flask:
    """Make the Flask app. It loads its models at the first request, or in the background where a worker asks for it.

    Args:
        settings: What the operator decides; read from the environment if not given.

    Raises:
        SettingsError: If an environment variable is unusable.
    """
    from service.settings import limit_compute_threads

    limit_compute_threads()  # before anything imports numpy
    from flask import Flask

    from service import web
    from service.capacity import memory_limit_mib
    from service.command_line import LazyCommands, settings_or_message
    from service.keeper import Keeper, Terms
    from service.store import Store
    from service.trial import Limits

    chosen = settings or settings_or_message()
    app = Flask(__name__, static_folder=None)
    app.cli = LazyCommands(chosen)
    serving = web.Serving(
        Keeper(
            Store(chosen.models_dir),
            Terms(chosen.policy, chosen.serve, Limits(TRIAL_S, chosen.memory_mib or int(memory_limit_mib()))),
            patience_s=PATIENCE * chosen.request_timeout_s,
            fetched=chosen.models_uri is not None,
        ),
        max_body_bytes=chosen.max_body_bytes,
        max_rows=chosen.max_rows,
        max_cells=chosen.max_cells,
        accept_gzip=chosen.gzip_requests,
        client_hops=chosen.client_hops,
        deployed_model=chosen.deployed_model,
        eas_token=chosen.eas_token.get_secret_value() if chosen.eas_token else None,
    )
    web.init_app(app, serving, chosen.protocol, chosen.predict_route, chosen.health_route)
    return app
