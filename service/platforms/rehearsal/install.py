"""The libraries of an upload, in a clean virtual environment of the platform's Python, kept for the next time."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from service.errors import PlatformError

INSTALL_S = 900
UWSGI = "pyuwsgi==2.0.26; python_version < '3.13'\npyuwsgi==2.0.30; python_version >= '3.13'\n"
"""The last uWSGI that runs no threads unless told to, and for a Python that it has no wheel for, one that does."""


BY_HASHES = "SOURCE_DATE_EPOCH"
"""With it pip's bytecode goes by hashes. Source: docs.python.org/3/library/py_compile.html, read 2026-11-23."""
LATER_S = 60
"""How much later than before files are dated that lose their dates."""


@dataclass(frozen=True)
class Installed:
    """A virtual environment, and what is to be said of it."""

    folder: Path
    minor: str
    """Its version of Python, such as 3.12."""
    said: str

    def program(self, name: str) -> str:
        """Return the path of one of its programs."""
        return str(self.folder / "bin" / name)

    @property
    def packages(self) -> Path:
        """Where the libraries are."""
        return self.folder / "lib" / f"python{self.minor}" / "site-packages"


def find_python(minor: str) -> tuple[str, str, str]:
    """Return an interpreter, its version and nothing; or, without one of this version, what to say of that."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here == minor:
        return getattr(sys, "_base_executable", sys.executable), here, ""
    for found in (shutil.which(f"python{minor}"), *sorted(Path.home().glob(f".pyenv/versions/{minor}.*/bin/python"))):
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return str(found), minor, ""
    return sys.executable, here, f"; Python {minor} is not installed here, so {here} was used"


def install(
    requirements: str, minor: str, cache: Path, settings: Mapping[str, str] | None = None, *, redated: bool = False
) -> Installed:
    """Install requirements with pip, as the platform does, and have pip check that they agree.

    Args:
        requirements: The text of requirements.txt.
        minor: The platform's Python, such as 3.12.
        cache: Where environments are kept, by what is installed in them and how.
        settings: What pip finds in its environment there; only what changes its bytecode is passed on.
        redated: Whether every file gets another date, which an environment of its own is kept for.

    Raises:
        PlatformError: If pip fails; it says with what.
    """
    python, used, remark = find_python(minor)
    variable = f"{BY_HASHES}={settings[BY_HASHES]}" if settings and BY_HASHES in settings else ""
    key = hashlib.sha256(f"{python}\n{variable}{'redated' * redated}{requirements}".encode()).hexdigest()[:16]
    installed = Installed(cache / "rehearsal" / key, used, f"as installed before{remark}")
    if not (installed.folder / "done").exists():
        _install(installed.folder, python, requirements, variable)
        installed = replace(installed, said=f"installed with pip, which finds no conflict{remark}")
    if redated:
        date_anew(installed.packages)
    return installed


def _install(folder: Path, python: str, requirements: str, variable: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "requirements.txt").write_text(requirements)
    _run(python, "-m", "venv", str(folder))
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    _run(*(["env", variable] if variable else []), *pip, "install", "--quiet", "-r", str(folder / "requirements.txt"))
    _run(*pip, "check")
    (folder / "done").touch()


def date_anew(folder: Path) -> None:
    """Give every module another date, as a copy does that does not keep them."""
    for path in folder.rglob("*.py"):
        then = path.stat().st_mtime + LATER_S
        os.utime(path, (then, then))


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired as error:
        raise PlatformError(f"{' '.join(command[1:4])} took more than {INSTALL_S} s") from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise PlatformError(f"`{' '.join(command[1:5])}` failed: {errors[0] if errors else done.returncode}")
