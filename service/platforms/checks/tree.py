"""Checks of the upload as files: what is missing, too much, secret, or not what git has."""

from __future__ import annotations

import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

from service.platforms.facts import STALE_DAYS
from service.platforms.findings import Candidate, Finding, Mend
from service.platforms.upload import MIB, Uploaded, git

PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[\w, -]*\])?\s*==\s*([^\s;\\]+)", re.MULTILINE)
REQUIREMENT = re.compile(r"^[A-Za-z0-9]")
LOCKS = ("uv.lock", "poetry.lock", "Pipfile.lock", "Pipfile")
SECRET_FILES = re.compile(
    r"\.env(\.(?!example$|sample$|template$).+)?|.*\.(pem|p12|pfx|key)|id_(rsa|dsa|ecdsa|ed25519)|\.netrc|\.pypirc|credentials(\.json)?"
    r"|(service[-_]?account|client[-_]secret).*\.json"
)
SECRET_NAMES = re.compile(r"(?i)(^|_)(secret|password|passwd|token|api_?key|private_?key|credentials?)($|_)")
TOKEN = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
PLAIN = re.compile(r"[0-9.]*|true|false|yes|no", re.IGNORECASE)
HEX = re.compile(r"[0-9a-f]{32,}")
KEYS = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[oprsu]_[A-Za-z0-9]{36}\b"
    rb"|\bAIza[0-9A-Za-z_-]{35}\b|\bxox[abprs]-[0-9A-Za-z-]{10,}|\bsk_live_[0-9A-Za-z]{24,}|\bHRKU-[0-9A-Za-z_-]{30,}"
    rb"|\bAccountKey=[A-Za-z0-9+/]{60,}={0,2}"
)
"""Keys that begin in a way of their own: private ones, AWS, GitHub, Google, Slack, Stripe, Heroku, Azure Storage."""
SEARCHED_BYTES = MIB
"""Larger files are no configuration."""
SLUG_SHARE = 0.3
"""What of installed libraries is left once they are compressed: of 390 MiB 110, with tar and gzip, on 2026-11-22."""
TOKEN_BITS = 3.7
"""Bits of entropy for each character, above which a long word is a key rather than a name."""


def requirements(candidate: Candidate) -> Iterator[Finding]:
    """The one package-manager file that all six platforms read, with exact pins."""
    text = candidate.upload.text("requirements.txt")
    if text is None:
        yield candidate.error(
            "no-requirements",
            f"requirements.txt is not among the files that {candidate.platform.title} receives",
            "no library is installed without it",
            "keep requirements.txt in the root, and commit it",
            "section 0 of every platform's page: the one format that all read",
        )
        return
    loose = [line.strip() for line in text.splitlines() if REQUIREMENT.match(line) and not PIN.match(line)]
    if loose:
        yield candidate.error(
            "unpinned-requirement",
            f"requirements.txt does not pin {loose[0]!r}",
            "the platform installs another version than the one that was tried, and a pickle may not load",
            "write the name into requirements.in and run: make lock",
            "scikit-learn.org/stable/model_persistence.html",
        )


def pins(text: str) -> dict[str, str]:
    """Return the exact pins of a requirements file, by name in its normal spelling."""
    return {normal(name): version for name, version in PIN.findall(text)}


def normal(name: str) -> str:
    """Spell a distribution's name as all of its spellings are compared.

    Source: packaging.python.org/en/latest/specifications/name-normalization, read 2026-11-23.
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def gunicorn_required(candidate: Candidate) -> Iterator[Finding]:
    """gunicorn is in requirements.txt where a start line runs it."""
    text = candidate.upload.text("requirements.txt")
    if text and candidate.platform.start.rule != "wsgi-file" and "gunicorn" not in pins(text):
        yield candidate.error(
            "no-gunicorn",
            "requirements.txt does not pin gunicorn",
            "the start line runs gunicorn, and the platform does not install it by itself",
            "write gunicorn==27.0.1 into requirements.in and run: make lock",
            "GoogleCloudPlatform/buildpacks cmd/python/webserver; devcenter.heroku.com/articles/python-gunicorn",
        )


def one_package_manager(candidate: Candidate) -> Iterator[Finding]:
    """No lock file beside requirements.txt."""
    for name in LOCKS:
        if candidate.upload.text(name) is not None:
            yield candidate.error(
                "two-package-managers",
                f"{name} stands beside requirements.txt",
                "the buildpack wants exactly one package manager and ends the build",
                f"git rm {name}",
                "heroku-buildpack-python v351 lib/package_manager.sh",
            )


def committed_environment(candidate: Candidate) -> Iterator[Finding]:
    """No virtual environment among the commits."""
    for file in candidate.upload.files:
        if PurePosixPath(file.path).name == "pyvenv.cfg" or file.path.startswith(".heroku/python/"):
            yield candidate.error(
                "committed-environment",
                f"{file.path} is committed",
                "the buildpack ends the build where it finds a virtual environment",
                f"git rm -r {PurePosixPath(file.path).parent}, and ignore it",
                "heroku-buildpack-python v351 lib/checks.sh",
            )


def uncommitted(candidate: Candidate) -> Iterator[Finding]:
    """Platforms that take commits do not see what is only in the working tree."""
    if candidate.platform.upload.rule not in ("commits", "ebignore") or (candidate.ground.root / ".ebignore").exists():
        return
    status = git(candidate.ground.root, "status", "--porcelain", "--untracked-files=all").decode().splitlines()
    if status:
        yield candidate.warning(
            "uncommitted-changes",
            f"{len(status)} files differ from the last commit, such as {status[0][3:]}",
            f"{candidate.platform.title} receives the last commit",
            "git commit what belongs to it",
            "devcenter.heroku.com/articles/git; awsebcli 3.27.5 fileoperations.py",
        )


def no_dockerfile(candidate: Candidate) -> Iterator[Finding]:
    """No Dockerfile in the root, which `eb init` would prefer."""
    for name in ("Dockerfile", "Dockerrun.aws.json"):
        if candidate.upload.text(name) is not None:
            yield candidate.error(
                "dockerfile",
                f"{name} is in the root",
                "eb init chooses Docker, and Procfile is not read",
                f"move {name} into a folder of its own",
                "awsebcli 3.27.5 ebcli/lib/heuristics.py",
            )


def no_env_folders(candidate: Candidate) -> Iterator[Finding]:
    """No folder that `az webapp up` leaves out without a word."""
    for folder in sorted(_folders_with_env(candidate.ground.root)):
        yield candidate.error(
            "env-folder",
            f"the folder {folder} has `env` in its name",
            "az webapp up takes it for a virtual environment and leaves it out",
            "rename it",
            "azure-cli 2.91.0 appservice/_create_util.py",
        )


def _folders_with_env(root: Path) -> list[str]:
    found = []
    for path, folders, names in os.walk(root):
        hidden = "pyvenv.cfg" in names  # a real virtual environment is rightly left out
        folders[:] = [] if hidden else [name for name in folders if not name.startswith((".", "__"))]
        found += [
            Path(path, name).relative_to(root).as_posix() for name in folders if _is_code_in_env(Path(path, name))
        ]
    return found


def _is_code_in_env(folder: Path) -> bool:
    return "env" in folder.name and not (folder / "pyvenv.cfg").exists()


def hooks_executable(candidate: Candidate) -> Iterator[Finding]:
    """Hooks under .platform can be run."""
    for file in candidate.upload.files:
        if re.match(r"\.platform/(config)?hooks/[^/]+/", file.path) and not file.executable:
            yield candidate.error(
                "hook-not-executable",
                f"{file.path} may not be executed",
                "Elastic Beanstalk ends the deployment with `permission denied`",
                f"git update-index --chmod=+x {file.path}",
                "docs.aws.amazon.com/elasticbeanstalk/latest/dg/platforms-linux-extend.html",
                Mend(file.path),
            )


def sizes(candidate: Candidate) -> Iterator[Finding]:
    """The upload, alone and with its libraries, unpacked and compressed, is within the platform's limits."""
    upload, limits = candidate.upload, candidate.platform.upload
    installed_mib = upload.size_mib + installed_size_mib(pins(upload.text("requirements.txt") or ""))
    source = limits.source
    largest = max(upload.files, key=lambda file: len(file.content), default=None)
    told = f"; the largest file is {largest.path} with {len(largest.content) / MIB:.0f} MiB" if largest else ""
    if limits.upload_limit_mib is not None and upload.size_mib > limits.upload_limit_mib:
        yield candidate.error(
            "upload-too-large",
            f"the upload has {upload.size_mib:.0f} MiB of at most {limits.upload_limit_mib:.0f}{told}",
            "the platform refuses it",
            "leave out what the service does not need",
            source,
        )
    elif limits.unpacked_limit_mib is not None and installed_mib > limits.unpacked_limit_mib:
        yield (candidate.warning if limits.limit_of else candidate.error)(
            "unpacked-too-large",
            f"tree and libraries take about {installed_mib:.0f} MiB of at most {limits.unpacked_limit_mib:.0f}"
            f"{f' ({limits.limit_of})' if limits.limit_of else ''}{told}",
            "the platform refuses it",
            "leave out what the service does not need, or a library from requirements.in",
            source,
        )
    slug_mib = compressed_mib(upload.files) + SLUG_SHARE * (installed_mib - upload.size_mib)
    if limits.slug_limit_mib is not None and slug_mib > limits.slug_limit_mib:
        yield candidate.error(
            "slug-too-large",
            f"tree and libraries take about {slug_mib:.0f} MiB compressed of at most {limits.slug_limit_mib:.0f}{told}",
            "the platform refuses it",
            f"name what the service does not need in {limits.ignore_file}, or take a library from requirements.in",
            source,
        )
    if limits.files_limit is not None and len(upload.files) > limits.files_limit:
        yield candidate.error(
            "too-many-files",
            f"the upload has {len(upload.files)} files of at most {limits.files_limit}",
            "the platform refuses it",
            f"name more of them in {limits.ignore_file}",
            source,
        )


def compressed_mib(files: Iterable[Uploaded]) -> float:
    """Return what files take compressed, in MiB."""
    return sum(len(zlib.compress(file.content, 1)) for file in files) / MIB


def installed_size_mib(pinned: dict[str, str]) -> float:
    """Return what the pinned libraries take where they are installed here, in MiB; those that are not count nothing."""
    total = 0
    for name in pinned:
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue  # a marker keeps it from this machine
        total += sum((file.size or 0) * (2 if file.suffix == ".py" else 1) for file in files)  # with its bytecode
    return total / MIB


def secrets(candidate: Candidate) -> Iterator[Finding]:
    """No key in a file that is uploaded."""
    for file in candidate.upload.files:
        if SECRET_FILES.fullmatch(PurePosixPath(file.path).name):
            ignore = candidate.platform.upload.ignore_file
            mend = f"name it in {ignore}" if ignore else "move it out of the tree, and never commit it"
            yield candidate.error(
                "secret-uploaded",
                f"{file.path} looks like a secret and is uploaded",
                "whoever may read the deployment may read it",
                f"{mend}, and give the value to the platform as a setting",
                candidate.platform.upload.source,
            )
        elif len(file.content) < SEARCHED_BYTES and (key := KEYS.search(file.content)):
            yield candidate.error(
                "secret-in-file",
                f"{file.path} holds a key that begins with {key[0][:8].decode()!r}",
                "whoever may read the deployment or the repository may use it",
                "take it out, make another key, and give that to the platform as a setting",
                "12factor.net/config",
            )
    for name, value in candidate.declared.environment.items() if candidate.readable() else ():
        named = SECRET_NAMES.search(name) and not PLAIN.fullmatch(value)
        if named or HEX.fullmatch(value) or (_is_mixed(value) and _entropy(value) > TOKEN_BITS):
            yield candidate.error(
                "secret-in-file",
                f"{candidate.platform.start.file} gives {name} a value that looks like a key",
                "it is in every clone of the repository for ever",
                "take it out, make another key, and give that to the platform as a setting",
                "12factor.net/config",
            )


def _is_mixed(text: str) -> bool:
    """Whether a text is one long word of capitals, small letters and digits, as keys are and names are not."""
    return bool(TOKEN.fullmatch(text)) and all(re.search(kind, text) for kind in ("[A-Z]", "[a-z]", "[0-9]"))


def _entropy(text: str) -> float:
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def stale_facts(candidate: Candidate) -> Iterator[Finding]:
    """What preflight itself goes by is not too old."""
    for name, group in candidate.platform.groups():
        days = (candidate.ground.today - group.checked).days
        if days > STALE_DAYS:
            yield candidate.warning(
                "stale-facts",
                f"the facts under [{name}] were checked {days} days ago",
                "platforms change without notice",
                f"read {group.source} again, and correct service/platforms/{candidate.platform.name}.toml",
                group.source,
            )
