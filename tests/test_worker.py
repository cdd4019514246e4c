"""The worker: slow clients, overload and endings, through real gunicorn."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from tests.bad_requests import one
from tests.conftest import PENGUIN, ROOT
from tests.faults.shares import await_workers, largest_share
from tests.faults.witness import witness
from tests.server import START_LINE, Server, environment, free_port, running, wait_until_loaded
from tests.slow import SlowSum
from tests.test_server import pack_into

pytestmark = pytest.mark.slow

SLOW = "/v1/models/slow:predict"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with penguins and a slow model."""
    import shutil

    folder = tmp_path_factory.mktemp("worker")
    shutil.copytree(ROOT / "models", folder / "models")
    rows = pandas.DataFrame(np.arange(8.0).reshape(4, 2), columns=["a", "b"])
    pack_into(folder, "slow", SlowSum().fit(rows), rows)
    return folder / "models"


@pytest.fixture(scope="module")
def server(models: Path) -> Any:
    """One worker with two threads."""
    with running(models, WEB_CONCURRENCY="1", ANYPORT_THREADS="2") as running_server:
        yield running_server


def request(body: bytes, *fields: bytes, method: bytes = b"POST", path: bytes = b"/predict") -> bytes:
    """A whole request as bytes."""
    head = [method + b" " + path + b" HTTP/1.1", b"Host: x", b"Content-Type: application/json", *fields]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), b"", body])


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


@pytest.mark.parametrize("part", ["nothing", "half a head", "half a body"])
def test_2_9_slow_clients_hold_no_thread(part: str, server: Server) -> None:
    """200 clients that have not sent a whole request keep nobody else from an answer."""
    whole = request(one())
    sent = {"nothing": b"", "half a head": whole[:40], "half a body": whole[:-5]}[part]
    slow = [connect(server) for _ in range(200)]
    try:
        for client in slow:
            client.sendall(sent)
        assert server.request("GET", "/livez")[0] == 200
        assert server.predict([PENGUIN])[1]["predictions"] == ["Adelie"]
    finally:
        for client in slow:
            client.close()


def test_2_9_slow_readers_hold_no_thread(server: Server) -> None:
    """Clients that do not read their answers keep nobody else from one."""
    many = json.dumps({"instances": [list(PENGUIN.values())] * 10_000, "parameters": {"probabilities": True}}).encode()
    slow = [connect(server) for _ in range(8)]
    try:
        for client in slow:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(request(many))
        assert server.predict([PENGUIN])[1]["predictions"] == ["Adelie"]
    finally:
        for client in slow:
            client.close()


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    """Requests that were sent in one go are answered one after the other on the same connection."""
    rows = [PENGUIN, PENGUIN | {"flipper_length_mm": 230.0, "bill_depth_mm": 13.0, "island": "Biscoe"}]
    bodies = [json.dumps({"instances": [row]}).encode() for row in rows]
    with connect(server) as client:
        client.sendall(
            request(bodies[0]) + request(b"", method=b"GET", path=b"/livez") + request(bodies[1], b"Connection: close")
        )
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert [answer.count(word) for word in (b"HTTP/1.1 200 OK", b'"Adelie"', b'"alive":true', b'"Gentoo"')] == [
        3,
        1,
        1,
        1,
    ]
    assert answer.index(b'"Adelie"') < answer.index(b'"alive"') < answer.index(b'"Gentoo"')


def test_continue_is_sent_when_the_body_is_awaited(server: Server) -> None:
    """A client that expects 100-continue gets it before its body, and the answer after it."""
    whole = request(one(), b"Expect: 100-continue")
    with connect(server) as client:
        client.sendall(whole[: -len(one())])
        assert client.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(one())
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_too_large_body_gets_no_continue(server: Server) -> None:
    """A body over the limit is refused by its head alone."""
    with connect(server) as client:
        client.sendall(request(b"x", b"Expect: 100-continue").replace(b"Length: 1", b"Length: 99999999")[:-1])
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_request_that_comes_byte_by_byte_is_answered(server: Server) -> None:
    """A request is answered however its bytes are cut."""
    with connect(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request(one()):
            client.sendall(bytes([byte]))
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nabcde",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
)
def test_malformed_head_is_a_problem(head: bytes, server: Server) -> None:
    """A head that is not HTTP/1.1 gets 400 as a problem document, and its connection ends."""
    answer = server.raw(head, half_close=True)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n") and b'"/problems/invalid-header"' in answer


def test_overload_is_refused_and_probes_answer(models: Path) -> None:
    """With every thread busy and the queue full, more is refused at once with Retry-After, and probes still answer."""
    with running(models, WEB_CONCURRENCY="1", ANYPORT_THREADS="1", ANYPORT_QUEUE="1", SLOW_S="3") as server:
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(server.predict, [[1, n]], SLOW) for n in range(2)]
            time.sleep(0.7)
            body = json.dumps({"instances": [[1, 2]]}).encode()
            status, headers, document = server.request("POST", SLOW, body, {"Content-Type": "application/json"})
            assert (status, json.loads(document)["type"], headers["Retry-After"]) == (503, "/problems/overloaded", "1")
            assert server.request("GET", "/readyz")[0] == 200
            assert [answer.result()[1]["predictions"] for answer in asked] == [[1.0], [2.0]]


def test_2_11_stuck_worker_is_replaced(models: Path) -> None:
    """A prediction over its deadline is answered 503, and one over twice its deadline gets its worker replaced."""
    with running(models, WEB_CONCURRENCY="1", ANYPORT_REQUEST_TIMEOUT_S="1", SLOW_S="5") as server:
        status, document = server.predict([[1, 2]], SLOW)
        assert (status, document["type"]) == (503, "/problems/overloaded")
        while not any("is replaced" in line["message"] for line in server.lines()):
            time.sleep(0.1)
        wait_until_loaded(server)
        assert server.predict([PENGUIN])[1]["predictions"] == ["Adelie"]


def test_kept_connections_are_shared_out(models: Path) -> None:
    """Of 16 kept-alive connections over two workers none ever holds more than ten."""
    with running(models, WEB_CONCURRENCY="2") as server:
        await_workers(server, 2)
        most = [largest_share(server, turn) for turn in range(5)]
    assert max(most) <= 10, most


def test_unix_socket_is_served(models: Path) -> None:
    """The service answers on a Unix socket, as PythonAnywhere's command sites have it."""
    path, port = models.parent / "socket", free_port()
    with running(
        models, [*START_LINE[:-1], "--bind", f"unix:{path}", "--bind", f"127.0.0.1:{port}", START_LINE[-1]], port=port
    ) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(request(one(), b"Connection: close"))
            assert b'"Adelie"' in b"".join(iter(lambda: client.recv(65536), b""))
        assert server.predict([PENGUIN])[0] == 200


@pytest.mark.parametrize(
    ("flags", "setting"),
    [
        ("--worker-class gthread", "worker_class"),
        ("--header-map refuse", "header_map"),
        ("--permit-obsolete-folding", "permit_obsolete_folding"),
        ("--forwarder-headers X-FORWARDED-PATH", "forwarder_headers"),
        ("--proxy-protocol v1", "proxy_protocol"),
        ("--casefold-http-method", "casefold_http_method"),
    ],
)
def test_2_15_unsafe_settings_end_the_start(flags: str, setting: str, models: Path) -> None:
    """A gunicorn setting that is not safe ends the start with a line that names it and where it came from."""
    env = environment(models, PORT=str(free_port()), GUNICORN_CMD_ARGS=flags)
    ended = subprocess.run(START_LINE, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    last = (ended.stdout + ended.stderr).strip().splitlines()[-1]
    assert last.startswith(f"anyport: gunicorn's {setting} is ") and flags in last


@pytest.mark.parametrize(("fault", "times"), [("reload", 3), ("restart", 3), ("recycle", 4)])
def test_2_10_no_request_is_lost(fault: str, times: int) -> None:
    """Under reloads, restarts and recycling every request that was sent gets its right answer."""
    counted = witness(fault, times)
    assert counted.pop("right") > 50
    counted.pop("refused", None)  # nobody listened, so nothing was sent
    assert not counted


def test_killed_worker_loses_only_what_it_had() -> None:
    """SIGKILL of a worker loses at most the connections that it held, and gives no wrong answer."""
    counted = witness("kill", 1)
    lost = sum(count for name, count in counted.items() if name.startswith("lost"))
    assert lost <= 16 and counted["right"] > 50 and counted["wrong"] == 0
    assert not [name for name in counted if name.startswith("status")]
