"""What README.md says under Deploy can be typed as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

BLOCK = re.compile(r"^```sh\n(flask .*?)^```$", re.MULTILINE | re.DOTALL)


def test_proof_before_the_push_runs(tree: Path, cache: Path) -> None:
    """Preflight, rehearsal and bundle, as the newcomer types them, end well and say what they saw."""
    deploy = (ROOT / "README.md").read_text().partition("## Deploy")[2].partition("## Requests")[0]
    [block] = BLOCK.findall(deploy)
    variables = {
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
        "ANYPORT_CACHE_DIR": str(cache),
        "HOME": str(tree.parent),
    }
    command = ["bash", "-ec", block]
    ended = subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for said in ("Heroku: no errors, no warnings", "heroku: passed", "beanstalk.zip: "):
        assert said in ended.stdout
