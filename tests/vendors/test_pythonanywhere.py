"""The commands of our facts, run by PythonAnywhere's own client against a stand-in for its API."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from service.errors import PlatformError
from service.platforms import push as push_room
from service.platforms.facts import platforms
from service.platforms.upload import Upload, gather
from tests.vendors.fake_pythonanywhere import Api, fake_pythonanywhere
from tests.vendors.tools import PATH, run, tool

DOMAIN = "anyport.pythonanywhere.com"
V0, V1 = "/api/v0/user/anyport", "/api/v1/user/anyport"
COMMANDS = {
    (name, " ".join(command.split()[1:3])): command
    for name in ("pythonanywhere", "pythonanywhere-site")
    for deploy in [platforms()[name].deploy]
    for command in platforms()[name].commands(deploy.prepare + deploy.console + deploy.push, "anyport", "3.12")
    if command.startswith("pa ")
}
"""Every command of the real client that we tell people to run, by platform and what it does."""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """The stand-in."""
    with fake_pythonanywhere(tmp_path) as api:
        yield api


def pa(command: list[str], api: Api, home: Path) -> CompletedProcess[str]:
    """Run a command of the real client, in a home as their consoles have it."""
    wrapper = home / "bin" / "virtualenvwrapper.sh"
    wrapper.parent.mkdir()
    wrapper.write_text('mkvirtualenv() { echo "$@" > "$HOME/made"; }\n')
    console = {"HOME": str(home), "WORKON_HOME": str(home / ".virtualenvs"), "PATH": f"{wrapper.parent}:{PATH}"}
    assert command[0] == "pa"
    return run([tool("pythonanywhere", "bin/pa"), *command[1:]], home, **(api.variables | console))


def expected(home: Path) -> dict[tuple[str, str], list[tuple[str, str, Any]]]:
    """The calls that each command must make."""
    app = {"domain_name": DOMAIN, "python_version": "python312"}
    paths = {"virtualenv_path": f"{home}/.virtualenvs/{DOMAIN}", "source_directory": f"{home}/{DOMAIN}"}
    folders = [{"url": f"/{name}/", "path": f"{home}/{DOMAIN}/{name}"} for name in ("static", "media")]
    line = "gunicorn -c gunicorn.conf.py --bind unix:${DOMAIN_SOCKET} service.wsgi:app"
    home_there = "/home/anyport"
    command = (
        f"/usr/bin/env --chdir={home_there}/anyport ANYPORT_CLIENT_HOPS=1 {home_there}/.virtualenvs/anyport/bin/{line}"
    )
    reload = ("POST", f"{V0}/webapps/{DOMAIN}/reload/", "")
    return {
        ("pythonanywhere", "webapp create"): [
            ("GET", f"{V0}/webapps/{DOMAIN}/", ""),
            ("POST", f"{V0}/webapps/", app),
            ("PATCH", f"{V0}/webapps/{DOMAIN}/", paths),
            *(("POST", f"{V0}/webapps/{DOMAIN}/static_files/", folder) for folder in folders),
            reload,
        ],
        ("pythonanywhere", "webapp reload"): [reload],
        ("pythonanywhere-site", "website create"): [
            ("POST", f"{V1}/websites/", {"domain_name": DOMAIN, "enabled": True, "webapp": {"command": command}})
        ],
        ("pythonanywhere-site", "website reload"): [("POST", f"{V1}/websites/{DOMAIN}/reload/", "")],
    }


def test_every_command_is_known(home: Path) -> None:
    """Our facts name exactly the commands whose calls are checked here."""
    assert COMMANDS.keys() == expected(home).keys()


@pytest.mark.parametrize("key", COMMANDS, ids=" ".join)
def test_the_real_client_takes_our_command(key: tuple[str, str], api: Api, home: Path) -> None:
    """The client accepts the command as it stands, and sends what it should."""
    done = pa(shlex.split(COMMANDS[key]), api, home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert api.calls == expected(home)[key]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["pa", "webapp", "create", "--domain", DOMAIN, "--python", "3.12"], "No such option: --python"),
        (["pa", "website", "create", "--domain", DOMAIN], "Missing option"),
        (["pa", "website", "restart", "--domain", DOMAIN], "No such command 'restart'"),
    ],
    ids=["an unknown option", "a missing option", "an unknown command"],
)
def test_the_real_client_refuses_another_command(command: list[str], complaint: str, api: Api, home: Path) -> None:
    """The check can fail: what the client does not know is refused before anything is sent."""
    done = pa(command, api, home)
    assert done.returncode == 2 and complaint in done.stderr
    assert api.calls == []


def test_the_real_client_refuses_a_wrong_token(api: Api, home: Path) -> None:
    """The check can fail: the stand-in believes one token only."""
    api.variables["API_TOKEN"] = "another"
    assert pa(["pa", "website", "reload", "--domain", DOMAIN], api, home).returncode != 0


def test_the_push_sends_what_has_changed(
    api: Api, tree: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push has the real client send each new or changed file, delete what is gone, and nothing else."""
    for name, value in api.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(tool('pythonanywhere', 'bin/pa')).parent}:{PATH}")
    monkeypatch.setattr(push_room, "PACE_S", 0)
    whole = gather(platforms()["pythonanywhere"], tree)
    three = Upload(whole.platform, whole.files[:3])
    changed = replace(whole.files[0], content=b"changed")
    two = Upload(whole.platform, (changed, whole.files[1]))
    where = f"{V0}/files/path/home/anyport/anyport"
    for upload, calls in (
        (three, [("POST", file) for file in three.files]),
        (three, []),
        (two, [("POST", changed), ("DELETE", three.files[2])]),
    ):
        api.calls.clear()
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        upload.write_folder(folder)
        count = push_room.push(upload, folder, "/home/anyport/anyport", tmp_path / "note.json", lambda said: None)
        assert count == len(calls)
        made = [call for call in api.calls if call[0] in ("POST", "DELETE")]
        assert [call[:2] for call in made] == [(verb, f"{where}/{file.path}") for verb, file in calls]
        bodies = [call[2] for call in made if call[0] == "POST"]
        assert bodies == [{"content": file.content} for verb, file in calls if verb == "POST"]


def test_a_push_that_fails_goes_on_later(api: Api, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token the client's own words are told, and nothing is noted as brought."""
    monkeypatch.setenv("PATH", f"{Path(tool('pythonanywhere', 'bin/pa')).parent}:{PATH}")
    for name in api.variables.keys() - {"API_TOKEN"}:
        monkeypatch.setenv(name, api.variables[name])
    monkeypatch.delenv("API_TOKEN", raising=False)
    upload = gather(platforms()["pythonanywhere"], tree)
    upload.write_folder(tmp_path)
    with pytest.raises(PlatformError, match="API_TOKEN"):
        push_room.push(upload, tmp_path, "/home/anyport/anyport", tmp_path / "note.json", lambda said: None)
    assert not (tmp_path / "note.json").exists()
