"""Starts the service as its users do: real gunicorn, in processes of its own, on a free port."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.logs import GATHER_S
from tests.conftest import ROOT

START_LINE = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "service.wsgi:app"]
START_LIMIT_S = 60


@dataclass
class Server:
    """A running service."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def request(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
        """Send one request on a connection of its own; return status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def predict(self, rows: list[Any], path: str = "/predict") -> Any:
        """Ask for predictions; return status and document."""
        body = json.dumps({"instances": rows}).encode()
        status, _, answer = self.request("POST", path, body, {"Content-Type": "application/json"})
        return status, json.loads(answer)

    def raw(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Send bytes as they are and return all that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while block := connection.recv(65536):
                received += block
            return received

    def lines(self) -> list[dict[str, Any]]:
        """Return what it logged, one object a line, once what was logged before has been written."""
        time.sleep(2 * GATHER_S)
        whole, _, _ = self.log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def await_lines(self, ending: str, times: int) -> None:
        """Wait until it has logged so many messages that end like this."""
        deadline = time.monotonic() + START_LIMIT_S
        while sum(line["message"].endswith(ending) for line in self.lines()) < times:
            assert time.monotonic() < deadline, f"{times} lines that end in {ending!r} did not come"
            time.sleep(0.05)

    def stop(self, sent: signal.Signals = signal.SIGTERM, *, group: bool = False) -> int:
        """Send a signal, to the whole process group as a terminal does where wanted, and return the exit status."""
        if group:
            os.killpg(self.process.pid, sent)
        else:
            self.process.send_signal(sent)
        return self.process.wait(timeout=40)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(models_dir: Path, **variables: str) -> dict[str, str]:
    """Return an environment for the service, without the settings of whoever runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANYPORT_", "GUNICORN_", "WEB_CONCURRENCY"))}
    return kept | {"ANYPORT_MODELS_DIR": str(models_dir)} | variables


@contextmanager
def running(
    models_dir: Path,
    command: list[str] = START_LINE,
    cwd: Path = ROOT,
    port: int | None = None,
    **variables: str,
) -> Iterator[Server]:
    """Run the service until the block ends, and leave no process behind."""
    port = port or free_port()
    log = models_dir.parent / f"server-{port}.log"
    with log.open("wb") as target:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(models_dir, PORT=str(port), FLASK_RUN_PORT=str(port)) | variables,
            stdout=target,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, port, log)
    try:
        wait_until_loaded(server)
        yield server
    finally:
        if process.poll() is None:
            server.stop(group=True)


def wait_until_loaded(server: Server) -> None:
    """Wait until the service says whether it is ready, one way or the other."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if b"being loaded" not in server.request("GET", "/readyz")[2]:
                return
            time.sleep(0.02)
        except (OSError, http.client.HTTPException):  # nobody listens yet, or a worker has ended in the middle
            time.sleep(0.05)
    raise AssertionError(f"the service did not start: {server.log.read_text()[-2000:]}")
