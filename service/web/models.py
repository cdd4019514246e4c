"""What there is: the discovery document, the models with their signatures, and the problem types."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from service.catalogue import Catalogue
from service.errors import NotFound, ServiceError, UnknownModel, every_error, shorten
from service.predictor import Predictor
from service.protocols import PROTOCOLS
from service.protocols.json_body import write_json
from service.signature import row_schema
from service.web.serving import serving

bp = Blueprint("models", __name__)


@bp.get("/")
def discover() -> Response:
    """List the routes, and the model that answers by default."""
    catalogue = serving().catalogue()
    return _json(
        {
            "service": "anyport",
            "status": "alive",
            "default_model": catalogue.default,
            "routes": {
                "predict": "POST /predict",
                "predict_by_name": "POST /v1/models/{name}:predict",
                "predict_by_version": "POST /v1/models/{name}/versions/{version}:predict",
                "openinference": "POST /v2/models/{name}/infer",
                "dialects": "/protocols/{protocol}/...",
                "models": "GET /v1/models",
                "model": "GET /v1/models/{name}",
                "alive": "GET /livez",
                "ready": "GET /readyz",
                "problem": "GET /problems/{type}",
            },
            "protocols": list(PROTOCOLS),
        }
    )


@bp.get("/v1/models")
def list_models() -> Response:
    """List every model with its versions."""
    catalogue = serving().catalogue()
    return _json({"models": [_summary(catalogue, name) for name in catalogue.entries]})


@bp.get("/v1/models/<segment:name>")
def show_model(name: str) -> Response:
    """Show one model's active version: its signature as JSON Schema, and a request that works."""
    catalogue = serving().catalogue()
    if name not in catalogue.entries:
        raise UnknownModel(f"no model is called {shorten(name)!r}; GET /v1/models lists them")
    entry = catalogue.entries[name].get(catalogue.active[name])
    details = _details(entry) if isinstance(entry, Predictor) else {}
    return _json(_summary(catalogue, name) | details)


@bp.get("/problems/<segment:code>")
def show_problem(code: str) -> Response:
    """Explain one problem type; every problem's `type` points here."""
    for error in every_error():
        if error.code == code:
            return _json({"type": f"/problems/{code}", "title": error.title, "status": error.status})
    raise NotFound(f"no problem type is called {shorten(code)!r}")


def _summary(catalogue: Catalogue, name: str) -> dict[str, Any]:
    active = catalogue.active[name]
    return {
        "name": name,
        "default": name == catalogue.default,
        "ready": isinstance(catalogue.entries[name].get(active), Predictor),
        "active": active,
        "versions": {version: _state(entry) for version, entry in catalogue.entries[name].items()},
    }


def _state(entry: Predictor | ServiceError) -> str:
    return "ready" if isinstance(entry, Predictor) else entry.code


def _details(predictor: Predictor) -> dict[str, Any]:
    manifest = predictor.manifest
    signature = manifest.signature
    outputs: list[dict[str, Any]] = [
        {"name": output.name, "dtype": output.dtype} | ({"classes": output.classes} if output.classes else {})
        for output in signature.outputs
    ]
    return {
        "task": manifest.task,
        "instance_schema": signature.once(row_schema),
        "outputs": outputs,
        "metrics": manifest.metrics,
        "example": {"instances": [signature.example()]},
    }


def _json(document: dict[str, Any]) -> Response:
    return Response(write_json(document), content_type="application/json")
