"""Facts: each platform's file is data with sources and dates, and what nobody confirms is marked where it is shown."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from shlex import split
from typing import Any

import pytest
from flask.testing import FlaskCliRunner

from service.errors import PlatformError
from service.platforms.checks import CHECKS
from service.platforms.declared import BUILDS
from service.platforms.declared import RULES as START_RULES
from service.platforms.facts import FOLDER, Group, Platform, chosen, platforms, read
from service.platforms.rehearsal.install import BY_HASHES
from service.platforms.story import MARK, comparison, story
from service.platforms.upload import RULES as UPLOAD_RULES
from tests.platforms.trees import EVERY

GROUPS = [(name, group) for name in EVERY for group, _ in platforms()[name].groups()]


def test_every_file_is_read() -> None:
    """Every file of the folder is a platform's, and is read under its name."""
    assert sorted(EVERY) == sorted(path.stem for path in FOLDER.glob("*.toml"))
    assert {"heroku", "appengine", "beanstalk", "azure", "pythonanywhere", "render"} <= set(EVERY)


@pytest.mark.parametrize(("name", "group"), GROUPS)
def test_group_has_a_source_and_a_date(name: str, group: str) -> None:
    """Each group of facts says where they were read and on which day, which is not to come."""
    facts = getattr(platforms()[name], group)
    assert facts.source.strip()
    assert facts.checked <= datetime.now(UTC).date()


@pytest.mark.parametrize("name", EVERY)
def test_traps_say_what_to_do_instead(name: str) -> None:
    """Each platform has traps, each with a way around it and a source."""
    traps = platforms()[name].traps
    assert traps
    assert all(trap.what and trap.instead and trap.source for trap in traps)


def test_checks_are_those_that_there_are() -> None:
    """The facts name only checks that there are, and each check is looked at somewhere."""
    named = {check for platform in platforms().values() for check in platform.checks}
    assert named == CHECKS.keys()


@pytest.mark.parametrize("name", EVERY)
def test_rules_are_those_that_there_are(name: str) -> None:
    """How files are chosen, what is built and how the start line is read is known for each platform."""
    platform = platforms()[name]
    assert platform.upload.rule in UPLOAD_RULES
    assert platform.build.rule in BUILDS
    assert platform.start.rule in START_RULES


@pytest.mark.parametrize("name", EVERY)
def test_step_has_a_place_where_there_is_one(name: str) -> None:
    """A step stands where a platform looks for one; only where bytecode would be lost is one needed."""
    build = platforms()[name].build
    assert bool(build.step) == bool(build.place) == (build.rule != "none")
    assert not (build.step and build.keeps_bytecode)


def test_step_is_the_same_everywhere() -> None:
    """One line compiles the service on every platform that runs one, by hashes, which hold wherever dates do not."""
    [step] = {platform.build.step for platform in platforms().values() if platform.build.step}
    assert "checked-hash" in step


@pytest.mark.parametrize("name", [name for name in EVERY if platforms()[name].build.rule == "setting"])
def test_setting_is_the_step(name: str) -> None:
    """Where a setting holds the step, the commands set it."""
    platform = platforms()[name]
    assert platform.deploy.settings[platform.build.place] == platform.build.step


@pytest.mark.parametrize("name", EVERY)
def test_libraries_are_compiled_by_hashes_where_dates_are_lost(name: str) -> None:
    """Where files get other dates after the build, pip is told to go by hashes."""
    platform = platforms()[name]
    assert platform.build.redates == (BY_HASHES in platform.deploy.settings)


@pytest.mark.parametrize("name", EVERY)
def test_port_is_where_the_environment_says(name: str) -> None:
    """A platform that gives PORT has a port to give, and one that gives a socket has none."""
    start = platforms()[name].start
    if "PORT" in start.environment:
        assert start.environment["PORT"] == "{port}" and start.port is not None
    assert (start.port is None) == (start.front == "socket")


@pytest.mark.parametrize("name", EVERY)
def test_environment_is_filled_in(name: str) -> None:
    """No name in braces is left in the environment, and what the deploy commands set is in it."""
    platform = platforms()[name]
    filled = platform.environment(4321, Path("/run/socket"), 512)
    assert not [value for value in filled.values() if re.search(r"\{\w+\}", value)]
    assert platform.deploy.settings.items() <= filled.items()
    assert filled.get("PORT", "4321") == "4321"


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("part", ["prepare", "console", "push"])
def test_commands_are_filled_in(name: str, part: str) -> None:
    """No name in braces is left in a command, but for what the platform's own shell fills in."""
    platform = platforms()[name]
    templates = getattr(platform.deploy, part)
    commands = platform.commands(templates, "my-app", "3.12")
    assert len(commands) == len(templates)
    assert not [command for command in commands if re.search(r"(?<!\$)\{", command)]


@pytest.mark.parametrize("name", EVERY)
def test_commands_are_read_by_a_shell(name: str) -> None:
    """A setting of several words reaches the platform's tool as one."""
    platform = platforms()[name]
    words = [
        word for command in platform.commands(platform.deploy.prepare, "my-app", "3.12") for word in split(command)
    ]
    given = {f"{key}={value}" for key, value in platform.deploy.settings.items()}
    assert platform.deploy.console or given <= set(words)


@pytest.mark.parametrize("name", EVERY)
def test_settings_reach_the_platform(name: str) -> None:
    """What must be set by a command is set by one: each setting stands in a command as its name and value."""
    platform = platforms()[name]
    deploy = platform.deploy
    told = " ".join(platform.commands(deploy.prepare + deploy.console + deploy.push, "my-app", "3.12"))
    assert all(f"{key}={value}" in told for key, value in deploy.settings.items())


@pytest.mark.parametrize("name", EVERY)
def test_line_reaches_the_platform(name: str) -> None:
    """A start line that no file holds stands in a command as it is."""
    platform = platforms()[name]
    told = " ".join(platform.commands(platform.deploy.prepare + platform.deploy.console, "my-app", "3.12"))
    assert platform.start.line in told
    assert bool(platform.start.line) == (platform.start.rule == "given")


@pytest.mark.parametrize("name", EVERY)
def test_sizes_are_offered_smallest_first(name: str) -> None:
    """The first size that fits is the smallest."""
    memory = [size.memory_mib for size in platforms()[name].sizes.offered]
    assert memory == sorted(memory)


# Files that are refused


def document(name: str = "heroku") -> dict[str, Any]:
    """A platform's file as it is."""
    return tomllib.loads((FOLDER / f"{name}.toml").read_text())


def written(path: Path, changes: Callable[[str], str]) -> Path:
    """Write a changed copy of Heroku's file."""
    text = (FOLDER / "heroku.toml").read_text()
    assert changes(text) != text
    path.write_text(changes(text))
    return path


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("start_s = 60", "start_seconds = 60", "limits.start_seconds"),
        ('marker = "DYNO"', 'marker = "DYNO"\ncolour = "violet"', "colour"),
        ("[[traps]]", "[[traps]]\nhow = 1", "traps.0.how"),
        ("start_s = 60", 'unconfirmed = ["start"]\nstart_s = 60', "names no fact of this group: start"),
        ('default = "basic"', 'default = "tiny"', "'tiny' is not among the sizes offered"),
        ('rule = "commits"', 'rule = "svn"', "upload.rule"),
        ("checked = 2026-11-22", 'checked = "lately"', "checked"),
        ('best_for = "the', 'best = "the', "best_for"),
        ("start_s = 60", "start_s = ", "not a file of facts"),
        ("start_s = 60", "start_s = 60\nstart_s = 61", "not a file of facts"),
    ],
)
def test_file_that_is_no_file_of_facts_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    """A key that is not known, a fact that is missing or of another kind is refused by name."""
    path = written(tmp_path / "heroku.toml", lambda text: text.replace(old, new, 1))
    with pytest.raises(PlatformError, match=r"^heroku\.toml is not a file of facts") as refused:
        read(path)
    assert says in refused.value.detail


@pytest.mark.parametrize("group", [name for name, _ in platforms()["heroku"].groups()])
def test_group_without_a_source_is_refused(group: str) -> None:
    """Facts that come from nowhere are none."""
    facts = document()
    del facts[group]["source"]
    with pytest.raises(ValueError, match=rf"{group}\.source"):
        Platform.model_validate(facts)


def test_file_under_another_name_is_refused(tmp_path: Path) -> None:
    """A file whose name is not the platform's is refused, so that no platform is read twice or not at all."""
    path = tmp_path / "herku.toml"
    path.write_text((FOLDER / "heroku.toml").read_text())
    with pytest.raises(PlatformError, match=r"^herku\.toml names the platform 'heroku'"):
        read(path)


# Choosing


def test_all_chooses_every_platform() -> None:
    """`all` is every platform, in one order."""
    assert [platform.name for platform in chosen("all")] == EVERY


@pytest.mark.parametrize(
    ("name", "nearest"), [("herku", "heroku"), ("app-engine", "appengine"), ("elasticbeanstalk", "beanstalk")]
)
def test_name_that_is_no_platform_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    """A slip of the pen is answered with what was meant."""
    with pytest.raises(PlatformError, match=f"did you mean {nearest}\\?; `flask platforms` lists them"):
        chosen(name)


def test_name_that_is_far_from_any_is_refused() -> None:
    """Where nothing is near, nothing is suggested."""
    with pytest.raises(PlatformError, match=r"^there is no platform 'x'; `flask platforms` lists them$"):
        chosen("x")


# Telling


def shown(group: Group) -> list[str]:
    """The facts of a group that have a value to show."""
    fields = type(group).model_fields.keys() - Group.model_fields.keys()
    within_commands = {"settings"}
    return sorted(name for name in fields - within_commands if getattr(group, name) not in (None, (), {}, ""))


@pytest.mark.parametrize("name", EVERY)
def test_story_tells_every_fact_with_its_source(name: str) -> None:
    """The story has each group with its source and date, each command and each trap."""
    platform = platforms()[name]
    text = "\n".join(story(platform, "3.12"))
    for _, group in platform.groups():
        assert f"({group.source}, {group.checked})" in text
    for part in (platform.deploy.prepare, platform.deploy.console, platform.deploy.push):
        assert all(command in text for command in platform.commands(part, "my-app", "3.12"))
    assert all(trap.what in text and trap.instead in text and trap.source in text for trap in platform.traps)


@pytest.mark.parametrize(("name", "group"), GROUPS)
def test_story_marks_what_nobody_confirms(name: str, group: str) -> None:
    """Each fact that the story shows is marked there were it unconfirmed."""
    platform = platforms()[name]
    facts = getattr(platform, group).model_copy(update={"unconfirmed": ()})

    def marks(*unconfirmed: str) -> int:
        doubted = facts.model_copy(update={"unconfirmed": unconfirmed})
        return "\n".join(story(platform.model_copy(update={group: doubted}), "3.12")).count(MARK)

    assert [fact for fact in shown(facts) if marks(fact) == marks()] == []


COLUMNS = {
    ("choice", "best_for"): "best for",
    ("choice", "free"): "for nothing",
    ("choice", "sleeps"): "sleeps",
    ("choice", "growing"): "growing",
    ("sizes", "offered"): "memory from",
    ("limits", "request_s"): "a request may take",
    ("limits", "body_mib"): "a body may have",
    ("start", "threads"): "threads",
}


@pytest.mark.parametrize(("group", "fact"), COLUMNS)
def test_comparison_marks_what_nobody_confirms(group: str, fact: str) -> None:
    """Each fact of the comparison is marked where it is unconfirmed, and only then."""
    platform = platforms()["pythonanywhere"]
    facts = getattr(platform, group)

    def cell(*unconfirmed: str) -> str:
        doubted = facts.model_copy(update={"unconfirmed": unconfirmed})
        return comparison(platform.model_copy(update={group: doubted}))[COLUMNS[group, fact]]

    assert cell(fact) == cell() + MARK


def test_comparison_has_the_same_columns_for_each() -> None:
    """Platforms can be compared: each has the same columns, none of them empty."""
    rows = [comparison(platform) for platform in platforms().values()]
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert all(all(row.values()) for row in rows)


def test_limit_that_nobody_documents_is_told_so() -> None:
    """A limit without a number is told as one that is not documented."""
    assert comparison(platforms()["heroku"])["a body may have"] == "not documented"


# The command


def test_platforms_compares(runner: FlaskCliRunner) -> None:
    """Without a name the command compares all platforms and says how to read on."""
    done = runner.invoke(args=["platforms"], catch_exceptions=False)
    assert done.exit_code == 0
    assert all(f"({name})" in done.stdout for name in EVERY)
    assert "flask platforms appengine" in done.stdout


def test_platforms_tells_one_story(runner: FlaskCliRunner) -> None:
    """With a name the command tells that platform's story alone."""
    done = runner.invoke(args=["platforms", "heroku"], catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (0, "\n".join(story(platforms()["heroku"], "3.12")) + "\n")


def test_platforms_refuses_an_unknown_name(runner: FlaskCliRunner) -> None:
    """A name that is no platform ends with status 1 and the nearest one."""
    done = runner.invoke(args=["platforms", "herku"], catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "did you mean heroku?" in done.stderr
