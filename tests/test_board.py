"""The board: what the master and its workers tell each other, and where the spare copies are."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.board import SLOTS, Board
from tests.conftest import ROOT


@pytest.fixture
def board() -> Iterator[Board]:
    """A board on which nobody has written."""
    board = Board()
    yield board
    os.close(board._retiring)


def in_family(code: str) -> str:
    """Run code in a process that may fork, with a board; return what it printed."""
    head = (
        "import os\nfrom service.board import Board\nboard = Board()\n"
        "def child(work):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        work()\n"
        "        os._exit(0)\n"
        "    return pid\n"
    )
    done = subprocess.run([sys.executable, "-c", head + code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


# Who accepts


def test_sole_worker_accepts_whatever_it_has(board: Board) -> None:
    """Where nobody else is on the board, a worker without models accepts too: it answers that it is not ready."""
    assert board.may_accept(0)
    board.note(1, 0, 0)
    assert board.may_accept(0)


def test_worker_leaves_it_to_those_with_more_models(board: Board) -> None:
    """A worker accepts only where nobody else answers with more models."""
    board.note(1, 0, 2)
    board.note(2, 0, 1)
    assert board.may_accept(2)
    assert not board.may_accept(1)


@pytest.mark.parametrize("connections", [0, 7])
def test_forgotten_worker_no_longer_counts(board: Board, connections: int) -> None:
    """A worker that has ended, with whatever connections, stands in nobody's way."""
    board.note(1, connections, 2)
    board.forget(1)
    assert board.may_accept(0)
    assert not board.over_share(5, 0)


def test_share_is_the_mean_of_the_peers(board: Board) -> None:
    """Above the mean of the workers with as many models a worker is over its share, at the mean it is not."""
    board.note(1, 6, 1)
    board.note(2, 2, 1)
    assert board.over_share(6, 1)
    assert not board.over_share(4, 1)
    assert not board.over_share(2, 1)


def test_workers_with_fewer_models_have_no_share(board: Board) -> None:
    """A worker that is still loading does not lower the share of the others."""
    board.note(1, 6, 2)
    board.note(2, 0, 1)
    assert not board.over_share(6, 2)


def test_nobody_is_over_the_share_of_an_empty_board(board: Board) -> None:
    """A worker that has left the board has no share."""
    assert not board.over_share(3, 1)


def test_ages_beyond_the_slots_go_round(board: Board) -> None:
    """After as many workers as there are slots the first slot is used again."""
    board.note(SLOTS + 1, 3, 1)
    board.forget(1)
    assert board.may_accept(0)


# Who retires


def test_nobody_retires_while_another_loads(board: Board) -> None:
    """A worker is replaced only while every worker answers with as many models."""
    board.note(1, 0, 1)
    assert not board.may_retire(1, 2)
    board.note(2, 0, 0)
    assert not board.may_retire(1, 2)
    board.note(2, 0, 1)
    assert board.may_retire(1, 2)


def test_one_worker_retires_at_a_time() -> None:
    """While one worker has its turn no other gets one; when it has ended, the next does."""
    code = """
said, says = os.pipe()
ends, end = os.pipe()
for age in (1, 2):
    board.note(age, 0, 1)
def retire():
    os.write(says, b"y" if board.may_retire(1, 2) else b"n")
    os.read(ends, 1)
first = child(retire)
answers = os.read(said, 1)
second = child(retire)
answers += os.read(said, 1)
os.write(end, b"..")
os.waitpid(first, 0), os.waitpid(second, 0)
third = child(retire)
print((answers + os.read(said, 1)).decode())
os.write(end, b".")
os.waitpid(third, 0)
"""
    assert in_family(code) == "yny"


def test_processes_share_the_board() -> None:
    """What a worker notes the others and the master see; what the master announces every worker sees."""
    code = """
os.waitpid(child(lambda: board.note(1, 4, 2)), 0)
board.announce_stop()
print(board.may_accept(1), board.over_share(5, 2), flush=True)
os.waitpid(child(lambda: print(board.stopping, board.may_accept(2), flush=True)), 0)
"""
    assert in_family(code).split() == ["False", "True", "True", "True"]


def test_stop_is_announced(board: Board) -> None:
    """The service ends when the master says so and not before."""
    assert not board.stopping
    board.announce_stop()
    assert board.stopping


# Where the spare copies are


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of one's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_3_18_spare_folder_is_for_its_user_alone(board: Board, temporary: Path) -> None:
    """The folder of the spare copies is new, and nobody else may look into it, whatever the umask."""
    umask = os.umask(0)
    try:
        board.prepare(100.0, 2.0)
    finally:
        os.umask(umask)
    assert board.spare is not None and board.spare.parent == temporary
    assert board.spare.stat().st_mode & 0o777 == 0o700
    assert (board.worker_mib, board.body_bytes) == (100.0, 2 * 2**20)


def test_clear_removes_the_spare_copies(board: Board, temporary: Path) -> None:
    """At its end the master leaves nothing behind, and a second time does no harm."""
    board.prepare(100.0, 2.0)
    assert board.spare is not None
    (board.spare / "penguins").mkdir()
    (board.spare / "penguins" / "active").touch()
    board.clear()
    board.clear()
    assert list(temporary.iterdir()) == []


def test_unprepared_board_limits_nothing(board: Board) -> None:
    """Before it is prepared, as outside gunicorn, no worker is too large, no copies are kept, and none are cleared."""
    assert board.worker_mib == math.inf and board.spare is None
    board.clear()


def test_no_place_for_spare_copies_is_a_warning(
    board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no temporary folder can be made the service starts without spare copies, and says so."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with caplog.at_level(logging.WARNING):
        board.prepare(100.0, 2.0)
    assert board.spare is None and board.worker_mib == 100.0
    assert "no copies of the models" in caplog.text and str(tmp_path) not in caplog.text
    board.clear()


def test_board_needs_no_file_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a read-only file system, where no temporary file can be made, there is a board all the same."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    board = Board()
    board.note(1, 0, 1)
    assert board.may_retire(1, 1)
    os.close(board._retiring)


def test_copies_of_services_that_were_killed_are_removed(
    board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A service that starts removes what one that was killed left behind, and nothing of one that lives."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    folders = [tmp_path / f"anyport-{name}" for name in (f"{ended}-x", f"{os.getpid()}-x", "x-1")]
    for folder in folders:
        folder.mkdir()
    board.prepare(100, 100)
    assert [folder.exists() for folder in folders] == [False, True, True]
    board.clear()
