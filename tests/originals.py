"""Packages without their compiled forms, for tests of how an original is opened, which a compiled form would hide."""

from __future__ import annotations

import json
from pathlib import Path


def keep_originals(models_dir: Path) -> Path:
    """Take the compiled form out of every package of a folder, and with it what was measured of its speed."""
    for path in models_dir.glob("*/*/manifest.json"):
        document = json.loads(path.read_text())
        *compiled, original = document["artifacts"]
        for name in {artifact["file"] for artifact in compiled}:
            (path.parent / name).unlink()
        files = [entry for entry in document["files"] if entry["name"] == original["file"]]
        cost = document["cost"] | {"microseconds": {}}
        path.write_text(json.dumps(document | {"files": files, "artifacts": [original], "cost": cost}))
    return models_dir
