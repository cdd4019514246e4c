"""Google's clients of Vertex AI: the REST client behind a stand-in for the platform, and those that ask a container.

Each is shown the service as Vertex AI starts it: at its own routes, at routes that are none of ours, and at none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.store import Store
from tests import zoo
from tests.conftest import PENGUIN, ROOT, PackModel
from tests.server import Server, free_port, running
from tests.vendors.tools import ask

CLOUD = """
import base64, json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import requests
from google.api.httpbody_pb2 import HttpBody
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1.services.prediction_service import PredictionServiceClient
from google.cloud.aiplatform_v1.services.prediction_service.transports.rest import PredictionServiceRestTransport
from google.protobuf.json_format import MessageToDict
container, calls = sys.argv[1], json.loads(sys.argv[2])
endpoint = "projects/p/locations/l/endpoints/e"

class Platform(BaseHTTPRequestHandler):
    def do_POST(self):
        asked, _, verb = self.path.partition("?")[0].partition(":")
        assert (asked, self.headers["Content-Type"]) == ("/v1/" + endpoint, "application/json"), self.path
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if verb == "rawPredict":
            body = base64.b64decode(json.loads(body)["httpBody"]["data"])
        answer = requests.post(container, body, headers={"Content-Type": "application/json"})
        told = answer.content
        if verb == "rawPredict" and answer.ok:
            data = base64.b64encode(told).decode()
            told = json.dumps({"contentType": answer.headers["Content-Type"], "data": data}).encode()
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *said):
        pass

def outcome(call, *asked, **said):
    try:
        return call(*asked, **said)
    except GoogleAPICallError as error:
        return [type(error).__name__, error.code, error.message]

def predict(**said):
    answer = client.predict(endpoint=endpoint, **said)
    return {"deployed": answer.deployed_model_id, "predictions": MessageToDict(answer._pb).get("predictions")}

def raw_predict(body):
    answer = client.raw_predict(endpoint=endpoint, http_body=HttpBody(data=body))
    return {"type": answer.content_type, "document": json.loads(answer.data)}

platform = ThreadingHTTPServer(("127.0.0.1", 0), Platform)
threading.Thread(target=platform.serve_forever, daemon=True).start()
host, credentials = f"127.0.0.1:{platform.server_port}", AnonymousCredentials()
transport = PredictionServiceRestTransport(host=host, url_scheme="http", credentials=credentials)
client = PredictionServiceClient(transport=transport)
print(json.dumps({
    "predict": [outcome(predict, **said) for said in calls],
    "raw": [outcome(raw_predict, body) for body in (json.dumps(calls[0]).encode(), b"{")],
}))
"""
LOCAL = """
import json, sys
from google.cloud.aiplatform.prediction import LocalEndpoint
port, predict, health, file, rows = *sys.argv[1:5], json.loads(sys.argv[5])
routes = {"serving_container_predict_route": predict, "serving_container_health_route": health}
endpoint = LocalEndpoint("an-image", host_port=port, **routes)
endpoint.container_is_running = True
right, wrong = json.dumps({"instances": rows}), json.dumps({"instances": [{}]})
with open(file, "w") as target:
    target.write(right)
answers = [
    endpoint.predict(request=right),
    endpoint.predict(request=right, headers={"Content-Type": "application/json"}),
    endpoint.predict(request_file=file),
    endpoint.predict(request=wrong),
]
health = endpoint.run_health_check().status_code
print(json.dumps({"health": health, "answers": [[answer.status_code, answer.json()] for answer in answers]}))
"""
PRIVATE = """
import json, sys
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform import PrivateEndpoint
from google.cloud.aiplatform_v1.types import DeployedModel, Endpoint, PrivateEndpoints
predict, health, rows = *sys.argv[1:3], json.loads(sys.argv[3])
ways = PrivateEndpoints(predict_http_uri=predict, health_http_uri=health)
resource = Endpoint(
    name="projects/p/locations/us-central1/endpoints/1",
    network="projects/1/global/networks/n",
    create_time={"seconds": 1},
    deployed_models=[DeployedModel(id="77", private_endpoints=ways)],
)
endpoint = PrivateEndpoint._construct_sdk_resource_from_gapic(
    resource, project="p", location="us-central1", credentials=AnonymousCredentials()
)
body = json.dumps({"instances": rows}).encode()
try:
    refusal = endpoint.predict(instances=[{}])
except RuntimeError as error:
    refusal = str(error)
print(json.dumps({
    "health": endpoint.health_check(),
    "plain": endpoint.predict(instances=rows).predictions,
    "shares": endpoint.predict(instances=rows, parameters={"probabilities": True}).predictions,
    "raw": json.loads(endpoint.raw_predict(body, {"Content-Type": "application/json"}).data),
    "refusal": refusal,
}))
"""

PLATFORM = {
    "AIP_MODE": "PREDICTION",
    "AIP_MODE_VERSION": "1.0.0",
    "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
    "AIP_STORAGE_URI": "",
    "AIP_PROJECT_NUMBER": "1",
    "AIP_ENDPOINT_ID": "1",
    "AIP_MACHINE_TYPE": "n1-standard-2",
}
"""What Vertex AI sets for every container, beside port, routes and the deployed model."""
DEFAULT_ROUTE = "/v1/endpoints/1/deployedModels/2"
WAYS = {
    "our-routes": ("/predict", "/health", "77", True),
    "other-routes": ("/score-here", "/well", "77", True),
    "default-routes": (f"{DEFAULT_ROUTE}:predict", DEFAULT_ROUTE, "2", True),
    "no-routes": (f"{DEFAULT_ROUTE}:predict", DEFAULT_ROUTE, "2", False),
}
"""Where the platform asks for predictions and health, what it calls the model, and whether it tells the container."""
ROWS = [PENGUIN, PENGUIN | {"bill_length_mm": 49.0, "flipper_length_mm": 220.0, "body_mass_g": 5200.0}]


@dataclass
class Deployed:
    """A service that runs as on Vertex AI: where the platform asks it, and what it calls the model."""

    server: Server
    predict: str
    health: str
    model: str

    def cloud(self, calls: list[dict[str, Any]], home: Path) -> Any:
        """Ask through the platform, with Google's REST client."""
        container = f"http://127.0.0.1:{self.server.port}{self.predict}"
        return ask("google-cloud-aiplatform", CLOUD, container, json.dumps(calls), home=home)

    def local(self, rows: list[Any], home: Path) -> Any:
        """Ask the container itself, with Google's client of containers on one's own machine."""
        said = (str(self.server.port), self.predict, self.health, str(home / "request.json"), json.dumps(rows))
        return ask("google-cloud-aiplatform", LOCAL, *said, home=home)


@contextmanager
def started(models: Path, predict: str, health: str, model: str, *, told: bool = True) -> Iterator[Deployed]:
    """Run the service with the environment that Vertex AI gives its containers, with its routes or without."""
    routes = {"AIP_PREDICT_ROUTE": predict, "AIP_HEALTH_ROUTE": health, "AIP_DEPLOYED_MODEL_ID": model} if told else {}
    port = free_port()
    told_port = {"AIP_HTTP_PORT": str(port), "PORT": ""}
    ours = {"WEB_CONCURRENCY": "1", "ANYPORT_MAX_BODY_BYTES": "8192"}
    variables: dict[str, Any] = PLATFORM | told_port | routes | ours
    with running(models, port=port, **variables) as server:
        yield Deployed(server, predict, health, model)


@pytest.fixture(scope="module", params=list(WAYS.values()), ids=list(WAYS))
def deployed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The demo model in a service that runs as on Vertex AI."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path_factory.mktemp("deployed") / "models"))
    predict, health, model, told = request.param
    with started(models, predict, health, model, told=told) as deployed:
        yield deployed


def native(server: Server, rows: list[Any]) -> tuple[list[Any], list[dict[str, Any]]]:
    """Return the labels that the native protocol gives, and what Vertex AI's clients must see of them with shares."""
    status, said = server.predict(rows, "/v1/models/penguins:predict?probabilities=true")
    assert status == 200
    shares = [
        {"prediction": label, "classes": said["classes"], "scores": scores}
        for label, scores in zip(said["predictions"], said["probabilities"], strict=True)
    ]
    return said["predictions"], shares


def test_the_platform_s_client(deployed: Deployed, tmp_path: Path) -> None:
    """Google's REST client reads labels, shares and the deployed model as the native protocol has them."""
    rows = [*ROWS, ROWS[1] | {"bill_depth_mm": None, "sex": None}]
    calls: list[dict[str, Any]] = [
        {"instances": rows},
        {"instances": rows, "parameters": {"probabilities": True}},
        {"instances": [list(row.values()) for row in rows], "parameters": {"probabilities": False}},
    ]
    said = deployed.cloud(calls, tmp_path)
    labels, shares = native(deployed.server, rows)
    assert len(set(labels)) > 1
    plain = {"deployed": deployed.model, "predictions": labels}
    assert said["predict"] == [plain, plain | {"predictions": shares}, plain]
    document = {"predictions": labels, "deployedModelId": deployed.model}
    assert said["raw"][0] == {"type": "application/json", "document": document}
    name, code, message = said["raw"][1]
    assert (name, code) == ("BadRequest", 400)
    assert "(request " in message


@pytest.mark.parametrize("deployed", [WAYS["other-routes"]], indirect=True, ids=["other-routes"])
def test_refusals_through_the_platform(deployed: Deployed, tmp_path: Path) -> None:
    """What is wrong with a request reaches Google's client as its own exception with our text."""
    bad_rows = [PENGUIN | {"bill_length_mm": "long"}, {}]
    calls: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({"instances": bad_rows}, ("row 0, 'bill_length_mm'", "row 1", "'sex' is missing")),
        ({"instances": []}, ('{"instances": [...]}',)),
        ({"instances": ROWS, "parameters": {"shares": True}}, ("'shares' is not known",)),
        ({"instances": ROWS, "parameters": {"probabilities": 1}}, ("must be true or false",)),
        ({"instances": ROWS * 40}, ("and may have 8192",)),
    ]
    said = deployed.cloud([call for call, _ in calls], tmp_path)["predict"]
    *refused, too_large = [(name, code) for name, code, _ in said]
    assert refused == [("BadRequest", 400)] * 4 and too_large == ("GoogleAPICallError", 413)
    for (_, texts), (_, _, message) in zip(calls, said, strict=True):
        assert all(text in message for text in texts), message


def test_local_endpoint(deployed: Deployed, tmp_path: Path) -> None:
    """Google's client of local containers finds the service healthy, and reads its predictions and errors."""
    said = deployed.local(ROWS, tmp_path)
    labels, _ = native(deployed.server, ROWS)
    assert said["health"] == 200
    *right, [status, refusal] = said["answers"]
    assert right == [[200, {"predictions": labels, "deployedModelId": deployed.model}]] * 3
    message = refusal["error"].pop("message")
    assert (status, refusal) == (400, {"error": {"code": 400, "status": "INVALID_ARGUMENT"}})
    assert "'island' is missing" in message


@pytest.mark.parametrize("deployed", [WAYS["other-routes"]], indirect=True, ids=["other-routes"])
def test_private_endpoint(deployed: Deployed, tmp_path: Path) -> None:
    """Google's client of private endpoints, which asks the container itself, reads predictions and errors."""
    here = f"http://127.0.0.1:{deployed.server.port}"
    addresses = (here + deployed.predict, here + deployed.health)
    said = ask("google-cloud-aiplatform", PRIVATE, *addresses, json.dumps(ROWS), home=tmp_path)
    labels, shares = native(deployed.server, ROWS)
    refusal = said.pop("refusal")
    assert refusal.startswith("400 - ") and "'island' is missing" in refusal
    document = {"predictions": labels, "deployedModelId": deployed.model}
    assert said == {"health": True, "plain": labels, "shares": shares, "raw": document}


def test_numbers(pack_model: PackModel, tmp_path: Path) -> None:
    """Numbers come back as they were predicted; Google's client sends every number as a fraction, whole ones too."""
    animal = zoo.counts()
    pack_model(animal.model, animal.sample, Store(tmp_path / "models"), name="counts", **animal.choices)
    rows = json.loads(animal.inputs.head(5).to_json(orient="records"))
    assert all(isinstance(row["n"], int) for row in rows)
    with started(tmp_path / "models", "/predict", "/health", "77") as deployed:
        said = deployed.cloud([{"instances": rows}, {"instances": [rows[0] | {"n": 1.5}]}], tmp_path)["predict"]
        assert deployed.server.predict(rows)[1]["predictions"] == said[0]["predictions"]
    assert said[0]["predictions"] == pytest.approx(animal.model.predict(animal.inputs.head(5)).tolist())
    name, code, message = said[1]
    assert (name, code) == ("BadRequest", 400) and "'n'" in message


def test_not_ready(tmp_path: Path) -> None:
    """A service whose model is damaged is unhealthy, and unavailable to every client."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path / "models"))
    (models / "penguins" / "1" / "model.joblib").write_bytes(b"damaged")
    with started(models, "/predict", "/health", "77") as deployed:
        through, local = deployed.cloud([{"instances": ROWS}], tmp_path), deployed.local(ROWS, tmp_path)
    for name, code, message in (through["predict"][0], through["raw"][0]):
        assert (name, code) == ("ServiceUnavailable", 503), message
        assert "penguins/1" in message
    assert local["health"] == 503
    status, refusal = local["answers"][0]
    assert (status, refusal["error"]["status"]) == (503, "UNAVAILABLE")
