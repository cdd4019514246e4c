"""The paths at the root that clouds share, or that have no protocol in their names, and which protocol speaks at them.

Every protocol stands under `/protocols/<name>` too, where nothing is shared.
"""

from __future__ import annotations

from typing import NamedTuple

from flask import Blueprint, Flask

from service.web import azureml, eas, mlflow, sagemaker, vertex
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
bp.get(f"{PREFIX}/azureml/")(azureml.say_healthy)
bp.post(f"{PREFIX}/eas/")(eas.predict_bare)
bp.get(f"{PREFIX}/eas/")(healthy)


class Ways(NamedTuple):
    """Where a protocol predicts and tells its health, if nobody says otherwise."""

    predict: str
    health: str


WAYS = {
    "mlflow": Ways("/invocations", "/ping"),
    "sagemaker": Ways("/invocations", "/ping"),
    "vertex": Ways("/predict", "/health"),
    "azureml": Ways("/score", "/"),
    "oci": Ways("/predict", "/health"),
    "eas": Ways("/", "/"),
}


def detours(app: Flask, protocol: str, predict_route: str | None, health_route: str | None) -> dict[str, str]:
    """Return the paths that are answered as others are, because a platform says which protocol speaks there.

    Args:
        app: The app with every route.
        protocol: Whose words the shared paths speak.
        predict_route: Where the platform will send predictions, None where it does not say. A path that another
            protocol has, such as `/v2/models/penguins/infer`, is that protocol's.
        health_route: Where it will ask for health.
    """
    if protocol not in WAYS:
        return {}
    ways, prefix = WAYS[protocol], f"{PREFIX}/{protocol}"
    found = {path: prefix + path for path in ways}
    adapter = app.url_map.bind("")
    for method, route, way in (("POST", predict_route, ways.predict), ("GET", health_route, ways.health)):
        if route is not None and not adapter.test(route, method):
            found[route] = prefix + way
    return found
