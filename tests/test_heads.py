"""Plain heads: whatever we read, gunicorn's parser reads, and the app is given the same environ."""

from __future__ import annotations

from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.parser import RequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gunicorn_check import SAFE
from service.heads import KNOWN_LINES, MEMORABLE_BYTES, Heads
from tests.faults.invalid_requests import fixtures, read_request

OBJECTS = {"wsgi.errors", "wsgi.input", "gunicorn.socket", "wsgi.early_hints"}
PEER, SERVER = ("203.0.113.9", 4711), ("127.0.0.1", 8000)
PLAIN = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 3\r\n\r\nabc"


def config(**changed: Any) -> Any:
    """gunicorn's configuration as ours is, where it bears on heads, or with other values."""
    cfg = Config()
    for name in ("http_parser", "header_map", "forwarder_headers"):
        cfg.set(name, ",".join(SAFE[name]) if isinstance(SAFE[name], list) else SAFE[name])
    for name, value in changed.items():
        cfg.set(name, value)
    return cfg


CFG = config()


def parsed(request: bytes, client: Any = PEER, server: Any = SERVER, cfg: Any = CFG) -> tuple[Any, ...]:
    """What gunicorn makes of a request: environ without objects, body, whether to close, and nothing left over."""
    message = next(RequestParser(cfg, iter([request]), client))
    _, environ = wsgi.create(message, None, client, server, cfg)
    body = environ["wsgi.input"].read()
    rest = message.unreader.read()
    plain = {name: value for name, value in environ.items() if name not in OBJECTS}
    return plain, environ.keys(), body, message.should_close(), rest


def read(request: bytes, client: Any = PEER, server: Any = SERVER, cfg: Any = CFG) -> tuple[Any, ...] | None:
    """What we make of it; None if we leave it to gunicorn."""
    heads = Heads(cfg)
    ours = heads.read(request, client, server)
    assert heads.read(request, client, server) == ours
    if ours is None:
        return None
    environ = heads.environ(ours, client)
    plain = {name: value for name, value in environ.items() if name not in OBJECTS}
    return plain, environ.keys(), environ["wsgi.input"].read(), ours.close, b""


def with_field(*lines: bytes) -> bytes:
    """A plain request with more field lines."""
    return PLAIN.replace(b"Host: x\r\n", b"Host: x\r\n" + b"".join(line + b"\r\n" for line in lines))


@pytest.mark.parametrize(
    "request_bytes",
    [
        PLAIN,
        b"GET / HTTP/1.1\r\nHost: a.example:80\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\nAccept:   */*  \r\n\r\n",
        b"HEAD /v1/models/a:b/~x?probabilities=true&a=b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a//b? HTTP/1.1\r\nhOST: x\r\nPROXY: http://evil\r\n\r\n",
        b"GET /:80/a HTTP/1.1\r\nHost: x\r\nSCRIPT-NAME: /v1\r\nPATH-INFO: /x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 000\r\n\r\n",
        with_field(b"Connection: close"),
        with_field(b"Connection: Keep-Alive"),
        with_field(b'Cookie: a=b; c="d"', b"Authorization: Bearer x", b"X-Request-ID: 1", b"X: :y: z"),
        with_field(b"X-Forwarded-For: 1.2.3.4, 5.6.7.8", b"X-Forwarded-Proto: https"),
        with_field(*[b"X-%d: y" % number for number in range(97)]),
        with_field(b"X: " + b"y" * 3900),
    ],
    ids=lambda request: request[:30].decode(),
)
def test_plain_head_is_read(request_bytes: bytes) -> None:
    """What clients, proxies and tools send every day is plain, and read as gunicorn reads it."""
    assert read(request_bytes) == parsed(request_bytes)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        PLAIN[:-1],
        PLAIN + b"x",
        b"\r\n" + PLAIN,
        PLAIN.replace(b"\r\n", b"\n"),
        PLAIN.replace(b"POST", b"PUT"),
        PLAIN.replace(b"POST", b"post"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        *(
            PLAIN.replace(b"/predict", path)
            for path in (b"*", b"//predict", b"/%70", b"/a#b", b"http://x/", b"/?a=%41", b"/a?b?c")
        ),
        PLAIN.replace(b"Content-Length: 3", b"Content-Length: +3"),
        PLAIN.replace(b"Content-Length: 3", b"Content-Length: 3, 3"),
        PLAIN.replace(b"Content-Length: 3", b"Content-Length:"),
        PLAIN.replace(b"Content-Length: 3", b"Content-Length: 2"),
        PLAIN.replace(b"Content-Length: 3", b"Content-Length: 0000000000000003"),
        PLAIN.replace(b"Content-Length: 3\r\n", b""),
        *(
            with_field(line)
            for line in (b"Host: x", b"Content-Length: 3", b"Content-Type: a/b", b"host: y", b"X: \xe9")
        ),
        *(with_field(line) for line in (b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Upgrade: h2c")),
        *(with_field(line) for line in (b"Connection: upgrade", b"Connection: close, x", b"Connection:", b"X_Y: z")),
        *(with_field(line) for line in (b"X : y", b" X: y", b"X: y\r\n z", b"X: a\tb")),
        *(with_field(line) for line in (b"X: \0", b"X: \x7f", b": y", b"X")),
        with_field(b"Accept: a", b"Accept: b"),
        with_field(b"X-Forwarded-Proto: https", b"X-Forwarded-Ssl: on"),
        with_field(*[b"X-%d: y" % number for number in range(98)]),
        with_field(b"X: " + b"y" * 4100),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=lambda request: ascii(request[-70:])[:60],
)
def test_any_other_head_is_left_to_gunicorn(request_bytes: bytes) -> None:
    """Whatever could be read in two ways, or is rare, is not plain."""
    assert read(request_bytes) is None


@pytest.mark.parametrize(("client", "server"), [("", SERVER), (PEER, "/run/socket"), ("", "/run/socket")])
def test_unix_socket_is_left_to_gunicorn(client: Any, server: Any) -> None:
    """An address that is no pair is gunicorn's to tell."""
    assert read(PLAIN, client, server) is None


@pytest.mark.parametrize("said", [b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: HTTPS", b"X-Forwarded-Ssl: on"])
@pytest.mark.parametrize("client", [PEER, ("127.0.0.1", 1), ("10.1.2.3", 1), ("::1", 1, 0, 0), ("::ffff:10.1.2.3", 1)])
@pytest.mark.parametrize("trusted", ["127.0.0.1,::1", "*", "10.0.0.0/8", ""])
def test_scheme_is_what_a_trusted_proxy_says(trusted: str, client: Any, said: bytes) -> None:
    """The scheme is what gunicorn makes of the peer and of what it says."""
    cfg, request = config(forwarded_allow_ips=trusted), with_field(said)
    ours = read(request, client, ("::", 8000, 0, 0), cfg)
    assert ours is not None and ours == parsed(request, client, ("::", 8000, 0, 0), cfg)


@pytest.mark.parametrize(
    ("limit", "value"), [("limit_request_line", 20), ("limit_request_fields", 2), ("limit_request_field_size", 9)]
)
def test_limits_are_gunicorn_s(limit: str, value: int) -> None:
    """A head that might break a limit is gunicorn's to judge."""
    assert read(PLAIN, cfg=config(**{limit: value})) is None


def test_app_below_a_path_is_left_to_gunicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment puts the app below a path, gunicorn takes the path apart."""
    monkeypatch.setenv("SCRIPT_NAME", "/app")
    assert read(PLAIN) is None


TOKEN = st.text("aZ09-", min_size=1, max_size=8) | st.sampled_from(
    ["Host", "Content-Type", "Connection", "X-Forwarded-Proto", "Accept", "Transfer-Encoding", "Expect", "Range"]
)
VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12) | st.sampled_from(
    ["close", "keep-alive", "https", "http", "chunked", "x:80"]
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Requests whose heads are plain, or nearly."""
    fields = draw(st.lists(st.tuples(TOKEN, VALUE), max_size=5))
    body = draw(st.binary(max_size=5))
    path = "/" + draw(st.text("aZ0.:~/-_", max_size=8)) + draw(st.sampled_from(["", "?", "?a=b&c=-"]))
    lines = [f"{draw(st.sampled_from(['GET', 'POST', 'HEAD']))} {path} HTTP/1.1", *(": ".join(pair) for pair in fields)]
    if body or draw(st.booleans()):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


PIECES = [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b"_", b"%2f", b"//", b"?", b"#", b"\xff", b"\x85", b"1"]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Such a request with pieces taken out, doubled, or put in."""
    request = draw(heads())
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(request)))
        end = draw(st.integers(start, min(len(request), start + 8)))
        request = request[:start] + draw(st.sampled_from([*PIECES, b"", request[start:end] * 2])) + request[end:]
    return request


@settings(max_examples=1000, deadline=None)
@given(request=heads() | mutated(), trusted=st.sampled_from([CFG, config(forwarded_allow_ips="*")]))
def test_whatever_is_read_is_read_alike(request: bytes, trusted: Any) -> None:
    """Whatever we accept gunicorn's parser accepts, to the last byte, with an equal environ."""
    ours = read(request, cfg=trusted)
    assert ours is None or ours == parsed(request, cfg=trusted)


@pytest.mark.parametrize("kind", ["invalid", "valid"])
def test_gunicorn_s_collection_is_read_alike(kind: str) -> None:
    """Of gunicorn's own invalid and valid requests we read none otherwise than its parser does."""
    requests = {path.stem: read_request(path) for path in fixtures(kind)}
    accepted = {stem: ours for stem, request in requests.items() if (ours := read(request)) is not None}
    assert accepted == {stem: parsed(requests[stem]) for stem in accepted}


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (b"Connection: keep-alive", True),
        (b"accept: */*", True),
        (b"User-Agent: ".ljust(MEMORABLE_BYTES, b"y"), True),
        (b"User-Agent: ".ljust(MEMORABLE_BYTES + 1, b"y"), False),
        (b"User-Agent: \x80", False),
        (b"X-Request-ID: 1", False),
        (b"X-Forwarded-For: 203.0.113.9", False),
        (b"Authorization: Bearer x", False),
        (b"Cookie: a=b", False),
        (b"X-Auth: x", False),
        (b"Accept:\r\n s3cr3t", False),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_common_lines_are_remembered_and_no_others(line: bytes, *, kept: bool) -> None:
    """What a common and short line says is not read again; nothing is kept of ids, addresses and secrets."""
    heads = Heads(CFG)
    heads.read(with_field(line).replace(b"/predict", b"/predict?api_token=x"), PEER, SERVER)
    plain = {b"Host: x", b"Content-Type: text/csv", b"Content-Length: 3"}
    assert set(heads._known) - plain - {b"Accept:"} == ({line} if kept else set())


def test_memory_of_lines_is_bounded() -> None:
    """However many lines come, few are kept, and each is read for what it says."""
    heads = Heads(CFG)
    for number in range(3 * KNOWN_LINES):
        found = heads.read(with_field(b"Accept: %d" % number), PEER, SERVER)
        assert found is not None and found.said["HTTP_ACCEPT"] == str(number)
        assert 0 < len(heads._known) <= KNOWN_LINES


@settings(max_examples=100, deadline=None)
@given(requests=st.lists(heads() | mutated(), min_size=2, max_size=20))
def test_memory_changes_no_reading(requests: list[bytes]) -> None:
    """A head is read after others as it is read alone."""
    remembering = Heads(CFG)
    for request in requests:
        after, alone = remembering.read(request, PEER, SERVER), Heads(CFG).read(request, PEER, SERVER)
        assert (after and after[:-1]) == (alone and alone[:-1])  # the last has objects that are a reader's own


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"PUT / HTTP/1.1"])
def test_no_field_is_read_of_a_head_that_has_too_many(request_line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head with more fields than gunicorn takes is left to it before any is read."""
    monkeypatch.setattr("service.heads._read_field", None)
    fields = b"".join(b"%d:\r\n" % number for number in range(101))
    assert Heads(CFG).read(request_line + b"\r\n" + fields + b"\r\n", PEER, SERVER) is None


def test_head_says_the_listener_that_it_came_to() -> None:
    """The same head at another port says another thing."""
    heads = Heads(CFG)
    found = [heads.read(PLAIN, PEER, ("127.0.0.1", port)) for port in (8000, 8001, 8000)]
    assert [each.base["SERVER_PORT"] for each in found if each] == ["8000", "8001", "8000"]
