"""Every dialect answers the same rows alike, and fails in its own words: each protocol with each kind of model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
import pytest
from flask.testing import FlaskClient

from service import create_app
from service.protocols import PROTOCOLS
from service.settings import Settings
from tests.conftest import PENGUIN, ROOT
from tests.protocols.test_protocols import NAMED
from tests.test_server import pack_into
from tests.zoo import Animal, boosting, several_labels, several_numbers, text

MADE: dict[str, Callable[[], Animal]] = {
    "diamonds": boosting,
    "text": text,
    "numbers": several_numbers,
    "labels": several_labels,
}
MODELS = ["penguins", *MADE]
PREDICT = {
    "native": "/v1/models/{model}:predict",
    "openinference": "/v2/models/{model}/infer",
    "mlflow": "/invocations",
    "sagemaker": "/invocations",
    "vertex": "/predict",
    "azureml": "/score",
    "watsonx": "/ml/v4/deployments/{model}/predictions",
    "oci": "/predict",
    "eas": "/api/predict/{model}",
}
"""Where each protocol predicts, below `/protocols/<name>`."""
QUERY = {"watsonx": {"version": "2026-11-23"}}
SAID: dict[str, Callable[[Any], str]] = {
    "native": lambda error: error["detail"] + error["request_id"],
    "openinference": lambda error: error["error"],
    "mlflow": lambda error: error["message"],
    "sagemaker": lambda error: error["message"],
    "vertex": lambda error: error["error"]["message"],
    "azureml": lambda error: error["message"],
    "watsonx": lambda error: error["errors"][0]["message"],
    "oci": lambda error: error["message"],
    "eas": lambda error: error["message"],
}
"""Where each protocol's clients read what is wrong."""
SHARES: dict[str, Callable[[Any], Any]] = {
    "openinference": lambda answer: np.reshape(answer["outputs"][-1]["data"], answer["outputs"][-1]["shape"]).tolist(),
    "vertex": lambda answer: [each["scores"] for each in answer["predictions"]],
    "watsonx": lambda answer: [row[-1] for row in answer["predictions"][0]["values"]],
}
"""Where its clients read the classes' shares of one output, if not under `probabilities`."""

protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


@dataclass
class Served:
    """A client of an app with one model, and rows for it."""

    client: FlaskClient
    model: str
    rows: list[dict[str, Any]]

    def post(self, protocol: str, body: bytes, path: str | None = None) -> Any:
        """Send a body where a protocol predicts, or to another path below its own."""
        path = path or PREDICT[protocol].format(model=self.model)
        content_type = PROTOCOLS[protocol].REQUEST_TYPES[0]
        return self.client.post(
            f"/protocols/{protocol}{path}",
            data=body,
            query_string=QUERY.get(protocol, {}),
            headers={"Content-Type": content_type},
        )

    def native(self) -> Any:
        """What the native protocol answers to the rows, with probabilities where the model has them."""
        answer = self.post("native", PROTOCOLS["native"].encode_request(self.rows, probabilities=self.has_shares))
        assert answer.status_code == 200, answer.text
        return answer.json

    @property
    def has_shares(self) -> bool:
        """Whether the model has class probabilities."""
        return self.model in ("penguins", "text", "labels")


@pytest.fixture(scope="module", params=MODELS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An app that serves one model."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "penguins":
        shutil.copytree(ROOT / "models", folder / "models")
        rows = [PENGUIN, PENGUIN | {"sex": None, "flipper_length_mm": 220.0}, PENGUIN | {"bill_length_mm": 49}]
    else:
        animal = MADE[request.param]()
        pack_into(folder, request.param, animal.model, animal.sample, **animal.choices)
        rows = json.loads(pandas.DataFrame(animal.inputs).head(5).to_json(orient="records"))
    yield Served(create_app(Settings(models_dir=folder / "models")).test_client(), request.param, rows)


@protocols
def test_same_rows_give_the_same_answers(protocol: str, served: Served) -> None:
    """Predictions are the native ones, whatever the dialect and the kind of model."""
    codec = PROTOCOLS[protocol]
    answer = served.post(protocol, codec.encode_request(served.rows))
    assert answer.status_code == 200, answer.text
    assert answer.headers["Anyport-Model"] == f"{served.model}/1"
    assert codec.decode_response(answer.data) == served.native()["predictions"]


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name not in NAMED])
def test_rows_may_be_lists(protocol: str, served: Served) -> None:
    """Rows in signature order are answered as rows by name are."""
    codec = PROTOCOLS[protocol]
    answer = served.post(protocol, codec.encode_request([list(row.values()) for row in served.rows]))
    assert codec.decode_response(answer.data) == served.native()["predictions"]


@protocols
def test_shares_are_the_native_ones(protocol: str, served: Served) -> None:
    """Class probabilities are the native ones; a model that has none says so in the dialect's words."""
    codec = PROTOCOLS[protocol]
    answer = served.post(protocol, codec.encode_request(served.rows, probabilities=True))
    if not served.has_shares and protocol != "watsonx":  # whose clients do not ask
        assert answer.status_code == 400 and "no class probabilities" in SAID[protocol](answer.json)
        return
    assert answer.status_code == 200, answer.text
    assert codec.decode_response(answer.data) == served.native()["predictions"]
    if served.model in ("penguins", "text"):
        found = SHARES.get(protocol, lambda document: document["probabilities"])(answer.json)
        assert found == served.native()["probabilities"]


@protocols
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row | {next(iter(row)): [1]}, "a list"),
        (lambda row: row | {"no such column": 1}, "no such column"),
        (lambda row: {"other": 1} | dict(list(row.items())[1:]), "is missing"),
    ],
    ids=["wrong type", "unknown column", "missing column"],
)
def test_bad_rows_are_refused_alike(
    protocol: str, change: Callable[[dict[str, Any]], dict[str, Any]], said: str, served: Served
) -> None:
    """What the signature refuses is told in the dialect's words, as a fault of the client."""
    answer = served.post(protocol, PROTOCOLS[protocol].encode_request([change(row) for row in served.rows]))
    if protocol == "openinference" and served.model == "text" and said == "is missing":
        said = "whole rows"  # which a tensor of no feature's name might be, where there is one feature
    assert answer.status_code == (422 if protocol == "native" else 400)
    assert answer.content_type == PROTOCOLS[protocol].ERROR_TYPE
    assert said in answer.text and answer.headers["X-Request-ID"] in SAID[protocol](answer.json)


@protocols
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", ""),
        (b"{", "line 1"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b'{"rows": []}', "'rows'"),
        (b"{}", "send"),
        (b"3", ""),
        (b"[" * 100_000, ""),
        (b'{"instances": [], "inputs": [], "data": [], "input_data": [], "Inputs": []}', ""),
    ],
    ids=["empty", "cut", "twice", "unknown", "nothing", "number", "deep", "every field"],
)
def test_bodies_that_are_no_request(protocol: str, body: bytes, said: str, served: Served) -> None:
    """A body that is no request of the dialect is a fault of the client, told in its words with the request's id."""
    answer = served.post(protocol, body)
    assert answer.status_code in (400, 415, 422), answer.text
    assert said in SAID[protocol](answer.json) and answer.headers["X-Request-ID"] in SAID[protocol](answer.json)


@protocols
def test_what_has_no_route_is_told_in_the_dialect(protocol: str, served: Served) -> None:
    """Unknown paths and methods below a protocol's own are told in its words too."""
    answer = served.post(protocol, b"", "/nothing/here")
    assert answer.status_code == 404 and "nothing at this path" in SAID[protocol](answer.json)
    answer = served.client.delete(f"/protocols/{protocol}{PREDICT[protocol].format(model=served.model)}")
    assert answer.status_code == 405 and "POST" in answer.headers["Allow"]
    assert "this path answers" in SAID[protocol](answer.json)


@protocols
def test_query_is_checked(protocol: str, served: Served) -> None:
    """A parameter of the query that the dialect does not know, or that stands twice, is refused."""
    path = f"/protocols/{protocol}{PREDICT[protocol].format(model=served.model)}?version=2026-11-23"
    body = PROTOCOLS[protocol].encode_request(served.rows)
    headers = {"Content-Type": PROTOCOLS[protocol].REQUEST_TYPES[0]}
    for query in ("&colour=red", "&a=1&a=1", "&version=2026-11-23"):
        answer = served.client.post(path + query, data=body, headers=headers)
        assert answer.status_code == 400, query
        assert SAID[protocol](answer.json)
