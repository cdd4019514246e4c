"""gunicorn's settings: what ours are, and that no unsafe one passes, whatever set it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import KNOWN_SETTINGS, Config

from service.errors import SettingsError
from service.gunicorn_check import SAFE, check_gunicorn
from tests.conftest import ROOT
from tests.server import START_LINE, environment

KILL_S = 30
"""Heroku, SageMaker and Render kill so long after SIGTERM (devcenter.heroku.com/articles/dynos, read 2026-11-22)."""
ROUTER_IDLE_S = 90
"""Heroku's router keeps an unused connection so long (heroku/python-getting-started, read 2026-11-22)."""
SWITCHES = [setting.name for setting in KNOWN_SETTINGS if setting.name.startswith(("permit_", "strip_", "casefold_"))]
UNSAFE: list[tuple[str, Any]] = [
    ("worker_class", "gthread"),
    ("http_parser", "fast"),
    ("http_parser", "auto"),
    ("forwarder_headers", "SCRIPT_NAME,PATH_INFO"),
    ("control_socket_disable", False),
    ("http_protocols", "h2,h1"),
    ("http2_cleartext", "upgrade"),
    ("http2_cleartext", "prior-knowledge"),
    ("proxy_protocol", "v1"),
    ("proxy_protocol", "auto"),
    ("protocol", "uwsgi"),
    ("dirty_workers", 1),
    ("header_map", "dangerous"),
    ("header_map", "refuse"),
    ("certfile", "/tmp/cert.pem"),
    ("keepalive", 0),
    ("keepalive", 2),
    ("keepalive", ROUTER_IDLE_S),
    *((name, True) for name in SWITCHES),
]
"""Rule 15, setting by setting."""


@pytest.fixture
def cfg() -> Config:
    """gunicorn's settings as ours are."""
    cfg = Config()
    for name, safe in SAFE.items():
        cfg.set(name.removesuffix("_str"), ",".join(safe) if isinstance(safe, list) else safe)
    cfg.set("keepalive", 95)
    return cfg


def test_2_15_safe_settings_pass(cfg: Config) -> None:
    """The settings that the worker was made for are no reason to end the start."""
    check_gunicorn(cfg, "27.0.1")


@pytest.mark.parametrize(("name", "value"), UNSAFE)
def test_2_15_every_unsafe_setting_is_refused(cfg: Config, name: str, value: Any) -> None:
    """Each setting that rule 15 names is checked by itself, and told by its name."""
    cfg.set(name, value)
    with pytest.raises(SettingsError, match=f"gunicorn's {name} is "):
        check_gunicorn(cfg, "27.0.1")


@pytest.mark.parametrize("version", ["26.9.0", "28.0.0", "2.7", "270.1"])
def test_2_15_untested_gunicorn_is_refused(cfg: Config, version: str) -> None:
    """A gunicorn that the worker was not tested with is refused with the one that was."""
    with pytest.raises(SettingsError, match=r"install 27\.x"):
        check_gunicorn(cfg, version)


def test_2_15_there_are_switches_to_check() -> None:
    """The loose switches are looked up in gunicorn itself, so that one which it adds is refused here too."""
    assert len(SWITCHES) >= 5


@pytest.fixture(scope="module")
def effective() -> dict[str, str]:
    """The settings that gunicorn itself prints for our start line."""
    line = [*START_LINE[:-1], "--print-config", START_LINE[-1]]
    env = environment(Path(ROOT / "models"))
    printed = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    pairs = (line.partition("=") for line in printed.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


@pytest.mark.slow
def test_2_10_exit_comes_before_the_kill(effective: dict[str, str]) -> None:
    """Workers end by themselves 3 s before gunicorn ends them, and gunicorn 3 s before the platforms do."""
    margin = re.search(r"^EXIT_MARGIN_S = (.+)$", (ROOT / "service" / "worker.py").read_text(), re.MULTILINE)
    assert margin is not None and float(margin[1]) >= 3
    assert int(effective["graceful_timeout"]) <= KILL_S - 3


@pytest.mark.slow
def test_2_15_our_settings_are_the_safe_ones(effective: dict[str, str]) -> None:
    """What gunicorn takes from our file is what rule 15 asks for."""
    wanted = {
        "worker_class": "service.worker.AnyportWorker",
        "http_parser": "python",
        "forwarder_headers": "[]",
        "accesslog": "None",
        "control_socket_disable": "True",
        "http_protocols": "['h1']",
        "http2_cleartext": "off",
        "proxy_protocol": "off",
        "protocol": "http",
        "dirty_workers": "0",
        "header_map": "drop",
        "preload_app": "False",
        **dict.fromkeys(SWITCHES, "False"),
    }
    assert {name: effective[name] for name in wanted} == wanted
    assert int(effective["keepalive"]) > ROUTER_IDLE_S
