"""Alibaba's own client of PAI-EAS, against a service that checks no token, and against one that checks it itself."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PENGUIN, ROOT
from tests.server import Server, running
from tests.vendors.tools import ask

CLIENT = """
import json, sys
from eas_prediction import PredictClient, PredictException, StringRequest
said = []
for call in json.loads(sys.argv[1]):
    client = PredictClient(call["endpoint"], call["service"], call.get("custom_url", ""))
    if "token" in call:
        client.set_token(call["token"])
    client.set_content_type(call.get("content_type", ""))
    client.add_extra_headers(call.get("headers", {}))
    client.init()
    try:
        said.append(json.loads(client.predict(StringRequest(call["body"])).response_data))
    except PredictException as error:
        said.append([error.code, error.message.decode()])
    client.destroy()
print(json.dumps(said))
"""

OTHER = {"bill_length_mm": 49.0, "flipper_length_mm": 220.0, "body_mass_g": 5200.0, "island": "Biscoe"}
ROWS: list[dict[str, Any]] = [PENGUIN, PENGUIN | OTHER, PENGUIN | OTHER | {"sex": None, "bill_length_mm": None}]
LISTS = [list(row.values()) for row in ROWS]
CSV = "\n".join(",".join("" if cell is None else str(cell) for cell in row) for row in [list(PENGUIN), *LISTS])
BODIES = {
    "objects": json.dumps({"data": ROWS}),
    "lists": json.dumps({"data": LISTS}),
    "instances": json.dumps({"instances": ROWS}),
    "columns": json.dumps({"inputs": {name: [row[name] for row in ROWS] for name in PENGUIN}}),
    "csv": CSV,
}
SAID_TYPES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "set": {"content_type": "application/json"},
    "charset": {"content_type": "application/json; charset=utf-8"},
    "header": {"headers": {"Content-Type": "application/json"}},
    "octets": {"content_type": "application/octet-stream"},
}
"""How a caller says what the body is."""
TOKEN = "a secret: Geheimnis/=+"
PREFIX = "/behind/a-proxy"
Change = Callable[[str, dict[str, str], bytes], tuple[str, dict[str, str], bytes]]
CHANGES: dict[str, Change] = {
    "body": lambda path, headers, body: (path, headers, body.replace(b"5200.0", b"5201.0")),
    "service": lambda path, headers, body: (path.replace("penguins", "twin"), headers, body),
    "date": lambda path, headers, body: (path, headers | {"Date": "Thu, 01 Jan 1970 00:00:00 GMT"}, body),
    "type": lambda path, headers, body: (path, headers | {"Content-Type": "application/json"}, body),
    "signature": lambda path, headers, body: (path, headers | {"Authorization": f"EAS {28 * 'A'}"}, body),
}
"""What is done to a request on its way."""


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service of one model that checks no token."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path_factory.mktemp("open") / "models"))
    with running(models, WEB_CONCURRENCY="1") as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service of two models that checks the token, and speaks EAS's words at `/` too."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path_factory.mktemp("guarded") / "models"))
    manifest = Path(shutil.copytree(models / "penguins", models / "twin")) / "1" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"name": "twin"}))
    with running(models, WEB_CONCURRENCY="1", ANYPORT_EAS_TOKEN=TOKEN, ANYPORT_PROTOCOL="eas") as server:
        yield server


@contextmanager
def changing(port: int, change: Change) -> Iterator[str]:
    """Run a proxy that changes requests on their way to a port; yield its address."""

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            path, headers, body = change(self.path, dict(self.headers.items()), body)
            service = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            service.request("POST", path, body, headers | {"Content-Length": str(len(body))})
            answer = service.getresponse()
            told = answer.read()
            service.close()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_port}"
        finally:
            proxy.shutdown()
            thread.join()


def here(server: Server) -> str:
    """Return the address of a service."""
    return f"http://127.0.0.1:{server.port}"


def call(endpoint: str, body: str = BODIES["objects"], **said: Any) -> dict[str, Any]:
    """Describe one call of the client."""
    return {"endpoint": endpoint, "service": "penguins", "body": body} | said


def outcomes(calls: list[dict[str, Any]], home: Path) -> list[Any]:
    """Make the calls; return the document of each answer, or status and text of the client's exception."""
    said: list[Any] = ask("eas-prediction", CLIENT, json.dumps(calls), home=home)
    assert len(said) == len(calls)
    return said


def native(server: Server, *, shares: bool = False) -> dict[str, Any]:
    """Return what the native protocol predicts for the rows."""
    status, said = server.predict(ROWS, f"/v1/models/penguins:predict?probabilities={str(shares).lower()}")
    assert status == 200
    assert len(set(said["predictions"])) > 1
    return {name: said[name] for name in ("predictions", "probabilities", "classes") if name in said}


def refused(outcome: Any, status: int, code: str, text: str) -> None:
    """Check that a call ended in the client's exception, with the status and our own code and text."""
    assert isinstance(outcome, list), outcome
    assert outcome[0] == status, outcome
    document = json.loads(outcome[1])
    assert document["code"] == code
    assert text in document["message"]


def test_without_token(open_server: Server, tmp_path: Path) -> None:
    """Where no token is checked rows of every form are answered, under any service's name, with a token or without."""
    calls = [call(here(open_server), body) for body in BODIES.values()]
    calls += [call(here(open_server), token="any"), call(here(open_server), service="any")]
    calls += [call("", service="", custom_url=f"{here(open_server)}/api/predict/penguins")]
    assert outcomes(calls, tmp_path) == [native(open_server)] * len(calls)


@pytest.mark.parametrize("said_type", SAID_TYPES)
def test_signature(said_type: str, guarded: Server, tmp_path: Path) -> None:
    """What the client signs is accepted, whatever it says of the body's type and wherever the type stands."""
    calls = [
        call(here(guarded), body, token=TOKEN, **SAID_TYPES[said_type])
        for form, body in BODIES.items()
        if form != "csv" or "json" not in str(SAID_TYPES[said_type])
    ]
    assert outcomes(calls, tmp_path) == [native(guarded)] * len(calls)


def test_signed_csv_and_shares(guarded: Server, tmp_path: Path) -> None:
    """Signed CSV is read, text that is not ASCII too, and the body may ask for class probabilities."""
    foreign = json.dumps({"data": [*ROWS[:2], ROWS[2] | {"sex": "weiß nicht"}]}, ensure_ascii=False)
    shares = json.dumps({"data": ROWS, "parameters": {"probabilities": True}})
    calls = [call(here(guarded), CSV, token=TOKEN, content_type="text/csv")]
    calls += [call(here(guarded), body, token=TOKEN) for body in (shares, foreign)]
    csv, whole, unseen = outcomes(calls, tmp_path)
    assert csv == native(guarded)
    assert whole == native(guarded, shares=True)
    assert len(unseen["predictions"]) == len(ROWS)


def test_wrong_token(guarded: Server, tmp_path: Path) -> None:
    """Without the token, or with another, the client raises status 401, signed or not."""
    wrong = ["", "x", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper()]
    calls = [call(here(guarded), token=token) for token in wrong] + [call(here(guarded))]
    calls += [call("", token=token, custom_url=f"{here(guarded)}/api/predict/penguins") for token in wrong]
    calls += [call("", token="x", custom_url=f"{here(guarded)}{path}") for path in ("/", "/protocols/eas/")]
    for outcome in outcomes(calls, tmp_path):
        refused(outcome, 401, "unauthorized", "is not the service's token")


def test_custom_url(guarded: Server, tmp_path: Path) -> None:
    """With an address of its own the client sends the token as it is, also where the path is cut."""
    paths = (
        "/api/predict/penguins",
        "/api/predict/twin",
        "/protocols/eas/api/predict/penguins",
        "/protocols/eas/",
        "/",
    )
    calls = [call("", token=TOKEN, custom_url=here(guarded) + path) for path in paths]
    assert outcomes(calls, tmp_path) == [native(guarded)] * len(paths)
    shares = call("", token=TOKEN, custom_url=f"{here(guarded)}/api/predict/penguins?probabilities=true")
    assert outcomes([shares], tmp_path) == [native(guarded, shares=True)]


def test_behind_a_prefix(guarded: Server, tmp_path: Path) -> None:
    """A prefix of the path, which the client does not sign, may be ours, or one that a proxy takes off."""

    def cut(path: str, headers: dict[str, str], body: bytes) -> tuple[str, dict[str, str], bytes]:
        assert path.startswith(PREFIX)
        return path.removeprefix(PREFIX), headers, body

    with changing(guarded.port, cut) as proxy:
        endpoints = (f"{here(guarded)}/", f"{here(guarded)}/protocols/eas", proxy + PREFIX, f"127.0.0.1:{guarded.port}")
        right = [call(endpoint, token=TOKEN) for endpoint in endpoints]
        wrong = [call(endpoint, token="x") for endpoint in endpoints]
        said = outcomes(right + wrong, tmp_path)
    assert said[: len(right)] == [native(guarded)] * len(right)
    for outcome in said[len(right) :]:
        refused(outcome, 401, "unauthorized", "is not the service's token")


@pytest.mark.parametrize("changed", CHANGES)
def test_changed_on_the_way(changed: str, guarded: Server, tmp_path: Path) -> None:
    """A signed request of which anything that is signed was changed is refused; unchanged it is answered."""
    with (
        changing(guarded.port, CHANGES[changed]) as meddling,
        changing(guarded.port, lambda *whole: whole) as honest,
    ):
        right, wrong = outcomes([call(honest, token=TOKEN), call(meddling, token=TOKEN)], tmp_path)
    assert right == native(guarded)
    refused(wrong, 401, "unauthorized", "is not the service's token")


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "open"])
def test_errors(signed: bool, open_server: Server, guarded: Server, tmp_path: Path) -> None:
    """What is wrong with a request is the client's exception, with status 400 or 404 and our own text."""
    server = guarded if signed else open_server
    token = {"token": TOKEN} if signed else {}
    island = {name: value for name, value in PENGUIN.items() if name != "island"}
    wanted = {
        json.dumps({"data": [PENGUIN, island]}): ("missing-feature", "row 1: 'island' is missing"),
        json.dumps({"data": [PENGUIN | {"island": None}]}): ("invalid-instance", "takes no missing value"),
        json.dumps({"data": [LISTS[0][:-1]]}): ("invalid-instance", "row 0: expected 6 values"),
        json.dumps({"data": [PENGUIN | {"body_mass_g": "heavy"}]}): ("invalid-instance", "found the text 'heavy'"),
        json.dumps({"data": []}): ("empty-instances", "0 rows"),
        json.dumps({"dataRows": [PENGUIN]}): ("unknown-field", "'dataRows'"),
        '{"data": ': ("invalid-json", "line 1"),
        "": ("invalid-json", "line 1"),
        "bill_length_mm\n39.1": ("missing-feature", "the column 'bill_depth_mm' is missing"),
    }
    said = outcomes([call(here(server), body, **token) for body in wanted], tmp_path)
    for outcome, (code, text) in zip(said, wanted.values(), strict=True):
        refused(outcome, 400, code, text)
    [path] = outcomes([call(here(server), service="penguins/no/such", **token)], tmp_path)
    refused(path, 404, "not-found", "nothing at this path")


def test_unknown_service(guarded: Server, tmp_path: Path) -> None:
    """Where there are several models a service's name must be one of theirs."""
    twin, nobody = outcomes([call(here(guarded), service=name, token=TOKEN) for name in ("twin", "nobody")], tmp_path)
    assert twin == native(guarded)
    refused(nobody, 404, "unknown-model", "'nobody'")
