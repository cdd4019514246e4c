"""The house stands as README.md draws it: one-way imports, light workers, and files that the platforms can read."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import PENGUIN, ROOT

SERVICE = ROOT / "service"
ORDER = [
    {"errors", "logs", "kernel", "framing"},
    {"signature"},
    {"manifest", "table"},
    {"runtimes", "protocols", "capacity", "bucket"},
    {"store", "batching"},
    {"predictor"},
    {"trial", "catalogue", "compiler"},
    {"arrivals"},
    {"survey"},
    {"keeper"},
    {"web", "packing", "platforms", "fetch"},
    {"settings", "board", "heads", "cheap", "gunicorn_check"},
    {"connection", "answer", "scoring", "fetcher"},
    {"commands"},
    {"command_line"},
    {"__init__"},
    {"wsgi", "worker"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
FLASK_ROOMS = {"web", "commands", "command_line", "__init__", "wsgi"}
HEAVY = {"sklearn", "scipy", "pandas", "joblib", "skops", "onnxruntime", "pyarrow", "mlflow", "yaml", "fsspec"}


def room_of(path: Path) -> str:
    return path.relative_to(SERVICE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, *, everywhere: bool = True) -> set[str]:
    """The modules that a file imports; only at its top level where wanted."""
    nodes = ast.walk(tree) if everywhere else ast.iter_child_nodes(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


MODULES = sorted(SERVICE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SERVICE)))
def test_imports_go_one_way(path: Path) -> None:
    """A room imports only rooms above it, or itself."""
    here = room_of(path)
    rooms = {name.split(".")[1] for name in imports(ast.parse(path.read_text())) if name.startswith("service.")}
    rooms = {room if room in LEVEL else "__init__" for room in rooms}
    wrong = {room for room in rooms - {here} if LEVEL[room] >= LEVEL[here]}
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SERVICE)))
def test_frameworks_stay_in_their_rooms(path: Path) -> None:
    """Flask is imported at the edge only, and heavy libraries only inside the function that needs them."""
    tree = ast.parse(path.read_text())
    roots = {name.partition(".")[0] for name in imports(tree)}
    assert room_of(path) in FLASK_ROOMS or not roots & {"flask", "werkzeug", "click"}
    assert not {name.partition(".")[0] for name in imports(tree, everywhere=False)} & HEAVY


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SERVICE)))
def test_only_settings_reads_the_environment(path: Path) -> None:
    """No module but `settings` looks at the environment; what a model's own code reads there is set in one place."""
    exempt = room_of(path) == "settings" or path == SERVICE / "runtimes" / "own_code.py"
    assert exempt or not re.search(r"os\.environ|getenv", path.read_text())


CLOCKS = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today")}
DATES = {"answer", "packing", "logs", "commands"}
"""Rooms that write down the date; none of them measures a time by it."""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SERVICE)))
def test_2_14_no_deadline_hangs_on_the_wall_clock(path: Path) -> None:
    """Times are measured by the monotonic clock; the wall clock, which may jump, is only written down."""
    calls = {
        (getattr(node.value, "id", ""), node.attr)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert room_of(path) in DATES or not calls & CLOCKS


MASTER = "import runpy; runpy.run_path('gunicorn.conf.py')"
COMPUTING = {"numpy", "scipy", "sklearn", "onnxruntime", "pandas"}


@pytest.mark.parametrize(
    "code",
    [MASTER, "import service.wsgi", "import service; service.create_app()", f"{MASTER}; import service.wsgi"],
    ids=["master", "another server", "flask", "worker"],
)
def test_2_13_threads_are_limited_before_anything_computes(code: str) -> None:
    """Thread counts stand in the environment before the first library that computes is imported."""
    watch = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {COMPUTING!r}:\n"
        "            print(name, *(os.environ.get(variable) for variable in "
        "('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')))\n"
        "sys.meta_path.insert(0, Watch())\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    child = subprocess.run(
        [sys.executable, "-c", f"{watch}{code}\nimport numpy"],
        cwd=ROOT,
        env=kept,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = [line.split() for line in child.stdout.splitlines()]
    assert imported and all(counts == ["1", "1", "1"] for _, *counts in imported), imported


def test_a_worker_never_imports_what_only_commands_need() -> None:
    """Serving a prediction imports none of `commands`, `packing` and `platforms`, and no library of another format."""
    code = (
        "import json, sys\n"
        "from service import create_app\n"
        f"answer = create_app().test_client().post('/predict', json={{'instances': [{PENGUIN!r}]}})\n"
        "assert answer.status_code == 200, answer.text\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(json.loads(child.stdout.splitlines()[-1]))
    assert not {
        name
        for name in loaded
        if name.startswith(("service.commands", "service.compiler", "service.packing", "service.platforms"))
    }
    assert not loaded & {"onnxruntime", "skops", "yaml"}


def test_a_worker_never_imports_what_reads_buckets(tmp_path: Path) -> None:
    """Neither the master nor a worker of a service that fetches its models imports fsspec; its own process does."""
    code = (
        "import runpy, sys\n"
        "import service.wsgi\n"
        "runpy.run_path('gunicorn.conf.py')\n"
        "assert service.wsgi.app.test_client().get('/readyz').status_code == 503\n"
        "assert not {name for name in sys.modules if name.split('.')[0] in ('fsspec', 's3fs')}"
    )
    said = {"ANYPORT_MODELS_URI": f"file://{tmp_path}", "ANYPORT_CACHE_DIR": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | said, check=True)


def test_procfile_is_one_plain_line() -> None:
    """Elastic Beanstalk refuses comments and blank lines, and `release:` would be a service there."""
    assert re.fullmatch(r"web: gunicorn -c gunicorn\.conf\.py service\.wsgi:app\n", (ROOT / "Procfile").read_text())


def test_startup_file_is_one_line_that_execs() -> None:
    """Azure reads the first line only, in a shell that is process 1 and would keep SIGTERM to itself."""
    assert (ROOT / "startup.txt").read_text() == "exec gunicorn -c gunicorn.conf.py service.wsgi:app\n"


def test_python_version_is_bare() -> None:
    """Google's buildpack trims white space and nothing else."""
    assert (ROOT / ".python-version").read_text() == "3.12\n"


def test_requirements_are_exact_and_hashed() -> None:
    """Every package of requirements.txt has one exact version and at least one hash, and only wheels are installed."""
    text = (ROOT / "requirements.txt").read_text()
    pins = re.findall(r"^([a-z0-9-]+)==[^ ]+ \\\n    --hash=sha256:", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[a-z]", text, re.MULTILINE)) > 10
    assert "--only-binary :all:" in text


def test_there_is_no_second_package_manager() -> None:
    """Heroku refuses a tree with two package managers, and `eb init` takes a Dockerfile for Docker."""
    unwanted = ["Pipfile", "Pipfile.lock", "poetry.lock", "uv.lock", "setup.py", "runtime.txt", "Dockerfile"]
    assert not [name for name in unwanted if (ROOT / name).exists()]


def test_demo_package_was_made_with_the_pinned_libraries() -> None:
    """The committed demo was packed with the scikit-learn and numpy of requirements.txt, which are installed here."""
    manifest = json.loads((ROOT / "models/penguins/1/manifest.json").read_text())
    pins = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    for library, version in manifest["libraries"].items():
        assert version == pins[library] == metadata.version(library)


def test_demo_script_trains_the_committed_model() -> None:
    """Training the demo again gives a model that answers the committed golden rows."""
    from service.manifest import read_manifest
    from service.predictor import Predictor
    from service.runtimes import RUNTIMES

    sys.path.insert(0, str(ROOT / "examples" / "penguins"))
    try:
        from train import train
    finally:
        sys.path.pop(0)
    manifest = read_manifest("penguins/1", (ROOT / "models/penguins/1/manifest.json").read_bytes())
    Predictor(manifest, RUNTIMES["joblib"].bind(train(), manifest.signature, manifest.artifacts[-1].layout)).replay()
