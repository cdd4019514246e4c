"""What each cloud's routes have beside predictions: headers, ids, tokens, and whose words shared paths speak."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.protocols import PROTOCOLS
from tests.conftest import PENGUIN

ROWS = [PENGUIN, PENGUIN | {"bill_length_mm": 49.0, "flipper_length_mm": 220.0, "body_mass_g": 5200.0}]
LABELS = ["Adelie", "Gentoo"]
LISTS = [list(row.values()) for row in ROWS]
CSV = "".join(",".join(map(str, row)) + "\n" for row in LISTS)
HEADER = ",".join(PENGUIN) + "\n"
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


# /predict and /invocations, which several clouds have


@pytest.mark.parametrize("content_type", [None, "application/json", "application/octet-stream", "text/plain"])
def test_oci_s_body_is_known_at_predict(content_type: str | None, client: FlaskClient) -> None:
    """At `/predict` a document that begins with `data` is OCI's, and answered and refused in its words."""
    headers = {"Content-Type": content_type} if content_type else {}
    assert client.post("/predict", data=json.dumps({"data": LISTS}), headers=headers).json == {"prediction": LABELS}
    refused = client.post("/predict", data=' {"data" : 1}', headers=headers)
    assert refused.status_code == 400 and refused.json["code"] == "InvalidParameter"


def test_named_routes_are_native_alone(client: FlaskClient) -> None:
    """At a path with a model's name a body of OCI's is none."""
    answer = client.post("/v1/models/penguins:predict", json={"data": LISTS})
    assert (answer.status_code, answer.json["type"]) == (422, "/problems/unknown-field")


def test_data_rows_are_rows(client: FlaskClient) -> None:
    """The native protocol takes rows as `dataRows`, as Apteo's clients send them."""
    assert client.post("/predict", json={"dataRows": ROWS}).json["predictions"] == LABELS


@pytest.mark.parametrize("content_type", [None, "application/json", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": list(PENGUIN), "index": [0, 1], "data": LISTS}},
        {"dataframe_split": {"data": LISTS}},
        {"dataframe_records": ROWS},
        {"instances": ROWS},
        {"instances": LISTS, "params": None},
        {"inputs": LISTS},
        {"inputs": {name: [row[name] for row in ROWS] for name in PENGUIN}, "params": {"probabilities": False}},
    ],
    ids=lambda body: "+".join(body),
)
def test_mlflow_s_forms_at_invocations(body: dict[str, Any], content_type: str | None, client: FlaskClient) -> None:
    """All of MLflow's forms are answered with `predictions`, with any Content-Type and with none."""
    headers = {"Content-Type": content_type} if content_type else {}
    for path in ("/invocations", "/protocols/mlflow/invocations"):
        answer = client.post(path, data=json.dumps(body), headers=headers)
        assert (answer.status_code, answer.json) == (200, {"predictions": LABELS})


@pytest.mark.parametrize(
    ("body", "content_type", "accept", "expected"),
    [
        (CSV, "text/csv", "text/csv", b"Adelie\nGentoo"),
        (HEADER + CSV, "text/csv; charset=utf-8", "text/csv", b"Adelie\nGentoo"),
        ("\ufeff" + CSV, "text/csv", "text/csv", b"Adelie\nGentoo"),
        (CSV.replace("\n", "\r\n"), "text/csv", "text/csv", b"Adelie\nGentoo"),
        (CSV.removesuffix("\n"), "", "text/csv", b"Adelie\nGentoo"),
        (CSV, "text/csv", "text/csv; charset=utf-8", b"Adelie\nGentoo"),
        (CSV.replace("39.1", "nan"), "text/csv", "text/csv", b"Adelie\nGentoo"),
        (CSV, "text/csv", "*/*", b'{"predictions":["Adelie","Gentoo"]}\n'),
        (json.dumps(LISTS), "application/json", "application/json", b'["Adelie","Gentoo"]\n'),
        (json.dumps(ROWS), "application/json", None, b'["Adelie","Gentoo"]\n'),
        ("\n".join(map(json.dumps, LISTS)), "application/jsonlines", "application/jsonlines", b'"Adelie"\n"Gentoo"'),
        ("\n".join(map(json.dumps, ROWS)) + "\n", "application/x-ndjson", "text/csv", b"Adelie\nGentoo"),
    ],
)
def test_sagemaker_s_bodies(
    body: str, content_type: str, accept: str | None, expected: bytes, client: FlaskClient
) -> None:
    """CSV with a header or without, lists and lines are answered as Accept has it, lines without a final newline."""
    headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})
    for path in ("/invocations", "/protocols/sagemaker/invocations"):
        answer = client.post(path, data=body.encode(), headers=headers)
        assert (answer.status_code, answer.data) == (200, expected)


def test_sagemaker_refuses_what_it_cannot_answer(client: FlaskClient) -> None:
    """Another Accept, another Content-Type, or half a header are told."""
    answer = client.post("/invocations", data=CSV, headers={"Content-Type": "text/csv", "Accept": "image/png"})
    assert answer.status_code == 406 and "application/jsonlines" in answer.json["message"]
    answer = client.post("/invocations", data=CSV, headers={"Content-Type": "application/x-npy"})
    assert answer.status_code == 415 and "application/x-npy" in answer.json["message"]


def test_custom_attributes_come_back(client: FlaskClient) -> None:
    """The caller's custom attributes are given back, and may ask for probabilities; too long ones are refused."""
    headers = {"Content-Type": "text/csv", "Accept": "text/csv", ATTRIBUTES: "trace=1; probabilities=true"}
    answer = client.post("/invocations", data=CSV, headers=headers)
    assert answer.headers[ATTRIBUTES] == headers[ATTRIBUTES]
    assert [len(line.split(b",")) for line in answer.data.split(b"\n")] == [4, 4]
    for bad in ("x" * 1025, "probabilities=yes", "a\x01"):
        assert client.post("/invocations", data=CSV, headers=headers | {ATTRIBUTES: bad}).status_code == 400
    body = {"instances": LISTS, "params": {"probabilities": False}}
    refused = client.post("/invocations", json=body, headers={ATTRIBUTES: "probabilities=true"})
    assert refused.status_code == 400 and "say it once" in refused.json["message"]
    assert (
        client.post("/invocations?custom-attributes=probabilities=true", data=CSV, headers=headers).status_code == 400
    )


def test_execution_parameters_fit_the_limits(make_app: Callable[..., Flask]) -> None:
    """Batch transform is told no more than a body may have here, nor than AWS allows at once."""
    told = make_app(max_body_bytes=6 * 2**20).test_client().get("/execution-parameters").json
    assert told["MaxPayloadInMB"] == 6 and told["MaxConcurrentTransforms"] >= 1
    assert make_app(max_body_bytes=2**19).test_client().get("/execution-parameters").status_code == 404
    told = make_app(max_body_bytes=2**30).test_client().get("/execution-parameters").json
    assert (told["MaxPayloadInMB"], told["MaxConcurrentTransforms"]) == (100, 1)


# Vertex AI and OCI tell their routes


@pytest.mark.parametrize("route", ["/predict", "/a/path/of/theirs", "/v1/endpoints/1/deployedModels/77:predict"])
def test_vertex_s_routes_speak_vertex(route: str, make_app: Callable[..., Flask]) -> None:
    """Where the platform sends predictions its protocol is spoken, errors and the deployed model's id included."""
    client = make_app(protocol="vertex", predict_route=route, health_route="/well", deployed_model="77").test_client()
    answer = client.post(route, json={"instances": ROWS})
    assert answer.json == {"predictions": LABELS, "deployedModelId": "77"}
    refused = client.post(route, json={"data": LISTS})
    assert refused.status_code == 400 and refused.json["error"]["status"] == "INVALID_ARGUMENT"
    assert client.get("/well").json == {"ready": True}
    assert client.post("/v1/models/penguins:predict", json={"instances": ROWS}).json["model"] == "penguins"


@pytest.mark.parametrize("route", ["/predict", "/x", "/x/", "/", "/v1/endpoints/1/deployedModels/2:predict"])
def test_one_route_may_be_both(route: str, make_app: Callable[..., Flask]) -> None:
    """A platform that names one path for predictions and for health, as Vertex AI's API does by default, gets both."""
    client = make_app(protocol="vertex", predict_route=route, health_route=route).test_client()
    assert client.post(route, json={"instances": ROWS}).json["predictions"] == LABELS
    assert client.get(route).json["ready" if route != "/" else "service"]


@pytest.mark.parametrize("name", ["/x", "/predict"])
def test_routes_are_told_to_the_native_protocol_too(name: str, make_app: Callable[..., Flask]) -> None:
    """Where the operator wants the native protocol, it speaks at the platform's paths."""
    client = make_app(protocol="native", predict_route=name, health_route="/well").test_client()
    assert client.post(name, json={"instances": ROWS}).json["model"] == "penguins"
    assert client.get("/well").json["ready"] is True


@pytest.mark.parametrize("route", ["/v2/models/penguins/infer", "/invocations", "/v1/models/penguins:predict"])
def test_route_of_another_protocol_stays_its_own(route: str, make_app: Callable[..., Flask]) -> None:
    """A platform that is told another protocol's path, as Vertex AI's raw predictions may be, gets that protocol."""
    plain = make_app().test_client().post(route, json={"nothing": 1})
    told = make_app(protocol="oci", predict_route=route).test_client().post(route, json={"nothing": 1})
    assert (told.status_code, sorted(told.json)) == (plain.status_code, sorted(plain.json))


@pytest.mark.parametrize(
    ("protocol", "path", "body", "expected"),
    [
        ("oci", "/predict", {"data": LISTS}, {"prediction": LABELS}),
        ("vertex", "/predict", {"instances": LISTS}, {"predictions": LABELS}),
        ("mlflow", "/invocations", {"inputs": LISTS}, {"predictions": LABELS}),
        ("sagemaker", "/invocations", LISTS, LABELS),
        ("azureml", "/score", {"data": LISTS}, {"predictions": LABELS}),
        ("eas", "/", {"data": LISTS}, {"predictions": LABELS}),
    ],
)
def test_setting_says_who_speaks_at_shared_paths(
    protocol: str, path: str, body: Any, expected: Any, make_app: Callable[..., Flask]
) -> None:
    """ANYPORT_PROTOCOL makes the shared paths speak one protocol, errors too."""
    client = make_app(protocol=protocol).test_client()
    assert client.post(path, json=body).json == expected
    assert client.post(path, data=b"{").data.count(b'"type"') == 0
    assert client.get("/v1/models").status_code == 200


# Azure Machine Learning


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"data": ROWS}, {"predictions": LABELS}),
        ({"input_data": {"columns": list(PENGUIN), "index": [0, 1], "data": LISTS}}, LABELS),
        ({"input_data": LISTS}, LABELS),
        ({"Inputs": {"data": ROWS}, "GlobalParameters": {"method": "predict"}}, {"Results": LABELS}),
        ({"Inputs": {"data": LISTS}, "GlobalParameters": 1.0}, {"Results": LABELS}),
        ({"Inputs": {"data": ROWS}}, {"Results": LABELS}),
    ],
)
def test_azure_s_bodies(body: dict[str, Any], expected: Any, client: FlaskClient) -> None:
    """Each of the three bodies is answered in its own form."""
    assert client.post("/score", json=body).json == expected


def test_azure_automl_asks_for_shares_by_method(client: FlaskClient) -> None:
    """AutoML's `predict_proba` answers the classes' shares instead of labels."""
    body = {"Inputs": {"data": ROWS}, "GlobalParameters": {"method": "predict_proba"}}
    native = client.post("/predict?probabilities=true", json={"instances": ROWS}).json
    assert client.post("/score", json=body).json == {"Results": native["probabilities"]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"data": ROWS, "GlobalParameters": {}}, "'GlobalParameters'"),
        ({"Inputs": {"data": ROWS}, "GlobalParameters": {"method": "explain"}}, "predict_proba"),
        ({"Inputs": {"data": ROWS}, "GlobalParameters": {"x": 1}}, "'x'"),
        ({"Inputs": {"data": ROWS}, "GlobalParameters": "predict"}, "object"),
        ({"Inputs": ROWS}, "object"),
        ({"data": ROWS, "parameters": 0}, "object"),
        ({"data": ROWS, "parameters": []}, "object"),
        ({"input_data": {"columns": [], "data": [[], []]}}, "names"),
        ({"input_data": {"columns": ["a", "a"], "data": [[1, 2]]}}, "twice"),
        ({"input_data": {"columns": list(PENGUIN), "data": [[1]]}}, "row 0"),
        ({"input_data": {"columns": "a", "data": [[1]]}}, "names"),
        ({"data": ROWS, "Inputs": {}}, "two ways"),
    ],
)
def test_azure_s_bodies_are_checked(body: dict[str, Any], said: str, client: FlaskClient) -> None:
    """A body of mixed or unknown parts is refused with the one word of errors that Azure's server has."""
    answer = client.post("/score", json=body)
    assert (answer.status_code, list(answer.json)) == (400, ["message"]) and said in answer.json["message"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({}, {"x-ms-request-id": None, "x-ms-client-request-id": ""}),
        ({"x-ms-request-id": "a"}, {"x-ms-request-id": "a", "x-ms-client-request-id": "a"}),
        ({"x-ms-client-request-id": "b"}, {"x-ms-request-id": "b", "x-ms-client-request-id": "b"}),
        (
            {"x-request-id": "c", "x-ms-request-id": "a", "x-ms-client-request-id": "b"},
            {"x-request-id": "c", "x-ms-request-id": "a", "x-ms-client-request-id": "b"},
        ),
    ],
)
def test_azure_s_ids(sent: dict[str, str], expected: dict[str, str | None], client: FlaskClient) -> None:
    """Ids come back as from Azure's server; where there is none, the request's own stands for it."""
    answer = client.post("/score", json={"data": ROWS}, headers=sent)
    for name, value in expected.items():
        assert answer.headers.get(name, "") == (answer.headers["X-Request-ID"] if value is None else value)


@pytest.mark.parametrize("name", ["x-request-id", "x-ms-request-id", "x-ms-client-request-id"])
def test_azure_s_ids_are_short(name: str, client: FlaskClient) -> None:
    """An id of more than 100 characters is 431, as on Azure's server."""
    answer = client.post("/score", json={"data": ROWS}, headers={name: "x" * 101})
    assert answer.status_code == 431 and list(answer.json) == ["message"]


def test_azure_is_told_that_the_model_failed(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of the model carries the header that Azure looks for, and nothing of what failed."""
    client = app.test_client()
    client.get("/readyz")
    predictor = app.extensions["anyport"].catalogue().predictor("penguins", "1")
    monkeypatch.setattr(type(predictor), "predict", lambda *_: 1 / 0)
    answer = client.post("/score", json={"data": ROWS})
    assert (answer.status_code, answer.headers["x-ms-run-function-failed"]) == (500, "True")
    assert "division" not in answer.text


@pytest.mark.parametrize(("query", "key"), [("", "swagger"), ("?version=2", "swagger"), ("?version=3", "openapi")])
def test_azure_s_swagger(query: str, key: str, client: FlaskClient) -> None:
    """The description tells its version, the path, and an example that the service answers."""
    told = client.get(f"/swagger.json{query}").json
    schemas = told["definitions"] if key == "swagger" else told["components"]["schemas"]
    assert key in told and "/score" in told["paths"]
    assert client.post("/score", json=schemas["ServiceInput"]["example"]).status_code == 200
    row = schemas["ServiceInput"]["properties"]["data"]["items"]
    assert list(row["properties"]) == list(PENGUIN)
    assert client.get("/swagger.json?version=4").status_code == 404


def test_azure_s_health(make_app: Callable[..., Flask]) -> None:
    """With ANYPORT_PROTOCOL=azureml `/` is what Azure's probes ask, 503 while the worker ends."""
    app = make_app(protocol="azureml")
    assert app.test_client().get("/").text == "Healthy"
    app.extensions["anyport"].draining = True
    assert app.test_client().get("/").status_code == 503


# watsonx.ai


def test_watsonx_answers_each_block(client: FlaskClient) -> None:
    """Several blocks, with other orders of fields or none, are answered in their order, with probabilities."""
    turned = {"fields": list(PENGUIN)[::-1], "values": [LISTS[1][::-1]]}
    body = {"input_data": [{"values": LISTS}, turned, {"fields": list(PENGUIN), "values": LISTS[:1]}]}
    answer = client.post("/ml/v4/deployments/penguins/predictions?version=2026-11-23", json=body).json
    assert [[row[0] for row in block["values"]] for block in answer["predictions"]] == [LABELS, LABELS[1:], LABELS[:1]]
    assert {tuple(block["fields"]) for block in answer["predictions"]} == {("prediction", "probability")}


@pytest.mark.parametrize(
    ("query", "body", "status", "said"),
    [
        ("", {"input_data": [{"values": LISTS}]}, 400, "version"),
        ("?version=2026-99-99", {"input_data": [{"values": LISTS}]}, 400, "2026-99-99"),
        ("?version=today", {"input_data": [{"values": LISTS}]}, 400, "'today'"),
        ("?version=2026-11-23", {"input_data": {"values": LISTS}}, 400, "list"),
        ("?version=2026-11-23", {"input_data": []}, 400, "1 to 100"),
        ("?version=2026-11-23", {"input_data": [{"values": LISTS[0]}] * 101}, 400, "1 to 100"),
        ("?version=2026-11-23", {"input_data": [{"values": LISTS, "x": 1}]}, 400, "'x'"),
        ("?version=2026-11-23", {"input_data": [{"values": []}]}, 400, "0 rows"),
        ("?version=2026-11-23", {"input_data": [{"values": LISTS}, {"values": [[1]]}]}, 400, "block 1: expected 6"),
        ("?version=2026-11-23", {"input_data": [{"values": LISTS}], "scoring_parameters": {"a": 1}}, 400, "leave them"),
        ("?version=2026-11-23", {"fields": list(PENGUIN), "values": LISTS}, 400, "'fields'"),
    ],
)
def test_watsonx_refuses(query: str, body: Any, status: int, said: str, client: FlaskClient) -> None:
    """What its client must not send is refused with IBM's errors, which carry the request's id as their trace."""
    answer = client.post(f"/ml/v4/deployments/penguins/predictions{query}", json=body)
    assert (answer.status_code, answer.json["status_code"]) == (status, str(status))
    assert said in answer.json["errors"][0]["message"] and answer.json["trace"] == answer.headers["X-Request-ID"]


def test_watsonx_frame_without_names(client: FlaskClient) -> None:
    """A frame without names, whose columns are numbered, is in signature order."""
    body = {"input_data": [{"fields": list(range(6)), "values": LISTS}]}
    answer = client.post("/ml/v4/deployments/penguins/predictions?version=2026-11-23", json=body).json
    assert [row[0] for row in answer["predictions"][0]["values"]] == LABELS


def test_watsonx_rows_of_all_blocks_count(make_app: Callable[..., Flask]) -> None:
    """The limit of rows holds for all blocks together."""
    client = make_app(max_rows=3).test_client()
    answer = client.post(
        "/ml/v4/deployments/penguins/predictions?version=2026-11-23", json={"input_data": [{"values": LISTS}] * 2}
    )
    assert answer.status_code == 400 and "4 rows" in answer.json["errors"][0]["message"]


def test_watsonx_tells_a_deployment(client: FlaskClient) -> None:
    """A model is a deployment under its own name; another is unknown."""
    told = client.get("/ml/v4/deployments/penguins?version=2026-11-23").json
    assert told["metadata"]["id"] == "penguins" and told["entity"]["status"]["state"] == "ready"
    assert told["entity"]["status"]["online_url"]["url"] == "http://localhost/ml/v4/deployments/penguins/predictions"
    assert client.get("/ml/v4/deployments/nobody?version=2026-11-23").json["errors"][0]["code"] == "unknown_model"


# OCI


def test_oci_takes_what_oracle_ads_sends(client: FlaskClient) -> None:
    """A frame in JSON, whose cells stand under their index, is read as columns."""
    columns = {name: {str(index): row[name] for index, row in enumerate(ROWS)} for name in PENGUIN}
    body = {"data": json.dumps(columns), "data_type": "<class 'pandas.core.frame.DataFrame'>"}
    assert client.post("/protocols/oci/predict", json=body).json == {"prediction": LABELS}


def test_oci_joins_columns_by_their_rows(client: FlaskClient) -> None:
    """A frame's cells belong to the row that they name, in whatever order each column has them; objects count too."""
    columns = {name: {str(index): row[name] for index, row in enumerate(ROWS)} for name in PENGUIN}
    columns["island"] = dict(reversed(columns["island"].items()))
    columns["body_mass_g"] = dict(reversed(columns["body_mass_g"].items()))
    assert client.post("/protocols/oci/predict", json={"data": columns}).json == {"prediction": LABELS}
    columns["sex"] = {"0": "male", "7": "male"}
    refused = client.post("/protocols/oci/predict", json={"data": columns})
    assert refused.status_code == 400 and "other rows" in refused.json["message"]


@pytest.mark.parametrize("path", ["/protocols/oci/predict", "/protocols/eas/api/predict/penguins"])
def test_one_row_is_no_columns(path: str, client: FlaskClient) -> None:
    """An object of single values is told that it is no columns, and not that there are no rows."""
    field = "data" if "oci" in path else "inputs"
    answer = client.post(path, json={field: PENGUIN})
    assert answer.status_code == 400 and "expected a list of values" in answer.json["message"]


@pytest.mark.parametrize(
    ("sent", "expected"), [({"opc-request-id": "a b"}, None), ({"opc-request-id": "A1/B2/C3"}, "A1/B2/C3")]
)
def test_oci_s_id_comes_back(sent: dict[str, str], expected: str | None, client: FlaskClient) -> None:
    """The id that Oracle's client gives a request comes back, or ours stands for it."""
    answer = client.post("/protocols/oci/predict", json={"data": LISTS}, headers=sent)
    assert answer.headers["opc-request-id"] == (expected or answer.headers["X-Request-ID"])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"data": "x"}, "data_type"),
        ({"data": "x", "data_type": "<class 'str'>"}, "oracle-ads"),
        ({"data": "[1]", "data_type": "pandas.core.frame.DataFrame"}, "to_json"),
        ({"data": "{", "data_type": "pandas.core.frame.DataFrame"}, "line 1"),
        ({"data": "é", "data_type": "numpy.ndarray"}, "base64"),
        ({"data": base64.b64encode(b"\x93NUMPY\x01\x00").decode(), "data_type": "numpy.ndarray"}, "numpy.save"),
    ],
)
def test_oci_refuses_other_texts(body: dict[str, Any], said: str, client: FlaskClient) -> None:
    """A text that is neither a frame nor an array is refused."""
    answer = client.post("/protocols/oci/predict", json=body)
    assert (answer.status_code, answer.json["code"]) == (400, "InvalidParameter") and said in answer.json["message"]


# EAS


def signature(token: str, path: str, body: bytes, content_type: str, date: str) -> str:
    """Sign as EAS's client does."""
    text = f"POST\n{hashlib.md5(body).hexdigest()}\n{content_type}\n{date}\n{path}"
    return "EAS " + base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


@pytest.mark.parametrize("path", ["/api/predict/penguins", "/protocols/eas/api/predict/penguins"])
def test_eas_token(path: str, make_app: Callable[..., Flask]) -> None:
    """With a token set a request carries it or is signed with it; any other is 401, in EAS's words."""
    client = make_app(eas_token="secret").test_client()
    body, date = json.dumps({"data": LISTS}).encode(), "Mon, 23 Nov 2026 10:00:00 GMT"
    headers = {"Content-Type": "application/octet-stream", "Date": date}
    signed = signature("secret", "/api/predict/penguins", body, headers["Content-Type"], date)
    for good in ("secret", signed):
        answer = client.post(path, data=body, headers=headers | {"Authorization": good})
        assert (answer.status_code, answer.json) == (200, {"predictions": LABELS})
    wrong = signature("other", "/api/predict/penguins", body, headers["Content-Type"], date)
    for bad in ("", "Secret", "secret ", "EAS secret", wrong, "é"):
        answer = client.post(path, data=body, headers=headers | {"Authorization": bad})
        assert (answer.status_code, answer.json["code"]) == (401, "unauthorized"), bad
        assert answer.headers["WWW-Authenticate"] == "EAS" and "secret" not in answer.text
    assert client.post(path, data=body + b" ", headers=headers | {"Authorization": signed}).status_code == 401
    assert client.post("/predict", json={"instances": ROWS}).status_code == 200


def test_eas_service_is_any_where_there_is_one_model(client: FlaskClient) -> None:
    """The service's name, which is chosen on the platform, need not be the only model's."""
    assert client.post("/api/predict/another", data=json.dumps({"data": LISTS})).json == {"predictions": LABELS}


def test_eas_reads_csv_by_its_first_sign(client: FlaskClient) -> None:
    """Octets that are no JSON are CSV with a header."""
    headers = {"Content-Type": "application/octet-stream"}
    answer = client.post("/api/predict/penguins", data=HEADER + CSV, headers=headers)
    assert answer.json == {"predictions": LABELS}


# Health


@pytest.mark.parametrize("path", ["/ping", "/health", "/protocols/vertex/health", "/v1/endpoints/1/deployedModels/2"])
def test_health_is_503_until_ready(path: str, app: Flask) -> None:
    """What the clouds ask says 503 while no model can answer, and is not logged."""
    assert app.test_client().get(path).json == {"ready": True}
    app.extensions["anyport"].draining = True
    answer = app.test_client().get(path)
    assert answer.status_code == 503 and "Retry-After" not in answer.headers


@pytest.mark.parametrize("path", ["/ping", "/health", "/protocols/azureml/", "/protocols/openinference/v2/health/live"])
def test_health_is_not_logged(path: str, client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    """Probes leave no line in the log."""
    caplog.set_level("INFO", logger="service.requests")
    client.get(path)
    assert not [record for record in caplog.records if hasattr(record, "facts")]


def test_every_protocol_is_mounted(app: Flask) -> None:
    """Each protocol of the table stands below `/protocols/<name>` with at least one POST route."""
    rules = [rule.rule for rule in app.url_map.iter_rules() if "POST" in (rule.methods or ())]
    assert [name for name in PROTOCOLS if not any(rule.startswith(f"/protocols/{name}/") for rule in rules)] == []
