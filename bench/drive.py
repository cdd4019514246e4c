"""Drives a server with wrk: bodies in rotation, an id in each head, kept connections, every failure counted.

wrk is a closed loop: each connection asks again as soon as it is answered, so latencies are those of a busy server, and
grow with the number of connections.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.failure import PeerFailed

SCRIPT = r"""
-- Arguments: the path asked, the media types sent and wanted, and a file of bodies, each after a line with its length.
-- Each request has an id of its own, as routers give them, so that no server can answer a head that it has seen before.
local lines, rests, turn, id = {}, {}, 0, os.time() * 1000000

function init(args)
  wrk.method, wrk.headers["Content-Type"], wrk.headers["Accept"] = "POST", args[2], args[3]
  local file = assert(io.open(args[4], "rb"))
  for length in file:lines() do
    wrk.body = file:read(tonumber(length))
    local request = wrk.format(nil, args[1])
    local after = request:find("\r\n", 1, true) + 1
    lines[#lines + 1], rests[#rests + 1] = request:sub(1, after) .. "X-Request-ID: ", request:sub(after + 1)
    file:read(1)
  end
end

function request()
  turn, id = turn % #lines + 1, id + 1
  return lines[turn] .. string.format("%016x\r\n", id) .. rests[turn]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors.status, errors.connect, errors.read + errors.write,
    errors.timeout))
end
"""
TIMEOUT_S = 20
"""After which wrk counts a request as failed; its own 2 s are less than a slow server needs for 64 at once."""


@dataclass(frozen=True)
class Ask:
    """What is asked: the path, the media types sent and wanted, and the bodies."""

    path: str
    media: str
    accept: str
    bodies: tuple[bytes, ...]

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with each body."""
        return {"Content-Type": self.media, "Accept": self.accept}


@dataclass(frozen=True)
class Result:
    """What wrk saw; `answered` counts only answers with a good status."""

    answered: int
    errors: int
    duration_s: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.answered / self.duration_s


def parse(said: str) -> Result:
    """Read the line that the script writes at wrk's end."""
    found = re.search(r"^RESULT" + r" (\d+)" * 8 + "$", said, re.MULTILINE)
    if not found:
        raise PeerFailed(f"no RESULT line came, but: {said[-500:]}")
    requests, duration_us, p50_us, p99_us, status, connect, transfer, timeout = map(int, found.groups())
    return Result(
        answered=requests - status,
        errors=status + connect + transfer + timeout,
        duration_s=duration_us / 1e6,
        p50_ms=p50_us / 1000,
        p99_ms=p99_us / 1000,
    )


def write_script(ask: Ask, folder: Path) -> tuple[Path, Path]:
    """Write wrk's script and its file of bodies; return both."""
    script, bodies = folder / "rotate.lua", folder / "bodies"
    script.write_text(SCRIPT)
    bodies.write_bytes(b"".join(b"%d\n%b\n" % (len(body), body) for body in ask.bodies))
    return script, bodies


def drive(port: int, ask: Ask, connections: int, seconds: float, folder: Path) -> Result:
    """Ask over so many connections for so many seconds.

    Raises:
        PeerFailed: If wrk does not say what it saw.
    """
    script, bodies = write_script(ask, folder)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", f"--timeout={TIMEOUT_S}s"]
    command += ["-s", str(script), f"http://127.0.0.1:{port}", "--", ask.path, ask.media, ask.accept, str(bodies)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 2 * TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise PeerFailed(f"wrk did not end within {error.timeout:.0f} s") from error
    return parse(ended.stdout + ended.stderr)
