"""`flask rehearse`, `flask verify`, `flask deploy`: boot it here as there, ask it there, and bring it there."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from service.commands.console import echo_json, plain_errors, tell
from service.commands.platforms import ROOT, TRIAL, python_version
from service.errors import PlatformError, shorten
from service.manifest import Manifest
from service.platforms.client import address_of
from service.platforms.facts import Platform, chosen
from service.platforms.preflight import preflight, survey_ground
from service.platforms.rehearsal.rehearse import rehearse
from service.platforms.report import Report, Scene
from service.platforms.verify import await_ready, verify
from service.settings import Settings
from service.store import Store

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
READY_S = 300.0
"""How long to wait for what was deployed, where the platform documents no start limit."""


def make_commands(settings: Settings) -> Iterator[click.Command]:
    """Make the commands."""
    yield _make_rehearse(settings)
    yield _make_verify(settings)
    yield _make_deploy(settings)


def _make_rehearse(settings: Settings) -> click.Command:
    cache = settings.cache_dir.expanduser()

    @click.command("rehearse")
    @click.argument("platform")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def run_rehearse(platform: str, as_json: bool) -> None:
        """Boot here what PLATFORM, or each of `all`, would receive, as it would there, and say what was seen.

        Exit status 1 if a scene fails. Works on Linux.
        """
        with plain_errors(as_json):
            if not sys.platform.startswith("linux"):
                raise PlatformError(
                    "a rehearsal needs Linux, as the platforms do; on another system run it in a container"
                )
            for sent in (signal.SIGTERM, signal.SIGHUP):  # so that all that runs is ended
                signal.signal(sent, lambda number, _: sys.exit(128 + number))
            reports = []
            for one in chosen(platform):
                if not as_json:
                    click.echo(f"{one.title}")
                tell("the first time, the libraries are installed: about a minute")
                reports.append(rehearse(one, ROOT, cache, _quiet if as_json else _print_scene))
                if not as_json:
                    _print_end(reports[-1])
        if as_json:
            echo_json([report.document() for report in reports])
        sys.exit(not all(report.passed for report in reports))

    return run_rehearse


def _make_verify(settings: Settings) -> click.Command:
    @click.command("verify")
    @click.argument("url")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def run_verify(url: str, as_json: bool) -> None:
        """Replay the golden rows of the active models against the live service at URL.

        A key, where it wants one, is read from ANYPORT_VERIFY_KEY. Exit status 1 if anything differs.
        """
        with plain_errors(as_json):
            report = _verify(settings, url, quiet=as_json)
        if as_json:
            echo_json(report.document())
        else:
            _print_end(report)
        sys.exit(not report.passed)

    return run_verify


def _make_deploy(settings: Settings) -> click.Command:
    @click.command("deploy")
    @click.argument("platform")
    @click.option("--name", required=True, help="The app's name at the platform.")
    @click.option("--first", is_flag=True, help="Also run the commands that make the app, before.")
    @click.option("--url", help="Where it answers afterwards, if the platform's tool cannot say it.")
    @click.option("--no-verify", is_flag=True, help="Do not ask it afterwards whether it answers right.")
    @click.option("--dry-run", is_flag=True, help="Print the commands, and run none.")
    def run_deploy(platform: str, name: str, first: bool, url: str | None, no_verify: bool, dry_run: bool) -> None:
        """Preflight, then run PLATFORM's own commands, then verify that it answers as the model did when packed.

        Exit status 1 if preflight finds an error, a command fails, or an answer differs.
        """
        with plain_errors():
            one = _one(platform)
            if not NAME.fullmatch(name):
                raise PlatformError(
                    f"{shorten(name)!r} is no name of an app: small letters, digits and dashes, at most 63"
                )
            if dry_run:
                click.echo("\n".join(_plan(one, name, first, url, not no_verify)))
                return
            _bring(one, settings, name, first=first)
            if first and one.deploy.console:
                steps = [*_console(one, name), f"flask deploy {one.name} --name {name}"]
                click.echo("\n".join([f"now, in a console on {one.title} and then here:", *steps]))
                return
            if no_verify or (one.deploy.builds_later and not url):
                click.echo(f"deployed; when it is live: flask verify {url or _made_up(one, name)}")
                return
            report = _await_and_verify(one, settings, url or _address(one, name))
        _print_end(report)
        sys.exit(not report.passed)

    return run_deploy


def _quiet(scene: Scene) -> None:
    """Say nothing."""


def _print_scene(scene: Scene) -> None:
    mark = "ok    " if scene.passed else "FAILED"
    click.echo(f"  {mark} {scene.name:<16} {scene.said}  [{scene.seconds:.1f} s]")


def _print_end(report: Report) -> None:
    for remark in report.remarks:
        click.echo(f"  not as there: {remark}")
    click.echo(f"  {report.subject}: {'passed' if report.passed else 'FAILED'}")


def _active(settings: Settings) -> list[Manifest]:
    store = Store(settings.models_dir)
    found = [store.manifest(name, store.active(name)) for name in store.versions()]
    if not found:
        raise PlatformError(f"{settings.models_dir} holds no package, so nothing is known of what should be answered")
    return found


def _verify(settings: Settings, url: str, *, quiet: bool) -> Report:
    key = settings.verify_key.get_secret_value() if settings.verify_key else None
    return verify(url, address_of(url), _active(settings), key, _quiet if quiet else _print_scene)


def _one(platform: str) -> Platform:
    if platform == "all":
        raise PlatformError("name one platform; `flask platforms` lists them")
    return chosen(platform)[0]


def _commands(platform: Platform, name: str, *, first: bool) -> list[str]:
    deploy = platform.deploy
    if first:
        return platform.commands(deploy.prepare + (() if deploy.console else deploy.push), name, python_version())
    return platform.commands(deploy.push, name, python_version())


def _console(platform: Platform, name: str) -> list[str]:
    return platform.commands(platform.deploy.console, name, python_version())


def _plan(platform: Platform, name: str, first: bool, url: str | None, verified: bool) -> Iterator[str]:
    """Every step of a deployment, as one would type it."""
    yield f"flask preflight {platform.name}"
    yield from _commands(platform, name, first=first)
    if first and platform.deploy.console:
        yield from (f"(in a console there) {line}" for line in _console(platform, name))
    elif verified:
        asked = platform.commands((platform.deploy.ask_address,), name, python_version())[0]
        if asked and not url:
            yield asked
        yield f"flask verify {url or _made_up(platform, name)}"


def _made_up(platform: Platform, name: str) -> str:
    """The address as far as it is known beforehand."""
    return platform.commands((platform.deploy.address,), name, python_version())[0]


def _address(platform: Platform, name: str) -> str:
    """The address as the platform's tool says it."""
    if not platform.deploy.ask_address:
        return _made_up(platform, name)
    command = platform.commands((platform.deploy.ask_address,), name, python_version())[0]
    said = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True)
    found = re.search(platform.deploy.address_in, said.stdout)
    if found is None:
        raise PlatformError(f"it is deployed, but `{command}` names no address; give it: flask verify URL")
    return found[1]


def _bring(platform: Platform, settings: Settings, name: str, *, first: bool) -> None:
    """Look the tree over, then run the platform's commands."""
    _check(platform, settings)
    for command in _commands(platform, name, first=first):
        _run(platform, command)


def _await_and_verify(platform: Platform, settings: Settings, url: str) -> Report:
    longest_s = platform.limits.start_s or READY_S
    click.echo(f"waiting until {url} is ready, at most {longest_s:.0f} s")
    await_ready(address_of(url), longest_s)
    return _verify(settings, url, quiet=False)


def _check(platform: Platform, settings: Settings) -> None:
    if shutil.which(platform.deploy.tool) is None:
        raise PlatformError(f"{platform.deploy.tool} is not installed; get it: {platform.deploy.install_tool}")
    ground = survey_ground(ROOT, settings.policy, TRIAL, datetime.now(UTC).date())
    found = preflight(platform, ground)
    for finding in found:
        click.echo(f"{finding.level}: {finding.id}: {finding.what}", err=True)
    errors = [finding for finding in found if finding.level == "error"]
    if errors:
        raise PlatformError(f"{errors[0].id}: {errors[0].what}; see them all: flask preflight {platform.name}")


def _run(platform: Platform, command: str) -> None:
    click.echo(f"$ {command}")
    words = shlex.split(command)
    program = [sys.executable, "-m", "flask"] if words[0] == "flask" else words[:1]
    status = subprocess.run([*program, *words[1:]], cwd=ROOT).returncode
    if status:
        raise PlatformError(
            f"`{command}` ended with status {status}; what it said stands above, and nothing after it was run"
        )
