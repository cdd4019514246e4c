"""The upload: which files each rule chooses, and that the same files make the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from service.commands import platforms as commands
from service.errors import PlatformError
from service.platforms.facts import platforms
from service.platforms.upload import Upload, Uploaded, gather, write
from tests.checkout import commit, git
from tests.platforms.trees import EVERY, TAKE_COMMITS, put, upload_of

TRICKY = [
    "plain.txt",
    "a b.txt",
    "trailing ",
    "ünï/码.txt",
    ".hidden/file",
    ".github/workflow.yml",
    "[b]/(c).txt",
    ":odd.txt",
    "-dash.txt",
    "!bang.txt",
    "#hash.txt",
    'quo"te.txt',
    "back\\slash.txt",
    "new\nline.txt",
    "deep/er/still/x.txt",
]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository without a commit."""
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "--quiet")
    return folder


def paths(name: str, root: Path) -> set[str]:
    """What a platform would receive, but for git's own folder."""
    return {file.path for file in gather(platforms()[name], root).files if not file.path.startswith(".git/")}


def put_all(root: Path, *names: str) -> None:
    """Write these files, each with its name as its text."""
    for name in names:
        put(root / name, name)


# Every rule


@pytest.mark.parametrize("name", EVERY)
def test_tricky_names_arrive(repo: Path, name: str) -> None:
    """Names with spaces, quotes, line ends, other scripts or git's own signs arrive as they are, with their content."""
    put_all(repo, *TRICKY)
    commit(repo)
    upload = gather(platforms()[name], repo)
    arrived = {file.path: file.content.decode() for file in upload.files if not file.path.startswith(".git/")}
    assert arrived == {path: path for path in TRICKY}


@pytest.mark.parametrize("name", [name for name in EVERY if platforms()[name].upload.ignore_file])
def test_tricky_names_arrive_beside_patterns(repo: Path, name: str) -> None:
    """The same names pass patterns that do not name them."""
    put_all(repo, *TRICKY, "gone/x.txt")
    put(repo / str(platforms()[name].upload.ignore_file), ".git/\ngone/\n")
    commit(repo)
    assert paths(name, repo) - {platforms()[name].upload.ignore_file} == set(TRICKY)


@pytest.mark.parametrize("name", EVERY)
def test_files_are_in_the_order_of_their_paths(repo: Path, name: str) -> None:
    """Files come in one order, whatever the file system says."""
    put_all(repo, *reversed(TRICKY))
    commit(repo)
    listed = [file.path for file in gather(platforms()[name], repo).files]
    assert listed == sorted(listed)


@pytest.mark.parametrize("name", EVERY)
def test_executable_files_stay_so(repo: Path, name: str) -> None:
    """A file that may be executed still may, and no other."""
    put(repo / "tool", "#!/bin/sh\n", 0o755)
    put(repo / "text")
    commit(repo)
    upload = gather(platforms()[name], repo)
    executable = {file.path: file.executable for file in upload.files if file.path in ("tool", "text")}
    assert executable == {"tool": True, "text": False}


@pytest.mark.parametrize("name", EVERY)
def test_bytes_arrive_as_they_are(repo: Path, name: str) -> None:
    """A file that is no text arrives byte for byte, Windows line ends too."""
    content = bytes(range(256)) + b"\r\n\r\n"
    (repo / "model.bin").write_bytes(content)
    commit(repo)
    assert {file.path: file.content for file in gather(platforms()[name], repo).files}["model.bin"] == content


@pytest.mark.parametrize("name", EVERY)
def test_name_in_another_encoding(repo: Path, name: str) -> None:
    """A name that is no UTF-8 arrives as it is, or is refused by name; it is no surprise."""
    odd = os.fsdecode(b"caf\xe9.txt")
    put_all(repo, "app.py")
    (repo / odd).write_text("odd")
    commit(repo)
    try:
        upload = gather(platforms()[name], repo)
        write(upload, repo.parent / "out")
    except PlatformError as refused:
        assert "caf" in refused.detail
    else:
        assert odd in {file.path for file in upload.files}


@pytest.mark.parametrize("name", [name for name in EVERY if platforms()[name].upload.ignore_file])
def test_ignore_file_in_another_encoding(repo: Path, name: str) -> None:
    """Patterns in another encoding still leave out what they name in plain letters."""
    put_all(repo, "app.py", "gone.log")
    (repo / str(platforms()[name].upload.ignore_file)).write_bytes(b"# caf\xe9\n*.log\n.git\n")
    commit(repo)
    assert paths(name, repo) - {platforms()[name].upload.ignore_file} == {"app.py"}


# Commits


@pytest.mark.parametrize("name", TAKE_COMMITS)
def test_the_last_commit_is_taken(repo: Path, name: str) -> None:
    """Of the working tree nothing counts: neither what is new, nor what was changed, nor what was taken away."""
    put_all(repo, "kept.txt", "changed.txt", "deleted.txt", ".gitignore")
    put(repo / ".gitignore", "ignored.txt\n")
    commit(repo)
    put(repo / "changed.txt", "later")
    put_all(repo, "new.txt", "ignored.txt")
    (repo / "deleted.txt").unlink()
    upload = gather(platforms()[name], repo)
    assert {file.path for file in upload.files} == {"kept.txt", "changed.txt", "deleted.txt", ".gitignore"}
    assert upload.text("changed.txt") == "changed.txt"


@pytest.mark.parametrize("name", TAKE_COMMITS)
def test_committed_files_count_though_they_are_ignored(repo: Path, name: str) -> None:
    """.gitignore keeps nothing away that was committed."""
    put_all(repo, "model.joblib")
    put(repo / ".gitignore", "*.joblib\n")
    commit(repo)
    assert "model.joblib" in paths(name, repo)


@pytest.mark.parametrize("name", TAKE_COMMITS)
def test_committed_link_arrives_as_what_it_leads_to(repo: Path, name: str) -> None:
    """A link to a file of the tree arrives with that file's text."""
    put_all(repo, "data/real.txt")
    (repo / "link.txt").symlink_to("data/real.txt")
    commit(repo)
    assert gather(platforms()[name], repo).text("link.txt") == "data/real.txt"


@pytest.mark.parametrize("name", TAKE_COMMITS)
def test_committed_link_that_leads_nowhere_is_told(repo: Path, name: str) -> None:
    """A link that leads out of the tree is refused by name, and no surprise."""
    (repo / "link.txt").symlink_to("/nowhere")
    commit(repo)
    with pytest.raises(PlatformError, match=r"link\.txt is a link to /nowhere"):
        gather(platforms()[name], repo)


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize(("name", "ebignore"), [*((name, False) for name in TAKE_COMMITS), ("beanstalk", True)])
def test_link_out_of_the_tree_is_not_followed(tmp_path: Path, repo: Path, name: str, kind: str, ebignore: bool) -> None:
    """What a link leads to outside the tree stays here: neither git nor eb takes along more than the link itself."""
    put(tmp_path / "private" / "key", "private")
    (repo / "link").symlink_to(tmp_path / "private" / ("key" if kind == "file" else ""))
    if ebignore:
        put(repo / ".ebignore", ".git/\n")
    commit(repo)
    try:
        arrived = gather(platforms()[name], repo).files
    except PlatformError as refused:
        assert "link" in refused.detail
    else:
        assert b"private" not in {file.content for file in arrived}


@pytest.mark.parametrize("name", ["heroku", "render"])
def test_lines_end_as_they_are_committed(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What git does to line ends on this machine does not happen on the platform's."""
    put(repo / "Procfile", "web: x\n")
    commit(repo)
    put(tmp_path / "gitconfig", "[core]\n\tautocrlf = true\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    assert gather(platforms()[name], repo).text("Procfile") == "web: x\n"


@pytest.mark.parametrize("name", EVERY)
def test_within_a_hook_of_git(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A hook of another repository may ask: what git tells its hooks of that one does not count for this."""
    put_all(repo, "app.py")
    put(repo / str(platforms()[name].upload.ignore_file or ".none"), ".git\n")
    commit(repo)
    expected = paths(name, repo)
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert paths(name, repo) == expected


@pytest.mark.parametrize(("name", "arrives"), [("heroku", True), ("render", True), ("beanstalk", False)])
def test_export_ignore_counts_only_for_archives(repo: Path, name: str, arrives: bool) -> None:
    """`export-ignore` leaves files out of `git archive`, which eb makes; a push sends them."""
    put_all(repo, "tests/x.py", "app.py")
    put(repo / ".gitattributes", "/tests export-ignore\n")
    commit(repo)
    assert ("tests/x.py" in paths(name, repo)) == arrives


@pytest.mark.parametrize("name", TAKE_COMMITS)
def test_tree_without_a_commit_is_refused(repo: Path, name: str) -> None:
    """Without a commit there is nothing to take."""
    put_all(repo, "app.py")
    with pytest.raises(PlatformError, match="the platform takes what is committed"):
        gather(platforms()[name], repo)


def test_folder_of_a_larger_repository(repo: Path) -> None:
    """A folder within a repository is taken alone, with paths of its own."""
    put_all(repo, "app/service.py", "other/x.py")
    commit(repo)
    assert paths("render", repo / "app") == {"service.py"}


SLUGIGNORE = [
    ("*.log\n", {"a.log", "deep/b.log"}),
    ("/deep\n", {"deep/b.log", "deep/c.txt", "deep/bench/d.txt"}),
    ("bench\n", {"bench/e.txt", "deep/bench/d.txt"}),
    ("/bench\n", {"bench/e.txt"}),
    ("# a comment\n\n", set()),
    ("*.log\n!a.log\n", {"a.log", "deep/b.log"}),
]


@pytest.mark.parametrize(("patterns", "gone"), SLUGIGNORE)
def test_slugignore_leaves_out(repo: Path, patterns: str, gone: set[str]) -> None:
    """.slugignore names what Heroku leaves out of a commit; unlike git's patterns it takes nothing back with `!`."""
    names = {"a.log", "deep/b.log", "deep/c.txt", "deep/bench/d.txt", "bench/e.txt"}
    put_all(repo, *names)
    put(repo / ".slugignore", patterns)
    commit(repo)
    assert paths("heroku", repo) == (names | {".slugignore"}) - gone
    assert paths("render", repo) == names | {".slugignore"}


def test_slugignore_counts_as_it_is_committed(repo: Path) -> None:
    """A .slugignore that nobody committed does not arrive, and so does not count."""
    put_all(repo, "a.log")
    commit(repo)
    put(repo / ".slugignore", "*.log\n")
    assert paths("heroku", repo) == {"a.log"}


# gcloud


def test_gcloud_takes_the_working_tree(repo: Path) -> None:
    """What is new or changed is uploaded, committed or not; .gitignore counts only where .gcloudignore says so."""
    put_all(repo, "app.py", "old.txt")
    put(repo / ".gitignore", ".env\n")
    commit(repo)
    put_all(repo, "new.txt", ".env")
    put(repo / "app.py", "later")
    (repo / "old.txt").unlink()
    put(repo / ".gcloudignore", ".git\n.gcloudignore\n")
    assert paths("appengine", repo) == {"app.py", "new.txt", ".env", ".gitignore"}
    assert gather(platforms()["appengine"], repo).text("app.py") == "later"


def test_gcloudignore_that_includes_nothing(repo: Path) -> None:
    """An included file that is not there is an error, as it is for gcloud."""
    put(repo / ".gcloudignore", "#!include:.missing\n")
    with pytest.raises(PlatformError, match=r"includes \.missing, which is not there"):
        gather(platforms()["appengine"], repo)


@pytest.mark.parametrize("line", ["#!include:.gitignore", "# !include:.gitignore"])
def test_gcloudignore_includes_other_files(repo: Path, line: str) -> None:
    """The patterns of an included file stand in its place, so that later lines may take something back."""
    put_all(repo, "a.log", "b.log", "app.py")
    put(repo / ".gitignore", "*.log\n# !include:.more\n")
    put(repo / ".more", "app.py\n")
    put(repo / ".gcloudignore", f"{line}\n!b.log\n.*\n")
    assert paths("appengine", repo) == {"b.log", "app.py"}


def test_gcloudignore_patterns_are_gits(repo: Path) -> None:
    """Patterns are as in .gitignore: a folder that is left out takes its files along, whatever is taken back below."""
    put_all(repo, "tests/x.py", "src/tests/y.py", "data/a.csv", "data/kept.csv", "data/deep/b.csv", "bench", "e.md")
    put(repo / ".gcloudignore", ".*\n/tests/\n!tests/x.py\ndata/*\n!data/kept.csv\nbench/\n**/*.md\n")
    assert paths("appengine", repo) == {"src/tests/y.py", "data/kept.csv", "bench"}


def test_gcloud_without_an_ignore_file(repo: Path) -> None:
    """Without .gcloudignore little is left out, and secrets are not."""
    put_all(repo, "app.py", ".env", "setup.cfg", "deep/setup.cfg", "x/__pycache__/y.pyc")
    put(repo / ".gitignore", ".env\n")
    assert paths("appengine", repo) == {"app.py", ".env", "deep/setup.cfg"}


def test_gcloud_leaves_out_git_only_where_it_is_named(repo: Path) -> None:
    """git's own folder is uploaded where .gcloudignore does not name it; .github is another folder."""
    put_all(repo, ".github/workflow.yml")
    commit(repo)
    platform = platforms()["appengine"]
    put(repo / ".gcloudignore", ".git\n")
    assert {file.path for file in gather(platform, repo).files} == {".github/workflow.yml", ".gcloudignore"}
    put(repo / ".gcloudignore", "*.log\n")
    assert ".git/HEAD" in {file.path for file in gather(platform, repo).files}


def test_gcloud_follows_links(repo: Path) -> None:
    """A link to a folder is uploaded as that folder, and a link to a file as that file."""
    put_all(repo, "data/x.txt")
    (repo / "linked").symlink_to("data")
    (repo / "link.txt").symlink_to("data/x.txt")
    assert paths("appengine", repo) == {"data/x.txt", "linked/x.txt", "link.txt"}


# Elastic Beanstalk


def test_ebignore_takes_the_working_tree(repo: Path) -> None:
    """With .ebignore the working tree is uploaded, secrets too, and .gitignore no longer counts."""
    put_all(repo, "app.py")
    put(repo / ".gitignore", ".env\n")
    commit(repo)
    put_all(repo, ".env", "new.txt", "data/a.csv", "data/kept.csv", "notes.txt~", ".elasticbeanstalk/config.yml")
    put(repo / ".ebignore", ".git/\ndata/*\n!data/kept.csv\n")
    assert paths("beanstalk", repo) == {"app.py", ".gitignore", ".env", "new.txt", "data/kept.csv"}


def test_beanstalk_leaves_out_git_only_where_it_is_named(repo: Path) -> None:
    """git's own folder is uploaded where .ebignore does not name it."""
    put_all(repo, ".github/workflow.yml")
    commit(repo)
    put(repo / ".ebignore", "*.log\n")
    found = {file.path for file in gather(platforms()["beanstalk"], repo).files}
    assert {".git/HEAD", ".github/workflow.yml"} <= found


# Azure


def test_azure_takes_the_working_tree_without_env(repo: Path) -> None:
    """Left out are folders with `env` in their names, files named .env, and links; .gitignore does not count."""
    put_all(repo, "app.py", ".env", "deep/.env", ".env.production", "env.py", "environments/eu.yaml", "my.venv/x/y.py")
    put_all(repo, "deep/envoy/z.py", "ENV/kept.py", "new.log")
    put(repo / ".gitignore", "*.log\n")
    (repo / "link.py").symlink_to("app.py")
    (repo / "linked").symlink_to("deep")
    assert paths("azure", repo) == {"app.py", ".env.production", "env.py", "ENV/kept.py", "new.log", ".gitignore"}


def test_azure_takes_git_along(repo: Path) -> None:
    """git's own folder is uploaded too."""
    put_all(repo, "app.py")
    commit(repo)
    assert ".git/HEAD" in {file.path for file in gather(platforms()["azure"], repo).files}


# Writing it down


def bytes_of(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Every file below a folder, with its bytes and whether it may be executed."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), os.access(path, os.X_OK)) for path in files}


def upload(name: str) -> Upload:
    """A small upload with an executable file."""
    files = [Uploaded("a b/ünï.txt", b"one\r\n", False), Uploaded("bin/tool", b"#!/bin/sh\n", True)]
    return Upload(platforms()[name], tuple(files))


WRITTEN = {"a b/ünï.txt": (b"one\r\n", False), "bin/tool": (b"#!/bin/sh\n", True)}


def test_folder_holds_the_files(tmp_path: Path) -> None:
    """A platform that takes a folder gets one of its name, with nothing else in it."""
    written = write(upload("heroku"), tmp_path / "out")
    assert (written, bytes_of(written)) == (tmp_path / "out" / "heroku", WRITTEN)


def test_archive_holds_the_files(tmp_path: Path) -> None:
    """A platform that takes an archive gets one of its name, without a folder above the files, with their modes."""
    written = write(upload("beanstalk"), tmp_path / "out")
    assert written == tmp_path / "out" / "beanstalk.zip"
    with zipfile.ZipFile(written) as archive:
        assert archive.testzip() is None
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    assert modes == {"a b/ünï.txt": 0o100644, "bin/tool": 0o100755}
    shutil.unpack_archive(written, tmp_path / "unpacked")
    assert {path: content for path, (content, _) in bytes_of(tmp_path / "unpacked").items()} == {
        path: content for path, (content, _) in WRITTEN.items()
    }


@pytest.mark.parametrize("name", ["beanstalk", "azure"])
def test_same_tree_makes_the_same_bytes(tmp_path: Path, repo: Path, name: str) -> None:
    """Two copies of a tree, with other times and made in another order, make the same archive."""
    other = tmp_path / "other"
    for folder, names in ((repo, TRICKY), (other, TRICKY[::-1])):
        put_all(folder, *names)
        put(folder / "bin" / "tool", "#!/bin/sh\n", 0o755)
        for index, path in enumerate(folder.rglob("*.txt")):
            os.utime(path, (index * 10**6, index * 10**8))
    if name == "beanstalk":
        git(other, "init", "--quiet")
        commit(repo)
        commit(other)
    else:
        shutil.rmtree(repo / ".git")
    first, second = (
        write(gather(platforms()[name], folder), tmp_path / f"out-{folder.name}") for folder in (repo, other)
    )
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", ["heroku", "beanstalk"])
def test_earlier_output_is_replaced(tmp_path: Path, name: str) -> None:
    """Written twice, the output is that of the second time: nothing of the first is left."""
    write(upload_of(platforms()[name], {"old.txt": "old"}), tmp_path / "out")
    before = write(upload_of(platforms()[name], {"new.txt": "new"}), tmp_path / "out")
    fresh = write(upload_of(platforms()[name], {"new.txt": "new"}), tmp_path / "fresh")
    if before.is_dir():
        assert bytes_of(before) == bytes_of(fresh) == {"new.txt": (b"new", False)}
    else:
        assert before.read_bytes() == fresh.read_bytes()


@pytest.mark.parametrize("name", ["heroku", "beanstalk"])
def test_what_others_put_beside_an_earlier_bundle_stays(tmp_path: Path, name: str) -> None:
    """Only the bundle itself is replaced."""
    write(upload(name), tmp_path / "out")
    put_all(tmp_path, "out/mine.txt")
    write(upload(name), tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "out/mine.txt"


@pytest.mark.parametrize("name", ["heroku", "beanstalk"])
def test_folder_of_others_is_left_alone(tmp_path: Path, name: str) -> None:
    """A folder that holds something else is refused, and what it holds stays."""
    put_all(tmp_path, "out/mine.txt")
    with pytest.raises(PlatformError, match="holds something else"):
        write(upload(name), tmp_path / "out")
    assert bytes_of(tmp_path / "out") == {"mine.txt": (b"out/mine.txt", False)}


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    """A folder with nothing in it is written into."""
    (tmp_path / "out").mkdir()
    assert bytes_of(write(upload("render"), tmp_path / "out")) == WRITTEN


# The command

Bundle = Callable[..., Result]


@pytest.fixture
def bundle(repo: Path, make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bundle:
    """Run `flask bundle` on a small repository."""
    put_all(repo, "app.py", "Procfile")
    commit(repo)
    monkeypatch.setattr(commands, "ROOT", repo)
    runner = make_app(cache_dir=tmp_path / "cache").test_cli_runner()
    return lambda *arguments: runner.invoke(args=["bundle", *map(str, arguments)], catch_exceptions=False)


def listed(done: Result) -> list[dict[str, Any]]:
    """What `flask bundle --json` printed."""
    assert done.exit_code == 0, done.output
    return list(json.loads(done.stdout))


def test_bundle_lists_what_it_wrote(bundle: Bundle, tmp_path: Path) -> None:
    """The command says where the bundle is, and which files are in it with their sizes."""
    (row,) = listed(bundle("render", "-o", tmp_path / "out", "--json"))
    files = [{"path": "Procfile", "bytes": 8}, {"path": "app.py", "bytes": 6}]
    assert row == {"platform": "render", "written": str(tmp_path / "out" / "render"), "mib": 0.0, "files": files}
    assert bytes_of(tmp_path / "out" / "render").keys() == {"Procfile", "app.py"}


def test_bundle_prints_a_listing(bundle: Bundle, tmp_path: Path) -> None:
    """Without --json there is a line for each file and one for the whole."""
    lines = bundle("beanstalk", "-o", tmp_path / "out").stdout.splitlines()
    written = tmp_path / "out" / "beanstalk.zip"
    assert [line.split() for line in lines[:2]] == [["8", "Procfile"], ["6", "app.py"]]
    assert lines[2:] == [f"{written}: 2 files, 0.0 MiB"]


@pytest.mark.parametrize("into", ["-o", "by default"])
def test_bundle_of_all_writes_each(bundle: Bundle, tmp_path: Path, into: str) -> None:
    """Bundles of all platforms stand beside each other: none is lost to the next."""
    rows = listed(bundle("all", "--json", *(("-o", tmp_path / "out") if into == "-o" else ())))
    assert [row["platform"] for row in rows] == EVERY
    assert all(Path(row["written"]).exists() for row in rows)


@pytest.mark.parametrize("name", EVERY)
def test_bundle_holds_no_earlier_bundle(bundle: Bundle, name: str) -> None:
    """Bundled twice, the same tree makes the same bundle: the first one is not in the second."""
    (first,), (second,) = (listed(bundle(name, "--json")) for _ in range(2))
    assert first == second


def test_bundle_refuses_a_folder_of_others(bundle: Bundle, tmp_path: Path) -> None:
    """A folder with something else in it is refused in one line with status 1."""
    put_all(tmp_path, "out/mine.txt")
    done = bundle("render", "-o", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "holds something else" in done.stderr


def test_bundle_pushes_only_to_pythonanywhere(bundle: Bundle, tmp_path: Path) -> None:
    """--push is refused for other platforms, before anything is written."""
    done = bundle("render", "--push", "me", "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "--push is PythonAnywhere's" in done.stderr
    assert not (tmp_path / "out").exists()
