"""Deploy: preflight, then the platform's own commands in their order, then verify; and nothing by halves."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from service.commands import deploy
from service.manifest import read_manifest
from service.platforms.facts import platforms
from tests.conftest import ROOT
from tests.platforms.live import listening, well
from tests.platforms.trees import EVERY, added, ground, left

PENGUINS = read_manifest("penguins/1", (ROOT / "models/penguins/1/manifest.json").read_bytes())
TOOL = """#!/bin/sh
echo "$(basename "$0") $*" >> {record}
case "$*" in {failing}) echo "no such region" >&2; exit 7;; esac
"""


class Tools:
    """Programs that stand for the vendors', and what they were called with."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder / "tools", folder / "record"
        self.folder.mkdir()

    def add(self, name: str, failing: str = "''") -> None:
        """Put a program there, which fails on arguments of this form."""
        tool = self.folder / name
        tool.write_text(TOOL.format(record=shlex.quote(str(self.record)), failing=failing))
        tool.chmod(0o755)

    def calls(self) -> list[str]:
        """Each call so far."""
        return self.record.read_text().splitlines() if self.record.exists() else []


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """A folder of programs that comes first, before those of the system; nothing else is found."""
    tools = Tools(tmp_path)
    monkeypatch.setenv("PATH", f"{tools.folder}:/usr/bin:/bin")
    return tools


Deploy = Callable[..., Result]


@pytest.fixture
def flask_deploy(make_app: Callable[..., Flask], tmp_path: Path) -> Deploy:
    """Run `flask deploy`."""

    def run(*arguments: str, **settings: Any) -> Result:
        runner = make_app(**{"cache_dir": tmp_path / "cache"} | settings).test_cli_runner()
        return runner.invoke(args=["deploy", *arguments], catch_exceptions=False)

    return run


@pytest.fixture
def here(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tree that is deployed. What its models take to load is not measured."""
    monkeypatch.setattr(deploy, "ROOT", tree)
    monkeypatch.setattr(deploy, "survey_ground", lambda root, *rest: ground(root))
    return tree


# A dry run


@pytest.mark.parametrize("name", EVERY)
def test_dry_run_prints_the_commands(name: str, flask_deploy: Deploy, tools: Tools) -> None:
    """A dry run prints preflight, the commands of each time as the facts have them, and verify; it runs none."""
    platform = platforms()[name]
    for tool in ("git", "flask", platform.deploy.tool):
        tools.add(tool)
    done = flask_deploy(name, "--name", "my-app", "--dry-run")
    assert (done.exit_code, done.stderr) == (0, "")
    first, *commands, last = done.stdout.splitlines()
    asked = (platform.deploy.ask_address,) if platform.deploy.ask_address else ()
    assert first == f"flask preflight {name}"
    assert commands == platform.commands(platform.deploy.push + asked, "my-app", "3.12")
    assert last.startswith("flask verify ") and "my-app" in last
    assert tools.calls() == []


def test_dry_run_without_verify(flask_deploy: Deploy) -> None:
    """Whoever does not want to verify sees no such step; one who knows the address sees it."""
    plain = flask_deploy("heroku", "--name", "my-app", "--dry-run", "--no-verify").stdout.splitlines()
    assert plain[-1] == "git push heroku HEAD:main"
    known = flask_deploy("heroku", "--name", "my-app", "--dry-run", "--url", "https://x.example").stdout.splitlines()
    assert known == [*plain, "flask verify https://x.example"]


@pytest.mark.parametrize("name", EVERY)
def test_dry_run_of_the_first_time(name: str, flask_deploy: Deploy, tools: Tools) -> None:
    """With --first the commands of the first time come before; those for a console there are told as such."""
    platform = platforms()[name]
    done = flask_deploy(name, "--name", "my-app", "--first", "--dry-run", "--no-verify")
    assert done.exit_code == 0
    parts = platform.deploy
    here = parts.prepare if parts.console else parts.prepare + parts.push
    there = [f"(in a console there) {line}" for line in platform.commands(parts.console, "my-app", "3.12")]
    expected = [f"flask preflight {name}", *platform.commands(here, "my-app", "3.12"), *there]
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize("name", EVERY)
def test_commands_are_commands(name: str) -> None:
    """What is run on this machine begins with a program: the platform's tool, git or our own."""
    platform = platforms()[name]
    for command in platform.commands(platform.deploy.prepare + platform.deploy.push, "my-app", "3.12"):
        assert shlex.split(command)[0] in {platform.deploy.tool, "git", "flask"}, command


@pytest.mark.parametrize("name", ["My-App", "my app", "--force", "a;b", "x" * 64, "", "-a"])
def test_6_34_name_that_is_none(name: str, flask_deploy: Deploy) -> None:
    """A name that no platform takes is refused, so that no command is made of it."""
    done = flask_deploy("heroku", f"--name={name}", "--dry-run")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "is no name of an app" in done.stderr


def test_one_platform_at_a_time(flask_deploy: Deploy) -> None:
    """`all` is refused: nobody deploys to seven places at once."""
    done = flask_deploy("all", "--name", "my-app", "--dry-run")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "name one platform" in done.stderr


def test_unknown_platform(flask_deploy: Deploy) -> None:
    """A name that is no platform is refused with the nearest one."""
    done = flask_deploy("herku", "--name", "my-app")
    assert done.exit_code == 1
    assert "did you mean heroku?" in done.stderr


# Deploying


def test_missing_tool_is_told_with_how_to_get_it(flask_deploy: Deploy, here: Path, tools: Tools) -> None:
    """Where the vendor's tool is not installed, the message says how to get it, and nothing is run."""
    done = flask_deploy("beanstalk", "--name", "my-app")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "eb is not installed; get it: pipx install awsebcli" in done.stderr


@pytest.mark.slow
def test_commands_run_in_their_order(flask_deploy: Deploy, here: Path, tools: Tools) -> None:
    """Each command is shown and run, those of the first time before the others; the end says where the app is."""
    tools.add("eb")
    done = flask_deploy("beanstalk", "--name", "my-app", "--first", "--no-verify")
    commands = platforms()["beanstalk"].deploy.prepare + platforms()["beanstalk"].deploy.push
    expected = platforms()["beanstalk"].commands(commands, "my-app", "3.12")
    assert done.exit_code == 0, done.output
    assert tools.calls() == expected
    *shown, last = done.stdout.splitlines()
    assert shown == [f"$ {command}" for command in expected]
    assert "eb status my-app" in last and "flask verify" in last


@pytest.mark.slow
def test_first_command_that_fails_is_the_last(flask_deploy: Deploy, here: Path, tools: Tools) -> None:
    """After a command that fails nothing more is run; its status is told, and the command's own is 1."""
    tools.add("eb", failing="'create my-app'*")
    done = flask_deploy("beanstalk", "--name", "my-app", "--first")
    assert done.exit_code == 1
    assert [call.split()[1] for call in tools.calls()] == ["init", "create"]
    assert "ended with status 7" in done.stderr and "eb create my-app" in done.stderr
    assert "deployed" not in done.stdout


@pytest.mark.slow
def test_errors_of_preflight_stop_it(flask_deploy: Deploy, here: Path, tools: Tools) -> None:
    """Where preflight finds an error, it is told and nothing is run."""
    tools.add("eb")
    added("Dockerfile", "FROM scratch\n")(here)
    done = flask_deploy("beanstalk", "--name", "my-app")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "beanstalk.dockerfile" in done.stderr and "flask preflight beanstalk" in done.stderr
    assert tools.calls() == []


@pytest.mark.slow
@pytest.mark.parametrize("answers", ["right", "nothing"])
def test_deployment_is_verified(
    flask_deploy: Deploy, here: Path, tools: Tools, answers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --url the live service is verified at the end, and the status is the verdict."""
    monkeypatch.setattr(deploy, "await_ready", lambda address, seconds: None)
    tools.add("eb")
    with listening(well(PENGUINS) if answers == "right" else {}) as live:
        done = flask_deploy("beanstalk", "--name", "my-app", "--url", live.url)
    assert tools.calls() == ["eb deploy my-app"]
    assert done.exit_code == (0 if answers == "right" else 1)
    assert done.stdout.splitlines()[-1].strip() == f"{live.url}: {'passed' if answers == 'right' else 'FAILED'}"


@pytest.mark.slow
def test_address_is_asked_of_the_platforms_tool(flask_deploy: Deploy, here: Path, tools: Tools) -> None:
    """Without --url the platform's own tool says where the app answers, and that is verified."""
    with listening(well(PENGUINS)) as live:
        (tools.folder / "eb").write_text(f"#!/bin/sh\necho 'Details for my-app'\necho '  CNAME: {live.url}'\n")
        (tools.folder / "eb").chmod(0o755)
        done = flask_deploy("beanstalk", "--name", "my-app")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].strip() == f"{live.url}: passed"


@pytest.mark.slow
def test_address_that_the_tool_does_not_say(flask_deploy: Deploy, here: Path, tools: Tools) -> None:
    """Where the platform's tool names no address, it is told that the deployment is done and how to verify it."""
    tools.add("eb")
    done = flask_deploy("beanstalk", "--name", "my-app")
    assert done.exit_code == 1
    assert "it is deployed, but `eb status my-app` names no address; give it: flask verify URL" in done.stderr


@pytest.mark.slow
def test_warnings_of_preflight_are_told(flask_deploy: Deploy, here: Path, tools: Tools) -> None:
    """What preflight only warns of is told, and does not stop the deployment."""
    tools.add("eb")
    left("README.md")(here)
    done = flask_deploy("beanstalk", "--name", "my-app", "--no-verify")
    assert done.exit_code == 0, done.output
    assert "warning: beanstalk.uncommitted-changes" in done.stderr


@pytest.mark.slow
def test_commands_run_in_the_tree(flask_deploy: Deploy, here: Path, tools: Tools) -> None:
    """The platform's tool is run in the tree, wherever `flask` was called."""
    tools.add("gcloud")
    (tools.folder / "gcloud").write_text(f"#!/bin/sh\npwd > {tools.record}\n")
    assert flask_deploy("appengine", "--name", "my-app", "--no-verify").exit_code == 0
    assert os.path.realpath(tools.calls()[0]) == os.path.realpath(here)


@pytest.mark.slow
def test_own_commands_need_no_path(
    flask_deploy: Deploy, here: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that is `flask` itself is found, though the virtual environment is not on PATH."""
    tools.add("pa")
    platform = platforms()["pythonanywhere"]
    pushing = platform.deploy.model_copy(update={"push": ("flask platforms heroku", "pa webapp reload")})
    monkeypatch.setattr(deploy, "chosen", lambda name: [platform.model_copy(update={"deploy": pushing})])
    done = flask_deploy("pythonanywhere", "--name", "my-app", "--no-verify")
    assert done.exit_code == 0, done.output
    assert tools.calls() == ["pa webapp reload"]
