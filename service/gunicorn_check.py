"""What gunicorn must be and how it must be set for our worker; checked before the first worker starts.

What we lean on in gunicorn 27: in `service/worker.py` `workers.base.Worker`; in `service/answer.py`
`http.parser.RequestParser` over an iterable, `http.wsgi.create`, `http.wsgi.Response` writing to any object with
`sendall`, and what it writes by itself, `SERVER`, `util.hop_headers` and `util.http_date`; in `service/heads.py` that
`http.wsgi.create` makes the same environ of plain heads.
"""

from __future__ import annotations

from typing import Any

from service.errors import SettingsError

TESTED_GUNICORN = "27."
ROUTER_IDLE_S = 90
"""Heroku's router keeps an unused connection so long; it must not find it closed."""
SAFE: dict[str, Any] = {
    "worker_class_str": "service.worker.AnyportWorker",
    "http_parser": "python",
    "http_protocols": ["h1"],
    "http2_cleartext": "off",
    "protocol": "http",
    "proxy_protocol": "off",
    "certfile": None,
    "keyfile": None,
    "dirty_workers": 0,
    "header_map": "drop",
    "forwarder_headers": [],
    "permit_obsolete_folding": False,
    "permit_unconventional_http_method": False,
    "permit_unconventional_http_version": False,
    "strip_header_spaces": False,
    "casefold_http_method": False,
    "control_socket_disable": True,
}
"""gunicorn's settings that the worker was made and tested for.

`accesslog` is not among them: Heroku's buildpack sets it, and the worker never writes to it.
"""


def check_gunicorn(cfg: Any, version: str) -> None:
    """Refuse to start under a gunicorn that the worker was not tested with, or with settings that are not safe.

    Raises:
        SettingsError: With the setting, its value, and the value that is safe.
    """
    if not version.startswith(TESTED_GUNICORN):
        raise SettingsError(f"gunicorn {version} was not tested with this worker; install {TESTED_GUNICORN}x")
    for name, safe in SAFE.items():
        value = getattr(cfg, name)
        if value != safe:
            raise SettingsError(f"gunicorn's {name.removesuffix('_str')} is {value!r} and must be {safe!r}")
    if cfg.keepalive <= ROUTER_IDLE_S:
        raise SettingsError(f"gunicorn's keepalive is {cfg.keepalive!r} and must be more than {ROUTER_IDLE_S}")
