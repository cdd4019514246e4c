"""What the files of a tree tell a platform: start line, Python, size of machine, environment; each by its own rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from service.errors import PlatformError
from service.platforms.facts import Platform
from service.platforms.upload import Upload

PROCFILE_LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(\S.*)")
EBEXTENSIONS = re.compile(r"\.ebextensions/[^/]+\.config")
SET = re.compile(r"""^os\.environ(?:\.setdefault\(|\[)["'](\w+)["'](?:, |\] = )["']([^"']*)["']""", re.MULTILINE)
INSTALL = re.compile(r"\s*(?:python3? -m )?pip install[^&|;]*(?:&&\s*|$)")
ENVIRONMENT = "aws:elasticbeanstalk:application:environment"
DEFAULT_PROCESS = "aws:elasticbeanstalk:environment:process:default"


@dataclass(frozen=True)
class Step:
    """What a tree has its platform run once the libraries are installed."""

    line: str = ""
    """As a shell runs it; empty where the tree says nothing."""
    script: str = ""
    """What that line comes down to."""


@dataclass(frozen=True)
class Declared:
    """What a tree tells a platform."""

    line: str
    """The start line; for a WSGI file, its path."""
    python: str | None = None
    """As the platform's file spells it; None where no file of the tree says."""
    size: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    health_path: str | None = None
    stop_s: float | None = None
    build: Step = Step()


def declared(upload: Upload) -> Declared:
    """Read what an upload tells its platform.

    Raises:
        PlatformError: If the file is missing or cannot be read so; it names the file and what is wrong.
    """
    found = RULES[upload.platform.start.rule](upload)
    return replace(found, build=BUILDS[upload.platform.build.rule](upload))


def minor_version(spelled: str) -> str:
    """Return `3.12` for `3.12`, `3.12.4`, `python312` and `PYTHON:3.12`.

    Raises:
        PlatformError: If it is none of these.
    """
    found = re.fullmatch(r"(?:python|PYTHON:)?(\d)\.?(\d{1,2})(?:\.\d+)?", spelled.strip())
    if found is None:
        raise PlatformError(f"{spelled!r} is not a version of Python such as 3.12")
    return f"{found[1]}.{found[2]}"


def load_yaml(path: str, text: str) -> Any:
    """Read YAML.

    Raises:
        PlatformError: If it is none, or names a key twice.
    """
    import yaml

    try:
        document = yaml.safe_load(text)
        twice = _twice(yaml.compose(text, yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise PlatformError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if twice:
        raise PlatformError(f"{path} has the key {twice!r} twice in one place; all but the last would be lost")
    return document


def _twice(node: Any) -> str | None:
    """Return a key that stands twice in one mapping."""
    children = getattr(node, "value", ())
    if not isinstance(children, list):
        return None
    keys = [child[0].value for child in children if isinstance(child, tuple)]
    inner = [child[1] if isinstance(child, tuple) else child for child in children]
    found = [key for key in keys if keys.count(key) > 1] + [twice for child in inner if (twice := _twice(child))]
    return found[0] if found else None


def _text(upload: Upload) -> str:
    path = upload.platform.start.file
    text = upload.text(path)
    if text is None:
        where = " (is it committed?)" if upload.platform.upload.rule == "commits" else ""
        raise PlatformError(f"{path} is not among the files that {upload.platform.title} receives{where}")
    return text


def _python_file(upload: Upload) -> str | None:
    texts = (upload.text(path) for path in upload.platform.python.files)
    return next((text.strip() for text in texts if text and text.strip()), None)


def from_procfile(upload: Upload) -> Declared:
    """`web:` of Procfile; `.python-version`; what .ebextensions sets, where that is read."""
    written = [line.groups() for line in map(PROCFILE_LINE.fullmatch, _text(upload).splitlines()) if line]
    lines = [command for process, command in written if process == "web"]
    if not lines:
        raise PlatformError("Procfile has no web: line; write `web: gunicorn -c gunicorn.conf.py service.wsgi:app`")
    found = _ebextensions(upload) if "ebextensions" in upload.platform.checks else {}
    values = {name: str(value) for name, value in found.get(ENVIRONMENT, {}).items()}
    health_path = found.get(DEFAULT_PROCESS, {}).get("HealthCheckPath")
    return Declared(lines[-1], _python_file(upload), environment=values, health_path=health_path and str(health_path))


def _ebextensions(upload: Upload) -> dict[str, dict[str, Any]]:
    """Every option of .ebextensions, by namespace; of two files the later one counts."""
    values: dict[str, dict[str, Any]] = {}
    for path in (file.path for file in upload.files if EBEXTENSIONS.fullmatch(file.path)):
        with suppress(PlatformError):  # a check of these files says so
            for namespace, found in options(upload, path).items():
                values[namespace] = values.get(namespace, {}) | found
    return values


def options(upload: Upload, path: str) -> dict[str, dict[str, Any]]:
    """Return `option_settings` of one file of .ebextensions: by namespace, then by name.

    Raises:
        PlatformError: If they are in no form that Elastic Beanstalk knows.
    """
    document = load_yaml(path, upload.text(path) or "")
    found = document.get("option_settings", {}) if isinstance(document, dict) else None
    if isinstance(found, list) and all(isinstance(item, dict) for item in found):
        values: dict[str, dict[str, Any]] = {}
        for item in found:
            name, value = item.get("option_name"), item.get("value")
            if not isinstance(name, str):
                raise PlatformError(f"{path}: an item of option_settings has no option_name")
            values.setdefault(str(item.get("namespace", ENVIRONMENT)), {})[str(name)] = value
        return values
    if not isinstance(found, dict) or not all(isinstance(value, dict) for value in found.values()):
        raise PlatformError(f"{path}: option_settings must map namespaces to options")
    return found


def from_app_yaml(upload: Upload) -> Declared:
    """`entrypoint`, `runtime`, `instance_class` and `env_variables` of app.yaml."""
    document = load_yaml("app.yaml", _text(upload))
    if not isinstance(document, dict) or not isinstance(document.get("entrypoint"), str):
        raise PlatformError(
            "app.yaml has no entrypoint; write `entrypoint: gunicorn -c gunicorn.conf.py service.wsgi:app`"
        )
    variables = document.get("env_variables") or {}
    if not isinstance(variables, dict):
        raise PlatformError("app.yaml: env_variables must map names to values")
    values = {name: str(value) for name, value in variables.items()}
    return Declared(
        f"exec {document['entrypoint']}", str(document.get("runtime", "")), document.get("instance_class"), values
    )


def from_first_line(upload: Upload) -> Declared:
    """The first line of the startup file, which is all that Azure reads of it."""
    lines = _text(upload).splitlines()
    if not lines or not lines[0].strip():
        raise PlatformError(
            "the first line of startup.txt is empty; write `exec gunicorn -c gunicorn.conf.py service.wsgi:app`"
        )
    stop_s = upload.platform.deploy.settings.get("WEBSITES_CONTAINER_STOP_TIME_LIMIT")
    return Declared(lines[0], _python_file(upload), stop_s=float(stop_s) if stop_s else None)


def from_render_yaml(upload: Upload) -> Declared:
    """`startCommand`, `plan` and `envVars` of the first web service in render.yaml."""
    document = load_yaml("render.yaml", _text(upload))
    web = next(web_services(document), None)
    if web is None or not isinstance(web.get("startCommand"), str):
        raise PlatformError("render.yaml has no service of type web with a startCommand")
    variables = web.get("envVars") or []
    if not isinstance(variables, list):
        raise PlatformError("render.yaml: envVars must be a list")
    pairs = [item for item in variables if isinstance(item, dict)]
    values = {str(item.get("key")): str(item.get("value")) for item in pairs if "value" in item}
    python = values.pop("PYTHON_VERSION", None)
    stop_s, health = web.get("maxShutdownDelaySeconds"), web.get("healthCheckPath")
    if not isinstance(health, str | None):
        raise PlatformError("render.yaml: healthCheckPath must be a path")
    known_s = float(stop_s) if isinstance(stop_s, int) else None
    return Declared(web["startCommand"], python, web.get("plan"), values, health, known_s)


def web_services(document: Any) -> Iterator[dict[str, Any]]:
    """Yield the web services of a render.yaml that was read."""
    services = document.get("services") if isinstance(document, dict) else None
    for service in services if isinstance(services, list) else []:
        if isinstance(service, dict) and service.get("type") == "web":
            yield service


def from_wsgi_file(upload: Upload) -> Declared:
    """The WSGI file itself, and what it puts into the environment."""
    return Declared(upload.platform.start.file, _python_file(upload), environment=dict(SET.findall(_text(upload))))


def from_facts(upload: Upload) -> Declared:
    """The line that the platform is given when the site is made, and no file holds."""
    return Declared(upload.platform.start.line, _python_file(upload))


RULES: dict[str, Callable[[Upload], Declared]] = {
    "procfile": from_procfile,
    "app-yaml": from_app_yaml,
    "first-line": from_first_line,
    "render-yaml": from_render_yaml,
    "wsgi-file": from_wsgi_file,
    "given": from_facts,
}


def no_step(upload: Upload) -> Step:
    """Nothing of the tree is run before the start."""
    return Step()


def hook(upload: Upload) -> Step:
    """A file of a certain name, which is made executable and run."""
    place = upload.platform.build.place
    script = upload.text(place)
    return Step(f"chmod +x {place} && {place}", script) if script is not None else Step()


def build_command(upload: Upload) -> Step:
    """What stands in `buildCommand` of render.yaml's first web service after the installation."""
    web = next(web_services(load_yaml("render.yaml", _text(upload))), {})
    line = INSTALL.sub("", str(web.get("buildCommand", "")), count=1)
    return Step(line, line)


def setting(upload: Upload) -> Step:
    """A setting that the commands give the platform."""
    line = upload.platform.deploy.settings[upload.platform.build.place]
    return Step(line, line)


BUILDS: dict[str, Callable[[Upload], Step]] = {
    "hook": hook,
    "build-command": build_command,
    "setting": setting,
    "none": no_step,
}


def size_mib(platform: Platform, chosen: Declared) -> int:
    """Return the memory of the size that a tree chooses, or of the usual one, in MiB.

    Raises:
        PlatformError: If there is no such size.
    """
    try:
        return platform.sizes.size(chosen.size or platform.sizes.default).memory_mib
    except ValueError as error:
        raise PlatformError(f"{platform.start.file}: {error}") from error
