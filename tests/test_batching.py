"""Predictions that are made together: who goes with whom, whose the answers and errors are, and who is next."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from service.batching import Batches, join, pays, rows_of, rows_together
from service.cheap import is_cheap
from service.errors import NonFinitePrediction, PredictionError
from service.manifest import Cost, Manifest
from service.predictor import BLOCK_ROWS, Predictor, open_predictor
from service.runtimes import RUNTIMES, Outputs, Policy
from service.signature import Feature, Output, Signature
from service.store import Store
from service.table import Column, PredictRequest, Table, table_from_rows
from tests.conftest import PENGUIN

LIMIT_S = 60
"""What no wait comes near: it only ends a test whose threads hang."""
SIGNATURE = Signature(
    features=(Feature(name="x", dtype="float64"), Feature(name="n", dtype="int64", nullable=True)),
    outputs=(Output(name="y", dtype="float64"),),
)
POISON = -1.0


def table_of(*numbers: float, n: Column | None = None) -> Table:
    """A table of these numbers, each beside a whole number without a gap."""
    whole = np.array([1] * len(numbers), dtype=object) if n is None else n
    return Table({"x": np.array(numbers), "n": whole}, len(numbers))


def costing(*microseconds: float) -> Cost:
    """The cost of a model, for 1, 8 and 64 rows."""
    measured = dict(zip(("1", "8", "64"), microseconds, strict=False))
    return Cost(microseconds=measured, model_mib=1, process_mib=1)


@dataclass
class Model:
    """Doubles a number, refuses poison, keeps what it was asked, and goes on only while its gate is open."""

    asked: list[list[float]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    upset: Callable[[list[float]], None] = lambda numbers: None

    def score(self, table: Table, probabilities: bool) -> Outputs:
        numbers = table.columns["x"]
        self.tables.append(table)
        self.asked.append(numbers.tolist())
        assert self.gate.wait(LIMIT_S)
        self.upset(numbers.tolist())
        if POISON in numbers:
            raise Poisoned(threading.get_ident())
        return Outputs(2 * numbers, (np.stack([numbers, -numbers], axis=1),) if probabilities else None)


class Poisoned(Exception):
    """What the model raises, with the thread that it was asked in."""


@dataclass
class Meeting:
    """Threads that come to one model, one behind the other."""

    model: Model
    batches: Batches
    pool: ThreadPoolExecutor

    def ask(self, table: Table, probabilities: bool = False) -> Future[Any]:
        """Ask in a thread of its own; return when that stands in the line."""
        return self.come(lambda: self.batches.score(table, probabilities))

    def come(self, call: Callable[[], Any]) -> Future[Any]:
        before = len(self.batches._line)
        future = self.pool.submit(call)
        await_line(self.batches, before + 1)
        return future


def await_line(batches: Batches, length: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while len(batches._line) != length:
        assert time.monotonic() < deadline, f"{len(batches._line)} stand in the line, not {length}"
        time.sleep(0.0002)


@contextmanager
def meeting(most_rows: int = 8, signature: Signature = SIGNATURE) -> Iterator[Meeting]:
    """A model whose gate is shut; it is opened at the end, and everybody must have gone then."""
    model = Model()
    batches = Batches(model.score, signature, most_rows)
    with ThreadPoolExecutor(32) as pool:
        try:
            yield Meeting(model, batches, pool)
        finally:
            model.gate.set()
    assert batches._line == []


def answer_of(future: Future[Any]) -> Any:
    outputs = future.result(LIMIT_S)
    return outputs.predictions.tolist()


# Where it pays


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (costing(9000, 9700, 9900), True),
        (costing(9000, 35_999), True),
        (costing(9000, 36_000), False),
        (costing(1001, 1002, 1003), True),
        (costing(1000, 1002, 1003), False),
        (costing(4000, 3900, 1000), False),
        (costing(9000), False),
        (costing(), False),
    ],
    ids=repr,
)
def test_it_pays_where_eight_rows_cost_little_more_than_one(cost: Cost, expected: bool) -> None:
    """A model is batched if it is dear, and eight rows cost less than half of eight predictions; and was measured."""
    assert pays(cost) is expected


@given(st.lists(st.floats(1, 10_000), min_size=3, max_size=3))
def test_no_cheap_model_is_batched(microseconds: list[float]) -> None:
    """What the event loop answers itself never waits in a line."""
    assert not (pays(costing(*microseconds)) and is_cheap(costing(*microseconds)))


@pytest.mark.parametrize(
    ("cost", "rows"),
    [
        (costing(7000, 8000, 13_300), 71),
        (costing(6300, 9000), 17),
        (costing(9000, 9000, 8000), 2000),
        (costing(9000, 9001, 9001), 2000),
    ],
    ids=repr,
)
def test_rows_that_cost_no_more_than_one_prediction_go_together(cost: Cost, rows: int) -> None:
    """Whoever is first waits for the others' rows at most as long as for its own prediction."""
    assert rows_together(cost, 2000) == rows


# Who goes with whom


def test_who_has_waited_goes_together() -> None:
    """Requests that come while a prediction runs are one prediction, and each gets its own rows' answers."""
    with meeting() as it:
        first, second, third = it.ask(table_of(1.0)), it.ask(table_of(2.0, 3.0)), it.ask(table_of(4.0))
        it.model.gate.set()
        assert [answer_of(one) for one in (first, second, third)] == [[2.0], [4.0, 6.0], [8.0]]
        assert it.model.asked == [[1.0], [2.0, 3.0, 4.0]]


@pytest.mark.parametrize("asking", [1, 2], ids=["one in the batch", "all"])
def test_probabilities_go_to_who_wants_them(asking: int) -> None:
    """A batch is asked for probabilities if anybody in it wants them, and nobody else gets any."""
    with meeting() as it:
        it.ask(table_of(0.0))
        asked = [it.ask(table_of(float(row), 9.0), probabilities=row <= asking) for row in (1, 2)]
        it.model.gate.set()
        answers = [one.result(LIMIT_S) for one in asked]
    assert len(it.model.asked) == 2
    for row, outputs in enumerate(answers, start=1):
        shares = outputs.probabilities and outputs.probabilities[0].tolist()
        assert shares == ([[float(row), -float(row)], [9.0, -9.0]] if row <= asking else None)


def test_more_rows_than_allowed_wait_for_the_next_batch() -> None:
    """A batch has as many as fit of those who wait, and nobody overtakes one that does not fit."""
    with meeting(most_rows=4) as it:
        asked = [it.ask(table_of(*[float(row)] * n)) for row, n in enumerate([1, 2, 2, 1, 9, 1])]
        it.model.gate.set()
        assert [len(answer_of(one)) for one in asked] == [1, 2, 2, 1, 9, 1]
    assert it.model.asked == [[0.0], [1.0, 1.0, 2.0, 2.0], [3.0], [4.0] * 9, [5.0]]


WHOLE = {
    "int64": np.array([1, 2]),
    "objects": np.array([1, 2], dtype=object),
    "gap": np.array([1, None], dtype=object),
    "other gap": np.array([None, 2], dtype=object),
}


@pytest.mark.parametrize("one", WHOLE)
@pytest.mark.parametrize("other", WHOLE)
def test_only_tables_of_one_kind_are_joined(one: str, other: str) -> None:
    """A table whose whole numbers are held otherwise, or have gaps, goes alone: no value reaches the model changed."""
    kinds = [name.removeprefix("other ") for name in (one, other)]
    with meeting() as it:
        asked = [it.ask(table_of(0.0)), *(it.ask(table_of(1.0, 2.0, n=WHOLE[name])) for name in (one, other))]
        it.model.gate.set()
        assert [answer_of(request) for request in asked] == [[0.0], [2.0, 4.0], [2.0, 4.0]]
    expected = [[*WHOLE[one], *WHOLE[other]]] if kinds[0] == kinds[1] else [list(WHOLE[one]), list(WHOLE[other])]
    seen = [table.columns["n"] for table in it.model.tables[1:]]
    assert [column.tolist() for column in seen] == expected
    assert {column.dtype for column in seen} == {WHOLE[one].dtype, WHOLE[other].dtype}
    assert {type(value) for column in seen for value in column} <= {int, np.int64, type(None)}


COLUMNS = {
    "floats": np.array([1.5, np.nan]),
    "small floats": np.array([1.5, np.nan], dtype="float32"),
    "truth": np.array([True, False]),
    "texts": np.array(["a", None], dtype=object),
    "dates": np.array(["2026-11-23", "NaT"], dtype="datetime64[us]"),
    "nullable": np.array([True, None], dtype=object),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_joining_and_splitting_changes_no_column(name: str) -> None:
    """Columns of every dtype come out of a joined table, and out of outputs, as they went in."""
    column = COLUMNS[name]
    table = Table({"a": column, "b": column[::-1]}, 2)
    joined = join([table, table.rows(0, 1), table])
    assert joined.n_rows == 5
    assert {one.dtype for one in joined.columns.values()} == {column.dtype}
    assert repr(joined.rows(3, 5).columns["a"].tolist()) == repr(column.tolist())
    assert repr(joined.rows(2, 4).columns["b"].tolist()) == repr([column.tolist()[1], column.tolist()[1]])
    split = rows_of(Outputs(joined.columns["a"], (joined.columns["b"],)), 3, 5)
    assert split.predictions.dtype == column.dtype and split.probabilities is not None
    assert repr(split.predictions.tolist()) == repr(column.tolist())
    assert repr(split.probabilities[0].tolist()) == repr(column.tolist()[::-1])


# Errors


@pytest.mark.parametrize("poisoned", [1, 2, 3])
def test_an_error_stays_with_its_request(poisoned: int, caplog: pytest.LogCaptureFixture) -> None:
    """If a batch fails, each of it is predicted alone in its own thread, before all others, and only one has failed."""

    def alone(batches: Batches, table: Table) -> Any:
        try:
            return batches.score(table, False).predictions.tolist()
        except Poisoned as error:
            return error.args == (threading.get_ident(),)

    with meeting(most_rows=3) as it:
        tables = [table_of(POISON if row == poisoned else float(row)) for row in range(6)]
        asked = [it.come(lambda table=table: alone(it.batches, table)) for table in tables]  # type: ignore[misc]
        it.model.gate.set()
        answers = [request.result(LIMIT_S) for request in asked]
    assert answers == [True if row == poisoned else [2.0 * row] for row in range(6)]
    numbers = [table.columns["x"].tolist() for table in tables]
    assert it.model.asked == [numbers[0], sum(numbers[1:4], []), *numbers[1:4], numbers[4] + numbers[5]]
    assert "3 requests failed together (Poisoned)" in caplog.text


@pytest.mark.parametrize("error", [ValueError, MemoryError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_who_fails_lets_the_next_one_go_on(error: type[BaseException]) -> None:
    """Whatever ends the first of the line, those behind it are predicted."""

    def upset(numbers: list[float]) -> None:
        if numbers == [0.0]:
            raise error

    with meeting() as it:
        it.model.upset = upset
        asked = [it.ask(table_of(float(row))) for row in range(3)]
        it.model.gate.set()
        assert [answer_of(request) for request in asked[1:]] == [[2.0], [4.0]]
        assert type(asked[0].exception(LIMIT_S)) is error


@pytest.mark.parametrize(
    ("error", "ends_the_leader"),
    [(ValueError, False), (MemoryError, False), (SystemExit, False), (KeyboardInterrupt, True)],
)
def test_who_fails_with_others_leaves_none_waiting(error: type[BaseException], ends_the_leader: bool) -> None:
    """Whatever ends a batch, each of it is answered; only what is meant for the process ends its thread."""

    def upset(numbers: list[float]) -> None:
        if len(numbers) == 3:
            raise error

    with meeting() as it:
        it.model.upset = upset
        asked = [it.ask(table_of(float(row))) for row in range(4)]
        it.model.gate.set()
        assert [answer_of(request) for request in (asked[0], *asked[2:])] == [[0.0], [4.0], [6.0]]
        assert type(asked[1].exception(LIMIT_S)) is (error if ends_the_leader else type(None))


class Interrupted(BaseException):
    """What a signal raises in the main thread, as Ctrl-C does."""


def test_who_is_interrupted_leaves_the_line() -> None:
    """A thread that is interrupted while it waits holds up nobody behind it."""

    interrupted = threading.Event()

    def interrupt(number: int, frame: Any) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise Interrupted

    def send() -> None:
        await_line(it.batches, 2)
        while not interrupted.is_set():  # a thread that is about to sleep does not hear the first one
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            time.sleep(0.001)

    old = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with meeting() as it:
            first = it.ask(table_of(1.0))
            sent = it.pool.submit(send)
            with pytest.raises(Interrupted):
                it.batches.score(table_of(2.0), False)
            sent.result(LIMIT_S)
            last = it.ask(table_of(3.0))
            it.model.gate.set()
            assert [answer_of(first), answer_of(last)] == [[2.0], [6.0]]
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert it.model.asked == [[1.0], [3.0]]


# One thread, and many


def test_one_thread_never_waits() -> None:
    """Where nobody else asks, each table goes to the model as it is, at once."""
    with meeting() as it:
        it.model.gate.set()
        tables = [table_of(1.0), table_of(2.0, POISON), table_of(3.0)]

        def ask(table: Table) -> Any:
            try:
                return it.batches.score(table, False).predictions.tolist()
            except Poisoned:
                return None

        answers = it.pool.submit(lambda: [ask(table) for table in tables]).result(LIMIT_S)
    assert answers == [[2.0], None, [6.0]]
    assert all(seen is table for seen, table in zip(it.model.tables, tables, strict=True))


REQUESTS = st.lists(
    st.tuples(st.integers(1, 4), st.booleans(), st.booleans(), st.sampled_from(["objects", "gap"])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(REQUESTS, st.integers(1, 8))
def test_every_request_gets_its_own(requests: list[tuple[int, bool, bool, str]], most_rows: int) -> None:
    """In any line, each gets its own rows' answers or its own error, in the line's order, and no batch is too large."""
    with meeting(most_rows) as it:
        tables, asked = [], []
        for index, (n_rows, probabilities, poisoned, kind) in enumerate(requests):
            numbers = [10.0 * (index + 1) + row for row in range(n_rows)] + [POISON] * poisoned
            whole = np.array([1 if kind == "objects" else None] * len(numbers), dtype=object)
            tables.append(table_of(*numbers, n=whole))
            asked.append(it.ask(tables[-1], probabilities))
        it.model.gate.set()
    for table, future, (_, probabilities, poisoned, _) in zip(tables, asked, requests, strict=True):
        if poisoned:
            assert isinstance(future.exception(LIMIT_S), Poisoned)
            continue
        alone = it.model.score(table, probabilities)
        outputs = future.result(LIMIT_S)
        assert outputs.predictions.tolist() == alone.predictions.tolist()
        assert (outputs.probabilities is None) is (not probabilities)
        assert repr([share.tolist() for share in outputs.probabilities or ()]) == repr(
            [share.tolist() for share in alone.probabilities or ()]
        )
    calls = it.model.asked[: -sum(not poisoned for _, _, poisoned, _ in requests) or None]
    firsts = list(dict.fromkeys(int(number) // 10 for call in calls for number in call if number != POISON))
    assert firsts == sorted(firsts) == list(range(1, len(requests) + 1))
    alone_sizes = {len(table.columns["x"]) for table in tables}
    assert all(len(call) <= most_rows or len(call) in alone_sizes for call in calls)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(old)


def test_many_threads_lose_nothing(restless: None) -> None:
    """Of 16 threads with 200 requests each, every request is answered with its own rows, or fails by itself."""

    def come(batches: Batches, thread: int) -> int:
        right = 0
        for index in range(200):
            number = thread * 1000.0 + index
            numbers = [number, POISON] if index % 50 == 7 else [number] * (1 + index % 3)
            try:
                outputs = batches.score(table_of(*numbers), index % 2 == 0)
            except Poisoned:
                right += POISON in numbers
            else:
                right += outputs.predictions.tolist() == [2 * number for number in numbers]
        return right

    with meeting() as it:
        threads = [it.pool.submit(come, it.batches, thread) for thread in range(16)]
        await_line(it.batches, 16)
        it.model.gate.set()
        assert [thread.result(LIMIT_S) for thread in threads] == [200] * 16
    assert max(map(len, it.model.asked)) == 8


# Predictors


@dataclass
class Held:
    """A runtime that answers only while its gate is open, and keeps how many rows it was asked for at once."""

    answer: Callable[[Table], Column] = lambda table: table.columns["bill_length_mm"]
    gate: threading.Event = field(default_factory=threading.Event)
    seen: list[int] = field(default_factory=list)

    def predict(self, table: Table, probabilities: bool) -> Outputs:
        self.seen.append(table.n_rows)
        assert self.gate.wait(LIMIT_S)
        predictions = self.answer(table)
        return Outputs(predictions, (np.stack([predictions] * 3, axis=1),) if probabilities else None)


@pytest.fixture
def manifest(store: Store) -> Manifest:
    """The demo's manifest, of a model that it pays to batch."""
    return store.manifest("penguins", "1").model_copy(update={"cost": costing(9000, 9500, 9900)})


def held(manifest: Manifest, **how: Any) -> tuple[Predictor, Held]:
    """A predictor that batches, and its runtime, whose gate is shut."""
    runtime = Held(**how)
    runtime.gate.set()
    predictor = Predictor(manifest, runtime)
    predictor.batch_where_right()
    assert predictor._batches is not None
    runtime.gate.clear()
    runtime.seen.clear()
    return predictor, runtime


def penguins(manifest: Manifest, *millimetres: float) -> PredictRequest:
    return PredictRequest(table_from_rows(manifest.signature, [PENGUIN | {"bill_length_mm": mm} for mm in millimetres]))


def come(pool: ThreadPoolExecutor, predictor: Predictor, request: PredictRequest) -> Future[Any]:
    """Ask a predictor in a thread, and return when that stands in the line."""
    assert predictor._batches is not None
    before = len(predictor._batches._line)
    future = pool.submit(predictor.predict, request)
    await_line(predictor._batches, before + 1)
    return future


def test_others_get_their_turn_between_blocks(manifest: Manifest) -> None:
    """A request of many rows goes to the end of the line after each block, and is answered in its rows' order."""
    predictor, runtime = held(manifest)
    numbers = [30 + row / 200 for row in range(2 * BLOCK_ROWS + 5)]
    with ThreadPoolExecutor(4) as pool:
        large = come(pool, predictor, penguins(manifest, *numbers))
        small = [come(pool, predictor, penguins(manifest, mm)) for mm in (40.0, 50.0)]
        runtime.gate.set()
        assert [one.result(LIMIT_S).predictions.tolist() for one in small] == [[40.0], [50.0]]
        assert large.result(LIMIT_S).predictions.tolist() == numbers
    assert runtime.seen == [BLOCK_ROWS, 2, BLOCK_ROWS, 5]


def test_one_requests_nan_is_not_the_others(manifest: Manifest) -> None:
    """An answer of NaN to one request leaves those beside it answered."""
    predictor, runtime = held(manifest)
    runtime.answer = lambda table: np.where(table.columns["bill_length_mm"] == 30, np.nan, 1.0)
    with ThreadPoolExecutor(4) as pool:
        asked = [come(pool, predictor, penguins(manifest, mm)) for mm in (40.0, 50.0, 30.0, 60.0)]
        runtime.gate.set()
        assert isinstance(asked.pop(2).exception(LIMIT_S), NonFinitePrediction)
        assert [one.result(LIMIT_S).predictions.tolist() for one in asked] == [[1.0]] * 3
    assert runtime.seen == [1, 3]


def test_a_batch_has_as_many_rows_as_cost_one_prediction(manifest: Manifest) -> None:
    """Rows that would keep the first of the line waiting for longer than its own prediction takes go by themselves."""
    predictor, runtime = held(manifest.model_copy(update={"cost": costing(7000, 8000, 70_000)}))  # 1 ms a row
    with ThreadPoolExecutor(4) as pool:
        asked = [come(pool, predictor, penguins(manifest, *[40.0] * n_rows)) for n_rows in (1, 1, 7, 1)]
        runtime.gate.set()
        assert [len(one.result(LIMIT_S).predictions) for one in asked] == [1, 1, 7, 1]
    assert runtime.seen == [1, 8, 1]


def test_rows_that_a_model_leaves_out_fail_alone(manifest: Manifest) -> None:
    """If a batch has another number of answers than rows, each request is asked alone: no answer is another's."""
    predictor, runtime = held(manifest)
    runtime.answer = lambda table: (mm := table.columns["bill_length_mm"])[mm != 30]
    with ThreadPoolExecutor(4) as pool:
        asked = [come(pool, predictor, penguins(manifest, mm)) for mm in (40.0, 50.0, 30.0, 60.0)]
        runtime.gate.set()
        assert isinstance(asked.pop(2).exception(LIMIT_S), PredictionError)
        assert [one.result(LIMIT_S).predictions.tolist() for one in asked] == [[40.0], [50.0], [60.0]]
    assert runtime.seen == [1, 3, 1, 1, 1]


def fitted(kind: str) -> Any:
    """A forest or a linear model of the demo's numbers."""
    random = np.random.default_rng(0)
    rows = pandas.DataFrame({name: random.normal(100, 50, 300) for name in PENGUIN if name not in ("island", "sex")})
    rows = rows.assign(island="Dream", sex="male")
    labels = np.where(
        rows.bill_length_mm > rows.bill_depth_mm, "Adelie", np.where(rows.body_mass_g > 90, "Gentoo", "x")
    )
    last = RandomForestClassifier(20, random_state=0) if kind == "forest" else LogisticRegression(max_iter=1000)
    pick = make_column_transformer(("passthrough", list(rows.columns[:4])))
    return make_pipeline(pick, last).fit(rows, labels)


def bound(manifest: Manifest, kind: str) -> Any:
    return RUNTIMES["joblib"].bind(fitted(kind), manifest.signature, "frame")


def whole(manifest: Manifest) -> Manifest:
    """The same manifest, whose golden rows have no gap."""
    rows = tuple(tuple((PENGUIN | {"bill_length_mm": 30 + row / 7}).values()) for row in range(20))
    golden = manifest.golden.model_copy(update={"rows": rows})
    return manifest.model_copy(update={"golden": golden})


def test_a_forest_answers_together_as_alone(manifest: Manifest) -> None:
    """Requests to a real forest that are predicted together are answered as each is alone, to the last bit."""
    predictor = Predictor(whole(manifest), bound(manifest, "forest"))
    plain = Predictor(whole(manifest), predictor._runtime)
    predictor.batch_where_right()
    assert predictor._batches is not None
    table = penguins(manifest, *(30 + row / 7 for row in range(64))).table
    requests = [PredictRequest(table.rows(row, row + 1 + row % 3), row % 2 == 0) for row in range(61)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(predictor.predict, requests, timeout=LIMIT_S))
    for request, answer in zip(requests, answers, strict=True):
        alone = plain.predict(request)
        assert answer.predictions.tolist() == alone.predictions.tolist()
        assert (answer.probabilities is None) is (not request.probabilities)
        for found, expected in zip(answer.probabilities or (), alone.probabilities or (), strict=True):
            assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda mm: mm, True),
        (lambda mm: mm - 1e-13 * (len(mm) > 1), False),
        (lambda mm: np.argsort(mm).astype(float), False),
        (lambda mm: mm.astype("float32") if len(mm) > 1 else mm, False),
        (lambda mm: np.zeros(len(mm)) if len(mm) > 1 else np.zeros(1, dtype=int), False),
        (lambda mm: np.zeros(len(mm)) if len(mm) > 1 else -np.zeros(1), False),
    ],
    ids=["row by row", "last bits", "ranks", "precision", "whole numbers", "negative zero"],
)
def test_only_a_model_that_answers_row_by_row_is_batched(
    answer: Callable[[Column], Column], expected: bool, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    """A model whose golden rows have other answers together than one by one, be it in the last bit, is not batched."""
    runtime = Held(lambda table: answer(table.columns["bill_length_mm"]))
    runtime.gate.set()
    predictor = Predictor(whole(manifest), runtime)
    with caplog.at_level(logging.INFO):
        predictor.batch_where_right()
    assert (predictor._batches is not None) is expected
    assert ("answers a row otherwise among others" in caplog.text) is not expected


def test_a_model_that_fails_on_its_golden_rows_alone_is_not_batched(manifest: Manifest) -> None:
    """A model that raises when it is asked golden rows one by one is served as it was replayed, and not batched."""

    def answer(table: Table) -> Column:
        if table.n_rows == 1:
            raise ValueError
        return np.zeros(table.n_rows)

    runtime = Held(answer)
    runtime.gate.set()
    predictor = Predictor(manifest, runtime)
    predictor.batch_where_right()
    assert predictor._batches is None


@pytest.mark.parametrize(("cost", "expected"), [(costing(9000, 9500), True), (costing(9000, 70_000), False)], ids=repr)
def test_opening_decides_by_what_was_measured(cost: Cost, expected: bool, manifest: Manifest) -> None:
    """A model that is opened is batched from then on if that pays, and else asked its golden rows only once."""
    runtime = Held(lambda table: np.zeros(table.n_rows))
    runtime.gate.set()
    golden = manifest.golden.model_copy(
        update={"predictions": (0.0,) * len(manifest.golden.rows), "probabilities": None}
    )
    manifest = manifest.model_copy(update={"cost": cost, "golden": golden})
    store: Any = SimpleNamespace(open=lambda *_: runtime)
    predictor = open_predictor(store, manifest, Policy())
    assert (predictor._batches is not None) is expected
    assert len(runtime.seen) == (2 + len(golden.rows) if expected else 1)


def test_replay_asks_the_model_itself(manifest: Manifest) -> None:
    """Golden rows are replayed without the line, whoever stands in it."""
    predictor, runtime = held(manifest, answer=lambda table: np.zeros(table.n_rows))
    golden = manifest.golden.model_copy(
        update={"predictions": (0.0,) * len(manifest.golden.rows), "probabilities": None}
    )
    predictor.manifest = manifest.model_copy(update={"golden": golden})
    with ThreadPoolExecutor(4) as pool:
        waiting = [come(pool, predictor, penguins(manifest, mm)) for mm in (40.0, 50.0)]
        replayed = pool.submit(predictor.replay)
        runtime.gate.set()
        replayed.result(LIMIT_S)
        assert [one.result(LIMIT_S).predictions.tolist() for one in waiting] == [[0.0], [0.0]]
    assert sorted(runtime.seen) == [1, 1, len(golden.rows)]
