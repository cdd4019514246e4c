"""Models of several files as one archive: the same bytes for the same files, and nothing that lies outside of it."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import UnreadableModel
from service.runtimes import archive
from service.runtimes.archive import extract, remove, unpacked, write_archive
from tests.conftest import ROOT

FILES = {"MLmodel": b"flavors: {}\n", "code/own.py": b"x = 1\n", "data/deep/model.pkl": bytes(300_000)}


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files, and those that no archive takes, into a new folder."""
    for name, content in (files | {".env": b"SECRET=1", ".git/HEAD": b"", "code/__pycache__/own.pyc": b""}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def found(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def zipped(*entries: tuple[str, int]) -> io.BytesIO:
    """An archive of entries with a file mode each, as anybody might make it."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        for name, mode in entries:
            entry = zipfile.ZipInfo("x" * len(name))
            entry.external_attr = mode << 16
            made.writestr(entry, b"../secret")
    return io.BytesIO(target.getvalue().replace(b"x" * len(entries[0][0]), entries[0][0].encode()))


def test_the_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    """Neither the order in which files were made, nor their times and modes, nor hidden files are in an archive."""
    first, second = tmp_path / "1", tmp_path / "2"
    fill(first, FILES)
    fill(second, dict(reversed(FILES.items())))
    for path in second.rglob("*.p*"):
        os.utime(path, (10**9, 10**9))
    (second / "MLmodel").chmod(0o755)
    for folder in (first, second):
        write_archive(folder, tmp_path / f"{folder.name}.zip")
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_what_was_packed_is_unpacked_for_this_user_alone(tmp_path: Path) -> None:
    """An archive gives back its files, in a folder that nobody else can read."""
    write_archive(fill(tmp_path / "model", FILES), tmp_path / "model.zip")
    with (tmp_path / "model.zip").open("rb") as stream, unpacked(stream, "it/1") as folder:
        pass
    assert found(folder) == FILES
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    remove(folder)
    assert not folder.exists()


def test_an_unpacked_folder_goes_with_an_error(tmp_path: Path) -> None:
    """Where loading fails nothing stays behind."""
    write_archive(fill(tmp_path / "model", FILES), tmp_path / "model.zip")
    with (tmp_path / "model.zip").open("rb") as stream, pytest.raises(KeyError), unpacked(stream, "it/1") as folder:
        raise KeyError
    assert not folder.exists()


def test_an_unpacked_folder_goes_with_a_process_that_ends_meanwhile(tmp_path: Path) -> None:
    """A worker that ends while it is loading a model leaves no folder behind."""
    write_archive(fill(tmp_path / "model", FILES), tmp_path / "model.zip")
    (tmp_path / "tmp").mkdir()
    code = (
        "import sys, threading\n"
        "from service.runtimes.archive import unpacked\n"
        "loading = threading.Event()\n"
        "def load():\n"
        "    with open(sys.argv[1], 'rb') as stream, unpacked(stream, 'it/1') as folder:\n"
        "        print(len(list(folder.iterdir())))\n"
        "        loading.set()\n"
        "        threading.Event().wait()\n"
        "threading.Thread(target=load, daemon=True).start()\n"
        "loading.wait(30)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.zip")]
    variables = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("3\n", "")
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("/etc/passwd", 0o100644),
        ("../outside", 0o100644),
        ("a/../../outside", 0o100644),
        ("a//b", 0o100644),
        ("./a", 0o100644),
        ("..", 0o040755),
        ("a\\..\\b", 0o100644),
        ("link", 0o120777),
        ("pipe", 0o010644),
        ("device", 0o020644),
    ],
)
def test_3_17_nothing_outside_and_no_link_is_unpacked(tmp_path: Path, name: str, mode: int) -> None:
    """An entry that is no plain file below the folder is refused by its name, before anything is written."""
    with pytest.raises(UnreadableModel, match="it/1: the archive holds .* which is a link or lies outside"):
        extract(zipped((name, mode)), tmp_path, "it/1")
    assert not list(tmp_path.iterdir())


def test_3_17_an_archive_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many files, or too many bytes, are refused while packing and while unpacking."""
    write_archive(fill(tmp_path / "model", FILES), tmp_path / "model.zip")
    limits: list[tuple[str, int]] = [("MAX_FILES", 2), ("MAX_BYTES", 300_000)]
    steps: list[Callable[[], None]] = [
        lambda: write_archive(tmp_path / "model", tmp_path / "again.zip"),
        lambda: extract(io.BytesIO((tmp_path / "model.zip").read_bytes()), tmp_path / "out", "it/1"),
    ]
    for limit, value in limits:
        with monkeypatch.context() as patch:
            patch.setattr(archive, limit, value)
            for step in steps:
                with pytest.raises(UnreadableModel, match="there are 3 files of 3000"):
                    step()
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """The second of two files of one name does not replace the first."""
    target = io.BytesIO()
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(target, "w") as made:
        made.writestr("a", b"1")
        made.writestr("a", b"2")
    with pytest.raises(UnreadableModel, match="cannot be unpacked"):
        extract(target, tmp_path, "it/1")


def test_altered_bytes_are_noticed(tmp_path: Path) -> None:
    """A file whose bytes do not fit their checksum is no part of a model."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        made.writestr("a", b"1234567890")
    with pytest.raises(UnreadableModel, match="damaged"):
        extract(io.BytesIO(target.getvalue().replace(b"1234567890", b"1234567891", 1)), tmp_path, "it/1")


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_plain_file_is_not_packed(tmp_path: Path, kind: str) -> None:
    """A link among the model's files is refused by its name: it may point at anything."""
    folder = fill(tmp_path / "model", FILES)
    if kind == "link":
        (folder / "odd").symlink_to(tmp_path)
    else:
        os.mkfifo(folder / "odd")
    with pytest.raises(UnreadableModel, match="odd is a link or no plain file"):
        write_archive(folder, tmp_path / "model.zip")
