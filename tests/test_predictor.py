"""The prediction core: what it lets through of a model's answers, and how it replays golden rows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from service.errors import GoldenMismatch, NonFinitePrediction, PredictionError
from service.manifest import Golden, Manifest
from service.predictor import BLOCK_ROWS, Predictor, all_finite
from service.runtimes import Outputs, Policy
from service.store import Store
from service.table import PredictRequest, Table, table_from_rows
from tests.conftest import PENGUIN


@dataclass
class Fake:
    """A runtime that answers what the test says."""

    answer: Callable[[Table], Outputs]

    def predict(self, table: Table, probabilities: bool) -> Outputs:
        return self.answer(table)


@pytest.fixture
def manifest(store: Store) -> Manifest:
    """The classifier's manifest."""
    return store.manifest("penguins", "1")


@pytest.fixture
def penguins(store: Store, manifest: Manifest) -> Predictor:
    """The classifier."""
    return Predictor(manifest, store.open(manifest, Policy()))


@pytest.fixture
def numbers(manifest: Manifest) -> Predictor:
    """A regressor, in the penguins' place, that answers each row's bill length."""
    runtime = Fake(lambda table: Outputs(table.columns["bill_length_mm"]))
    rows = (tuple(PENGUIN.values()), tuple((PENGUIN | {"bill_length_mm": 50.0}).values()))
    golden = Golden(rows=rows, predictions=(39.1, 50.0))
    return Predictor(manifest.model_copy(update={"golden": golden}), runtime)


@pytest.fixture
def ask(manifest: Manifest) -> Callable[..., Any]:
    """Ask a predictor of penguins, or a fake in its place, for two rows."""

    def predict(runtime: Any, *, probabilities: bool = False) -> Any:
        table = table_from_rows(manifest.signature, [PENGUIN, PENGUIN])
        return Predictor(manifest, runtime).predict(PredictRequest(table, probabilities))

    return predict


def altered(predictor: Predictor, **changes: Any) -> Predictor:
    """The same model, whose manifest has other golden rows."""
    document = predictor.manifest.golden.model_dump() | changes
    manifest = predictor.manifest.model_copy(update={"golden": Golden.model_validate(document)})
    return Predictor(manifest, predictor._runtime)


# Predicting


def test_predict_names_model_and_version(penguins: Predictor) -> None:
    """A response says which version of which model answered, in the rows' order."""
    rows = [PENGUIN, PENGUIN | {"flipper_length_mm": 230.0, "bill_depth_mm": 13.5}]
    response = penguins.predict(PredictRequest(table_from_rows(penguins.manifest.signature, rows)))
    assert (response.model, response.version) == ("penguins", "1")
    assert response.predictions.tolist() == ["Adelie", "Gentoo"]
    assert response.probabilities is None


def test_predict_gives_probabilities_of_every_class(penguins: Predictor) -> None:
    """Probabilities come as one array an output, one column a class, and add up to 1."""
    table = table_from_rows(penguins.manifest.signature, [PENGUIN])
    response = penguins.predict(PredictRequest(table, probabilities=True))
    assert response.probabilities is not None
    (shares,) = response.probabilities
    assert shares.shape == (1, 3)
    assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("error", [ValueError, KeyError, ZeroDivisionError, MemoryError, RecursionError])
def test_failing_model_is_a_prediction_error(
    ask: Callable[..., Any], caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    """Whatever a model raises is logged whole and told without the exception's text."""

    def fail(table: Table) -> Outputs:
        raise error("secret of the model")

    with pytest.raises(PredictionError) as caught:
        ask(Fake(fail))
    assert "secret" not in caught.value.detail
    assert "secret of the model" in caplog.text


@pytest.mark.parametrize("count", [0, 1, 3])
def test_wrong_number_of_rows_is_a_prediction_error(ask: Callable[..., Any], count: int) -> None:
    """A model that answers more or fewer rows than it was asked is not believed."""
    with pytest.raises(PredictionError, match="did not answer every row"):
        ask(Fake(lambda table: Outputs(np.zeros(count))))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "outputs",
    [
        lambda n: Outputs(np.array([1.0, n])),
        lambda n: Outputs(np.array([1.0, n], dtype="float32")),
        lambda n: Outputs(np.array([[1.0, 2.0], [1.0, n]])),
        lambda n: Outputs(np.array([["a", 1.0], ["b", float(n)]], dtype=object)),
        lambda n: Outputs(np.array(["a", "b"]), (np.array([[1.0, 0.0], [0.0, n]]),)),
        lambda n: Outputs(np.array(["a", "b"]), (np.ones((2, 2)), np.array([[1.0], [n]]))),
    ],
    ids=["numbers", "float32", "several outputs", "mixed outputs", "probabilities", "second output's probabilities"],
)
def test_non_finite_answer_is_refused(
    ask: Callable[..., Any], outputs: Callable[[float], Outputs], number: float
) -> None:
    """NaN or infinity anywhere in an answer makes it no prediction."""
    with pytest.raises(NonFinitePrediction):
        ask(Fake(lambda table: outputs(number)), probabilities=True)


@pytest.mark.parametrize(
    "answer",
    [np.array([1, 2]), np.array([True, False]), np.array(["nan", "inf"]), np.array(["nan", 1], dtype=object)],
    ids=str,
)
def test_labels_are_finite(answer: Any) -> None:
    """Labels are never taken for numbers that are none, not even the text nan."""
    assert all_finite(answer)


# Blocks


class Watched:
    """A runtime that keeps how many rows it was asked for at once."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        self.seen: list[int] = []

    def predict(self, table: Table, probabilities: bool) -> Outputs:
        assert {len(column) for column in table.columns.values()} == {table.n_rows}
        self.seen.append(table.n_rows)
        outputs: Outputs = self.runtime.predict(table, probabilities)
        return outputs


class Several:
    """A runtime of two outputs, a text and a number, each with probabilities of its own number of classes."""

    def predict(self, table: Table, probabilities: bool) -> Outputs:
        outputs = several(table)
        return outputs if probabilities else Outputs(outputs.predictions)


def several(table: Table) -> Outputs:
    mm = table.columns["bill_length_mm"]
    predictions = np.empty((len(mm), 2), dtype=object)
    predictions[:, 0] = table.columns["island"]
    predictions[:, 1] = mm
    share = 1 / (1 + mm)
    return Outputs(predictions, (np.stack([share, 1 - share], axis=1), np.stack([share, share, 1 - 2 * share], axis=1)))


def numbered(manifest: Manifest, n_rows: int) -> Table:
    """A table of penguins that all differ."""
    islands = ["Torgersen", "Biscoe", "Dream"]
    rows = [
        PENGUIN | {"bill_length_mm": 30 + row / 200, "body_mass_g": 3000.0 + row % 2999, "island": islands[row % 3]}
        for row in range(n_rows)
    ]
    return table_from_rows(manifest.signature, rows)


@pytest.mark.parametrize("n_rows", [1, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 2 * BLOCK_ROWS, 2 * BLOCK_ROWS + 7])
@pytest.mark.parametrize("kind", ["classifier", "several outputs"])
@pytest.mark.parametrize("probabilities", [False, True])
def test_1_7_blocks_answer_as_one(
    probabilities: bool, kind: str, n_rows: int, penguins: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many rows are scored a block at a time, and answered as if they had been scored at once."""
    runtime = Watched(penguins._runtime if kind == "classifier" else Several())
    table = numbered(penguins.manifest, n_rows)
    request = PredictRequest(table, probabilities)
    in_blocks = Predictor(penguins.manifest, runtime).predict(request)
    assert sum(runtime.seen) == n_rows and max(runtime.seen) <= BLOCK_ROWS
    assert len(runtime.seen) == -(-n_rows // BLOCK_ROWS)
    monkeypatch.setattr("service.predictor.BLOCK_ROWS", n_rows)
    at_once = Predictor(penguins.manifest, runtime).predict(request)
    assert runtime.seen[-1] == n_rows
    assert in_blocks.predictions.dtype == at_once.predictions.dtype
    assert in_blocks.predictions.shape == at_once.predictions.shape
    assert in_blocks.predictions.tolist() == at_once.predictions.tolist()
    assert (in_blocks.probabilities is None) == (at_once.probabilities is None)
    for found, whole in zip(in_blocks.probabilities or (), at_once.probabilities or (), strict=True):
        assert found.shape == whole.shape
        np.testing.assert_allclose(found, whole, rtol=1e-12)


@pytest.mark.parametrize("lacks", [0, 1])
def test_1_7_every_block_is_checked(lacks: int, manifest: Manifest) -> None:
    """A block that answers too few rows, or NaN, is no prediction, though all the others are."""

    def answer(table: Table) -> Outputs:
        numbers = np.zeros(table.n_rows)
        if table.n_rows == 3:  # the last block
            numbers = numbers[lacks:]
            numbers[-1] = np.nan
        return Outputs(numbers)

    request = PredictRequest(numbered(manifest, BLOCK_ROWS + 3))
    with pytest.raises(PredictionError if lacks else NonFinitePrediction):
        Predictor(manifest, Fake(answer)).predict(request)


# Golden rows


def test_replay_passes_for_the_demo(penguins: Predictor) -> None:
    """The committed package answers its golden rows here as it did where it was packed."""
    penguins.replay()


def test_replay_refuses_altered_label(penguins: Predictor) -> None:
    """One label that is not the packed one is a mismatch, and the message counts and names the row."""
    answers = list(penguins.manifest.golden.predictions)
    answers[2] = "Adelie" if answers[2] != "Adelie" else "Gentoo"
    with pytest.raises(GoldenMismatch, match=rf"1 of {len(answers)} golden rows .* the first is row 2"):
        altered(penguins, predictions=answers).replay()


@pytest.mark.parametrize("answer", [None, 1, 1.5, True, ("Adelie",), "adelie"], ids=repr)
def test_replay_refuses_label_of_another_kind(penguins: Predictor, answer: Any) -> None:
    """A label must be equal in value and type."""
    answers = (answer, *penguins.manifest.golden.predictions[1:])
    with pytest.raises(GoldenMismatch):
        altered(penguins, predictions=answers).replay()


@pytest.mark.parametrize(("factor", "agrees"), [(1 + 1e-9, True), (1 + 5e-6, True), (1 + 2e-5, False), (-1, False)])
def test_replay_compares_numbers_within_the_tolerance(numbers: Predictor, factor: float, agrees: bool) -> None:
    """A number may differ by the tolerance of the manifest and no more."""
    first, *others = numbers.manifest.golden.predictions
    predictor = altered(numbers, predictions=(first * factor, *others))
    if agrees:
        predictor.replay()
    else:
        with pytest.raises(GoldenMismatch):
            predictor.replay()


@pytest.mark.parametrize("answer", [1e300, 0.0, "39.1", None, (39.1,)], ids=repr)
def test_replay_refuses_number_of_another_kind(numbers: Predictor, answer: Any) -> None:
    """What is no number near the packed one is a mismatch."""
    with pytest.raises(GoldenMismatch):
        altered(numbers, predictions=(answer, *numbers.manifest.golden.predictions[1:])).replay()


@pytest.mark.parametrize("shares", [(0.0, 0.0, 1.0), (0.5, 0.5), (1.0,), ()], ids=str)
def test_replay_refuses_altered_probabilities(penguins: Predictor, shares: tuple[float, ...]) -> None:
    """Probabilities of other size, or another number of them, are a mismatch though the label is right."""
    others = (penguins.manifest.golden.probabilities or ())[1:]
    with pytest.raises(GoldenMismatch):
        altered(penguins, probabilities=((shares,), *others)).replay()


@pytest.mark.parametrize("row", [(1.0,), ("x", 18.7, 181.0, 3750.0, "Torgersen", "male")], ids=str)
def test_replay_refuses_row_that_does_not_fit(penguins: Predictor, row: tuple[Any, ...]) -> None:
    """A golden row that the signature refuses is a mismatch, with the code of what is wrong."""
    with pytest.raises(GoldenMismatch, match="invalid-instance"):
        altered(penguins, rows=(row, *penguins.manifest.golden.rows[1:])).replay()


def test_replay_refuses_model_that_fails(manifest: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    """A model that raises on its golden rows is a mismatch, and its error is in the log."""

    def fail(table: Table) -> Outputs:
        raise ValueError("secret")

    with caplog.at_level(logging.ERROR), pytest.raises(GoldenMismatch, match="prediction-failed") as caught:
        Predictor(manifest, Fake(fail)).replay()
    assert "secret" not in caught.value.detail
    assert "secret" in caplog.text


def test_replay_refuses_nan(manifest: Manifest) -> None:
    """A model that answers NaN to its golden rows is a mismatch."""
    with pytest.raises(GoldenMismatch, match="non-finite-prediction"):
        Predictor(manifest, Fake(lambda table: Outputs(np.full(table.n_rows, np.nan)))).replay()
