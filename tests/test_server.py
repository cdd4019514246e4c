"""The service as a process: real gunicorn on a free port, with everything that its users do to it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from service.packing import Choices, pack
from service.runtimes import Policy
from service.store import Store
from tests.bad_requests import BAD_REQUESTS, LIMITS, Bad, one
from tests.conftest import PENGUIN, ROOT
from tests.server import START_LINE, Server, environment, free_port, running
from tests.slow import SlowSum
from tests.web.test_bad_requests import check_problem
from tests.zoo import counts

pytestmark = pytest.mark.slow


def pack_into(folder: Path, name: str, model: Any, sample: Any, **choices: Any) -> None:
    """Pack a model into the models folder of a test."""
    joblib.dump(model, folder / f"{name}.joblib")
    sample.to_csv(folder / f"{name}.csv", index=False)
    pack(folder / f"{name}.joblib", folder / f"{name}.csv", Store(folder / "models"), Policy(), Choices(**choices))


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with penguins, a small regressor, boosting on OpenMP, and a slow model."""
    folder = tmp_path_factory.mktemp("stock")
    shutil.copytree(ROOT / "models", folder / "models")
    animal = counts()
    pack_into(folder, "counts", animal.model, animal.sample, **animal.choices)
    rows = pandas.DataFrame(np.random.default_rng(0).normal(size=(400, 4)), columns=list("abcd"))
    pack_into(folder, "boosting", HistGradientBoostingRegressor(max_iter=30).fit(rows, rows.sum(axis=1)), rows)
    pack_into(folder, "slow", SlowSum().fit(rows), rows)
    return folder / "models"


@pytest.fixture(scope="module")
def server(stocked: Path) -> Any:
    """A running service with small limits."""
    limits = {f"ANYPORT_{name.upper()}": str(value) for name, value in LIMITS.items()}
    with running(stocked, **limits) as running_server:
        yield running_server


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: bad.name)
def test_bad_request_over_the_wire(bad: Bad, server: Server) -> None:
    """Through real gunicorn, too, a bad request meets its problem, and the next good request is answered."""
    status, headers, body = server.request(bad.method, bad.path, bad.body, bad.headers)
    check_problem(status, headers, json.loads(body), bad)
    assert server.predict([PENGUIN])[1]["predictions"] == ["Adelie"]


CHUNKED = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
COUNTED = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n%s"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(COUNTED % (500, one()), 400, id="truncated body"),
        pytest.param(CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n", 400, id="malformed chunk"),
        pytest.param(CHUNKED + b"5\r\nab", 400, id="chunk that ends early"),
        pytest.param(CHUNKED + b"5000\r\n" + b" " * 0x5000 + b"\r\n0\r\n\r\n", 413, id="chunked body over the limit"),
        pytest.param(COUNTED % (10**12, b""), 413, id="declared length over the limit"),
        pytest.param(b"POST /predict HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400, id="no Host"),
    ],
)
def test_1_2_broken_framing_is_the_clients_fault(request_bytes: bytes, status: int, server: Server) -> None:
    """A body that is cut, malformed or too long is a 4xx problem, never a prediction and never a 5xx."""
    answer = server.raw(request_bytes, half_close=True)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"application/problem+json" in answer
    assert server.predict([PENGUIN])[0] == 200


@pytest.mark.parametrize(
    "field", [b"X_Request_ID: forged", b"SCRIPT_NAME: /v1", b"SCRIPT-NAME: /v1", b"PATH_INFO: /livez"]
)
def test_2_15_ambiguous_headers_change_nothing(field: bytes, server: Server) -> None:
    """A header that WSGI could take for another one is dropped."""
    answer = server.raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + field + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK") and b'"models"' in answer and b"forged" not in answer


def test_chunked_body_is_answered(server: Server) -> None:
    """A chunked request without Content-Length is answered like any other."""
    body = one()
    request = CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answer = server.raw(request + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert answer.startswith(b"HTTP/1.1 200 ") and b'"Adelie"' in answer


def test_5_30_every_request_is_one_line_of_json(server: Server) -> None:
    """A request is logged once with its facts; a probe is not logged."""
    server.request("GET", "/livez", headers={"X-Request-ID": "probe-1"})
    headers = {"X-Request-ID": "asked-1", "Content-Type": "application/json"}
    status, answered, _ = server.request("POST", "/v1/models/penguins:predict", one(), headers)
    assert (status, answered["X-Request-ID"], answered["Anyport-Model"]) == (200, "asked-1", "penguins/1")
    logged = [line for line in server.lines() if line.get("request_id") in ("asked-1", "probe-1")]
    assert len(logged) == 1
    facts = {key: logged[0][key] for key in ("method", "route", "status", "rows", "model", "version")}
    assert facts == {
        "method": "POST",
        "route": "/v1/models/<name>:predict",
        "status": 200,
        "rows": 1,
        "model": "penguins",
        "version": "1",
    }
    assert logged[0]["milliseconds"] > 0


@pytest.mark.parametrize("ending", ["SIGTERM", "Ctrl-C"])
def test_2_10_ending_answers_what_is_in_flight(ending: str, stocked: Path) -> None:
    """SIGTERM, and Ctrl-C in a terminal, end the service with status 0 after it has answered what it was doing."""
    with running(stocked, SLOW_S="0", WEB_CONCURRENCY="1", ANYPORT_THREADS="4") as quick:
        assert quick.predict([[1, 2, 3, 4]], "/v1/models/slow:predict")[1]["predictions"] == [10.0]
    with (
        running(stocked, SLOW_S="1.5", WEB_CONCURRENCY="1", ANYPORT_THREADS="4") as server,
        ThreadPoolExecutor(4) as pool,
    ):
        asked = [pool.submit(server.predict, [[1, 2, 3, n]], "/v1/models/slow:predict") for n in range(4)]
        time.sleep(0.7)
        status = server.stop(signal.SIGINT, group=True) if ending == "Ctrl-C" else server.stop()
        assert [answer.result()[1]["predictions"] for answer in asked] == [[6.0], [7.0], [8.0], [9.0]]
    assert status == 0


@pytest.mark.parametrize("arguments", ["", "--preload"])
def test_2_13_openmp_model_survives_the_fork(arguments: str, stocked: Path) -> None:
    """A model that computes with OpenMP threads answers in every worker, even where somebody switched preloading on."""
    with running(stocked, OMP_NUM_THREADS="2", WEB_CONCURRENCY="2", GUNICORN_CMD_ARGS=arguments) as server:
        workers: set[int] = set()
        with ThreadPoolExecutor(8) as pool:
            while len(workers) < 2:  # a worker that hangs is never seen, and the requests to it time out
                asked = [
                    pool.submit(server.predict, [[1, 1, 1, 1]] * 40, "/v1/models/boosting:predict") for _ in range(32)
                ]
                assert {answer.result()[0] for answer in asked} == {200}
                workers = {line["pid"] for line in server.lines() if line.get("model") == "boosting"}


def test_2_12_flipped_byte_refuses_one_model_and_not_the_other(stocked: Path, tmp_path: Path) -> None:
    """A model whose file was altered is refused with a typed message; the others answer; /readyz names it with 503."""
    models = Path(shutil.copytree(stocked, tmp_path / "models"))
    file = models / "counts" / "1" / "model.joblib"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with running(models) as server:
        status, document = server.predict([[1, "Fair"]], "/v1/models/counts:predict")
        assert (status, document["type"]) == (503, "/problems/not-ready")
        assert "counts/1" in document["detail"] and "checksum-mismatch" in document["detail"]
        assert server.predict([PENGUIN])[0] == 200
        status, _, body = server.request("GET", "/readyz")
        assert status == 503
        assert (
            "counts/1" in body.decode() and "checksum-mismatch" in body.decode() and str(tmp_path) not in body.decode()
        )
        assert server.request("GET", "/livez")[0] == 200


def start_and_end(models_dir: Path, command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Start a service that is to end by itself, and return its status and all that it said."""
    env = environment(models_dir, PORT=str(free_port()), WEB_CONCURRENCY="1") | variables
    return subprocess.run(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("variables", "last_line"),
    [
        ({"ANYPORT_MAX_ROWS": "many"}, "anyport: ANYPORT_MAX_ROWS='many' is not usable"),
        ({"PORT": "http"}, "anyport: PORT='http' is not usable"),
        ({"ANYPORT_MAX_ROW": "5"}, "anyport: ANYPORT_MAX_ROW is not a setting; did you mean ANYPORT_MAX_ROWS?"),
        ({"ANYPORT_MODELS_DIR": "/nowhere"}, "anyport: ANYPORT_MODELS_DIR='/nowhere' is not a folder"),
    ],
)
def test_unusable_setting_ends_the_start(variables: dict[str, str], last_line: str, models_dir: Path) -> None:
    """An unusable setting ends the start at once, with a last line that names the variable."""
    ended = start_and_end(models_dir, START_LINE, **variables)
    assert ended.returncode != 0
    assert ended.stdout.splitlines()[-1].startswith(last_line)


@pytest.mark.parametrize("app", ["tests.broken:app", "service.wsgi:nothing"])
def test_2_12_app_that_cannot_start_ends_the_master(app: str, models_dir: Path) -> None:
    """An app that fails in its worker ends the master with a clear last line instead of a crash loop."""
    ended = start_and_end(models_dir, [*START_LINE[:-1], app])
    assert ended.returncode != 0
    assert ended.stdout.count("Booting worker") == 1
    assert "anyport did not start" in ended.stdout.splitlines()[-1]


def test_flask_command_names_an_unusable_setting(models_dir: Path) -> None:
    """A `flask` command answers an unusable setting with one line that names it."""
    env = environment(models_dir, ANYPORT_THREADS="x")
    command = [sys.executable, "-m", "flask", "models"]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    [line] = [line for line in ended.stderr.splitlines() if "ANYPORT_THREADS" in line]
    assert line.startswith("Error: ANYPORT_THREADS='x' is not usable") and "Traceback" not in ended.stderr


def test_2_9_flask_run_serves_the_same_app(models_dir: Path) -> None:
    """`flask run` answers like gunicorn."""
    with running(models_dir, [sys.executable, "-m", "flask", "run", "--no-reload"]) as server:
        assert server.predict([PENGUIN])[1] == {"predictions": ["Adelie"], "model": "penguins", "version": "1"}
