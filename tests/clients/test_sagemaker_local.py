"""AWS's own local mode: its wait for `/ping`, its client of `/invocations`, and its batch transform."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.server import Server, running
from tests.vendors.tools import ask

CONNECT = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from sagemaker.core import deserializers, serializers
from sagemaker.core.local import entities, local_session
for module in (entities, local_session):
    module.get_docker_host = lambda: "127.0.0.1"
port, home = int(sys.argv[1]), Path(sys.argv[2])
config = {"local": {"serving_port": port, "container_root": str(home), "health_check_timeout": 10}}
client = local_session.LocalSagemakerRuntimeClient(config)
"""
INVOKE = (
    CONNECT
    + """
import pandas as pd
entities._wait_for_serving_container(port, timeout=10)
rows = json.loads(sys.argv[3])
frame = pd.DataFrame(rows)
lists = [list(row.values()) for row in rows]
csv, document, lines = serializers.CSVSerializer(), serializers.JSONSerializer(), serializers.JSONLinesSerializer()
asked = {
    "CSV": (csv, frame, deserializers.CSVDeserializer()),
    "JSON": (document, {"instances": rows}, deserializers.JSONDeserializer()),
    "list": (document, lists, deserializers.JSONDeserializer()),
    "lines": (lines, lists, deserializers.JSONLinesDeserializer()),
    "refused": (csv, frame.assign(body_mass_g="heavy"), deserializers.JSONDeserializer()),
}
said = {}
for name, (writer, data, reader) in asked.items():
    answer = client.invoke_endpoint(
        writer.serialize(data), "penguins", writer.CONTENT_TYPE, ", ".join(reader.ACCEPT), CustomAttributes=name
    )
    told = answer["ResponseMetadata"]
    attributes = {key.lower(): value for key, value in told["HTTPHeaders"].items()}.get(sys.argv[4].lower())
    read = reader.deserialize(answer["Body"], answer["ContentType"])
    said[name] = {"status": told["HTTPStatusCode"], "attributes": attributes, "read": read}
print(json.dumps(said))
"""
)
NOT_READY = (
    CONNECT
    + """
import time
time.sleep = lambda seconds: None
try:
    said = f"answered {entities._wait_for_serving_container(port, timeout=20)}"
except RuntimeError as error:
    said = str(error)
print(json.dumps(said))
"""
)
TRANSFORM = (
    CONNECT
    + """
class Container:
    def __init__(self, *arguments): pass
    def serve(self, model, environment): self.environment = environment
    def stop_serving(self): pass

entities._SageMakerContainer = Container
container = {"Image": "anyport", "ModelDataUrl": "file:///", "Environment": {}}
models = SimpleNamespace(describe_model=lambda name: {"PrimaryContainer": container})
session = SimpleNamespace(config=config, sagemaker_client=models, sagemaker_runtime_client=client)
source, kind, said = Path(sys.argv[3]), sys.argv[4], []
for strategy in ("MultiRecord", "SingleRecord"):
    job = entities._LocalTransformJob(strategy, "penguins", session)
    job.start(
        {"DataSource": {"S3DataSource": {"S3Uri": source.as_uri()}}, "ContentType": kind, "SplitType": "Line"},
        {"S3OutputPath": (home / strategy).as_uri(), "Accept": kind, "AssembleWith": "Line"},
        {"InstanceType": "local", "InstanceCount": 1},
        BatchStrategy=strategy,
    )
    said.append([job.describe()["TransformJobStatus"], (home / strategy / f"{source.name}.out").read_text()])
print(json.dumps(said))
"""
)

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
CSV, JSON_LINES = "text/csv", "application/jsonlines"
COUNT = 500
ANSWERS = "/invocations"


def penguins(count: int) -> list[dict[str, Any]]:
    """Return penguins as different as they come, some with what nobody measured."""
    chance = random.Random(7)
    found: list[dict[str, Any]] = [
        {
            "bill_length_mm": round(chance.uniform(32.1, 59.6), 1),
            "bill_depth_mm": round(chance.uniform(13.1, 21.5), 1),
            "flipper_length_mm": float(chance.randint(172, 231)),
            "body_mass_g": float(chance.randrange(2700, 6300, 25)),
            "island": chance.choice(["Biscoe", "Dream", "Torgersen"]),
            "sex": chance.choice(["female", "male", None]),
        }
        for _ in range(count)
    ]
    for row in found[::10]:
        row["bill_length_mm"] = None
    return found


def long_cell(value: Any) -> str:
    """Write a value as a cell, a number with so many digits that 500 rows are more than a megabyte."""
    return "" if value is None else f"{value:.600f}" if isinstance(value, float) else str(value)


def long_json(value: Any) -> str:
    """Write a value as JSON, a number with as many digits."""
    return f"{value:.600f}" if isinstance(value, float) else json.dumps(value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service under gunicorn that takes one megabyte at once."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path_factory.mktemp("served") / "models"))
    with running(models, WEB_CONCURRENCY="1", ANYPORT_MAX_BODY_BYTES=str(2**20)) as server:
        yield server


def test_client_reads_every_answer(server: Server, tmp_path: Path) -> None:
    """What AWS's serializers write is answered so that its deserializers read the native protocol's labels."""
    rows = penguins(20)
    said = ask("sagemaker-core", INVOKE, str(server.port), str(tmp_path), json.dumps(rows), ATTRIBUTES, home=tmp_path)
    status, native = server.predict(rows)
    assert status == 200
    labels = native["predictions"]
    assert len(set(labels)) == 3
    refused = said.pop("refused")
    assert (refused["status"], refused["attributes"], refused["read"]["error_code"]) == (400, None, "BAD_REQUEST")
    assert "row 0, 'body_mass_g': expected a number, found the text 'heavy'" in refused["read"]["message"]
    read = {
        "CSV": [[label] for label in labels],
        "JSON": {"predictions": labels},
        "list": labels,
        "lines": labels,
    }
    assert said == {name: {"status": 200, "attributes": name, "read": found} for name, found in read.items()}


def test_wait_ends_only_with_a_model(tmp_path: Path) -> None:
    """AWS's wait gives a service up that has no model."""
    models = tmp_path / "models"
    models.mkdir()
    with running(models, WEB_CONCURRENCY="1") as server:
        said = ask("sagemaker-core", NOT_READY, str(server.port), str(tmp_path), home=tmp_path)
    assert said == "Giving up, endpoint didn't launch correctly"


@pytest.mark.parametrize("kind", [CSV, JSON_LINES])
def test_batch_transform(kind: str, server: Server, tmp_path: Path) -> None:
    """A file of 500 rows becomes one of 500 lines, whether its rows are sent one by one or as many as we take."""
    rows = penguins(COUNT)
    status, native = server.predict(rows)
    assert status == 200
    source = tmp_path / "rows"
    with source.open("w") as target:
        for row in rows:
            if kind == CSV:
                target.write(",".join(map(long_cell, row.values())) + "\n")
            else:
                target.write("{" + ",".join(f'"{name}": {long_json(value)}' for name, value in row.items()) + "}\n")
    assert source.stat().st_size > 2**20
    before = sum(line.get("route") == ANSWERS for line in server.lines())
    said = ask("sagemaker-core", TRANSFORM, str(server.port), str(tmp_path), str(source), kind, home=tmp_path)
    wanted = "".join(f"{label if kind == CSV else json.dumps(label)}\n" for label in native["predictions"])
    assert wanted.count("\n") == COUNT
    assert said == [["Completed", wanted]] * 2
    sizes: list[Any] = [line.get("rows") for line in server.lines() if line.get("route") == ANSWERS][before:]
    assert len(sizes) == 2 + COUNT and sum(sizes[:2]) == COUNT and sizes[2:] == [1] * COUNT
