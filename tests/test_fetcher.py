"""The fetching process: what it says, how it tries again, and that it lives and ends with gunicorn's master."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import MissingLibrary, SettingsError
from service.fetcher import FIRST_PAUSE_S, LONGEST_PAUSE_S, Fetcher, announce
from service.settings import Settings
from service.store import Store
from tests.conftest import PENGUIN, ROOT
from tests.server import START_LIMIT_S, Server, running


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A folder in the place of a bucket, empty at first."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


@pytest.fixture
def fetcher(bucket: Path, tmp_path: Path) -> Fetcher:
    """What fetches from there, announced as the master does."""
    settings = Settings(models_uri=f"file://{bucket}", models_dir=tmp_path / "fetched")
    announce(f"file://{bucket}", Store(settings.models_dir))
    return Fetcher(settings, f"file://{bucket}", Store(settings.models_dir))


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """Where it fetches to."""
    return Store(tmp_path / "fetched")


def fill(bucket: Path) -> None:
    """Put the demo package into the bucket."""
    shutil.copytree(ROOT / "models" / "penguins", bucket / "penguins")


def test_note_says_what_is_awaited(fetcher: Fetcher, local: Store, bucket: Path) -> None:
    """Until everything is here the note names the scheme and what is wrong, never what a library said; then it goes."""
    assert local.awaited() == "models are fetched from file://: it has not been asked yet"
    assert not fetcher.attempt()
    note = local.awaited()
    assert note == (
        "models are fetched from file://: unreadable-bucket, The bucket that holds the models cannot be read; "
        "it is tried again"
    )
    fill(bucket)
    assert fetcher.attempt()
    assert local.awaited() is None and local.versions() == {"penguins": ["1"]}


def test_note_says_what_is_broken(
    fetcher: Fetcher, local: Store, bucket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A package that does not verify is noted by its code, and named in the log alone; mended, the note goes."""
    fill(bucket)
    (bucket / "penguins" / "1" / "model.joblib").write_bytes(b"cut")
    assert not fetcher.attempt()
    assert local.awaited() == (
        "models are fetched from file://: checksum-mismatch, A file of the package is not the one that was packed; "
        "it is tried again, and the log says more"
    )
    assert "penguins is not fetched" in caplog.text
    shutil.rmtree(bucket / "penguins")
    fill(bucket)
    assert fetcher.attempt() and local.awaited() is None


def test_broken_version_aside_is_tried_again_without_a_note(fetcher: Fetcher, local: Store, bucket: Path) -> None:
    """Where only a version that is not active is broken, the models are ready, and it is tried again."""
    fill(bucket)
    (bucket / "penguins" / "active").write_text("1\n")
    shutil.copytree(bucket / "penguins" / "1", bucket / "penguins" / "2")
    manifest = bucket / "penguins" / "2" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": "1"', '"version": "2"'))
    (bucket / "penguins" / "2" / "model.joblib").write_bytes(b"")
    assert not fetcher.attempt()
    assert local.awaited() is None and local.versions() == {"penguins": ["1"]}


def test_what_is_activated_here_stays(fetcher: Fetcher, local: Store, bucket: Path) -> None:
    """An operator's step back is not undone by the next look at the bucket, but by its next word."""
    fill(bucket)
    for version in ("2", "3"):
        shutil.copytree(bucket / "penguins" / "1", bucket / "penguins" / version)
        manifest = bucket / "penguins" / version / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"version": "1"', f'"version": "{version}"'))
    (bucket / "penguins" / "active").write_text("2\n")
    assert fetcher.attempt() and local.active("penguins") == "2"
    local.activate("penguins", "1", default=False)
    assert fetcher.attempt() and local.active("penguins") == "1"
    (bucket / "penguins" / "active").write_text("3\n")
    assert fetcher.attempt() and local.active("penguins") == "3"


def test_each_stage_is_a_line(fetcher: Fetcher, bucket: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log tells each stage, and a failure with its reason."""
    caplog.set_level(logging.INFO)
    fetcher.attempt()
    fill(bucket)
    fetcher.attempt()
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "file://: it is being listed" and said[1].startswith(
        "no models could be fetched: no package lies"
    )
    assert said[3].startswith("file://: penguins/1 is being downloaded: ")
    assert said[4].endswith("s: penguins/1; here before: nothing")


def test_pauses_grow(fetcher: Fetcher, bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries at first after a second, at last once a minute, and ends when everything is here."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 9:
            fill(bucket)

    monkeypatch.setattr(time, "sleep", sleep)
    fetcher.run()
    assert len(pauses) == 9
    for number, pause in enumerate(pauses):
        wanted = min(FIRST_PAUSE_S * 2**number, LONGEST_PAUSE_S)
        assert 0.75 * wanted <= pause <= 1.25 * wanted


def test_full_disk_is_tried_again(
    fetcher: Fetcher, local: Store, bucket: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody thought of is logged, and does not end the tries."""
    fill(bucket)

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", full)
        assert not fetcher.attempt()
    assert "OSError; it is tried again, and the log says more" in (local.awaited() or "")
    assert "No space left on device" in caplog.text
    assert fetcher.attempt()


def test_note_is_short_and_can_be_written(fetcher: Fetcher, local: Store, bucket: Path) -> None:
    """Whatever names the objects have, the note is one short line."""
    for number in range(40):
        folder = bucket / f"a\nb{number}" / "1"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    assert not fetcher.attempt()
    note = local.awaited() or ""
    assert "invalid-manifest" in note and len(note) < 600


def test_what_was_here_is_not_awaited(bucket: Path, local: Store) -> None:
    """Packages that were fetched before answer at once; those of a first fetch that never ended do not."""
    fill(local.folder)
    announce(f"file://{bucket}", local)
    assert local.awaited() is None
    local.await_packages("the first fetch was killed")
    announce(f"file://{bucket}", local)
    assert local.awaited() == "models are fetched from file://: it has not been asked yet"


def test_folder_that_is_a_file(bucket: Path, tmp_path: Path) -> None:
    """A path at which no folder can be made ends the start with the settings that help."""
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="set ANYPORT_CACHE_DIR, or ANYPORT_MODELS_DIR"):
        announce(f"file://{bucket}", Store(tmp_path / "file" / "fetched"))


def test_missing_library_ends_the_start(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that nothing here can read is known before anything starts."""
    monkeypatch.setattr("service.bucket.find_spec", lambda name: None)
    with pytest.raises(MissingLibrary, match="write gcsfs into requirements.in"):
        announce("gs://bucket/models", local)


def fetchers(master: int) -> list[int]:
    """The fetching processes of one master."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            is_ours = f"PPid:\t{master}\n" in status.read_text()
            command = status.with_name("cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if is_ours and b"service.fetcher" in command:
            found.append(int(status.parent.name))
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + START_LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_ready(server: Server) -> bool:
    """Whether the service says that it is ready."""
    return bool(server.request("GET", "/readyz")[0] == 200)


@pytest.mark.slow
def test_service_listens_while_it_fetches(bucket: Path, tmp_path: Path) -> None:
    """The port is open and the process alive at once; readiness and predictions wait for the models, and say why."""
    with running(tmp_path / "fetched", AIP_STORAGE_URI=f"file://{bucket}", WEB_CONCURRENCY="2") as server:
        assert server.request("GET", "/livez")[0] == 200
        wait_for(lambda: b"unreadable-bucket" in server.request("GET", "/readyz")[2])
        status, headers, body = server.request("GET", "/readyz")
        assert (status, headers["Retry-After"]) == (503, "5")
        assert b"models are fetched from file://: " in body and str(bucket).encode() not in body
        began = time.monotonic()
        status, problem = server.predict([PENGUIN])
        assert status == 503 and problem["detail"].startswith("models are fetched from file://")
        assert time.monotonic() - began < 2
        assert server.request("GET", "/health")[0] == 503
        fill(bucket)
        wait_for(lambda: is_ready(server))
        wait_for(lambda: server.predict([PENGUIN])[0] == 200)
        assert server.predict([PENGUIN])[1]["predictions"] == ["Adelie"]
        wait_for(lambda: not fetchers(server.process.pid))
        said = [line["message"] for line in server.lines()]
        assert f"models are fetched from file://{bucket}" in said
        assert any(line.startswith("no models could be fetched: ") for line in said)
        assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_fetching_ends_with_the_master(sent: signal.Signals, bucket: Path, tmp_path: Path) -> None:
    """Whatever ends the master ends the fetching, which has never held the port; a reload starts no second one."""
    with running(tmp_path / "fetched", ANYPORT_MODELS_URI=f"file://{bucket}", WEB_CONCURRENCY="1") as server:
        [fetching] = fetchers(server.process.pid)
        sockets = [os.readlink(link) for link in Path(f"/proc/{fetching}/fd").iterdir()]
        assert not [link for link in sockets if link.startswith("socket:")]
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: sum("Booting worker" in line["message"] for line in server.lines()) == 2)
        assert fetchers(server.process.pid) == [fetching]
        server.stop(sent)
        wait_for(lambda: not Path(f"/proc/{fetching}").exists())
        wait_for(lambda: is_free(server.port))


@pytest.mark.slow
def test_fetching_that_is_killed_goes_on(bucket: Path, tmp_path: Path) -> None:
    """Where the fetching process is killed, as for want of memory, another one takes its place, and the log says so."""
    with running(tmp_path / "fetched", ANYPORT_MODELS_URI=f"file://{bucket}", WEB_CONCURRENCY="1") as server:
        [keeper] = fetchers(server.process.pid)
        wait_for(lambda: bool(fetchers(keeper)))
        os.kill(fetchers(keeper)[0], signal.SIGKILL)
        wait_for(lambda: any("another one goes on" in line["message"] for line in server.lines()))
        fill(bucket)
        wait_for(lambda: is_ready(server))


@pytest.mark.slow
def test_download_that_is_ended_leaves_nothing(bucket: Path, tmp_path: Path) -> None:
    """SIGTERM in the middle of a download clears away what is half done."""
    fill(bucket)
    (bucket / "penguins" / "1" / "model.joblib").unlink()
    os.mkfifo(bucket / "penguins" / "1" / "model.joblib")  # a download that never ends
    fetched = tmp_path / "fetched"
    with running(fetched, ANYPORT_MODELS_URI=f"file://{bucket}", WEB_CONCURRENCY="1") as server:
        wait_for(lambda: b"penguins/1 is being downloaded" in server.request("GET", "/readyz")[2])
        wait_for(lambda: bool(list(fetched.glob(".fetching-*"))))
        [fetching] = fetchers(server.process.pid)
        assert server.stop() == 0
    wait_for(lambda: not Path(f"/proc/{fetching}").exists())
    assert {path.name for path in fetched.iterdir()} == {".awaited", ".lock-fetching"}


def is_free(port: int) -> bool:
    """Whether nobody listens."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.slow
def test_last_good_copy_answers_without_the_bucket(bucket: Path, tmp_path: Path) -> None:
    """A start while the bucket cannot be read serves what was fetched before, from the folder of this address."""
    fill(bucket)
    said = {
        "ANYPORT_MODELS_DIR": "",
        "ANYPORT_CACHE_DIR": str(tmp_path / "cache"),
        "ANYPORT_MODELS_URI": f"file://{bucket}",
        "WEB_CONCURRENCY": "1",
    }
    with running(tmp_path / "unused", **said) as server:
        wait_for(lambda: is_ready(server))
    shutil.rmtree(bucket)
    with running(tmp_path / "unused", **said) as server:
        assert is_ready(server)
        assert server.predict([PENGUIN])[1]["predictions"] == ["Adelie"]
        wait_for(lambda: any(line["message"].startswith("no models could be fetched") for line in server.lines()))
        assert is_ready(server) and fetchers(server.process.pid)
    elsewhere = said | {"ANYPORT_MODELS_URI": f"file://{bucket}/elsewhere"}
    with running(tmp_path / "unused", **elsewhere) as server:
        assert not is_ready(server)


@pytest.mark.slow
def test_address_that_nothing_reads_ends_the_start(tmp_path: Path) -> None:
    """The last line says which library is missing, and what to write where."""
    with pytest.raises(AssertionError, match="anyport: oss:// is read by ossfs.*write ossfs into requirements.in"):
        with running(tmp_path / "fetched", ANYPORT_MODELS_URI="oss://bucket/models"):
            pass
