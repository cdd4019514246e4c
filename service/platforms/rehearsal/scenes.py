"""The scenes of a rehearsal, each a function of the stage. What does not pass raises `Failed` and says why."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from service.manifest import Manifest
from service.platforms.client import JSON, Address, Answer, golden_body, golden_path, mismatches
from service.platforms.rehearsal.flight import IN_FLIGHT, take_off
from service.platforms.rehearsal.stage import Stage, listening
from service.platforms.report import Failed, Report

POLL_S = 0.1
WAKING_S = 0.01
"""How exactly the phases of waking are told apart; each look costs the service next to nothing."""
START_S = 60.0
"""Where the platform documents no start limit."""
DEFAULT_BODY_BYTES = 4 * 2**20
HEALTH_S = 0.25
LOAD_S = 2.0
LOAD_CLIENTS = 4
STOP_S = 30.0
"""Where the platform documents no time between SIGTERM and SIGKILL."""
NOBODY_BEHIND = (502, 504)
"""What nginx answers while nobody listens behind it."""
NOT_YET = 503
EVERYWHERE = {"0.0.0.0", "[::]"}
"""The addresses that stand for every one of a machine."""
LOADING = ("being loaded", "on-trial")
"""What /readyz says while it may yet get ready."""
SPOOFED, CLIENT = "198.51.100.66", "203.0.113.9"


@dataclass
class Play:
    """What the scenes share."""

    stage: Stage
    manifests: list[Manifest]
    """Of the active versions."""
    report: Report

    @property
    def limit_s(self) -> float:
        """How long the platform waits for the service."""
        return self.stage.platform.limits.start_s or START_S

    def left_s(self) -> float:
        """What is left of that."""
        return self.limit_s - self.since_start_s()

    def since_start_s(self) -> float:
        """How long ago the service was started."""
        return time.monotonic() - self.stage.began

    def reached(self, phase: str) -> float:
        """Note in the report that waking has come so far; return how long it took."""
        return self.report.figures.setdefault(f"{phase}_s", self.since_start_s())

    def ask(self, manifest: Manifest, times: int = 1) -> Answer:
        """Ask for the golden predictions."""
        return self.stage.address.ask("POST", golden_path(manifest), golden_body(manifest.golden, times), JSON)


def listens(play: Play) -> str:
    """The service listens where the platform sends requests, and answers, within its start limit."""
    _await_door(play)
    stage = play.stage
    while play.left_s() > 0:
        try:
            answer = stage.address.ask("GET", "/livez", timeout_s=max(play.left_s(), POLL_S))
            if answer.status in NOBODY_BEHIND:
                raise ConnectionRefusedError("only the front answers")
            live_s = play.reached("live")
            if elsewhere := _elsewhere(stage):
                raise Failed(elsewhere)
            accepts_s = play.report.figures["accepts_s"]
            return f"at {_where(stage.address)} after {accepts_s:.2f} s, and answers /livez after {live_s:.2f}"
        except OSError:
            _still_runs(stage)
            time.sleep(WAKING_S)
    raise _silent(play)


def _await_door(play: Play) -> None:
    """Wait until a connection is taken, and look now and then whether the service runs and listens elsewhere."""
    stage = play.stage
    while play.left_s() > 0:
        look = time.monotonic() + POLL_S
        while time.monotonic() < look:
            if stage.door.accepts():
                play.reached("accepts")
                return
            time.sleep(WAKING_S)
        _still_runs(stage)
        if len(stage.pids()) > 1 and (elsewhere := _elsewhere(stage)):
            raise Failed(elsewhere)
    raise _silent(play)


def _silent(play: Play) -> Failed:
    where, limit_s = _where(play.stage.address), play.limit_s
    return Failed(f"nothing listens at {where} after {limit_s:.0f} s: {play.stage.last_words()}")


def _still_runs(stage: Stage) -> None:
    status = stage.process.poll() if stage.process is not None else None
    if status is not None:
        words = stage.last_words()
        missing = status == 127 or "gunicorn: not found" in words or "gunicorn: command not found" in words
        hint = "; gunicorn is not in requirements.txt" if missing and "gunicorn" in words else ""
        raise Failed(f"the service ended with status {status}: {words}{hint}")


def _elsewhere(stage: Stage) -> str:
    """Why the platform would not find the service where it listens; empty if it would, or if nobody can see that."""
    found = listening(stage.pids())
    if stage.platform.start.front == "socket" or not found:
        return ""
    hosts = [host for host, _, port in (name.rpartition(":") for name in found) if port == str(stage.port)]
    if not hosts:
        return f"the service listens at {', '.join(found)}, and the platform sends requests to port {stage.port}"
    if stage.platform.start.front == "router" and not set(hosts) & EVERYWHERE:
        return f"the service listens at {', '.join(found)} only, where the platform's router cannot reach it"
    return ""


def _where(address: Address) -> str:
    return str(address.unix) if address.unix else f"port {address.port}"


def ready(play: Play) -> str:
    """Every active model has replayed its golden rows within the start limit."""
    said = ""
    while play.left_s() > 0:
        try:
            answer = play.stage.address.ask("GET", "/readyz", timeout_s=max(play.left_s(), POLL_S))
        except OSError as error:
            _still_runs(play.stage)
            said = str(error)
        else:
            if answer.status in NOBODY_BEHIND:
                _still_runs(play.stage)
            if answer.status == 200:
                return f"after {play.reached('ready'):.2f} s of {play.limit_s:.0f}"
            said = str(answer.document().get("detail", answer.status))
            if answer.status == 503 and not any(words in said for words in LOADING):
                raise Failed(f"it will not get ready: {said}")  # the tree does not change
        time.sleep(WAKING_S)
    title = play.stage.platform.title
    raise Failed(f"not ready when {title}'s start limit of {play.limit_s:.0f} s is over: {said}")


def first_answer(play: Play) -> str:
    """The model that comes first predicts its golden rows right, in whichever worker is asked."""
    manifest = play.manifests[0]
    while play.left_s() > 0:
        answer = play.ask(manifest)
        if answer.status != NOT_YET:
            if faults := list(mismatches(manifest, answer)):
                raise Failed(f"the first answer is wrong: {faults[0]}")
            return f"{manifest.label} predicts right after {play.reached('first_answer'):.2f} s"
        time.sleep(WAKING_S)
    raise Failed(f"{manifest.label} has not answered when the start limit of {play.limit_s:.0f} s is over")


def compiled(play: Play) -> str:
    """What the build compiled is what was run: nothing was compiled again, of the service or of its libraries."""
    stage, build, again = play.stage, play.stage.platform.build, play.stage.compiled()
    if not build.step:
        kept = "the first start compiles, and the next ones need not"
        return kept if build.keeps_bytecode else "no build compiles the service: each start does"
    if build.step not in stage.chosen.build.script:
        return f"each start compiles {len(again)} modules: {build.place} does not run `{build.step}`"
    if again:
        raise Failed(f"the start compiled {len(again)} modules again that the build had compiled, such as {again[0]}")
    return "by the build, and nothing again by the start"


def probed(play: Play) -> str:
    """What the platform asks by itself is answered 200 without a redirect, for any Host."""
    traffic = play.stage.platform.traffic
    health_path = play.stage.chosen.health_path or traffic.health_path
    paths = [path for path in (health_path, *traffic.warm_up, "/livez") if path]
    for path in paths:
        answer = play.stage.address.ask("GET", path, headers={"Host": "10.0.0.1"})
        if answer.status != 200:
            raise Failed(f"GET {path} answers {answer.status}")
    return ", ".join(paths)


def golden(play: Play) -> str:
    """Every golden row is answered as it was when the model was packed, through the platform's front."""
    faults = [fault for manifest in play.manifests for fault in mismatches(manifest, play.ask(manifest))]
    if faults:
        raise Failed(f"{len(faults)} differ, such as {faults[0]}")
    rows = sum(len(manifest.golden.rows) for manifest in play.manifests)
    return f"{rows} rows of {', '.join(manifest.label for manifest in play.manifests)}"


def bodies(play: Play) -> str:
    """A body just under the service's limit is answered, and one just over gets the service's own 413."""
    manifest = play.manifests[0]
    limit = int(play.stage.environment().get("ANYPORT_MAX_BODY_BYTES", DEFAULT_BODY_BYTES))
    plain = golden_body(manifest.golden)
    under = play.stage.address.ask("POST", golden_path(manifest), plain.ljust(limit), JSON)
    if under.status != 200:
        raise Failed(f"a body of {limit} bytes, the service's limit, is answered {under.status}")
    try:
        over = play.stage.address.ask("POST", golden_path(manifest), plain.ljust(limit + 1), JSON)
    except OSError as error:
        raise Failed(f"a body of {limit + 1} bytes gets no answer: {error}") from error
    kind = over.headers.get("content-type", "")
    if over.status != 413 or "problem+json" not in kind:
        raise Failed(f"a body of {limit + 1} bytes is answered {over.status} as {kind}, not 413 in the service's words")
    return f"{limit} bytes are answered, {limit + 1} get 413"


def slow_client(play: Play) -> str:
    """A client that stops in the middle of its request keeps nobody else waiting."""
    address, slowest = play.stage.address, 0.0
    families = (socket.AF_UNIX, str(address.unix)) if address.unix else (socket.AF_INET, (address.host, address.port))
    slow = [socket.socket(families[0]) for _ in range(16)]
    try:
        for client in slow:
            client.connect(families[1])
            client.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
        for _ in range(20):
            began = time.monotonic()
            address.ask("GET", "/livez")
            slowest = max(slowest, time.monotonic() - began)
    finally:
        for client in slow:
            client.close()
    if slowest > HEALTH_S:
        raise Failed(f"beside 16 slow clients a health check waits {slowest * 1000:.0f} ms")
    return f"beside 16 of them a health check waits at most {slowest * 1000:.0f} ms"


def forwarded(play: Play) -> str:
    """The service logs the client's address as the platform's proxies tell it, not as the client makes it up."""
    stage, manifest = play.stage, play.manifests[0]
    mark = uuid.uuid4().hex
    written = [SPOOFED, stage.platform.traffic.forwarded]
    if stage.platform.start.front == "nginx" and not stage.front_port:
        written.append("127.0.0.1")  # as nginx would
    headers = JSON | {"X-Request-ID": mark, "X-Forwarded-For": ", ".join(written)}
    stage.address.ask("POST", golden_path(manifest), golden_body(manifest.golden), headers)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        for line in stage.lines():
            if line.get("request_id") == mark and "client" in line:
                return _client(stage, str(line["client"]))
        time.sleep(POLL_S)
    raise Failed("the service logged no line with the client's address")


def _client(stage: Stage, seen: str) -> str:
    hops = int(stage.environment().get("ANYPORT_CLIENT_HOPS", "0"))
    if seen == SPOOFED or (hops and seen != CLIENT):
        raise Failed(f"the service takes {seen} for the client {CLIENT}")
    return f"the client is {seen}" if hops else "the header is not believed"


def load(play: Play) -> str:
    """Under some load every answer is right, and the memory stays within what was chosen."""
    until, counted = time.monotonic() + LOAD_S, [0] * LOAD_CLIENTS
    faults: list[str] = []

    def ask(number: int) -> None:
        while time.monotonic() < until and not faults:
            try:
                for manifest in play.manifests:
                    faults.extend(mismatches(manifest, play.ask(manifest)))
                    counted[number] += 1
            except OSError as error:
                faults.append(f"no answer: {error}")

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(LOAD_CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    peak_mib = play.stage.peak_mib
    play.report.figures |= {"peak_mib": peak_mib, "requests_per_s": sum(counted) / LOAD_S}
    if faults:
        raise Failed(faults[0])
    there_mib = play.stage.memory_mib
    if peak_mib > there_mib:
        sizes = play.stage.platform.sizes
        fitting = [size.name for size in sizes.offered if size.memory_mib > peak_mib]
        advice = f"{fitting[0]} would hold it: {sizes.change}" if fitting else "no size holds it"
        raise Failed(f"it takes {peak_mib:.0f} MiB, and {there_mib} are there; {advice}")
    return (
        f"{sum(counted)} right answers; at most {peak_mib:.0f} MiB of {there_mib} since the start, "
        "measured and not enforced"
    )


def stop(play: Play) -> str:
    """The stop signal in the middle of 32 requests loses none, and the service ends before it is killed."""
    stage = play.stage
    flight = take_off(stage.address, play.manifests[0])
    in_flight = flight.in_flight
    stage.send_stop()
    limit_s = stage.chosen.stop_s or stage.platform.limits.stop_s or STOP_S
    ends = stage.platform.start.stop != "reload"
    took = stage.await_end(limit_s) if ends else None
    if ends and took is None:
        left = len(stage.pids())
        raise Failed(f"{left} processes still run {limit_s:.0f} s after SIGTERM, when the platform kills them")
    flight.land()
    if flight.faults:
        raise Failed(f"{len(flight.faults)} of {IN_FLIGHT} requests in flight were lost: {flight.faults[0]}")
    answered = f"all {IN_FLIGHT} requests were answered, {in_flight} of them after the signal"
    if not ends:
        return f"a reload: {answered}"
    play.report.figures["stop_s"] = took or 0.0
    return f"{answered}, and it ended after {took:.1f} s of {limit_s:.0f}"


def left_behind(play: Play) -> str:
    """Nothing of the service still runs, and it wrote nothing where the platform keeps nothing."""
    stage = play.stage
    if stage.platform.start.stop != "reload" and (left := stage.pids()):
        raise Failed(f"{len(left)} processes still run")
    now = {path for path in stage.tree.rglob("*") if "__pycache__" not in path.parts}
    written = sorted(now - stage.found)
    if written and "" not in stage.platform.start.writable:
        raise Failed(f"it wrote {written[0].relative_to(stage.tree)} into a tree that is read-only there")
    return "no process" + (f", {len(written)} files in its own folder" if written else ", no file")


SCENES: dict[str, Callable[[Play], str]] = {
    "listens": listens,
    "ready": ready,
    "first answer": first_answer,
    "bytecode": compiled,
    "probes": probed,
    "golden rows": golden,
    "body limit": bodies,
    "slow clients": slow_client,
    "client address": forwarded,
    "load and memory": load,
    "stop in flight": stop,
    "left behind": left_behind,
}
NOT_UNDER_UWSGI = {"slow clients", "body limit"}
"""There nginx stands before uWSGI and reads requests whole; here uWSGI reads them by itself."""
