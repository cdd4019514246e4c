"""KServe's own REST client, in both of its protocols: V2 is the Open Inference Protocol, V1 our native one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PENGUIN, ROOT
from tests.server import Server, running
from tests.vendors.tools import ask

OUTCOME = """
import asyncio, json, sys
import numpy as np
from httpx import HTTPStatusError
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.utils.numpy_codec import from_np_dtype

async def outcome(asked):
    try:
        return await asked
    except HTTPStatusError as error:
        return [error.response.status_code, str(error), error.response.json()]
"""
V2 = (
    OUTCOME
    + """
base, rows, binary = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] == "binary"

def tensors():
    for name in rows[0]:
        values = [row[name] for row in rows]
        array = np.array(values, dtype=object if isinstance(values[0], str) else float)
        tensor = InferInput(name, list(array.shape), from_np_dtype(array.dtype))
        tensor.set_data_from_numpy(array, binary_data=binary)
        yield tensor

async def main():
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        async def infer(inputs, model="penguins", **said):
            answer = await client.infer(base, InferRequest(model, inputs, **said), model_name=model)
            found = {output.name: output.as_numpy().tolist() for output in answer.outputs}
            return {"id": answer.id, "model": answer.model_name} | found

        inputs = list(tensors())
        outputs = [RequestedOutput(name, {"binary_data": binary}) for name in ("species", "species_probabilities")]
        strange = InferInput("bill_length_mm", [len(rows)], "BYTES", ["long"] * len(rows))
        return {
            "live": await client.is_server_live(base),
            "ready": await client.is_server_ready(base),
            "model": await client.is_model_ready(base, "penguins"),
            "other": await client.is_model_ready(base, "nobody"),
            "all": await infer(inputs, request_id="asked-1", request_outputs=outputs),
            "switch": await infer(inputs, parameters={"probabilities": True, "binary_data_output": binary}),
            "plain": await infer(inputs, request_id="asked-2"),
            "refusals": [
                await outcome(infer(inputs[1:])),
                await outcome(infer([strange, *inputs[1:]])),
                await outcome(infer(inputs, model="nobody")),
            ],
        }

print(json.dumps(asyncio.run(main())))
"""
)
V1 = (
    OUTCOME
    + """
base, rows = sys.argv[1], json.loads(sys.argv[2])

async def main():
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        def infer(document, model="penguins"):
            return client.infer(base, document, model_name=model)

        listed = [list(row.values()) for row in rows]
        return {
            "live": await client.is_server_live(base),
            "model": await client.is_model_ready(base, "penguins"),
            "answers": [
                await infer({"instances": rows}),
                await infer({"instances": listed}),
                await infer({"instances": rows, "parameters": {"probabilities": True}}),
            ],
            "refusals": [
                await outcome(infer({"instances": [rows[0] | {"bill_length_mm": "long"}]})),
                await outcome(infer({"instances": rows}, model="nobody")),
                await outcome(client.explain(base, "penguins", {"instances": rows})),
                await outcome(client.is_model_ready(base, "nobody")),
            ],
        }

print(json.dumps(asyncio.run(main())))
"""
)
NOT_READY = (
    OUTCOME
    + """
async def main():
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as v2, InferenceRESTClient() as v1:
        base = sys.argv[1]
        return {
            "live": await v2.is_server_live(base),
            "ready": await outcome(v2.is_server_ready(base)),
            "v2": await v2.is_model_ready(base, "penguins"),
            "v1": await v1.is_model_ready(base, "penguins"),
            "infer": await outcome(v2.infer(base, {"inputs": []}, model_name="penguins")),
        }

print(json.dumps(asyncio.run(main())))
"""
)

ROWS: list[dict[str, Any]] = [
    PENGUIN,
    PENGUIN | {"bill_length_mm": 49.0, "flipper_length_mm": 220.0, "body_mass_g": 5200.0},
    PENGUIN | {"bill_depth_mm": None, "bill_length_mm": 49.0},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service under gunicorn."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path_factory.mktemp("served") / "models"))
    with running(models, WEB_CONCURRENCY="1") as server:
        yield server


def address(server: Server) -> str:
    """Return where the service is, as KServe's client wants it."""
    return f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("path", ["", "/protocols/openinference"], ids=["root", "prefix"])
@pytest.mark.parametrize("form", ["binary", "json"])
def test_v2(form: str, path: str, server: Server, tmp_path: Path) -> None:
    """KServe's client finds server and model, and reads labels, shares and errors; a missing value is NaN or null."""
    said = ask("kserve", V2, address(server) + path, json.dumps(ROWS), form, home=tmp_path)
    status, native = server.predict(ROWS, "/predict?probabilities=true")
    assert status == 200 and len(set(native["predictions"])) > 1
    assert (said["live"], said["ready"], said["model"], said["other"]) == (True, True, True, False)
    named = {"model": "penguins", "species": native["predictions"]}
    shares = {"species_probabilities": native["probabilities"]}
    assert said["all"] == named | shares | {"id": "asked-1"}
    assert said["plain"] == named | {"id": "asked-2"}
    assert len(said["switch"].pop("id")) == len("00000000-0000-0000-0000-000000000000")
    assert said["switch"] == named | shares
    wanted = [(400, "'bill_length_mm' is missing"), (400, "'bill_length_mm'"), (404, "'nobody'")]
    for (status, text), (found, message, document) in zip(wanted, said["refusals"], strict=True):
        assert found == status, message
        assert text in document["error"] and message.startswith(document["error"])


def test_v1(server: Server, tmp_path: Path) -> None:
    """The same client in its older protocol gets our native documents, errors included."""
    said = ask("kserve", V1, address(server), json.dumps(ROWS), home=tmp_path)
    [_, plain], [_, shares] = server.predict(ROWS), server.predict(ROWS, "/predict?probabilities=true")
    assert (said["live"], said["model"]) == (True, True)
    assert said["answers"] == [plain, plain, shares]
    assert [found for found, *_ in said["refusals"]] == [422, 404, 404, 404]
    bad, unknown, _, absent = [document for *_, document in said["refusals"]]
    assert [fault["feature"] for fault in bad["errors"]] == ["bill_length_mm"]
    assert "'nobody'" in unknown["detail"] and "'nobody'" in absent["detail"]


def test_not_ready(tmp_path: Path) -> None:
    """A server whose model is damaged lives and is not ready, in the client's eyes too."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path / "models"))
    (models / "penguins" / "1" / "model.joblib").write_bytes(b"damaged")
    with running(models, WEB_CONCURRENCY="1") as server:
        said = ask("kserve", NOT_READY, address(server), home=tmp_path)
    assert (said["live"], said["v2"], said["v1"]) == (True, False, False)
    for status, message, document in (said["ready"], said["infer"]):
        assert status == 503
        assert "penguins/1" in document["error"] and message.startswith(document["error"])
