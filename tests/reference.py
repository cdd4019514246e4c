"""Writes the generated parts of README.md from the code. `make docs` runs it; a test holds README.md against it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import get_args

import click
from pydantic_core import PydanticUndefined

from bench.table import read
from service import create_app
from service.commands import make_commands
from service.errors import PackageError, PackingError, PlatformError, SettingsError, every_error
from service.platforms.facts import platforms
from service.platforms.story import comparison
from service.protocols import PROTOCOLS
from service.settings import Settings, variables
from tests.conftest import ROOT

README = ROOT / "README.md"
NONE = (None, (), PydanticUndefined)
"""Defaults that say nothing; the meaning tells those that are computed."""
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def problems() -> str:
    """The table of problem types; errors of packing, platforms and settings never reach a client."""
    lines = ["| type | status | when |", "|---|---|---|"]
    for error in every_error():
        if not issubclass(error, PackageError | PackingError | PlatformError | SettingsError):
            lines.append(f"| `{error.code}` | {error.status} | {error.title} |")
    return "\n".join(lines)


def settings() -> str:
    """The table of settings, from the class and its docstrings."""
    lines = ["| variable | default | what it decides |", "|---|---|---|"]
    for field, facts in Settings.model_fields.items():
        names = ", ".join(f"`{name}`" for name in variables(field))
        default = "`models/`" if field == "models_dir" else f"`{facts.default}`" if facts.default not in NONE else ""
        choices = " or ".join(f"`{choice}`" for choice in get_args(facts.annotation) if isinstance(choice, str))
        meaning = " ".join((facts.description or "").split()) + (f" {choices}." if choices else "")
        lines.append(f"| {names} | {default} | {meaning} |")
    return "\n".join(lines)


def commands() -> str:
    """What each command's `--help` says."""
    blocks = []
    for command in make_commands(Settings()):
        context = click.Context(command, info_name=f"flask {command.name}", max_content_width=110, terminal_width=110)
        blocks.append(command.get_help(context))
    return "```text\n" + "\n\n".join(blocks) + "\n```"


def speed() -> str:
    """How many times as many requests a second Anyport answers as each peer, and what it takes next to it."""
    found = read((ROOT / "bench" / "RESULTS.md").read_text())
    speeds = {
        (workload, row["peer"]): float(row["× twin"])
        for workload in RACES
        for row in found[workload]
        if row.get("connections") == "16"
    }
    starts = {row["peer"]: row for row in found["penguins"] if "first answer s" in row}
    lines = [f"| next to | {' | '.join(RACES.values())} | first answer | memory |", "|" + "---|" * (len(RACES) + 3)]
    for peer, start in starts.items():
        if peer != "anyport":
            ratios = [_times(speeds.get((race, "anyport")), speeds.get((race, peer))) for race in RACES]
            taken = [_times(float(starts["anyport"][part]), float(start[part])) for part in TAKEN]
            lines.append(f"| {peer} | {' | '.join(ratios + taken)} |")
    return "\n".join(lines)


RACES = {"penguins": "logistic", "forest": "forest", "boosting": "boosting", "boosting-100": "boosting, 100 rows"}
TAKEN = ("first answer s", "idle MiB")


def _times(ours: float | None, theirs: float | None) -> str:
    if ours is None or theirs is None:
        return ""
    return f"{ours / theirs:.0f} ×" if ours >= 10 * theirs else f"{ours / theirs:.2g} ×"


def choice() -> str:
    """The table of platforms, from their facts."""
    rows = [comparison(platform) for platform in platforms().values()]
    lines = [f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
    return "\n".join([*lines, *(f"| {' | '.join(row.values())} |" for row in rows)])


def deployment() -> str:
    """The commands that bring the tree to each platform, from their facts."""
    blocks = []
    for platform in platforms().values():
        deploy = platform.deploy
        lines = [f"# {platform.title}: once; {deploy.tool} is from {deploy.install_tool}"]
        lines += platform.commands(deploy.prepare, "my-app", "3.12")
        console = platform.commands(deploy.console, "my-app", "3.12")
        lines += ["# once, in a console there", *console] if console else []
        lines += ["# each time", *platform.commands(deploy.push, "my-app", "3.12")]
        blocks.append("\n".join(lines))
    return "```sh\n" + "\n\n".join(blocks) + "\n```"


def protocols() -> str:
    """Every protocol: what it is, its paths, and what it reads and writes; from its module and the app's routes."""
    rules = [
        (rule.rule.replace("<segment:", "{").replace(">", "}"), rule.methods or set())
        for rule in create_app().url_map.iter_rules()
    ]
    lines = ["| protocol | paths below `/protocols/<protocol>` | reads | writes |", "|---|---|---|---|"]
    for name, codec in PROTOCOLS.items():
        prefix = f"/protocols/{name}"
        paths = [
            f"{method} `{path.removeprefix(prefix)}`"
            for path, methods in sorted(rules)
            if path.startswith(f"{prefix}/")
            for method in sorted(methods & {"GET", "POST"})
        ]
        types = [", ".join(f"`{each}`" for each in kinds) for kinds in (codec.REQUEST_TYPES, codec.RESPONSE_TYPES)]
        lines.append(f"| `{name}` | {', '.join(paths)} | {' | '.join(types)} |")
    return "\n".join(lines)


PARTS: dict[str, Callable[[], str]] = {
    "problems": problems,
    "protocols": protocols,
    "settings": settings,
    "commands": commands,
    "speed": speed,
    "choice": choice,
    "deployment": deployment,
}


def render(text: str) -> str:
    """Return README.md with its generated parts made anew."""
    return PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}\n{part[3]}", text)


if __name__ == "__main__":
    README.write_text(render(README.read_text()))
