"""Health: alive means that the process answers; ready, that every active model has replayed its golden rows here.

Probes need no key, call no model and never redirect.
"""

from __future__ import annotations

from flask import Blueprint, Response

from service.errors import Draining, NotReady, ServiceError
from service.protocols.json_body import write_json
from service.web.edge import problem
from service.web.serving import serving

bp = Blueprint("probes", __name__)


@bp.get("/livez")
@bp.get("/healthz")
def alive() -> Response:
    """Answer that the process lives."""
    return Response(write_json({"alive": True}), content_type="application/json")


@bp.get("/readyz")
def ready() -> Response:
    """Answer whether this worker can predict, and if not, which model stands in the way and why."""
    error = what_stands_in_the_way()
    if error is not None:
        return not_ready(error)
    catalogue = serving().catalogue()
    refused, stale = _codes(catalogue.refusals()), _codes(catalogue.stale)
    return Response(write_json({"ready": True, "refused": refused, "stale": stale}), content_type="application/json")


def healthy() -> Response:
    """Answer whether this worker can predict, for platforms that look at the status alone.

    There is no Retry-After: AWS's own client would wait for it, many times over, while it waits for the container.
    """
    error = what_stands_in_the_way()
    return problem(error) if error else Response(write_json({"ready": True}), content_type="application/json")


def not_ready(error: ServiceError) -> Response:
    """Answer that this worker cannot predict now."""
    response = problem(error)
    response.headers["Retry-After"] = "5"
    return response


def what_makes_it_wait() -> ServiceError | None:
    """Return why this worker can answer for no model yet, or for none any more; None if it can."""
    if serving().draining:
        return Draining("this worker is ending; ask another one")
    keeper = serving().keeper
    return NotReady(keeper.awaited or "the models are being loaded") if keeper.peek() is None else None


def what_stands_in_the_way() -> ServiceError | None:
    """Return why this worker cannot predict; None if it can."""
    waits = what_makes_it_wait()
    catalogue = serving().keeper.peek()
    if waits is not None or catalogue is None:
        return waits
    if catalogue.ready():
        return None
    listed = "; ".join(f"{label}: {error.code}, {error.title}" for label, error in catalogue.refusals().items())
    return NotReady(listed or "the models folder holds no package; make one with `flask pack`")


@bp.get("/_ah/warmup")
@bp.get("/_ah/start")
def warm() -> Response:
    """Answer as /readyz does, once the models are loaded: App Engine sends traffic after that."""
    serving().catalogue()
    return ready()


def _codes(errors: dict[str, ServiceError]) -> dict[str, str]:
    return {label: error.code for label, error in errors.items()}
