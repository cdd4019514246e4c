"""From a whole request to a whole answer: the same bytes as gunicorn's own parser and Response write."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from gunicorn.http import wsgi
from gunicorn.http.parser import RequestParser
from hypothesis import given, settings

from service.answer import Answers, Reply, Sink
from service.web.lane import Lane
from tests.bad_requests import BAD_REQUESTS, Bad, csv, one
from tests.conftest import PENGUIN
from tests.test_heads import CFG, PEER, SERVER, mutated

DATE = re.compile(rb"\r\nDate: [^\r]+ GMT\r\n")
LENGTH = ("Content-Length", "2")


def stock(app: Any, request: bytes, *, close: bool) -> tuple[bytes, bool]:
    """Answer a request as gunicorn's workers do."""
    sink = Sink()
    parsed = next(RequestParser(CFG, iter([request]), PEER))
    response, environ = wsgi.create(parsed, sink, PEER, SERVER, CFG)
    if close:
        response.force_close()
    chunks = app(environ | {"wsgi.multithread": True}, response.start_response)
    try:
        for chunk in chunks:
            response.write(chunk)
        response.close()
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
    return bytes(sink.kept), not response.should_close()


def undated(answered: tuple[bytes, bool]) -> tuple[bytes, bool]:
    """An answer without its date."""
    assert len(DATE.findall(answered[0])) == 1
    return DATE.sub(b"\r\n", answered[0]), answered[1]


def answered(app: Any, request: bytes, *, close: bool = False) -> tuple[bytes, bool]:
    """What we answer."""
    return Answers(app, CFG).answer(request, PEER, SERVER, close=close)


def request_of(method: str, path: str, fields: dict[str, str], body: bytes = b"") -> bytes:
    """A whole request, whose id is given so that two answers are alike."""
    lines = [f"{name}: {value}" for name, value in ({"Host": "x", "X-Request-ID": "id-1"} | fields).items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


# Our own app

ROUTES = [
    *(
        "/",
        "/livez",
        "/healthz",
        "/readyz",
        "/v1/models",
        "/v1/models/penguins",
        "/v1/models/no",
        "/problems/not-found",
    ),
    *(
        "/predict",
        "/predict?probabilities=true",
        "/v1/models/penguins:predict",
        "/nothing",
        "/_ah/warmup",
        "/%70redict",
    ),
]


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("connection", ["keep-alive", "close", "upgrade"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", ROUTES)
def test_every_route_is_answered_as_gunicorn_does(
    path: str, method: str, connection: str, close: bool, app: Flask
) -> None:
    """Every route's answer has the very bytes that gunicorn writes, and the connection goes on where it would."""
    fields = {"Content-Type": "application/json", "Connection": connection}
    request = request_of(method, path, fields, one() if method == "POST" else b"")
    assert undated(answered(app, request, close=close)) == undated(stock(app, request, close=close))


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: bad.name)
def test_bad_request_is_answered_as_gunicorn_does(bad: Bad, app: Flask) -> None:
    """So has the answer to every bad request."""
    request = request_of(bad.method, bad.path, bad.headers, bad.body)
    assert undated(answered(app, request)) == undated(stock(app, request, close=False))


def test_csv_is_answered_as_gunicorn_does(app: Flask) -> None:
    """So has an answer in CSV."""
    body = csv(",".join(PENGUIN), ",".join(map(str, PENGUIN.values())))
    request = request_of("POST", "/predict", {"Content-Type": "text/csv", "Accept": "text/csv"}, body)
    ours = answered(app, request)
    assert undated(ours) == undated(stock(app, request, close=False)) and ours[0].endswith(b"\r\n\r\nspecies\nAdelie\n")


def test_date_is_now(app: Flask) -> None:
    """The date is of the form that RFC 9110 asks for, and goes on with the clock."""
    answers = Answers(app, CFG)
    answers._date = (0, "Thu, 01 Jan 1970 00:00:00 GMT")
    [date] = DATE.findall(answers.answer(request_of("GET", "/livez", {}), PEER, SERVER, close=False)[0])
    assert re.fullmatch(rb"\r\nDate: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} (?!1970)\d{4} \d\d:\d\d:\d\d GMT\r\n", date)


@settings(max_examples=300, deadline=None)
@given(request=mutated())
def test_any_request_is_answered_as_gunicorn_does(request: bytes) -> None:
    """Whatever is sent is answered as gunicorn does; what its parser refuses is a problem, and ends the connection."""
    try:
        theirs = undated(stock(echo, request, close=False))
    except Exception:
        ours, keep = answered(echo, request)
        assert ours.startswith(b"HTTP/1.1 400 ") and not keep
    else:
        assert undated(answered(echo, request)) == theirs


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """An app that says what it was asked."""
    said = {name: value for name, value in environ.items() if isinstance(value, str)}
    body = json.dumps(said | {"body": repr(environ["wsgi.input"].read())}, sort_keys=True).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


# Other apps

START = Callable[..., Any]


def chunks(*pieces: bytes, status: str = "200 OK", headers: Any = (LENGTH,)) -> Any:
    """An app that answers these pieces."""

    def app(environ: dict[str, Any], start_response: START) -> list[bytes]:
        start_response(status, list(headers))
        return list(pieces)

    return app


def writer(environ: dict[str, Any], start_response: START) -> list[bytes]:
    """An app that writes before it answers."""
    start_response("200 OK", [])(b"a")
    return [b"b"]


def changer(environ: dict[str, Any], start_response: START) -> list[bytes]:
    """An app that changes its mind in time."""
    start_response("200 OK", [LENGTH])
    start_response("500 Oh", [("X", "y"), LENGTH], (ValueError, ValueError("x"), None))
    return [b"no"]


def too_late(environ: dict[str, Any], start_response: START) -> Iterator[bytes]:
    """An app that changes its mind when its answer has begun."""
    start_response("200 OK", [LENGTH])
    yield b"a"
    start_response("500 Oh", [LENGTH], (ValueError, ValueError("x"), None))
    yield b"b"


def twice(environ: dict[str, Any], start_response: START) -> list[bytes]:
    """An app that starts twice."""
    start_response("200 OK", [LENGTH])
    start_response("200 OK", [LENGTH])
    return [b"ab"]


def silent(environ: dict[str, Any], start_response: START) -> list[bytes]:
    """An app that never starts."""
    return [b"ab"]


def failing(environ: dict[str, Any], start_response: START) -> list[bytes]:
    """An app that fails."""
    raise ValueError("no")


APPS = {
    "plain": chunks(b"ab"),
    "two pieces": chunks(b"a", b"b"),
    "nothing": chunks(),
    "no length": chunks(b"ab", headers=[]),
    "other header": chunks(b"ab", headers=[LENGTH, ("X-A", "b c"), ("x-a", "d")]),
    "too long": chunks(b"abc"),
    "too short": chunks(b"a"),
    "empty": chunks(b"", headers=[("Content-Length", "0")]),
    "odd length": chunks(b"ab", headers=[("content-LENGTH", "02")]),
    "two lengths": chunks(b"ab", headers=[LENGTH, LENGTH]),
    "no number": chunks(b"ab", headers=[("Content-Length", "x")]),
    "no content": chunks(b"ab", status="204 No Content"),
    "not modified": chunks(b"", status="304 Not Modified", headers=[]),
    "early": chunks(b"", status="102 Processing", headers=[]),
    "no reason": chunks(b"ab", status="200"),
    "empty reason": chunks(b"ab", status="200 "),
    "odd status": chunks(b"ab", status="2000 OK"),
    "split status": chunks(b"ab", status="200 OK\r\nX: y"),
    "accented status": chunks(b"ab", status="200 é"),
    "status in bytes": chunks(b"ab", status=b"200 OK"),
    "hop by hop": chunks(b"ab", headers=[LENGTH, ("Connection", "close"), ("Keep-Alive", "x"), ("Server", "y")]),
    "websocket": chunks(b"ab", headers=[LENGTH, ("Connection", "upgrade"), ("Upgrade", "websocket")]),
    "dated": chunks(b"ab", headers=[LENGTH, ("dAte", "yesterday")]),
    "split value": chunks(b"ab", headers=[LENGTH, ("X", "a\r\nSet-Cookie: b")]),
    "split name": chunks(b"ab", headers=[LENGTH, ("X: a\r\nY", "b")]),
    "colon in name": chunks(b"ab", headers=[LENGTH, ("X: a", "b")]),
    "no name": chunks(b"ab", headers=[LENGTH, ("", "b")]),
    "no value": chunks(b"ab", headers=[LENGTH, ("X", "")]),
    "spaces": chunks(b"ab", headers=[LENGTH, ("X", " a\t")]),
    "accent": chunks(b"ab", headers=[LENGTH, ("X", "é")]),
    "beyond latin-1": chunks(b"ab", headers=[LENGTH, ("X", "企")]),
    "number as value": chunks(b"ab", headers=[LENGTH, ("X", 1)]),
    "headers in a tuple": lambda environ, start: start("200 OK", (LENGTH,)) and [b"ab"],
    "text": chunks("ab"),
    "bytearray": chunks(bytearray(b"ab")),
    "writer": writer,
    "changer": changer,
    "too late": too_late,
    "twice": twice,
    "silent": silent,
    "failing": failing,
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", APPS)
def test_any_app_is_answered_for_as_gunicorn_does(name: str, method: str) -> None:
    """Whatever an app says is written as gunicorn writes it; where gunicorn raises, a problem ends the connection."""
    request = request_of(method, "/", {})
    try:
        theirs = undated(stock(APPS[name], request, close=False))
    except Exception:
        ours, keep = answered(APPS[name], request)
        assert ours.startswith((b"HTTP/1.1 500 ", b"HTTP/1.1 400 ")) and not keep
    else:
        assert undated(answered(APPS[name], request)) == theirs


def test_failure_of_the_app_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An app that raises gets its traceback into the log."""
    with caplog.at_level(logging.ERROR):
        answered(failing, request_of("GET", "/", {}))
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


@pytest.mark.parametrize("path", ["/", "/%41"], ids=["plain", "through gunicorn"])
def test_app_is_asked_once_and_its_answer_closed(path: str) -> None:
    """However the answer is written, the app is asked once, and what it answered with is closed."""
    done: list[str] = []

    class Pieces(list[bytes]):
        def close(self) -> None:
            done.append("closed")

    def app(environ: dict[str, Any], start_response: START) -> list[bytes]:
        done.append("asked")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Pieces([b"a", b"b"])

    answered(app, request_of("GET", path, {}))
    assert done == ["asked", "closed"]


def test_plain_replies_are_plain(app: Flask) -> None:
    """What the prediction routes answer needs nothing of gunicorn's Response."""
    environ = wsgi.create(
        next(
            RequestParser(
                CFG, iter([request_of("POST", "/predict", {"Content-Type": "application/json"}, one())]), PEER
            )
        ),
        Sink(),
        PEER,
        SERVER,
        CFG,
    )[1]
    assert Reply(app, environ).plain() is not None


def test_plain_prediction_is_asked_of_the_lane_itself(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain prediction goes to the lane without WSGI between; any other request goes through the app."""
    seen: list[str] = []

    def call(lane: Lane, environ: dict[str, Any], start_response: START) -> Any:
        seen.append(environ["PATH_INFO"])
        return lane.flask(environ, start_response)

    monkeypatch.setattr(Lane, "__call__", call)
    for path in ("/predict", "/livez", "/v1/models/a%62:predict"):
        answered(app, request_of("POST", path, {"Content-Type": "application/json"}, one()))
    assert seen == ["/livez", "/v1/models/ab:predict"]


def test_middleware_around_the_lane_sees_every_request(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody has put a middleware around the app, no prediction goes past it."""
    seen: list[str] = []
    lane: Any = app.wsgi_app

    def middleware(environ: dict[str, Any], start_response: START) -> Any:
        seen.append(environ["PATH_INFO"])
        return lane(environ, start_response)

    monkeypatch.setattr(app, "wsgi_app", middleware)
    whole, _ = answered(app, request_of("POST", "/predict", {"Content-Type": "application/json"}, one()))
    assert whole.startswith(b"HTTP/1.1 200") and seen == ["/predict"]


def test_monitor_of_every_app_sees_every_request(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a monitor has put itself before all of Flask's apps, no prediction goes past it."""
    seen: list[str] = []
    own = Flask.__call__

    def monitored(flask: Flask, environ: dict[str, Any], start_response: START) -> Any:
        seen.append(environ["PATH_INFO"])
        return own(flask, environ, start_response)

    monkeypatch.setattr(Flask, "__call__", monitored)
    whole, _ = answered(app, request_of("POST", "/predict", {"Content-Type": "application/json"}, one()))
    assert whole.startswith(b"HTTP/1.1 200") and seen == ["/predict"]
