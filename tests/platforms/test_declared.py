"""What a tree tells its platform: each file by its platform's own rules, and what is said where it tells nothing."""

from __future__ import annotations

import pytest

from service.errors import PlatformError
from service.platforms.declared import Declared, Step, declared, load_yaml, minor_version, options, size_mib
from service.platforms.facts import platforms
from tests.platforms.trees import EVERY, upload_of

START = "gunicorn -c gunicorn.conf.py service.wsgi:app"
RENDER = "services:\n  - type: web\n    startCommand: start\n"
EB = ".ebextensions/a.config"
COMPILED = platforms()["azure"].build.step
ON_AZURE = Step(COMPILED, COMPILED)
NAMESPACE = "aws:elasticbeanstalk:application:environment"


def told(name: str, texts: dict[str, str]) -> Declared:
    """What these files tell a platform."""
    return declared(upload_of(platforms()[name], texts))


# Versions of Python


@pytest.mark.parametrize(
    ("spelled", "minor"),
    [
        ("3.12", "3.12"),
        ("3.12.4", "3.12"),
        ("3.9", "3.9"),
        ("python312", "3.12"),
        ("python39", "3.9"),
        ("PYTHON:3.12", "3.12"),
        (" 3.13\n", "3.13"),
    ],
)
def test_minor_version(spelled: str, minor: str) -> None:
    """Every platform's spelling of a version is read as the same one."""
    assert minor_version(spelled) == minor


@pytest.mark.parametrize("spelled", ["", "3", "3.x", "3.12.x", "# 3.12", "python", "3.12 # ours", "3.123", "three"])
def test_what_is_no_version(spelled: str) -> None:
    """What is no version is refused with an example of one."""
    with pytest.raises(PlatformError, match=r"is not a version of Python such as 3\.12"):
        minor_version(spelled)


# Start lines


GOOD = [
    ("heroku", {"Procfile": f"web: {START}\n"}, Declared(START)),
    ("heroku", {"Procfile": f"web:   {START}"}, Declared(START)),
    ("heroku", {"Procfile": f"# c\nworker: x\n\nweb: {START}\n"}, Declared(START)),
    ("heroku", {"Procfile": "web: first\nweb: second\n"}, Declared("second")),
    ("heroku", {"Procfile": "web: x\r\n", ".python-version": "3.12\n"}, Declared("x", "3.12")),
    ("beanstalk", {"Procfile": "web: x\n"}, Declared("x")),
    ("appengine", {"app.yaml": f"entrypoint: {START}\nruntime: python313\n"}, Declared(f"exec {START}", "python313")),
    (
        "appengine",
        {"app.yaml": "entrypoint: x\nruntime: python312\ninstance_class: F2\nenv_variables: {A: 1, B: b}\n"},
        Declared("exec x", "python312", "F2", {"A": "1", "B": "b"}),
    ),
    ("appengine", {"app.yaml": "entrypoint: x\nruntime: python312\nenv_variables:\n"}, Declared("exec x", "python312")),
    ("azure", {"startup.txt": f"exec {START}\n"}, Declared(f"exec {START}", stop_s=60, build=ON_AZURE)),
    (
        "azure",
        {"startup.txt": "# first\nsecond\n", ".python-version": "3.13"},
        Declared("# first", "3.13", stop_s=60, build=ON_AZURE),
    ),
    ("render", {"render.yaml": RENDER}, Declared("start")),
    (
        "render",
        {
            "render.yaml": "services:\n"
            "  - type: worker\n    startCommand: other\n"
            "  - type: web\n    startCommand: start\n    plan: free\n    envVars:\n"
            "      - {key: PYTHON_VERSION, value: 3.12.4}\n      - {key: A, value: b}\n"
            "      - {key: SECRET, sync: false}\n      - fromGroup: shared\n"
        },
        Declared("start", "3.12.4", "free", {"A": "b"}),
    ),
    (
        "pythonanywhere",
        {"pythonanywhere_wsgi.py": "import os\nos.environ.setdefault(\"A\", \"1\")\nos.environ.setdefault('B', '')\n"},
        Declared("pythonanywhere_wsgi.py", environment={"A": "1", "B": ""}),
    ),
    (
        "pythonanywhere",
        {"pythonanywhere_wsgi.py": 'import os\nos.environ["A"] = "1"\n'},
        Declared("pythonanywhere_wsgi.py", environment={"A": "1"}),
    ),
    ("pythonanywhere-site", {}, Declared(platforms()["pythonanywhere-site"].start.line)),
]


@pytest.mark.parametrize(("name", "texts", "expected"), GOOD, ids=[f"{row[0]} {row[1]}"[:60] for row in GOOD])
def test_declared(name: str, texts: dict[str, str], expected: Declared) -> None:
    """Start line, Python, size and environment are read by the platform's own rules."""
    assert told(name, texts) == expected


BAD = [
    ("heroku", {"Procfile": "worker: x\n"}, "Procfile has no web: line"),
    ("heroku", {"Procfile": ""}, "Procfile has no web: line"),
    ("heroku", {"Procfile": "web:\n"}, "Procfile has no web: line"),
    ("heroku", {"Procfile": "web x\n"}, "Procfile has no web: line"),
    ("appengine", {"app.yaml": ""}, "app.yaml has no entrypoint"),
    ("appengine", {"app.yaml": "runtime: python312\n"}, "app.yaml has no entrypoint"),
    ("appengine", {"app.yaml": "entrypoint: [a]\n"}, "app.yaml has no entrypoint"),
    ("appengine", {"app.yaml": "- entrypoint: a\n"}, "app.yaml has no entrypoint"),
    ("appengine", {"app.yaml": "entrypoint: [\n"}, "app.yaml is not YAML"),
    ("appengine", {"app.yaml": "entrypoint: a\nentrypoint: b\n"}, "app.yaml has the key 'entrypoint' twice"),
    ("appengine", {"app.yaml": "entrypoint: a\nenv_variables: {A: 1, A: 2}\n"}, "app.yaml has the key 'A' twice"),
    ("appengine", {"app.yaml": "entrypoint: a\nenv_variables: [A]\n"}, "env_variables"),
    ("appengine", {"app.yaml": "entrypoint: a\nenv_variables: A\n"}, "env_variables"),
    ("azure", {"startup.txt": ""}, "the first line of startup.txt is empty"),
    ("azure", {"startup.txt": "\nexec x\n"}, "the first line of startup.txt is empty"),
    ("render", {"render.yaml": ""}, "no service of type web with a startCommand"),
    ("render", {"render.yaml": "services: []\n"}, "no service of type web with a startCommand"),
    ("render", {"render.yaml": "services:\n"}, "no service of type web with a startCommand"),
    ("render", {"render.yaml": "services: 5\n"}, "no service of type web with a startCommand"),
    ("render", {"render.yaml": "services: [web]\n"}, "no service of type web with a startCommand"),
    ("render", {"render.yaml": "services:\n  - type: web\n"}, "no service of type web with a startCommand"),
    ("render", {"render.yaml": "services:\n  - {type: worker, startCommand: x}\n"}, "no service of type web"),
    ("render", {"render.yaml": f"{RENDER}    envVars: 5\n"}, "envVars"),
    ("render", {"render.yaml": f"{RENDER}    plan: a\n    plan: b\n"}, "render.yaml has the key 'plan' twice"),
    ("render", {"render.yaml": "a: &x [*x]\n"}, "render.yaml"),
]


@pytest.mark.parametrize(("name", "texts", "says"), BAD, ids=[f"{name}: {says}" for name, _, says in BAD])
def test_what_tells_nothing_is_refused(name: str, texts: dict[str, str], says: str) -> None:
    """A file that does not say how to start is refused by name, with what is wrong."""
    with pytest.raises(PlatformError) as refused:
        told(name, texts)
    assert says in refused.value.detail


@pytest.mark.parametrize("name", [name for name in EVERY if platforms()[name].start.file])
def test_missing_file_is_refused(name: str) -> None:
    """A file that is not uploaded is named; where commits are taken, so is the likely reason."""
    platform = platforms()[name]
    with pytest.raises(PlatformError) as refused:
        told(name, {"README.md": ""})
    assert f"{platform.start.file} is not among the files that {platform.title} receives" in refused.value.detail
    assert refused.value.detail.endswith("(is it committed?)") == (platform.upload.rule == "commits")


# Steps of the build


def render_build(command: str) -> dict[str, str]:
    """A render.yaml with this buildCommand."""
    return {"render.yaml": f"{RENDER}    buildCommand: {command}\n"}


RUN_HOOK = "chmod +x bin/post_compile && bin/post_compile"
STEPS = [
    ("heroku", {"Procfile": "web: x\n", "bin/post_compile": "make\n"}, Step(RUN_HOOK, "make\n")),
    ("heroku", {"Procfile": "web: x\n"}, Step()),
    ("beanstalk", {"Procfile": "web: x\n", "bin/post_compile": "make\n"}, Step()),
    ("render", render_build("pip install -r requirements.txt"), Step()),
    ("render", render_build("pip install -r requirements.txt && a && b"), Step("a && b", "a && b")),
    ("render", render_build("python -m pip install --no-deps -r x.txt&&a"), Step("a", "a")),
    ("render", render_build(">-\n      pip install -r x.txt &&\n      a"), Step("a", "a")),
    ("render", render_build("./build.sh"), Step("./build.sh", "./build.sh")),
    ("render", {"render.yaml": RENDER}, Step()),
]


@pytest.mark.parametrize(("name", "texts", "step"), STEPS, ids=[f"{row[0]} {row[1]}"[-70:] for row in STEPS])
def test_step_of_the_build(name: str, texts: dict[str, str], step: Step) -> None:
    """What is run after the installation is read by the platform's own rules; where nothing is said, it is nothing."""
    assert told(name, texts).build == step


# .ebextensions


def eb(text: str) -> dict[str, str]:
    """The variables that one file of .ebextensions sets."""
    return told("beanstalk", {"Procfile": "web: x\n", EB: text}).environment


@pytest.mark.parametrize(
    "text",
    [
        f"option_settings:\n  {NAMESPACE}:\n    A: 1\n    B: b\n",
        f"option_settings:\n  - {{namespace: '{NAMESPACE}', option_name: A, value: 1}}\n"
        "  - {option_name: B, value: b}\n",
        f'{{"option_settings": {{"{NAMESPACE}": {{"A": "1", "B": "b"}}}}}}',
    ],
    ids=["map", "list", "JSON"],
)
def test_ebextensions_in_each_form(text: str) -> None:
    """Options are read from a map, a list, which may leave the namespace of variables out, and JSON."""
    assert eb(text) == {"A": "1", "B": "b"}


def test_ebextensions_are_read_in_the_order_of_their_names() -> None:
    """A later file wins over an earlier one; files in folders, or with other endings, do not count."""
    texts = {
        f".ebextensions/{name}": f"option_settings:\n  {NAMESPACE}:\n    A: {name[0]}\n"
        for name in ("2.config", "1.config", "3.yaml", "deep/4.config")
    }
    assert told("beanstalk", {"Procfile": "web: x\n", **texts}).environment == {"A": "2"}
    assert told("heroku", {"Procfile": "web: x\n", **texts}).environment == {}


@pytest.mark.parametrize("text", ["commands: {}\n", "option_settings: {}\n"])
def test_ebextensions_without_options(text: str) -> None:
    """A file that sets nothing is fine."""
    assert options(upload_of(platforms()["beanstalk"], {EB: text}), EB) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("option_settings: 5\n", "option_settings must map namespaces to options"),
        ("option_settings: [5]\n", "option_settings must map namespaces to options"),
        (f"option_settings:\n  {NAMESPACE}: 5\n", "option_settings must map namespaces to options"),
        ("- option_settings\n", "option_settings must map namespaces to options"),
        ("option_settings: [\n", "is not YAML"),
        ("option_settings: {}\noption_settings: {}\n", "has the key 'option_settings' twice"),
        (f"option_settings:\n  - {{namespace: '{NAMESPACE}', value: 1}}\n", "option_name"),
    ],
)
def test_ebextensions_that_cannot_be_read(text: str, says: str) -> None:
    """A form that Elastic Beanstalk does not know is refused under the file's name."""
    with pytest.raises(PlatformError) as refused:
        options(upload_of(platforms()["beanstalk"], {EB: text}), EB)
    assert EB in refused.value.detail and says in refused.value.detail


# YAML


@pytest.mark.parametrize(
    "text",
    ["a: 1\nb: {a: 2}\n", "- a: 1\n- a: 2\n", "a: &x {b: 1}\nc: *x\n", "a: [b, b]\n", "base: &x {k: 1}\nb: {<<: *x}\n"],
)
def test_same_key_in_two_places(text: str) -> None:
    """The same key in two mappings, or the same value in a list, is no key twice."""
    assert load_yaml("x.yaml", text)


@pytest.mark.parametrize("text", ["a: 1\na: 1\n", "x:\n  - {b: 1, b: 2}\n", "x: {y: {z: {c: 1, c: 1}}}\n"])
def test_key_twice(text: str) -> None:
    """A key that stands twice in one mapping is refused, however deep."""
    with pytest.raises(PlatformError, match="twice in one place"):
        load_yaml("x.yaml", text)


@pytest.mark.parametrize(
    "text", ["a: [\n", "\tb: 1\n", "a: 1\n---\nb: 2\n", "!!python/object:os.system {}\n", "? [a]\n: b\n"]
)
def test_what_is_no_yaml(text: str) -> None:
    """What is not one plain document is refused in one line under the file's name."""
    with pytest.raises(PlatformError, match=r"^x\.yaml is not YAML: [^\n]+$"):
        load_yaml("x.yaml", text)


# Sizes


@pytest.mark.parametrize(
    ("name", "size", "memory_mib"),
    [("appengine", "F4", 1536), ("appengine", None, 384), ("render", "standard", 2048), ("heroku", None, 512)],
)
def test_size_of_the_machine(name: str, size: str | None, memory_mib: int) -> None:
    """The memory is that of the size that was chosen, else of the platform's usual one."""
    assert size_mib(platforms()[name], Declared("x", size=size)) == memory_mib


def test_size_that_is_not_offered() -> None:
    """A size that there is not is refused with those that there are."""
    with pytest.raises(PlatformError, match=r"^app\.yaml: 'X9' is not among the sizes offered: F1, "):
        size_mib(platforms()["appengine"], Declared("x", size="X9"))
