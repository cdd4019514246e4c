"""A platform's facts as text: one line each side by side, or one platform's whole story."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from service.platforms.facts import Group, Platform, Size

MARK = " (unconfirmed)"
UNITS = {"_s": " s", "_mib": " MiB"}


def told(group: Group, field: str, unit: str = "", absent: str = "not documented") -> str:
    """Return a fact as text, marked where nobody confirms it."""
    value: Any = getattr(group, field)
    if value is None:
        return absent
    return _text(value) + (f" {unit}" if unit else "") + _mark(group, field)


def _mark(group: Group, *fields: str) -> str:
    return MARK if set(fields) & set(group.unconfirmed) else ""


def comparison(platform: Platform) -> dict[str, str]:
    """Return what helps to choose among platforms, by the column's title."""
    return {
        "platform": platform.title,
        "best for": told(platform.choice, "best_for"),
        "for nothing": told(platform.choice, "free"),
        "sleeps": told(platform.choice, "sleeps"),
        "memory from": f"{platform.sizes.offered[0].memory_mib} MiB{_mark(platform.sizes, 'offered')}",
        "a request may take": told(platform.limits, "request_s", "s"),
        "a body may have": told(platform.limits, "body_mib", "MiB"),
        "threads": told(platform.start, "threads"),
        "growing": told(platform.choice, "growing"),
    }


def story(platform: Platform, python: str) -> Iterator[str]:
    """Yield the lines of one platform's whole story; its commands are for an app `my-app` and this Python."""

    def filled(templates: tuple[str, ...]) -> list[str]:
        return platform.commands(templates, "my-app", python)

    yield f"{platform.title}: {platform.choice.best_for}"
    yield ""
    yield from _group("Files", platform.upload)
    yield from _group("Build", platform.build)
    yield from _group("Start", platform.start)
    yield from _group("Limits", platform.limits)
    yield from _group("Sizes", platform.sizes)
    yield from _group("Python", platform.python)
    yield from _group("Traffic", platform.traffic)
    yield from _group("Choice", platform.choice)
    yield from _deploy(platform, filled)
    yield ""
    yield "Traps"
    for trap in platform.traps:
        yield f"  {trap.what}"
        yield f"    instead: {trap.instead} ({trap.source})"


def _deploy(platform: Platform, filled: Callable[[tuple[str, ...]], list[str]]) -> Iterator[str]:
    deploy = platform.deploy
    yield f"Deploy ({deploy.source}, {deploy.checked})"
    yield f"  the tool: {deploy.tool}{_mark(deploy, 'tool')}, from {deploy.install_tool}{_mark(deploy, 'install_tool')}"
    for title, field in (("once", "prepare"), ("once, in a console there", "console"), ("each time", "push")):
        yield from (f"  {title}: {command}{_mark(deploy, field)}" for command in filled(getattr(deploy, field)))
    yield f"  the address: {filled((deploy.address,))[0]}{_mark(deploy, 'address', 'settings')}"
    if deploy.ask_address:
        asked, marks = filled((deploy.ask_address,))[0], _mark(deploy, "ask_address", "address_in")
        yield f"  asked with: {asked}, which prints it as {deploy.address_in}{marks}"
    yield f"  built after the commands have ended: {told(deploy, 'builds_later')}"


def _group(title: str, group: Group) -> Iterator[str]:
    yield f"{title} ({group.source}, {group.checked})"
    for field in type(group).model_fields:
        if field not in Group.model_fields and getattr(group, field) not in (None, (), {}, ""):
            label, unit = next(
                ((field[: -len(end)], unit) for end, unit in UNITS.items() if field.endswith(end)), (field, "")
            )
            mark = _mark(group, field)
            yield f"  {label.replace('_', ' ')}: {_text(getattr(group, field))}{unit}{mark}"
    yield ""


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    if isinstance(value, Size):
        return f"{value.name} {value.memory_mib} MiB"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value) or "its own folder"
