"""The upload: exactly the files that a platform would receive, chosen by its own rules, and written as it wants them.

git knows both git's commits and the patterns that ignore files are made of, so it is asked for both.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from service.errors import PlatformError
from service.platforms.facts import Platform

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every file in an archive, so that the same tree makes the same bytes."""
MIB = 2**20
OTHERS = [
    word
    for name in ("DIR", "WORK_TREE", "INDEX_FILE", "OBJECT_DIRECTORY", "COMMON_DIR", "PREFIX")
    for word in ("-u", f"GIT_{name}")
]
"""What git tells its hooks of the repository that they are called for. Source: git rev-parse --local-env-vars."""
INCLUDE = re.compile(r"#\s*!include:\s*(\S.*?)\s*")
GCLOUD_DEFAULT = [".gcloudignore", ".git", ".gitignore", "__pycache__/", "/setup.cfg"]
"""What gcloud leaves out by itself. Source: gcloud 578.0.0 command_lib/util/gcloudignore.py."""


@dataclass(frozen=True)
class Uploaded:
    """One file of an upload."""

    path: str
    content: bytes
    executable: bool


@dataclass(frozen=True)
class Upload:
    """What a platform would receive."""

    platform: Platform
    files: tuple[Uploaded, ...]
    """In the order of their paths."""

    @property
    def size_mib(self) -> float:
        """The sum of the files."""
        return sum(len(file.content) for file in self.files) / MIB

    def text(self, path: str) -> str | None:
        """Return a file's text, None if it is not uploaded."""
        for file in self.files:
            if file.path == path:
                return file.content.decode("utf-8", "replace")
        return None

    def write_folder(self, folder: Path) -> None:
        """Write the files into an empty folder."""
        for file in self.files:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.content)
            target.chmod(0o755 if file.executable else 0o644)

    def write_zip(self, target: Path) -> None:
        """Write the files as an archive whose bytes depend on nothing else."""
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in self.files:
                entry = zipfile.ZipInfo(file.path, EPOCH)
                entry.create_system = 3  # Unix, which the next line is for
                entry.external_attr = (stat.S_IFREG | (0o755 if file.executable else 0o644)) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, file.content)


def gather(platform: Platform, root: Path) -> Upload:
    """Choose what a platform would receive of the tree in `root`.

    Raises:
        PlatformError: If it takes commits, and there are none.
    """
    files = RULES[platform.upload.rule](root, platform.upload.ignore_file)
    return Upload(platform, tuple(sorted(files, key=lambda file: file.path)))


def write(upload: Upload, out: Path) -> Path:
    """Write an upload in the platform's form, in place of what `out` held.

    Returns:
        The folder or the archive.

    Raises:
        PlatformError: If `out` is a folder with something else in it.
    """
    note, name = out / ".anyport-bundle", upload.platform.name
    if out.is_dir() and any(out.iterdir()) and not note.exists():
        raise PlatformError(f"{out} holds something else; name an empty folder with -o, or one that does not exist")
    out.mkdir(parents=True, exist_ok=True)
    note.touch()
    if upload.platform.upload.form == "zip":
        upload.write_zip(out / f"{name}.zip")
        return out / f"{name}.zip"
    shutil.rmtree(out / name, ignore_errors=True)
    (out / name).mkdir()
    upload.write_folder(out / name)
    return out / name


def committed(root: Path, ignore_file: str | None) -> list[Uploaded]:
    """What a clone of the last commit holds, but for what its ignore file names; there `!` takes nothing back."""
    git(root, "rev-parse", "HEAD")
    top, inside = git(root, "rev-parse", "--show-toplevel", "--show-prefix").decode().split("\n")[:2]
    with tempfile.TemporaryDirectory() as name:
        git(root, "-c", "core.autocrlf=false", "clone", "--quiet", "--depth=1", "--", f"file://{quote(top)}", name)
        tree = Path(name, inside)
        file = tree / (ignore_file or "")
        patterns = file.read_text(errors="replace").splitlines() if file.is_file() else []
        paths = _paths(tree, lambda name: name == ".git")
        kept = _without(paths, [pattern for pattern in patterns if not pattern.startswith("!")])
        return _read(tree, kept, within=True)


def gcloud(root: Path, ignore_file: str | None) -> list[Uploaded]:
    """The working tree, but for what .gcloudignore names; without one, gcloud leaves out little."""
    file = root / (ignore_file or "")
    patterns = (
        list(_included(root, file.read_text(errors="replace").splitlines())) if file.is_file() else GCLOUD_DEFAULT
    )
    named = _without([".git/HEAD"], patterns) == []  # asked first, because it may be large
    return _read(root, _without(_paths(root, lambda name: named and name == ".git"), patterns))


def beanstalk(root: Path, ignore_file: str | None) -> list[Uploaded]:
    """`git archive`; or, with .ebignore, the working tree but for what that names and a little that eb leaves out."""
    file = root / (ignore_file or "")
    if not file.is_file():
        return _archive(root)
    paths = _paths(root, lambda name: ".elasticbeanstalk" in name)
    kept = [path for path in paths if path != ignore_file and not path.endswith("~")]
    return _read(root, _without(kept, file.read_text(errors="replace").splitlines()), within=True)


def azure(root: Path, ignore_file: str | None) -> list[Uploaded]:
    """The working tree, but for folders with `env` in their names, files named .env, and links."""
    paths = _paths(root, lambda name: "env" in name, links=False)
    return _read(root, [path for path in paths if Path(path).name != ".env"])


RULES: dict[str, Callable[[Path, str | None], list[Uploaded]]] = {
    "commits": committed,
    "gcloudignore": gcloud,
    "ebignore": beanstalk,
    "azure": azure,
}


def git(root: Path, *arguments: str, given: bytes = b"", fine: tuple[int, ...] = (0,)) -> bytes:
    """Ask git about a tree.

    Raises:
        PlatformError: If git is missing, or refuses.
    """
    try:
        command = ["env", *OTHERS, "git", "-C", str(root), *arguments]
        done = subprocess.run(command, input=given, capture_output=True)
    except FileNotFoundError as error:
        raise PlatformError("env is not installed") from error
    if done.returncode == 127:
        raise PlatformError("git is not installed; install it from https://git-scm.com/downloads")
    if done.returncode not in fine:
        said = done.stderr.decode(errors="replace").strip()
        raise PlatformError(f"git {arguments[0]} in {root}: {said}; the platform takes what is committed")
    return done.stdout


def _archive(root: Path) -> list[Uploaded]:
    found = []
    with tarfile.open(fileobj=io.BytesIO(git(root, "archive", "--format=tar", "HEAD"))) as archive:
        for member in archive:
            try:
                content = archive.extractfile(member) if member.isfile() or member.issym() else None
            except KeyError as error:
                raise PlatformError(f"{member.name} is a link to {member.linkname}, which is not committed") from error
            if content is not None:
                found.append(Uploaded(member.name, content.read(), bool(member.mode & 0o100)))
    _named([file.path for file in found])
    return found


def _paths(root: Path, left_out: Callable[[str], bool], *, links: bool = True) -> list[str]:
    """Every file below a folder, but for what is in folders of certain names; links are followed, or left out."""
    found = []
    for folder, folders, names in os.walk(root, followlinks=links):
        here = [Path(folder, name) for name in folders if not left_out(name)]
        folders[:] = [path.name for path in here if not path.is_symlink() or (links and _leads_down(path))]
        for path in (Path(folder, name) for name in names):
            if links if path.is_symlink() else path.is_file():
                found.append(path.relative_to(root).as_posix())
    return _named(found)


def _named(paths: list[str]) -> list[str]:
    """Refuse names that are no UTF-8."""
    for path in paths:
        if not path.isprintable() and path.encode(errors="replace").decode() != path:
            raise PlatformError(f"the name {path!r} is not in UTF-8; rename the file")
    return paths


def _leads_down(link: Path) -> bool:
    """Whether a link to a folder does not lead back to one that it is in."""
    return link.resolve() not in link.parent.resolve().parents and link.resolve() != link.parent.resolve()


def _read(root: Path, paths: list[str], *, within: bool = False) -> list[Uploaded]:
    """Read files.

    Args:
        root: Where they are.
        paths: Relative to it.
        within: Whether links must stay below it: what they lead to elsewhere is nobody's to upload.

    Raises:
        PlatformError: If a link leads nowhere, or out of the tree where it must not.
    """
    for path in paths:
        for link in (
            part for part in (root / path, *(root / path).parents) if root in part.parents and part.is_symlink()
        ):
            if not (root / path).exists() or (within and not link.resolve().is_relative_to(root.resolve())):
                where = link.relative_to(root).as_posix()
                raise PlatformError(f"{where} is a link to {os.readlink(link)}, which is not uploaded")
    return [Uploaded(path, (root / path).read_bytes(), os.access(root / path, os.X_OK)) for path in paths]


def _without(paths: list[str], patterns: list[str]) -> list[str]:
    """Leave out what patterns in git's way name."""
    with tempfile.TemporaryDirectory() as name:
        empty = Path(name)
        git(empty, "init", "--quiet")
        (empty / ".git" / "info").mkdir(exist_ok=True)
        (empty / ".git" / "info" / "exclude").write_text("\n".join(patterns))
        asked = ("-c", "core.excludesFile=", "check-ignore", "--no-index", "-z", "--stdin")
        named = git(empty, *asked, given=b"".join(path.encode() + b"\0" for path in paths), fine=(0, 1))
    ignored = set(named.decode().split("\0"))
    return [path for path in paths if path not in ignored]


def _included(root: Path, patterns: Iterable[str]) -> Iterator[str]:
    """Put the patterns of other files in the place of gcloud's `#!include:` lines."""
    for pattern in patterns:
        if directive := INCLUDE.fullmatch(pattern):
            other = root / directive[1]
            if not other.is_file():
                raise PlatformError(f".gcloudignore includes {directive[1]}, which is not there; gcloud refuses that")
            yield from other.read_text(errors="replace").splitlines()
        else:
            yield pattern
