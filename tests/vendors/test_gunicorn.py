"""gunicorn's own word on its settings, under each platform's environment and start line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from service.platforms.declared import declared
from service.platforms.facts import platforms
from service.platforms.upload import gather
from tests.checkout import commit
from tests.vendors.tools import run

WITH_GUNICORN = [name for name, platform in platforms().items() if platform.start.front != "uwsgi"]
PORT = 12345
"""Not the port that a platform gives usually, so that one that is written down somewhere is found."""
ADDRESSES = {"beanstalk": "127.0.0.1:8000", "azure": f"0.0.0.0:{PORT}", "pythonanywhere-site": "unix:/tmp/site.sock"}
"""Elastic Beanstalk's nginx is on the same machine and knows one port."""
PRELOADED = {"render"}


def settings(name: str, tree: Path, home: Path) -> dict[str, str]:
    """Return what gunicorn prints when a platform's start line asks for its settings."""
    platform = platforms()[name]
    told = declared(gather(platform, tree))
    injected = {
        variable: value.format(port=PORT, socket="/tmp/site.sock", memory_mib=768)
        for variable, value in platform.start.environment.items()
    }
    line = f"{told.line} --print-config"
    command = [*platform.start.shell, line] if platform.start.shell else shlex.split(line)
    done = run(command, tree, HOME=str(home), **(injected | told.environment))
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(re.findall(r"^(\w+) += (.*)$", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("name", WITH_GUNICORN)
def test_gunicorn_is_set_as_the_platform_needs(name: str, tree: Path, home: Path) -> None:
    """It listens where the platform looks, whatever it injects; it has our worker and no control socket; and it loads
    nothing before the fork unless the platform says so."""
    said = settings(name, tree, home)
    assert said["bind"] == str([ADDRESSES.get(name, f"0.0.0.0:{PORT}")])
    assert said["preload_app"] == str(name in PRELOADED)
    assert said["control_socket_disable"] == "True"
    assert said["worker_class"] == "service.worker.AnyportWorker"
    assert int(said["graceful_timeout"]) < (platforms()[name].limits.stop_s or 30)


def test_render_would_bind_its_own_address_without_the_flag(tree: Path, home: Path) -> None:
    """The check can fail: without `--bind` in render.yaml, what Render injects would win."""
    render = tree / "render.yaml"
    render.write_text(render.read_text().replace(" --bind 0.0.0.0:$PORT", ""))
    commit(tree)
    assert settings("render", tree, home)["bind"] == "['0.0.0.0:10000']"
