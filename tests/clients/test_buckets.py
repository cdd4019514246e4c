"""Models out of S3, as s3fs asks for them and moto's server gives them."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import PENGUIN, ROOT
from tests.server import START_LIMIT_S, Server, free_port, running
from tests.vendors.tools import TOOLS, ask, process, tool

KEYS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
UPLOAD = """
import json, os, sys
from pathlib import Path
import boto3
port, folder, prefix, extra = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                  aws_access_key_id="k", aws_secret_access_key="s")
s3.create_bucket(Bucket="bucket")
files = {f"{prefix}{path.relative_to(folder).as_posix()}": path.read_bytes()
         for path in Path(folder).rglob("*") if path.is_file()}
for key, content in (files | {key: text.encode() for key, text in json.loads(extra).items()}).items():
    s3.put_object(Bucket="bucket", Key=key, Body=content)
listed = s3.list_objects_v2(Bucket="bucket")["Contents"]
print(json.dumps(sorted(found["Key"] for found in listed)))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home."""
    home = tmp_path / "home"
    home.mkdir()
    return home


@contextmanager
def s3(port: int, home: Path) -> Iterator[None]:
    """Run moto's server, which answers as S3 does, until the block ends; what it holds ends with it."""
    command = [tool("moto"), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with process(command, home, home / "moto.log", HOME=str(home)):
        wait_for(lambda: connects(port))
        yield


def connects(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + START_LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def upload(port: int, folder: Path, home: Path, prefix: str = "models/", extra: str = "{}") -> list[str]:
    """Put a folder's files, and objects of other names, into the bucket by AWS's own client; return every key."""
    keys: list[str] = ask("moto", UPLOAD, str(port), str(folder), prefix, extra, home=home)
    return keys


def variables(port: int) -> dict[str, str]:
    """What the service needs to read that bucket: the library, and what AWS's own tools are told."""
    [libraries] = (TOOLS / "s3fs").glob("lib/python*/site-packages")
    tool("s3fs")
    return KEYS | {
        "PYTHONPATH": str(libraries),
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_MAX_ATTEMPTS": "1",
        "ANYPORT_MODELS_URI": "s3://bucket/models",
        "WEB_CONCURRENCY": "1",
    }


def is_ready(server: Server) -> bool:
    """Whether the service says that it is ready."""
    return bool(server.request("GET", "/readyz")[0] == 200)


def test_models_come_out_of_s3(tmp_path: Path, home: Path) -> None:
    """The service waits for a bucket that is not there yet, fetches what lies in it, and answers without it later."""
    port = free_port()
    fetched = tmp_path / "fetched"
    with s3(port, home):
        with running(fetched, **variables(port)) as server:
            wait_for(lambda: b"unreadable-bucket" in server.request("GET", "/readyz")[2])
            assert b"models are fetched from s3://" in server.request("GET", "/readyz")[2]
            upload(port, ROOT / "models", home)
            wait_for(lambda: is_ready(server))
            assert server.predict([PENGUIN])[1]["predictions"] == ["Adelie"]
            assert not [line for line in server.log.read_text().splitlines() if not line.startswith("{")]
    for path in (ROOT / "models").rglob("*"):
        if path.is_file() and path.name != "manifest.json":
            assert (fetched / path.relative_to(ROOT / "models")).read_bytes() == path.read_bytes()
    with running(fetched, **variables(port)) as server:
        assert is_ready(server)
        wait_for(lambda: any(line["message"].startswith("no models could be fetched") for line in server.lines()))
        assert server.predict([PENGUIN])[1]["predictions"] == ["Adelie"]


def test_odd_keys_of_s3_lead_nowhere(tmp_path: Path, home: Path) -> None:
    """Keys that look like paths out of the folder, and folders that are objects, harm nothing."""
    port = free_port()
    manifest = (ROOT / "models" / "penguins" / "1" / "manifest.json").read_text()
    odd = [
        "models/../evil/1/manifest.json",
        "models/x/../../y/manifest.json",
        "../manifest.json",
        "models//a/1/manifest.json",
    ]
    extra = {key: manifest.replace('"penguins"', '"evil"') for key in odd} | {"models/": "", "models/penguins/": ""}
    with s3(port, home):
        keys = upload(port, ROOT / "models", home, extra=json.dumps(extra))
        assert set(extra) <= set(keys)
        with running(tmp_path / "fetched", **variables(port)) as server:
            wait_for(lambda: is_ready(server))
    assert sorted(path.name for path in (tmp_path / "fetched").glob("[!.]*")) == ["default", "penguins"]
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"fetched", "home"}


def test_cut_object_of_s3_is_refused(tmp_path: Path, home: Path) -> None:
    """An object that was cut is refused by its name, and mended without a restart."""
    port = free_port()
    broken = Path(shutil.copytree(ROOT / "models", tmp_path / "broken"))
    (broken / "penguins" / "1" / "model.joblib").write_bytes(b"cut")
    with s3(port, home):
        upload(port, broken, home)
        with running(tmp_path / "fetched", **variables(port)) as server:
            wait_for(lambda: b"penguins: checksum-mismatch" in server.request("GET", "/readyz")[2])
            assert not list((tmp_path / "fetched").glob("*/*/*"))
            upload(port, ROOT / "models", home)
            wait_for(lambda: is_ready(server))
