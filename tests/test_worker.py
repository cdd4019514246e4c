"""The worker: slow clients, overload and endings, through real gunicorn."""

from __future__ import annotations

import gzip
import json
import re
import selectors
import signal
import socket
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from service.connection import Connection
from service.settings import Settings
from service.worker import _precedence
from tests.bad_requests import one
from tests.conftest import PENGUIN, ROOT
from tests.faults.shares import await_workers, largest_share
from tests.faults.witness import witness
from tests.leaky import LeakySum
from tests.server import START_LIMIT_S, START_LINE, Server, environment, free_port, running
from tests.slow import SlowSum
from tests.test_catalogue import edit
from tests.test_server import pack_into

pytestmark = pytest.mark.slow

SLOW, CHEAP, SHAM = (f"/v1/models/{name}:predict" for name in ("slow", "cheap", "sham"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Penguins, a slow model, a cheap one, and one that was cheap where it was packed and is slow here."""
    import shutil

    folder = tmp_path_factory.mktemp("worker")
    shutil.copytree(ROOT / "models", folder / "models")
    rows = pandas.DataFrame(np.arange(8.0).reshape(4, 2), columns=["a", "b"])
    pack_into(folder, "slow", SlowSum().fit(rows), rows)
    forget_speed(folder / "models" / "slow" / "1")
    pack_into(folder, "cheap", LeakySum().fit(rows), rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLOW_S", "0")
        pack_into(folder, "sham", SlowSum().fit(rows), rows)
    return folder / "models"


def forget_speed(package: Path) -> None:
    """Take out what was measured, so that no worker tries row by row, slowly, whether requests may be joined."""
    cost = json.loads((package / "manifest.json").read_text())["cost"]
    edit(package, cost=cost | {"microseconds": {}})


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
        assert server.predict([[1, 2]], SLOW)[1]["predictions"] == [3.0]  # which a thread answers
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
        status, document = server.predict([PENGUIN])
        assert (status, document.get("predictions")) == (200, ["Adelie"]), document
        assert server.predict([[1, 2]], SLOW)[1]["predictions"] == [3.0]  # which a thread answers
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


def test_1_1_too_large_body_gets_no_continue(server: Server) -> None:
    """A body over the limit is refused by its head alone."""
    with connect(server) as client:
        client.sendall(request(b"x", b"Expect: 100-continue").replace(b"Length: 1", b"Length: 99999999")[:-1])
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_1_1_chunked_body_over_the_limit_is_refused_before_its_end(server: Server) -> None:
    """A chunked body that is one byte over the limit is 413 there and then; nobody waits for its end."""
    head = request(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    size = Settings().max_body_bytes + 1
    with connect(server) as client:
        client.sendall(head + b"%x\r\n%s\r\n" % (size, bytes(size)))
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "coding",
    [b"gzip, chunked", b"chunked, chunked", b"chunked, gzip", b"identity", b"gzip", b"xchunked", b"chunked;q=1", b""],
)
def test_1_3_other_transfer_coding_is_refused_over_the_wire(coding: bytes, server: Server) -> None:
    """A Transfer-Encoding that is not plain chunked gets no prediction, and its connection ends."""
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(one()), one())
    head = request(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: " + coding)
    answer = server.raw(head + body, half_close=True)
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"Content-Type: ") == 1


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
def test_1_2_malformed_head_is_a_problem(head: bytes, server: Server) -> None:
    """A head that is not HTTP/1.1 gets 400 as a problem document, and its connection ends."""
    answer = server.raw(head, half_close=True)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n") and b'"/problems/invalid-header"' in answer


def test_2_14_overload_is_refused_and_probes_answer(models: Path) -> None:
    """With every thread busy and the queue full, more is refused at once with Retry-After, and probes still answer."""
    body, json_body = json.dumps({"instances": [[1, 2]]}).encode(), {"Content-Type": "application/json"}
    with running(models, WEB_CONCURRENCY="1", ANYPORT_THREADS="1", ANYPORT_QUEUE="1", SLOW_S="3") as server:
        with ThreadPoolExecutor(3) as pool:
            asked = as_completed([pool.submit(server.request, "POST", SLOW, body, json_body) for _ in range(3)])
            status, headers, document = next(asked).result()  # the other two have the thread and the queue
            assert (status, json.loads(document)["type"], headers["Retry-After"]) == (503, "/problems/overloaded", "1")
            assert server.request("GET", "/readyz")[0] == 200
            assert [json.loads(answer.result()[2])["predictions"] for answer in asked] == [[3.0], [3.0]]


def occupy(server: Server, pool: ThreadPoolExecutor, path: str = SLOW) -> Future[Any]:
    """Occupy the only thread where there is no queue: of two requests one is refused at once; return the other."""
    asked = [pool.submit(server.predict, [[1, 2]], path) for _ in range(2)]
    refused = next(as_completed(asked))
    assert refused.result()[0] == 503
    return asked[1 - asked.index(refused)]


def test_cheap_prediction_waits_for_no_thread(models: Path) -> None:
    """With every thread busy and the queue full, a cheap model answers; not a large body, nor one that may be large."""
    many = json.dumps({"instances": [[1, 2]] * 4000}).encode()
    zipped = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    settings = {"ANYPORT_THREADS": "1", "ANYPORT_QUEUE": "0", "ANYPORT_GZIP_REQUESTS": "true", "SLOW_S": "5"}
    with running(models, WEB_CONCURRENCY="1", **settings) as server, ThreadPoolExecutor(2) as pool:
        assert server.predict([[1, 2]], CHEAP)[0] == 200  # the models are loaded, and the loop knows of them
        asked = occupy(server, pool)
        answers = [
            server.predict([[1, 2]], CHEAP)[0],
            server.predict([[1, 2]], CHEAP.replace(":", "/versions/1:"))[0],
            server.request("POST", CHEAP, many, {"Content-Type": "application/json"})[0],
            server.request("POST", CHEAP, gzip.compress(many), zipped)[0],
            server.predict([[1, 2]], SLOW)[0],
        ]
        assert (answers, asked.result()[0]) == ([200, 200, 503, 503, 503], 200)


def test_pipelined_cheap_predictions_are_answered_in_order(server: Server) -> None:
    """Hundreds of requests for a cheap model that were sent in one go are answered one after the other."""
    bodies = [json.dumps({"instances": [[number, 0.5]]}).encode() for number in range(500)]
    requests = [request(body, path=CHEAP.encode()) for body in bodies[:-1]]
    with connect(server) as client:
        client.sendall(b"".join([*requests, request(bodies[-1], b"Connection: close", path=CHEAP.encode())]))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert [float(found) for found in re.findall(rb'"predictions":\[([0-9.]+)\]', answer)] == [
        number + 0.5 for number in range(500)
    ]


def test_model_that_is_cheap_no_more_goes_to_a_thread(models: Path) -> None:
    """A model that was measured to be cheap and is slow here holds the loop up once, and then only a thread."""
    with running(models, WEB_CONCURRENCY="1", ANYPORT_THREADS="1", ANYPORT_QUEUE="0", SLOW_S="1.5") as server:
        deadline = time.monotonic() + START_LIMIT_S
        while not (said := [line["message"] for line in server.lines() if "threads answer" in line["message"]]):
            assert time.monotonic() < deadline
            assert server.predict([[1, 2]], SHAM)[1]["predictions"] == [3.0]
        assert len(said) == 1 and said[0].startswith("/v1/models/sham:predict took ")
        with ThreadPoolExecutor(2) as pool:
            assert occupy(server, pool, SHAM).result()[1]["predictions"] == [3.0]  # the one thread had it


@pytest.mark.parametrize(
    "field",
    [
        b"X-Request-Start: 0",
        b"X-Request-Start: 1",
        b"X-Request-Start: t=99999999999999",
        b"X-Request-Start: -5",
        b"X-Queue-Start: t=0",
        b"X-Request-Received: yesterday",
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
    ],
)
def test_2_14_clocks_of_others_count_for_nothing(field: bytes, server: Server) -> None:
    """A client or router that says when it sent a request, however wrongly, is answered like any other."""
    answer = server.raw(request(one(), field, b"Connection: close"))
    assert answer.startswith(b"HTTP/1.1 200 OK") and b'"Adelie"' in answer


def test_2_11_stuck_worker_is_replaced(models: Path) -> None:
    """A prediction over its deadline is answered 503, and one over twice its deadline gets its worker replaced."""
    with running(models, WEB_CONCURRENCY="1", ANYPORT_REQUEST_TIMEOUT_S="1", SLOW_S="5") as server:
        status, document = server.predict([[1, 2]], SLOW)
        assert (status, document["type"]) == (503, "/problems/overloaded")
        server.await_lines("the worker is replaced", 1)
        server.await_lines("penguins/1 answers now", 2)
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
        ("--dirty-workers 1", "dirty_workers"),
        ("--keep-alive 5", "keepalive"),
    ],
)
def test_2_15_unsafe_settings_end_the_start(flags: str, setting: str, models: Path) -> None:
    """A gunicorn setting that is not safe ends the start with a line that names it and where it came from."""
    env = environment(models, PORT=str(free_port()), GUNICORN_CMD_ARGS=flags)
    status, last = started_in_vain(START_LINE, env)
    assert status not in (None, 0)
    assert last.startswith(f"anyport: gunicorn's {setting} is ") and flags in last


def test_2_15_unsafe_flags_end_the_start(models: Path) -> None:
    """The same holds for a flag on the command line."""
    line = [*START_LINE[:-1], "--worker-class", "gthread", START_LINE[-1]]
    status, last = started_in_vain(line, environment(models, PORT=str(free_port())))
    assert status not in (None, 0)
    assert last.startswith("anyport: gunicorn's worker_class is ") and "--worker-class gthread" in last


def test_2_15_what_the_platforms_inject_is_no_reason_to_end(models: Path) -> None:
    """Heroku's and Render's own GUNICORN_CMD_ARGS start the service, and no access log is written."""
    with running(models, GUNICORN_CMD_ARGS="--access-logfile - --preload", WEB_CONCURRENCY="1") as server:
        assert server.predict([PENGUIN])[1]["predictions"] == ["Adelie"]
        time.sleep(0.2)
        assert not [line for line in server.lines() if line["logger"] == "gunicorn.access"]


def started_in_vain(line: list[str], env: dict[str, str]) -> tuple[int | None, str]:
    """Start a service that is to end by itself; return its status, None if it began to listen, and its last line."""
    with subprocess.Popen(
        line, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        last = ""
        for last in process.stdout:
            if "Listening at" in last:
                process.terminate()
                process.communicate()
                return None, last
        return process.wait(), last


def test_2_10_ending_worker_says_so_and_serves_on(models: Path) -> None:
    """From SIGTERM on the service is not ready, but answers with `Connection: close`, and then ends in order."""
    with running(models, WEB_CONCURRENCY="1", ANYPORT_LAME_DUCK_S="4") as server:
        server.process.send_signal(signal.SIGTERM)
        while (probe := server.request("GET", "/readyz"))[0] == 200:
            time.sleep(0.01)
        assert (probe[0], json.loads(probe[2])["type"]) == (503, "/problems/draining")
        assert server.request("GET", "/livez")[0] == 200
        status, headers, body = server.request("POST", "/predict", one(), {"Content-Type": "application/json"})
        assert (status, headers["Connection"], json.loads(body)["predictions"]) == (200, "close", ["Adelie"])
        assert server.process.wait(timeout=40) == 0


def test_2_10_prediction_that_outlives_the_drain_is_answered(models: Path) -> None:
    """A prediction that would keep the service beyond its time gets 503 and no reset, and nobody need be killed."""
    line = [*START_LINE[:-1], "--graceful-timeout", "4", START_LINE[-1]]
    settings = {"ANYPORT_THREADS": "1", "ANYPORT_QUEUE": "0", "SLOW_S": "4", "ANYPORT_LAME_DUCK_S": "0"}
    with running(models, line, WEB_CONCURRENCY="1", **settings) as server, ThreadPoolExecutor(2) as pool:
        asked = occupy(server, pool)
        assert server.stop() == 0
        assert not any("SIGKILL" in line["message"] for line in server.lines())
        status, document = asked.result()
        assert (status, document["type"]) == (503, "/problems/draining")


def test_2_13_preloading_loads_no_model(models: Path) -> None:
    """Even where somebody switched preloading on, it is the workers that load the models and answer golden rows."""
    with running(models, WEB_CONCURRENCY="2", GUNICORN_CMD_ARGS="--preload") as server:
        loaded = [line["pid"] for line in server.lines() if line["message"].endswith(" answers now")]
        assert loaded and server.process.pid not in loaded


def test_whoever_waited_longest_is_served_first() -> None:
    """What wakes the loop comes before a listener, that before connections, a new one before one just served."""

    def ready(data: object) -> tuple[selectors.SelectorKey, int]:
        return selectors.SelectorKey(0, 0, selectors.EVENT_READ, data), selectors.EVENT_READ

    with socket.socket() as new, socket.socket() as served, socket.socket() as listener:
        connections = [Connection(client, None, None) for client in (new, served)]
        connections[1].served_at = 5.0
        events = [ready(data) for data in (connections[1], connections[0], listener, None)]
        assert [key.data for key, _ in sorted(events, key=_precedence)] == [None, listener, *connections]


@pytest.mark.parametrize("threads", [False, True], ids=["loop", "threads"])
@pytest.mark.parametrize(("fault", "times"), [("reload", 3), ("restart", 4), ("recycle", 4)])
def test_2_10_no_request_is_lost(fault: str, times: int, threads: bool) -> None:
    """Under reloads, restarts and recycling every request that was sent gets its right answer, whoever computes it."""
    counted = witness(fault, times, threads=threads)
    assert counted.pop("right") > 50
    counted.pop("refused", None)  # nobody listened, so nothing was sent
    assert not counted


def test_killed_worker_loses_only_what_it_had() -> None:
    """SIGKILL of a worker loses at most the connections that it held, and gives no wrong answer."""
    counted = witness("kill", 1)
    lost = sum(count for name, count in counted.items() if name.startswith("lost"))
    assert lost <= 16 and counted["right"] > 50 and counted["wrong"] == 0
    assert not [name for name in counted if name.startswith("status")]
