"""The benchmark counts failures and wrong answers, reads processes, and writes a page that can be read back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest

from bench import decoders, quick
from bench.answers import Verdict, compare
from bench.drive import Ask, Result, parse, write_script
from bench.environments import run
from bench.failure import PeerFailed
from bench.measure import Load, Visit, Waking, await_first, await_waking, check, total
from bench.peer import PEERS, Peer, peers, words
from bench.process_tree import cpu_s, members, parse_stat, pss_mib
from bench.results import Run, document
from bench.servers import Prepared, free_port, serving
from bench.table import LOAD_COLUMNS, NOTHING, START_COLUMNS, load_rows, markdown, number, ratio, read
from bench.wires import CSV, WIRES, Answer
from bench.workloads import WORKLOADS, Trained, Workload, draw
from service.protocols import native
from service.signature import Feature, Output, Signature
from service.table import PredictResponse
from tests.conftest import ROOT

# --- What wrk says


def test_wrk_result_is_read_and_failures_are_not_answers() -> None:
    """A bad status is no answer, and every kind of failure is counted."""
    said = "Running 2s test\n  1000 requests in 2.00s\nRESULT 1000 2000000 1500 9000 100 3 5 7\n"
    result = parse(said)
    assert result == Result(answered=900, errors=115, duration_s=2.0, p50_ms=1.5, p99_ms=9.0)
    assert result.rate == 450


def test_wrk_without_a_result_is_an_error() -> None:
    """What wrk says instead of a result is in the message."""
    with pytest.raises(PeerFailed, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_processes_side_by_side_add_up() -> None:
    """What several processes answered at once is one result; the slowest tail counts."""
    one, other = Result(10, 0, 2.0, 1.0, 5.0), Result(30, 1, 2.5, 3.0, 4.0)
    assert total([one, other]) == Result(40, 1, 2.5, 2.0, 5.0)


def test_bodies_may_hold_line_ends(tmp_path: Path) -> None:
    """Each body stands after a line with its length, so that it can hold anything."""
    _, bodies = write_script(Ask("/predict", "text/csv", "text/csv", (b"a,b\n1,2\n", b"{}")), tmp_path)
    assert bodies.read_bytes() == b"8\na,b\n1,2\n\n2\n{}\n"


# --- Right and wrong answers

SHARES = numpy.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])


@pytest.mark.parametrize(
    ("labels", "shares", "expected"),
    [
        (("a", "b", "a"), (), Verdict(3, 0)),
        (("a", "a", "a"), (), Verdict(3, 1)),
        (("a", "b", "a"), [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], Verdict(3, 0, 0, 0.0)),
        (("b", "b", "a"), [[0.5, 0.5], [0.200001, 0.799999], [0.6, 0.4]], Verdict(3, 1, 1, 0.4)),
    ],
    ids=["right", "planted label", "right numbers", "planted number"],
)
def test_wrong_answers_are_counted(labels: tuple[str, ...], shares: list[list[float]], expected: Verdict) -> None:
    """Every label that differs counts, and every row with a number beyond the tolerance."""
    first, second = Answer(labels[:1], shares[:1]), Answer(labels[1:], shares[1:])
    verdict = compare([first, second], ("a", "b", "a"), SHARES)
    assert (verdict.rows, verdict.differing, verdict.off) == (expected.rows, expected.differing, expected.off)
    assert verdict.largest_error == pytest.approx(expected.largest_error)


def test_missing_answers_are_an_error() -> None:
    """A server that answers fewer rows than were asked is not compared row by row."""
    with pytest.raises(PeerFailed, match="3 rows were asked and 2 labels came"):
        compare([Answer(("a", "b"))], ("a", "b", "a"), SHARES)


@pytest.mark.parametrize("body", [b"<html>", b'{"error": "busy"}', b"[]"], ids=["page", "error", "list"])
def test_an_answer_that_cannot_be_read_is_said(body: bytes) -> None:
    """What came instead of labels is the reason for leaving a peer out."""
    with pytest.raises(PeerFailed, match="its answer cannot be read: b"):
        WIRES["instances"].read(body)


@pytest.mark.parametrize(("differing", "wrong"), [(0, False), (20, False), (21, True)])
def test_another_model_is_told_from_rounding(differing: int, wrong: bool) -> None:
    """Up to two per cent of the labels may differ; beyond, it is not the same model."""
    assert Verdict(1000, differing).wrong is wrong


SMALL_SERVER = """
import http.server, json, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
        labels = ["even" if row["x"] % 2 == 0 or row["x"] == PLANTED else "odd" for row in rows]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"predictions": labels}).encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def prepared_server(folder: Path, code: str, arguments: str = "") -> Prepared:
    """A peer of a few lines that listens on a port of its own."""
    (folder / "app.py").write_text(code)
    peer = Peer("small", "a test", f"{sys.executable} app.py {{port}} {arguments}")
    port = free_port()
    return Prepared(peer, port, {"port": str(port), "prepared": str(folder)}, folder, dict(os.environ))


def parity_model() -> Trained:
    """What the small server should answer to the numbers 0 to 249."""
    rows = pandas.DataFrame({"x": range(250)})
    labels = tuple("odd" if x % 2 else "even" for x in range(250))
    return Trained("parity", "y", Path("none"), Path("none"), ("x",), rows, labels, numpy.eye(2)[rows["x"] % 2])


@pytest.mark.parametrize(("planted", "differing"), [(-1, 0), (201, 1)])
def test_a_planted_wrong_label_is_counted(tmp_path: Path, planted: int, differing: int) -> None:
    """A server with one wrong label in a later batch is started, waited for, asked and found out."""
    prepared, trained = prepared_server(tmp_path, SMALL_SERVER.replace("PLANTED", str(planted))), parity_model()
    with serving(prepared) as server:
        await_first(server, prepared.peer, trained)
        assert check(server, prepared.peer, trained) == Verdict(250, differing)
    assert server.process.poll() is not None


WAKING_SERVER = """
import pathlib, socket, sys, time
folder = pathlib.Path(sys.argv[2])
def answer(text):
    with listener.accept()[0] as client:
        asked = client.recv(65536).decode()
        while asked.endswith("\\r\\n\\r\\n") and asked.startswith("POST"):
            asked += client.recv(65536).decode()
        with (folder / "asked").open("a") as log:
            log.write(asked.partition(" HTTP")[0] + "\\n")
        if asked and text:
            client.sendall(f"HTTP/1.0 {text}".encode())
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
for text in ("", "", "404 no\\r\\n\\r\\n", "503 no\\r\\n\\r\\n", '200 ok\\r\\n\\r\\n{"predictions": ["even"]}'):
    answer(text)
time.sleep(60)
"""
"""Takes a connection, cuts one, has no such path, is not ready, and predicts."""


def test_phases_of_waking_are_told_apart(tmp_path: Path) -> None:
    """A connection that is taken, any answer by HTTP and the first right one are waited for in this order."""
    prepared = prepared_server(tmp_path, WAKING_SERVER, "{prepared}")
    with serving(prepared) as server:
        waking = await_waking(server, prepared.peer, parity_model(), time.monotonic())
    assert 0 < waking.accepts_s <= waking.live_s <= waking.answer_s
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["", "GET /livez", "GET /livez", "POST /predict", "POST /predict"]


def test_another_model_is_left_out(tmp_path: Path) -> None:
    """A server that labels too many rows otherwise is not measured."""
    prepared = prepared_server(tmp_path, SMALL_SERVER.replace("== PLANTED", "> 100"))
    with serving(prepared) as server:
        await_first(server, prepared.peer, parity_model())
        with pytest.raises(PeerFailed, match="75 of 250 labels are not the model's"):
            check(server, prepared.peer, parity_model())


def test_a_server_that_no_longer_answers_is_left_out(tmp_path: Path) -> None:
    """A server that is gone when its answers are compared ends its own part only."""
    prepared = prepared_server(tmp_path, SMALL_SERVER.replace("PLANTED", "-1"))
    with serving(prepared) as server:
        await_first(server, prepared.peer, parity_model())
    with pytest.raises(PeerFailed, match="100 rows at /predict were not answered: ConnectionRefused"):
        check(server, prepared.peer, parity_model())


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    """The reason for leaving a peer out is its last line."""
    prepared = prepared_server(tmp_path, "raise SystemExit('no such thing as a port')")
    with serving(prepared) as server, pytest.raises(PeerFailed, match="status 1, .* no such thing as a port"):
        await_first(server, prepared.peer, parity_model())


def test_an_installation_that_fails_says_why() -> None:
    """The reason for leaving a peer out is the last line of what could not be run."""
    with pytest.raises(PeerFailed, match="status 3 and said: no wheel"):
        run([sys.executable, "-c", "import sys; print('no wheel', file=sys.stderr); sys.exit(3)"])


# --- Processes

WORKING_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "held = b'x' * 2**25; print(flush=True); input()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
sum(number * number for number in range(3_000_000))
print(child.pid, flush=True)
input()
"""


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """A process that has worked, and its child in a session of its own, which holds 32 MiB."""
    parent = subprocess.Popen([sys.executable, "-c", WORKING_CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    yield parent.pid, child
    parent.communicate(b"\n")


def test_a_tree_holds_children_in_other_sessions(family: tuple[int, int]) -> None:
    """A server's workers count wherever they have put themselves, and nobody else does."""
    found = {process.pid for process in members(family[0])}
    assert found == set(family)
    assert os.getpid() not in found


def test_memory_and_time_are_those_of_the_whole_tree(family: tuple[int, int]) -> None:
    """What a child holds and what a parent has worked are both in the sums."""
    parent, child = family
    assert pss_mib(child) > 32
    assert pss_mib(parent) > pss_mib(child)
    assert cpu_s(parent) > 0


def test_a_process_name_may_look_like_fields() -> None:
    """The fields begin behind the last bracket; time is user, system, and both of children that were waited for."""
    process = parse_stat("42 (a) S 1) R 7 41 40 0 -1 0 1 2 3 4 10 20 30 40 20 0 1 0")
    assert (process.pid, process.parent, process.session, process.ticks) == (42, 7, 40, 100)


def test_time_of_ended_children_stays_in_the_tree() -> None:
    """A worker that was replaced during a run has not worked for nothing."""
    before = cpu_s(os.getpid())
    subprocess.run([sys.executable, "-c", "sum(number * number for number in range(3_000_000))"], check=True)
    assert cpu_s(os.getpid()) > before


# --- Tables

PHASES = ("accepts s", "live s", "first answer s")
ONE = Workload("one", "penguins", 1, connections=(1,))


def a_visit(peer: str, rate: int, errors: int = 0, differing: int = 0) -> Visit:
    """A round of one peer."""
    load = Load("one", 1, Result(rate, errors, 1.0, 2.0, 3.0), cpu_ms=100 / rate)
    return Visit(peer, "penguins", Waking(0.5, 0.9, 1.5), 50.0, Verdict(1000, differing, 0, 0.0), [load], {"one": 60.0})


VISITS = [
    a_visit("anyport", 200),
    a_visit("twin", 100),
    a_visit("anyport", 20, errors=4),
    a_visit("twin", 10),
    a_visit("anyport", 90),
    a_visit("twin", 110, differing=3),
]


def test_ratios_are_taken_round_by_round() -> None:
    """A round in which everything was slow does not move the ratio; figures are medians with their spread."""
    ours, base = load_rows(VISITS, ONE)
    assert ours["peer"] == "twin" and ours["requests/s"] == "100 (10.0 to 110)"
    assert base["peer"] == "anyport" and base["requests/s"] == "90.0 (20.0 to 200)"
    assert base["× twin"] == "2.00" and base["CPU × twin"] == "0.500"
    assert base["errors"] == "4"


def test_ratio_without_a_base_is_nothing() -> None:
    """Where the base was not measured there is no ratio."""
    assert ratio([1.0], []) is None and number(None) == NOTHING


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    """A figure is as long as it is meant to be exact."""
    assert number(value) == text


def a_page() -> str:
    """The page of a small run."""
    run = Run("python -m bench", [ONE], VISITS, {"anyport": 345.0}, {"anyport": {"flask": "3.1.3", "odd": "1"}})
    run.left_out["mlserver"] = "`/root/some/bin/pip install` ended | with status 1"
    return document(run, peers())


def test_the_page_can_be_read_back() -> None:
    """Whoever quotes the results finds each workload's rows under its heading."""
    rows = read(a_page())["one"]
    loads, starts = ([row for row in rows if (LOAD_COLUMNS[2] in row) is each] for each in (True, False))
    assert loads == load_rows(VISITS, ONE)
    assert [tuple(row) for row in starts] == [START_COLUMNS] * 2
    assert [[row[phase] for phase in PHASES] for row in starts] == [["0.500", "0.900", "1.50"]] * 2
    assert [row["labels differ"] for row in starts] == ["0 of 1000", "3 of 1000"]
    assert [row["environment MiB"] for row in starts] == ["345", NOTHING]


def test_the_page_says_what_was_left_out_and_no_folders() -> None:
    """A peer that is not in the tables has its reason, without the paths of this machine."""
    found = read(a_page())
    assert found["Left out"] == [{"peer": "mlserver", "why": "`pip install` ended / with status 1"}]
    assert found["Peers"][0]["packages"] == "flask 3.1.3"
    assert not re.search(r"/(root|home|work|tmp)/", a_page())


def test_markdown_is_a_table() -> None:
    """Cells come in the order of the columns."""
    assert markdown(("a", "b"), [{"b": "2", "a": "1"}]) == "| a | b |\n|---|---|\n| 1 | 2 |"


@pytest.mark.parametrize(("fall", "fallen"), [(5, 1), (15, 0)])
def test_quick_names_what_fell(fall: float, fallen: int) -> None:
    """A rate that fell by more than the argument is named; one within it is not."""
    visits = {quick.BEFORE: [a_visit("anyport", 100)], quick.AFTER: [a_visit("anyport", 90)]}
    assert len(quick.judge(visits, ONE, fall)) == fallen


def test_quick_names_failures() -> None:
    """A tree that is as fast but fails is worse."""
    visits = {quick.BEFORE: [a_visit("anyport", 100)], quick.AFTER: [a_visit("anyport", 100, errors=1)]}
    assert "1 errors" in quick.judge(visits, ONE, 10)[0]


# --- Peers and workloads

NAMES = list(peers())


@pytest.mark.parametrize("name", NAMES)
def test_peers_are_described_and_sourced(name: str) -> None:
    """Every peer says what it is, how it is asked, and where its settings are from."""
    peer = peers()[name]
    values = dict.fromkeys(
        ("port", "spare", "workers", "name", "model", "sample", "target", "prepared", "checkout", "peer"), "x"
    )
    assert words(peer.command, values) and peer.about and peer.wire in WIRES
    assert name == "anyport" or re.search(r"https://.*, read 20\d\d-\d\d-\d\d$", peer.source)
    assert any(peer.takes(workload) for workload in WORKLOADS.values())


PINNED = sorted(path.parent.name for path in PEERS.glob("*/requirements.txt"))


@pytest.mark.parametrize("name", PINNED)
def test_peers_predict_with_our_libraries(name: str) -> None:
    """Every peer has the scikit-learn and numpy of requirements.txt, so models and answers can be compared."""
    ours = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    theirs = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (PEERS / name / "requirements.txt").read_text(), re.MULTILINE))
    shared = {"joblib", "numpy", "pandas", "scikit-learn", "scipy"} & set(theirs)
    assert {package: theirs[package].strip() for package in shared} == {package: ours[package] for package in shared}


def test_drawn_rows_are_new_and_repeatable() -> None:
    """Rows are drawn by the seed alone, and their numbers are not those of the table."""
    table = pandas.DataFrame({"x": [100.0, 200.0], "grade": ["a", "b"]})
    drawn = draw(table, 50, seed=1)
    assert drawn.equals(draw(table, 50, seed=1)) and not drawn.equals(draw(table, 50, seed=2))
    assert set(drawn["grade"]) == {"a", "b"} and drawn["x"].nunique() > 10


def test_wires_ask_for_all_rows() -> None:
    """Rows go out whole, as objects and as lines, and labels come back in order."""
    rows = pandas.DataFrame({"x": [1.5, 2.5], "grade": ["a", "b"]})
    assert WIRES["instances"].encode(rows) == b'{"instances": [{"x": 1.5, "grade": "a"}, {"x": 2.5, "grade": "b"}]}'
    assert WIRES["instances"].decode(b'{"predictions": ["a", "b"]}').labels == ("a", "b")
    assert CSV.encode(rows) == b"x,grade\n1.5,a\n2.5,b\n"
    assert CSV.decode(b'label\na\n"b, c"\n').labels == ("a", "b, c")


def test_committed_results_have_every_workload_and_peer() -> None:
    """The committed page was made by a run of everything, and can be read back."""
    found = read((ROOT / "bench" / "RESULTS.md").read_text())
    assert set(WORKLOADS) <= set(found)
    seen = {row["peer"] for rows in found.values() for row in rows}
    assert set(peers()) <= seen


@pytest.mark.parametrize("decoder", [decoders.service, decoders.exact, decoders.validated])
def test_decoders_that_are_compared_read_alike(decoder: Any) -> None:
    """Each decoder of the comparison still reads a body of the native protocol."""
    of = Signature(
        features=(Feature(name="mm", dtype="float64"),), outputs=(Output(name="y", dtype="string", classes=("a", "b")),)
    )
    assert decoder(of)(b'{"instances": [{"mm": 1.5}, [2]]}').columns["mm"].tolist() == [1.5, 2.0]
    answer = PredictResponse("m", "1", of, numpy.array(["a"]), (numpy.array([[0.25, 0.75]]),))
    assert decoders.exact_answer(answer, "application/json") == native.encode_response(answer, "application/json")
