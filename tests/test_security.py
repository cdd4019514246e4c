"""The rules of the project's page on security: each has a test that is named after it, section and rule."""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.bad_requests import BAD_REQUESTS, CELLS, HEADER, one, rows
from tests.conftest import PENGUIN, ROOT

TESTED = {
    *(f"1_{rule}" for rule in range(1, 9)),
    *(f"2_{rule}" for rule in range(9, 16)),
    *(f"3_{rule}" for rule in range(16, 22)),
    *("5_29", "5_30", "5_32", "6_34", "7_37"),
}
LATER = {
    "4_22": "scopes of routes come with keys; every route that there is now is public",
    "4_23": "there are no keys and no admin routes yet",
    "4_24": "authorization comes with keys; hosts and `//` are tested in tests/web/test_edge.py",
    "4_25": "there are no logins and no routes for browsers yet",
    "4_26": "there is no playground yet; the safe headers are tested in tests/web/test_edge.py",
    "4_27": "limits per key come with keys",
    "4_28": "there are no feedback and no jobs yet; formulas in CSV are tested in tests/protocols/test_csv_body.py",
    "5_31": "there are no metrics yet",
    "6_33": "releases and their SBOM are not built yet; the lock is tested in tests/test_house.py",
    "6_35": "advisories are looked up at a release",
    "7_36": "this module holds the names; coverage and mutation score are measured at a release",
    "7_38": "the public page is written before the first release",
}
"""Rules that have no test yet, each with the reason."""


def test_every_rule_has_a_test_of_its_number() -> None:
    """Each rule is tested under its number or is put off with a reason, and no test has the number of no rule."""
    names = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    numbers = {found[1] for name in names if (found := re.match(r"test_(\d_\d+)_", name))}
    assert TESTED - numbers == set()
    assert numbers - TESTED - LATER.keys() == set()
    assert {int(number.split("_")[1]) for number in TESTED | LATER.keys()} == set(range(1, 39))
    assert not TESTED & LATER.keys() and all(LATER.values())


# Rule 3, where the operator accepts gzip, through the whole app


@pytest.mark.parametrize(
    ("coding", "behind", "status"),
    [
        ("gzip", b"", 200),
        ("gzip", b"\x00", 400),
        ("gzip", b'{"instances": []}', 400),
        ("gzip, gzip", b"", 415),
        ("identity, gzip", b"", 415),
        ("deflate", b"", 415),
        ("br", b"", 415),
        ("zstd", b"", 415),
    ],
)
def test_1_3_only_one_whole_gzip_is_read(
    coding: str, behind: bytes, status: int, make_app: Callable[..., Flask]
) -> None:
    """Where gzip is accepted one member alone is: no second coding, no other one, and no byte behind it."""
    import gzip

    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    body = gzip.compress(one()) + behind
    client = make_app(gzip_requests=True).test_client()
    assert client.post("/predict", data=body, headers=headers).status_code == status


# Rule 8


class Canary:
    """A pickle that raises where it is loaded, which a service that loads it would answer with 500."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('a request was unpickled')",)


def npy() -> bytes:
    """An array file whose one element is that pickle."""
    stream = io.BytesIO()
    np.save(stream, np.array([Canary()], dtype=object), allow_pickle=True)
    return stream.getvalue()


XML = b'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>'
PART = b'--x\r\nContent-Disposition: form-data; name="f"; filename="/etc/passwd"\r\n\r\na\r\n--x--\r\n'
FORMATS = {
    "application/x-www-form-urlencoded": b"instances=1",
    "multipart/form-data; boundary=x": PART,
    "application/xml": XML,
    "text/xml": XML,
    "application/soap+xml": XML,
    "application/yaml": b"!!python/object/apply:os.system ['true']",
    "application/x-yaml": b"!!python/object/apply:os.system ['true']",
    "text/yaml": b"instances: []",
    "application/x-npy": npy(),
    "application/octet-stream": npy(),
    "application/x-python-pickle": pickle.dumps(Canary()),
    "application/vnd.apache.parquet": b"PAR1" + bytes(64) + b"PAR1",
    "application/x-parquet": b"PAR1" + bytes(64) + b"PAR1",
    "application/vnd.apache.arrow.stream": b"\xff\xff\xff\xff" + bytes(64),
    "application/vnd.apache.arrow.file": b"ARROW1\0\0" + bytes(64),
    "application/x-protobuf": b"\x0a\x03abc",
    "application/x-msgpack": b"\x81\xa9instances\x90",
    "application/jsonlines": one(),
    "text/plain": one(),
}


@pytest.mark.parametrize("content_type", FORMATS)
def test_1_8_no_other_format_is_parsed(content_type: str, client: FlaskClient) -> None:
    """Every format but JSON and CSV is 415 by its name, and no JSON and no CSV under either of theirs."""
    body = FORMATS[content_type]
    assert client.post("/predict", data=body, content_type=content_type).status_code == 415
    if body != one():
        assert client.post("/predict", data=body, content_type="application/json").status_code in (400, 422)
    assert client.post("/predict", data=body, content_type="text/csv").status_code in (400, 422)


REACHES_OUT = re.compile(
    r"open|import|exec|compile|pickle\.|marshal\.|socket\.|subprocess\.|os\.(system|exec|spawn|posix|fork|remove|rename|"
    r"mkdir|rmdir|link|symlink|truncate|chmod|chown|putenv)|urllib\.|ctypes\.|shutil\.|tempfile\.|code\.|sqlite3|ftplib"
)
reached: list[str] | None = None
"""What a request in this thread reached for, None while nobody listens: an audit hook cannot be taken away."""
listener: int | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if reached is not None and threading.get_ident() == listener and REACHES_OUT.match(event):
        reached.append(f"{event} {arguments!r}"[:200])


@pytest.fixture
def heard(app: Flask) -> Iterator[list[str]]:
    """Hear what the app reaches for while it answers this thread's requests."""
    global reached, listener
    sys.addaudithook(_hear)
    found: list[str] = []
    listener, answer = threading.get_ident(), app.wsgi_app

    def answer_and_listen(environ: Any, start_response: Any) -> Any:
        global reached
        reached = found
        try:
            return answer(environ, start_response)
        finally:
            reached = None

    app.wsgi_app = answer_and_listen  # type: ignore[method-assign]
    yield found
    reached = listener = None


def test_1_8_no_request_reaches_out(app: Flask, heard: list[str], tmp_path: Path) -> None:
    """No request, good or bad, has anything opened, imported, evaluated, unpickled or connected to."""
    client = app.test_client()
    with socket.create_server(("127.0.0.1", 0)) as tempting:
        port = tempting.getsockname()[1]
        for canary in ("warm", "os", "pickle", "antigravity", str(tmp_path / "x"), f"http://127.0.0.1:{port}/x"):
            if canary != "warm":
                assert heard == []
            body = one(island=canary)
            for path in paths_to(canary):
                client.get(path)
                client.post(path, data=body, content_type="application/json")
            client.post("/predict", data=body, content_type="application/json")
            client.post("/predict", data=rows(PENGUIN, model=canary, parameters={canary: canary}))
            client.post("/predict", data=f"{HEADER}\n{CELLS}".replace("Torgersen", canary), content_type="text/csv")
            for bad in BAD_REQUESTS:
                client.open(bad.path, method=bad.method, data=bad.body, headers=bad.headers)
            for content_type, content in FORMATS.items():
                client.post("/predict", data=content, content_type=content_type, headers={"Accept": canary})
                client.post("/predict", data=content, content_type="application/json")
            if canary == "warm":
                heard.clear()  # what is imported at a first request is the same for every other
        assert heard == []


# Rule 21


def paths_to(name: str) -> list[str]:
    """Every path that names a model, with this name."""
    spelt = quote(name, safe="")
    return [f"/v1/models/{spelt}", f"/v1/models/{spelt}:predict", f"/v1/models/penguins/versions/{spelt}:predict"]


PLACES = [
    *("s3://bucket/model", "gs://bucket/model", "https://example.org/model.joblib", "file:///etc/passwd", "//host/x"),
    *("/etc/passwd", "../penguins", "..", ".", "penguins/1", "penguins/../penguins", "./penguins", "penguins\\1"),
    *("models:/penguins/1", "runs:/0/model", "penguins@1", "penguins\0", "penguins\n", "Penguins", " penguins", "~"),
    *("PENGUINS", "penguins.", "x" * 65, "%2e%2e", "${HOME}", "{0.__class__}", "__import__('os')"),
]


@pytest.mark.parametrize("place", PLACES, ids=ascii)
def test_3_21_place_is_no_model(place: str, client: FlaskClient) -> None:
    """A URI or a path in the place of a model or version is 404: requests name what the catalogue has."""
    for path in paths_to(place):
        method = "POST" if path.endswith(":predict") else "GET"
        answer = client.open(path, method=method, data=one(), content_type="application/json")
        assert answer.status_code == 404, path


@pytest.mark.parametrize(
    "field", ["model", "model_name", "model_uri", "version", "path", "url", "uri", "signature_name"]
)
def test_3_21_no_request_names_a_place_elsewhere(field: str, client: FlaskClient) -> None:
    """No field, parameter or header of a request leads to a model: the first two are refused, the last is nothing."""
    headers = {"Content-Type": "application/json"}
    place = "s3://bucket/model"
    assert client.post("/predict", data=rows(PENGUIN, **{field: place}), headers=headers).status_code == 422
    assert client.post(f"/predict?{field}={quote(place)}", data=one(), headers=headers).status_code == 400
    answer = client.post("/predict", data=one(), headers=headers | {f"X-{field.replace('_', '-')}": place})
    assert (answer.status_code, answer.headers["Anyport-Model"]) == (200, "penguins/1")


# Rule 32


@pytest.mark.parametrize("path", ["/livez", "/healthz"])
def test_5_32_alive_says_nothing_else(path: str, client: FlaskClient) -> None:
    """Who asks whether the process lives learns that and nothing else."""
    assert json.loads(client.get(path).data) == {"alive": True}


def test_5_32_readiness_tells_the_truth(make_app: Callable[..., Flask], models_dir: Path) -> None:
    """Ready is who can predict, and nobody else; alive is both."""
    assert make_app().test_client().get("/readyz").status_code == 200
    (models_dir / "penguins/1/model.joblib").write_bytes(b"x")
    client = make_app().test_client()
    assert [client.get(path).status_code for path in ("/readyz", "/livez")] == [503, 200]


def test_5_32_readiness_names_no_path_and_no_library(make_app: Callable[..., Flask], models_dir: Path) -> None:
    """Who asks why a service is not ready learns the kind of the reason, and nothing of this machine."""
    (models_dir / "penguins/1/model.joblib").unlink()
    said = make_app().test_client().get("/readyz").text
    assert str(models_dir) not in said and "joblib" not in said and "scikit" not in said
