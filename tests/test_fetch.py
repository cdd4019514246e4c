"""Fetching: what arrives is what was packed, what does not verify leaves no trace, and the last good copy stays."""

from __future__ import annotations

import hashlib
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.bucket import LIBRARIES, MOST_FILES, Bucket, scheme_of
from service.errors import MissingLibrary, PackageError, SettingsError, UnreadableBucket
from service.fetch import Outcome, fetch
from service.runtimes import Policy
from service.store import Store
from tests.buckets import ADDRESS, DEMO, Breaking, FakeS3, Files, fake_s3, package, upload

MODEL = "penguins/1/model.joblib"
CONTENT = (DEMO / "model.joblib").read_bytes()


@pytest.fixture(autouse=True)
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeS3]]:
    """A bucket in memory."""
    with fake_s3(monkeypatch) as fake:
        yield fake


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """A store whose folder is not there yet."""
    return Store(tmp_path / "cache" / "models")


def fetched(store: Store, address: str = ADDRESS, trusted: tuple[str, ...] = (), tell: Any = None) -> Outcome:
    """Fetch with a fresh connection, as every try does."""
    return fetch(Bucket(address), store, trusted, tell or (lambda message: None))


def left(store: Store) -> list[str]:
    """Every path in the models folder but the lock."""
    paths = (path.relative_to(store.folder).as_posix() for path in store.folder.rglob("*"))
    return sorted(path for path in paths if path != ".lock-fetching")


def test_package_arrives_whole(local: Store) -> None:
    """What arrives is byte for byte what was packed, opens, and is private; the pointers come along."""
    upload(package() | package("wine/2") | package("wine/10") | {"wine/active": b"2\n", "default": b"wine\n"})
    outcome = fetched(local)
    assert (sorted(outcome.arrived), outcome.held) == (["penguins/1", "wine/10", "wine/2"], [])
    assert outcome.complete and not outcome.refused
    for file in DEMO.iterdir():
        there = local.folder / "penguins" / "1" / file.name
        if file.name != "manifest.json":
            assert there.read_bytes() == file.read_bytes()
        assert there.stat().st_mode & 0o777 == 0o600
    local.verify(local.manifest("penguins", "1"), Policy())
    assert {path.stat().st_mode & 0o777 for path in (local.folder, *local.folder.glob("*/*"))} <= {0o700, 0o600}
    assert (local.active("penguins"), local.active("wine"), local.default()) == ("1", "2", "wine")


@pytest.mark.parametrize("above", ["", "/models", "/models/penguins", "/models/penguins/1", "/"])
def test_address_may_be_of_any_level(above: str, local: Store) -> None:
    """The address of the models, of what holds them, of one model or of one version will do."""
    upload(package())
    assert fetched(local, f"s3://bucket{above}").arrived == ["penguins/1"]
    assert local.versions() == {"penguins": ["1"]}


def test_place_is_what_the_manifest_says(local: Store) -> None:
    """A platform may copy a version to a folder of any name."""
    upload({path.replace("penguins/1", "artifacts/x"): content for path, content in package().items()})
    assert fetched(local).arrived == ["penguins/1"]


def test_files_of_a_disk_are_read_too(models_dir: Path, local: Store) -> None:
    """`file://` reads a folder, such as one that a platform has mounted."""
    assert fetched(local, f"file://{models_dir}").arrived == ["penguins/1"]
    assert local.default() == "penguins"


def test_what_is_here_is_not_downloaded_again(local: Store, s3: type[FakeS3]) -> None:
    """A second look reads manifests and pointers only, and a version that came meanwhile."""
    upload(package())
    fetched(local)
    upload(package("penguins/2"))
    outcome = fetched(local)
    assert (outcome.held, outcome.arrived) == (["penguins/1"], ["penguins/2"])
    assert MODEL not in s3.opened and "penguins/2/model.joblib" in s3.opened
    assert local.active("penguins") == "2"  # no file says otherwise


def test_only_listed_files_are_downloaded(local: Store, s3: type[FakeS3]) -> None:
    """What the manifest does not list stays in the bucket."""
    upload(package() | {"penguins/1/notes.txt": b"x", "README.md": b"y"})
    fetched(local)
    assert not [path for path in s3.opened if path.endswith((".txt", ".md"))]
    assert sorted(path.name for path in (local.folder / "penguins" / "1").iterdir()) == sorted(
        path.name for path in DEMO.iterdir()
    )


FAULTS: dict[str, tuple[Files, str]] = {
    "cut": ({MODEL: CONTENT[:-1]}, f"has {len(CONTENT) - 1} bytes"),
    "longer": ({MODEL: CONTENT + b"x" * 10**6}, f"has more than {len(CONTENT)} bytes"),
    "other bytes": ({MODEL: CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])}, "checksum"),
    "empty": ({MODEL: b""}, "has 0 bytes"),
}


@pytest.mark.parametrize(("files", "why"), FAULTS.values(), ids=FAULTS)
def test_what_does_not_verify_leaves_no_trace(files: Files, why: str, local: Store) -> None:
    """A version with a file that is not the packed one is refused by the file's name, and nothing of it stays."""
    upload(package() | files)
    outcome = fetched(local)
    assert not outcome.complete and not outcome.arrived
    detail = outcome.refused["penguins"].detail
    assert "model.joblib" in detail and why in detail and outcome.refused["penguins"].code == "checksum-mismatch"
    assert left(local) == []


@pytest.mark.parametrize("kind", ["missing", "breaks", "forbidden"])
def test_object_that_cannot_be_read(kind: str, local: Store, s3: type[FakeS3], monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that is missing, forbidden or breaks in the middle is told in one line, and nothing of it stays."""
    upload(package())

    def before(path: str) -> Any:
        if path.endswith("model.joblib"):
            if kind == "breaks":
                return Breaking(CONTENT)
            raise PermissionError("Access Denied")
        return None

    if kind == "missing":
        s3().rm(f"{ADDRESS}/{MODEL}")
    else:
        monkeypatch.setattr(s3, "before", before)
    [error] = fetched(local).refused.values()
    assert isinstance(error, UnreadableBucket) and "penguins/1/model.joblib cannot be read" in error.detail
    assert "\n" not in error.detail
    assert left(local) == []


@pytest.mark.parametrize("pointer", [b"2", None], ids=["by its file", "as the newest"])
def test_last_good_copy_stays(pointer: bytes | None, local: Store) -> None:
    """A version that becomes active in the bucket and does not verify leaves what answers here as it is."""
    upload(package())
    fetched(local)
    before = {path: (local.folder / path).stat().st_ino for path in left(local) if path.startswith("penguins/1")}
    upload(package("penguins/2") | {"penguins/2/model.joblib": b"x"})
    if pointer:
        upload({"penguins/active": pointer})
    outcome = fetched(local)
    assert list(outcome.refused) == ["penguins"] and not outcome.complete
    assert local.versions() == {"penguins": ["1"]} and local.active("penguins") == "1"
    assert {path: (local.folder / path).stat().st_ino for path in before} == before


def test_no_other_version_answers_for_a_broken_one(local: Store) -> None:
    """Where the active version cannot be had, no other of this model arrives; other models do."""
    upload(package() | package("penguins/2") | package("wine/1") | {"penguins/active": b"1", MODEL: b""})
    outcome = fetched(local)
    assert (list(outcome.refused), outcome.arrived, outcome.complete) == (["penguins"], ["wine/1"], False)


def test_broken_version_that_is_not_active_holds_nobody_up(local: Store) -> None:
    """It is refused; what answers is complete without it."""
    upload(package() | package("penguins/2") | {"penguins/active": b"1", "penguins/2/model.joblib": b""})
    outcome = fetched(local)
    assert (list(outcome.refused), outcome.arrived, outcome.complete) == (["penguins/2"], ["penguins/1"], True)
    assert local.active("penguins") == "1"


POINTERS = [
    ({"penguins/active": b"7"}, "penguins", "'7' is not in the bucket"),
    ({"penguins/active": b"../../etc"}, "penguins", "is not in the bucket"),
    ({"penguins/active": b"\xff" * 300}, "penguins", "larger than 256 bytes"),
    ({"default": b"wine"}, "default", "'wine', which is not in the bucket"),
    ({"default": b"../x"}, "default", "which is not in the bucket"),
]


@pytest.mark.parametrize(("files", "what", "why"), POINTERS)
def test_pointer_that_leads_nowhere(files: Files, what: str, why: str, local: Store) -> None:
    """A file that names what is not there is refused, and moves nothing here."""
    upload(package())
    fetched(local)
    upload(files)
    outcome = fetched(local)
    assert not outcome.complete and why in outcome.refused[what].detail
    assert (local.active("penguins"), local.default()) == ("1", "penguins")


def change(**changes: Any) -> Files:
    """The demo package with another manifest."""
    return package(**changes)


MANIFESTS = {
    "no JSON": ({"penguins/1/manifest.json": b"{"}, "not valid"),
    "cut": ({"penguins/1/manifest.json": (DEMO / "manifest.json").read_bytes()[:-200]}, "not valid"),
    "a file above": (change(files=[{"name": "../x", "sha256": "0" * 64, "size_bytes": 1}]), "not valid at files"),
    "an absolute file": (change(files=[{"name": "/etc/x", "sha256": "0" * 64, "size_bytes": 1}]), "not valid at files"),
    "a name above": (change(name="../x"), "not valid at name"),
    "a version above": (change(version=".."), "not valid at version"),
    "the pointer's name": (change(name="default"), "reserved"),
    "the pointer's version": (change(version="active"), "reserved"),
}


@pytest.mark.parametrize(("files", "why"), MANIFESTS.values(), ids=MANIFESTS)
def test_manifest_that_is_none(files: Files, why: str, local: Store, tmp_path: Path) -> None:
    """A manifest that is malformed or leads out of its folder is refused, and the other packages arrive."""
    upload(package() | package("wine/1") | files)
    outcome = fetched(local)
    assert (outcome.arrived, outcome.complete) == (["wine/1"], False)
    assert why in outcome.refused["penguins/1"].detail
    assert [path for path in left(local) if not path.startswith("wine")] == []
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "models"}


def test_names_of_objects_lead_nowhere(local: Store, s3: type[FakeS3], tmp_path: Path) -> None:
    """An object whose name has `..` in it is not looked at."""
    upload(package())
    real = s3.ls

    def ls(self: FakeS3, path: str, **kwargs: Any) -> Any:
        listed = real(self, path, **kwargs)
        return [
            *listed,
            {"name": f"{path}/..", "type": "directory", "size": 0},
            {"name": f"{path}/../manifest.json/..", "type": "file", "size": 9},
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3, "ls", ls)
        assert fetched(local).arrived == ["penguins/1"]
    assert not [path for path in s3.opened if ".." in path]


def test_large_manifest_is_not_read_whole(local: Store) -> None:
    """What is larger than any manifest is refused."""
    upload({"penguins/1/manifest.json": b" " * (16 * 2**20 + 1)})
    [error] = fetched(local).refused.values()
    assert "larger than 16777216 bytes" in error.detail


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "cannot be read (FileNotFoundError"),
        ({"readme.txt": b"x"}, "no package lies below s3://bucket/models"),
        ({"a/b/c/d/e/f/g/manifest.json": b"{}"}, "no package lies below"),
    ],
    ids=["nothing", "no package", "too deep"],
)
def test_address_without_a_package(files: Files, why: str, local: Store) -> None:
    """An address below which no package lies is an error that says what to upload."""
    upload(files)
    with pytest.raises(UnreadableBucket) as caught:
        fetched(local)
    assert why in caught.value.detail


@pytest.mark.parametrize("folder", ["/bucket/models", "/bucket/models/penguins"])
def test_listing_fails(folder: str, local: Store, s3: type[FakeS3], monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be listed is no empty folder: what is here stays as it is."""
    upload(package())
    fetched(local)

    def before(path: str) -> None:
        if path == f"ls {folder}":
            raise RuntimeError("token expired")

    monkeypatch.setattr(s3, "before", before)
    with pytest.raises(UnreadableBucket, match="RuntimeError: token expired"):
        fetched(local)
    assert local.active("penguins") == "1"


def test_address_of_too_much(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address below which a whole lake lies is given up, not listed to the end."""
    monkeypatch.setattr("service.bucket.MOST_FILES", 20)
    assert MOST_FILES == 10_000
    upload({f"{folder}/{file}": b"" for folder in range(10) for file in range(10)})
    with pytest.raises(UnreadableBucket, match="more than 20 objects lie below"):
        fetched(local)


def test_disk_that_is_too_small(local: Store, s3: type[FakeS3], monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is looked for before anything is downloaded, and only for what is not here yet."""
    upload(package())
    free = [1]
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, free[0]))
    with pytest.raises(PackageError, match="the models folder has 0.0 MiB free; give ANYPORT_MODELS_DIR"):
        fetched(local)
    assert s3.opened == ["penguins/1/manifest.json"] and left(local) == []
    free[0] = 2**30
    fetched(local)
    free[0] = 0
    assert fetched(local).held == ["penguins/1"]


def test_only_trusted_manifests_come(local: Store) -> None:
    """Where checksums are given, a manifest of another one is refused before its files are looked at."""
    good = package()
    digest = hashlib.sha256(good["penguins/1/manifest.json"]).hexdigest()
    upload(good | package("wine/1"))
    outcome = fetched(local, trusted=(digest,))
    assert outcome.arrived == ["penguins/1"] and not outcome.complete
    assert outcome.refused["wine/1"].code == "untrusted-model"
    assert "ANYPORT_MODELS_SHA256" in outcome.refused["wine/1"].detail


def test_version_is_never_overwritten(local: Store) -> None:
    """Another package of the same name and version is refused, where the one that is here is whole."""
    upload(package())
    fetched(local)
    upload(package(created="another day"))
    outcome = fetched(local)
    assert "never overwritten" in outcome.refused["penguins"].detail
    assert local.manifest("penguins", "1").created != "another day"


@pytest.mark.parametrize("file", ["model.joblib", "manifest.json"])
def test_broken_copy_is_mended(file: str, local: Store) -> None:
    """What is here and was altered is downloaded again."""
    upload(package())
    fetched(local)
    (local.folder / "penguins" / "1" / file).write_bytes(b"x")
    assert fetched(local).arrived == ["penguins/1"]
    local.verify(local.manifest("penguins", "1"), Policy())


def test_two_packages_of_one_name_and_version(local: Store) -> None:
    """A bucket that holds two different packages of one name and version is not guessed about."""
    other = {f"old/{path}": content for path, content in package(created="long ago").items()}
    upload(package() | other)
    outcome = fetched(local)
    assert "remove one" in outcome.refused["penguins/1"].detail and not outcome.complete


def test_leftovers_of_a_killed_fetch_are_cleared_away(local: Store) -> None:
    """The next fetch removes what one that was killed has left, and nothing else."""
    upload(package())
    for name in (".fetching-x", ".packing-y"):
        (local.folder / name).mkdir(parents=True)
        (local.folder / name / "model.joblib").write_bytes(b"x")
    fetched(local)
    assert [path.name for path in local.folder.glob(".*-?")] == [".packing-y"]


def test_stages_are_told(local: Store) -> None:
    """Whoever waits is told what is being done."""
    told: list[str] = []
    upload(package())
    fetched(local, tell=told.append)
    assert told[0] == "it is being listed" and told[1].startswith("penguins/1 is being downloaded: ")


@pytest.mark.parametrize(
    "address", ["http://h/x", "s3:/b", "s3://", "memory://x", "s3://b?key=k", "simplecache::s3://b"]
)
def test_other_addresses_are_refused(address: str) -> None:
    """Only buckets and folders are read, by the schemes of the table, and no key stands in an address."""
    with pytest.raises(SettingsError, match="is no address of models"):
        scheme_of(address)


@pytest.mark.parametrize("scheme", LIBRARIES)
def test_missing_library_says_what_to_write(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheme whose library is not installed names it, and the line of requirements.in."""
    library = "s3fs" if scheme == "s3" else LIBRARIES[scheme]
    monkeypatch.setitem(LIBRARIES, scheme, library)
    monkeypatch.setattr("service.bucket.find_spec", lambda name: None)
    with pytest.raises(MissingLibrary, match=f"write {library} into requirements.in"):
        scheme_of(f"{scheme}://bucket/models")


def test_schemes_are_those_of_fsspec() -> None:
    """fsspec knows each scheme, and by the library that we name."""
    from fsspec.registry import known_implementations

    for scheme, library in LIBRARIES.items():
        assert known_implementations[scheme]["class"].startswith(f"{library}.") or scheme == "s3"
