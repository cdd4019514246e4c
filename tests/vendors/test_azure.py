"""What the real Azure client makes of our tree: its language, its system and its zip."""

from __future__ import annotations

import zipfile
from pathlib import Path

from service.platforms.facts import platforms
from service.platforms.upload import gather
from tests.vendors.conftest import plant
from tests.vendors.tools import ask, contents, same

GUESS = """
import json, sys
from azure.cli.command_modules.appservice import _create_util as util
print(json.dumps([util.get_lang_from_content(sys.argv[1])["language"], util.detect_os_from_src(sys.argv[1])]))
"""
ZIP = """
import json, sys, tempfile
from azure.cli.command_modules.appservice import _create_util as util
tempfile.tempdir = sys.argv[2]
print(json.dumps(util.zip_contents_from_dir(sys.argv[1], "python")))
"""


def test_az_webapp_up_takes_the_tree_for_python_on_linux(tree: Path, home: Path) -> None:
    """The language comes from requirements.txt, and the system from the language."""
    assert ask("azure", GUESS, str(tree), home=home) == ["python", "Linux"]


def test_az_webapp_up_takes_a_tree_without_requirements_for_another(tree: Path, home: Path) -> None:
    """The check can fail: with package.json in the place of requirements.txt it is Node's."""
    (tree / "requirements.txt").rename(tree / "package.json")
    assert ask("azure", GUESS, str(tree), home=home) == ["node", "Linux"]


def test_the_zip_is_what_our_own_rule_chooses(tree: Path, home: Path) -> None:
    """The zip holds the working tree, uncommitted files included, but no folder with `env` in its name, no `.env` and
    no link."""
    for name in ("environments/eu.txt", "service/myenv/x.txt", ".env", "data/.env", ".env.production", "later.txt"):
        plant(tree / name)
    plant(tree / "bin" / "tool", "#!/bin/sh\n", 0o755)
    (tree / "link.md").symlink_to("README.md")
    (tree / "linked").symlink_to("models")
    with zipfile.ZipFile(ask("azure", ZIP, str(tree), str(home), home=home)) as archive:
        entries = archive.infolist()
        theirs = {entry.filename: (archive.read(entry), bool(entry.external_attr >> 16 & 0o100)) for entry in entries}
    same(theirs, contents(gather(platforms()["azure"], tree)))
    assert {"later.txt", ".env.production", "bin/tool"} <= theirs.keys()
    left_out = {"environments/eu.txt", "service/myenv/x.txt", ".env", "data/.env", "link.md"}
    assert not left_out & theirs.keys()
