"""Memory through real gunicorn: the worst bodies at once, many requests, and a model that leaks. Nothing is timed."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PENGUIN, ROOT
from tests.faults import memory
from tests.server import Server, running

pytestmark = pytest.mark.slow

CHUNKED = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
COUNTED = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
CLIENTS = 150
MIB = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One worker that has the least memory for bodies: 16 MiB."""
    models = shutil.copytree(ROOT / "models", tmp_path_factory.mktemp("memory") / "models")
    with running(Path(models), WEB_CONCURRENCY="1", ANYPORT_MEMORY_MIB="64", ANYPORT_QUEUE="1000") as running_server:
        yield running_server


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def honest(n_bytes: int) -> bytes:
    """A request of one penguin, with spaces up to this size."""
    return json.dumps({"instances": [PENGUIN]}).encode().ljust(n_bytes)


def status(server: Server, body: bytes) -> tuple[int, str]:
    """Send one request; return its status and the problem's type."""
    code, _, answer = server.request("POST", "/predict", body, {"Content-Type": "application/json"})
    return code, json.loads(answer).get("type", "")


def test_1_7_worst_bodies_kill_no_worker() -> None:
    """Of the worst bodies at once some are told to come again, no worker dies, and small requests are answered."""
    rounds = 2
    counted, _ = memory.measured(memory.bodies, rounds)
    assert counted["workers killed"] == 0
    assert counted["status 503"] > 0 and counted["status 200, small"] == rounds
    assert set(counted) <= {
        "workers killed",
        "status 200, small",
        "status 200",
        "status 422",
        "status 400",
        "status 503",
    }


def test_1_7_requests_leave_nothing_behind() -> None:
    """After two thousand requests, each of which was answered rightly, the workers are as large as before."""
    counted, grown_mib = memory.measured(memory.slope, 2000)
    assert set(counted) == {"right"} and counted["right"] >= 1900
    assert grown_mib < 16


def test_1_7_leaky_workers_are_replaced_one_by_one() -> None:
    """Workers that a model fills are replaced, one at a time, and every request meanwhile gets its right answer."""
    counted, _ = memory.measured(memory.leak, 2)
    assert counted.pop("workers replaced") >= 2
    assert counted.pop("workers replaced at once") == 1
    assert counted.pop("right") > 50
    assert not +counted


def test_1_7_body_beyond_the_memory_comes_again_later(server: Server) -> None:
    """A body that may grow over what is left is refused by its head, with 503 and Retry-After; a smaller one is not."""
    with connect(server) as client:
        client.sendall(COUNTED % (2 * MIB))
        head, _, body = client.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: 1\r\n" in head
    assert json.loads(body)["type"] == "/problems/insufficient-memory"
    assert status(server, honest(MIB // 2))[0] == 200


def test_1_7_small_chunked_bodies_are_no_large_ones(server: Server) -> None:
    """Many chunked bodies at once, whose size nobody knows, take no more memory than has come of them."""
    body = honest(500)
    clients = [connect(server) for _ in range(CLIENTS)]
    try:
        for client in clients:
            client.sendall(CHUNKED + b"%x\r\n%s\r\n" % (len(body), body))
        assert status(server, honest(MIB // 2))[0] == 200
        for client in clients:
            client.sendall(b"1\r\n \r\n0\r\n\r\n")
        answers = {client.recv(65536).split(b"\r\n")[0] for client in clients}
    finally:
        for client in clients:
            client.close()
    assert answers == {b"HTTP/1.1 200 OK"}


def test_1_7_chunked_body_is_weighed_as_it_comes(server: Server) -> None:
    """A chunked body that grows over what is left is refused while it comes; one that fits is answered."""
    with connect(server) as client:
        client.sendall(CHUNKED + b"%x\r\n%s\r\n" % (2 * MIB, b" " * (2 * MIB)))
        head, _, body = client.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ") and json.loads(body)["type"] == "/problems/insufficient-memory"
    large = honest(MIB // 2)
    with connect(server) as client:
        client.sendall(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(large), large))
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("ending", ["whole", "cut", "dropped", "malformed"])
def test_1_7_memory_is_given_back(ending: str, server: Server) -> None:
    """What was set aside for a body is free again, however its request ended."""
    half = honest(MIB // 2)  # two of them are all there is
    for turn in range(4):
        with connect(server) as client:
            if ending == "malformed":
                client.sendall(CHUNKED + b"%x\r\n%s\r\nzz\r\n" % (len(half), half))
            else:
                client.sendall(COUNTED % len(half) + (half if ending == "whole" else half[:-1]))
            if ending == "cut":
                client.shutdown(socket.SHUT_WR)
            if ending != "dropped":
                expected = b"HTTP/1.1 200 " if ending == "whole" else b"HTTP/1.1 400 "
                assert client.recv(65536).startswith(expected), turn
    deadline = time.monotonic() + 20
    while status(server, honest(MIB - MIB // 16))[0] != 200:  # it may not have seen the last one's end yet
        assert time.monotonic() < deadline
        time.sleep(0.05)
