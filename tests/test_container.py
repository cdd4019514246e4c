"""What the image runs: the service for `serve` and for nothing, on the port that the platform gives, as any user."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PENGUIN, ROOT
from tests.server import free_port, running

CONTAINER = ROOT / "container"
START = str(CONTAINER / "start")


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """What the Dockerfile copies, in a folder of its own that nobody may write."""
    app = tmp_path / "app"
    for source, target in re.findall(r"^COPY (?!--from)(\S+) (\S+)$", (CONTAINER / "Dockerfile").read_text(), re.M):
        if source == "requirements.txt":
            continue
        end = app / target / Path(source).name if target.endswith("/") else app / target
        end.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, end, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / source, end)
    folders = [app, *(path for path in app.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield app
    for folder in folders:
        folder.chmod(0o755)


@pytest.mark.parametrize("arguments", [[], ["serve"]], ids=["nothing", "serve"])
@pytest.mark.parametrize("variable", ["PORT", "AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT"])
def test_image_serves(arguments: list[str], variable: str, image: Path, tmp_path: Path) -> None:
    """The service answers from the image's files alone, at the port that is given, and ends at SIGTERM."""
    port = free_port()
    models = Path(shutil.copytree(ROOT / "models", tmp_path / "mounted" / "models"))
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    given = {"PORT": "1", variable: str(port)}
    command = [str(image / "container" / "start"), *arguments]
    with running(models, command, tmp_path, port, **path | given) as server:
        assert server.predict([PENGUIN])[1]["predictions"] == ["Adelie"]
        assert server.request("GET", "/ping")[0] == 200
        assert server.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(("given", "port"), [({}, "8080"), ({"PORT": "9000"}, "9000")])
def test_image_listens_at_8080_where_nobody_says(given: dict[str, str], port: str, tmp_path: Path) -> None:
    """Without a variable the port is the one that SageMaker and Vertex AI ask by default."""
    said = tmp_path / "gunicorn"
    said.write_text('#!/bin/sh\necho "$PORT $*"\n')
    said.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([START, "serve"], env=path | given, capture_output=True, text=True, check=True)
    assert done.stdout == f"{port} -c gunicorn.conf.py service.wsgi:app\n"


def test_image_runs_other_commands() -> None:
    """Another argument is a command, so that a shell or `flask` can be run in the image."""
    done = subprocess.run([START, "sh", "-c", "echo $0 $1", "a b", "c"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "a b c\n")
    assert subprocess.run([START, "sh", "-c", "exit 7"]).returncode == 7


def test_context_holds_what_is_copied_and_nothing_else() -> None:
    """Docker is sent exactly the files that the Dockerfile copies."""
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", (CONTAINER / "Dockerfile").read_text(), re.M)
        for source in line.split()
    }
    lines = (CONTAINER / "Dockerfile.dockerignore").read_text().splitlines()
    assert lines[1] == "*" and {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)
