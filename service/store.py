"""Where model packages live: finds, verifies, opens and writes them, and knows which version is active.

    models/
        default              the name of the model that POST /predict asks
        penguins/
            active           the version that answers by default; without this file it is the newest
            1/manifest.json, model.joblib

Packages are named by name and version only, never by a path that came from outside. Knows nothing of requests.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from service.errors import (
    ChecksumMismatch,
    InvalidManifest,
    MissingLibrary,
    PackageError,
    PackingError,
    UnknownModel,
    UnknownVersion,
    UnreadableModel,
    shorten,
)
from service.manifest import NAME, VERSION, Artifact, Manifest, PackedFile, read_manifest
from service.runtimes import RUNTIMES, Loaded, Policy, Runtime, Source
from service.runtimes.base import check_skew
from service.runtimes.estimator import bind_prepared

MANIFEST = "manifest.json"
ACTIVE = "active"
DEFAULT = "default"
LOCK = ".lock"
AWAITED = ".awaited"
MAX_MANIFEST_BYTES = 16 * 2**20
READ_BYTES = 2**20
Mark = tuple[int, int, int]
"""Time of the last change in nanoseconds, which cannot be set, size in bytes, and inode: a file that was altered or
replaced has another."""
MAJOR_ONLY = {"numpy"}
"""Libraries whose pickles stay readable within one major version; of the others every difference counts."""
TWINS = {"xgboost": "xgboost-cpu", "xgboost-cpu": "xgboost"}
"""Two names for one library, of which either will do in the same version: the second is built without graphics cards.

Source: dmlc/xgboost, python-package/README.cpu.rst, read 2026-11-23.
"""


class Lack(NamedTuple):
    """A library that a form of a package needs, and that is not there as it needs it."""

    library: str
    wanted: str | None
    """The version that it was made with; None if any will do."""
    there: str | None
    """The version that is there; None if there is none."""


class Store:
    """The models folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def versions(self) -> dict[str, list[str]]:
        """List every package: names in alphabetical order, each with its versions from the oldest to the newest."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.folder.glob(f"*/*/{MANIFEST}")):
            version, name = path.parent.name, path.parent.parent.name
            if NAME.fullmatch(name) and VERSION.fullmatch(version):
                found.setdefault(name, []).append(version)
        return {name: sorted(versions, key=natural) for name, versions in found.items()}

    def active(self, name: str) -> str:
        """Return the version that answers when a request names none.

        Raises:
            UnknownModel: If no package has this name.
            PackageError: If the pointer cannot be read, or names a version that is not there.
        """
        versions = self.versions().get(name)
        if not versions:
            raise UnknownModel(f"no package is called {shorten(name)!r}; `flask models` lists what there is")
        pointed = _read_pointer(self.folder / name / ACTIVE)
        if pointed is not None and pointed not in versions:
            raise PackageError(
                f"{name}: the active version {shorten(pointed)!r} is not there, it has {shorten(', '.join(versions))}; "
                f"run `flask activate {name} VERSION`"
            )
        return pointed or versions[-1]

    def default(self) -> str | None:
        """Return the name of the model that answers when a request names none; a sole model is its own default."""
        names = list(self.versions())
        pointed = _read_pointer(self.folder / DEFAULT)
        if pointed is not None and pointed not in names:
            raise PackageError(
                f"the default model {shorten(pointed)!r} is not there; run `flask activate NAME --default`"
            )
        return pointed or (names[0] if len(names) == 1 else None)

    def activate(self, name: str, version: str | None, *, default: bool) -> str:
        """Make a version the active one, and its model the default where wanted.

        Raises:
            UnknownModel, UnknownVersion: If there is no such package.
        """
        versions = self.versions().get(name)
        if not versions:
            raise UnknownModel(f"no package is called {shorten(name)!r}; `flask models` lists what there is")
        chosen = version or self.active(name)
        if chosen not in versions:
            raise UnknownVersion(f"{name} has no version {shorten(chosen)!r}; it has {', '.join(versions)}")
        if version is not None:
            _write_pointer(self.folder / name / ACTIVE, version)
        if default:
            _write_pointer(self.folder / DEFAULT, name)
        return chosen

    def manifest(self, name: str, version: str) -> Manifest:
        """Read one manifest.

        Raises:
            InvalidManifest: If it is missing, malformed, or speaks of another package.
        """
        label = f"{name}/{version}"
        try:
            with (self._package(name, version) / MANIFEST).open("rb") as stream:
                content = stream.read(MAX_MANIFEST_BYTES + 1)
        except OSError as error:
            raise InvalidManifest(f"{label}: manifest.json cannot be read ({error.strerror})") from error
        if len(content) > MAX_MANIFEST_BYTES:
            raise InvalidManifest(f"{label}: manifest.json is larger than {MAX_MANIFEST_BYTES} bytes")
        manifest = read_manifest(label, content)
        if manifest.label != label:
            raise InvalidManifest(f"{label}: the manifest says it is {manifest.label}; pack the model again")
        return manifest

    def marks(self) -> dict[str, Mark]:
        """Return what the file system says of every pointer and file of a package, by path inside the folder.

        Cheap enough to ask several times a second: nothing is opened. What cannot be read is left out.
        """
        return {
            path.relative_to(self.folder).as_posix(): mark
            for pattern in (DEFAULT, f"*/{ACTIVE}", "*/*/*")
            for path in self.folder.glob(pattern)
            if not path.relative_to(self.folder).parts[0].startswith(".") and (mark := _mark(path)) is not None
        }

    def verify(self, manifest: Manifest, policy: Policy, *, but: str | None = None) -> None:
        """Check a package's files, all of them `but` one, and the libraries of a form, without loading anything.

        Raises:
            PackageError: If a file is missing or altered, or what every form needs is missing or of another version.
        """
        _check_any(manifest, policy)
        self._check_files(manifest, but=but)

    def _check_files(self, manifest: Manifest, *, but: str | None = None) -> None:
        folder = self._package(manifest.name, manifest.version)
        for entry in manifest.files:
            if entry.name != but:
                with _verified(folder, entry, manifest.label):
                    pass

    def open(self, manifest: Manifest, policy: Policy, artifact: Artifact | None = None) -> Runtime:
        """Verify a package's files and load one form of it, by default the preferred one.

        The file is loaded from the descriptor that was verified.

        Raises:
            PackageError: If a file is missing or altered, a library is missing or of another version, or the policy
                does not allow it.
        """
        artifact = artifact or manifest.artifacts[0]
        model = self.load(manifest, policy, artifact).model
        if artifact.preparation is None:
            return RUNTIMES[artifact.runtime].bind(model, manifest.signature, artifact.layout)
        return bind_prepared(model, self._load_file(manifest, policy, "compiled", artifact.preparation).model)

    def load(self, manifest: Manifest, policy: Policy, artifact: Artifact) -> Loaded:
        """Verify a package's files and load one form of it, as its runtime gives it. Raises as `open` does."""
        _check_libraries(manifest, artifact, policy)
        self.verify(manifest, policy, but=artifact.file)
        return self._load_file(manifest, policy, artifact.runtime, artifact.file)

    def _load_file(self, manifest: Manifest, policy: Policy, runtime: str, name: str) -> Loaded:
        folder = self._package(manifest.name, manifest.version)
        with _verified(folder, manifest.file(name), manifest.label) as stream:
            return RUNTIMES[runtime].load(stream, Source(manifest.label, manifest.skops_types), policy)

    @contextmanager
    def staging(self, work: str = "packing") -> Iterator[Path]:
        """Give an empty folder beside the packages to build one in; whatever is left in it is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{work}-", dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, work: str) -> None:
        """Remove what a killed process has left of this kind of work; call it where no other process does it."""
        for folder in self.folder.glob(f".{work}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def check_free(self, name: str, version: str) -> None:
        """Refuse a name or version that is malformed or taken.

        Raises:
            PackingError: With the rule that it breaks.
        """
        if name == DEFAULT or version == ACTIVE:
            raise PackingError(f"{DEFAULT!r} as a name and {ACTIVE!r} as a version are reserved; say others")
        if not NAME.fullmatch(name):
            raise PackingError(
                f"the name {shorten(name)!r} must be 1 to 64 of a-z, 0-9, _ and -, beginning with a letter or digit; "
                "say another with --name"
            )
        if not VERSION.fullmatch(version):
            raise PackingError(
                f"the version {shorten(version)!r} must be 1 to 64 letters, digits, dots, _ and -, beginning with a "
                "letter or digit; say another with --version"
            )
        if self._package(name, version).exists():
            raise PackingError(
                f"{name}/{version} exists, and a version is never overwritten; say another --version, or "
                "none for the next"
            )

    def next_version(self, name: str) -> str:
        """Return the whole number after the largest one among the versions."""
        taken = [path.name for path in (self.folder / name).glob("*")] if NAME.fullmatch(name) else []
        numbers = [int(version) for version in taken if version.isdecimal()]
        return str(max(numbers, default=0) + 1)

    def add(self, staged: Path, manifest: Manifest, *, mode: int = 0o755) -> Path:
        """Write the manifest beside the staged files, last, and move the folder to its place in one step."""
        write_manifest(staged, manifest)
        target = self._package(manifest.name, manifest.version)
        target.parent.mkdir(mode, exist_ok=True)
        staged.chmod(mode)
        try:
            os.rename(staged, target)
        except OSError as error:
            with suppress(OSError):
                target.parent.rmdir()
            if target.exists():
                raise PackingError(f"another `flask pack` made {manifest.label} meanwhile; run it again") from error
            raise PackingError(f"{manifest.label} cannot be put into the models folder ({error.strerror})") from error
        _sync(target.parent)
        return target

    def adopt(self, other: Store, manifest: Manifest) -> None:
        """Copy a package out of another store for this user alone, each file from the descriptor that was verified.

        Raises:
            PackageError, OSError: If it cannot be read there, or written here.
        """
        with self.staging() as staged:
            other.copy_files(manifest, staged)
            self.take(staged, manifest)

    def take(self, staged: Path, manifest: Manifest) -> None:
        """Put staged files, which were verified, in the place of the package that is here, for this user alone."""
        self.remove(manifest.name, manifest.version)
        for file in self.add(staged, manifest, mode=0o700).iterdir():
            file.chmod(0o600)

    def copy_files(self, manifest: Manifest, folder: Path) -> None:
        """Copy a package's files, each from the descriptor that was verified.

        Raises:
            PackageError, OSError: If one cannot be read here, or written there.
        """
        for entry in manifest.files:
            with _verified(self._package(manifest.name, manifest.version), entry, manifest.label) as stream:
                add_file(folder, entry.name, stream)

    def holds(self, manifest: Manifest) -> bool:
        """Whether exactly this package is here."""
        try:
            return self.manifest(manifest.name, manifest.version) == manifest
        except PackageError:
            return False

    def intact(self, manifest: Manifest) -> bool:
        """Whether exactly this package is here, and every file of it is as it was packed."""
        try:
            self._check_files(manifest)
        except PackageError:
            return False
        return self.holds(manifest)

    def await_packages(self, why: str | None) -> None:
        """Note why the first packages are not here yet; None once they are."""
        if why is not None:
            _write_pointer(self.folder / AWAITED, why)
        else:
            (self.folder / AWAITED).unlink(missing_ok=True)

    def awaited(self) -> str | None:
        """Return why the first packages are not here yet; None if they are, or are not waited for."""
        try:
            return _read_pointer(self.folder / AWAITED)
        except PackageError:  # then it is as if nobody had said
            return None

    @contextmanager
    def alone(self, work: str = "") -> Iterator[None]:
        """Let one process at a time do what follows, for each kind of work."""
        descriptor = os.open(self.folder / f"{LOCK}{work}", os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def remove(self, name: str, version: str) -> None:
        """Remove a package, if it is there."""
        shutil.rmtree(self._package(name, version), ignore_errors=True)

    def _package(self, name: str, version: str) -> Path:
        if not NAME.fullmatch(name) or not VERSION.fullmatch(version):
            raise InvalidManifest(f"{shorten(name)!r}/{shorten(version)!r} cannot be the name of a package")
        return self.folder / name / version


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` durably."""
    with (folder / MANIFEST).open("w", encoding="utf-8") as stream:
        stream.write(manifest.model_dump_json(indent=1, exclude_defaults=True) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


class Readable(Protocol):
    """Anything that gives its bytes in blocks."""

    def read(self, size: int, /) -> bytes:
        """Read at most so many bytes; none at the end."""


def add_file(folder: Path, name: str, source: Readable) -> PackedFile:
    """Copy a file durably into a staged package and return its manifest entry."""
    digest, size = hashlib.sha256(), 0
    with (folder / name).open("wb") as target:
        while block := source.read(READ_BYTES):
            digest.update(block)
            size += len(block)
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
    return PackedFile(name=name, sha256=digest.hexdigest(), size_bytes=size)


@contextmanager
def _verified(folder: Path, entry: PackedFile, label: str) -> Iterator[BinaryIO]:
    """Open a file of a package and check its size and checksum."""
    try:
        stream = (folder / entry.name).open("rb")
    except OSError as error:
        raise UnreadableModel(
            f"{label}: {entry.name} cannot be read ({error.strerror}); pack the model again"
        ) from error
    with stream:
        try:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:  # the disk fails in the middle
            raise UnreadableModel(f"{label}: {entry.name} cannot be read ({error.strerror})") from error
        size = stream.tell()
        if size != entry.size_bytes or digest != entry.sha256:
            raise ChecksumMismatch(
                f"{label}: {entry.name} has {size} bytes and checksum {digest[:12]}…, the manifest says "
                f"{entry.size_bytes} and {entry.sha256[:12]}…; bring back the packed file, or pack the model again"
            )
        stream.seek(0)
        yield stream


def _check_any(manifest: Manifest, policy: Policy) -> None:
    """Check that the libraries of at least one form are here; else raise what the preferred one lacks."""
    errors = []
    for artifact in manifest.artifacts:
        try:
            _check_libraries(manifest, artifact, policy)
        except PackageError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


def _check_libraries(manifest: Manifest, artifact: Artifact, policy: Policy) -> None:
    if artifact.runtime not in RUNTIMES:
        raise InvalidManifest(f"{manifest.label}: there is no runtime {artifact.runtime!r}; use {', '.join(RUNTIMES)}")
    if artifact.layout not in RUNTIMES[artifact.runtime].LAYOUTS:
        raise InvalidManifest(f"{manifest.label}: the runtime {artifact.runtime} has no layout {artifact.layout!r}")
    for library, wanted, here in lacks(manifest, artifact, _installed):
        if wanted is None or here is None:
            raise MissingLibrary(
                f"{manifest.label} needs {library}, which is not installed; write `{library}` into requirements.in and "
                "run `make lock install`"
            )
        check_skew(policy, manifest.label, library, wanted, here)


def lacks(manifest: Manifest, artifact: Artifact, version_of: Callable[[str], str | None]) -> Iterator[Lack]:
    """Find what one form of a package would lack where libraries have these versions, None those that are not there.

    A compiled form needs its runtime's libraries alone, and none that the original was made with.
    """
    needed: dict[str, str | None] = dict.fromkeys(RUNTIMES[artifact.runtime].LIBRARIES)
    if artifact.layout != "table":
        needed |= manifest.libraries
    for library, wanted in needed.items():
        there = version_of(library) or version_of(TWINS.get(library, library))
        if there is None or (wanted is not None and not suits(library, wanted, there)):
            yield Lack(library, wanted, there)


def suits(library: str, wanted: str, there: str) -> bool:
    """Whether a model that was made with one version of a library may be loaded with another."""
    return there.split(".")[0] == wanted.split(".")[0] if library in MAJOR_ONLY else there == wanted


def _installed(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _mark(path: Path) -> Mark | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ctime_ns, found.st_size, found.st_ino


def natural(version: str) -> list[tuple[int, int, str]]:
    """Order versions as people count: 2 before 10, 1.9 before 1.10."""
    return [(1, int(p), "") if p.isdecimal() else (0, 0, p) for p in re.split(r"(\d+)", version) if p]


def _read_pointer(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        where = path.name if path.name == DEFAULT else f"{path.parent.name}/{path.name}"
        raise PackageError(
            f"models/{where} must be a file of one line and cannot be read; remove it and run `flask activate`"
        ) from error


def _write_pointer(path: Path, value: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    try:
        with fresh.open("w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), path.parent.stat().st_mode & 0o666)  # as private as its folder
            stream.write(value + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
