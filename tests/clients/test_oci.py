"""Oracle's own client of model deployments, behind a stand-in for the cloud, with what oracle-ads makes of data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from service.store import Store
from tests.conftest import PENGUIN, ROOT, PackModel
from tests.server import Server, running
from tests.vendors.tools import ask

# All of ads needs 670 MB; its serializer needs none of what the packages above it import.
PRELUDE = """
import http.client, importlib.util, json, logging, sys, threading, types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import numpy as np
import pandas as pd
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from oci.exceptions import ServiceError
from oci.model_deployment import ModelDeploymentClient
from oci.retry import NoneRetryStrategy
[ads] = importlib.util.find_spec("ads").submodule_search_locations
for name in ("ads", "ads.common", "ads.common.decorator", "ads.model", "ads.model.serde"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [ads + name.removeprefix("ads").replace(".", "/")]
sys.modules["ads.common"].logger = logging.getLogger("ads")
from ads.model.serde.model_input import JsonModelInputSerializer
port, deployment, rows = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])

class Cloud(BaseHTTPRequestHandler):
    def do_POST(self):
        _, asked, verb = self.path.split("/")
        assert asked == deployment and self.headers["Authorization"].startswith("Signature "), self.path
        body = self.rfile.read(int(self.headers["Content-Length"]))
        service = http.client.HTTPConnection("127.0.0.1", port)
        service.request("POST", "/" + verb, body, dict(self.headers))
        answer = service.getresponse()
        told = answer.read()
        self.send_response(answer.status)
        for name in ("Content-Type", "Content-Length"):
            self.send_header(name, answer.headers[name])
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *said):
        pass

cloud = ThreadingHTTPServer(("127.0.0.1", 0), Cloud)
threading.Thread(target=cloud.serve_forever, daemon=True).start()
key = rsa.generate_private_key(65537, 2048)
forms = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
config = {"user": "ocid1.user.oc1..a", "tenancy": "ocid1.tenancy.oc1..a", "region": "us-ashburn-1"}
config |= {"fingerprint": ":".join(["aa"] * 16), "key_content": key.private_bytes(*forms).decode()}
endpoint = f"http://127.0.0.1:{cloud.server_port}"
client = ModelDeploymentClient(config, service_endpoint=endpoint, retry_strategy=NoneRetryStrategy())
packed = JsonModelInputSerializer().serialize

def predict(body):
    try:
        return json.loads(client.predict(deployment, body).data)
    except ServiceError as error:
        return [error.status, error.code, error.message]
"""
FORMS = (
    PRELUDE
    + """
frame = pd.DataFrame(rows)
lists = [list(row.values()) for row in rows]
bodies = {
    "object": {"data": rows},
    "text": json.dumps({"data": lists}),
    "bytes": json.dumps({"data": rows}).encode(),
    "frame": packed(frame),
    "frame in text": json.dumps(packed(frame)),
    "turned frame": packed(frame[frame.columns[::-1]].set_index(pd.Index(["c", "a", "b"]))),
    "frame of categories": packed(frame.astype({"island": "category"})),
    "list of lists": packed(lists),
    "list of objects": packed(rows),
    "tuple": packed(tuple(lists)),
    "series": packed(pd.Series(lists)),
    "columns": packed({name: [row[name] for row in rows] for name in rows[0]}),
}
said = {form: predict(body) for form, body in bodies.items()}
whole = predict({"data": rows, "parameters": {"probabilities": True}})
texts = [form for form, body in bodies.items() if isinstance(body, dict) and isinstance(body["data"], str)]
print(json.dumps({"gaps": frame.isna().sum().sum().item(), "texts": texts, "said": said, "whole": whole}))
"""
)
ARRAYS = (
    PRELUDE
    + """
array = np.array(rows, float)
arrays = {
    "rows": array,
    "columns": np.asfortranarray(array),
    "big end first": array.astype(">f8"),
    "single": array.astype("float32"),
    "whole": np.nan_to_num(array).astype("int16"),
    "infinite": np.nan_to_num(array, nan=np.inf),
    "one row": array[0],
    "wide": np.hstack([array, array]),
    "none": array[:0],
    "texts": array.astype(str),
    "solid": array[None],
}
print(json.dumps({form: predict(packed(each)) for form, each in arrays.items()}))
"""
)
REFUSED = (
    PRELUDE
    + """
frame = pd.DataFrame(rows)
bodies = {
    "missing": packed([{name: row[name] for name in row if name != "island"} for row in rows]),
    "missing column": packed(frame.drop(columns="island")),
    "unknown": packed(frame.assign(wings=2)),
    "null": packed(frame.assign(island=None)),
    "text": packed(frame.assign(body_mass_g="heavy")),
    "short": packed([[39.1, 18.7]]),
    "none": packed(frame.head(0)),
    "plain text": packed("39.1,18.7"),
    "parameters": {"data": rows, "parameters": {"shares": True}},
    "field": {"data": rows, "instances": rows},
    "broken": '{"data": ',
    "large": {"data": rows * 40},
}
print(json.dumps({case: predict(body) for case, body in bodies.items()}))
"""
)
NOT_READY = (
    PRELUDE
    + """
try:
    print(json.dumps(client.predict(deployment, {"data": rows}).data))
except ServiceError as error:
    print(json.dumps([type(error).__name__, error.status, error.code, error.message]))
"""
)

DEPLOYMENT = "ocid1.datasciencemodeldeployment.oc1.iad.a-deployment"
OTHER = {"bill_length_mm": 49.0, "flipper_length_mm": 220.0, "body_mass_g": 5200.0, "island": "Biscoe"}
ROWS: list[dict[str, Any]] = [PENGUIN, PENGUIN | OTHER, PENGUIN | OTHER | {"sex": None, "bill_length_mm": None}]
REFUSALS = {
    "missing": "row 0: 'island' is missing",
    "missing column": "'island' is missing",
    "unknown": "'wings' is not a feature of this model",
    "null": "row 0: 'island' is null and the model takes no missing value here",
    "text": "row 0, 'body_mass_g': expected a number, found the text 'heavy'",
    "short": "row 0: expected 6 values in signature order, found 2",
    "none": "0 rows were sent; send at least 1",
    "plain text": "send lists, or a frame or an array as oracle-ads does",
    "parameters": "the parameter 'shares' is not known",
    "field": "the field 'instances' is not known",
    "broken": "line 1",
    "large": "and may have 8192",
}
"""What stands in the text of each refusal."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo model in a service that runs as on OCI."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path_factory.mktemp("served") / "models"))
    limit = "8192"
    with running(models, WEB_CONCURRENCY="1", MODEL_DEPLOYMENT_OCID=DEPLOYMENT, ANYPORT_MAX_BODY_BYTES=limit) as server:
        yield server


def ask_cloud(code: str, server: Server, rows: list[Any], home: Path) -> Any:
    """Run code of the client, with the cloud between it and the service."""
    return ask("oci", code, str(server.port), DEPLOYMENT, json.dumps(rows), home=home)


def native(server: Server, rows: list[Any]) -> Any:
    """Return what the native protocol predicts, at a path that is nobody else's."""
    status, said = server.predict(rows, "/v1/models/penguins:predict?probabilities=true")
    assert status == 200
    assert len(set(said["predictions"])) > 1
    return said


def test_client_reads_every_answer(server: Server, tmp_path: Path) -> None:
    """All that oracle-ads makes of data, with missing values, gets the labels and shares of the native protocol."""
    said = ask_cloud(FORMS, server, ROWS, tmp_path)
    told = native(server, ROWS)
    assert said["gaps"] == 2
    assert said["texts"] == ["frame", "turned frame", "frame of categories"]
    assert len(said["said"]) == 12
    for form, document in said["said"].items():
        assert document == {"prediction": told["predictions"]}, form
    shares = {"probabilities": told["probabilities"], "classes": told["classes"]}
    assert said["whole"] == {"prediction": told["predictions"]} | shares


def test_client_raises_what_we_refuse(server: Server, tmp_path: Path) -> None:
    """What cannot be answered is the client's ServiceError, with OCI's status and code and our text."""
    said = ask_cloud(REFUSED, server, ROWS, tmp_path)
    assert said.keys() == REFUSALS.keys()
    for case, text in REFUSALS.items():
        wanted = (413, "RequestEntityTooLarge") if case == "large" else (400, "InvalidParameter")
        status, code, message = said[case]
        assert (status, code) == wanted, case
        assert text in message and "(request " in message, case


def test_arrays(pack_model: PackModel, tmp_path: Path) -> None:
    """Arrays of numbers are read in every order and size of numbers, NaN a missing value, and other arrays refused.

    Nobody has named a protocol to this service: it hears OCI's from the body.
    """
    numbers = np.random.default_rng(0).integers(0, 40, (200, 3)) / 4
    numbers[::7, 1] = np.nan
    sample = pandas.DataFrame(numbers, columns=["a", "b", "c"])
    model = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(sample, numbers[:, 0] > numbers[:, 2])
    store = Store(tmp_path / "models")
    pack_model(model, sample.assign(more=numbers[:, 0] > numbers[:, 2]), store, name="penguins", targets=("more",))
    rows = [[None if cell != cell else cell for cell in row] for row in numbers[:9].tolist()]
    whole = [[int(cell or 0) for cell in row] for row in rows]
    assert None in rows[0] and any(cell and cell % 1 for row in rows for cell in row)
    with running(tmp_path / "models", WEB_CONCURRENCY="1") as server:
        said = ask_cloud(ARRAYS, server, rows, tmp_path)
        for form in ("rows", "columns", "big end first", "single"):
            assert said.pop(form) == {"prediction": native(server, rows)["predictions"]}, form
        assert said.pop("whole") == {"prediction": native(server, whole)["predictions"]}
    texts = {
        "infinite": "row 0, 'b'",
        "one row": "an array of numbers of shape [rows, 3]",
        "wide": "an array of numbers of shape [rows, 3]",
        "none": "0 rows were sent",
        "texts": "an array of numbers of shape [rows, 3]",
        "solid": "an array of numbers of shape [rows, 3]",
    }
    assert said.keys() == texts.keys()
    for form, (status, code, message) in said.items():
        assert (status, code) == (400, "InvalidParameter") and texts[form] in message, form


def test_not_ready(models_dir: Path, tmp_path: Path) -> None:
    """A model that cannot be opened is an error that the client holds to be temporary, and tries again where it may."""
    (models_dir / "penguins" / "1" / "model.joblib").write_bytes(b"")
    with running(models_dir, WEB_CONCURRENCY="1", MODEL_DEPLOYMENT_OCID=DEPLOYMENT) as server:
        name, status, code, message = ask_cloud(NOT_READY, server, ROWS, tmp_path)
    assert (name, status, code) == ("TransientServiceError", 503, "ServiceUnavailable")
    assert message.startswith("penguins/1 is not being served (checksum-mismatch)")
