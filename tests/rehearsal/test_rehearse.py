"""Rehearsals: the shipped tree passes on every platform, and what would fail there fails here and is named."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import joblib
import pandas
import pytest

from service.platforms.facts import chosen, platforms
from service.platforms.rehearsal.rehearse import rehearse
from service.platforms.rehearsal.scenes import NOT_UNDER_UWSGI, SCENES
from service.platforms.rehearsal.stage import not_as_there
from service.platforms.report import Report, Scene
from tests.checkout import commit

LINE = "gunicorn -c gunicorn.conf.py service.wsgi:app"
HEAVY = '''"""A model whose loading can be made to last, or to take memory."""

import time

from sklearn.base import BaseEstimator, RegressorMixin

LOAD_S, BALLAST_MIB = 0, 0


class Heavy(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        self.fitted_ = True
        self.n_features_in_ = X.shape[1]
        self.feature_names_in_ = X.columns.to_numpy(dtype=object)
        return self

    def predict(self, X):
        return X.sum(axis=1).to_numpy(dtype=float)

    def __setstate__(self, state):
        time.sleep(LOAD_S)
        self.ballast = b"x" * (BALLAST_MIB << 20)
        super().__setstate__(state)
'''


def play(name: str, tree: Path, cache: Path) -> Report:
    """Rehearse on one platform."""
    scenes: list[Scene] = []
    report = rehearse(chosen(name)[0], tree, cache, scenes.append)
    assert scenes == report.scenes
    return report


def failure(report: Report) -> Scene:
    """The one scene that failed, which is the last."""
    assert [scene.passed for scene in report.scenes] == [True] * (len(report.scenes) - 1) + [False], report.scenes
    assert not report.passed
    return report.scenes[-1]


@pytest.mark.parametrize("name", platforms())
def test_shipped_tree_passes(name: str, tree: Path, cache: Path) -> None:
    """The tree as it is passes every scene on every platform, and nothing is left out but what uWSGI's front hides."""
    report = play(name, tree, cache)
    assert report.passed, report.scenes[-1]
    hidden = NOT_UNDER_UWSGI if platforms()[name].start.front == "uwsgi" else set()
    assert {scene.name for scene in report.scenes} == {
        "upload",
        "install",
        "build",
        "models",
        "start",
        *SCENES,
    } - hidden
    phases = [report.figures[phase] for phase in ("accepts_s", "live_s", "ready_s", "first_answer_s")]
    assert phases == sorted(phases) and phases[0] > 0
    told = set(report.remarks) - set(not_as_there(platforms()[name]))
    assert {remark.partition(":")[0] for remark in told} == hidden, report.remarks


def test_fixed_port_is_found(tree: Path, cache: Path) -> None:
    """A service that listens elsewhere than the platform asks is told where it listens."""
    with (tree / "gunicorn.conf.py").open("a") as file:
        file.write('\nbind = "127.0.0.1:5999"\n')
    commit(tree)
    scene = failure(play("heroku", tree, cache))
    assert scene.name == "listens" and "127.0.0.1:5999" in scene.said


def test_missing_gunicorn_is_found(tree: Path, cache: Path) -> None:
    """Without gunicorn in requirements.txt the start line cannot run, and that is said."""
    (tree / "requirements.txt").write_text("click==8.3.0\n")
    commit(tree)
    scene = failure(play("azure", tree, cache))
    assert scene.name == "listens" and "gunicorn is not in requirements.txt" in scene.said


def test_conflicting_requirements_are_found(tree: Path, cache: Path) -> None:
    """What pip cannot install is said in pip's words."""
    (tree / "requirements.txt").write_text("click==8.3.0\nclick==8.1.0\n")
    commit(tree)
    scene = failure(play("render", tree, cache))
    assert scene.name == "install" and "click" in scene.said


def add_heavy(tree: Path, *, load_s: int = 0, ballast_mib: int = 0) -> None:
    """Make the tree's one model heavy: pack a light one, then change the module that its pickle names."""
    module = tree / "heavy.py"
    module.write_text(HEAVY)
    sys.path.insert(0, str(tree))
    try:
        heavy = importlib.import_module("heavy")
        rows = pandas.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [0.5, 1.5, 2.5, 3.5]})
        joblib.dump(heavy.Heavy().fit(rows, rows.a), tree / "heavy.joblib")
        rows.to_csv(tree / "rows.csv", index=False)
    finally:
        sys.path.remove(str(tree))
        sys.modules.pop("heavy", None)
    shutil.rmtree(tree / "models")
    (tree / "models").mkdir()
    command = [sys.executable, "-m", "flask", "pack", "heavy.joblib", "--sample", "rows.csv", "--name", "heavy"]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    changed = HEAVY.replace("LOAD_S, BALLAST_MIB = 0, 0", f"LOAD_S, BALLAST_MIB = {load_s}, {ballast_mib}")
    module.write_text(changed)
    commit(tree)


def test_start_that_compiles_is_told(tree: Path, cache: Path) -> None:
    """Without a step of the build the rehearsal passes, and says how many modules each start compiles."""
    (tree / "bin" / "post_compile").unlink()
    commit(tree)
    [said] = [scene.said for scene in play("heroku", tree, cache).scenes if scene.name == "bytecode"]
    assert re.fullmatch(r"each start compiles \d{2,} modules: bin/post_compile does not run `python .*`", said)


def test_slow_load_is_found(tree: Path, cache: Path) -> None:
    """A model that takes 70 s to load is not ready within Heroku's 60 s."""
    add_heavy(tree, load_s=70)
    scene = failure(play("heroku", tree, cache))
    assert scene.name == "ready" and "start limit of 60 s" in scene.said


def test_memory_hog_is_found(tree: Path, cache: Path) -> None:
    """A model that takes more than the dyno has is found, with the dyno that would hold it."""
    add_heavy(tree, ballast_mib=700)
    scene = failure(play("heroku", tree, cache))
    assert scene.name == "load and memory" and "512 are there" in scene.said and "performance-m" in scene.said


def test_swallowed_sigterm_is_found(tree: Path, cache: Path) -> None:
    """Without exec a shell stays process 1 on Azure: the service never hears SIGTERM."""
    (tree / "startup.txt").write_text(f"{LINE}\n")
    commit(tree)
    scene = failure(play("azure", tree, cache))
    assert scene.name == "stop in flight" and "still run" in scene.said


def break_model(tree: Path) -> None:
    (tree / "models" / "penguins" / "1" / "model.joblib").write_bytes(b"x")


def break_health(tree: Path) -> None:
    file = tree / "service" / "web" / "probes.py"
    file.write_text(file.read_text().replace('@bp.get("/healthz")\n', ""))


def break_nginx(tree: Path) -> None:
    (tree / ".platform" / "nginx" / "conf.d" / "anyport.conf").write_text("client_max_body_size 1m;\n")


def break_nginx_syntax(tree: Path) -> None:
    (tree / ".platform" / "nginx" / "conf.d" / "anyport.conf").write_text("client_max_body;\n")


def write_log_file(tree: Path) -> None:
    file = tree / "service" / "wsgi.py"
    file.write_text(file.read_text() + '\nopen("app.log", "w").close()\n')


def believe_too_much(tree: Path) -> None:
    file = tree / "render.yaml"
    file.write_text(file.read_text().replace('value: "1"', 'value: "2"'))


def use_stock_worker(tree: Path) -> None:
    options = "--bind 0.0.0.0:$PORT --worker-class gthread --threads 4"
    (tree / "Procfile").write_text(f"web: gunicorn -c /dev/null {options} service.wsgi:app\n")


def choose_no_size(tree: Path) -> None:
    file = tree / "render.yaml"
    file.write_text(file.read_text().replace("plan: starter", "plan: huge"))


def configure(line: str) -> Callable[[Path], None]:
    def plant(tree: Path) -> None:
        with (tree / "gunicorn.conf.py").open("a") as file:
            file.write(f"\n{line}\n")

    return plant


def break_hook(tree: Path) -> None:
    (tree / "bin" / "post_compile").write_text("#!/bin/sh\necho no space left >&2\nexit 3\n")


def lose_dates(tree: Path) -> None:
    file, step = tree / "render.yaml", platforms()["render"].build.step
    by_dates = "python -m compileall -qf service && find service -name '*.py' -exec touch -d 2020-01-01 {} +"
    assert step in file.read_text()
    file.write_text(file.read_text().replace(step, f"{step} && {by_dates}"))


def leave_a_quote_open(tree: Path) -> None:
    (tree / "Procfile").write_text(f'web: {LINE} --name "x\n')


def end_without_draining(tree: Path) -> None:
    file = tree / "service" / "worker.py"
    begins = "    def _drain(self) -> None:\n"
    assert begins in file.read_text()
    file.write_text(file.read_text().replace(begins, f"{begins}        os._exit(0)\n"))


def allow_one_second(tree: Path) -> None:
    file = tree / "render.yaml"
    file.write_text(file.read_text().replace("maxShutdownDelaySeconds: 30", "maxShutdownDelaySeconds: 1"))


@pytest.mark.parametrize(
    ("name", "plant", "scene", "says"),
    [
        ("render", choose_no_size, "upload", "'huge'"),
        ("beanstalk", configure('raise RuntimeError("boom")'), "listens", "boom"),
        ("beanstalk", configure('bind = "127.0.0.1:9999"'), "listens", "127.0.0.1:9999"),
        ("beanstalk", leave_a_quote_open, "start", "No closing quotation"),
        ("heroku", configure('bind = "0.0.0.0:5000"'), "listens", "0.0.0.0:5000"),
        ("heroku", configure('bind = f"127.0.0.1:{settings.port}"'), "listens", "router cannot reach it"),
        ("render", allow_one_second, "stop in flight", "still run 1 s after SIGTERM"),
        ("heroku", use_stock_worker, "body limit", "gets no answer"),
        ("heroku", break_hook, "build", "status 3: no space left"),
        ("render", lose_dates, "bytecode", "the build had compiled, such as service/__init__.py"),
        ("heroku", end_without_draining, "stop in flight", "were lost"),
        ("render", break_model, "ready", "checksum"),
        ("beanstalk", break_health, "probes", "/healthz"),
        ("beanstalk", break_nginx, "body limit", "4194304 bytes"),
        ("beanstalk", break_nginx_syntax, "start", "client_max_body"),
        ("appengine", write_log_file, "listens", "Read-only file system"),
        ("render", believe_too_much, "client address", "198.51.100.66"),
    ],
)
def test_planted_fault_is_named(
    name: str, plant: Callable[[Path], None], scene: str, says: str, tree: Path, cache: Path
) -> None:
    """Each fault fails the scene that shows it, in words that name it."""
    plant(tree)
    commit(tree)
    failed = failure(play(name, tree, cache))
    assert failed.name == scene and says in failed.said, failed
