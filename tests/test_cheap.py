"""Which predictions the event loop answers itself."""

from __future__ import annotations

import logging

import pytest

from service.catalogue import Catalogue
from service.cheap import MOST_BYTES, PATIENCE_S, SLOW_S, CheapModels, is_cheap, path_of
from service.errors import PackageError
from service.manifest import Cost, Manifest
from service.predictor import Predictor
from service.runtimes import Policy
from service.store import Store


def cost(**microseconds: float) -> Cost:
    """What a model cost by number of rows, as `rows_64`."""
    measured = {rows.removeprefix("rows_"): taken for rows, taken in microseconds.items()}
    return Cost(microseconds=measured, model_mib=1, process_mib=1)


@pytest.fixture
def manifest(store: Store) -> Manifest:
    """The demo's manifest."""
    return store.manifest("penguins", "1")


@pytest.fixture
def cheap(store: Store, manifest: Manifest) -> CheapModels:
    """Of the model `a` version 1 is cheap and version 2, which is active, is dear; all of `b` is cheap or ruined."""
    runtime = store.open(manifest, Policy())
    quick, dear = (Predictor(manifest.model_copy(update={"cost": cost(rows_64=us)}), runtime) for us in (500, 5000))
    entries = {"a": {"1": quick, "2": dear}, "b": {"1": quick, "2": PackageError("it is ruined")}}
    return CheapModels(Catalogue(entries, {"a": "2", "b": "1"}, "b"))


@pytest.mark.parametrize(
    ("measured", "expected"),
    [(cost(rows_64=1000), True), (cost(rows_64=1001), False), (cost(), False), (cost(rows_1=1, rows_8=1), False)],
)
def test_cheap_is_what_was_measured_to_be(measured: Cost, expected: bool) -> None:
    """A model is cheap if 64 rows were measured to take a millisecond at most; one that was not measured is dear."""
    assert is_cheap(measured) is expected


def test_paths_of_cheap_models(cheap: CheapModels) -> None:
    """Every path that leads to a cheap version is known, the default's too, and none that leads to another."""
    versions = {b"/v1/models/a/versions/1:predict", b"/v1/models/b/versions/1:predict"}
    assert cheap.paths == versions | {b"/v1/models/b:predict", b"/predict"}


def test_dear_default_is_not_cheap(store: Store, manifest: Manifest) -> None:
    """A default model that is dear gives no path away, and neither does a catalogue that is not there yet."""
    predictor = Predictor(manifest, store.open(manifest, Policy()))
    dear = Predictor(manifest.model_copy(update={"cost": cost(rows_64=1001)}), predictor)
    assert CheapModels(Catalogue({"a": {"1": dear}}, {"a": "1"}, "a")).paths == CheapModels(None).paths == set()


@pytest.mark.parametrize(
    ("request_bytes", "grown_bytes", "expected"),
    [
        (b"POST /predict HTTP/1.1\r\n\r\n", 0, True),
        (b"POST /predict?probabilities=true HTTP/1.1\r\n\r\n", 0, True),
        (b"POST /v1/models/b:predict HTTP/1.1\r\n\r\n", 0, True),
        (b"POST /v1/models/a:predict HTTP/1.1\r\n\r\n", 0, False),
        (b"POST /predict/ HTTP/1.1\r\n\r\n", 0, False),
        (b"POST  /predict HTTP/1.1\r\n\r\n", 0, False),
        (b"GET /predict HTTP/1.1\r\n\r\n", 0, False),
        (b"post /predict HTTP/1.1\r\n\r\n", 0, False),
        (b"POST /predict HTTP/1.1\r\n\r\n".ljust(MOST_BYTES), MOST_BYTES, True),
        (b"POST /predict HTTP/1.1\r\n\r\n".ljust(MOST_BYTES + 1), 0, False),
        (b"POST /predict HTTP/1.1\r\n\r\n", MOST_BYTES + 1, False),
        (b"POST /predict HTTP/1.1\r\nAccept: application/VND.apache.arrow.stream\r\n\r\n", 0, False),
        (b"", 0, False),
        (b"POST ", 0, False),
    ],
)
def test_small_request_for_a_cheap_model_is_taken(
    request_bytes: bytes, grown_bytes: int, expected: bool, cheap: CheapModels
) -> None:
    """A request is taken if its path leads to a cheap model, it is not Arrow, and it is and stays small."""
    assert cheap.take(request_bytes, grown_bytes) is expected


@pytest.mark.parametrize(
    ("request_bytes", "path"),
    [
        (b"POST /predict HTTP/1.1\r\nHost: /x y\r\n\r\n", b"/predict"),
        (b"POST /predict?a=b?c HTTP/1.1\r\n\r\n", b"/predict"),
        (b"POST", b""),
        (b"", b""),
    ],
)
def test_path_is_that_of_the_request_line(request_bytes: bytes, path: bytes) -> None:
    """The path is what stands between the first two spaces of the request's line, up to the query."""
    assert path_of(request_bytes) == path


ASKED = b"POST /predict?probabilities=true HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    ("elapsed_s", "taken"),
    [
        ([SLOW_S] * 100, True),
        ([SLOW_S + PATIENCE_S - 0.001], True),
        ([SLOW_S + PATIENCE_S + 0.001], False),
        ([SLOW_S + PATIENCE_S * 0.3] * 3, True),
        ([SLOW_S + PATIENCE_S * 0.3] * 4, False),
        ([SLOW_S * 1.9, 0.0] * 100, True),
        ([SLOW_S * 2.1, 0.0] * 200, False),
    ],
    ids=["quick", "slow once", "very slow once", "slow", "slow again", "slow at times", "slow on the whole"],
)
def test_model_that_is_slow_here_is_taken_no_more(
    elapsed_s: list[float], taken: bool, cheap: CheapModels, caplog: pytest.LogCaptureFixture
) -> None:
    """A model whose answers are slow on the whole is not taken again, and the log says so once."""
    with caplog.at_level(logging.WARNING):
        for took_s in elapsed_s:
            cheap.note(ASKED, took_s)
    assert cheap.take(ASKED, 0) is taken
    assert [record.getMessage()[:14] for record in caplog.records] == ([] if taken else ["/predict took "])


def test_probe_that_takes_long_is_nobody_s_concern(cheap: CheapModels) -> None:
    """What was answered in the loop for another reason changes nothing."""
    before = set(cheap.paths)
    cheap.note(b"GET /readyz HTTP/1.1\r\n\r\n", 2 * PATIENCE_S)
    assert cheap.paths == before
