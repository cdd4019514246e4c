"""The client: where a service is, what it is asked, and in what an answer differs from what is known."""

from __future__ import annotations

import json
import math
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from service.errors import PlatformError
from service.manifest import Golden, Manifest, read_manifest
from service.platforms.client import Address, Answer, address_of, golden_body, golden_path, mismatches
from tests.conftest import ROOT
from tests.platforms.live import Said, listening

HTTPS = 443


@pytest.fixture(scope="module")
def penguins() -> Manifest:
    """The demo package's manifest."""
    return read_manifest("penguins/1", (ROOT / "models/penguins/1/manifest.json").read_bytes())


# Addresses


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://my-app.example", Address("my-app.example", HTTPS, tls=True)),
        ("https://my-app.example/", Address("my-app.example", HTTPS, tls=True)),
        ("my-app.example", Address("my-app.example", HTTPS, tls=True)),
        ("my-app.example:8443", Address("my-app.example", 8443, tls=True)),
        ("http://127.0.0.1:8000", Address("127.0.0.1", 8000)),
        ("http://localhost", Address("localhost", 80)),
        ("HTTP://LocalHost:8000", Address("localhost", 8000)),
        ("http://[::1]:8000", Address("::1", 8000)),
        ("https://my-app.example/below/it/", Address("my-app.example", HTTPS, tls=True, path="/below/it")),
        ("https://my-app.example?x=1#y", Address("my-app.example", HTTPS, tls=True)),
    ],
)
def test_address_of(url: str, address: Address) -> None:
    """An address is read as a browser reads it; without a scheme it is https."""
    assert address_of(url) == address


@pytest.mark.parametrize(
    "url",
    ["", "http://", "ftp://my-app.example", "file:///etc/passwd", "https://:8000", "unix:///tmp/socket"],
)
def test_what_is_no_address(url: str) -> None:
    """What is no http or https address is refused with an example of one."""
    with pytest.raises(PlatformError, match=r"is not the address of a service, such as https://"):
        address_of(url)


@pytest.mark.parametrize("url", ["http://my-app.example:99999", "http://my-app.example:x", "http://my-app.example:0"])
def test_port_that_is_none(url: str) -> None:
    """A port that cannot be one is refused."""
    with pytest.raises(PlatformError, match="has no usable port"):
        address_of(url)


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://a..b", "http://my-app.example/\n", "http://my app.example", "http://x/ü", "http://x/a b"],
)
def test_address_that_nobody_can_ask(url: str) -> None:
    """An address that HTTP cannot carry is refused, or cannot be asked: it is no surprise either way."""
    with pytest.raises((PlatformError, OSError)):
        address_of(url).ask("GET", "/livez", timeout_s=5)


# Asking


def test_ask_sends_what_it_is_told() -> None:
    """Method, path below the service's own, body and headers are sent; status, headers and body come back."""
    with listening({"/below/echo": lambda document: Said({"got": document}, 202, {"X-Mark": "Yes"})}) as live:
        address = Address("127.0.0.1", live.port, path="/below")
        answer = address.ask("POST", "/echo", b'{"a": 1}', {"X-Key": "k"})
        ((method, path, headers),) = live.asked
    assert (answer.status, answer.headers["x-mark"], answer.document()) == (202, "Yes", {"got": {"a": 1}})
    assert (method, path, headers["x-key"]) == ("POST", "/below/echo", "k")


def test_redirects_are_not_followed() -> None:
    """A redirect is an answer like any other."""
    with listening({"/livez": Said(None, 301, {"Location": "https://elsewhere.example"})}) as live:
        answer = address_of(live.url).ask("GET", "/livez")
    assert (answer.status, answer.headers["location"]) == (301, "https://elsewhere.example")


@pytest.mark.parametrize(
    "sent", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"]
)
def test_what_is_no_answer(sent: bytes) -> None:
    """An answer that is none, or ends too soon, is an error of the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_once, args=(listener, sent))
        thread.start()
        try:
            with pytest.raises(OSError):
                Address("127.0.0.1", listener.getsockname()[1]).ask("GET", "/livez", timeout_s=10)
        finally:
            thread.join()


def serve_once(listener: socket.socket, sent: bytes) -> None:
    """Accept one connection, answer it so, and close it."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(sent)


def test_nobody_listens() -> None:
    """Where nobody listens there is an error of the connection."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            Address("127.0.0.1", unheard.getsockname()[1]).ask("GET", "/livez", timeout_s=10)


def test_accepts_says_whether_somebody_takes_a_connection() -> None:
    """A connection is taken as soon as somebody listens, before anything is answered, and not where nobody does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address("127.0.0.1", listener.getsockname()[1])
        assert address.accepts()
    assert not address.accepts()


def test_unix_socket(tmp_path: Path) -> None:
    """A service at a Unix socket is asked as any other."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        sent = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        thread = threading.Thread(target=serve_once, args=(listener, sent))
        thread.start()
        try:
            assert Address(unix=path).ask("GET", "/livez", timeout_s=10) == Answer(200, {"content-length": "2"}, b"{}")
        finally:
            thread.join()


def test_tls_is_checked() -> None:
    """An address under https that speaks no TLS is an error of the connection."""
    with listening({}) as live, pytest.raises(OSError):
        Address("127.0.0.1", live.port, tls=True).ask("GET", "/livez", timeout_s=10)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b'{"a":'])
def test_body_that_is_no_json_is_no_document(body: bytes) -> None:
    """A body that is no JSON has no document."""
    assert Answer(200, {}, body).document() == {}


# Golden rows


def test_golden_body_repeats_the_rows(penguins: Manifest) -> None:
    """The golden rows are asked one after the other, as often as wanted, at the version's own path."""
    rows = json.loads(golden_body(penguins.golden, 3))["instances"]
    assert rows == [list(row) for row in penguins.golden.rows] * 3
    assert golden_path(penguins) == "/v1/models/penguins/versions/1:predict"


def answered(document: Any, status: int = 200) -> Answer:
    """An answer with this document."""
    return Answer(status, {}, json.dumps(document).encode())


def differences(manifest: Manifest, answer: Answer, times: int = 1) -> list[str]:
    """In what an answer differs."""
    return list(mismatches(manifest, answer, times))


@pytest.mark.parametrize("times", [1, 4])
def test_right_answer_differs_in_nothing(penguins: Manifest, times: int) -> None:
    """The predictions that the manifest knows are right, as often as they were asked for."""
    document = {"version": "1", "predictions": list(penguins.golden.predictions) * times}
    assert differences(penguins, answered(document), times) == []


def test_wrong_label_is_named(penguins: Manifest) -> None:
    """Each row that is answered otherwise is named, with what it is and what it should be."""
    predictions = ["Chinstrap", *penguins.golden.predictions[1:-1], None]
    said = differences(penguins, answered({"version": "1", "predictions": predictions}))
    assert said == [
        "penguins/1: row 0 is 'Chinstrap' and should be 'Adelie'",
        "penguins/1: row 14 is None and should be 'Gentoo'",
    ]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"version": "2", "predictions": []}, "does not name version 1"),
        ({"predictions": []}, "does not name version 1"),
        ([], "does not name version 1"),
        (None, "does not name version 1"),
        ({"version": "1"}, "has no prediction for each row"),
        ({"version": "1", "predictions": []}, "has no prediction for each row"),
        ({"version": "1", "predictions": ["Adelie"] * 16}, "has no prediction for each row"),
        ({"version": "1", "predictions": "Adelie"}, "has no prediction for each row"),
        ({"version": "1", "predictions": {"0": "Adelie"}}, "has no prediction for each row"),
    ],
)
def test_answer_of_another_shape(penguins: Manifest, document: Any, says: str) -> None:
    """An answer of another version or with another number of rows differs once, and says how."""
    (said,) = differences(penguins, answered(document))
    assert said.startswith("penguins/1: ") and says in said


@pytest.mark.parametrize(("status", "body"), [(500, b"<html>oops"), (404, b'{"detail": "no such"}'), (503, b"\xff")])
def test_answer_with_another_status(penguins: Manifest, status: int, body: bytes) -> None:
    """An answer with another status than 200 differs once, with the status and the beginning of the body."""
    (said,) = differences(penguins, Answer(status, {}, body * 1000))
    assert said.startswith(f"penguins/1: status {status}: {body.decode(errors='replace')}")
    assert len(said) < 300


def numbers(*predictions: Any, rtol: float = 1e-5, atol: float = 1e-6) -> Manifest:
    """A manifest whose golden rows are answered so."""
    manifest = read_manifest("penguins/1", (ROOT / "models/penguins/1/manifest.json").read_bytes())
    golden = Golden(
        rows=tuple((index,) for index, _ in enumerate(predictions)), predictions=predictions, rtol=rtol, atol=atol
    )
    return manifest.model_copy(update={"golden": golden})


@pytest.mark.parametrize(
    ("right", "got", "agrees"),
    [
        (1.0, 1.0, True),
        (1.0, 1, True),
        (1.0, 1.000001, True),
        (1.0, 1.001, False),
        (0.0, 1e-7, True),
        (0.0, 1e-3, False),
        (1.0, "1.0", False),
        (1.0, None, False),
        (1.0, True, False),
        (1.0, math.nan, False),
        (1.0, [1.0], False),
        (1, 1, True),
        (1, 2, False),
        (1, True, False),
        (True, True, True),
        ("1", 1, False),
        ("a", "a", True),
        (("a", 1.0), ["a", 1.0000001], True),
        (("a", 1.0), ["a", 1.1], False),
        (("a", 1.0), ["a"], False),
        (("a", 1.0), "a1", False),
    ],
)
def test_numbers_agree_within_the_tolerance(right: Any, got: Any, agrees: bool) -> None:
    """Labels must be equal and of one kind, numbers as near as the manifest wants them, lists in each item."""
    assert (differences(numbers(right), answered({"version": "1", "predictions": [got]})) == []) == agrees


def test_tolerance_is_the_manifests() -> None:
    """How near a number must be is what the manifest says."""
    answer = answered({"version": "1", "predictions": [1.05]})
    assert differences(numbers(1.0), answer)
    assert not differences(numbers(1.0, rtol=0.1), answer)
    assert not differences(numbers(1.0, atol=0.1), answer)
