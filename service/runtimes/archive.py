"""A model that is several files, as one: a zip archive, which is what a package can verify and open as a whole.

Packing writes it; the runtimes unpack it into a folder of their own. Knows nothing of what the files mean.
"""

from __future__ import annotations

import atexit
import logging
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from service.errors import UnreadableModel, shorten

MAX_FILES = 10_000
MAX_BYTES = 4 * 2**30
"""What all files of an archive may hold together."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip archive can name: every file gets it, so that equal files make equal archives."""

log = logging.getLogger(__name__)


def write_archive(folder: Path, target: Path) -> None:
    """Write the files of a folder, but hidden ones and bytecode; the same files always make the same bytes.

    Raises:
        UnreadableModel: If one of them is a link, or they are too many or too large.
        OSError: If one cannot be read.
    """
    below = [path for path in sorted(folder.rglob("*")) if _belongs(path.relative_to(folder))]
    files = [path for path in below if path.is_symlink() or not path.is_dir()]
    for path in files:
        if path.is_symlink() or not path.is_file():
            name = shorten(path.relative_to(folder).as_posix())
            raise UnreadableModel(f"{name} is a link or no plain file; put the file itself in its place")
    _check_size(len(files), sum(path.stat().st_size for path in files))
    with zipfile.ZipFile(target, "w") as archive:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), EPOCH)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(entry, "w") as copy:
                shutil.copyfileobj(source, copy)


def _belongs(path: PurePosixPath | Path) -> bool:
    return not any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def extract(stream: BinaryIO, folder: Path, label: str) -> None:
    """Write the files of an archive into an empty folder, all of them inside it.

    Raises:
        UnreadableModel: If it is damaged or no zip archive, its files are too many or too large, or one of them is a
            link or lies outside.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
            _check_size(len(entries), sum(entry.file_size for entry in entries))
            for entry in entries:
                _check_entry(entry)
            for entry in entries:
                _write(archive, entry, folder)
    except UnreadableModel as error:
        raise UnreadableModel(f"{label}: {error.detail}") from error
    except OSError as error:
        raise UnreadableModel(f"{label}: the archive cannot be unpacked ({error.strerror})") from error
    except Exception as error:  # a damaged archive may raise anything
        log.exception("%s could not be unpacked", label)
        raise UnreadableModel(
            f"{label}: the file is damaged or not a zip archive ({type(error).__name__}); pack the model again"
        ) from error


def _check_size(n_files: int, n_bytes: int) -> None:
    if n_files > MAX_FILES or n_bytes > MAX_BYTES:
        raise UnreadableModel(
            f"there are {n_files} files of {n_bytes} bytes, and a model may have {MAX_FILES} of {MAX_BYTES}; leave out "
            "what it does not read"
        )


def _check_entry(entry: zipfile.ZipInfo) -> None:
    """Refuse what is no plain file or folder below the archive's own."""
    name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
    parts = name.removesuffix("/").split("/")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise UnreadableModel(
            f"the archive holds {shorten(name)!r}, which is a link or lies outside of it; make it of plain files"
        )


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    target = folder / entry.filename
    if entry.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("xb") as copy:
        shutil.copyfileobj(source, copy)


@contextmanager
def unpacked(stream: BinaryIO, label: str) -> Iterator[Path]:
    """Give a new folder that only this user can read, with an archive's files.

    It stays when the block ends, because a model may read from it whenever it likes; but not where the block raises, or
    the process ends in the middle.

    Raises:
        UnreadableModel: As `extract` does.
    """
    folder = Path(tempfile.mkdtemp(prefix="anyport-model-"))
    at_exit = atexit.register(partial(remove, folder))  # a worker does not wait for what it is loading
    try:
        extract(stream, folder, label)
        yield folder
    except BaseException:
        remove(folder)
        raise
    finally:
        atexit.unregister(at_exit)


def remove(folder: Path) -> None:
    """Remove an unpacked folder."""
    shutil.rmtree(folder, ignore_errors=True)
