"""What is served and what is not: one broken package never stands in the way of the others."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.catalogue import Catalogue, open_package
from service.errors import (
    ChecksumMismatch,
    GoldenMismatch,
    InvalidManifest,
    NotReady,
    PackageError,
    UnknownModel,
    UnknownVersion,
    UntrustedModel,
)
from service.keeper import Keeper, Terms
from service.predictor import Predictor
from service.runtimes import Policy
from service.store import Store
from tests.originals import keep_originals


def load(store: Store, **settings: Any) -> Catalogue:
    """Load a catalogue as the app does."""
    return Keeper(store, Terms(**settings)).catalogue()


def add_version(models_dir: Path, version: str, name: str = "penguins") -> Path:
    """Copy the demo package to another version or name."""
    package = Path(shutil.copytree(models_dir / "penguins" / "1", models_dir / name / version))
    edit(package, name=name, version=version)
    return package


def edit(package: Path, **changes: Any) -> None:
    """Change fields of a package's manifest."""
    document = json.loads((package / "manifest.json").read_text()) | changes
    (package / "manifest.json").write_text(json.dumps(document))


def break_model(package: Path) -> None:
    """Cut the model file of a package off."""
    os.truncate(package / "model.joblib", 100)


@pytest.fixture
def models_dir(models_dir: Path) -> Path:
    """A models folder with two models, of which penguins is the default."""
    add_version(models_dir, "1", "birds")
    return models_dir


# What is loaded


def test_every_version_of_every_model_is_loaded(store: Store, models_dir: Path) -> None:
    """All versions answer by name, and the active one without a version."""
    add_version(models_dir, "2")
    catalogue = load(store)
    assert catalogue.predictor("penguins", "1").manifest.label == "penguins/1"
    assert catalogue.predictor("penguins", "2").manifest.label == "penguins/2"
    assert catalogue.predictor("penguins").manifest.label == "penguins/2"
    assert catalogue.predictor("birds").manifest.label == "birds/1"
    assert catalogue.refusals() == {}
    assert catalogue.ready()


def test_serve_active_loads_only_active_versions(store: Store, models_dir: Path) -> None:
    """With `serve` at `active`, another version is not opened and unknown here."""
    add_version(models_dir, "2")
    store.activate("penguins", "1", default=False)
    catalogue = load(store, serve="active")
    assert catalogue.predictor("penguins").manifest.label == "penguins/1"
    with pytest.raises(UnknownVersion, match="'2' here"):
        catalogue.predictor("penguins", "2")
    assert catalogue.ready()


def test_serve_active_does_not_look_at_other_versions(store: Store, models_dir: Path) -> None:
    """With `serve` at `active`, a broken version that is not active is not even a refusal."""
    break_model(add_version(models_dir, "2"))
    store.activate("penguins", "1", default=False)
    assert load(store, serve="active").refusals() == {}


def test_no_models_is_not_ready(tmp_path: Path) -> None:
    """Without a model nothing can be answered, so the service is not ready."""
    catalogue = load(Store(tmp_path / "absent"))
    assert not catalogue.ready()
    assert catalogue.refusals() == {}
    with pytest.raises(NotReady, match="holds no package"):
        catalogue.predictor()


# What is refused


def test_2_12_broken_package_is_a_refusal_and_others_answer(store: Store, models_dir: Path) -> None:
    """A package that cannot be opened stands there with its reason, and every other package answers."""
    break_model(models_dir / "birds" / "1")
    catalogue = load(store)
    assert list(catalogue.refusals()) == ["birds/1"]
    assert isinstance(catalogue.refusals()["birds/1"], ChecksumMismatch)
    assert catalogue.predictor("penguins").manifest.label == "penguins/1"


def test_refused_package_is_not_ready_and_says_where_the_reason_is(store: Store, models_dir: Path) -> None:
    """A request for a refused package learns its code and where to read more."""
    break_model(models_dir / "birds" / "1")
    with pytest.raises(NotReady, match=r"birds/1 is not being served \(checksum-mismatch\); GET /readyz"):
        load(store).predictor("birds")


def test_broken_active_version_is_not_ready(store: Store, models_dir: Path) -> None:
    """Where an active version is refused the service is not ready, though an older one answers by its number."""
    break_model(add_version(models_dir, "2"))
    catalogue = load(store)
    assert not catalogue.ready()
    assert catalogue.predictor("penguins", "1").manifest.label == "penguins/1"
    with pytest.raises(NotReady):
        catalogue.predictor("penguins")


def test_broken_version_that_is_not_active_leaves_the_service_ready(store: Store, models_dir: Path) -> None:
    """Where only a version that nobody gets by default is refused, the service is ready."""
    break_model(add_version(models_dir, "2"))
    store.activate("penguins", "1", default=False)
    catalogue = load(store)
    assert catalogue.ready()
    assert list(catalogue.refusals()) == ["penguins/2"]


def test_every_active_version_must_work(store: Store, models_dir: Path) -> None:
    """One model whose active version is refused keeps the service from being ready, though others work."""
    edit(models_dir / "birds" / "1", files=[])
    assert not load(store).ready()


def test_3_16_policy_that_trusts_no_pickle_refuses_joblib_packages(store: Store, models_dir: Path) -> None:
    """Under a policy that allows no pickles, every package of a joblib file alone is a refusal."""
    keep_originals(models_dir)
    refusals = load(store, policy=Policy(pickle=False)).refusals()
    assert {type(error) for error in refusals.values()} == {UntrustedModel}


def test_unreadable_active_pointer_refuses_only_its_model(store: Store, models_dir: Path) -> None:
    """A pointer that cannot be read refuses the versions of its model, and the others answer."""
    (models_dir / "penguins" / "active").write_bytes(b"\xff")
    catalogue = load(store)
    assert list(catalogue.refusals()) == ["penguins/1"]
    assert catalogue.predictor("birds").manifest.label == "birds/1"
    assert not catalogue.ready()


def test_unreadable_default_pointer_leaves_models_answering_by_name(store: Store, models_dir: Path) -> None:
    """A default pointer that cannot be read leaves no default, and every model answers by its name."""
    (models_dir / "default").write_bytes(b"\xff")
    catalogue = load(store)
    assert catalogue.predictor("penguins").manifest.label == "penguins/1"
    with pytest.raises(UnknownModel, match="models/default must be a file of one line"):
        catalogue.predictor()


def test_golden_mismatch_is_a_refusal(store: Store, models_dir: Path) -> None:
    """A package that opens but answers otherwise than when packed is refused."""
    package = models_dir / "penguins" / "1"
    golden = json.loads((package / "manifest.json").read_text())["golden"]
    edit(package, golden=golden | {"predictions": golden["predictions"][::-1]})
    assert isinstance(open_package(store, "penguins", "1", Policy()), GoldenMismatch)


@pytest.mark.parametrize("agree", [True, False])
@pytest.mark.parametrize("skew", ["refuse", "warn"])
def test_3_19_skew_is_excused_by_golden_rows_alone(store: Store, models_dir: Path, skew: Any, agree: bool) -> None:
    """A model of another library version is served only where the operator says so and its golden rows agree."""
    package = keep_originals(models_dir) / "penguins" / "1"
    golden = json.loads((package / "manifest.json").read_text())["golden"]
    answers = golden["predictions"] if agree else golden["predictions"][::-1]
    edit(package, libraries={"scikit-learn": "0.1"}, golden=golden | {"predictions": answers})
    entry = open_package(store, "penguins", "1", Policy(skew=skew))
    assert isinstance(entry, Predictor) == (skew == "warn" and agree)


def test_open_package_gives_a_predictor(store: Store) -> None:
    """A package in order becomes a predictor that has replayed its golden rows."""
    assert isinstance(open_package(store, "penguins", "1", Policy()), Predictor)


@pytest.mark.parametrize(("name", "version"), [("nope", "1"), ("penguins", "9"), ("../models/penguins", "1")])
def test_open_package_returns_the_error(store: Store, name: str, version: str) -> None:
    """What cannot be opened is returned as its error and not raised."""
    assert isinstance(open_package(store, name, version, Policy()), InvalidManifest)


def test_2_12_unforeseen_error_is_a_refusal_without_its_text(
    store: Store, models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Even an error that nobody foresaw only refuses its package, and its text goes to the log alone."""
    package = models_dir / "penguins" / "1"
    artifact = json.loads((package / "manifest.json").read_text())["artifacts"][0]
    edit(package, artifacts=[artifact | {"layout": "tensors"}])
    entry = open_package(store, "penguins", "1", Policy())
    assert isinstance(entry, PackageError)
    assert "KeyError" not in entry.detail
    assert "penguins/1 is not served" in caplog.text


# Which one answers


def test_default_model_answers_where_none_is_named(store: Store) -> None:
    """A request without a name gets the default model's active version."""
    store.activate("birds", None, default=True)
    assert load(store).predictor().manifest.label == "birds/1"


def test_sole_model_is_the_default(store: Store, models_dir: Path) -> None:
    """A sole model answers a request without a name."""
    shutil.rmtree(models_dir / "birds")
    (models_dir / "default").unlink()
    assert load(store).predictor().manifest.label == "penguins/1"


@pytest.mark.parametrize("pointer", [None, "gone"])
def test_no_default_is_an_unknown_model(store: Store, models_dir: Path, pointer: str | None) -> None:
    """Where several models stand and none is the default, a request must name one; the message lists them."""
    (models_dir / "default").unlink()
    if pointer:
        (models_dir / "default").write_text(pointer)
    with pytest.raises(UnknownModel, match=r"there are: birds, penguins.*flask activate NAME --default"):
        load(store).predictor()


@pytest.mark.parametrize("name", ["nope", "", "../penguins", "x" * 500])
def test_unknown_model_is_refused(store: Store, name: str) -> None:
    """A name that is not served is an unknown model, told in a short message."""
    with pytest.raises(UnknownModel) as caught:
        load(store).predictor(name)
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize("version", ["9", "", "../1", "1/", "x" * 500])
def test_unknown_version_is_refused(store: Store, version: str) -> None:
    """A version that is not served is an unknown version, and an empty one is not the active one."""
    with pytest.raises(UnknownVersion) as caught:
        load(store).predictor("penguins", version)
    assert len(caught.value.detail) < 200
