"""boto3's client of SageMaker's endpoints, through a stand-in for what AWS has between it and a container."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.conftest import PENGUIN, ROOT
from tests.server import Server, running
from tests.vendors.tools import ask

CONNECT = """
import json, sys
import boto3
from botocore.config import Config
client = boto3.client(
    "sagemaker-runtime", region_name="eu-central-1", endpoint_url=sys.argv[1], aws_access_key_id="an-id",
    aws_secret_access_key="a-secret", config=Config(retries={"total_max_attempts": 1}),
)
asked, said = json.loads(sys.argv[2]), {}
"""
INVOKE = (
    CONNECT
    + """
for name, given in asked.items():
    answer = client.invoke_endpoint(EndpointName="penguins", **given)
    told = {key: answer.get(key) for key in ("ContentType", "CustomAttributes", "InvokedProductionVariant")}
    said[name] = told | {"Body": answer["Body"].read().decode()}
print(json.dumps(said))
"""
)
REFUSED = (
    CONNECT
    + """
for name, given in asked.items():
    try:
        answer = client.invoke_endpoint(**{"EndpointName": "penguins"} | given)
        said[name] = {"answered": answer["Body"].read().decode()}
    except client.exceptions.ModelError as error:
        kept = ("OriginalStatusCode", "OriginalMessage")
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        said[name] = {key: error.response[key] for key in kept} | {"status": status, "text": str(error)}
print(json.dumps(said))
"""
)

ROWS: list[dict[str, Any]] = [
    PENGUIN,
    PENGUIN | {"bill_length_mm": 49.0, "flipper_length_mm": 220.0, "body_mass_g": 5200.0, "island": "Biscoe"},
    PENGUIN | {"bill_length_mm": None, "sex": None},
]
LISTS = [list(row.values()) for row in ROWS]
CELLS = "\n".join(",".join("" if value is None else str(value) for value in row) for row in LISTS)
HEADED = "\n".join([",".join(PENGUIN), CELLS])
LINES = "\n".join(map(json.dumps, LISTS))
JSON, CSV, JSON_LINES = "application/json", "text/csv", "application/jsonlines"
ATTRIBUTES = "trace=a1b2;probabilities=true"
VARIANT = "AllTraffic"
READ: dict[str, Callable[[str], Any]] = {
    JSON: json.loads,
    CSV: lambda text: text.split("\n"),
    JSON_LINES: lambda text: [json.loads(line) for line in text.split("\n")],
}
"""How a client reads an answer of each type."""


class Front(BaseHTTPRequestHandler):
    """What stands before the container: it knows the endpoint `penguins`, and wraps what the container refuses."""

    container: Server

    def do_POST(self) -> None:
        """Pass an invocation on, and answer as AWS does."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/endpoints/penguins/invocations" and self.headers["Authorization"].startswith("AWS4-")
        kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "authorization")}
        status, headers, answer = self.container.request("POST", "/invocations", body, kept)
        passed = ("Content-Type", "X-Amzn-SageMaker-Custom-Attributes")
        told = {name: headers[name] for name in passed if name in headers}
        told["x-Amzn-Invoked-Production-Variant"] = VARIANT
        if status >= 300:
            text = answer.decode()
            message = f'Received client error ({status}) from primary with message "{text}".'
            wrapped = {"Message": message, "OriginalMessage": text, "OriginalStatusCode": status, "LogStreamArn": ""}
            status, answer = 424, json.dumps(wrapped).encode()
            told = {"Content-Type": JSON, "x-amzn-ErrorType": "ModelError"}
        self.send_response(status)
        for name, value in told.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def front(container: Server) -> Iterator[str]:
    """Stand before a container until the block ends; the address that clients ask."""
    listener = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Front,), {"container": container}))
    thread = Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}"
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service under gunicorn, to which nobody has named a protocol."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path_factory.mktemp("served") / "models"))
    with running(models, WEB_CONCURRENCY="1") as server:
        yield server


def test_client_reads_every_answer(server: Server, tmp_path: Path) -> None:
    """CSV, JSON lines and both kinds of JSON are answered in kind, with the native protocol's labels and shares."""
    status, native = server.predict(ROWS, "/predict?probabilities=true")
    assert status == 200
    labels, shares = native["predictions"], native["probabilities"]
    assert set(labels) > {labels[0]}
    objects, marked = {"predictions": labels}, {"CustomAttributes": ATTRIBUTES}
    pairs = [{"prediction": label, "probabilities": share} for label, share in zip(labels, shares, strict=True)]
    calls: dict[str, tuple[dict[str, str], str, Any]] = {
        "CSV": ({"Body": CELLS, "ContentType": CSV, "Accept": CSV}, CSV, labels),
        "CSV with a header": ({"Body": HEADED, "ContentType": CSV, "Accept": CSV}, CSV, labels),
        "CSV for JSON": ({"Body": CELLS, "ContentType": CSV}, JSON, objects),
        "CSV without a type": ({"Body": CELLS}, JSON, objects),
        "lines": ({"Body": LINES, "ContentType": JSON_LINES, "Accept": JSON_LINES}, JSON_LINES, labels),
        "lines for CSV": ({"Body": LINES, "ContentType": JSON_LINES, "Accept": CSV}, CSV, labels),
        "list": ({"Body": json.dumps(LISTS), "ContentType": JSON}, JSON, labels),
        "list for anything": ({"Body": json.dumps(LISTS), "ContentType": JSON, "Accept": "*/*"}, JSON, labels),
        "object": ({"Body": json.dumps({"instances": ROWS}), "ContentType": JSON, "Accept": JSON}, JSON, objects),
        "CSV shares": (
            {"Body": CELLS, "ContentType": CSV, "Accept": CSV} | marked,
            CSV,
            [",".join([label, *map(repr, share)]) for label, share in zip(labels, shares, strict=True)],
        ),
        "lines shares": ({"Body": LINES, "ContentType": JSON_LINES, "Accept": JSON_LINES} | marked, JSON_LINES, pairs),
        "list shares": ({"Body": json.dumps(LISTS), "ContentType": JSON} | marked, JSON, pairs),
        "object shares": (
            {"Body": json.dumps({"instances": LISTS}), "ContentType": JSON} | marked,
            JSON,
            {name: native[name] for name in ("predictions", "probabilities", "classes")},
        ),
    }
    with front(server) as address:
        asked = {name: given for name, (given, _, _) in calls.items()}
        said = ask("boto3", INVOKE, address, json.dumps(asked), home=tmp_path)
    for name, (given, kind, expected) in calls.items():
        told, body = said[name], said[name].pop("Body")
        assert READ[kind](body) == expected, name
        assert kind == JSON or not body.endswith("\n"), name
        attributes = given.get("CustomAttributes")
        assert told == {"ContentType": kind, "CustomAttributes": attributes, "InvokedProductionVariant": VARIANT}, name


def test_client_raises_what_the_container_refuses(server: Server, tmp_path: Path) -> None:
    """What is refused is the client's ModelError, with the service's own status and text in it."""
    calls: dict[str, tuple[dict[str, str], int, str]] = {
        "text": ({"Body": CELLS.replace("39.1", "long"), "ContentType": CSV}, 400, "row 0, 'bill_length_mm'"),
        "short": ({"Body": CELLS + "\n1,2", "ContentType": CSV}, 400, "row 3 has 2 cells and there are 6 columns"),
        "null": ({"Body": LINES.replace('"Torgersen"', "null"), "ContentType": JSON_LINES}, 400, "row 0: 'island'"),
        "no JSON": ({"Body": LINES + "\n[1", "ContentType": JSON_LINES}, 400, "line 4 is not JSON"),
        "missing": ({"Body": '{"instances": [{"sex": "male"}]}', "ContentType": JSON}, 400, "is missing"),
        "field": ({"Body": '{"rows": []}', "ContentType": JSON}, 400, "'rows' is not known"),
        "empty": ({"Body": "", "ContentType": CSV}, 400, "send at least 1"),
        "rows": ({"Body": "1\n" * 10_001, "ContentType": JSON_LINES}, 400, "split the request"),
        "type": ({"Body": CELLS, "ContentType": "application/x-npy"}, 415, "'application/x-npy' is not accepted"),
        "accept": ({"Body": CELLS, "ContentType": CSV, "Accept": "image/png"}, 406, "image/png"),
        "attributes": ({"Body": CELLS, "ContentType": CSV, "CustomAttributes": "a" * 1025}, 400, "at most 1024"),
    }
    with front(server) as address:
        asked = {name: given for name, (given, _, _) in calls.items()}
        said = ask("boto3", REFUSED, address, json.dumps(asked), home=tmp_path)
    for name, (_, status, text) in calls.items():
        assert (said[name].get("status"), said[name].get("OriginalStatusCode")) == (424, status), (name, said[name])
        document = json.loads(said[name]["OriginalMessage"])
        assert document.keys() == {"error_code", "message"} and text in document["message"], (name, document)
        assert "ModelError" in said[name]["text"] and text in said[name]["text"]
