"""The edge: Flask's routes over the prediction core. The only room, with `commands`, that imports Flask."""

from __future__ import annotations

from flask import Flask
from werkzeug.routing import BaseConverter

from service.web import (
    azureml,
    eas,
    edge,
    mlflow,
    models,
    oci,
    openinference,
    predict,
    probes,
    sagemaker,
    shared,
    vertex,
    watsonx,
)
from service.web.lane import Lane
from service.web.serving import Serving

__all__ = ["Serving", "init_app"]


class Segment(BaseConverter):
    """One path segment without a colon, so that `/v1/models/a:predict` is model `a` and the verb `predict`."""

    regex = r"[^/:]+"
    part_isolating = True


def init_app(
    app: Flask,
    serving: Serving,
    protocol: str = "native",
    predict_route: str | None = None,
    health_route: str | None = None,
) -> None:
    """Register every route, and what holds for all of them.

    Args:
        app: The app.
        serving: What it serves.
        protocol: Whose words the paths speak that several clouds share.
        predict_route: Where the platform will send predictions, if it says so.
        health_route: Where it will ask for health.
    """
    app.extensions["anyport"] = serving
    app.url_map.converters["segment"] = Segment
    edge.init_app(app)
    for room in (azureml, eas, models, openinference, predict, probes, shared, watsonx):
        app.register_blueprint(room.bp)
    for room in (azureml, eas, mlflow, oci, openinference, predict, sagemaker, vertex, watsonx):
        name = room.bp.name
        app.register_blueprint(room.bp, url_prefix=f"{shared.PREFIX}/{name}", name=f"protocols/{name}")
    serving.detours = shared.detours(app, protocol, predict_route, health_route)
    serving.health_paths = shared.health_paths(app, serving.detours)
    app.wsgi_app = Lane(app.wsgi_app, serving)  # type: ignore[method-assign]  # as Flask's manual has it
