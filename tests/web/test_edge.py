"""What holds for every route: ids, headers, methods, hosts, paths, errors and one log line."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app
from werkzeug.wrappers import Response

from service.errors import every_error
from service.logs import JsonFormatter
from service.protocols import PROTOCOLS
from tests.conftest import PENGUIN

SECRET = "the password is hunter2"
VERTEX = "/v1/endpoints/<segment:endpoint>/deployedModels/<segment:deployed>"
GET_PATHS = {
    "/": "/",
    "/v1/models": "/v1/models",
    "/v1/models/<segment:name>": "/v1/models/penguins",
    "/problems/<segment:code>": "/problems/not-ready",
    "/livez": "/livez",
    "/healthz": "/healthz",
    "/readyz": "/readyz",
    "/_ah/warmup": "/_ah/warmup",
    "/_ah/start": "/_ah/start",
    "/v2": "/v2",
    "/v2/health/live": "/v2/health/live",
    "/v2/health/ready": "/v2/health/ready",
    "/v2/models/<segment:name>": "/v2/models/penguins",
    "/v2/models/<segment:name>/versions/<segment:version>": "/v2/models/penguins/versions/1",
    "/v2/models/<segment:name>/ready": "/v2/models/penguins/ready",
    "/v2/models/<segment:name>/versions/<segment:version>/ready": "/v2/models/penguins/versions/1/ready",
    "/ping": "/ping",
    "/health": "/health",
    "/version": "/version",
    "/execution-parameters": "/execution-parameters",
    "/swagger.json": "/swagger.json",
    VERTEX: "/v1/endpoints/1/deployedModels/2",
    f"{VERTEX}:predict": "/v1/endpoints/1/deployedModels/2:predict",
    "/ml/v4/deployments/<segment:name>": "/ml/v4/deployments/penguins?version=2026-11-23",
}
"""A path for every rule at the root that answers GET."""
MOUNTED = {
    "native": (),
    "openinference": [rule for rule in GET_PATHS if rule.startswith("/v2")],
    "mlflow": ["/ping", "/health", "/version"],
    "sagemaker": ["/ping", "/execution-parameters"],
    "vertex": ["/health", *(rule for rule in GET_PATHS if rule.startswith("/v1/endpoints"))],
    "azureml": ["/", "/swagger.json"],
    "watsonx": ["/ml/v4/deployments/<segment:name>"],
    "oci": ["/health"],
    "eas": ["/"],
}
"""The same for the rules of each protocol below `/protocols/<name>`."""
GET_PATHS |= {
    f"/protocols/{name}{rule}": f"/protocols/{name}{GET_PATHS[rule]}" for name in MOUNTED for rule in MOUNTED[name]
}
BOTH = {
    "/protocols/eas/",
    "/v1/endpoints/1/deployedModels/2:predict",
    "/protocols/vertex/v1/endpoints/1/deployedModels/2:predict",
}
"""Those that answer POST with predictions."""
TEXTS = {"/version": "3.17.2", "/protocols/mlflow/version": "3.17.2", "/protocols/azureml/": "Healthy"}
"""What answers GET with a text that its clients want."""
POST_PATHS = ["/predict", "/v1/models/penguins:predict", "/v1/models/penguins/versions/1:predict"]
BODY = json.dumps({"instances": [PENGUIN]}).encode()
JSON = {"Content-Type": "application/json"}
EVERY_ANSWER = [
    ("GET", "/", 200),
    ("HEAD", "/", 200),
    ("OPTIONS", "/", 204),
    ("GET", "/livez", 200),
    ("GET", "/nothing", 404),
    ("HEAD", "/nothing", 404),
    ("DELETE", "/v1/models", 405),
    ("GET", "/predict", 405),
    ("POST", "/predict", 415),
    ("GET", "/v1/models/nobody", 404),
    ("GET", "/raises", 500),
]


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """The app with a route that fails."""
    app = make_app()

    def fail() -> Any:
        raise ValueError(SECRET)

    app.add_url_rule("/raises", view_func=fail, methods=["GET", "POST"])
    return app


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """Give the facts of every request that was logged."""
    caplog.set_level(logging.INFO, logger="service.requests")
    return lambda: [record.facts for record in caplog.records if hasattr(record, "facts")]


def environ_of(path: str = "/", **overrides: str | None) -> dict[str, Any]:
    """A WSGI environ with headers as they are, or without those that are None."""
    environ = EnvironBuilder(path).get_environ() | overrides
    return {name: value for name, value in environ.items() if value is not None}


def assert_problem(answer: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem document of this code, and return it."""
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    document = json.loads(answer.data)
    assert (document["type"], document["status"]) == (f"/problems/{code}", status)
    assert document["request_id"] == answer.headers["X-Request-ID"]
    assert len(answer.data) <= 8192
    return document


# The request id


@pytest.mark.parametrize("wanted", ["a", "x" * 128, "3f2c-17", "1-67891233-abcdef012345678912345678", "a.b_c:d"])
def test_request_id_is_taken(client: FlaskClient, wanted: str) -> None:
    """A sane request id of the client is the one that the answer carries."""
    assert client.get("/", headers={"X-Request-ID": wanted}).headers["X-Request-ID"] == wanted


@pytest.mark.parametrize(
    "wanted", ["", " ", "x" * 129, "a b", "a\nb", "a\r\nSet-Cookie: x", "é", "a,b", "<b>", "a/b", "\x00"], ids=ascii
)
def test_request_id_is_replaced(client: FlaskClient, wanted: str) -> None:
    """Any other request id is replaced by a fresh one, and nothing of it comes back."""
    answer = client.get("/nothing", environ_overrides={"HTTP_X_REQUEST_ID": wanted})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
    assert "Set-Cookie" not in answer.headers


def test_request_id_is_fresh(client: FlaskClient) -> None:
    """Two requests without an id get two."""
    assert client.get("/").headers["X-Request-ID"] != client.get("/").headers["X-Request-ID"]


@pytest.mark.parametrize(("method", "path", "status"), EVERY_ANSWER)
def test_every_answer_has_id_and_safe_headers(client: FlaskClient, method: str, path: str, status: int) -> None:
    """Every answer, errors too, carries its request id and the safe headers, and sets no cookie."""
    answer = client.open(path, method=method, headers={"X-Request-ID": "id-1"})
    assert answer.status_code == status
    assert answer.headers.get_all("X-Request-ID") == ["id-1"]
    assert answer.headers.get_all("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers.get_all("Referrer-Policy") == ["no-referrer"]
    assert answer.headers.get_all("Cache-Control") == ["no-store"]
    assert "Set-Cookie" not in answer.headers and "Location" not in answer.headers


def test_prediction_has_id_and_safe_headers(client: FlaskClient) -> None:
    """A prediction carries them too, and says which version answered."""
    answer = client.post("/predict", data=BODY, headers=JSON | {"X-Request-ID": "id-1"})
    assert answer.status_code == 200
    assert (answer.headers["X-Request-ID"], answer.headers["Anyport-Model"]) == ("id-1", "penguins/1")
    assert answer.headers["Cache-Control"] == "no-store"


# Routes and methods


def test_every_get_route_is_tested(app: Flask) -> None:
    """The table above has a path for every rule that answers GET."""
    rules = {rule.rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())}
    assert rules - {"/raises"} == GET_PATHS.keys()
    assert MOUNTED.keys() == PROTOCOLS.keys()


@pytest.mark.parametrize("path", GET_PATHS.values())
def test_get_answers_json(client: FlaskClient, path: str) -> None:
    """Every GET route answers one JSON object, but those whose clients want a text."""
    answer = client.get(path)
    if path in TEXTS:
        assert (answer.status_code, answer.text) == (200, TEXTS[path])
        return
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert isinstance(answer.json, dict)


@pytest.mark.parametrize("path", GET_PATHS.values())
def test_head_answers_as_get_without_a_body(client: FlaskClient, path: str) -> None:
    """HEAD answers status and headers of GET, the length among them, and no body."""
    get, head = (client.open(path, method=method, headers={"X-Request-ID": "id-1"}) for method in ("GET", "HEAD"))
    assert head.data == b""
    assert (head.status_code, dict(head.headers)) == (get.status_code, dict(get.headers))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [(path, {"GET", "HEAD", "OPTIONS", *(["POST"] if path in BOTH else [])}) for path in GET_PATHS.values()]
    + [(p, {"POST", "OPTIONS"}) for p in POST_PATHS],
)
def test_options_tells_the_methods(client: FlaskClient, path: str, allowed: set[str]) -> None:
    """OPTIONS answers 204 with the methods of the path, and no body."""
    answer = client.options(path)
    assert (answer.status_code, answer.data) == (204, b"")
    assert set(answer.headers["Allow"].split(", ")) == allowed
    assert "Content-Type" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/models/penguins", "/livez"])
def test_wrong_method_is_told_the_right_ones(client: FlaskClient, path: str, method: str) -> None:
    """Another method than a route's own is 405 with Allow."""
    answer = client.open(path, method="POST", environ_overrides={"REQUEST_METHOD": method})
    assert_problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("path", POST_PATHS)
def test_predict_takes_post_alone(client: FlaskClient, path: str, method: str) -> None:
    """The prediction routes answer POST alone."""
    answer = client.open(path, method=method)
    assert_problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


@pytest.mark.parametrize("error", every_error())
def test_5_29_every_problem_type_is_explained(client: FlaskClient, error: Any) -> None:
    """The type of every problem is a path that explains it."""
    answer = client.get(f"/problems/{error.code}")
    assert answer.json == {"type": f"/problems/{error.code}", "title": error.title, "status": error.status}


# Paths


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        *("/nothing", "/favicon.ico", "/v1", "/v1/", "/v3/models", "/Predict", "/predict/x", "/livez/x", "/static/x"),
        *(
            "/v1/models/penguins/versions",
            "/v1/models/a/b",
            "/v1/models/penguins:explain",
            "/.env",
            "/%2e%2e/etc/passwd",
        ),
        *("/v1/models/..%2f..%2fetc", "/livez%00", "/livez%0a", "/livez%20", "/livez;x=1", "/problems/a:b", "/*"),
    ],
)
def test_unknown_path_is_not_found(client: FlaskClient, path: str, method: str) -> None:
    """A path that is no route is 404, whatever the method."""
    assert_problem(client.open(path, method=method), 404, "not-found")


@pytest.mark.parametrize("path", ["*", "", "livez", "http://a/livez"])
def test_path_that_does_not_begin_with_a_slash_is_no_failure(app: Flask, path: str) -> None:
    """A request target without a leading slash is answered like any path, never with a failure or a redirect."""
    _, status, _ = run_wsgi_app(app, environ_of(PATH_INFO=path))
    assert status.startswith(("200", "404"))


@pytest.mark.parametrize(
    "path", ["/livez/", "/v1/models/", "/predict/", "/v1/models/penguins/", "/nothing/", "/readyz/"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_trailing_slash_never_redirects(client: FlaskClient, path: str, method: str) -> None:
    """A slash at the end changes nothing but the spelling: it is answered as without, never with a redirect."""
    answer = client.open(path, method=method)
    assert answer.status_code == client.open(path.rstrip("/"), method=method).status_code
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    "path", ["//", "//livez", "/livez//", "/v1//models", "//v1/models", "/v1/models//penguins", "//a@b/"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_double_slash_is_refused(client: FlaskClient, path: str, method: str) -> None:
    """A path with two slashes in a row is 404, never merged and never redirected."""
    answer = client.open("/", method=method, environ_overrides={"PATH_INFO": path})
    assert_problem(answer, 404, "not-found")
    assert "Location" not in answer.headers


@pytest.mark.parametrize("path", ["/%2flivez", "/v1%2f/models"])
def test_escaped_double_slash_is_refused(client: FlaskClient, path: str) -> None:
    """A slash in escapes is a slash."""
    assert_problem(client.get(path), 404, "not-found")


@pytest.mark.parametrize(
    "path",
    ["/v1/models/penguins%3Apredict", "/v1/models/penguins%3apredict", "/v1/models/penguins/versions/1%3Apredict"],
)
def test_colon_may_be_escaped(client: FlaskClient, path: str) -> None:
    """The colon before the verb may be percent-encoded, as some clients do."""
    assert client.post(path, data=BODY, headers=JSON).status_code == 200


@pytest.mark.parametrize(
    "name",
    ["pingüino", "企鹅", "😀", "%F0%9F%98%80", "%ff%fe", "%ed%a0%80", "a%0ab", "a%00b", "%27%22%3Cb%3E", "Penguins"],
    ids=ascii,
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models/%s"), ("POST", "/v1/models/%s:predict")])
def test_odd_model_name_is_unknown(client: FlaskClient, method: str, path: str, name: str) -> None:
    """A name in any script, or of broken bytes, is an unknown model, repeated in ASCII."""
    answer = client.open(path % name, method=method)
    assert_problem(answer, 404, "unknown-model")
    assert answer.data.isascii()


def test_odd_version_is_unknown(client: FlaskClient) -> None:
    """A version that there is not is 404 under its own code."""
    assert_problem(client.post("/v1/models/penguins/versions/%C3%A9:predict"), 404, "unknown-version")


@pytest.mark.parametrize("length", [10_000, 1_000_000])
@pytest.mark.parametrize(
    ("path", "code"), [("/%s", "not-found"), ("/v1/models/%s", "unknown-model"), ("/problems/%s", "not-found")]
)
def test_very_long_path_is_not_repeated(client: FlaskClient, path: str, code: str, length: int) -> None:
    """A very long path is 404, and at most 60 signs of it come back."""
    answer = client.get(path % ("x" * length))
    assert_problem(answer, 404, code)
    assert b"x" * 61 not in answer.data


def test_many_segments_are_not_found(client: FlaskClient) -> None:
    """A path of ten thousand segments is 404."""
    assert_problem(client.get("/v1" * 10_000), 404, "not-found")


# Hosts


@pytest.mark.parametrize(
    "host",
    ["localhost", "a.example:8000", "EXAMPLE.org", "10.0.0.1", "[::1]", "[2001:db8::1]:443", "my_service", "a-b.c:1"],
)
@pytest.mark.parametrize("path", ["/", "/livez"])
def test_host_is_taken(client: FlaskClient, path: str, host: str) -> None:
    """Names, addresses and ports are hosts; probes come with any of them."""
    assert client.get(path, environ_overrides={"HTTP_HOST": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "",
            " ",
            "a b",
            "a/b",
            "a:b",
            "a:1:2",
            "a:",
            "a:123456",
            "user@host",
            "[zz]",
            "[::1",
            "::1",
            "a\\b",
            "a?b",
            "a#b",
        ),
        *("a,b", "a;b", "é", "例え", "a\nb", "a\x00", "<b>", "x" * 254, "x" * 100_000),
    ],
    ids=lambda host: ascii(host)[:20],
)
@pytest.mark.parametrize("path", ["/", "/livez", "/nothing"])
def test_malformed_host_is_refused(client: FlaskClient, path: str, host: str) -> None:
    """A Host that is no host is 400 on every path, and nothing of it comes back."""
    answer = client.get(path, environ_overrides={"HTTP_HOST": host})
    document = assert_problem(answer, 400, "invalid-header")
    assert document["detail"] == "the Host header is not a host name or address"


@pytest.mark.parametrize("host", ["..", ".a", "a..b", "x" * 64 + ".example"])
def test_host_that_is_no_name_is_refused(client: FlaskClient, host: str) -> None:
    """A Host of the right signs that is no name is a request error, not a failure."""
    answer = client.get("/", environ_overrides={"HTTP_HOST": host})
    assert answer.status_code in (200, 400)


@pytest.mark.parametrize(("protocol", "status"), [("HTTP/1.1", "400"), ("HTTP/1.0", "200")])
def test_missing_host_is_refused_in_http_1_1(app: Flask, protocol: str, status: str) -> None:
    """HTTP/1.1 requires a Host and HTTP/1.0 does not."""
    _, found, _ = run_wsgi_app(app, environ_of(HTTP_HOST=None, SERVER_PROTOCOL=protocol))
    assert found.startswith(status)


# Failures


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_5_29_unexpected_exception_is_told_nobody(client: FlaskClient, method: str) -> None:
    """An unexpected exception is a 500 problem without its text, its class or its place."""
    answer = client.open("/raises", method=method)
    assert_problem(answer, 500, "internal-error")
    assert not any(word in answer.text for word in (SECRET, "hunter2", "ValueError", "Traceback", ".py"))


def test_unexpected_exception_is_logged(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    """Its traceback goes to the log, under the request id that the client was told."""
    caplog.handler.setFormatter(JsonFormatter())
    answer = client.get("/raises", headers={"X-Request-ID": "id-1"})
    assert answer.status_code == 500
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.exc_info and record.exc_info[0] is ValueError
    logged = [json.loads(line) for line in caplog.text.splitlines()]
    assert [line["request_id"] for line in logged if "exception" in line] == ["id-1"]


@pytest.mark.parametrize("status", [400, 403, 418, 429])
def test_error_of_the_framework_is_a_problem(make_app: Callable[..., Flask], status: int) -> None:
    """An error that Flask raises by itself is a problem too, without its text."""
    from werkzeug.exceptions import abort

    app = make_app()
    app.add_url_rule("/aborts", view_func=lambda: abort(status, description=SECRET))
    assert SECRET not in json.dumps(assert_problem(app.test_client().get("/aborts"), 400, "invalid-request"))


@pytest.mark.parametrize("status", [500, 502, 503])
def test_failure_of_the_framework_is_a_problem(make_app: Callable[..., Flask], status: int) -> None:
    """A failure that Flask raises by itself is 500 without its text."""
    from werkzeug.exceptions import abort

    app = make_app()
    app.add_url_rule("/aborts", view_func=lambda: abort(status, description=SECRET))
    assert SECRET not in json.dumps(assert_problem(app.test_client().get("/aborts"), 500, "internal-error"))


def test_redirect_of_the_framework_is_answered_as_such(make_app: Callable[..., Flask]) -> None:
    """No answer of ours redirects, not even one for a rule that ends in a slash."""
    app = make_app()
    app.add_url_rule("/slash/", view_func=lambda: Response("x"))
    assert app.test_client().get("/slash").status_code in (200, 404)


def test_not_ready_says_when_to_come_back(make_app: Callable[..., Flask], models_dir: Any) -> None:
    """A model that is not being served is 503 with Retry-After."""
    (models_dir / "penguins/1/model.joblib").write_bytes(b"x")
    answer = make_app().test_client().post("/predict", data=BODY, headers=JSON)
    assert_problem(answer, 503, "not-ready")
    assert answer.headers["Retry-After"] == "5"


def test_body_too_large_is_refused(make_app: Callable[..., Flask]) -> None:
    """A body over the operator's limit is 413, and one at the limit is read."""
    client = make_app(max_body_bytes=1024).test_client()
    assert_problem(client.post("/predict", data=b"x" * 1025, headers=JSON), 413, "payload-too-large")
    assert_problem(client.post("/predict", data=b"x" * 1024, headers=JSON), 400, "invalid-json")


# The log


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_probe_is_not_logged(client: FlaskClient, lines: Any, path: str, method: str) -> None:
    """Probes leave no line."""
    client.open(path, method=method)
    assert lines() == []


def test_probe_of_a_service_that_is_not_ready_is_not_logged(
    make_app: Callable[..., Flask], models_dir: Any, lines: Any
) -> None:
    """A failing probe leaves no line either; the reason was logged when the model was opened."""
    (models_dir / "penguins/1/model.joblib").write_bytes(b"x")
    assert_problem(make_app().test_client().get("/readyz"), 503, "not-ready")
    assert lines() == []


@pytest.mark.parametrize(
    ("method", "path", "facts"),
    [
        ("GET", "/", {"route": "/", "status": 200}),
        ("GET", "/v1/models/penguins", {"route": "/v1/models/<name>", "status": 200}),
        ("GET", "/v1/models/no?key=x", {"route": "/v1/models/<name>", "status": 404, "problem": "unknown-model"}),
        ("OPTIONS", "/predict", {"route": "/predict", "status": 204}),
        ("GET", "/nothing/here?key=x", {"route": "unmatched", "status": 404, "problem": "not-found"}),
        ("DELETE", "/", {"route": "unmatched", "status": 405, "problem": "method-not-allowed"}),
        ("GET", "/raises", {"route": "/raises", "status": 500, "problem": "internal-error"}),
        (
            "POST",
            "/v1/models/penguins:predict",
            {
                "route": "/v1/models/<name>:predict",
                "status": 415,
                "problem": "unsupported-media-type",
                "model": "penguins",
                "version": "1",
            },
        ),
    ],
)
def test_request_is_logged_once(client: FlaskClient, lines: Any, method: str, path: str, facts: dict[str, Any]) -> None:
    """Every other request leaves one line: id, method, route, status and time, with problem and model where known."""
    client.open(path, method=method, headers={"X-Request-ID": "id-1"})
    [found] = [line for line in lines() if "status" in line]
    assert found.pop("milliseconds") > 0
    assert found == {"method": method, "client": "127.0.0.1"} | facts


@pytest.mark.parametrize(
    ("hops", "header", "client"),
    [
        (0, "203.0.113.9", "127.0.0.1"),
        (1, None, "127.0.0.1"),
        (1, "203.0.113.9", "203.0.113.9"),
        (1, "198.51.100.66, 203.0.113.9", "203.0.113.9"),
        (2, "198.51.100.66, 203.0.113.9 , 10.0.0.1", "203.0.113.9"),
        (2, "203.0.113.9", "127.0.0.1"),
        (1, "203.0.113.9:54321", "203.0.113.9"),
        (1, "2001:db8::9", "2001:db8::9"),
        (1, "[2001:db8::9]:443", "2001:db8::9"),
        (1, "[2001:db8::9]", "2001:db8::9"),
        (1, "", "127.0.0.1"),
        (1, "203.0.113.9,", "127.0.0.1"),
        (1, "999.1.1.1", "127.0.0.1"),
        (1, "a client", "127.0.0.1"),
        (1, "203.0.113.9" + "9" * 9999, "127.0.0.1"),
    ],
)
def test_4_24_client_is_what_the_last_trusted_proxy_says(
    make_app: Callable[..., Flask], lines: Any, hops: int, header: str | None, client: str
) -> None:
    """The client's address is the N-th item from the right of X-Forwarded-For, which nobody outside can write."""
    headers = {} if header is None else {"X-Forwarded-For": header}
    make_app(client_hops=hops).test_client().get("/", headers=headers)
    assert [line["client"] for line in lines() if "status" in line] == [client]


@pytest.mark.parametrize("path", ["/_ah/warmup", "/_ah/start"])
def test_warm_up_loads_the_models(make_app: Callable[..., Flask], models_dir: Any, path: str) -> None:
    """App Engine's warm-up is answered once the models answer, and otherwise as /readyz is."""
    assert make_app().test_client().get(path).status_code == 200
    (models_dir / "penguins/1/model.joblib").write_bytes(b"x")
    assert_problem(make_app().test_client().get(path), 503, "not-ready")


def test_prediction_is_logged_with_its_rows(client: FlaskClient, lines: Any) -> None:
    """The line of a prediction tells model, version and number of rows."""
    client.post("/predict", data=json.dumps({"instances": [PENGUIN] * 3}), headers=JSON)
    [found] = lines()
    assert "milliseconds" in found
    assert {key: found[key] for key in ("method", "route", "status", "model", "version", "rows")} == {
        "method": "POST",
        "route": "/predict",
        "status": 200,
        "model": "penguins",
        "version": "1",
        "rows": 3,
    }


@pytest.mark.parametrize("status", [200, 422])
def test_5_30_log_holds_nothing_of_the_client(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """No body, query, key or cookie is logged at any level."""
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    island = "hunter2" if status == 200 else {"hunter2": 1}
    secret = {"Authorization": "Bearer hunter2", "Cookie": "a=hunter2", "User-Agent": "hunter2", "Referer": "hunter2"}
    body = json.dumps({"instances": [PENGUIN | {"island": island}]})
    assert client.post("/predict", data=body, headers=JSON | secret).status_code == status
    assert client.get("/nothing/hunter2?key=hunter2", headers=secret).status_code == 404
    logged = [f"{record.getMessage()} {record.__dict__.get('facts')}" for record in caplog.records]
    assert len(logged) >= 2
    assert not any("hunter2" in line for line in logged)


@pytest.mark.parametrize("method", ["X" * 10_000, "GET\n", "é"], ids=["long", "newline", "accent"])
def test_odd_method_is_logged_in_part(
    client: FlaskClient, lines: Any, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """A made-up method is 405 and does not make a long line."""
    answer = client.open("/", environ_overrides={"REQUEST_METHOD": method})
    assert_problem(answer, 405, "method-not-allowed")
    assert len(lines()) == 1
    assert all(len(record.getMessage()) < 200 for record in caplog.records)
