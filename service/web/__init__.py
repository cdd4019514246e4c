"""The edge: Flask's routes over the prediction core. The only room, with `commands`, that imports Flask."""

from __future__ import annotations

from flask import Flask
from werkzeug.routing import BaseConverter

from service.web import edge, models, openinference, predict, probes
from service.web.lane import Lane
from service.web.serving import Serving

__all__ = ["Serving", "init_app"]


class Segment(BaseConverter):
    """One path segment without a colon, so that `/v1/models/a:predict` is model `a` and the verb `predict`."""

    regex = r"[^/:]+"
    part_isolating = True


def init_app(app: Flask, serving: Serving) -> None:
    """Register every route, and what holds for all of them."""
    app.extensions["anyport"] = serving
    app.url_map.converters["segment"] = Segment
    edge.init_app(app)
    for room in (models, openinference, predict, probes):
        app.register_blueprint(room.bp)
    app.wsgi_app = Lane(app.wsgi_app, serving)  # type: ignore[method-assign]  # as Flask's manual has it
