"""The keeper: what is served follows the store, and what answers goes on answering, whatever becomes of the store."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from service import arrivals
from service import keeper as keeper_module
from service.catalogue import Catalogue, open_package
from service.errors import (
    ChecksumMismatch,
    InvalidManifest,
    NotReady,
    PackageError,
    UnknownModel,
    UnknownVersion,
    UnreadableModel,
)
from service.keeper import FIRST_RETRY_S, LONGEST_RETRY_S, Keeper, Terms
from service.manifest import Artifact, Cost, Manifest
from service.runtimes import Policy, Runtime
from service.store import Mark, Store
from service.trial import Limits
from tests.misfits import add_misfit
from tests.originals import keep_originals
from tests.test_catalogue import add_version, break_model, edit

WAIT_S = 30


class Watched(Store):
    """A store that counts what it is asked to do, and fails or waits where it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.done: Counter[str] = Counter()
        self.faults: dict[str, BaseException] = {}
        self.gates: dict[str, Event] = {}
        self.reached = Event()
        self.parked = False
        self.vanishes_at = ""

    def _do(self, what: str) -> None:
        self.done[what] += 1
        if self.parked:
            Event().wait()
        if what == self.vanishes_at and self.folder.exists():
            self.folder.rename(self.folder.with_name("away"))
        if what in self.gates:
            self.reached.set()
            assert self.gates[what].wait(WAIT_S)
        if what in self.faults:
            raise self.faults[what]

    def marks(self) -> dict[str, Mark]:
        self._do("marks")
        return super().marks()

    def versions(self) -> dict[str, list[str]]:
        self._do("versions")
        return super().versions()

    def active(self, name: str) -> str:
        self._do("active")
        return super().active(name)

    def default(self) -> str | None:
        self._do("default")
        return super().default()

    def manifest(self, name: str, version: str) -> Manifest:
        self._do("manifest")
        return super().manifest(name, version)

    def verify(self, manifest: Manifest, policy: Policy, *, but: str | None = None) -> None:
        self._do("verify")
        super().verify(manifest, policy, but=but)

    def open(self, manifest: Manifest, policy: Policy, artifact: Artifact | None = None) -> Runtime:
        self._do("open")
        return super().open(manifest, policy, artifact)


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


class Worker:
    """A keeper that takes the steps of a worker's own when it is told to."""

    def __init__(self, store: Store, spare: Store | None = None, **terms: Any) -> None:
        self.keeper = Keeper(store, Terms(**terms))
        self.keeper._spare = spare

    def look(self) -> Catalogue:
        """Look at the store as the background thread does, once."""
        before = self.keeper._catalogue
        self.keeper.refresh()
        assert self.keeper._catalogue is not None
        if self.keeper._catalogue is not before:
            self.keeper._keep_spare()
        return self.keeper._catalogue

    def look_again(self) -> Catalogue:
        """Look at the store at the time of the next retry."""
        self.keeper._retry_at = 0.0
        return self.look()


@pytest.fixture
def store(models_dir: Path) -> Watched:
    """A store with two versions of penguins, of which 1 is active, and the default model penguins."""
    add_version(models_dir, "2")
    store = Watched(models_dir)
    store.activate("penguins", "1", default=True)
    return store


@pytest.fixture
def spare(tmp_path: Path) -> Store:
    """An empty store for copies, as the master makes it."""
    (tmp_path / "spare").mkdir(mode=0o700)
    return Store(tmp_path / "spare")


@pytest.fixture
def worker(store: Watched) -> Worker:
    """A worker that has loaded its models."""
    worker = Worker(store)
    worker.look()
    return worker


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock of one's own for the keeper."""
    clock = Clock()
    monkeypatch.setattr(keeper_module, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def trials(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was tried. Trials take place in this process, because a process of its own takes seconds."""
    tried: list[str] = []

    def try_here(store: Store, name: str, version: str, policy: Policy, limits: Limits) -> Cost | None:
        tried.append(f"{name}/{version}")
        entry = open_package(Store(store.folder), name, version, policy)
        if isinstance(entry, PackageError):
            raise entry
        return None

    if "slow" not in request.keywords:
        monkeypatch.setattr(arrivals, "try_out", try_here)
    return tried


def answers(catalogue: Catalogue, name: str | None = None) -> str:
    """Return the label of what answers."""
    return catalogue.predictor(name).manifest.label


def troubles(catalogue: Catalogue) -> tuple[list[str], list[str]]:
    """Return what is stale and what is refused."""
    return sorted(catalogue.stale), sorted(catalogue.refusals())


def change_note(package: Path, note: str = "2027-01-01T00:00:00+00:00") -> None:
    """Make a package another one, which opens all the same."""
    edit(package, created=note)


def flip_bit(package: Path) -> None:
    with (package / "model.joblib").open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([byte ^ 1]))


def unlink_model(package: Path) -> None:
    (package / "model.joblib").unlink()


def truncate_manifest(package: Path) -> None:
    os.truncate(package / "manifest.json", 100)


def empty_manifest(package: Path) -> None:
    os.truncate(package / "manifest.json", 0)


DAMAGES: dict[str, tuple[Callable[[Path], None], type[PackageError]]] = {
    "model truncated": (break_model, ChecksumMismatch),
    "one bit flipped": (flip_bit, ChecksumMismatch),
    "model removed": (unlink_model, UnreadableModel),
    "manifest truncated": (truncate_manifest, InvalidManifest),
    "manifest empty": (empty_manifest, InvalidManifest),
}


# What is loaded at first


def test_first_look_loads_what_there_is(worker: Worker, trials: list[str]) -> None:
    """The first look opens everything here, and nothing in a process of its own."""
    catalogue = worker.look()
    assert answers(catalogue) == "penguins/1"
    assert catalogue.predictor("penguins", "2").manifest.label == "penguins/2"
    assert catalogue.ready() and troubles(catalogue) == ([], [])
    assert trials == []


def test_requests_load_where_nobody_follows(store: Store) -> None:
    """Without a background thread the first request loads the models, and so does a probe."""
    assert answers(Keeper(store, Terms()).catalogue()) == "penguins/1"
    looked = Keeper(store, Terms()).peek()
    assert looked is not None and looked.ready()


def test_requests_follow_where_nobody_else_does(store: Store, clock: Clock) -> None:
    """Without a background thread a request sees what was changed a second before it."""
    keeper = Keeper(store, Terms())
    assert answers(keeper.catalogue()) == "penguins/1"
    store.activate("penguins", "2", default=False)
    clock.now += 1
    assert answers(keeper.catalogue()) == "penguins/2"


# What changes


def test_3_20_activation_and_rollback_take_effect(worker: Worker, store: Store) -> None:
    """The next look after a pointer was moved, forth and back, serves what it names."""
    for version in ("2", "1", "2"):
        store.activate("penguins", version, default=False)
        assert answers(worker.look()) == f"penguins/{version}"


def test_3_20_pointer_that_is_removed_makes_way_for_the_newest(worker: Worker, models_dir: Path) -> None:
    """Without a pointer the newest version answers."""
    (models_dir / "penguins" / "active").unlink()
    assert answers(worker.look()) == "penguins/2"


def test_3_20_catalogue_in_use_never_changes(worker: Worker, store: Store, models_dir: Path) -> None:
    """A request keeps the catalogue that it has begun with, whatever becomes of the store meanwhile."""
    begun = worker.look()
    shutil.rmtree(models_dir / "penguins" / "2")
    add_version(models_dir, "3")
    store.activate("penguins", "3", default=False)
    assert answers(worker.look()) == "penguins/3"
    assert answers(begun) == "penguins/1"
    assert begun.predictor("penguins", "2").manifest.label == "penguins/2"


def test_3_20_predictor_stays_the_same_object(worker: Worker, store: Store, models_dir: Path) -> None:
    """What has not changed is not loaded again, whatever changes beside it."""
    before = worker.look().predictor()
    add_version(models_dir, "3")
    store.activate("penguins", "2", default=False)
    (models_dir / "penguins" / "1" / "model.joblib").touch()
    catalogue = worker.look()
    assert answers(catalogue) == "penguins/2"
    assert catalogue.predictor("penguins", "1") is before


def test_look_at_an_unchanged_store_reads_nothing(worker: Worker, store: Watched) -> None:
    """Where nothing has changed no file is opened and nothing is hashed, and the catalogue is the same object."""
    before = worker.look()
    store.done.clear()
    for _ in range(3):
        assert worker.look() is before
    assert store.done == {"marks": 3}


def test_change_of_one_version_reads_no_other(worker: Worker, store: Watched, models_dir: Path) -> None:
    """Only what has changed is verified again, and nothing is loaded again that is as it was."""
    store.done.clear()
    (models_dir / "penguins" / "2" / "model.joblib").touch()
    worker.look()
    assert (store.done["verify"], store.done["open"]) == (1, 0)


def test_3_19_arrival_is_tried_before_it_answers(worker: Worker, models_dir: Path, trials: list[str]) -> None:
    """A version that arrives is tried in a process of its own, once, and then answers by its number."""
    add_version(models_dir, "3")
    catalogue = worker.look()
    assert trials == ["penguins/3"]
    assert catalogue.predictor("penguins", "3").manifest.label == "penguins/3"
    assert answers(catalogue) == "penguins/1"
    worker.look_again()
    assert trials == ["penguins/3"]


@pytest.mark.slow
def test_3_19_arrival_that_crashes_harms_nobody(worker: Worker, models_dir: Path) -> None:
    """A version that crashes where it is loaded is refused, and the last good one goes on; a good one then answers."""
    (models_dir / "penguins" / "active").unlink()
    worker.look()
    add_misfit(models_dir, "import ctypes; ctypes.string_at(0)", "3")
    catalogue = worker.look()
    assert answers(catalogue) == "penguins/2" and catalogue.ready()
    assert troubles(catalogue) == ([], ["penguins/3"])
    add_version(models_dir, "4")
    assert answers(worker.look()) == "penguins/4"


@pytest.mark.parametrize("died", [True, False])
def test_3_19_death_while_loading_is_noticed_once(
    died: bool, store: Watched, spare: Store, trials: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Where a worker died while it loaded, the next one tries each package first; what answers then ends the alarm."""
    holder = "999999999" if died else str(os.getppid())
    (spare.folder / f".loading-{holder}").touch()
    for warned in (died, False):
        caplog.clear()
        worker = Worker(store, spare)
        worker.keeper._note_loading()
        worker.look()
        worker.keeper.forget_loading()
        assert ("has died while it loaded" in caplog.text) == warned
    assert trials == (["penguins/1", "penguins/2"] if died else [])
    assert [path.name for path in spare.folder.glob(".loading-*")] == ([] if died else [f".loading-{holder}"])


@pytest.mark.parametrize("case", DAMAGES)
def test_3_19_broken_arrival_leaves_the_last_good_one(case: str, worker: Worker, models_dir: Path) -> None:
    """A newest version that arrives broken is a refusal, the one before goes on, and the mended one answers."""
    damage, error = DAMAGES[case]
    (models_dir / "penguins" / "active").unlink()
    worker.look()
    staged = add_version(models_dir, "3", "staged")
    edit(staged, name="penguins")
    damage(staged)
    shutil.move(staged, models_dir / "penguins" / "3")
    shutil.rmtree(models_dir / "staged")
    catalogue = worker.look()
    assert answers(catalogue) == "penguins/2" and catalogue.ready()
    assert {label: type(found) for label, found in catalogue.refusals().items()} == {"penguins/3": error}
    with pytest.raises(NotReady):
        catalogue.predictor("penguins", "3")
    shutil.rmtree(models_dir / "penguins" / "3")
    add_version(models_dir, "3")
    catalogue = worker.look()
    assert answers(catalogue) == "penguins/3" and troubles(catalogue) == ([], [])


def test_3_19_activation_of_a_broken_version_leaves_the_last_good_one(
    worker: Worker, store: Store, models_dir: Path
) -> None:
    """A pointer to a version that cannot be opened changes nothing but what is refused."""
    break_model(add_version(models_dir, "3"))
    store.activate("penguins", "3", default=False)
    catalogue = worker.look()
    assert answers(catalogue) == "penguins/1" and troubles(catalogue) == ([], ["penguins/3"])
    store.activate("penguins", "2", default=False)
    assert answers(worker.look()) == "penguins/2"


def test_version_packed_anew_takes_its_place(worker: Worker, models_dir: Path, trials: list[str]) -> None:
    """Another package under the same version is tried, and takes the place of the one before."""
    before = worker.look().predictor()
    change_note(models_dir / "penguins" / "1")
    after = worker.look().predictor()
    assert trials == ["penguins/1"]
    assert after is not before and after.manifest.created != before.manifest.created


def test_removed_version_is_no_longer_served(worker: Worker, models_dir: Path) -> None:
    """A version that is removed while others are there is unknown from then on."""
    shutil.rmtree(models_dir / "penguins" / "2")
    catalogue = worker.look()
    with pytest.raises(UnknownVersion):
        catalogue.predictor("penguins", "2")
    assert answers(catalogue) == "penguins/1" and troubles(catalogue) == ([], [])


def test_added_model_answers_by_its_name(worker: Worker, models_dir: Path) -> None:
    """A model with a new name is served, and the default stays what it was."""
    add_version(models_dir, "1", "birds")
    catalogue = worker.look()
    assert answers(catalogue, "birds") == "birds/1" and answers(catalogue) == "penguins/1"


def test_removed_model_goes_on_and_is_stale(worker: Worker, models_dir: Path) -> None:
    """A model whose every version is gone goes on answering and is stale: nobody can tell this from an outage."""
    add_version(models_dir, "1", "birds")
    worker.look()
    shutil.rmtree(models_dir / "birds")
    catalogue = worker.look()
    assert answers(catalogue, "birds") == "birds/1" and answers(catalogue) == "penguins/1"
    assert catalogue.ready() and troubles(catalogue) == (["birds/1"], [])


def test_moved_default_takes_effect(worker: Worker, store: Store, models_dir: Path) -> None:
    """A default pointer that is moved or removed takes effect with the next look."""
    add_version(models_dir, "1", "birds")
    store.activate("birds", None, default=True)
    assert answers(worker.look()) == "birds/1"
    (models_dir / "default").unlink()
    with pytest.raises(UnknownModel, match="flask activate NAME --default"):
        worker.look().predictor()


def test_serve_active_swaps(store: Store) -> None:
    """With `serve` at `active` the version that the pointer names takes the place of the other."""
    worker = Worker(store, serve="active")
    assert list(worker.look().entries["penguins"]) == ["1"]
    store.activate("penguins", "2", default=False)
    catalogue = worker.look()
    assert answers(catalogue) == "penguins/2" and list(catalogue.entries["penguins"]) == ["2"]


def test_serve_active_keeps_the_last_good_one(store: Store, models_dir: Path) -> None:
    """With `serve` at `active` the version before stays while the one that the pointer names is broken."""
    worker = Worker(store, serve="active")
    before = worker.look().predictor()
    break_model(models_dir / "penguins" / "2")
    store.activate("penguins", "2", default=False)
    for catalogue in (worker.look(), worker.look_again(), worker.look_again()):
        assert catalogue.predictor() is before and catalogue.ready()
        assert troubles(catalogue) == ([], ["penguins/2"])
    shutil.copy2(models_dir / "penguins" / "1" / "model.joblib", models_dir / "penguins" / "2" / "model.joblib")
    catalogue = worker.look()
    assert answers(catalogue) == "penguins/2" and list(catalogue.entries["penguins"]) == ["2"]


# What is damaged


@pytest.mark.parametrize("case", DAMAGES)
@pytest.mark.parametrize("version", ["1", "2"])
def test_3_21_damaged_package_goes_on_and_is_stale(case: str, version: str, worker: Worker, models_dir: Path) -> None:
    """A package that is damaged while it answers goes on as the same object and is stale until it is mended."""
    before = worker.look().predictor("penguins", version)
    package, kept = models_dir / "penguins" / version, models_dir.parent / "kept"
    shutil.copytree(package, kept)
    DAMAGES[case][0](package)
    for catalogue in (worker.look(), worker.look_again(), worker.look()):
        assert catalogue.predictor("penguins", version) is before
        assert catalogue.ready() and troubles(catalogue) == ([f"penguins/{version}"], [])
        assert isinstance(catalogue.stale[f"penguins/{version}"], DAMAGES[case][1])
    shutil.rmtree(package)
    shutil.copytree(kept, package)
    catalogue = worker.look()
    assert catalogue.predictor("penguins", version) is before and troubles(catalogue) == ([], [])


@pytest.mark.parametrize("content", [b"9\n", b"\xff", b"", b"../1"], ids=["absent", "bytes", "empty", "path"])
def test_3_21_pointer_that_leads_nowhere_is_stale(content: bytes, worker: Worker, models_dir: Path) -> None:
    """While a pointer cannot be followed the version before goes on, stale; other versions may come and go."""
    before = worker.look().predictor()
    (models_dir / "penguins" / "active").write_bytes(content)
    catalogue = worker.look()
    assert catalogue.predictor() is before and catalogue.ready()
    assert troubles(catalogue) == (["penguins"], [])
    add_version(models_dir, "3")
    catalogue = worker.look()
    assert catalogue.predictor() is before and catalogue.held("penguins", "3")
    (models_dir / "penguins" / "active").write_text("2\n")
    catalogue = worker.look()
    assert answers(catalogue) == "penguins/2" and troubles(catalogue) == ([], [])


def test_3_21_pointer_to_a_version_that_arrives_later(worker: Worker, models_dir: Path) -> None:
    """A pointer that was ahead of its version takes effect when the version arrives."""
    (models_dir / "penguins" / "active").write_text("3\n")
    assert troubles(worker.look()) == (["penguins"], [])
    add_version(models_dir, "3")
    catalogue = worker.look()
    assert answers(catalogue) == "penguins/3" and troubles(catalogue) == ([], [])


def test_3_21_active_version_that_is_removed_goes_on(worker: Worker, models_dir: Path) -> None:
    """Where the version that the pointer names is removed it goes on answering, stale."""
    before = worker.look().predictor()
    shutil.rmtree(models_dir / "penguins" / "1")
    for catalogue in (worker.look(), worker.look_again()):
        assert catalogue.predictor() is before
        assert "penguins" in catalogue.stale


@pytest.mark.parametrize("content", [b"gone\n", b"\xff"], ids=["absent", "bytes"])
def test_3_21_default_that_leads_nowhere_is_stale(content: bytes, worker: Worker, models_dir: Path) -> None:
    """While the default pointer cannot be followed the default model stays what it was."""
    add_version(models_dir, "1", "birds")
    worker.look()
    (models_dir / "default").write_bytes(content)
    for catalogue in (worker.look(), worker.look_again()):
        assert answers(catalogue) == "penguins/1" and troubles(catalogue) == (["default"], [])
    (models_dir / "default").write_text("birds\n")
    catalogue = worker.look()
    assert answers(catalogue) == "birds/1" and troubles(catalogue) == ([], [])


@pytest.mark.parametrize("serve", ["all", "active"])
def test_3_21_store_that_vanishes_and_comes_back(serve: str, store: Store, models_dir: Path) -> None:
    """Without its folder everything goes on and is stale; with it nothing is loaded again."""
    add_version(models_dir, "1", "birds")
    worker = Worker(store, serve=serve)
    before = worker.look()
    served = sorted(f"{name}/{version}" for name, versions in before.entries.items() for version in versions)
    models_dir.rename(models_dir.with_name("away"))
    for catalogue in (worker.look(), worker.look_again(), worker.look()):
        assert catalogue.entries == before.entries and catalogue.active == before.active
        assert answers(catalogue) == "penguins/1" and catalogue.ready()
        assert troubles(catalogue) == (served, [])
    models_dir.with_name("away").rename(models_dir)
    catalogue = worker.look()
    assert catalogue.entries == before.entries and troubles(catalogue) == ([], [])
    assert answers(catalogue) == "penguins/1"


def test_3_21_store_that_is_replaced_by_a_file(worker: Worker, models_dir: Path) -> None:
    """Everything goes on where the models folder is no folder."""
    shutil.rmtree(models_dir)
    models_dir.touch()
    catalogue = worker.look()
    assert answers(catalogue) == "penguins/1" and catalogue.ready()
    assert {"penguins/1", "penguins/2"} <= catalogue.stale.keys() and not catalogue.refusals()


def test_3_21_package_that_cannot_be_read_stands_in_nobodys_way(worker: Worker, store: Store, models_dir: Path) -> None:
    """Where the disk fails in the middle of one file its package is stale, and the others still follow the store."""
    model = models_dir / "penguins" / "2" / "model.joblib"
    model.unlink()
    model.symlink_to("/proc/self/mem")  # opens, and fails with EIO when it is read
    add_version(models_dir, "1", "birds")
    catalogue = worker.look()
    assert answers(catalogue) == "penguins/1" and answers(catalogue, "birds") == "birds/1"
    assert troubles(catalogue) == (["penguins/2"], [])


# Whatever the store raises

FAULTS = [OSError(5, "Input/output error"), OSError(107, "Transport endpoint is not connected"), RuntimeError("odd")]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
@pytest.mark.parametrize("what", ["marks", "versions", "active", "manifest", "verify", "open"])
def test_3_21_look_never_raises(what: str, fault: Exception, store: Watched, models_dir: Path) -> None:
    """Whatever the store raises, what answers goes on; when it no longer does, what it holds is served."""
    worker = Worker(store)
    before = worker.look().predictor()
    store.faults[what] = fault
    change_note(models_dir / "penguins" / "2")
    add_version(models_dir, "3")
    for catalogue in (worker.look(), worker.look_again(), worker.look()):
        assert catalogue.predictor() is before
    store.faults.clear()
    catalogue = worker.look_again()
    assert catalogue.held("penguins", "3") and troubles(catalogue) == ([], [])
    changed = catalogue.held("penguins", "2")
    assert changed is not None and changed.manifest.created.startswith("2027")


@pytest.mark.parametrize("what", ["marks", "versions", "active", "manifest", "open"])
def test_2_12_first_look_never_raises(what: str, store: Watched) -> None:
    """A store that fails at the first look leaves a live service that is not ready, and is tried again."""
    worker = Worker(store)
    store.faults[what] = OSError(107, "Transport endpoint is not connected")
    assert not worker.look().ready()
    store.faults.clear()
    assert answers(worker.look_again()) == "penguins/1"


@pytest.mark.parametrize("what", ["marks", "versions"])
def test_3_21_store_that_raises_is_told(what: str, worker: Worker, store: Watched, models_dir: Path) -> None:
    """While the store as a whole fails, what answers is stale."""
    store.faults[what] = OSError(107, "Transport endpoint is not connected")
    (models_dir / "penguins" / "2" / "model.joblib").touch()
    assert worker.look().stale
    store.faults.clear()
    assert not worker.look_again().stale


# Trying again


def waits(keeper: Keeper, store: Watched, clock: Clock, times: int) -> list[float]:
    """Look many times a second, and return how long it was from each time that a package was read to the next."""
    found: list[float] = []
    read, since = store.done["manifest"], clock.now
    while len(found) < times:
        clock.now += 0.1
        keeper.refresh()
        if store.done["manifest"] > read:
            found.append(clock.now - since)
            read, since = store.done["manifest"], clock.now
    return found


def test_3_21_retries_back_off_with_jitter(worker: Worker, store: Watched, models_dir: Path, clock: Clock) -> None:
    """What stays broken is tried at growing intervals up to a longest one, no two of which are quite the same."""
    break_model(models_dir / "penguins" / "2")
    worker.look()
    found = waits(worker.keeper, store, clock, 12)
    expected = [min(FIRST_RETRY_S * 2**n, LONGEST_RETRY_S) for n in range(12)]
    assert all(0.75 * e <= f <= 1.25 * e + 0.2 for e, f in zip(expected, found, strict=True))
    assert len({round(wait, 1) for wait in found[6:]}) > 1


def test_3_21_change_is_looked_at_whatever_the_back_off(
    worker: Worker, store: Watched, models_dir: Path, clock: Clock
) -> None:
    """A change in the store is looked at at once, and what is still broken then is tried soon again."""
    break_model(models_dir / "penguins" / "2")
    worker.look()
    waits(worker.keeper, store, clock, 6)
    flip_bit(models_dir / "penguins" / "1")
    assert troubles(worker.look())[0] == ["penguins/1", "penguins/2"]
    assert waits(worker.keeper, store, clock, 1)[0] < 2


def test_3_21_mended_store_is_not_tried_again(worker: Worker, store: Watched, models_dir: Path, clock: Clock) -> None:
    """Where nothing is wrong nothing is read again, however much time goes by."""
    break_model(models_dir / "penguins" / "2")
    worker.look()
    waits(worker.keeper, store, clock, 3)
    shutil.copy2(models_dir / "penguins" / "1" / "model.joblib", models_dir / "penguins" / "2" / "model.joblib")
    catalogue = worker.look()
    assert troubles(catalogue) == ([], [])
    clock.now += 1e6
    assert worker.look() is catalogue


@pytest.mark.parametrize("what", [None, "marks", "versions"])
def test_3_21_retries_never_end(
    what: str | None, worker: Worker, store: Watched, models_dir: Path, clock: Clock
) -> None:
    """After thousands of retries, as in a day with a broken package, the store is still followed."""
    break_model(models_dir / "penguins" / "2")
    if what:
        store.faults[what] = OSError(5, "Input/output error")
    worker.look()
    worker.keeper._failures = 5000
    for _ in range(3):
        clock.now += 100
        worker.look_again()
    store.faults.clear()
    store.activate("penguins", "2", default=False)
    shutil.copy2(models_dir / "penguins" / "1" / "model.joblib", models_dir / "penguins" / "2" / "model.joblib")
    assert answers(worker.look_again()) == "penguins/2"


def test_3_21_store_that_raises_is_not_logged_at_every_look(
    worker: Worker, store: Watched, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that fails for a minute is told a few times and not several times a second."""
    store.faults["marks"] = OSError(107, "Transport endpoint is not connected")
    for _ in range(150):
        clock.now += 0.4
        worker.look()
    assert 1 <= caplog.text.count("could not be followed") < 15


# Calls that come together


def test_3_20_calls_join(worker: Worker, store: Watched, models_dir: Path) -> None:
    """While one looks, another returns at once or waits for it where it wants to, and nothing is opened twice."""
    add_version(models_dir, "3")
    store.done.clear()
    store.gates["open"] = Event()
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(worker.keeper.refresh)
        assert store.reached.wait(WAIT_S)
        worker.keeper.refresh(wait=False)
        waiting = [pool.submit(worker.keeper.refresh) for _ in range(5)]
        assert not any(call.done() for call in waiting)
        store.gates["open"].set()
        for call in [first, *waiting]:
            call.result(WAIT_S)
    assert store.done["open"] == 1
    assert worker.look().held("penguins", "3")


def test_3_20_requests_do_not_wait_for_a_look(worker: Worker, store: Watched, models_dir: Path, clock: Clock) -> None:
    """While one request looks at the store, others are answered from the catalogue before."""
    add_version(models_dir, "3")
    store.gates["open"] = Event()
    with ThreadPoolExecutor(1) as pool:
        clock.now += 1
        first = pool.submit(worker.keeper.catalogue)
        assert store.reached.wait(WAIT_S)
        assert answers(worker.keeper.catalogue()) == "penguins/1"
        store.gates["open"].set()
        assert first.result(WAIT_S).held("penguins", "3")


# In the background


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch, store: Watched) -> Iterator[Callable[..., Event]]:
    """Have a keeper follow the store in the background, until the test ends."""
    monkeypatch.setattr(keeper_module, "LOOK_S", 0.01)
    told: list[Event] = []

    def start(keeper: Keeper, spare: Store | None = None) -> Event:
        told.append(Event())
        keeper.follow(spare, told[-1].set)
        return told[-1]

    yield start
    for gate in store.gates.values():
        gate.set()
    store.parked = True  # the thread never ends, but from now on it does nothing


def await_answers(keeper: Keeper, label: str) -> None:
    """Wait until this version answers."""
    deadline = time.monotonic() + WAIT_S
    while answers(keeper.catalogue()) != label:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_follower_tells_of_every_change(store: Watched, follow: Callable[..., Event]) -> None:
    """The background thread says that there is another catalogue, each time."""
    keeper = Keeper(store, Terms(), patience_s=WAIT_S)
    told = follow(keeper)
    assert answers(keeper.catalogue()) == "penguins/1"
    assert told.wait(WAIT_S)
    told.clear()
    store.activate("penguins", "2", default=False)
    assert told.wait(WAIT_S)
    assert answers(keeper.catalogue()) == "penguins/2"


def test_collector_passes_over_what_was_loaded(
    store: Watched, models_dir: Path, follow: Callable[..., Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was loaded is set aside from the garbage collector once, before it answers; an activation costs nothing."""
    settled: list[int] = []
    monkeypatch.setattr(keeper_module, "settle_objects", lambda: settled.append(1))
    keeper = Keeper(store, Terms(), patience_s=WAIT_S)
    told = follow(keeper)
    keeper.catalogue()
    assert len(settled) == 1
    store.activate("penguins", "2", default=False)
    await_answers(keeper, "penguins/2")
    assert len(settled) == 1
    add_version(models_dir, "3")
    while keeper.catalogue().held("penguins", "3") is None:
        assert told.wait(WAIT_S)
        told.clear()
    assert len(settled) == 2


def test_requests_wait_for_the_first_load(store: Watched, follow: Callable[..., Event]) -> None:
    """A request waits for the models as long as it may, then is told to come again; probes do not wait."""
    store.gates["open"] = Event()
    keeper = Keeper(store, Terms(), patience_s=0.05)
    follow(keeper)
    assert keeper.peek() is None
    with pytest.raises(NotReady, match="still being loaded"):
        keeper.catalogue()
    patient = Keeper(store, Terms(), patience_s=WAIT_S)
    follow(patient)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(patient.catalogue)
        assert store.reached.wait(WAIT_S)
        assert not asked.done()
        store.gates["open"].set()
        assert answers(asked.result(WAIT_S)) == "penguins/1"


def test_nothing_is_loaded_while_it_is_fetched(store: Watched, follow: Callable[..., Event]) -> None:
    """Until the first packages are there nothing is loaded, and requests are refused at once with the reason."""
    store.await_packages("models are fetched from s3://")
    keeper = Keeper(store, Terms(), patience_s=WAIT_S, fetched=True)
    follow(keeper)
    with pytest.raises(NotReady, match="models are fetched from s3://"):
        keeper.catalogue()
    store.await_packages("models are fetched from s3://: penguins/1")
    deadline = time.monotonic() + WAIT_S
    while keeper.awaited != "models are fetched from s3://: penguins/1":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert keeper.peek() is None and not store.done["marks"]
    store.await_packages(None)
    while keeper.peek() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert answers(keeper.catalogue()) == "penguins/1"


@pytest.mark.parametrize("fetched", [True, False])
def test_nothing_else_is_awaited(store: Watched, fetched: bool, follow: Callable[..., Event]) -> None:
    """Without a note, and where nothing is fetched, what is there is loaded."""
    if not fetched:
        store.await_packages("an older start fetched into this folder")
    keeper = Keeper(store, Terms(), patience_s=WAIT_S, fetched=fetched)
    follow(keeper)
    assert answers(keeper.catalogue()) == "penguins/1"


def test_follower_outlives_the_store(store: Watched, spare: Store, follow: Callable[..., Event]) -> None:
    """After whatever the store and the spare copies did to it, the background thread still follows."""
    keeper = Keeper(store, Terms(), patience_s=WAIT_S)
    follow(keeper, spare)
    keeper.catalogue()
    shutil.rmtree(spare.folder, ignore_errors=True)  # the copies may just be being made
    store.faults["marks"] = OSError(107, "Transport endpoint is not connected")
    looked = store.done["marks"]
    while store.done["marks"] < looked + 3:
        time.sleep(0.01)
    store.faults.clear()
    store.activate("penguins", "2", default=False)
    await_answers(keeper, "penguins/2")


def test_3_20_trial_does_not_hold_up_an_activation(
    store: Watched, spare: Store, models_dir: Path, follow: Callable[..., Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an arrival is tried, which may take minutes, a rollback takes effect."""
    trying, go_on = Event(), Event()

    def hang(*arguments: object) -> None:
        trying.set()
        go_on.wait(WAIT_S)

    monkeypatch.setattr(arrivals, "try_out", hang)
    keeper = Keeper(store, Terms(), patience_s=WAIT_S)
    follow(keeper, spare)
    assert answers(keeper.catalogue()) == "penguins/1"
    add_version(models_dir, "3")
    try:
        assert trying.wait(WAIT_S)
        store.activate("penguins", "2", default=False)
        looked = time.monotonic()
        while answers(keeper.catalogue()) != "penguins/2" and time.monotonic() < looked + 5:
            time.sleep(0.01)
        assert answers(keeper.catalogue()) == "penguins/2"
    finally:
        go_on.set()
    while keeper.catalogue().held("penguins", "3") is None and time.monotonic() < looked + WAIT_S:
        time.sleep(0.01)
    assert keeper.catalogue().held("penguins", "3")


# Spare copies


@pytest.fixture
def old_worker(store: Watched, spare: Store) -> Worker:
    """A worker that has loaded its models and kept spare copies."""
    worker = Worker(store, spare)
    worker.look()
    return worker


def test_spare_copies_are_of_what_answers(old_worker: Worker, store: Store, spare: Store) -> None:
    """There are copies of every version that was loaded, and the pointers say the same."""
    assert spare.versions() == store.versions()
    assert (spare.active("penguins"), spare.default()) == ("1", "penguins")
    assert spare.holds(store.manifest("penguins", "2"))


def test_3_18_spare_copies_are_for_this_user_alone(old_worker: Worker, spare: Store) -> None:
    """Whoever is not this user cannot come to a copy: folder and packages are 0700, files of packages 0600."""
    packages = [spare.folder / "penguins" / version for version in ("1", "2")]
    assert {folder.stat().st_mode & 0o777 for folder in [spare.folder, *packages]} == {0o700}
    assert {file.stat().st_mode & 0o777 for folder in packages for file in folder.iterdir()} == {0o600}


def test_3_18_everything_in_the_cache_is_for_this_user_alone(old_worker: Worker, spare: Store) -> None:
    """Every folder of the cache is 0700 and every file in it 0600, pointers and locks too."""
    paths = [spare.folder, *spare.folder.rglob("*")]
    modes = {str(path.relative_to(spare.folder)): path.stat().st_mode & 0o777 for path in paths}
    assert modes == {str(path.relative_to(spare.folder)): 0o700 if path.is_dir() else 0o600 for path in paths}


def test_spare_copies_follow(old_worker: Worker, store: Store, spare: Store, models_dir: Path) -> None:
    """Copies of what is no longer served are removed, and pointers follow."""
    add_version(models_dir, "3")
    store.activate("penguins", "3", default=False)
    old_worker.look()
    shutil.rmtree(models_dir / "penguins" / "1")
    old_worker.look()
    assert spare.versions() == {"penguins": ["2", "3"]}
    assert spare.active("penguins") == "3"


def test_spare_copy_follows_a_version_packed_anew(old_worker: Worker, spare: Store, models_dir: Path) -> None:
    """A version that was packed anew is copied anew."""
    change_note(models_dir / "penguins" / "1")
    old_worker.look()
    assert spare.manifest("penguins", "1").created.startswith("2027")


def damage_folder(models_dir: Path) -> None:
    models_dir.rename(models_dir.with_name("away"))


def damage_models(models_dir: Path) -> None:
    for version in ("1", "2"):
        break_model(models_dir / "penguins" / version)


def damage_manifests(models_dir: Path) -> None:
    for version in ("1", "2"):
        truncate_manifest(models_dir / "penguins" / version)


def damage_pointers(models_dir: Path) -> None:
    (models_dir / "penguins" / "active").write_bytes(b"\xff")
    (models_dir / "default").write_bytes(b"\xff")


def empty_folder(models_dir: Path) -> None:
    shutil.copytree(models_dir, models_dir.with_name("away"))
    shutil.rmtree(models_dir / "penguins")
    (models_dir / "default").unlink()


@pytest.mark.parametrize("serve", ["all", "active"])
@pytest.mark.parametrize("damage", [damage_folder, damage_models, damage_manifests, damage_pointers, empty_folder])
def test_3_21_new_worker_comes_up_on_the_spare_copies(
    damage: Callable[[Path], None], serve: str, store: Store, spare: Store, models_dir: Path
) -> None:
    """A worker that starts while the store is out of order serves what the one before served, and says so."""
    old = Worker(store, spare, serve=serve).look()
    shutil.copytree(models_dir, models_dir.with_name("kept"))
    damage(models_dir)
    new_worker = Worker(store, spare, serve=serve)
    for catalogue in (new_worker.look(), new_worker.look_again(), Worker(store, spare, serve=serve).look()):
        assert answers(catalogue) == "penguins/1" and catalogue.ready()
        assert catalogue.active == old.active and catalogue.refusals() == {}
        assert catalogue.entries.keys() == old.entries.keys() and catalogue.stale
    assert spare.versions()["penguins"] == list(old.entries["penguins"])
    before = new_worker.look().predictor()
    shutil.rmtree(models_dir, ignore_errors=True)
    shutil.move(models_dir.with_name("kept"), models_dir)
    catalogue = new_worker.look()
    assert catalogue.predictor() is before and troubles(catalogue) == ([], [])


def test_3_21_new_worker_answers_with_the_version_before_a_broken_one(
    old_worker: Worker, store: Store, spare: Store, models_dir: Path
) -> None:
    """Where the active version never worked, a worker that starts answers with the one that did, as the others do."""
    break_model(add_version(models_dir, "3"))
    store.activate("penguins", "3", default=False)
    old = old_worker.look()
    new = Worker(store, spare).look()
    assert answers(new) == answers(old) == "penguins/1"
    assert new.ready() and troubles(new) == troubles(old) == ([], ["penguins/3"])


@pytest.mark.parametrize("what", ["marks", "versions", "active", "manifest", "open", "verify"])
def test_3_21_new_worker_comes_up_where_the_store_raises(
    what: str, old_worker: Worker, store: Watched, spare: Store
) -> None:
    """A worker that starts while the store raises, as a network share does, serves the spare copies and keeps them."""
    store.faults[what] = OSError(107, "Transport endpoint is not connected")
    catalogue = Worker(store, spare).look()
    assert spare.versions() == {"penguins": ["1", "2"]}
    assert answers(catalogue) == "penguins/1" and catalogue.ready()


@pytest.mark.parametrize("what", ["versions", "active", "manifest", "open", "default"])
def test_3_21_store_that_vanishes_in_the_middle_of_a_look(
    what: str, old_worker: Worker, store: Watched, spare: Store, models_dir: Path
) -> None:
    """Whenever during a look the folder vanishes, old and new workers go on with model, version and default."""
    change_note(models_dir / "penguins" / "2")
    store.vanishes_at = what
    for worker in (old_worker, Worker(store, spare)):
        for catalogue in (worker.look(), worker.look(), worker.look_again()):
            assert answers(catalogue) == "penguins/1" and catalogue.ready()
        assert catalogue.stale
        models_dir.with_name("away").rename(models_dir)
        store.vanishes_at = ""
        assert answers(worker.look_again()) == "penguins/1"
        store.vanishes_at = what
    assert spare.versions() == {"penguins": ["1", "2"]}


def test_3_21_damaged_spare_copy_is_not_loaded(
    store: Store, spare: Store, old_worker: Worker, models_dir: Path
) -> None:
    """A copy is verified like any package: a damaged one is not served, and the other one is."""
    damage_models(models_dir)
    flip_bit(spare.folder / "penguins" / "1")
    catalogue = Worker(store, spare).look()
    assert troubles(catalogue) == (["penguins/2"], ["penguins/1"])


def test_3_16_spare_copies_do_not_go_round_the_policy(
    store: Store, spare: Store, old_worker: Worker, models_dir: Path
) -> None:
    """What the operator no longer trusts is not loaded from a copy either; a compiled form is no pickle."""
    assert Worker(store, spare, policy=Policy(pickle=False)).look().ready()
    keep_originals(models_dir)
    keep_originals(spare.folder)
    assert not Worker(store, spare, policy=Policy(pickle=False)).look().ready()


def spare_folder_gone(spare: Store) -> None:
    shutil.rmtree(spare.folder)


def spare_folder_a_file(spare: Store) -> None:
    shutil.rmtree(spare.folder)
    spare.folder.touch()


@pytest.mark.parametrize("damage", [spare_folder_gone, spare_folder_a_file])
def test_spare_copies_that_cannot_be_kept_harm_nothing(
    damage: Callable[[Store], None], old_worker: Worker, store: Store, spare: Store, models_dir: Path
) -> None:
    """Where the folder of the copies is gone, as after a cleaning of /tmp, the store is followed all the same."""
    damage(spare)
    add_version(models_dir, "3")
    store.activate("penguins", "3", default=False)
    for worker in (old_worker, Worker(store, spare)):
        catalogue = worker.look()
        assert answers(catalogue) == "penguins/3" and troubles(catalogue) == ([], [])


def test_full_disk_for_spare_copies_harms_nothing(
    store: Store, spare: Store, models_dir: Path, trials: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no copy can be written, everything is served, and what arrives too."""

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spare, "adopt", full)
    worker = Worker(store, spare)
    assert answers(worker.look()) == "penguins/1"
    add_version(models_dir, "3")
    assert worker.look().held("penguins", "3") and trials == ["penguins/3"]


def test_3_20_workers_share_a_trial(
    store: Watched, spare: Store, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several workers that see the same arrival one tries it, and the others wait for it."""
    tried: list[str] = []
    trying, go_on = Event(), Event()

    def try_slowly(store: Store, name: str, version: str, *terms: object) -> None:
        tried.append(version)
        trying.set()
        assert go_on.wait(WAIT_S)

    monkeypatch.setattr(arrivals, "try_out", try_slowly)
    workers = [Worker(store, spare) for _ in range(3)]
    for worker in workers:
        worker.look()
    add_version(models_dir, "3")
    with ThreadPoolExecutor(3) as pool:
        looks = [pool.submit(worker.look) for worker in workers]
        assert trying.wait(WAIT_S)
        go_on.set()
        assert all(look.result(WAIT_S).held("penguins", "3") for look in looks)
    assert tried == ["3"]


def test_3_19_new_worker_opens_nothing_that_was_not_tried(
    old_worker: Worker, store: Watched, spare: Store, models_dir: Path, trials: list[str]
) -> None:
    """A worker that starts while the service runs opens in itself only what has answered: the rest is tried first."""
    add_version(models_dir, "3")
    catalogue = Worker(store, spare).look()
    assert trials == ["penguins/3"]
    assert catalogue.held("penguins", "3")


@pytest.mark.slow
def test_3_19_new_worker_is_not_ended_by_what_the_old_one_refused(
    old_worker: Worker, store: Watched, spare: Store, models_dir: Path
) -> None:
    """A package that ended its trial does not end a worker that starts later either."""
    add_misfit(models_dir, "raise SystemExit", "3")
    assert troubles(old_worker.look()) == ([], ["penguins/3"])
    catalogue = Worker(store, spare).look()
    assert answers(catalogue) == "penguins/1" and troubles(catalogue) == ([], ["penguins/3"])
