"""The paths at the root that clouds share, or that have no protocol in their names, and which protocol speaks at them.

Every protocol stands under `/protocols/<name>` too, where nothing is shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from flask import Blueprint, Flask

from service.web import azureml, eas, mlflow, sagemaker, vertex
from service.web.edge import PROBES
from service.web.probes import healthy

PREFIX = "/protocols"

bp = Blueprint("shared", __name__)
bp.post("/invocations")(sagemaker.invocations)
bp.get("/execution-parameters")(sagemaker.execution_parameters)
bp.get("/ping")(healthy)
bp.get("/health")(healthy)
bp.get("/version")(mlflow.version)
bp.post(vertex.DEFAULT_PATH + ":predict")(vertex.predict_deployed)
bp.get(vertex.DEFAULT_PATH)(vertex.ready_deployed)
bp.get(vertex.DEFAULT_PATH + ":predict")(vertex.ready_deployed)
bp.get(f"{PREFIX}/azureml/")(azureml.say_healthy)
bp.post(f"{PREFIX}/eas/")(eas.predict_bare)
bp.get(f"{PREFIX}/eas/")(healthy)


class Ways(NamedTuple):
    """Where a protocol predicts and tells its health, if nobody says otherwise."""

    predict: str
    health: str


WAYS = {
    "native": Ways("/predict", "/readyz"),
    "mlflow": Ways("/invocations", "/ping"),
    "sagemaker": Ways("/invocations", "/ping"),
    "vertex": Ways("/predict", "/health"),
    "azureml": Ways("/score", "/"),
    "oci": Ways("/predict", "/health"),
    "eas": Ways("/", "/"),
}


def detours(
    app: Flask, protocol: str, predict_route: str | None, health_route: str | None
) -> dict[tuple[str, str], str]:
    """Return what is answered as other paths are, because a platform says which protocol speaks there.

    Args:
        app: The app with every route.
        protocol: Whose words the shared paths speak.
        predict_route: Where the platform will send predictions, None where it does not say. A path that another
            protocol has, such as `/v2/models/penguins/infer`, is that protocol's.
        health_route: Where it will ask for health.
    """
    if protocol == "native" and predict_route is None and health_route is None:
        return {}
    ways, prefix = WAYS[protocol], "" if protocol == "native" else f"{PREFIX}/{protocol}"
    adapter, found = app.url_map.bind(""), {}
    for method, given, way in (("POST", predict_route, ways.predict), ("GET", health_route, ways.health)):
        found[method, way] = prefix + way
        route = (given or way).rstrip("/") or "/"
        if not adapter.test(route, method):
            found[method, route] = prefix + way
    return {asked: path for asked, path in found.items() if asked[1] != path}


def health_paths(app: Flask, turned: Mapping[tuple[str, str], str]) -> set[str]:
    """Return every path without names in it at which balancers ask for health."""
    rules = {rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.rpartition(".")[2] in PROBES}
    plain = {rule for rule in rules if "<" not in rule}
    return plain | {route for (method, route), path in turned.items() if method == "GET" and path in plain}
