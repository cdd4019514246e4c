"""What is known about each platform: data with a source and a date, and nothing that acts.

One TOML file a platform. A value that no authoritative page confirms is named in its group's `unconfirmed`, and is
marked wherever it is shown.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import PlatformError, closest

FOLDER = Path(__file__).parent
STALE_DAYS = 180
"""A group that was checked longer ago than this is itself a finding."""


class Fact(BaseModel):
    """Anything in a platform's file; a key that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Group(Fact):
    """Facts that were read in one place on one day."""

    source: str = Field(min_length=8)
    checked: date
    unconfirmed: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> Group:
        unknown = set(self.unconfirmed) - type(self).model_fields.keys()
        if unknown:
            raise ValueError(f"`unconfirmed` names no fact of this group: {', '.join(sorted(unknown))}")
        return self


class Upload(Group):
    """Which files reach the platform, and in what form."""

    rule: Literal["commits", "gcloudignore", "ebignore", "azure"]
    """How they are chosen."""
    ignore_file: str | None = None
    """A file of patterns that leaves some of them out, where the platform has one."""
    form: Literal["folder", "zip"]
    upload_limit_mib: float | None = None
    unpacked_limit_mib: float | None = None
    """What the tree and its installed packages may take together."""
    slug_limit_mib: float | None = None
    """What they may take compressed."""
    limit_of: str = ""
    """Whose limits these are, where others have larger ones."""
    files_limit: int | None = None


class Start(Group):
    """How the service is started."""

    file: str = ""
    rule: Literal["procfile", "app-yaml", "first-line", "render-yaml", "wsgi-file", "given"]
    """How the file is read; or the line is given, to the platform and here."""
    line: str = ""
    shell: tuple[str, ...] = ()
    """What runs the line; without one it is run as it stands."""
    process_1: bool = False
    """Whether that shell is process 1, to which the kernel delivers only signals that it handles."""
    front: Literal["router", "nginx", "uwsgi", "socket"]
    """What stands between the service and its clients."""
    port: int | None = None
    """The port that the service must listen on, or is usually told to."""
    environment: dict[str, str]
    """What the platform puts into the environment; `{port}`, `{socket}` and `{memory_mib}` stand for those."""
    threads: bool = True
    writable: tuple[str, ...] = ("",)
    """Where the service may write; the empty path is its own folder."""
    stop: Literal["all", "first", "reload"] = "first"
    """Who gets the signal that ends it: every process, the first one, or uWSGI's master, which reloads."""

    @property
    def gives_port(self) -> bool:
        """Whether the platform says in PORT which port it is: then `port` is only what it usually says."""
        return "PORT" in self.environment


class Build(Group):
    """What happens between the upload and the start."""

    rule: Literal["hook", "build-command", "setting", "none"]
    """In what form the tree or the commands say what is run once the libraries are installed."""
    place: str = ""
    """Where that stands: a file, or a setting's name."""
    step: str = ""
    """What should be run: it compiles the service's own modules, as pip compiles the libraries."""
    keeps_dates: bool = True
    """Whether files still have the dates of the build at the start. If not, only bytecode by hashes counts there."""
    keeps_bytecode: bool
    """Whether bytecode that a start writes is there at the next one."""

    @property
    def redates(self) -> bool:
        """Whether what the step compiled finds its sources under other dates at the start."""
        return bool(self.step) and not self.keeps_dates


class Limits(Group):
    """How long and how large things may be."""

    start_s: float | None = None
    """From the start to the first answer."""
    request_s: float | None = None
    stop_s: float | None = None
    """From SIGTERM to SIGKILL."""
    body_mib: float | None = None
    """The largest request body at the platform's edge."""


class Size(Fact):
    """One size of machine."""

    name: str
    memory_mib: int


class Sizes(Group):
    """The sizes on offer, smallest first, and how one is chosen."""

    default: str
    offered: tuple[Size, ...] = Field(min_length=1)
    change: str
    """The command or the key that chooses another."""

    @model_validator(mode="after")
    def _default_is_offered(self) -> Sizes:
        self.size(self.default)
        return self

    def size(self, name: str) -> Size:
        """Return the size of this name.

        Raises:
            ValueError: If none has it.
        """
        for size in self.offered:
            if size.name == name:
                return size
        raise ValueError(f"{name!r} is not among the sizes offered: {', '.join(size.name for size in self.offered)}")


class Python(Group):
    """Which versions of Python there are, and what chooses one."""

    offered: tuple[str, ...]
    chosen_by: str
    files: tuple[str, ...] = (".python-version",)
    """Files that choose one, the strongest first; where the platform reads none, what the tree asks for."""


class Traffic(Group):
    """How requests come in."""

    health: str
    """What the platform asks to know that the service is well."""
    health_path: str | None = None
    warm_up: tuple[str, ...] = ()
    """Paths that it asks before it sends traffic, or to keep the service awake."""
    client_hops: int
    """Which item of X-Forwarded-For, from the right, is the client's address; 0 where none is to be believed."""
    forwarded: str
    """What X-Forwarded-For holds for a client 203.0.113.9 when the request reaches the service's own front."""
    request_id: str | None = None
    https: str


class Choice(Group):
    """What helps to choose among platforms."""

    best_for: str
    free: str
    sleeps: str
    growing: str


class Deploy(Group):
    """How to deploy. `{name}`, `{python}` and `{line}` stand for the app, its Python, its start line."""

    tool: str
    install_tool: str
    settings: dict[str, str] = {}
    """What the commands give the platform as settings, because no file can; `{settings}` stands for them."""
    prepare: tuple[str, ...]
    """Once, from nothing."""
    console: tuple[str, ...] = ()
    """Once too, on the platform: in a console there, or on its pages."""
    push: tuple[str, ...]
    """Each time."""
    address: str
    """Where it answers then; not an address itself where the platform makes a part of it up."""
    ask_address: str = ""
    """A command that says so."""
    address_in: str = ""
    """A pattern whose first group is the address in what that command prints."""
    builds_later: bool = False
    """Whether the commands end before the platform has built it."""


class Trap(Fact):
    """A way in which deployments fail."""

    what: str
    instead: str
    source: str


class Platform(Fact):
    """All that is known about one platform."""

    name: str
    title: str
    marker: str | None = None
    """The environment variable by which the platform is known."""
    checks: tuple[str, ...]
    """What preflight looks at here only, beside what it looks at everywhere."""
    upload: Upload
    build: Build
    start: Start
    limits: Limits
    sizes: Sizes
    python: Python
    traffic: Traffic
    choice: Choice
    deploy: Deploy
    traps: tuple[Trap, ...]

    def environment(self, port: int, socket: Path, memory_mib: int) -> dict[str, str]:
        """Return what the service finds in its environment: of the platform's own, and as the commands set it."""
        values = {"port": port, "socket": socket, "memory_mib": memory_mib}
        return {name: value.format(**values) for name, value in self.start.environment.items()} | self.deploy.settings

    def commands(self, templates: tuple[str, ...], name: str, python: str) -> list[str]:
        """Fill the commands of `deploy` in for one app."""
        settings = shlex.join(f"{key}={value}" for key, value in self.deploy.settings.items())
        values = {"name": name, "python": python, "settings": settings}
        line = self.start.line.replace("{", "{{").replace("}", "}}")
        return [template.replace("{line}", line).format(**values) for template in templates]

    def groups(self) -> Iterator[tuple[str, Group]]:
        """Yield every group of facts under its name."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Group):
                yield name, value


@cache
def platforms() -> dict[str, Platform]:
    """Read every platform's file.

    Raises:
        PlatformError: If a file is not what `Platform` describes.
    """
    return {path.stem: read(path) for path in sorted(FOLDER.glob("*.toml"))}


def read(path: Path) -> Platform:
    """Read one platform's file."""
    try:
        platform = Platform.model_validate(tomllib.loads(path.read_text()))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise PlatformError(f"{path.name} is not a file of facts: {error}") from error
    if platform.name != path.stem:
        raise PlatformError(f"{path.name} names the platform {platform.name!r}; the file's name must be the same")
    return platform


def chosen(name: str) -> list[Platform]:
    """Return the platform of this name, or every one for `all`.

    Raises:
        PlatformError: If there is no such platform.
    """
    known = platforms()
    if name == "all":
        return list(known.values())
    if name not in known:
        raise PlatformError(f"there is no platform {name!r}{closest(name, known)}; `flask platforms` lists them")
    return [known[name]]
