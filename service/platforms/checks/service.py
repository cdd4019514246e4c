"""Checks of the service as it would be started from the upload: start line, settings, probes. They run Python."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

from service.errors import PlatformError
from service.platforms.findings import Candidate, Finding
from service.platforms.upload import MIB

APP = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
STOP_MARGIN_S = 1
ASK = """
import importlib, json, sys
from os import environ
module, name, *paths = sys.argv[1:]
app = getattr(importlib.import_module(module), name)
client = app.test_client()
asked = {path: client.get(path, headers={"Host": "10.0.0.1"}).status_code for path in paths}
print(json.dumps({"statuses": asked, "threads": environ.get("OMP_NUM_THREADS")}))
"""
"""Imports the app as the start line does, and asks it what the platform will ask."""


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
    """The start line names things that are in the upload, and no port of its own."""
    if not candidate.readable() or candidate.platform.start.rule == "wsgi-file":
        return
    source = candidate.platform.start.source
    line = candidate.declared.line
    try:
        words = shlex.split(line)
    except ValueError as error:
        yield candidate.error(
            "bad-start-line", f"{line!r}: {error}", "a shell cannot read it", "mend the quotes", source
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
        if option in ("-b", "--bind") and re.search(r":\d+$", value):
            yield candidate.error(
                "fixed-port",
                f"the start line binds {value}",
                "the platform sends requests to the port that it gives in PORT",
                "take --bind away: gunicorn.conf.py reads PORT",
                source,
            )


def app_name(candidate: Candidate) -> tuple[str, str]:
    """Return the module and the name of the app that is started."""
    if candidate.platform.start.rule == "wsgi-file":
        return candidate.declared.line.removesuffix(".py"), "application"
    found = [word for word in candidate.declared.line.split() if APP.fullmatch(word)]
    module, _, name = (found[-1] if found else "service.wsgi:app").partition(":")
    return module, name


def importable(candidate: Candidate) -> Iterator[Finding]:
    """The app can be imported from the upload, and answers what the platform asks of it."""
    if not candidate.readable():
        return
    traffic = candidate.platform.traffic
    paths = [path for path in ("/livez", traffic.health_path, *traffic.warm_up) if path]
    module, name = app_name(candidate)
    child = candidate.run("-c", ASK, module, name, *paths)
    if child.returncode:
        last = child.stderr.strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        yield candidate.error(
            "app-not-importable",
            f"{module}:{name} cannot be imported from what is uploaded: {last[0]}",
            "the service ends as soon as it starts",
            "name the app as service.wsgi:app, and commit every module that it needs",
            candidate.platform.start.source,
        )
        return
    told = json.loads(child.stdout.splitlines()[-1])
    for path, status in told["statuses"].items():
        if status >= 300:
            yield candidate.error(
                "health-path",
                f"GET {path} answers {status}",
                f"{candidate.platform.title} takes the service for ill",
                "let it answer 200, without a redirect or a key, for any Host",
                traffic.source,
            )
    if told["threads"] != "1":
        yield candidate.error(
            "compute-threads",
            "OMP_NUM_THREADS is not 1 once the app is imported",
            "every worker starts a thread for each processor, and they fight",
            "call limit_compute_threads() before anything imports numpy",
            "scikit-learn.org/stable/computing/parallelism.html",
        )


def settings(candidate: Candidate) -> Iterator[Finding]:
    """What gunicorn makes of the start line under the platform's environment is what the platform needs."""
    start, limits = candidate.platform.start, candidate.platform.limits
    if not candidate.readable() or start.rule == "wsgi-file":
        return
    words = _words(candidate)
    child = candidate.run("-m", "gunicorn", *words[:-1], "--print-config", words[-1])
    if child.returncode:
        return  # `importable` has said why
    effective = {name: value for name, value in re.findall(r"^(\w+)\s+= (.*)$", child.stdout, re.MULTILINE)}
    reachable = r"127\.0\.0\.1|0\.0\.0\.0" if start.front == "nginx" else r"0\.0\.0\.0|\[::\]"
    if start.port is not None and not re.search(rf"'({reachable}):{start.port}'", effective["bind"]):
        yield candidate.error(
            "wrong-address",
            f"with PORT={start.port} the service listens at {effective['bind']}",
            "the platform's router does not find it",
            "compute bind from PORT, for all addresses, in gunicorn.conf.py; on Render give --bind on the start line",
            start.source,
        )
    if limits.stop_s is not None and float(effective["graceful_timeout"]) + STOP_MARGIN_S > limits.stop_s:
        yield candidate.error(
            "slow-stop",
            f"gunicorn ends after {effective['graceful_timeout']} s; {limits.stop_s:.0f} s after SIGTERM it is killed",
            "requests that are being answered are lost with each deployment",
            f"set ANYPORT_STOP_GRACE_S to {limits.stop_s:.0f} there",
            limits.source,
        )


def _words(candidate: Candidate) -> list[str]:
    """The start line's words after `gunicorn`, with the variables that the platform sets filled in."""
    line = candidate.declared.line.partition("gunicorn ")[2]
    for name, value in candidate.environment().items():
        line = line.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return shlex.split(line) or ["service.wsgi:app"]


def deadlines(candidate: Candidate) -> Iterator[Finding]:
    """The service gives up on a request before the platform's edge does, and its body limit is below the edge's."""
    limits, environment = candidate.platform.limits, candidate.environment()
    request_s = float(environment.get("ANYPORT_REQUEST_TIMEOUT_S", 25))
    body_mib = int(environment.get("ANYPORT_MAX_BODY_BYTES", 4 * MIB)) / MIB
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
    hops = candidate.environment().get("ANYPORT_CLIENT_HOPS", "0")
    if int(hops) > candidate.platform.traffic.client_hops:
        yield candidate.error(
            "proxy-trust",
            f"ANYPORT_CLIENT_HOPS is {hops}, and of the platform's own are {candidate.platform.traffic.client_hops}",
            "a client can make up the address that is logged for it",
            f"set it to {candidate.platform.traffic.client_hops}",
            candidate.platform.traffic.source,
        )
