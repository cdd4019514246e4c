"""The fast lane answers as the Flask route does, whatever it is sent; and it takes plain requests alone."""

from __future__ import annotations

import gzip
import io
import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, RegressorMixin
from werkzeug.test import EnvironBuilder

from service import create_app, logs
from service.settings import Settings
from service.web.lane import Lane, read_plain
from tests.bad_requests import BAD_REQUESTS, CELLS, COUNTS, CSV, HEADER, JSON, LIMITS, Bad, csv, one, rows
from tests.conftest import PENGUIN, ROOT
from tests.test_server import pack_into
from tests.zoo import counts

MOODY = "/v1/models/moody:predict"
FRESH_ID = re.compile("[0-9a-f]{32}")
NAMES = json.dumps({"inputs": {name: [value] * 3 for name, value in PENGUIN.items()}}).encode()
GOOD_BODIES = {
    "objects": (one(), JSON),
    "lists": (rows(list(PENGUIN.values()), list(PENGUIN.values())), JSON),
    "columns": (NAMES, JSON),
    "csv": (csv(HEADER, CELLS, CELLS), CSV),
    "charset": (one(), {"Content-Type": "application/json; charset=utf-8"}),
    "suffix": (one(), {"Content-Type": "application/vnd.x+json"}),
    "probabilities in the body": (rows(PENGUIN, parameters={"probabilities": True}), JSON),
}
PATHS = ["/predict", "/v1/models/penguins:predict", "/v1/models/penguins/versions/1:predict"]
QUERIES = ["", "probabilities=true", "probabilities=false"]
ACCEPTS = [None, "", "*/*", "application/json", "text/csv"]
STORE_LOGS = {"service.survey", "service.keeper"}
"""The store is looked at again from time to time, whatever is asked meanwhile."""
ODD_ACCEPTS = ["text/csv;q=0.5", "text/*", "image/png", "application/json, text/csv;q=0.9", "TEXT/CSV", " text/csv"]
ODD_QUERIES = ["probabilities=1", "probabilities=true&probabilities=false", "probabilities", "&", "x=%00", "a=\xff"]
ODD_PATHS = [
    *("/", "/predict/", "//predict", "/livez", "/v1/models", "/v1/models/penguins", "/v1/models/nobody:predict"),
    *("/v1/models/penguins/versions/9:predict", "/v1/models/penguins/versions/1/:predict", "/v1/models/:predict"),
    *(
        "/v1/models/pingüino:predict",
        "/v1/models/penguins:explain",
        "/predict\n",
        "/v1/models/penguins:predict:predict",
    ),
]
ODD_HOSTS = [None, "", "a b", "a..b", ".", "a.", "x" * 64, "x." * 126 + "x", "x." * 127 + "x", "a:0", "a:123456"]
ODD_HOSTS += ["[::1]:80", "é", "xn--x", "a_b", "10.0.0.1:8000", "a:²"]
ODD_FIELDS = [
    {"HTTP_X_REQUEST_ID": "mine-1"},
    {"HTTP_X_REQUEST_ID": "not mine"},
    {"HTTP_X_REQUEST_ID": "x" * 129},
    {"HTTP_X_FORWARDED_FOR": "198.51.100.66, 203.0.113.9:77"},
    {"HTTP_X_FORWARDED_FOR": ", a client"},
    {"HTTP_CONTENT_ENCODING": "gzip"},
    {"HTTP_CONTENT_ENCODING": "identity"},
    {"HTTP_CONTENT_ENCODING": ""},
    {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": None},
    {"HTTP_TRANSFER_ENCODING": "gzip"},
    {"HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "websocket"},
    {"HTTP_EXPECT": "100-continue"},
    {"CONTENT_LENGTH": None},
    {"CONTENT_LENGTH": ""},
    {"CONTENT_LENGTH": "0"},
    {"CONTENT_LENGTH": "3"},
    {"CONTENT_LENGTH": "99999"},
    {"CONTENT_LENGTH": "9" * 20},
    {"CONTENT_LENGTH": "+5"},
    {"CONTENT_TYPE": None},
    {"CONTENT_TYPE": "é"},
    {"SCRIPT_NAME": "/app"},
    {"SERVER_PROTOCOL": "HTTP/1.0", "HTTP_HOST": None},
    {"REMOTE_ADDR": None},
    {"wsgi.url_scheme": "https"},
]


class Moody(RegressorMixin, BaseEstimator):
    """Sums its columns; raises over a negative sum, and answers no number to one over a thousand."""

    def fit(self, rows: Any, target: Any = None) -> Moody:
        self.n_features_in_ = np.asarray(rows).shape[1]
        return self

    def predict(self, rows: Any) -> Any:
        ASKED.append(len(rows))
        sums = np.asarray(rows, dtype=float).sum(axis=1)
        if (sums < 0).any():
            raise RuntimeError("I will not")
        return np.where(sums > 1000, np.nan, sums)


ASKED: list[int] = []


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Penguins, a small regressor, one that fails, and a package that cannot be opened."""
    folder = tmp_path_factory.mktemp("lane")
    shutil.copytree(ROOT / "models", folder / "models")
    animal = counts()
    pack_into(folder, "counts", animal.model, animal.sample, **animal.choices)
    sample = pandas.DataFrame(np.arange(8.0).reshape(4, 2), columns=["a", "b"])
    pack_into(folder, "moody", Moody().fit(sample), sample)
    shutil.copytree(folder / "models" / "penguins", folder / "models" / "ruined")
    return folder / "models"


@pytest.fixture(scope="module")
def served(models: Path) -> Flask:
    """An app with small limits, behind two proxies."""
    app = create_app(Settings(models_dir=models, client_hops=1, **LIMITS))
    assert app.test_client().get("/readyz").status_code == 503  # the ruined one
    return app


@pytest.fixture(scope="module")
def unzipping(models: Path) -> Flask:
    """An app that takes gzip."""
    return create_app(Settings(models_dir=models, gzip_requests=True, **LIMITS))


@pytest.fixture(scope="module")
def logged() -> Iterator[list[logging.LogRecord]]:
    """Every record about a request, each with the request id of its time as `during`."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            record.during = logs.REQUEST_ID.get()
            if record.name not in STORE_LOGS:
                records.append(record)

    handler, root = Keep(), logging.getLogger("service")
    level, _ = root.level, root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield records
    root.setLevel(level)
    root.removeHandler(handler)


@dataclass(frozen=True)
class Seen:
    """Everything that an application does about one request, without what differs from one time to the next."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes
    lines: list[dict[str, Any]]


def ask(app: Any, environ: dict[str, Any], body: bytes | str, logged: list[logging.LogRecord]) -> Seen:
    """Send one request to a WSGI application."""
    del logged[:]
    started: list[Any] = []
    stream = io.StringIO(body) if isinstance(body, str) else io.BytesIO(body)
    chunks = app(environ | {"wsgi.input": stream}, lambda *start: started.append(start))
    answer = b"".join(chunks)
    if hasattr(chunks, "close"):
        chunks.close()
    [(status, headers)] = started
    assert logs.REQUEST_ID.get() is None
    own = dict(headers)["X-Request-ID"]
    masked = {own: "FRESH"} if FRESH_ID.fullmatch(own) else {}
    headers = [(name, masked.get(value, value)) for name, value in headers]
    return Seen(status, headers, answer.replace(own.encode(), b"FRESH"), [line(r, masked) for r in logged])


def line(record: logging.LogRecord, masked: dict[str, str]) -> dict[str, Any]:
    """What a record says, but for times."""
    facts = dict(getattr(record, "facts", {}))
    assert facts.pop("milliseconds", 1) > 0
    message = re.sub(r"(?s)\n.*", "", record.getMessage())
    during = masked.get(record.during, record.during)
    error = record.exc_info[0] if record.exc_info else None
    return {"logger": record.name, "level": record.levelname, "message": message, "facts": list(facts.items())} | {
        "request_id": during,
        "error": error,
    }


def environ_of(
    path: str = "/predict", query: str = "", method: str = "POST", body: bytes = b"", fields: dict[str, str] = JSON
) -> dict[str, Any]:
    """A WSGI environ as a server makes it."""
    environ = EnvironBuilder("/", method="POST", data=body, headers=fields).get_environ()
    for name in fields:
        if name not in ("Content-Type", "Content-Length"):
            environ["HTTP_" + name.upper().replace("-", "_")] = fields[name]
    return environ | {"PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": method, "REMOTE_ADDR": "10.1.1.1"}


def changed(environ: dict[str, Any], changes: dict[str, str | None]) -> dict[str, Any]:
    """The same environ with other values, or without those that are None."""
    return {name: value for name, value in (environ | changes).items() if value is not None}


def check_same(app: Flask, environ: dict[str, Any], body: bytes | str, logged: list[logging.LogRecord]) -> Seen:
    """Check that the lane and Flask do the same about a request, and return it."""
    lane = app.wsgi_app
    assert isinstance(lane, Lane)
    ours, theirs = ask(lane, environ, body, logged), ask(lane.flask, environ, body, logged)
    assert ours == theirs
    return ours


# The same as Flask


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: bad.name)
def test_bad_request_is_answered_alike(bad: Bad, served: Flask, logged: Any) -> None:
    """A bad request meets the same answer and the same log both ways."""
    path, _, query = bad.path.partition("?")
    environ = environ_of(path, query, bad.method, bad.body, bad.headers)
    assert check_same(served, environ, bad.body, logged).status.startswith(str(bad.status))


@pytest.mark.parametrize("accept", ACCEPTS + ODD_ACCEPTS, ids=repr)
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", GOOD_BODIES)
def test_good_request_is_answered_alike(
    form: str, path: str, query: str, accept: str | None, served: Flask, logged: Any
) -> None:
    """A good request in any form gets the same answer both ways, on every route."""
    body, fields = GOOD_BODIES[form]
    environ = changed(environ_of(path, query, body=body, fields=fields), {"HTTP_ACCEPT": accept})
    seen = check_same(served, environ, body, logged)
    assert seen.status in ("200 OK", "406 NOT ACCEPTABLE", "400 BAD REQUEST")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "BREW"])
@pytest.mark.parametrize("path", PATHS + ODD_PATHS, ids=ascii)
def test_other_method_is_answered_alike(path: str, method: str, served: Flask, logged: Any) -> None:
    """Another method gets the same answer both ways."""
    check_same(served, environ_of(path.encode().decode("latin-1"), method=method), b"", logged)


@pytest.mark.parametrize("query", ODD_QUERIES, ids=ascii)
@pytest.mark.parametrize("path", PATHS + ODD_PATHS, ids=ascii)
def test_odd_path_and_query_are_answered_alike(path: str, query: str, served: Flask, logged: Any) -> None:
    """An odd path or query gets the same answer both ways."""
    environ = environ_of(path.encode().decode("latin-1"), query, body=one())
    check_same(served, environ, one(), logged)


@pytest.mark.parametrize("host", ODD_HOSTS, ids=lambda host: ascii(host)[:20])
def test_odd_host_is_answered_alike(host: str | None, served: Flask, logged: Any) -> None:
    """A host that one of both might refuse gets the same answer both ways."""
    check_same(served, changed(environ_of(body=one()), {"HTTP_HOST": host}), one(), logged)


@pytest.mark.parametrize("fields", ODD_FIELDS, ids=lambda fields: ascii(fields)[:50])
@pytest.mark.parametrize("name", ["served", "unzipping"])
@pytest.mark.parametrize("body", [one(), b"", gzip.compress(one())], ids=["plain", "empty", "gzip"])
def test_odd_field_is_answered_alike(
    body: bytes, name: str, fields: dict[str, str | None], request: pytest.FixtureRequest, logged: Any
) -> None:
    """A header or variable out of the ordinary gets the same answer both ways."""
    check_same(request.getfixturevalue(name), changed(environ_of(body=body), fields), body, logged)


@pytest.mark.parametrize(
    ("row", "status", "asked"),
    [([1, 2], "200", 2), ([-1, 0], "500", 2), ([1000, 1], "500", 2)],
    ids=["right", "raises", "no number"],
)
def test_failing_model_is_answered_alike(row: list[float], status: str, asked: int, served: Flask, logged: Any) -> None:
    """A model's failure gets the same answer and log both ways, and the model is asked once each way."""
    body = rows(row)
    del ASKED[:]
    seen = check_same(served, environ_of(MOODY, body=body), body, logged)
    assert seen.status.startswith(status) and len(ASKED) == asked


def test_package_that_is_not_served_is_answered_alike(served: Flask, logged: Any) -> None:
    """A package that could not be opened is 503 with Retry-After both ways."""
    seen = check_same(served, environ_of("/v1/models/ruined:predict", body=one()), one(), logged)
    assert seen.status.startswith("503") and ("Retry-After", "5") in seen.headers


def test_what_nobody_foresaw_is_answered_alike(served: Flask, logged: Any) -> None:
    """An unforeseen failure, here of a server that reads text, is 500 both ways, with its traceback in the log."""
    seen = check_same(served, environ_of(body=one()), one().decode(), logged)
    assert seen.status.startswith("500") and seen.lines[0]["error"] is TypeError


LATIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=12)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good body with a piece taken out, doubled, or replaced."""
    body, _ = draw(st.sampled_from(list(GOOD_BODIES.values())))
    start = draw(st.integers(0, len(body)))
    end = draw(st.integers(start, min(len(body), start + 20)))
    return (
        body[:start]
        + draw(st.sampled_from([b"", body[start:end] * 2, b"null", b'"', b",", b"\xff", b"{"]))
        + body[end:]
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=mutated(),
    fields=st.dictionaries(
        st.sampled_from(["CONTENT_TYPE", "HTTP_ACCEPT", "HTTP_HOST", "HTTP_X_REQUEST_ID", "HTTP_X_FORWARDED_FOR"])
        | st.sampled_from(["QUERY_STRING", "CONTENT_LENGTH", "HTTP_CONTENT_ENCODING", "SERVER_PROTOCOL"]),
        LATIN | st.sampled_from(["text/csv", "application/json", "HTTP/1.1", "1", "*/*", "localhost:8000"]),
        max_size=3,
    ),
    path=st.sampled_from([*PATHS, COUNTS, MOODY]) | LATIN.map("/v1/models/{}:predict".format),
)
def test_any_request_is_answered_alike(
    body: bytes, fields: dict[str, str], path: str, served: Flask, logged: Any
) -> None:
    """Whatever the body and the head, the answer and the log are the same both ways."""
    check_same(served, environ_of(path, body=body) | fields, body, logged)


# Which requests it takes


def lane_alone(app: Flask, environ: dict[str, Any]) -> bytes | None:
    """What the lane answers by itself; None if it hands the request on with its body unread."""
    handed: list[bytes] = []

    def flask(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        handed.append(environ["wsgi.input"].read())
        return []

    answer = b"".join(Lane(flask, app.extensions["anyport"])(environ, lambda *start: None))
    assert handed in ([], [one()])
    return None if handed else answer


@pytest.mark.parametrize("host", ["localhost", "a-b.example:8000", "10.0.0.1", "my_service"])
@pytest.mark.parametrize("accept", ACCEPTS, ids=repr)
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("path", PATHS)
def test_plain_request_is_answered_by_the_lane(
    path: str, query: str, accept: str | None, host: str, served: Flask
) -> None:
    """A plain prediction request never gets to Flask."""
    environ = changed(environ_of(path, query, body=one()), {"HTTP_ACCEPT": accept, "HTTP_HOST": host})
    answer = lane_alone(served, environ)
    assert answer is not None and b"Adelie" in answer


@pytest.mark.parametrize(
    "changes",
    [
        *({"REQUEST_METHOD": "GET"}, {"SCRIPT_NAME": "/app"}, {"HTTP_UPGRADE": "websocket"}),
        *({"HTTP_CONTENT_ENCODING": "gzip"}, {"HTTP_CONTENT_ENCODING": ""}, {"HTTP_TRANSFER_ENCODING": "chunked"}),
        *({"HTTP_ACCEPT": value} for value in ODD_ACCEPTS),
        *({"QUERY_STRING": value} for value in ODD_QUERIES),
        *({"HTTP_HOST": value} for value in (None, "", "a b", "a..b", "a.", "x" * 64, "x." * 126 + "xx", "é")),
        *({"PATH_INFO": value} for value in (*ODD_PATHS[:6], "/v1/models/penguins%3Apredict", "predict", "")),
    ],
    ids=lambda changes: ascii(changes)[:50],
)
def test_unusual_request_is_handed_on_unread(changes: dict[str, str | None], served: Flask) -> None:
    """Whatever is not plain goes on to Flask with its whole body."""
    environ = changed(environ_of(body=one()), changes)
    assert read_plain(environ) is None
    assert lane_alone(served, environ) is None


def test_request_before_the_models_are_loaded_is_handed_on(models: Path) -> None:
    """While the models are loaded in the background, Flask's route does the waiting."""
    app = create_app(Settings(models_dir=models))
    app.extensions["anyport"].keeper._followed = True  # as a worker has it, before the thread has found any
    assert lane_alone(app, environ_of(body=one())) is None
