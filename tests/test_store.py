"""The models folder: which versions there are, which one answers, and what is refused rather than opened."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import joblib
import pytest

from service.errors import (
    ChecksumMismatch,
    InvalidManifest,
    MissingLibrary,
    PackageError,
    PackingError,
    UnknownModel,
    UnknownVersion,
    UnreadableModel,
    UntrustedModel,
    VersionSkew,
)
from service.predictor import Predictor
from service.runtimes import Policy, Runtime
from service.store import LOCK, MANIFEST, MAX_MANIFEST_BYTES, TWINS, Store
from tests.originals import keep_originals

MODEL = "model.joblib"


def place(folder: Path, name: str, *versions: str) -> Store:
    """Make a models folder that has these versions, of which nothing but the names is looked at."""
    for version in versions:
        (folder / name / version).mkdir(parents=True)
        (folder / name / version / MANIFEST).touch()
    return Store(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit(package: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a package's manifest in place."""
    document = json.loads((package / MANIFEST).read_text())
    change(document)
    (package / MANIFEST).write_text(json.dumps(document))


def open_penguins(store: Store, policy: Policy | None = None) -> Runtime:
    """Read the demo's manifest and open what it names, as the catalogue does."""
    return store.open(store.manifest("penguins", "1"), policy or Policy())


@pytest.fixture
def models_dir(models_dir: Path) -> Path:
    """A models folder with the original of the demo alone."""
    return keep_originals(models_dir)


@pytest.fixture
def package(models_dir: Path) -> Path:
    """The folder of the demo package."""
    return models_dir / "penguins" / "1"


# Which versions there are


@pytest.mark.parametrize(
    "ordered",
    [
        ["1", "2", "10"],
        ["1.9", "1.10", "2.0"],
        ["2024-2-1", "2024-10-1"],
        ["1.0-rc2", "1.0-rc10"],
        ["v9", "v10"],
        ["beta", "1"],
    ],
    ids="-".join,
)
def test_versions_are_in_natural_order(tmp_path: Path, ordered: list[str]) -> None:
    """Versions are listed as people count, the newest last."""
    assert place(tmp_path, "it", *reversed(ordered)).versions() == {"it": ordered}


def test_versions_lists_names_in_alphabetical_order(tmp_path: Path) -> None:
    """Names come in alphabetical order, whatever the file system says."""
    for name in ("b", "a", "c"):
        place(tmp_path, name, "1")
    assert list(Store(tmp_path).versions()) == ["a", "b", "c"]


@pytest.mark.parametrize("path", ["Upper/1", ".packing-x/1", "a b/1", "it/.hidden", "it/1 2", "ünï/1"])
def test_versions_pass_over_what_is_no_package_name(tmp_path: Path, path: str) -> None:
    """A folder that is not named like a package is not listed."""
    (tmp_path / path).mkdir(parents=True)
    (tmp_path / path / MANIFEST).touch()
    assert Store(tmp_path).versions() == {}


def test_3_18_versions_pass_over_folder_without_manifest(tmp_path: Path) -> None:
    """A folder without a manifest is no package yet: the manifest is written last."""
    store = place(tmp_path, "it", "1")
    (tmp_path / "it" / "2").mkdir()
    assert store.versions() == {"it": ["1"]}


def test_absent_folder_has_no_versions(tmp_path: Path) -> None:
    """A models folder that is not there is an empty one."""
    store = Store(tmp_path / "absent")
    assert store.versions() == {}
    assert store.default() is None


@pytest.mark.parametrize(
    ("versions", "following"),
    [([], "1"), (["1", "2"], "3"), (["9", "10"], "11"), (["1.5", "beta"], "1"), (["3", "1.5"], "4"), (["007"], "8")],
    ids=str,
)
def test_next_version_is_the_next_whole_number(tmp_path: Path, versions: list[str], following: str) -> None:
    """The next version is one more than the largest whole number among the versions."""
    assert place(tmp_path, "it", *versions).next_version("it") == following


# Which version answers


def test_active_is_the_newest_without_pointer(tmp_path: Path) -> None:
    """Without a pointer the newest version answers."""
    assert place(tmp_path, "it", "9", "10").active("it") == "10"


def test_active_is_what_the_pointer_says(tmp_path: Path) -> None:
    """With a pointer its version answers, though there is a newer one."""
    store = place(tmp_path, "it", "9", "10")
    (tmp_path / "it" / "active").write_text("9\n")
    assert store.active("it") == "9"


@pytest.mark.parametrize("pointer", ["11", "", "../other/1", "nine"])
def test_active_refuses_a_pointer_that_dangles(tmp_path: Path, pointer: str) -> None:
    """A pointer to a version that is not there is an error, for nobody asked for another version."""
    store = place(tmp_path, "it", "9", "10")
    (tmp_path / "it" / "active").write_text(pointer)
    with pytest.raises(PackageError, match="is not there, it has 9, 10; run `flask activate it VERSION`"):
        store.active("it")


@pytest.mark.parametrize("name", ["nope", "../it", "", "It"])
def test_active_refuses_unknown_name(tmp_path: Path, name: str) -> None:
    """A name without a package is an unknown model."""
    with pytest.raises(UnknownModel):
        place(tmp_path, "it", "1").active(name)


def test_unreadable_pointer_is_a_package_error(tmp_path: Path) -> None:
    """A pointer that cannot be read as text is reported without its path."""
    store = place(tmp_path, "it", "1")
    (tmp_path / "it" / "active").write_bytes(b"\xff")
    with pytest.raises(PackageError) as caught:
        store.active("it")
    assert str(tmp_path) not in caught.value.detail


def test_sole_model_is_its_own_default(tmp_path: Path) -> None:
    """A sole model needs no pointer to be the default."""
    assert place(tmp_path, "it", "1").default() == "it"


@pytest.mark.parametrize(
    ("pointer", "default"),
    [(None, None), ("b\n", "b")],
    ids=["none", "b"],
)
def test_default_of_several_is_what_the_pointer_says(tmp_path: Path, pointer: str | None, default: str | None) -> None:
    """Of several models only the one that the pointer names is the default."""
    for name in ("a", "b"):
        place(tmp_path, name, "1")
    if pointer is not None:
        (tmp_path / "default").write_text(pointer)
    assert Store(tmp_path).default() == default


@pytest.mark.parametrize("pointer", ["gone", "../it", ""])
def test_dangling_default_is_an_error(tmp_path: Path, pointer: str) -> None:
    """Where the default pointer dangles, even a sole model does not take its place."""
    store = place(tmp_path, "it", "1")
    (tmp_path / "default").write_text(pointer)
    with pytest.raises(PackageError, match="is not there; run `flask activate NAME --default`"):
        store.default()


def test_next_version_counts_folders_without_manifest(tmp_path: Path) -> None:
    """The next version is free, even where a folder stands without a manifest."""
    store = place(tmp_path, "it", "1")
    (tmp_path / "it" / "2").mkdir()
    assert store.next_version("it") == "3"


# Choosing a version


def test_activate_points_to_the_version(tmp_path: Path) -> None:
    """An activated version answers; nothing but the pointer is left in the folder."""
    store = place(tmp_path, "it", "1", "2")
    assert store.activate("it", "1", default=False) == "1"
    assert store.active("it") == "1"
    assert sorted(path.name for path in (tmp_path / "it").iterdir()) == ["1", "2", "active"]
    assert not (tmp_path / "default").exists()


def test_activate_default_keeps_the_active_version(tmp_path: Path) -> None:
    """Making a model the default without a version pins none."""
    store = place(tmp_path, "a", "1", "2")
    place(tmp_path, "b", "1")
    assert store.activate("a", None, default=True) == "2"
    assert store.default() == "a"
    assert not (tmp_path / "a" / "active").exists()


def test_3_20_activate_replaces_the_pointer_in_one_step(tmp_path: Path) -> None:
    """A new pointer is moved over the old one, so that a reader sees one of the two and never half of one."""
    store = place(tmp_path, "it", "1", "2")
    store.activate("it", "1", default=True)
    os.link(tmp_path / "it" / "active", tmp_path / "old-active")
    os.link(tmp_path / "default", tmp_path / "old-default")
    store.activate("it", "2", default=True)
    assert (tmp_path / "old-active").read_text() == "1\n"
    assert (tmp_path / "it" / "active").read_text() == "2\n"
    assert (tmp_path / "default").stat().st_ino != (tmp_path / "old-default").stat().st_ino


@pytest.mark.parametrize("version", ["3", "../1", "1/", ".", "active"])
def test_activate_refuses_unknown_version(tmp_path: Path, version: str) -> None:
    """A version that is not there is refused, and nothing is written."""
    store = place(tmp_path, "it", "1", "2")
    before = contents(tmp_path)
    with pytest.raises(UnknownVersion, match="it has 1, 2"):
        store.activate("it", version, default=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("version", ["1", None])
@pytest.mark.parametrize("name", ["nope", "../it", "It"])
def test_activate_refuses_unknown_name(tmp_path: Path, name: str, version: str | None) -> None:
    """A name without a package is an unknown model, whatever version is said with it, and nothing is written."""
    store = place(tmp_path, "it", "1")
    before = contents(tmp_path)
    with pytest.raises(UnknownModel):
        store.activate(name, version, default=True)
    assert contents(tmp_path) == before


# Adding a version


@pytest.mark.parametrize("name", ["a", "0", "a-b_c", "x" * 64])
@pytest.mark.parametrize("version", ["1", "1.10", "v2-rc_1", "A", "x" * 64])
def test_3_21_check_free_takes_plain_names(store: Store, name: str, version: str) -> None:
    """Names and versions of plain characters are free where no package has them."""
    store.check_free(name, version)


BAD = ["", ".", "..", "../x", "a/b", "/a", "a\\b", "a b", "-a", ".a", "a\n", "a\0", "x" * 65, "ünï", "１"]


@pytest.mark.parametrize("name", [*BAD, "Upper", "a.b"], ids=ascii)
def test_3_21_check_free_refuses_name(store: Store, name: str) -> None:
    """A name that could leave the folder, or is not 1 to 64 plain characters, is refused with the rule."""
    with pytest.raises(PackingError, match="1 to 64 of a-z, 0-9, _ and -"):
        store.check_free(name, "1")


@pytest.mark.parametrize("version", BAD, ids=ascii)
def test_check_free_refuses_version(store: Store, version: str) -> None:
    """A version that could leave the folder, or is not 1 to 64 plain characters, is refused with the rule."""
    with pytest.raises(PackingError, match="1 to 64 letters, digits, dots, _ and -"):
        store.check_free("it", version)


@pytest.mark.parametrize(("name", "version"), [("default", "1"), ("penguins", "active"), ("it", "active")])
def test_check_free_refuses_the_pointers_names(store: Store, name: str, version: str) -> None:
    """No package may stand where a pointer stands or will stand."""
    with pytest.raises(PackingError):
        store.check_free(name, version)


def test_check_free_refuses_existing_version(store: Store) -> None:
    """A version that exists is never free."""
    with pytest.raises(PackingError, match="never overwritten"):
        store.check_free("penguins", "1")


def test_add_puts_the_package_in_its_place(store: Store, models_dir: Path, package: Path) -> None:
    """An added package can be opened and answers as before, and the staging folder is gone."""
    manifest = store.manifest("penguins", "1").model_copy(update={"name": "birds"})
    with store.staging() as folder:
        shutil.copytree(package, folder / "birds" / "1")
        assert store.add(folder / "birds" / "1", manifest) == models_dir / "birds" / "1"
    Predictor(store.manifest("birds", "1"), store.open(manifest, Policy())).replay()
    assert [path.name for path in models_dir.iterdir() if path.name.startswith(".")] == []


def test_add_never_overwrites(store: Store, models_dir: Path, package: Path) -> None:
    """A version that appeared after it was found free stays as it is, and the late one is refused."""
    manifest = store.manifest("penguins", "1").model_copy(update={"version": "2"})
    store.check_free("penguins", "2")
    with pytest.raises(PackingError, match="another `flask pack` made penguins/2 meanwhile"), store.staging() as folder:
        shutil.copytree(package, folder / "penguins" / "2")
        place(models_dir, "penguins", "2")
        before = contents(models_dir / "penguins")
        store.add(folder / "penguins" / "2", manifest)
    assert contents(models_dir / "penguins") == before


def test_3_18_staging_leaves_nothing_behind(models_dir: Path, store: Store) -> None:
    """A staging folder is no package, and is removed with what is in it after an exception."""
    before = contents(models_dir), sorted(os.listdir(models_dir))
    with pytest.raises(RuntimeError), store.staging() as folder:
        (folder / "it" / "1").mkdir(parents=True)
        (folder / "it" / "1" / MODEL).write_bytes(b"half")
        assert store.versions().get("it") is None
        raise RuntimeError
    assert (contents(models_dir), sorted(os.listdir(models_dir))) == before


def test_sweep_removes_what_was_killed(models_dir: Path, store: Store) -> None:
    """Leftovers of one kind of work go; those of another, and the packages, stay."""
    for work in ("fetching", "packing"):
        (models_dir / f".{work}-x").mkdir()
    store.sweep("fetching")
    assert sorted(path.name for path in models_dir.glob(".*")) == [".packing-x"]
    assert store.versions() == {"penguins": ["1"]}


def test_note_of_what_is_awaited(models_dir: Path, store: Store) -> None:
    """It is no package and no pointer, can be written anew and taken away, and one that cannot be read is none."""
    before = store.marks()
    assert store.awaited() is None
    for why in ("one thing", "another"):
        store.await_packages(why)
        assert store.awaited() == why
    assert store.marks() == before and store.versions() == {"penguins": ["1"]}
    store.await_packages(None)
    store.await_packages(None)
    assert store.awaited() is None
    (models_dir / ".awaited").write_bytes(b"\xff")
    assert store.awaited() is None


def test_intact_is_the_same_package_with_the_same_files(store: Store, package: Path) -> None:
    """Another manifest, or a file that was altered or is gone, is not intact."""
    manifest = store.manifest("penguins", "1")
    assert store.intact(manifest)
    assert not store.intact(manifest.model_copy(update={"created": "another day"}))
    assert not store.intact(manifest.model_copy(update={"version": "2"}))
    with (package / "model.joblib").open("ab") as stream:
        stream.write(b"x")
    assert not store.intact(manifest)
    (package / "model.joblib").unlink()
    assert not store.intact(manifest)


# Opening a version


def test_open_gives_what_was_packed(store: Store) -> None:
    """The demo package opens, and answers its golden rows."""
    Predictor(store.manifest("penguins", "1"), open_penguins(store)).replay()


def flip(position: float) -> Callable[[Path], None]:
    """Flip one bit of the model file, at a share of its length."""

    def damage(package: Path) -> None:
        content = bytearray((package / MODEL).read_bytes())
        content[int(position * (len(content) - 1))] ^= 1
        (package / MODEL).write_bytes(content)

    return damage


def truncate(package: Path) -> None:
    os.truncate(package / MODEL, 100)


def lengthen(package: Path) -> None:
    with (package / MODEL).open("ab") as stream:
        stream.write(b"\0")


def manifest_of(content: bytes) -> Callable[[Path], None]:
    """Replace the manifest's bytes."""

    def damage(package: Path) -> None:
        (package / MANIFEST).write_bytes(content)

    return damage


def huge_manifest(package: Path) -> None:
    os.truncate(package / MANIFEST, MAX_MANIFEST_BYTES + 1)


def setting(**changes: Any) -> Callable[[Path], None]:
    """Replace top-level fields of the manifest."""
    return lambda package: edit(package, lambda document: document.update(changes))


def artifact(**changes: Any) -> Callable[[Path], None]:
    """Replace fields of the manifest's artifact."""
    return lambda package: edit(package, lambda document: document["artifacts"][0].update(changes))


def listed(**changes: Any) -> Callable[[Path], None]:
    """Replace fields of the manifest's one file."""
    return lambda package: edit(package, lambda document: document["files"][0].update(changes))


def fewer(*fields: str) -> Callable[[Path], None]:
    """Leave out the last of some fields of the golden rows."""

    def change(document: dict[str, Any]) -> None:
        document["golden"] |= {field: document["golden"][field][:-1] for field in fields}

    return lambda package: edit(package, change)


def beside(content: bytes | None) -> Callable[[Path], None]:
    """List a second, empty file in the manifest, which in fact has another content or is not there."""
    empty = {"name": "beside.txt", "size_bytes": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb924" + "0" * 32}

    def damage(package: Path) -> None:
        edit(package, lambda document: document["files"].append(empty))
        if content is not None:
            (package / "beside.txt").write_bytes(content)

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], None], type[PackageError]]] = {
    "first byte flipped": (flip(0), ChecksumMismatch),
    "middle byte flipped": (flip(0.5), ChecksumMismatch),
    "last byte flipped": (flip(1), ChecksumMismatch),
    "file truncated": (truncate, ChecksumMismatch),
    "file lengthened": (lengthen, ChecksumMismatch),
    "file missing": (lambda package: (package / MODEL).unlink(), UnreadableModel),
    "file beside altered": (beside(b"altered"), ChecksumMismatch),
    "file beside missing": (beside(None), UnreadableModel),
    "manifest missing": (lambda package: (package / MANIFEST).unlink(), InvalidManifest),
    "manifest empty": (manifest_of(b""), InvalidManifest),
    "manifest not JSON": (manifest_of(b"{'name': 'penguins'}"), InvalidManifest),
    "manifest not UTF-8": (manifest_of(b'{"name": "\xff"}'), InvalidManifest),
    "manifest a list": (manifest_of(b"[]"), InvalidManifest),
    "manifest too large": (huge_manifest, InvalidManifest),
    "manifest of another format": (setting(format=2), InvalidManifest),
    "manifest of another model": (setting(name="birds"), InvalidManifest),
    "manifest of another version": (setting(version="2"), InvalidManifest),
    "manifest with unknown field": (setting(extra=1), InvalidManifest),
    "artifact with unknown field": (artifact(extra=1), InvalidManifest),
    "golden row without answer": (fewer("predictions", "probabilities"), InvalidManifest),
    "golden row without probabilities": (fewer("probabilities"), InvalidManifest),
    "golden answer without row": (fewer("rows"), InvalidManifest),
    "no file": (setting(files=[]), InvalidManifest),
    "no artifact": (setting(artifacts=[]), InvalidManifest),
    "file in another folder": (listed(name="../1/model.joblib"), InvalidManifest),
    "file with absolute path": (listed(name="/etc/passwd"), InvalidManifest),
    "file with backslash": (listed(name="a\\b"), InvalidManifest),
    "file hidden": (listed(name=".model.joblib"), InvalidManifest),
    "artifact in another folder": (artifact(file="../1/model.joblib"), InvalidManifest),
    "artifact not listed": (artifact(file="other.joblib"), InvalidManifest),
    "unknown runtime": (artifact(runtime="tensorflow"), InvalidManifest),
    "another layout": (artifact(layout="row"), InvalidManifest),
    "layout of another runtime": (artifact(layout="tensors"), InvalidManifest),
    "library not installed": (setting(libraries={"no-such-library": "1.0"}), MissingLibrary),
    "library without name": (setting(libraries={"": "1.0"}), PackageError),
    "library of another version": (setting(libraries={"scikit-learn": "0.1"}), VersionSkew),
    "library of another major version": (setting(libraries={"numpy": "1.26.4"}), VersionSkew),
    "library of nearly the same version": (
        setting(libraries={"scikit-learn": metadata.version("scikit-learn") + ".post1"}),
        VersionSkew,
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_3_17_open_refuses_damaged_package(store: Store, package: Path, case: str) -> None:
    """A package that is not as it was packed, or does not fit in here, is refused with the error of its kind."""
    damage, error = DAMAGES[case]
    damage(package)
    with pytest.raises(error, match="penguins/1"):
        open_penguins(store)


@pytest.mark.parametrize("case", DAMAGES)
def test_refusal_names_no_path(store: Store, package: Path, tmp_path: Path, case: str) -> None:
    """A refusal's text, which clients may see, holds no path of this machine and stays short."""
    DAMAGES[case][0](package)
    with pytest.raises(PackageError) as caught:
        open_penguins(store)
    assert str(tmp_path) not in caught.value.detail
    assert len(caught.value.detail) < 500


def test_numpy_may_differ_within_its_major_version(store: Store, package: Path) -> None:
    """A pickle made with another numpy of the same major version is opened."""
    setting(libraries={"numpy": metadata.version("numpy").split(".")[0] + ".0.0"})(package)
    open_penguins(store)


def test_open_warns_of_another_version_where_the_policy_says_so(
    store: Store, package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Under the policy `warn` a model of another library version is opened, and the log names both versions."""
    setting(libraries={"scikit-learn": "0.1"})(package)
    with caplog.at_level(logging.WARNING):
        open_penguins(store, Policy(skew="warn"))
    assert "scikit-learn 0.1" in caplog.text
    assert metadata.version("scikit-learn") in caplog.text


@pytest.mark.parametrize("name", TWINS)
def test_one_library_under_two_names_is_one(store: Store, package: Path, name: str) -> None:
    """A model that was made with one distribution of a library is opened where another of the same version is."""
    version = metadata.version(metadata.packages_distributions()["xgboost"][0])
    setting(libraries={name: version})(package)
    open_penguins(store)
    setting(libraries={name: f"{version}.post1"})(package)
    with pytest.raises(VersionSkew, match=rf"{name} {version}\.post1 and here is {version}"):
        open_penguins(store)


def test_warn_does_not_excuse_missing_library(store: Store, package: Path) -> None:
    """A library that is not installed is refused under every policy."""
    setting(libraries={"no-such-library": "1.0"})(package)
    with pytest.raises(MissingLibrary, match="requirements.in"):
        open_penguins(store, Policy(skew="warn"))


def test_3_17_open_asks_the_policy_before_a_pickle_runs(store: Store) -> None:
    """Where the operator does not allow pickles, the demo is refused with the setting that would allow it."""
    with pytest.raises(UntrustedModel, match="ANYPORT_ALLOW_PICKLE=true"):
        open_penguins(store, Policy(pickle=False))


@pytest.mark.parametrize(
    "path",
    [
        *("name", "version", "task", "signature", "signature.features", "signature.outputs", "libraries"),
        *("files", "files.0.name", "files.0.sha256", "files.0.size_bytes"),
        *("artifacts", "artifacts.0.runtime", "artifacts.0.file", "artifacts.0.layout"),
        *("golden", "golden.rows", "golden.predictions"),
    ],
)
def test_3_16_manifest_lacks_nothing(store: Store, package: Path, path: str) -> None:
    """A manifest without any one of the facts that a package is proved by is refused."""

    def leave_out(document: Any) -> None:
        *parents, last = path.split(".")
        for part in parents:
            document = document[int(part) if part.isdecimal() else part]
        del document[last]

    edit(package, leave_out)
    with pytest.raises(InvalidManifest):
        store.manifest("penguins", "1")


@pytest.mark.parametrize(
    "policy", [{"allow_pickle": True}, {"trusted": True}, {"trust": "all"}, {"policy": {"pickle": True}}], ids=str
)
def test_3_16_package_cannot_vouch_for_itself(store: Store, package: Path, policy: dict[str, Any]) -> None:
    """A package that says that it is to be trusted is refused, and where pickles are not allowed stays refused."""
    setting(**policy)(package)
    with pytest.raises(InvalidManifest):
        open_penguins(store, Policy(pickle=False))


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_3_17_what_was_verified_is_what_is_loaded(
    store: Store, package: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is swapped between its verification and its loading changes nothing: the open one is loaded."""
    load = joblib.load

    def swap_and_load(stream: Any) -> Any:
        if how == "replaced":
            (package / "other").write_bytes(b"another model")
            os.replace(package / "other", package / MODEL)
        else:
            (package / MODEL).unlink()
        return load(stream)

    monkeypatch.setattr(joblib, "load", swap_and_load)
    Predictor(store.manifest("penguins", "1"), open_penguins(store)).replay()


class Canary:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, nest: Path) -> None:
        self.nest = nest

    def __reduce__(self) -> Any:
        return Path.touch, (self.nest,)


def relist(package: Path, *names: str) -> None:
    """List these files in the manifest as they are."""
    entries = []
    for name in names:
        content = (package / name).read_bytes()
        entries.append({"name": name, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    edit(package, lambda document: document.update(files=entries))


@pytest.mark.parametrize("digest", ["right", "wrong"])
@pytest.mark.parametrize("allowed", [True, False])
def test_3_17_pickle_runs_only_with_digest_and_policy(
    store: Store, package: Path, tmp_path: Path, digest: str, allowed: bool
) -> None:
    """No byte of a pickle is interpreted unless its digest matches and the operator allows pickles."""
    joblib.dump(Canary(tmp_path / "ran"), package / MODEL)
    if digest == "right":
        relist(package, MODEL)
    with suppress(PackageError, AttributeError):
        open_penguins(store, Policy(pickle=allowed))
    assert (tmp_path / "ran").exists() == (digest == "right" and allowed)


@pytest.mark.parametrize(("runtime", "layout"), [("skops", "frame"), ("onnx", "tensors")])
def test_3_17_safe_loader_never_falls_back(
    store: Store, package: Path, tmp_path: Path, runtime: str, layout: str
) -> None:
    """A form that its safe runtime cannot open is refused: it is not unpickled, and no other form opened unasked."""
    joblib.dump(Canary(tmp_path / "ran"), package / "first.bin")
    joblib.dump(Canary(tmp_path / "second ran"), package / MODEL)
    relist(package, "first.bin", MODEL)
    forms = [
        {"runtime": runtime, "file": "first.bin", "layout": layout},
        {"runtime": "joblib", "file": MODEL, "layout": "frame"},
    ]
    setting(artifacts=forms)(package)
    with pytest.raises(UnreadableModel):
        open_penguins(store)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "second ran").exists()


@pytest.mark.parametrize(("name", "version"), [("../penguins", "1"), ("penguins", "../1"), ("penguins", "."), ("", "")])
def test_3_21_manifest_refuses_names_that_are_paths(store: Store, name: str, version: str) -> None:
    """A name that comes from outside never becomes a path."""
    with pytest.raises(InvalidManifest):
        store.manifest(name, version)


# What the file system says


def test_marks_name_pointers_and_files(store: Store, models_dir: Path) -> None:
    """There is a mark for every pointer and every file of a package, and for nothing else."""
    store.activate("penguins", "1", default=True)
    (models_dir / "README").touch()
    (models_dir / ".packing-x" / "it" / "1").mkdir(parents=True)
    (models_dir / ".packing-x" / "it" / "active").touch()
    (models_dir / ".packing-x" / "it" / MANIFEST).touch()
    assert set(store.marks()) == {"default", "penguins/active", f"penguins/1/{MANIFEST}", f"penguins/1/{MODEL}"}


def test_marks_of_an_absent_folder_are_none(tmp_path: Path) -> None:
    """A models folder that is not there, or is a file, has no marks."""
    (tmp_path / "file").touch()
    assert Store(tmp_path / "absent").marks() == {} == Store(tmp_path / "file").marks()


def test_marks_leave_out_what_cannot_be_read(store: Store, package: Path) -> None:
    """A file that leads nowhere is left out and the others are there."""
    (package / MODEL).unlink()
    (package / MODEL).symlink_to("nowhere")
    assert set(store.marks()) == {"default", f"penguins/1/{MANIFEST}"}


def put_back(package: Path) -> None:
    """Alter the model file without a trace in its size and time, as `rsync --inplace --times` may."""
    before = (package / MODEL).stat()
    flip(0.5)(package)
    os.utime(package / MODEL, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(package: Path) -> None:
    """Replace the model file by a copy of the same size and time."""
    shutil.copy2(package / MODEL, package.parent / "copy")
    os.replace(package.parent / "copy", package / MODEL)


@pytest.mark.parametrize(
    "change",
    [flip(0.5), truncate, lengthen, replace, put_back],
    ids=["flip", "truncate", "lengthen", "replace", "hide"],
)
def test_marks_tell_a_file_that_was_altered(store: Store, package: Path, change: Callable[[Path], None]) -> None:
    """A file that was altered or replaced has another mark, and only that one; one that was read has the same."""
    before = store.marks()
    (package / MODEL).read_bytes()
    assert store.marks() == before
    change(package)
    after = store.marks()
    assert {path for path in before if before[path] != after.get(path)} == {f"penguins/1/{MODEL}"}


def test_marks_tell_a_pointer_that_was_moved(store: Store, models_dir: Path) -> None:
    """A pointer that was written anew has another mark, though it says the same."""
    store.activate("penguins", "1", default=True)
    before = store.marks()
    store.activate("penguins", "1", default=True)
    after = store.marks()
    assert {path for path in before if before[path] != after[path]} == {"default", "penguins/active"}


# Checking without loading


SEEN = (ChecksumMismatch, MissingLibrary, UnreadableModel, VersionSkew)
"""What can be wrong with files and libraries, and is seen without loading anything."""


@pytest.mark.parametrize("case", [case for case, (_, error) in DAMAGES.items() if error in SEEN])
def test_verify_refuses_what_open_refuses(store: Store, package: Path, case: str) -> None:
    """Files and libraries that are not as they were packed are refused without loading anything."""
    damage, error = DAMAGES[case]
    damage(package)
    with pytest.raises(error, match="penguins/1"):
        store.verify(store.manifest("penguins", "1"), Policy())


def test_3_17_verify_loads_nothing(store: Store, models_dir: Path) -> None:
    """A model file that would do harm when it is loaded is verified all the same."""
    from tests.misfits import add_misfit

    add_misfit(models_dir, "raise SystemExit")
    store.verify(store.manifest("penguins", "2"), Policy(pickle=False))


def test_verify_passes_over_the_file_that_is_verified_when_it_is_opened(store: Store, package: Path) -> None:
    """The one file that `but` names is not read."""
    beside(b"")(package)
    edit(package, lambda document: document["files"][1].update(sha256="0" * 64))
    manifest = store.manifest("penguins", "1")
    store.verify(manifest, Policy(), but="beside.txt")
    with pytest.raises(ChecksumMismatch, match="beside.txt"):
        store.verify(manifest, Policy(), but=MODEL)


def test_file_that_cannot_be_read_to_its_end_is_a_package_error(store: Store, package: Path) -> None:
    """A disk that fails while a file is read makes a refusal like any other."""
    manifest = store.manifest("penguins", "1")
    (package / MODEL).unlink()
    (package / MODEL).symlink_to("/proc/self/mem")  # opens, and fails with EIO when it is read
    with pytest.raises(UnreadableModel, match="penguins/1"):
        store.verify(manifest, Policy())


# Copies


@pytest.fixture
def spare(tmp_path: Path) -> Store:
    """An empty store for copies."""
    (tmp_path / "spare").mkdir(mode=0o700)
    return Store(tmp_path / "spare")


def test_adopt_copies_the_package(store: Store, spare: Store) -> None:
    """An adopted package is the same to the byte, opens and answers, and nothing else is left."""
    manifest = store.manifest("penguins", "1")
    spare.adopt(store, manifest)
    assert spare.manifest("penguins", "1") == manifest
    assert (spare.folder / "penguins" / "1" / MODEL).read_bytes() == (
        store.folder / "penguins" / "1" / MODEL
    ).read_bytes()
    Predictor(manifest, spare.open(manifest, Policy())).replay()
    assert {path.name for path in spare.folder.rglob("*")} == {"penguins", "1", MANIFEST, MODEL}


def test_3_18_adopted_files_are_for_this_user_alone(store: Store, spare: Store, package: Path) -> None:
    """The folder of a copy is 0700 and its files are 0600, whatever they were and whatever the umask is."""
    (package / MODEL).chmod(0o777)
    umask = os.umask(0)
    try:
        spare.adopt(store, store.manifest("penguins", "1"))
    finally:
        os.umask(umask)
    copy = spare.folder / "penguins" / "1"
    assert copy.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in copy.iterdir()} == {0o600}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is made durable and what is renamed, by its last name, in order."""
    calls: list[tuple[str, str]] = []
    fsync, rename, swap = os.fsync, os.rename, os.replace

    def record_fsync(descriptor: int) -> None:
        calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def record(call: Callable[..., None]) -> Callable[..., None]:
        def move(source: Any, target: Any) -> None:
            calls.append(("rename", Path(target).name))
            call(source, target)

        return move

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record(rename))
    monkeypatch.setattr(os, "replace", record(swap))
    return calls


def test_3_18_package_is_written_durably(store: Store, spare: Store, written: list[tuple[str, str]]) -> None:
    """Files reach the disk first, the manifest last, and only then the package gets its name."""
    spare.adopt(store, store.manifest("penguins", "1"))
    in_order = [("fsync", MODEL), ("fsync", MANIFEST), ("rename", "1"), ("fsync", "penguins")]
    assert [call for call in written if call in in_order] == in_order


def test_3_18_pointer_is_written_durably(store: Store, written: list[tuple[str, str]]) -> None:
    """A pointer reaches the disk under another name before it takes its place."""
    store.activate("penguins", "1", default=False)
    assert written == [("fsync", ".active.new"), ("rename", "active"), ("fsync", "penguins")]


def test_3_18_adopt_takes_only_what_the_manifest_lists(store: Store, spare: Store, package: Path) -> None:
    """A file that lies beside the listed ones is not copied."""
    (package / "notes.txt").touch()
    spare.adopt(store, store.manifest("penguins", "1"))
    assert not (spare.folder / "penguins" / "1" / "notes.txt").exists()


def test_adopt_replaces_an_older_copy(store: Store, spare: Store, package: Path) -> None:
    """A package that was packed anew under the same version takes the place of its copy."""
    spare.adopt(store, store.manifest("penguins", "1"))
    setting(created="2027-01-01T00:00:00+00:00")(package)
    manifest = store.manifest("penguins", "1")
    assert not spare.holds(manifest)
    spare.adopt(store, manifest)
    assert spare.holds(manifest)


@pytest.mark.parametrize(
    "damage", [flip(0.5), truncate, lambda package: (package / MODEL).unlink()], ids=["flip", "truncate", "unlink"]
)
def test_adopt_copies_nothing_that_is_damaged(
    store: Store, spare: Store, package: Path, damage: Callable[[Path], None]
) -> None:
    """What cannot be verified is not copied; the copy that is there stays, and nothing is left behind."""
    manifest = store.manifest("penguins", "1")
    spare.adopt(store, manifest)
    before = contents(spare.folder)
    damage(package)
    with pytest.raises(PackageError):
        spare.adopt(store, manifest)
    assert contents(spare.folder) == before
    assert [path.name for path in spare.folder.iterdir()] == ["penguins"]


def test_adopt_where_nothing_can_be_written_is_an_error(store: Store, tmp_path: Path) -> None:
    """A copy that cannot be written is an error and not half a copy."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        Store(tmp_path / "file").adopt(store, store.manifest("penguins", "1"))


def test_holds_exactly_this_package(store: Store, package: Path) -> None:
    """A store holds a package if its manifest is the same in everything."""
    manifest = store.manifest("penguins", "1")
    assert store.holds(manifest)
    assert not store.holds(manifest.model_copy(update={"version": "2"}))
    assert not store.holds(manifest.model_copy(update={"created": "then"}))


@pytest.mark.parametrize("case", [case for case in DAMAGES if case.startswith("manifest ")])
def test_holds_no_package_that_cannot_be_read(store: Store, package: Path, case: str) -> None:
    """A package whose manifest is damaged is not held."""
    manifest = store.manifest("penguins", "1")
    DAMAGES[case][0](package)
    assert not store.holds(manifest)


def test_remove_takes_one_version_away(store: Store, models_dir: Path, package: Path) -> None:
    """A version is removed with all that is in it, and the others stay; what is not there does no harm."""
    shutil.copytree(package, models_dir / "penguins" / "2")
    store.remove("penguins", "2")
    store.remove("penguins", "3")
    store.remove("birds", "1")
    assert store.versions() == {"penguins": ["1"]}
    assert not (models_dir / "penguins" / "2").exists()


@pytest.mark.parametrize(("name", "version"), [("..", "models"), ("penguins", ".."), (".", "penguins"), ("", "")])
def test_remove_never_leaves_the_folder(store: Store, name: str, version: str) -> None:
    """A name that is a path removes nothing."""
    before = contents(store.folder)
    with pytest.raises(InvalidManifest):
        store.remove(name, version)
    assert contents(store.folder) == before


def others_wait(store: Store) -> bool:
    """Whether another who wants to be alone would have to wait."""
    with (store.folder / LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_alone_keeps_others_waiting(spare: Store) -> None:
    """While one is alone others wait, and no longer; also after an exception."""
    with spare.alone():
        assert others_wait(spare)
    assert not others_wait(spare)
    with pytest.raises(RuntimeError), spare.alone():
        raise RuntimeError
    assert not others_wait(spare)
    assert spare.versions() == spare.marks() == {}
