"""Brings the packages below a bucket's address into the store, each verified before it takes its place.

Where a package belongs its manifest says, never the name of an object. Whatever fails, what the store had before stays.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from posixpath import basename, dirname, join

from service.bucket import Bucket
from service.errors import (
    ChecksumMismatch,
    InvalidManifest,
    PackageError,
    PackingError,
    UnreadableBucket,
    UntrustedModel,
    shorten,
)
from service.manifest import Manifest, PackedFile, read_manifest
from service.store import ACTIVE, DEFAULT, MANIFEST, MAX_MANIFEST_BYTES, Store, add_file, natural

WORK = "fetching"
MAX_POINTER_BYTES = 256
KIB, MIB = 2**10, 2**20


@dataclass
class Outcome:
    """What has come of one look at the bucket."""

    arrived: list[str] = field(default_factory=list)
    """Labels of packages that were downloaded."""
    held: list[str] = field(default_factory=list)
    """Labels of packages that were here before, whole."""
    refused: dict[str, PackageError] = field(default_factory=dict)
    """What is not as it should be: by label of a package, else by its folder in the bucket."""
    complete: bool = True
    """Whether the active version of every model is here."""


@dataclass(frozen=True)
class Offer:
    """A package in the bucket."""

    folder: str
    manifest: Manifest


Models = dict[str, dict[str, Offer]]


def fetch(
    bucket: Bucket,
    store: Store,
    trusted: Collection[str],
    tell: Callable[[str], None],
    followed: dict[str, str] | None = None,
) -> Outcome:
    """Bring every package that is not here, and make the version active that is active there: by its file `active`,
    else the newest.

    Args:
        bucket: Where they come from.
        store: Where they go; one process at a time works on it.
        trusted: SHA-256 sums of the manifests that may come, as hex; if empty, any.
        tell: Is told what is done next.
        followed: What the bucket's pointers said when they were followed before, and say now; none is followed twice.

    Raises:
        PackageError: If the address cannot be listed, no package is there, or the disk is too small.
        OSError: If the models folder cannot be written.
    """
    store.folder.mkdir(0o700, parents=True, exist_ok=True)
    with store.alone(f"-{WORK}"):
        store.sweep(WORK)
        outcome = _Fetching(bucket, store, trusted, tell, {} if followed is None else followed).run()
        if outcome.complete:
            store.await_packages(None)
        return outcome


class _Fetching:
    """One look at the bucket, and what follows from it."""

    def __init__(
        self,
        bucket: Bucket,
        store: Store,
        trusted: Collection[str],
        tell: Callable[[str], None],
        followed: dict[str, str],
    ) -> None:
        self._bucket, self._store, self._trusted, self._tell = bucket, store, trusted, tell
        self._followed = followed
        self._files: set[str] = set()
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Bring what is missing, model by model."""
        self._tell("it is being listed")
        self._files = set(self._bucket.files())
        models = self._offered()
        self._note_held(models)
        for name, versions in models.items():
            self._fetch_model(name, versions)
        self._follow_default(models)
        return self._outcome

    def _refuse(self, what: str, error: PackageError, *, complete: bool = False) -> None:
        self._outcome.refused[what] = error
        self._outcome.complete &= complete

    def _offered(self) -> Models:
        """Find every package by its manifest: by name, then by version."""
        models: Models = {}
        for path in sorted(path for path in self._files if basename(path) == MANIFEST):
            folder = dirname(path)
            try:
                manifest = self._read_manifest(path)
                there = models.setdefault(manifest.name, {}).setdefault(manifest.version, Offer(folder, manifest))
                if there.manifest != manifest:
                    raise InvalidManifest(f"{manifest.label} is in {there.folder}, and another in {folder}; remove one")
            except UntrustedModel as error:  # whoever pins one version does not wait for another
                self._refuse(folder or MANIFEST, error, complete=True)
            except PackageError as error:
                self._refuse(folder or MANIFEST, error)
        self._outcome.complete &= bool(models)
        if not models and not self._outcome.refused:
            raise UnreadableBucket(
                f"no package lies below {self._bucket.address}; upload what `flask pack` makes: NAME/VERSION/{MANIFEST}"
            )
        return models

    def _read_manifest(self, path: str) -> Manifest:
        content = self._read(path, MAX_MANIFEST_BYTES)
        digest = hashlib.sha256(content).hexdigest()
        if self._trusted and digest not in self._trusted:
            raise UntrustedModel(f"{path} has checksum {digest}, which ANYPORT_MODELS_SHA256 does not list")
        manifest = read_manifest(path, content)
        if manifest.name == DEFAULT or manifest.version == ACTIVE:
            raise InvalidManifest(
                f"{path}: the name {DEFAULT!r} and the version {ACTIVE!r} are reserved; pack it again"
            )
        return manifest

    def _read(self, path: str, most: int) -> bytes:
        """Read a small object whole."""
        content = b""
        with self._bucket.open(path, most + 1) as source:
            while block := source.read(most + 1):
                content += block
        if len(content) > most:
            raise InvalidManifest(f"{path} is larger than {most} bytes")
        return content

    def _read_pointer(self, path: str) -> str:
        return self._read(path, MAX_POINTER_BYTES).decode("utf-8", "replace").strip()

    def _note_held(self, models: Models) -> None:
        """Find out which packages are here, and that there is room for the others."""
        needed = 0
        for manifest in (offer.manifest for versions in models.values() for offer in versions.values()):
            if self._store.intact(manifest):
                self._outcome.held.append(manifest.label)
            else:
                needed += _size(manifest)
        free = shutil.disk_usage(self._store.folder).free
        if needed > free:
            raise PackageError(
                f"the packages to fetch have {needed / MIB:.1f} MiB, and the models folder has {free / MIB:.1f} MiB "
                "free; give ANYPORT_MODELS_DIR a folder on a larger disk, or the address of fewer packages"
            )

    def _fetch_model(self, name: str, versions: dict[str, Offer]) -> None:
        """Bring the active version first. Without it the others stay away: one of them would answer in its place."""
        newest_first = sorted(versions, key=natural, reverse=True)
        try:
            active = self._pointed(versions.values()) or newest_first[0]
            if active not in versions:
                raise InvalidManifest(
                    f"{name}: the active version {shorten(active)!r} is not in the bucket, or not trusted; upload it"
                )
            self._bring(versions[active])
            if self._is_news(name, active):
                self._store.activate(name, active, default=False)
        except PackageError as error:
            self._refuse(name, error)
            return
        for version in newest_first:
            if version != active:
                try:
                    self._bring(versions[version])
                except PackageError as error:
                    self._refuse(f"{name}/{version}", error, complete=True)

    def _is_news(self, pointer: str, value: str) -> bool:
        """Whether the bucket says something else than when it was followed last: what is activated here stays."""
        news = self._followed.get(pointer) != value
        self._followed[pointer] = value
        return news

    def _pointed(self, offers: Iterable[Offer]) -> str | None:
        """Return the version that the file `active` beside the versions names, if there is one."""
        pointers = {join(dirname(offer.folder), ACTIVE) for offer in offers if offer.folder}
        return next(map(self._read_pointer, sorted(pointers & self._files)), None)

    def _bring(self, offer: Offer) -> None:
        """Have a package in the store: as it was there already, or downloaded and verified.

        Raises:
            PackageError: If it does not verify, or another one of this name and version is here.
        """
        manifest = offer.manifest
        if manifest.label in self._outcome.held:
            return
        _check_not_another(self._store, manifest)
        self._tell(f"{manifest.label} is being downloaded: {_size(manifest) / KIB:.0f} KiB")
        with self._store.staging(WORK) as staged:
            for entry in manifest.files:
                with self._bucket.open(join(offer.folder, entry.name), entry.size_bytes + 1) as source:
                    _check_same(manifest.label, entry, add_file(staged, entry.name, source))
            try:
                self._store.take(staged, manifest)
            except PackingError as error:
                raise PackageError(error.detail) from error
        self._outcome.arrived.append(manifest.label)

    def _follow_default(self, models: Models) -> None:
        """Make the model the default that the file `default` beside the models names."""
        folders = {dirname(dirname(offer.folder)) for versions in models.values() for offer in versions.values()}
        path = next(iter(sorted({join(folder, DEFAULT) for folder in folders} & self._files)), None)
        if path is None:
            return
        name = self._read_pointer(path)
        if name not in models:
            self._refuse(
                path, InvalidManifest(f"{path} names {shorten(name)!r}, which is not in the bucket; upload it")
            )
        elif name not in self._outcome.refused and self._is_news(DEFAULT, name):
            self._store.activate(name, None, default=True)


def _size(manifest: Manifest) -> int:
    return sum(entry.size_bytes for entry in manifest.files)


def _check_same(label: str, wanted: PackedFile, found: PackedFile) -> None:
    """Refuse a file that is not the one that was packed; of a larger one no more than a byte too much was read."""
    if found != wanted:
        size = f"more than {wanted.size_bytes}" if found.size_bytes > wanted.size_bytes else str(found.size_bytes)
        raise ChecksumMismatch(
            f"{label}: {wanted.name} in the bucket has {size} bytes and checksum {found.sha256[:12]}…, the manifest "
            f"says {wanted.size_bytes} and {wanted.sha256[:12]}…; upload the packed file again"
        )


def _check_not_another(store: Store, manifest: Manifest) -> None:
    """Refuse to write over a whole package; one that is broken here may be replaced."""
    if manifest.version not in store.versions().get(manifest.name, []):
        return
    try:
        there = store.manifest(manifest.name, manifest.version)
    except PackageError:
        return
    if there != manifest and store.intact(there):
        raise PackageError(
            f"{manifest.label} is here and is not the one in the bucket, and a version is never overwritten; upload it "
            "as another version, or remove the one that is here"
        )
