"""Preflight: the shipped tree is clean on every platform, and each planted fault gives its finding alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from service.commands import platforms as commands
from service.errors import PlatformError
from service.platforms import findings
from service.platforms.facts import platforms
from service.platforms.findings import Candidate, Finding, Ground
from service.platforms.preflight import preflight, survey_ground
from service.platforms.upload import gather
from service.runtimes import Policy
from service.settings import Settings
from service.trial import Limits
from tests.checkout import commit, git
from tests.originals import keep_originals
from tests.platforms.trees import (
    EVERY,
    TAKE_COMMITS,
    Plant,
    added,
    changed,
    forgotten,
    ground,
    left,
    manifest,
    put,
    removed,
    together,
)

START = "gunicorn -c gunicorn.conf.py service.wsgi:app"


def look(tree: Path, name: str, *, wheels: bool = False, **load_s: float) -> list[Finding]:
    """Run preflight on a tree for one platform."""
    return preflight(platforms()[name], ground(tree, **load_s), wheels=wheels)


def ids(found: list[Finding], level: str = "error") -> set[str]:
    """The ids of the findings of one level."""
    return {finding.id for finding in found if finding.level == level}


# The shipped tree


@pytest.mark.parametrize("name", EVERY)
def test_shipped_tree_is_clean(origin: Path, name: str) -> None:
    """Nothing at all is found in the tree as it is shipped, on any platform."""
    assert look(origin, name) == []


def test_survey_measures_how_long_each_package_takes(tree: Path) -> None:
    """The ground knows for each package how long it took to be opened; one that cannot be opened is left out."""
    put(tree / "models" / "broken" / "1" / "manifest.json", "{")
    surveyed = survey_ground(tree, Settings().policy, Limits(timeout_s=120), date(2026, 11, 22))
    assert surveyed.load_s.keys() == {"penguins/1"}
    assert surveyed.load_s["penguins/1"] > 0
    assert (surveyed.root, surveyed.today) == (tree, date(2026, 11, 22))


def test_survey_leaves_out_what_the_operator_does_not_trust(tree: Path) -> None:
    """A package that the operator's policy refuses is not measured."""
    keep_originals(tree / "models")
    assert survey_ground(tree, Policy(pickle=False), Limits(timeout_s=120), date(2026, 11, 22)).load_s == {}


# Planted faults, in the order of the table of common failures


def start(line: str) -> Plant:
    """Give Procfile another start line."""
    return added("Procfile", f"web: {line}\n")


def with_option(option: str) -> Plant:
    """Give Procfile's start line an option more."""
    return start(START.replace(" service", f" {option} service"))


def app_env(name: str, value: str) -> Plant:
    """Set a variable in app.yaml."""
    return changed("app.yaml", "env_variables:\n", f'env_variables:\n  {name}: "{value}"\n')


def render_env(name: str, value: str) -> Plant:
    """Set a variable in render.yaml."""
    return changed("render.yaml", "    envVars:\n", f'    envVars:\n      - key: {name}\n        value: "{value}"\n')


def eb_option(namespace: str, name: str, value: str) -> Plant:
    """Set an option in a file of .ebextensions of its own."""
    text = f'option_settings:\n  aws:{namespace}:\n    {name}: "{value}"\n'
    return added(".ebextensions/more.config", text)


def eb_env(name: str, value: str) -> Plant:
    """Set a variable in .ebextensions."""
    return eb_option("elasticbeanstalk:application:environment", name, value)


def without_pin(library: str) -> Plant:
    """Take a library out of requirements.txt."""

    def plant(tree: Path) -> None:
        before, _, after = (tree / "requirements.txt").read_text().partition(f"\n{library}==")
        rest = after.splitlines(keepends=True)
        end = next(index for index, line in enumerate(rest) if index and not line.startswith(" "))
        put(tree / "requirements.txt", f"{before}\n{''.join(rest[end:])}")
        commit(tree)

    return plant


def second_version(path: str) -> Plant:
    """Leave a second package in the working tree that nobody commits."""

    def plant(tree: Path) -> None:
        name, version = path.split("/")
        document = json.loads((tree / "models/penguins/1/manifest.json").read_text())
        put(tree / "models" / path / "manifest.json", json.dumps(document | {"name": name, "version": version}))
        (tree / "models" / path / "model.joblib").write_bytes((tree / "models/penguins/1/model.joblib").read_bytes())

    return plant


def original(plant: Plant) -> Plant:
    """Take the compiled form away first, and keep the original alone."""
    return together(lambda tree: keep_originals(tree / "models"), plant)


def damaged(tree: Path) -> None:
    """Commit a model file of which one byte is another."""
    path = tree / "models/penguins/1/model.joblib"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    commit(tree)


def large(tree: Path) -> None:
    """Commit a file of 200 MB."""
    with (tree / "data.bin").open("wb") as target:
        target.truncate(200 * 10**6)
    commit(tree)


def fault(name: str, platform: str, plant: Plant, finding: str) -> Any:
    """One row: a name, the platform that is hurt, what is planted, and what must be found there."""
    return pytest.param(platform, plant, f"{platform}.{finding}", id=f"{platform}: {name}")


NEW_VERSION = changed("models/penguins/1/manifest.json", '"scikit-learn": "1', '"scikit-learn": "0')
OLD_PIN = changed("requirements.txt", "\nscikit-learn==1", "\nscikit-learn==0")
REDIRECT = changed(
    "service/web/probes.py",
    '    """Answer that the process lives."""\n',
    '    """Answer that the process lives."""\n    from flask import request\n'
    '    if request.path == "/healthz":\n        return Response(status=301, headers={"Location": "/livez"})\n',
)
CHECKED_HOST = changed(
    "service/web/probes.py",
    '    """Answer that the process lives."""\n',
    '    """Answer that the process lives."""\n    from flask import request\n'
    '    if not request.host.startswith("anyport"):\n        return Response(status=400)\n',
)
THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
PRIVATE = "-----BEGIN RSA " + "PRIVATE KEY-----"
NGINX = ".platform/nginx/conf.d/anyport.conf"
EB = ".ebextensions/anyport.config"
HOPS = 'os.environ.setdefault("ANYPORT_CLIENT_HOPS", "1")'
STEP = platforms()["render"].build.step
MAIN = 'if __name__ == "__main__":\n    application.run()\n\n__all__'
FAULTS = [
    # bound to 127.0.0.1 or a fixed port; an injected GUNICORN_CMD_ARGS
    fault("port in Procfile", "heroku", with_option("--bind 0.0.0.0:8000"), "fixed-port"),
    fault("port in Procfile", "beanstalk", with_option("-b 0.0.0.0:8000"), "fixed-port"),
    fault("loopback in Procfile", "heroku", with_option("--bind 127.0.0.1:$PORT"), "wrong-address"),
    fault(
        "loopback after the app",
        "heroku",
        start("gunicorn service.wsgi:app -c gunicorn.conf.py --bind 127.0.0.1:$PORT"),
        "wrong-address",
    ),
    fault(
        "loopback in gunicorn.conf.py",
        "heroku",
        changed("gunicorn.conf.py", "bind = settings.bind", 'bind = f"127.0.0.1:{settings.port}"'),
        "wrong-address",
    ),
    fault(
        "Heroku's usual port in gunicorn.conf.py",
        "heroku",
        changed("gunicorn.conf.py", "bind = settings.bind", 'bind = "0.0.0.0:5000"'),
        "wrong-address",
    ),
    fault("no --bind", "render", changed("render.yaml", " --bind 0.0.0.0:$PORT", ""), "wrong-address"),
    # wrong module path or callable; a start line that cannot be read
    fault("main:app", "appengine", changed("app.yaml", "service.wsgi:app", "main:app"), "app-not-importable"),
    fault("no such callable", "heroku", start(START.replace(":app", ":server")), "app-not-importable"),
    fault("module without a name", "heroku", start("gunicorn -c gunicorn.conf.py main"), "app-not-importable"),
    fault("module not committed", "heroku", forgotten("service/logs.py"), "app-not-importable"),
    fault("module left out", "heroku", changed(".slugignore", "/bench\n", "/service/web\n"), "app-not-importable"),
    fault("module ends", "heroku", added("service/wsgi.py", "raise SystemExit(0)\n"), "app-not-importable"),
    fault("no app", "heroku", start("gunicorn -c gunicorn.conf.py"), "gunicorn-refuses"),
    fault("another program", "heroku", start("python main.py"), "bad-start-line"),
    fault("no Procfile", "heroku", removed("Procfile"), "unreadable-start"),
    fault("startup.txt empty", "azure", added("startup.txt", ""), "unreadable-start"),
    fault("app.yaml broken", "appengine", changed("app.yaml", "runtime:", "{runtime:"), "unreadable-start"),
    fault("key twice", "render", changed("render.yaml", "    plan:", "    name: two\n    plan:"), "unreadable-start"),
    fault("quote left open", "heroku", start(f'{START} --name "anyport'), "bad-start-line"),
    fault("gunicorn.conf.py not committed", "heroku", forgotten("gunicorn.conf.py"), "config-not-uploaded"),
    fault(
        "wrong app without gunicorn.conf.py",
        "heroku",
        together(forgotten("gunicorn.conf.py"), start("gunicorn main:nothing")),
        "app-not-importable",
    ),
    fault("unknown option", "heroku", with_option("--wrokers 2"), "gunicorn-refuses"),
    fault("gunicorn.conf.py raises", "heroku", changed("gunicorn.conf.py", "bind =", "bind = 1 /"), "gunicorn-refuses"),
    # memory
    fault(
        "model of 2 GiB",
        "heroku",
        manifest(lambda document: document["cost"].update(model_mib=2048.0, process_mib=2200.0)),
        "too-little-memory",
    ),
    # wrong client address
    fault(
        "one instance, two hops",
        "beanstalk",
        changed(
            EB,
            "option_settings:",
            "option_settings:\n  aws:elasticbeanstalk:environment:\n    EnvironmentType: SingleInstance",
        ),
        "proxy-trust",
    ),
    # heartbeat on a slow disk; resources opened before a fork
    fault(
        "heartbeat under HOME",
        "azure",
        changed("gunicorn.conf.py", "worker_tmp_dir =", 'worker_tmp_dir = "/var/tmp" or'),
        "heartbeat-folder",
    ),
    fault(
        "socket opened at import",
        "heroku",
        changed("service/wsgi.py", "settings = read", "import socket\n\nkept = socket.socket()\nsettings = read"),
        "open-before-fork",
    ),
    fault(
        "forty workers on the line",
        "render",
        changed("render.yaml", "gunicorn -c", "gunicorn -w 40 -c"),
        "too-little-memory",
    ),
    fault(
        "forty workers in gunicorn.conf.py",
        "heroku",
        changed("gunicorn.conf.py", "workers = settings", "workers = 40 or settings"),
        "too-little-memory",
    ),
    fault("forty workers", "beanstalk", eb_env("WEB_CONCURRENCY", "40"), "too-little-memory"),
    fault(
        "no such class", "appengine", changed("app.yaml", "instance_class: F2", "instance_class: X9"), "unknown-size"
    ),
    fault("no such plan", "render", changed("render.yaml", "plan: starter", "plan: huge"), "unknown-size"),
    # threads
    fault(
        "threads oversubscribed",
        "heroku",
        changed("service/__init__.py", "    limit_compute_threads()", "    # limit_compute_threads()"),
        "compute-threads",
    ),
    fault(
        "thread at import",
        "pythonanywhere",
        changed("service/wsgi.py", "settings = read_settings()\n", f"{THREAD}settings = read_settings()\n"),
        "background-threads",
    ),
    # what the service itself refuses when it starts
    fault(
        "control socket",
        "heroku",
        changed("gunicorn.conf.py", "control_socket_disable = True", "control_socket_disable = False"),
        "gunicorn-refuses",
    ),
    fault("another worker", "heroku", with_option("-k gthread"), "gunicorn-refuses"),
    # requests longer than the edge waits, bodies larger than it takes
    fault("slow requests", "beanstalk", eb_env("ANYPORT_REQUEST_TIMEOUT_S", "90"), "slow-request"),
    fault(
        "large bodies",
        "pythonanywhere",
        changed("pythonanywhere_wsgi.py", HOPS, f'{HOPS}\nos.environ["ANYPORT_MAX_BODY_BYTES"] = "{200 * 2**20}"'),
        "large-bodies",
    ),
    fault("nginx's own body limit", "beanstalk", removed(NGINX), "nginx-body-limit"),
    fault("nginx's limit too low", "beanstalk", changed(NGINX, "5m", "1m"), "nginx-body-limit"),
    fault(
        "service's limit too high", "beanstalk", eb_env("ANYPORT_MAX_BODY_BYTES", str(8 * 2**20)), "nginx-body-limit"
    ),
    # a stop that loses requests
    fault("grace not told", "appengine", changed("app.yaml", "ANYPORT_STOP_GRACE_S", "SOMETHING"), "slow-stop"),
    fault("grace too long", "beanstalk", eb_env("ANYPORT_STOP_GRACE_S", "120"), "slow-stop"),
    fault(
        "killed sooner",
        "render",
        changed("render.yaml", "maxShutdownDelaySeconds: 30", "maxShutdownDelaySeconds: 5"),
        "slow-stop",
    ),
    # the client's address
    fault("too many hops", "beanstalk", eb_env("ANYPORT_CLIENT_HOPS", "3"), "proxy-trust"),
    fault(
        "too many hops",
        "pythonanywhere",
        changed("pythonanywhere_wsgi.py", HOPS, HOPS.replace('"1"', '"2"')),
        "proxy-trust",
    ),
    fault(
        "hops assigned",
        "pythonanywhere",
        changed("pythonanywhere_wsgi.py", HOPS, 'os.environ["ANYPORT_CLIENT_HOPS"] = "2"'),
        "proxy-trust",
    ),
    fault("hops no number", "beanstalk", eb_env("ANYPORT_CLIENT_HOPS", "two"), "app-not-importable"),
    fault("limit no number", "beanstalk", eb_env("ANYPORT_MAX_BODY_BYTES", "4 MB"), "app-not-importable"),
    # health
    fault("health redirects", "beanstalk", REDIRECT, "health-path"),
    fault("health checks Host", "beanstalk", CHECKED_HOST, "health-path"),
    fault("no health path", "beanstalk", changed("service/web/probes.py", '@bp.get("/healthz")\n', ""), "health-path"),
    fault("health path unknown", "beanstalk", changed(EB, "Path: /healthz", "Path: /status"), "health-path"),
    fault("health path unknown", "render", changed("render.yaml", "/readyz", "/status"), "health-path"),
    # Azure's startup file and guess, and what its client leaves out
    fault("comment first", "azure", added("startup.txt", f"# start\nexec {START}\n"), "startup-file"),
    fault("second line", "azure", added("startup.txt", f"exec {START}\necho started\n"), "startup-file"),
    fault("Windows line ends", "azure", added("startup.txt", f"exec {START}\r\n"), "startup-file"),
    fault("no exec", "azure", added("startup.txt", f"{START}\n"), "startup-file"),
    fault("single quote", "azure", added("startup.txt", f"exec {START} --name 'a'\n"), "startup-file"),
    fault("no application", "azure", changed("service/wsgi.py", "app = application", "app"), "no-application"),
    fault("folder named environments", "azure", added("environments/eu.yaml"), "env-folder"),
    # secrets
    fault(
        ".env with nothing ignored",
        "appengine",
        together(
            changed(".gcloudignore", "#!include:.gitignore\n", ""),
            changed(".gcloudignore", ".env*\n", ""),
            left(".env", "KEY=1\n"),
        ),
        "secret-uploaded",
    ),
    fault(".env.production", "azure", left(".env.production", "KEY=1\n"), "secret-uploaded"),
    fault(".env with .ebignore", "beanstalk", together(left(".ebignore", ".git/\n"), left(".env")), "secret-uploaded"),
    fault(".env committed", "heroku", added("deploy/.env", "KEY=1\n"), "secret-uploaded"),
    fault("private key", "pythonanywhere", added("certificates/server.key"), "secret-uploaded"),
    fault("service account", "appengine", left("service-account-42.json", "{}"), "secret-uploaded"),
    fault("value under its name", "appengine", app_env("SIGNING_SECRET", "abc"), "secret-in-file"),
    fault(
        "value that looks so",
        "render",
        render_env("UPSTREAM", "wJalrXUtnFEMI/K7MDENGbPxRfiCYEXAMPLEKEY"),
        "secret-in-file",
    ),
    fault("key in hexadecimal", "render", render_env("UPSTREAM", "9f86d081884c7d659a2feaa0c55ad015"), "secret-in-file"),
    fault("AWS key in a note", "azure", added("notes.md", f"AKIA{'ABCDEFGH' * 2}\n"), "secret-in-file"),
    fault("private key in a module", "heroku", added("service/own.py", f'KEY = """{PRIVATE}"""\n'), "secret-in-file"),
    fault("value in .ebextensions", "beanstalk", eb_env("PARTNER_API_KEY", "abc"), "secret-in-file"),
    # package managers and versions of Python
    fault("uv.lock", "heroku", added("uv.lock"), "two-package-managers"),
    fault("Pipfile", "heroku", added("Pipfile"), "two-package-managers"),
    fault("committed .venv", "heroku", added(".venv/pyvenv.cfg"), "committed-environment"),
    fault("comment in .python-version", "heroku", added(".python-version", "# ours\n3.12\n"), "python-version-file"),
    fault("prefix in .python-version", "heroku", added(".python-version", "PYTHON:3.12\n"), "python-version-file"),
    fault("no dot in .python-version", "heroku", added(".python-version", "312\n"), "python-version-file"),
    fault("no .python-version", "heroku", removed(".python-version"), "python-version-file"),
    fault("runtime.txt", "heroku", added("runtime.txt", "python-3.11.9\n"), "python-disagrees"),
    fault("Python too new", "beanstalk", added(".python-version", "3.15\n"), "python-not-offered"),
    fault("python313", "appengine", changed("app.yaml", "python312", "python313"), "python-disagrees"),
    fault("python999", "appengine", changed("app.yaml", "python312", "python999"), "app-yaml"),
    fault("Python 3.11", "render", changed("render.yaml", "3.12.12", "3.11.9"), "python-disagrees"),
    fault("Python not in full", "render", changed("render.yaml", '"3.12.12"', '"3.12"'), "python-version-value"),
    # libraries
    fault("gunicorn missing", "appengine", without_pin("gunicorn"), "no-gunicorn"),
    fault("gunicorn missing", "azure", without_pin("gunicorn"), "no-gunicorn"),
    fault("gunicorn missing", "beanstalk", without_pin("gunicorn"), "no-gunicorn"),
    fault("gunicorn missing", "heroku", without_pin("gunicorn"), "no-gunicorn"),
    fault("no requirements.txt", "heroku", removed("requirements.txt"), "no-requirements"),
    fault("loose pin", "heroku", changed("requirements.txt", "\nflask==", "\nflask>="), "unpinned-requirement"),
    fault(
        "marker for a pin",
        "heroku",
        changed("requirements.txt", "\nflask==", "\nwaitress ; sys_platform == 'win32'\nflask=="),
        "unpinned-requirement",
    ),
    # sizes
    # Procfile
    fault("comment", "heroku", added("Procfile", f"# start\nweb: {START}\n"), "procfile-line"),
    fault("blank line", "beanstalk", added("Procfile", f"web: {START}\n\n"), "procfile-line"),
    fault("Windows line ends", "heroku", added("Procfile", f"web: {START}\r\n"), "procfile-line"),
    fault("web: twice", "heroku", added("Procfile", f"web: {START}\nweb: {START}\n"), "procfile-line"),
    fault("release:", "beanstalk", added("Procfile", f"web: {START}\nrelease: date\n"), "procfile-process"),
    fault("dash in a name", "heroku", added("Procfile", f"web: {START}\nweb-two: date\n"), "procfile-process"),
    # Elastic Beanstalk
    fault("hook", "beanstalk", added(".platform/hooks/predeploy/01.sh", "#!/bin/sh\n"), "hook-not-executable"),
    fault(
        "hook of settings",
        "beanstalk",
        added(".platform/confighooks/prebuild/01.sh", "#!/bin/sh\n"),
        "hook-not-executable",
    ),
    fault("Dockerfile", "beanstalk", added("Dockerfile", "FROM scratch\n"), "dockerfile"),
    fault(
        "in-place deployment",
        "beanstalk",
        changed(EB, "DeploymentPolicy: RollingWithAdditionalBatch", "DeploymentPolicy: AllAtOnce"),
        "in-place-deployment",
    ),
    fault(
        "masked", "beanstalk", eb_option("autoscaling:launchconfiguration", "InstanceType", "t3.small"), "masked-option"
    ),
    fault(
        "typo in an option",
        "beanstalk",
        eb_option("elasticbeanstalk:command", "DeployPolicy", "Rolling"),
        "unknown-option",
    ),
    fault("typo in a namespace", "beanstalk", eb_option("elasticbeanstalk:comand", "Timeout", "60"), "unknown-option"),
    fault(
        "WSGIPath",
        "beanstalk",
        eb_option("elasticbeanstalk:container:python", "WSGIPath", "service/wsgi.py"),
        "wsgi-path",
    ),
    fault("broken", "beanstalk", added(".ebextensions/more.config", "option_settings: [\n"), "ebextensions"),
    fault("typo in a key", "beanstalk", added(".ebextensions/more.config", "option_setings: {}\n"), "ebextensions"),
    # App Engine and Render
    fault("unknown key", "appengine", changed("app.yaml", "runtime:", "skip_files: []\nruntime:"), "app-yaml"),
    fault("inbound service", "appengine", changed("app.yaml", "  - warmup", "  - warm_up"), "app-yaml"),
    fault(
        "two scalings",
        "appengine",
        changed("app.yaml", "handlers:", "manual_scaling:\n  instances: 1\n\nhandlers:"),
        "app-yaml",
    ),
    fault("no limit of cost", "appengine", changed("app.yaml", "  max_instances: 4\n", ""), "no-cost-limit"),
    fault(
        "variables as a list",
        "appengine",
        changed("app.yaml", '  ANYPORT_STOP_GRACE_S: "3"', "  - A: b"),
        "unreadable-start",
    ),
    fault(
        "unknown key", "render", changed("render.yaml", "    plan:", "    startcommand: x\n    plan:"), "render-yaml"
    ),
    fault(
        "unknown key on top", "render", changed("render.yaml", "services:", "databasses: []\nservices:"), "render-yaml"
    ),
    fault("number for text", "render", changed("render.yaml", 'value: "1"', "value: 1"), "render-yaml"),
    # PythonAnywhere
    fault("own server", "pythonanywhere", changed("pythonanywhere_wsgi.py", "__all__", MAIN), "own-server"),
    # models
    fault("not committed", "heroku", second_version("penguins/2"), "model-not-uploaded"),
    fault("not committed", "render", second_version("penguins/2"), "model-not-uploaded"),
    fault("left out", "appengine", changed(".gcloudignore", "tests/\n", "tests/\nmodels/\n"), "model-not-uploaded"),
    fault("none", "heroku", removed("models"), "no-model"),
    fault("damaged", "heroku", damaged, "model-damaged"),
    fault("damaged", "appengine", damaged, "model-damaged"),
    fault("another scikit-learn", "beanstalk", original(NEW_VERSION), "library-differs"),
    fault("another scikit-learn", "render", original(NEW_VERSION), "library-differs"),
    fault("another scikit-learn pinned", "heroku", original(OLD_PIN), "library-differs"),
    fault("scikit-learn missing", "azure", original(without_pin("scikit-learn")), "library-differs"),
    fault("joblib missing", "azure", original(without_pin("joblib")), "library-differs"),
]


@pytest.mark.parametrize(("name", "plant", "expected"), FAULTS)
def test_planted_fault_gives_its_finding_and_no_other_error(tree: Path, name: str, plant: Plant, expected: str) -> None:
    """Each fault gives its finding, and no other error; each finding says what, why, how to mend it and says who."""
    plant(tree)
    found = look(tree, name)
    assert ids(found) == {expected}
    for finding in found:
        assert all((finding.what, finding.why, finding.fix, finding.source))


def test_there_are_rows_enough() -> None:
    """At least 25 faults are planted, and none twice."""
    assert len({row.id for row in FAULTS}) == len(FAULTS) >= 25


# Faults that are not in the files


@pytest.mark.parametrize(("name", "seconds"), [("heroku", 60.0), ("pythonanywhere", 20.0), ("azure", 230.0)])
def test_model_that_loads_as_long_as_the_limit(origin: Path, name: str, seconds: float) -> None:
    """A model that took the platform's whole start limit to load is an error there; half of it is none."""
    assert ids(look(origin, name, penguins_1=seconds)) == {f"{name}.slow-start"}
    assert look(origin, name, penguins_1=seconds / 2) == []


def test_facts_that_nobody_checked_for_long(origin: Path) -> None:
    """Each group of facts that is older than 180 days is a warning, and no error."""
    found = preflight(platforms()["heroku"], Ground(origin, date(2028, 1, 1), {}))
    assert {(finding.id, finding.level) for finding in found} == {("heroku.stale-facts", "warning")}
    assert len(found) == len(list(platforms()["heroku"].groups()))


def test_uncommitted_change_is_a_warning(tree: Path) -> None:
    """What differs from the last commit is a warning where commits are taken, and nothing where the tree is."""
    put(tree / "README.md")
    assert {finding.id: finding.level for finding in look(tree, "render")} == {"render.uncommitted-changes": "warning"}
    assert look(tree, "appengine") == []


def test_other_health_path_is_fine(tree: Path) -> None:
    """A health path that answers 200 may be any."""
    changed(EB, "HealthCheckPath: /healthz", "HealthCheckPath: /livez")(tree)
    assert look(tree, "beanstalk") == []


@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(OLD_PIN, id="compiled: another scikit-learn"),
        pytest.param(without_pin("scikit-learn"), id="compiled: no scikit-learn"),
        pytest.param(original(changed("requirements.txt", "\nnumpy==2.", "\nnumpy==2.0.")), id="numpy of one major"),
    ],
)
def test_libraries_that_the_store_would_take_are_fine(tree: Path, plant: Plant) -> None:
    """A model is held to the versions that the store holds it to, and a compiled form to none of its original's."""
    plant(tree)
    assert look(tree, "heroku") == []


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        pytest.param("heroku", removed("bin/post_compile"), id="no hook"),
        pytest.param("heroku", changed("bin/post_compile", "checked-hash ", "timestamp "), id="by dates"),
        pytest.param("render", changed("render.yaml", f" &&\n      {STEP}", ""), id="only installed"),
    ],
)
def test_start_that_compiles_is_a_warning(tree: Path, name: str, plant: Plant) -> None:
    """Where the build does not compile the service and each start must, that is a warning."""
    plant(tree)
    [finding] = look(tree, name)
    assert (finding.id, finding.level) == (f"{name}.not-compiled", "warning")
    assert platforms()[name].build.place in finding.fix


def test_limit_of_some_is_a_warning(tree: Path) -> None:
    """A file of 200 MB, which only a free account has no room for, is no error; whose limit it is is said."""
    large(tree)
    (finding,) = look(tree, "pythonanywhere")
    assert (finding.level, "a free account" in finding.what) == ("warning", True)


def test_errors_come_before_warnings(tree: Path) -> None:
    """Errors are listed first, whatever found them."""
    put(tree / "README.md")
    second_version("penguins/2")(tree)
    assert [finding.level for finding in look(tree, "heroku")] == ["error", "warning"]


@pytest.mark.parametrize(
    ("name", "field", "limit", "expected"),
    [
        ("beanstalk", "upload_limit_mib", 0.1, "upload-too-large"),
        ("heroku", "slug_limit_mib", 1.0, "slug-too-large"),
        ("pythonanywhere", "unpacked_limit_mib", 1.0, "unpacked-too-large"),
        ("appengine", "files_limit", 10, "too-many-files"),
    ],
)
def test_upload_over_a_limit(origin: Path, name: str, field: str, limit: float, expected: str) -> None:
    """An upload beyond what the facts allow is an error that names the limit."""
    platform = platforms()[name]
    narrow = platform.model_copy(update={"upload": platform.upload.model_copy(update={field: limit})})
    (finding,) = preflight(narrow, ground(origin))
    assert finding.id == f"{name}.{expected}"
    assert f"{limit:.0f}" in finding.what


def test_defaults_are_the_services_own(origin: Path) -> None:
    """Where nothing is set, preflight goes by the service's own deadline and body limit."""
    heroku, settings = platforms()["heroku"], Settings()

    def found(request_s: float, body_bytes: float) -> set[str]:
        limits = heroku.limits.model_copy(update={"request_s": request_s, "body_mib": body_bytes / 2**20})
        return ids(preflight(heroku.model_copy(update={"limits": limits}), ground(origin)))

    assert found(settings.request_timeout_s + 1, settings.max_body_bytes) == set()
    assert found(settings.request_timeout_s, settings.max_body_bytes - 1) == {
        "heroku.slow-request",
        "heroku.large-bodies",
    }


def test_smallest_size_that_fits_is_named(tree: Path) -> None:
    """Where memory is too little, the fix names the smallest size that is large enough."""
    manifest(lambda document: document["cost"].update(model_mib=800.0, process_mib=960.0))(tree)
    (finding,) = look(tree, "heroku")
    assert "performance-m:" in finding.fix and "heroku ps:type" in finding.fix


def test_way_out_of_an_uploaded_secret(tree: Path) -> None:
    """The fix names a file of patterns that the platform reads; where it reads none, the file must leave the tree."""
    put(tree / ".env.production")
    (finding,) = look(tree, "azure")
    assert finding.id == "azure.secret-uploaded"
    assert "ignore" not in finding.fix


def test_service_is_told_the_memory_of_the_size_that_was_chosen(tree: Path) -> None:
    """The environment that the service is asked under is that of the size in app.yaml, not of the usual one."""
    changed("app.yaml", "instance_class: F2", "instance_class: F4")(tree)
    upload = gather(platforms()["appengine"], tree)
    assert Candidate(ground(tree), upload, tree).environment()["GAE_MEMORY_MB"] == "1536"


STRANGE = [
    ("appengine", changed("app.yaml", "runtime:", "1: x\nfoo: y\nruntime:")),
    ("appengine", changed("app.yaml", "inbound_services:\n  - warmup", "inbound_services: 5")),
    ("appengine", changed("app.yaml", "  - warmup", "  - {warmup: 1}")),
    ("appengine", changed("app.yaml", "  min_instances: 0", "  - min_instances")),
    ("appengine", changed("app.yaml", "instance_class: F2", "instance_class: [F2]")),
    ("appengine", changed("app.yaml", "runtime: python312", "runtime: {python: 312}")),
    ("appengine", added("app.yaml", "a: &a [*a]\n")),
    ("render", changed("render.yaml", "services:", "1: x\nfoo: y\nservices:")),
    ("render", changed("render.yaml", "plan: starter", "plan: [starter]")),
    ("render", changed("render.yaml", "plan: starter", "1: x\n    foo: y")),
    ("render", changed("render.yaml", "healthCheckPath: /readyz", "healthCheckPath: [/readyz]")),
    ("render", changed("render.yaml", "    envVars:\n", "    envVars:\n      - PYTHON_VERSION\n")),
    ("beanstalk", added(".ebextensions/more.config", "1: x\nfoo: y\n")),
    ("beanstalk", changed(EB, "RollingWithAdditionalBatch", "[Rolling]")),
    ("beanstalk", added(".ebextensions/more.config", "option_settings:\n  1: {2: 3}\n")),
    ("beanstalk", added(".ebextensions/more.config", "- option_settings\n")),
    ("heroku", added("models/penguins/1/manifest.json", "[]")),
    ("heroku", added("Procfile", "\x00\n")),
    ("heroku", added(".python-version", "\x00\n")),
    ("heroku", added("requirements.txt", "flask\x00\n")),
]


@pytest.mark.parametrize(("name", "plant"), STRANGE)
def test_strange_documents_are_found(tree: Path, name: str, plant: Plant) -> None:
    """A document that nobody expects so ends no look: it is an error of the tree."""
    plant(tree)
    assert ids(look(tree, name))


@pytest.mark.parametrize("path", ["Procfile", "requirements.txt", ".python-version", ".slugignore"])
def test_bytes_that_are_no_text_end_no_look(tree: Path, path: str) -> None:
    """A file in another encoding is looked at as far as it can be read."""
    (tree / path).write_bytes((tree / path).read_bytes() + b"# \xe4\n")
    commit(tree)
    look(tree, "heroku")


# What is no fault


WORKER = """  - type: worker
    name: nightly
    runtime: python
    buildCommand: pip install -r requirements.txt
    startCommand: python -m service.nightly
  - type: keyvalue
    name: cache
    ipAllowList: []
    maxmemoryPolicy: noeviction
"""


def basic_scaling(tree: Path) -> None:
    """Commit an app.yaml that scales in the other way."""
    text = (tree / "app.yaml").read_text().replace("instance_class: F2", "instance_class: B2")
    before, _, after = text.partition("automatic_scaling:")
    put(
        tree / "app.yaml", f"{before}basic_scaling:\n  max_instances: 4\n{after[after.index('inbound_services') - 1 :]}"
    )
    commit(tree)


def harmless(name: str, platform: str, plant: Plant) -> Any:
    """One row: a name, a platform, and what does it no harm."""
    return pytest.param(platform, plant, id=f"{platform}: {name}")


HARMLESS = [
    harmless("options after the app", "heroku", start("gunicorn service.wsgi:app -c gunicorn.conf.py")),
    harmless("Python in full", "heroku", added(".python-version", "3.12.12\n")),
    harmless("example of .env", "heroku", added(".env.example", "KEY=\n")),
    harmless("comments and markers", "heroku", changed("requirements.txt", "\nflask==", " \n# web\nflask==")),
    harmless("no limit at all in nginx", "beanstalk", changed(NGINX, "5m", "0")),
    harmless("nginx's files of others", "beanstalk", added("docs/nginx.conf", "client_max_body_size 1k;\n")),
    harmless("only commands", "beanstalk", added(".ebextensions/more.config", "container_commands: {}\n")),
    harmless("limit of tokens", "render", render_env("TOKEN_LIMIT", "100")),
    harmless("long name", "render", render_env("UPSTREAM", "anyport-production-eu-west-1")),
    harmless("long path", "appengine", app_env("DATA_DIR", "/workspace/models-production")),
    harmless("other services", "render", changed("render.yaml", "services:\n", f"services:\n{WORKER}")),
    harmless("Basic scaling", "appengine", basic_scaling),
    harmless("Dockerfile in a folder", "beanstalk", added("docker/Dockerfile", "FROM scratch\n")),
    harmless("executable hook", "beanstalk", added(".platform/hooks/predeploy/01.sh", "#!/bin/sh\n", 0o755)),
]


@pytest.mark.parametrize(("name", "plant"), HARMLESS)
def test_what_does_no_harm_is_not_found(tree: Path, name: str, plant: Plant) -> None:
    """What the platform takes as it should is no finding."""
    plant(tree)
    assert look(tree, name) == []


def test_configuration_of_others_may_be_in_any_encoding(tree: Path) -> None:
    """A file that is no text in UTF-8 ends no look."""
    (tree / "docs").mkdir()
    (tree / "docs" / "latin.conf").write_bytes(b"# \xe4\n")
    commit(tree)
    assert look(tree, "beanstalk") == []


# Trees without what preflight leans on


@pytest.mark.parametrize("name", TAKE_COMMITS)
@pytest.mark.parametrize("git_folder", ["none", "without a commit"])
def test_tree_without_commits_has_no_upload(tree: Path, name: str, git_folder: str) -> None:
    """A platform that takes commits receives nothing of a tree that has none, and nothing more is said."""
    (tree / ".git").rename(tree.parent / "git")
    if git_folder != "none":
        git(tree, "init", "--quiet")
    (finding,) = look(tree, name)
    assert (finding.id, finding.level) == (f"{name}.no-upload", "error")
    assert "git commit" in finding.fix


@pytest.mark.parametrize("name", [name for name in EVERY if name not in TAKE_COMMITS])
def test_tree_without_git_is_fine_where_the_tree_is_taken(tree: Path, name: str) -> None:
    """A platform that takes the working tree wants no git."""
    (tree / ".git").rename(tree.parent / "git")
    assert look(tree, name) == []


def test_import_that_never_ends(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module whose import never ends is found as one that cannot be imported, and ends no look."""
    monkeypatch.setattr(findings, "PROBE_S", 2)
    added("service/wsgi.py", "import time\ntime.sleep(600)\n")(tree)
    assert ids(look(tree, "heroku")) == {"heroku.app-not-importable"}


# Mends


MENDED = [
    harmless("comment", "heroku", added("Procfile", f"# start\nweb: {START}\n")),
    harmless("blank line", "beanstalk", added("Procfile", f"web: {START}\n\n")),
    harmless("release:", "beanstalk", added("Procfile", f"release: date\nweb: {START}\n")),
    harmless("all of these", "heroku", added("Procfile", f"# start\r\nweb: {START}\r\n\r\nworker: date\r\n")),
    harmless("comment first", "azure", added("startup.txt", f"# start\nexec {START}\n")),
    harmless("no exec", "azure", added("startup.txt", f"{START}\n")),
    harmless("comment first and no exec", "azure", added("startup.txt", f"# start\n{START}\n")),
    harmless("two lines with a quote", "azure", added("startup.txt", f"exec {START} --name 'a'\n\n")),
    harmless("single quote", "azure", added("startup.txt", f"exec {START} --name 'a'\n")),
    harmless("Windows line ends", "azure", added("startup.txt", f"exec {START}\r\n")),
    harmless("hook", "beanstalk", added(".platform/hooks/prebuild/01.sh", "#!/bin/sh\n")),
]


@pytest.mark.parametrize(("name", "plant"), MENDED)
def test_a_mend_ends_its_finding(tree: Path, name: str, plant: Plant) -> None:
    """Once every mend is applied and committed, nothing is left to find."""
    plant(tree)
    found = look(tree, name)
    assert found and all(finding.mend for finding in found)
    for finding in found:
        assert finding.mend
        finding.mend.apply(tree)
    commit(tree)
    assert look(tree, name) == []


def test_a_mend_leaves_what_was_edited_since(tree: Path) -> None:
    """A file whose text is no longer the one that was looked at is left alone."""
    added("Procfile", f"# start\nweb: {START}\n")(tree)
    [finding] = look(tree, "heroku")
    put(tree / "Procfile", f"web: {START} --log-level debug\n")
    assert finding.mend and not finding.mend.apply(tree)
    assert (tree / "Procfile").read_text() == f"web: {START} --log-level debug\n"


# The package index


@pytest.mark.slow
def test_every_pinned_library_has_a_wheel(origin: Path) -> None:
    """The index has a wheel for each pinned library, for the platforms' Python and machines."""
    assert look(origin, "heroku", wheels=True) == []


@pytest.mark.slow
def test_library_without_a_wheel(tree: Path) -> None:
    """A pin that the index has no wheel of is an error, and only where the index is asked."""
    changed("requirements.txt", "\nflask==3", "\nflask==0")(tree)
    assert look(tree, "heroku") == []
    assert ids(look(tree, "heroku", wheels=True)) == {"heroku.no-wheel"}


def test_wheels_of_an_unreadable_python(tree: Path) -> None:
    """Where .python-version cannot be read, that is the finding, and the index is not asked."""
    added(".python-version", "# ours\n3.12\n")(tree)
    assert ids(look(tree, "heroku", wheels=True)) == {"heroku.python-version-file"}


# The command


@pytest.mark.slow
def test_preflight_as_its_user_calls_it(origin: Path) -> None:
    """In a clean tree the command says so, and ends with status 0."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLASK_")}
    done = subprocess.run(
        [sys.executable, "-m", "flask", "preflight", "pythonanywhere"],
        cwd=origin,
        env=kept | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "PythonAnywhere: no errors, no warnings\n", "")


Command = Callable[..., Result]


@pytest.fixture
def flask_preflight(tree: Path, make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `flask preflight` on the tree. What its models take to load is not measured."""
    monkeypatch.setattr(commands, "ROOT", tree)
    monkeypatch.setattr(commands, "survey_ground", lambda root, *rest: ground(root))
    runner = make_app().test_cli_runner()
    return lambda *arguments: runner.invoke(args=["preflight", *arguments], catch_exceptions=False)


def test_preflight_tells_what_why_and_how(flask_preflight: Command, tree: Path) -> None:
    """Each finding is told with its level, its id, why it matters, how to mend it and who says so; the status is 1."""
    added("Pipfile")(tree)
    done = flask_preflight("heroku")
    (finding,) = look(tree, "heroku")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        f"error: heroku.two-package-managers: {finding.what}",
        f"  why: {finding.why}",
        f"  fix: {finding.fix}",
        f"  source: {finding.source}",
        "Heroku: 1 error, no warnings",
    ]


def test_preflight_prints_json(flask_preflight: Command, tree: Path) -> None:
    """With --json the findings come as a list of objects; status 1 says that there is an error."""
    added("Pipfile")(tree)
    put(tree / "README.md")
    done = flask_preflight("heroku", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, done.stderr) == (1, "")
    assert [(finding["id"], finding["level"]) for finding in found] == [
        ("heroku.two-package-managers", "error"),
        ("heroku.uncommitted-changes", "warning"),
    ]
    assert all(
        finding.keys() == {"id", "level", "what", "why", "fix", "source", "mended"} and not finding["mended"]
        for finding in found
    )


def test_warnings_end_with_status_0(flask_preflight: Command, tree: Path) -> None:
    """What is only worth a look does not make the command fail."""
    put(tree / "README.md")
    done = flask_preflight("heroku")
    assert done.exit_code == 0
    assert done.stdout.endswith("Heroku: no errors, 1 warning\n")


def test_preflight_of_all(flask_preflight: Command, tree: Path) -> None:
    """`all` looks at every platform, and each is told at the end."""
    done = flask_preflight("all")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [f"{platforms()[name].title}: no errors, no warnings" for name in EVERY]


def test_preflight_mends_and_says_so(flask_preflight: Command, tree: Path) -> None:
    """--fix mends what is mechanical, says what it mended, and leaves nothing for the next look."""
    put(tree / "startup.txt", f"# start\nexec {START}\n")
    done = flask_preflight("azure", "--fix")
    assert done.exit_code == 0
    assert "azure.startup-file" in done.stdout and "mended; look at it and commit it" in done.stdout
    assert (tree / "startup.txt").read_text() == f"exec {START}\n"
    assert flask_preflight("azure").stdout == "Azure App Service: no errors, no warnings\n"


def test_preflight_leaves_the_rest_to_its_user(flask_preflight: Command, tree: Path) -> None:
    """--fix does not touch what is not mechanical, and its error still counts."""
    added("Pipfile")(tree)
    assert flask_preflight("heroku", "--fix").exit_code == 1
    assert (tree / "Pipfile").exists()


def test_preflight_of_an_unknown_platform(flask_preflight: Command) -> None:
    """A name that is no platform is refused with the nearest one."""
    done = flask_preflight("herku")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "did you mean heroku?" in done.stderr


def test_preflight_of_an_unknown_platform_as_json(flask_preflight: Command) -> None:
    """With --json a refusal is an object with its code."""
    done = flask_preflight("herku", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["code"] == PlatformError.code
