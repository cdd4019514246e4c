"""Checks of the service as it would be started from the upload: start line, settings, probes. They run Python."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from string import Template
from typing import Any

from service.errors import PlatformError
from service.platforms.findings import Candidate, Finding, number
from service.platforms.upload import MIB

STOP_MARGIN_S = 1
NOT_READY = 503
ASK = """
import glob, importlib, json, logging, sys, threading
from os import environ, readlink
module, name, *paths = sys.argv[1:]
app = getattr(importlib.import_module(module), name)
running = threading.active_count() - 1
def target(link):
    try:
        return readlink(link)
    except OSError:
        return ""  # the folder itself, which was open while it was listed
sockets = sum(target(link).startswith("socket:") for link in glob.glob("/proc/self/fd/*"))
client = app.test_client()
asked = {path: client.get(path, headers={"Host": "10.0.0.1"}).status_code for path in paths}
compute = environ.get("OMP_NUM_THREADS")
logging.shutdown()  # its lines go to standard output too, and the document is to be the last
print(json.dumps({"statuses": asked, "compute": compute, "running": running, "sockets": sockets}))
"""
"""Imports the app as the start line does, and asks it what the platform will ask."""
CONFIGURE = """
import json, sys
import gunicorn
from gunicorn.app.wsgiapp import WSGIApplication
sys.argv[0] = "gunicorn"
app = WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]")
refusal = ""
try:
    from service.gunicorn_check import check_gunicorn
    check_gunicorn(app.cfg, gunicorn.__version__)
except Exception as error:
    refusal = str(error)
bind = app.cfg.settings["bind"].get()
found = {name: getattr(app.cfg, name) for name in ("graceful_timeout", "workers", "worker_tmp_dir")}
print(json.dumps({"app": app.app_uri, "bind": bind, "refusal": refusal} | found))
"""
"""Has gunicorn read its start line and its file, and the service's own check look at what comes out."""


def line_readable(candidate: Candidate) -> Iterator[Finding]:
    """The file that says how to start is there, and says it."""
    try:
        assert candidate.declared
    except PlatformError as error:
        yield candidate.error(
            "unreadable-start",
            error.detail,
            "the platform does not know what to run",
            f"mend {candidate.platform.start.file}",
            candidate.platform.start.source,
        )


def start_line(candidate: Candidate) -> Iterator[Finding]:
    """The start line can be read, and names a configuration that is in the upload."""
    if not runs_gunicorn(candidate):
        return
    source = candidate.platform.start.source
    try:
        words = shlex.split(candidate.declared.line)
    except ValueError as error:
        line = candidate.declared.line
        yield candidate.error(
            "bad-start-line", f"{line!r}: {error}", "a shell cannot read it", "mend the quotes", source
        )
        return
    if "gunicorn" not in words and not candidate.declared.line.lstrip().startswith("#"):
        yield candidate.error(
            "bad-start-line",
            f"{candidate.declared.line!r} runs no gunicorn",
            "another server has none of the promises that the worker makes",
            "write gunicorn -c gunicorn.conf.py service.wsgi:app",
            source,
        )
        return
    for option, value in zip(words, words[1:], strict=False):
        if option in ("-c", "--config") and candidate.upload.text(value) is None:
            yield candidate.error(
                "config-not-uploaded",
                f"the start line reads {value}, which is not uploaded",
                "gunicorn ends at once",
                f"commit {value}",
                source,
            )


def runs_gunicorn(candidate: Candidate) -> bool:
    """Whether the platform runs a start line of ours, and that can be read."""
    return candidate.readable() and candidate.platform.start.rule != "wsgi-file"


def _words(candidate: Candidate) -> list[str]:
    """The start line's words after `gunicorn`, with what the platform puts into the environment filled in."""
    try:
        words = shlex.split(Template(candidate.declared.line).safe_substitute(candidate.environment()))
    except ValueError:
        return []  # `start_line` says so
    return words[words.index("gunicorn") + 1 :] if "gunicorn" in words else []


def configured(candidate: Candidate) -> tuple[dict[str, Any] | None, str]:
    """What gunicorn makes of the start line; or None, and why."""
    if "configured" not in candidate.known:
        candidate.known["configured"] = candidate.ask(CONFIGURE, *_words(candidate))
    found: tuple[dict[str, Any] | None, str] = candidate.known["configured"]
    return found


def app_name(candidate: Candidate) -> tuple[str, str]:
    """Return the module and the name of the app that is started."""
    if candidate.platform.start.rule == "wsgi-file":
        return candidate.declared.line.removesuffix(".py"), "application"
    effective, _ = configured(candidate)
    module, _, name = (effective["app"] if effective else "service.wsgi:app").partition(":")
    return module, name or "application"


def _imported(candidate: Candidate) -> tuple[dict[str, Any] | None, str]:
    """What the app says when it is imported and asked; or None, and why it cannot be."""
    if "imported" not in candidate.known:
        traffic = candidate.platform.traffic
        paths = {"/livez", candidate.declared.health_path or traffic.health_path or "/livez", *traffic.warm_up}
        candidate.known["imported"] = candidate.ask(ASK, *app_name(candidate), *sorted(paths))
    found: tuple[dict[str, Any] | None, str] = candidate.known["imported"]
    return found


def importable(candidate: Candidate) -> Iterator[Finding]:
    """The app can be imported from the upload."""
    if not candidate.readable() or (runs_gunicorn(candidate) and not _words(candidate)):
        return
    told, why = _imported(candidate)
    if told is None:
        module, name = app_name(candidate)
        yield candidate.error(
            "app-not-importable",
            f"{module}:{name} cannot be imported from what is uploaded: {why}",
            "the service ends as soon as it starts",
            "name the app as service.wsgi:app, and commit every module that it needs",
            candidate.platform.start.source,
        )


def answers(candidate: Candidate) -> Iterator[Finding]:
    """What the platform asks by itself is answered; that a model is not ready, other checks say."""
    told, _ = _imported(candidate) if candidate.readable() else (None, "")
    for path, status in (told["statuses"] if told else {}).items():
        waits = path in ("/readyz", *candidate.platform.traffic.warm_up)
        if status >= 300 and not (waits and status == NOT_READY):
            yield candidate.error(
                "health-path",
                f"GET {path} answers {status}",
                f"{candidate.platform.title} takes the service for ill",
                "let it answer 200, without a redirect or a key, for any Host",
                candidate.platform.traffic.source,
            )


def threads(candidate: Candidate) -> Iterator[Finding]:
    """Computing takes one thread in each worker, and where there are no threads none is started."""
    told, _ = _imported(candidate) if candidate.readable() else (None, "")
    if told and told["compute"] != "1":
        yield candidate.error(
            "compute-threads",
            "OMP_NUM_THREADS is not 1 once the app is imported",
            "every worker starts a thread for each processor, and they fight",
            "call limit_compute_threads() before anything imports numpy",
            "scikit-learn.org/stable/computing/parallelism.html",
        )
    if told and told["running"] and not candidate.platform.start.threads:
        yield candidate.error(
            "background-threads",
            f"importing the app starts {told['running']} threads",
            f"{candidate.platform.title} runs no threads in web apps: what they do is never done",
            "do it while a request is answered",
            candidate.platform.start.source,
        )


def open_before_fork(candidate: Candidate) -> Iterator[Finding]:
    """Importing the app opens no connection, which workers that are forked after it would share."""
    told, _ = _imported(candidate) if candidate.readable() else (None, "")
    if told and told["sockets"]:
        yield candidate.error(
            "open-before-fork",
            f"importing the app opens {told['sockets']} sockets",
            "with --preload, which platforms inject, every worker reads from and writes to the same connection",
            "open it when it is first used",
            "docs.gunicorn.org/en/stable/settings.html#preload-app",
        )


def settings(candidate: Candidate) -> Iterator[Finding]:
    """What gunicorn makes of the start line under the platform's environment is what the platform needs."""
    if not runs_gunicorn(candidate) or not _words(candidate) or _imported(candidate)[0] is None:
        return  # another check says so
    if list(start_line(candidate)):
        return
    effective, why = configured(candidate)
    if effective is None or effective["refusal"]:
        yield candidate.error(
            "gunicorn-refuses",
            f"gunicorn refuses the line and gunicorn.conf.py: {effective['refusal'] if effective else why}",
            "the service ends as soon as it starts",
            "take the option back, or mend gunicorn.conf.py",
            "docs.gunicorn.org/en/stable/settings.html",
        )
        return
    yield from _address(candidate, effective["bind"])
    if effective["worker_tmp_dir"] not in (None, "/dev/shm"):
        yield candidate.error(
            "heartbeat-folder",
            f"gunicorn's worker_tmp_dir is {effective['worker_tmp_dir']}",
            "where that is on a disk, a slow moment of the disk gets healthy workers killed",
            "take /dev/shm where it can be written, else leave it to gunicorn",
            "docs.gunicorn.org/en/stable/faq.html",
        )
    yield from _stop(candidate, float(effective["graceful_timeout"]))


def _address(candidate: Candidate, bind: list[str]) -> Iterator[Finding]:
    start, line = candidate.platform.start, candidate.declared.line
    fixed = re.search(r"(?:-b|--bind)[ =](\S+:\d+)", line)
    reachable = r"127\.0\.0\.1|0\.0\.0\.0" if start.front == "nginx" else r"0\.0\.0\.0|\[::\]"
    if fixed:
        yield candidate.error(
            "fixed-port",
            f"the start line binds {fixed[1]}",
            "the platform sends requests to the port that it gives in PORT",
            "take --bind away: gunicorn.conf.py reads PORT",
            start.source,
        )
    elif candidate.port and not any(re.fullmatch(rf"({reachable}):{candidate.port}", address) for address in bind):
        yield candidate.error(
            "wrong-address",
            f"where port {candidate.port} is asked for, the service listens at {', '.join(bind)}",
            "the platform's router does not find it",
            "compute bind from PORT, for all addresses, in gunicorn.conf.py; on Render write --bind 0.0.0.0:$PORT on "
            "the start line, because the GUNICORN_CMD_ARGS that it injects beats that file",
            start.source,
        )


def _stop(candidate: Candidate, graceful_s: float) -> Iterator[Finding]:
    limits = candidate.platform.limits
    stop_s = candidate.declared.stop_s or limits.stop_s
    if stop_s is not None and graceful_s + STOP_MARGIN_S > stop_s:
        yield candidate.error(
            "slow-stop",
            f"gunicorn ends after {graceful_s:.0f} s; {stop_s:.0f} s after SIGTERM it is killed",
            "requests that are being answered are lost with each deployment",
            f"set ANYPORT_STOP_GRACE_S to {stop_s:.0f} there",
            limits.source,
        )


def deadlines(candidate: Candidate) -> Iterator[Finding]:
    """The service gives up on a request before the platform's edge does, and its body limit is below the edge's."""
    limits, environment = candidate.platform.limits, candidate.environment()
    request_s = number(environment.get("ANYPORT_REQUEST_TIMEOUT_S"), 25)
    body_mib = number(environment.get("ANYPORT_MAX_BODY_BYTES"), 4 * MIB) / MIB
    if limits.request_s is not None and request_s >= limits.request_s:
        yield candidate.error(
            "slow-request",
            f"ANYPORT_REQUEST_TIMEOUT_S is {request_s:g}, and the edge gives up after {limits.request_s:g} s",
            "clients get the edge's error page for what is still being computed",
            f"set it below {limits.request_s:g}",
            limits.source,
        )
    if limits.body_mib is not None and body_mib > limits.body_mib:
        yield candidate.error(
            "large-bodies",
            f"ANYPORT_MAX_BODY_BYTES is {body_mib:g} MiB, and the platform's edge takes {limits.body_mib:g}",
            "clients get the edge's error page instead of the service's",
            f"set it to at most {limits.body_mib * MIB:.0f}",
            limits.source,
        )


def proxies(candidate: Candidate) -> Iterator[Finding]:
    """No more proxies are believed than the platform has."""
    hops = number(candidate.environment().get("ANYPORT_CLIENT_HOPS"), 0)
    if hops > candidate.platform.traffic.client_hops:
        yield candidate.error(
            "proxy-trust",
            f"ANYPORT_CLIENT_HOPS is {hops:g}, and of the platform's own are {candidate.platform.traffic.client_hops}",
            "a client can make up the address that is logged for it",
            f"set it to {candidate.platform.traffic.client_hops}",
            candidate.platform.traffic.source,
        )
