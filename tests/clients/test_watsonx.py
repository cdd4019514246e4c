"""IBM's own client of watsonx.ai, which speaks TLS only: so something in front of the service takes TLS off."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.store import Store
from tests import zoo
from tests.conftest import PENGUIN, ROOT, PackModel
from tests.server import Server, running
from tests.vendors.tools import ask, machine_program, run

PRELUDE = """
import asyncio, json, sys
import numpy as np
import pandas as pd
from ibm_watsonx_ai import APIClient, Credentials
from ibm_watsonx_ai.wml_client_error import ApiRequestFailure
url, certificate, name, rows = *sys.argv[1:4], json.loads(sys.argv[4])
client = APIClient(Credentials(url=url, platform_url=url, token="a.b.c", verify=certificate))
client.default_space_id = "a-space"
frame = pd.DataFrame(rows)
fields, values = list(frame), [list(row.values()) for row in rows]

def score(*blocks, name=name, **said):
    return client.deployments.score(name, {"input_data": list(blocks), **said})["predictions"]

def outcome(call, *asked, **said):
    try:
        return call(*asked, **said)
    except ApiRequestFailure as error:
        assert str(error.response.status_code) in str(error) and error.response.text in str(error)
        return [error.response.status_code, error.response.json()]
"""
SCORE = (
    PRELUDE
    + """
forms = {
    "lists": {"fields": fields, "values": values},
    "no fields": {"values": values},
    "frame": {"values": frame},
    "turned": {"values": frame[fields[::-1]].set_index(pd.Index([7] * len(frame)))},
    "categories": {"values": frame.astype({"island": "category"})},
    "array": {"fields": fields, "values": frame.to_numpy(dtype=object)},
    "id": {"id": "a-block", "values": values},
}
said = {form: score(block) for form, block in forms.items()}
body = {"input_data": [{"values": frame}]}
said["meanwhile"] = asyncio.run(client.deployments.ascore(name, body, transaction_id="a-transaction"))["predictions"]
turned = {"fields": fields[::-1], "values": [row[::-1] for row in values]}
blocks = [{"values": frame[1:]}, turned, {"values": values[:1]}]
gaps = frame.isna().sum().sum().item()
print(json.dumps({"gaps": gaps, "forms": said, "blocks": score(*blocks)}))
"""
)
REFUSED = (
    PRELUDE
    + """
asked = {
    "unknown": ([{"values": values}], {"name": "nobody"}),
    "short": ([{"values": [values[0], values[1][:-1]]}], {}),
    "missing": ([{"values": frame.drop(columns="island")}], {}),
    "extra": ([{"values": frame.assign(wings=2)}], {}),
    "null": ([{"values": frame.assign(island=None)}], {}),
    "text": ([{"fields": fields, "values": values}, {"values": frame.assign(body_mass_g="heavy")}], {}),
    "ragged": ([{"fields": fields[:-1], "values": values}], {}),
    "no rows": ([{"values": frame.head(0)}], {}),
    "no blocks": ([], {}),
    "parameters": ([{"values": values}], {"scoring_parameters": {"threshold": 0.5}}),
}
print(json.dumps({case: outcome(score, *blocks, **said) for case, (blocks, said) in asked.items()}))
"""
)
DETAILS = (
    PRELUDE
    + """
details = client.deployments.get_details(name)
print(json.dumps({
    "id": client.deployments.get_id(details), "href": client.deployments.get_scoring_href(details),
    "name": details["metadata"]["name"], "created": details["metadata"]["created_at"],
    "state": details["entity"]["status"]["state"], "type": details["entity"]["deployed_asset_type"],
    "scores": score({"values": frame}), "other": outcome(client.deployments.get_details, name.replace("a", "b")),
}))
"""
)

OTHER = {"bill_length_mm": 49.0, "flipper_length_mm": 220.0, "body_mass_g": 5200.0, "island": "Biscoe"}
ROWS: list[dict[str, Any]] = [PENGUIN, PENGUIN | OTHER, PENGUIN | OTHER | {"sex": None, "bill_length_mm": None}]
REFUSALS = {
    "unknown": (404, "unknown_model", "no model is called 'nobody'"),
    "short": (400, "invalid_instance", "row 1: expected 6 values in signature order, found 5"),
    "missing": (400, "missing_feature", "'island' is missing"),
    "extra": (400, "unknown_feature", "'wings' is not a feature of this model"),
    "null": (400, "invalid_instance", "'island' is null and the model takes no missing value here"),
    "text": (400, "invalid_instance", "'body_mass_g': block 1: expected a number, found the text 'heavy'"),
    "ragged": (400, "invalid_instances", "row 0 of `input_data` has 6 values, and there are 5 columns"),
    "no rows": (400, "empty_instances", "0 rows were sent; send at least 1"),
    "no blocks": (400, "invalid_document", "`input_data` must be a list of 1 to 100 blocks"),
    "parameters": (400, "unknown_parameter", "this model takes no `scoring_parameters`"),
}
"""Status, code and text of each refusal."""
ID = "a47ac10b-58cc-4372-a567-0e02b2c3d479"
"""The client looks up no deployment whose id has another shape; to score it takes any."""


@dataclass
class Deployed:
    """A service, and the TLS front through which IBM's client asks it."""

    server: Server
    url: str
    certificate: Path

    def ask(self, code: str, name: str, rows: list[Any], home: Path) -> Any:
        """Run code of the client."""
        return ask("ibm-watsonx-ai", code, self.url, str(self.certificate), name, json.dumps(rows), home=home)


@contextmanager
def front(server: Server, folder: Path) -> Iterator[Deployed]:
    """Take TLS off requests to `localhost`, with a certificate made for the purpose, and pass them on."""

    class Front(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            service = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            service.request(self.command, self.path, body or None, dict(self.headers.items()))
            answer = service.getresponse()
            told = answer.read()
            service.close()
            self.send_response(answer.status)
            for name in ("Content-Type", "Content-Length"):
                self.send_header(name, answer.headers[name])
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = [
        machine_program("openssl"),
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]
    made += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    done = run([*made, "-keyout", str(key), "-out", str(certificate)], folder)
    assert done.returncode == 0, done.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Front) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield Deployed(server, f"https://localhost:{listening.server_port}", certificate)
        finally:
            listening.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The demo model in a service behind TLS, to which nobody has named a protocol."""
    folder = tmp_path_factory.mktemp("deployed")
    models = Path(shutil.copytree(ROOT / "models", folder / "models"))
    with running(models, WEB_CONCURRENCY="1") as server, front(server, folder) as deployed:
        yield deployed


def test_score(deployed: Deployed, tmp_path: Path) -> None:
    """Lists, frames and arrays, with missing values, get labels and shares of the native protocol, block by block."""
    said = deployed.ask(SCORE, "penguins", ROWS, tmp_path)
    status, native = deployed.server.predict(ROWS, "/predict?probabilities=true")
    assert status == 200
    values = [list(pair) for pair in zip(native["predictions"], native["probabilities"], strict=True)]
    assert len(set(native["predictions"])) > 1 and said["gaps"] == 2
    fields = ["prediction", "probability"]
    assert len(said["forms"]) == 8
    for form, blocks in said["forms"].items():
        assert blocks == [{"fields": fields, "values": values}], form
    assert said["blocks"] == [{"fields": fields, "values": each} for each in (values[1:], values, values[:1])]


def test_refusals(deployed: Deployed, tmp_path: Path) -> None:
    """What cannot be answered is the client's exception, with the status, IBM's form of errors and our text."""
    said = deployed.ask(REFUSED, "penguins", ROWS, tmp_path)
    assert said.keys() == REFUSALS.keys()
    for case, (status, code, text) in REFUSALS.items():
        found, document = said[case]
        assert (found, document["status_code"]) == (status, str(status)), case
        [fault] = document["errors"]
        assert fault["code"] == code, case
        assert text in fault["message"] and document["trace"] in fault["message"], case


def test_details(pack_model: PackModel, store: Store, models_dir: Path, tmp_path: Path) -> None:
    """A model is found as a deployment under its name, and scored there; one without shares answers predictions."""
    animal = zoo.counts()
    packed = pack_model(animal.model, animal.sample, store, name=ID, **animal.choices)
    rows = json.loads(animal.inputs.head(5).to_json(orient="records"))
    with running(models_dir, WEB_CONCURRENCY="1") as server, front(server, tmp_path) as deployed:
        said = deployed.ask(DETAILS, ID, rows, tmp_path)
        status, native = server.predict(rows, f"/v1/models/{ID}:predict")
    assert status == 200
    assert said.pop("scores") == [{"fields": ["prediction"], "values": [[each] for each in native["predictions"]]}]
    found, document = said.pop("other")
    assert (found, document["errors"][0]["code"]) == (404, "unknown_model")
    assert said.pop("href").endswith(f"/ml/v4/deployments/{ID}/predictions")
    created = str(packed.manifest.created)
    assert said == {"id": ID, "name": ID, "created": created, "state": "ready", "type": "model"}


def test_not_ready(tmp_path: Path) -> None:
    """A service without a model has no deployments."""
    (tmp_path / "models").mkdir()
    with running(tmp_path / "models", WEB_CONCURRENCY="1") as server, front(server, tmp_path) as deployed:
        said = deployed.ask(REFUSED, "penguins", ROWS, tmp_path)
    for status, document in said.values():
        assert (status, document["errors"][0]["code"]) == (404, "unknown_model")
