"""Verify: what is said of a live service that answers rightly, and of each that does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from service.manifest import Manifest, read_manifest
from service.platforms.client import address_of, golden_path
from service.platforms.report import Report, Scene
from service.platforms.verify import SAMPLES, verify
from tests.conftest import ROOT
from tests.platforms.live import Live, Said, listening, right, well
from tests.server import Server, running

MANIFEST = ROOT / "models" / "penguins" / "1" / "manifest.json"
PENGUINS = read_manifest("penguins/1", MANIFEST.read_bytes())
PREDICT = golden_path(PENGUINS)
GOLDEN = "golden rows of penguins/1"

Answers = dict[str, Said | Callable[[Any], Said]]


def look(answers: Answers, *manifests: Manifest, key: str | None = None) -> tuple[Report, Live]:
    """Verify a service that answers so."""
    watched: list[Scene] = []
    with listening(answers) as live:
        report = verify("it", address_of(live.url), list(manifests or [PENGUINS]), key, watched.append)
    assert watched == report.scenes
    return report, live


def test_service_that_answers_rightly_passes() -> None:
    """Alive, ready, right and quick: every scene passes, and the latency is among the figures."""
    report, live = look(well(PENGUINS))
    assert report.passed
    assert [scene.name for scene in report.scenes] == ["alive", "ready", GOLDEN, "latency"]
    assert report.scenes[2].said == "15 rows are answered as when it was packed"
    assert 0 < report.figures["median_ms"] <= report.figures["slowest_ms"]
    assert [path for _, path, _ in live.asked] == ["/livez", "/readyz", *[PREDICT] * (1 + SAMPLES)]


def test_every_model_is_asked() -> None:
    """The golden rows of each active model are replayed."""
    other = PENGUINS.model_copy(update={"name": "birds", "version": "7"})
    report, _ = look(well(PENGUINS, other), PENGUINS, other)
    assert report.passed
    assert {GOLDEN, "golden rows of birds/7"} < {scene.name for scene in report.scenes}


def test_key_is_sent_where_predictions_are_asked() -> None:
    """A key goes as a bearer token with each prediction, and with no probe."""
    _, live = look(well(PENGUINS), key="s3cret")
    sent = {path: headers.get("authorization") for _, path, headers in live.asked}
    assert sent == {"/livez": None, "/readyz": None, PREDICT: "Bearer s3cret"}


def test_without_a_key_none_is_sent() -> None:
    """Without a key no request has one."""
    _, live = look(well(PENGUINS))
    assert not [headers for _, _, headers in live.asked if "authorization" in headers]


def test_stale_models_are_told() -> None:
    """A service that is ready with a stale model passes, and the model is named."""
    report, _ = look(well(PENGUINS) | {"/readyz": Said({"ready": True, "stale": {"penguins/2": "checksum-mismatch"}})})
    assert report.passed
    assert report.scenes[1].said == "GET /readyz answers 200; stale: penguins/2"


def wrong(**changes: Any) -> Callable[[Any], Said]:
    """Answer rightly but for these parts of the document."""

    def answer(document: Any) -> Said:
        said = right(PENGUINS)(document)
        return Said(said.document | {name: change(said.document[name]) for name, change in changes.items()})

    return answer


def once_then(first: Callable[[Any], Said], then: Said) -> Callable[[Any], Said]:
    """Answer the first request in one way, and all others in another."""
    answers: Iterator[Callable[[Any], Said]] = iter([first])
    return lambda document: next(answers, lambda _: then)(document)


FAULTY = [
    (
        "alive",
        {"/livez": Said(None, 301, {"Location": "https://my-app.example/livez"})},
        "it redirects to https://my-app",
    ),
    ("alive", {"/livez": Said(None, 308, {"Location": "/elsewhere"})}, "it redirects to /elsewhere"),
    ("alive", {"/livez": Said({"alive": True}, 500)}, "answered 500"),
    ("alive", {"/livez": Said(body=b"<html>Welcome")}, "not by this service"),
    ("alive", {"/livez": Said(["alive"])}, "not by this service"),
    ("alive", {"/livez": Said(cut=True)}, "there is no answer"),
    ("ready", {"/readyz": Said({"detail": "penguins/1: on trial"}, 503)}, "answers 503: penguins/1: on trial"),
    ("ready", {"/readyz": Said(None, 503, body=b"<html>oops")}, "answers 503"),
    ("ready", {"/readyz": Said(["oops"], 503)}, "answers 503"),
    ("ready", {"/readyz": Said("oops", 404)}, "answers 404"),
    ("ready", {"/readyz": Said(["oops"])}, "not by this service"),
    ("ready", {"/readyz": Said({"ready": True, "stale": 5})}, "not by this service"),
    ("ready", {"/readyz": Said(None, 302, {"Location": "/login"})}, "answers 302"),
    ("ready", {"/readyz": Said(cut=True)}, "there is no answer"),
    (
        GOLDEN,
        {PREDICT: wrong(predictions=lambda labels: ["Gentoo", *labels[1:]])},
        "1 differ, such as penguins/1: row 0",
    ),
    (GOLDEN, {PREDICT: wrong(version=lambda _: "2")}, "does not name version 1"),
    (GOLDEN, {PREDICT: wrong(predictions=lambda labels: labels[1:])}, "has no prediction for each row"),
    (GOLDEN, {PREDICT: Said({"detail": "no"}, 500)}, "status 500"),
    (GOLDEN, {PREDICT: Said({"detail": "no key"}, 401)}, "status 401"),
    (GOLDEN, {PREDICT: Said(None, 307, {"Location": "/elsewhere"})}, "status 307"),
    (GOLDEN, {PREDICT: Said(body=b"<html>")}, "does not name version 1"),
    (GOLDEN, {PREDICT: Said(cut=True)}, "there is no answer"),
    ("latency", {PREDICT: once_then(right(PENGUINS), Said({"detail": "busy"}, 503))}, "one row is answered 503"),
    ("latency", {PREDICT: once_then(right(PENGUINS), Said(cut=True))}, "there is no answer"),
]


@pytest.mark.parametrize(("scene", "answers", "says"), FAULTY, ids=[f"{row[0]}: {row[2]}" for row in FAULTY])
def test_service_that_answers_otherwise_fails(scene: str, answers: Answers, says: str) -> None:
    """A service that answers otherwise fails at the scene that shows it, which says how; no scene follows."""
    report, _ = look(well(PENGUINS) | answers)
    assert not report.passed
    assert [each.name for each in report.scenes if not each.passed] == [scene] == [report.scenes[-1].name]
    assert says in report.scenes[-1].said


def test_nobody_listens() -> None:
    """Where nobody listens the first scene says so."""
    with listening({}) as live:
        pass
    report = verify("it", address_of(live.url), [PENGUINS], None, lambda scene: None)
    assert [(scene.name, scene.passed) for scene in report.scenes] == [("alive", False)]
    assert "there is no answer" in report.scenes[0].said


def test_report_is_plain_data() -> None:
    """The report can be written as JSON, with its subject, its verdict and its scenes."""
    document = json.loads(json.dumps(look(well(PENGUINS))[0].document()))
    assert (document["subject"], document["passed"], document["remarks"]) == ("it", True, [])
    assert [scene["passed"] for scene in document["scenes"]] == [True] * 4
    assert document["figures"].keys() == {"median_ms", "slowest_ms"}


# The command

Flask_verify = Callable[..., Result]


@pytest.fixture
def flask_verify(make_app: Callable[..., Flask]) -> Flask_verify:
    """Run `flask verify` under settings of one's own."""

    def run(*arguments: str, **settings: Any) -> Result:
        return make_app(**settings).test_cli_runner().invoke(args=["verify", *arguments], catch_exceptions=False)

    return run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service, running with the demo package."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path_factory.mktemp("live") / "models"))
    with running(models) as server:
        yield server


@pytest.mark.slow
def test_verify_of_the_service_itself(server: Server, flask_verify: Flask_verify) -> None:
    """The service, asked with the packages that it serves, passes: every scene is told, and the status is 0."""
    done = flask_verify(f"http://127.0.0.1:{server.port}")
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.stdout.splitlines()[:4]] == ["ok"] * 4
    assert done.stdout.endswith(f"http://127.0.0.1:{server.port}: passed\n")


@pytest.mark.slow
def test_verify_of_another_model(server: Server, flask_verify: Flask_verify, models_dir: Path) -> None:
    """Where the package here knows another prediction, the row is told and the status is 1."""
    manifest = models_dir / "penguins" / "1" / "manifest.json"
    document = json.loads(manifest.read_text())
    document["golden"]["predictions"][3] = "Gentoo"
    manifest.write_text(json.dumps(document))
    done = flask_verify(f"http://127.0.0.1:{server.port}")
    assert done.exit_code == 1
    assert "row 3 is 'Adelie' and should be 'Gentoo'" in done.stdout
    assert done.stdout.endswith("FAILED\n")


@pytest.mark.slow
def test_verify_of_a_version_that_is_not_live(server: Server, flask_verify: Flask_verify, models_dir: Path) -> None:
    """Where the package here is of another version than the live one, that is told and the status is 1."""
    package = Path(shutil.copytree(models_dir / "penguins" / "1", models_dir / "penguins" / "2"))
    document = json.loads((package / "manifest.json").read_text()) | {"version": "2"}
    (package / "manifest.json").write_text(json.dumps(document))
    done = flask_verify(f"http://127.0.0.1:{server.port}")
    assert done.exit_code == 1
    assert "penguins/2: status 404" in done.stdout


def test_verify_prints_json(flask_verify: Flask_verify) -> None:
    """With --json the report is one object, and the status is the verdict."""
    with listening(well(PENGUINS)) as live:
        passed = flask_verify(live.url, "--json")
        live.answers["/readyz"] = Said({"detail": "on trial"}, 503)
        failed = flask_verify(live.url, "--json")
    assert (passed.exit_code, json.loads(passed.stdout)["passed"]) == (0, True)
    assert (failed.exit_code, json.loads(failed.stdout)["passed"]) == (1, False)


def test_verify_reads_the_key_from_the_settings(flask_verify: Flask_verify) -> None:
    """The key comes from ANYPORT_VERIFY_KEY, and is not printed."""
    with listening(well(PENGUINS)) as live:
        done = flask_verify(live.url, verify_key="s3cret")
    assert {headers.get("authorization") for _, path, headers in live.asked if path == PREDICT} == {"Bearer s3cret"}
    assert done.exit_code == 0 and "s3cret" not in done.output


@pytest.mark.parametrize("key", ["with\nline end", "schlüssel-ж"])
def test_key_that_no_header_can_carry(flask_verify: Flask_verify, key: str) -> None:
    """A key that no header can carry ends in a message that does not hold it, and not in a surprise."""
    with listening(well(PENGUINS)) as live:
        done = flask_verify(live.url, verify_key=key)
    assert done.exit_code == 1
    assert key not in done.output and "Traceback" not in done.output


def test_verify_of_what_is_no_address(flask_verify: Flask_verify) -> None:
    """What is no address is refused in one line with status 1."""
    done = flask_verify("ftp://my-app.example")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "is not the address of a service" in done.stderr


def test_verify_without_packages(flask_verify: Flask_verify, tmp_path: Path) -> None:
    """Where no package is here, nothing is known of what should be answered, and that is said."""
    done = flask_verify("http://127.0.0.1:9", models_dir=tmp_path / "empty")
    assert done.exit_code == 1
    assert "holds no package" in done.stderr
