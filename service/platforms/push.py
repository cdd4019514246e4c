"""Push: bring an upload to PythonAnywhere file by file, with its own client, at the pace that its API takes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from service.errors import PlatformError
from service.platforms.upload import Upload

PACE_S = 1.6
"""From one request to the next: the API takes 40 a minute. Source: help.pythonanywhere.com/pages/API, 2026-11-22."""


def push(upload: Upload, folder: Path, home: str, note: Path, tell: Callable[[str], None]) -> int:
    """Upload what has changed since the last push, and delete what is gone.

    Args:
        upload: What should be there.
        folder: Where it is written here.
        home: Where it goes there.
        note: A file that keeps what the last push brought.
        tell: Called with what is done next.

    Returns:
        How many files were uploaded or deleted.

    Raises:
        PlatformError: If the client refuses; what was brought until then is noted, so that the next push goes on.
    """
    brought = _noted(note)
    wanted = {file.path: hashlib.sha256(file.content).hexdigest() for file in upload.files}
    changed = [path for path, digest in wanted.items() if brought.get(path) != digest]
    gone = [path for path in brought if path not in wanted]
    note.parent.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate([*changed, *gone]):
        if number:
            time.sleep(PACE_S)
        tell(f"{number + 1} of {len(changed) + len(gone)}: {path}")
        if path in wanted:
            _client("upload", f"{home}/{path}", "--contents", str(folder / path))
            brought[path] = wanted[path]
        else:
            _client("delete", f"{home}/{path}")
            del brought[path]
        note.write_text(json.dumps(brought))
    return len(changed) + len(gone)


def _noted(note: Path) -> dict[str, str]:
    try:
        brought = json.loads(note.read_text()) if note.exists() else {}
    except ValueError:
        brought = None
    if not isinstance(brought, dict):
        raise PlatformError(f"{note} does not say what was brought before; remove it, and everything is uploaded")
    return brought


def _client(*arguments: str) -> None:
    command = ["pa", "path", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise PlatformError("PythonAnywhere's client is not installed; get it: pipx install pythonanywhere") from error
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-300:]
        raise PlatformError(f"`{' '.join(command[:4])}` failed: {said}; are API_TOKEN and PYTHONANYWHERE_USERNAME set?")
