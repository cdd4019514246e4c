"""Clients of the Open Inference Protocol that nobody here wrote: Triton's, and one made from the specification."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.protocols import openinference
from tests.conftest import PENGUIN, ROOT
from tests.server import Server, running
from tests.vendors.tools import ask

TRITON = """
import json, sys
import numpy as np
from tritonclient import http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype
address, rows, binary = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] == "binary"
client = http.InferenceServerClient(address)
inputs = []
for name in rows[0]:
    values = np.array([row[name] for row in rows])
    values = values.astype(object) if values.dtype.kind == "U" else values
    tensor = http.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
    tensor.set_data_from_numpy(values, binary_data=binary)
    inputs.append(tensor)
wanted = [http.InferRequestedOutput(name, binary_data=binary) for name in ("species", "species_probabilities")]
answer = client.infer("penguins", inputs, model_version="1", outputs=wanted, request_id="asked-1")
plain = client.infer("penguins", inputs)
try:
    client.infer("penguins", inputs[1:])
    refusal = ""
except InferenceServerException as error:
    refusal = f"{error.status()} {error.message()}"
print(json.dumps({
    "live": client.is_server_live(), "ready": client.is_server_ready(), "model": client.is_model_ready("penguins"),
    "version": client.is_model_ready("penguins", "1"), "other": client.is_model_ready("nobody"),
    "server": client.get_server_metadata()["name"], "inputs": len(client.get_model_metadata("penguins")["inputs"]),
    "labels": np.asarray(answer.as_numpy("species")).tolist(), "id": answer.get_response()["id"],
    "shares": answer.as_numpy("species_probabilities").tolist(),
    "plain": [output["name"] for output in plain.get_response()["outputs"]], "refusal": refusal,
}))
"""
GENERATED = """
import json, sys
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.types import InferenceRequest, RequestInput
client = OpenInferenceClient(base_url=sys.argv[1])
request = InferenceRequest.parse_raw(sys.argv[2])
client.check_server_liveness(), client.check_server_readiness()
client.check_model_readiness("penguins"), client.check_model_version_readiness("penguins", "1")
told = client.read_model_version_metadata("penguins", "1")
answers = [client.model_infer("penguins", request=request)]
answers += [client.model_version_infer("penguins", "1", request=request)]
refusals = []
for name, bad in (("penguins", request.copy(update={"inputs": request.inputs[1:]})), ("nobody", request)):
    try:
        client.model_infer(name, request=bad)
    except ApiError as error:
        refusals.append([error.status_code, error.body["error"]])
print(json.dumps({
    "server": client.read_server_metadata().name, "versions": told.versions,
    "model": told == client.read_model_metadata("penguins"),
    "outputs": [output.name for output in told.outputs], "refusals": refusals,
    "answers": [json.loads(answer.json()) for answer in answers],
}))
"""

ROWS = [PENGUIN, PENGUIN | {"bill_length_mm": 49.0, "flipper_length_mm": 220.0, "body_mass_g": 5200.0}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service under gunicorn."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path_factory.mktemp("served") / "models"))
    with running(models, WEB_CONCURRENCY="1") as server:
        yield server


@pytest.mark.parametrize("form", ["binary", "json"])
def test_triton_s_client(form: str, server: Server, home: Path) -> None:
    """Triton's client finds the model, and reads labels and shares as the native protocol gives them."""
    said = ask("tritonclient", TRITON, f"127.0.0.1:{server.port}", json.dumps(ROWS), form, home=home)
    status, native = server.predict(ROWS, "/predict?probabilities=true")
    assert status == 200
    shares, refusal = said.pop("shares"), said.pop("refusal")
    assert shares == native["probabilities"]
    assert refusal.startswith("400 ") and "is missing" in refusal
    assert said == {
        **{name: True for name in ("live", "ready", "model", "version")},
        "other": False,
        "server": "anyport",
        "inputs": len(PENGUIN),
        "labels": native["predictions"],
        "id": "asked-1",
        "plain": ["species"],
    }


def test_client_made_from_the_specification(server: Server, home: Path) -> None:
    """The client that was generated from the specification reads every answer of ours, errors included."""
    sent = openinference.encode_request(ROWS, probabilities=True).decode()
    said = ask("open-inference-openapi", GENERATED, f"http://127.0.0.1:{server.port}", sent, home=home)
    _, native = server.predict(ROWS)
    [bad, unknown] = said.pop("refusals")
    assert (bad[0], unknown[0]) == (400, 404)
    assert "is missing" in bad[1] and "'nobody'" in unknown[1]
    assert all(answer["outputs"][0]["data"] == native["predictions"] for answer in said.pop("answers"))
    outputs = ["species", "species_probabilities"]
    assert said == {"server": "anyport", "versions": ["1"], "model": True, "outputs": outputs}
