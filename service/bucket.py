"""Reads what lies below a bucket's address, by the library of its scheme. Knows nothing of packages.

Source: filesystem-spec.readthedocs.io/en/latest/api.html, read 2026-11-23.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from service.errors import MissingLibrary, SettingsError, UnreadableBucket, shorten

LIBRARIES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "oci": "ocifs",
    "oss": "ossfs",
    "file": "fsspec",
}
"""Which library reads the addresses of a scheme; each brings fsspec along."""
ADDRESS = rf"^({'|'.join(LIBRARIES)})://[^\s?#]+$"
"""No query, because keys would stand there; they belong into the variables that the cloud's own library reads."""
MOST_LEVELS = 6
MOST_FILES = 10_000


def scheme_of(address: str) -> str:
    """Return the scheme of an address, whose library is here.

    Raises:
        SettingsError: If it is no such address.
        MissingLibrary: If the library is not installed.
    """
    if not re.match(ADDRESS, address):
        known = ", ".join(f"{scheme}://" for scheme in LIBRARIES)
        raise SettingsError(f"{shorten(address)!r} is no address of models; one begins with {known} and has no query")
    scheme = address.partition(":")[0]
    library = LIBRARIES[scheme]
    if find_spec(library) is None:
        raise MissingLibrary(
            f"{scheme}:// is read by {library}, which is not installed; write {library} into requirements.in and run "
            "`make lock install`"
        )
    return scheme


class Source:
    """An object while it is read, of which no more is read than it should hold."""

    def __init__(self, stream: Any, path: str, most: int) -> None:
        self._stream, self._path, self._left = stream, path, most

    def read(self, size: int) -> bytes:
        """Read at most so many bytes; none at the end."""
        with _in_our_words(self._path):
            block: bytes = self._stream.read(min(size, self._left))
        self._left -= len(block)
        return block


class Bucket:
    """What lies below an address."""

    def __init__(self, address: str) -> None:
        """Connect, with the credentials that the cloud's own library finds.

        Raises:
            SettingsError, MissingLibrary: As `scheme_of` does.
            UnreadableBucket: If the library refuses.
        """
        self.address, self.scheme = address, scheme_of(address)
        with _in_our_words(address):
            from fsspec.core import url_to_fs

            # An instance of our own: those that fsspec keeps remember what they listed before.
            self._files, root = url_to_fs(address, skip_instance_cache=True)
        self._root = root.rstrip("/")

    def files(self) -> list[str]:
        """List the objects, `MOST_LEVELS` folders deep, by their path below the address; in alphabetical order.

        Raises:
            UnreadableBucket: If the address cannot be listed, or holds more than `MOST_FILES`.
        """
        found: list[str] = []
        folders = [""]
        for _ in range(MOST_LEVELS):
            inner: list[str] = []
            for folder in folders:
                for name, is_folder in self._listed(folder):
                    (inner if is_folder else found).append(f"{folder}/{name}" if folder else name)
                if len(found) + len(inner) > MOST_FILES:
                    raise UnreadableBucket(
                        f"more than {MOST_FILES} objects lie below {self.address}; give the address of the models alone"
                    )
            folders = inner
        return sorted(found)

    @contextmanager
    def open(self, path: str, most: int) -> Iterator[Source]:
        """Open the object at a path below the address, to read at most so many bytes of it.

        Raises:
            UnreadableBucket: If it cannot be read, then or later.
        """
        with _in_our_words(path):
            stream = self._files.open(f"{self._root}/{path}", "rb")
        with stream:
            yield Source(stream, path, most)

    def _listed(self, folder: str) -> list[tuple[str, bool]]:
        """List one folder: names, and whether each is a folder. What its own path would lead out of it is left out."""
        path = f"{self._root}/{folder}".rstrip("/")
        with _in_our_words(f"{self.address.rstrip('/')}/{folder}"):
            infos = self._files.ls(path, detail=True)
        named = [(str(info["name"]).rstrip("/"), info["type"] == "directory") for info in infos]
        found = [
            (full.rpartition("/")[2], is_folder) for full, is_folder in named if full.strip("/") != path.strip("/")
        ]
        return [(name, is_folder) for name, is_folder in found if name not in ("", ".", "..")]


@contextmanager
def _in_our_words(what: str) -> Iterator[None]:
    """Raise what a cloud's library raises as one error of ours; each library has errors of its own."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())
        raise UnreadableBucket(f"{what} cannot be read ({type(error).__name__}: {shorten(said, 200)})") from error
