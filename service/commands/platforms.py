"""`flask platforms`, `flask preflight`, `flask bundle`: what is known, what would go wrong, what would be uploaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from service.commands.console import echo_json, plain_errors, tell
from service.errors import PlatformError
from service.platforms import upload as uploads
from service.platforms.facts import Platform, chosen, platforms
from service.platforms.findings import Finding
from service.platforms.preflight import preflight, survey_ground
from service.platforms.push import push
from service.platforms.story import comparison, story
from service.platforms.upload import Upload
from service.settings import Settings
from service.trial import Limits

ROOT = Path(__file__).resolve().parent.parent.parent
"""The checkout."""
TRIAL = Limits(timeout_s=300)


def make_commands(settings: Settings) -> Iterator[click.Command]:
    """Make the commands."""
    yield _make_platforms()
    yield _make_preflight(settings)
    yield _make_bundle(settings)


def _make_platforms() -> click.Command:
    @click.command("platforms")
    @click.argument("name", required=False)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def list_platforms(name: str | None, as_json: bool) -> None:
        """Compare the platforms, or tell the whole story of platform NAME: files, limits, commands, traps."""
        with plain_errors(as_json):
            found = chosen(name or "all")
            python = python_version()
        if as_json:
            echo_json([platform.model_dump(mode="json") for platform in found])
        elif name is None:
            _print_comparison(found)
        else:
            click.echo("\n".join(line for platform in found for line in story(platform, python)))

    return list_platforms


def _make_preflight(settings: Settings) -> click.Command:
    @click.command("preflight")
    @click.argument("platform")
    @click.option("--fix", is_flag=True, help="Mend what can be mended mechanically.")
    @click.option("--wheels", is_flag=True, help="Also ask the package index for wheels for the platform's Python.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def run_preflight(platform: str, fix: bool, wheels: bool, as_json: bool) -> None:
        """Look at the tree as PLATFORM, or `all`, would receive it, and say what would go wrong there.

        Exit status 1 if there is an error.
        """
        with plain_errors(as_json):
            wanted = chosen(platform)
            tell("opening the models in a process of their own")
            ground = survey_ground(ROOT, settings.policy, TRIAL, datetime.now(UTC).date())
            found: list[Finding] = []
            for one in wanted:
                tell(f"looking at the tree as {one.title} would")
                found += preflight(one, ground, wheels=wheels)
            mended = _mend(found) if fix else []
        if as_json:
            echo_json([_plain(finding) | {"mended": finding in mended} for finding in found])
        else:
            _print_findings(found, mended, wanted)
        sys.exit(any(finding.level == "error" for finding in found if finding not in mended))

    return run_preflight


def _make_bundle(settings: Settings) -> click.Command:
    @click.command("bundle")
    @click.argument("platform")
    @click.option(
        "-o", "--output", type=click.Path(path_type=Path), help="A folder; by default one in ANYPORT_CACHE_DIR."
    )
    @click.option("--push", "user", metavar="USER", help="Also upload it to this user's ~/anyport on PythonAnywhere.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def bundle(platform: str, output: Path | None, user: str | None, as_json: bool) -> None:
        """Write exactly what PLATFORM, or each of `all`, would receive, and stop.

        --push uses PythonAnywhere's own client, which reads API_TOKEN and PYTHONANYWHERE_USERNAME.
        """
        with plain_errors(as_json):
            if user and not platform.startswith("pythonanywhere"):
                raise PlatformError(f"--push is PythonAnywhere's; for {platform} see: flask platforms {platform}")
            gathered = [uploads.gather(one, ROOT) for one in chosen(platform)]  # all, before the first is written
            where = output or settings.cache_dir.expanduser() / "bundles"
            whole = output is not None and platform != "all"
            rows = [_bundle(one, where if whole else where / one.platform.name) for one in gathered]
            if user:
                _push(gathered[0], user, Path(rows[0]["written"]), settings.cache_dir.expanduser())
        if as_json:
            echo_json(rows)
            return
        for row in rows:
            for file in row["files"]:
                click.echo(f"{file['bytes']:>10}  {file['path']}")
            click.echo(f"{row['written']}: {len(row['files'])} files, {row['mib']} MiB")

    return bundle


def python_version() -> str:
    """The Python that the tree asks for."""
    file = ROOT / ".python-version"
    if not file.is_file():
        raise PlatformError(f"{file} is missing; write 3.12 into it")
    return file.read_text().strip()


def _push(upload: Upload, user: str, folder: Path, cache: Path) -> None:
    count = push(upload, folder, f"/home/{user}/anyport", cache / "pushed" / f"{user}.json", tell)
    click.echo(f"{count} files were brought to /home/{user}/anyport", err=True)


def _bundle(upload: Upload, output: Path) -> dict[str, Any]:
    written = uploads.write(upload, output)
    return {
        "platform": upload.platform.name,
        "written": str(written),
        "mib": round(upload.size_mib, 2),
        "files": [{"path": file.path, "bytes": len(file.content)} for file in upload.files],
    }


def _mend(found: list[Finding]) -> list[Finding]:
    """Mend what can be; return the findings that it ends."""
    mended = []
    for finding in found:
        if finding.mend is not None and finding.mend.apply(ROOT):
            mended.append(finding)
    return mended


def _plain(finding: Finding) -> dict[str, Any]:
    return {name: value for name, value in asdict(finding).items() if name != "mend"}


def _print_findings(found: list[Finding], mended: list[Finding], wanted: list[Platform]) -> None:
    for finding in found:
        done = " (mended; look at it and commit it)" if finding in mended else ""
        click.echo(f"{finding.level}: {finding.id}: {finding.what}{done}")
        click.echo(f"  why: {finding.why}\n  fix: {finding.fix}\n  source: {finding.source}")
    for platform in wanted:
        levels = [finding.level for finding in found if finding.id.startswith(f"{platform.name}.")]
        click.echo(f"{platform.title}: {_count(levels, 'error')}, {_count(levels, 'warning')}")


def _count(levels: Sequence[str], level: str) -> str:
    number = levels.count(level)
    return f"{number or 'no'} {level}{'' if number == 1 else 's'}"


def _print_comparison(found: list[Platform]) -> None:
    for platform in found:
        for title, text in comparison(platform).items():
            click.echo(f"{text} ({platform.name})" if title == "platform" else f"  {title + ':':<20} {text}")
    click.echo(f"\nthe whole story of one: flask platforms {next(iter(platforms()))}")
