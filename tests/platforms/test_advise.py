"""Advice: what fits where follows the service's own rule, and the command says it to people and to programs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskCliRunner

from service.capacity import MEMORY_SHARE, fitting_workers
from service.errors import InvalidManifest, UnknownModel
from service.platforms.advise import Load, fits, measure_load, rows_a_second, smallest
from service.platforms.facts import platforms
from service.store import MANIFEST, Store

PROCESSORS = 1000
"""More than any memory below holds workers."""
GUNICORN = sorted(name for name, platform in platforms().items() if platform.start.rule != "wsgi-file")


def add(models: Path, name: str, version: str, **cost: Any) -> None:
    """Copy the demo package to another name and version, with another measured cost."""
    package = Path(shutil.copytree(models / "penguins" / "1", models / name / version))
    document = json.loads((package / MANIFEST).read_text())
    document |= {"name": name, "version": version, "cost": document["cost"] | cost}
    (package / MANIFEST).write_text(json.dumps(document))


@pytest.fixture
def models(models_dir: Path) -> Path:
    """A heron that takes 100 MiB, its first version too, beside the demo model."""
    for version in ("1", "2"):
        add(models_dir, "heron", version, model_mib=100.0, process_mib=150.0, microseconds={"1": 250.0})
    return models_dir


@pytest.mark.parametrize(
    ("names", "serve", "labels", "worker_mib"),
    [
        (["heron"], "all", ["heron/2"], 250),
        (["heron"], "active", ["heron/2"], 150),
        (["heron", "heron"], "active", ["heron/2"], 150),
        ([], "active", ["heron/2", "penguins/1"], None),
    ],
)
def test_load_is_what_a_worker_opens(
    models: Path, names: list[str], serve: Any, labels: list[str], worker_mib: float | None
) -> None:
    """A worker opens the versions that ANYPORT_SERVE says, of the models that are named or of all, each once."""
    load = measure_load(Store(models), names, serve)
    assert [manifest.label for manifest in load.answering] == labels
    assert load.worker_mib == worker_mib or (worker_mib is None and load.worker_mib > 150)


def test_model_that_is_not_there_is_an_error(models: Path, tmp_path: Path) -> None:
    """A name that no package has is refused, and so is a folder without a package."""
    with pytest.raises(UnknownModel, match="nobody"):
        measure_load(Store(models), ["nobody"], "all")
    with pytest.raises(UnknownModel, match="flask pack"):
        measure_load(Store(tmp_path / "empty"), [], "all")


def test_manifest_that_cannot_be_read_is_an_error(models: Path) -> None:
    """A broken manifest is named, for what it needs is not known."""
    (models / "heron" / "1" / MANIFEST).write_text("{")
    with pytest.raises(InvalidManifest, match="heron/1"):
        measure_load(Store(models), [], "all")


@pytest.mark.parametrize(("microseconds", "rate"), [({"1": 250.0}, 4000.0), ({"8": 250.0}, None), ({}, None)])
def test_rate_is_of_single_rows(models: Path, microseconds: dict[str, float], rate: float | None) -> None:
    """How many rows a second a model computes follows from the measured time of one row, and from nothing else."""
    add(models, "owl", "1", microseconds=microseconds)
    assert rows_a_second(Store(models).manifest("owl", "1")) == rate


@pytest.mark.parametrize("each_mib", [47.0, 300.0, 1500.0])
@pytest.mark.parametrize("name", GUNICORN)
def test_workers_are_those_that_gunicorn_starts(name: str, each_mib: float) -> None:
    """Where a size holds a worker, there are as many as gunicorn.conf.py starts if processors do not limit it."""
    for fit in fits(platforms()[name], Load((), each_mib), threads=7):
        there_mib = fit.size.memory_mib
        assert bool(fit.workers) == (each_mib <= there_mib * MEMORY_SHARE)
        assert max(fit.workers, 1) == fitting_workers(PROCESSORS, there_mib, each_mib)
        assert fit.threads == 7


def test_platform_that_starts_the_processes_has_one_worker_in_each() -> None:
    """Under uWSGI, which has no threads for us, a process is one worker with one thread."""
    (fit,) = fits(platforms()["pythonanywhere"], Load((), 100.0), threads=4)
    assert (fit.workers, fit.threads) == (1, 1)


@pytest.mark.parametrize(("each_mib", "name"), [(100.0, "eco"), (500.0, "standard-2x"), (20_000.0, None)])
def test_smallest_is_the_first_that_holds_a_worker(each_mib: float, name: str | None) -> None:
    """The smallest size is the first that holds one worker; there may be none."""
    found = smallest(fits(platforms()["heroku"], Load((), each_mib), threads=4))
    assert (found and found.size.name) == name


def test_command_prints_tables(runner: FlaskCliRunner, models: Path) -> None:
    """People read what each model computes, what that is not, and every size of every platform."""
    result = runner.invoke(args=["advise", "heron"])
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["heron", "2", "compiled", "100", "MiB", "4,000"] in lines
    assert ["heroku", "eco", "512", "MiB", "1", "x", "4", "threads", "smallest", "that", "fits"] in lines
    assert [
        "azure",
        "F1",
        "1024",
        "MiB",
        "(unconfirmed)",
        "3",
        "x",
        "4",
        "threads",
        "smallest",
        "that",
        "fits",
    ] in lines
    assert "HTTP and JSON take time of their own" in result.stdout
    sizes = sum(len(platform.sizes.offered) for platform in platforms().values())
    assert sum(line[:1] == [name] for line in lines for name in platforms()) == sizes


def test_command_prints_json(runner: FlaskCliRunner, models: Path) -> None:
    """Programs read the same."""
    result = runner.invoke(args=["advise", "heron", "--json"])
    document = json.loads(result.stdout)
    heron = {"name": "heron", "version": "2", "runtime": "compiled", "model_mib": 100.0, "rows_a_second": 4000}
    assert (result.exit_code, document["models"], document["worker_mib"]) == (0, [heron], 250.0)
    heroku = next(platform for platform in document["platforms"] if platform["name"] == "heroku")
    assert (heroku["smallest"], heroku["usual"], heroku["confirmed"]) == ("eco", "basic", True)
    assert heroku["sizes"][0] == {"name": "eco", "memory_mib": 512, "fits": True, "workers": 1, "threads": 4}


def test_command_ends_with_1_where_nothing_holds_the_models(runner: FlaskCliRunner, models: Path) -> None:
    """Models that fit nowhere are an exit status of 1, and every size is too small."""
    add(models, "whale", "1", model_mib=30_000.0, process_mib=30_050.0)
    result = runner.invoke(args=["advise", "--json"])
    assert result.exit_code == 1
    assert {platform["smallest"] for platform in json.loads(result.stdout)["platforms"]} == {None}
    assert "too small" in runner.invoke(args=["advise"]).stdout


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
def test_command_says_what_is_wrong(runner: FlaskCliRunner, models: Path, flags: tuple[str, ...]) -> None:
    """A name that no package has is one line and an exit status of 1."""
    result = runner.invoke(args=["advise", "nobody", *flags])
    assert result.exit_code == 1
    assert "no package is called 'nobody'" in result.output
