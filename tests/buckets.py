"""A bucket in memory that can be broken on purpose, in the place of S3's, and packages to put into it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service.bucket import LIBRARIES
from tests.conftest import ROOT

DEMO = ROOT / "models" / "penguins" / "1"
ADDRESS = "s3://bucket/models"
Files = dict[str, bytes]


class Breaking(io.BytesIO):
    """An object whose connection breaks in the middle, with an error that only its library knows."""

    def read(self, size: int | None = -1) -> bytes:
        """Give half of it, then break."""
        if self.tell():
            raise ValueError("the connection was reset\nby somebody")
        return super().read(max(len(self.getvalue()) // 2, 1))


class FakeS3(MemoryFileSystem):
    """Objects in memory at `s3://`."""

    protocol = "s3"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    opened: ClassVar[list[str]] = []
    """Paths below the address, in the order in which they were opened."""
    before: ClassVar[Callable[[str], Any]] = lambda path: None
    """Called with the path of each listing and each object; may raise, or give another object."""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("s3://"))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        """List, unless the test has something against it."""
        FakeS3.before(f"ls {path}")
        return super().ls(path, detail=detail, **kwargs)

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        FakeS3.opened.append(path.partition("/models/")[2])
        return FakeS3.before(path) or super()._open(path, *args, **kwargs)


@contextmanager
def fake_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeS3]]:
    """Have `s3://` lead to memory, which is empty at first."""
    fsspec.register_implementation("s3", FakeS3, clobber=True)
    monkeypatch.setitem(LIBRARIES, "s3", "fsspec")
    monkeypatch.setattr(FakeS3, "before", lambda path: None)
    yield FakeS3
    FakeS3.store.clear()
    FakeS3.opened.clear()
    FakeS3.pseudo_dirs[:] = [""]


def package(label: str = "penguins/1", **changes: Any) -> Files:
    """The demo package under another name and version, by path."""
    name, version = label.split("/")
    manifest = json.loads((DEMO / "manifest.json").read_text()) | {"name": name, "version": version} | changes
    files = {path.name: path.read_bytes() for path in DEMO.iterdir()}
    return {f"{label}/{file}": content for file, content in files.items()} | {
        f"{label}/manifest.json": json.dumps(manifest).encode()
    }


def upload(files: Files, address: str = ADDRESS) -> None:
    """Put objects below the address, in the place of those that are there."""
    for path, content in files.items():
        MemoryFileSystem.pipe_file(FakeS3(), f"{address}/{path}", content)
    FakeS3.opened.clear()
