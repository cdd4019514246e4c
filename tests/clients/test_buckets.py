"""Models out of buckets, as each cloud's own library asks for them: S3, as moto plays it, and Google's storage."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.conftest import PENGUIN, ROOT
from tests.server import START_LIMIT_S, Server, free_port, running
from tests.vendors.tools import TOOLS, ask, process, tool

PUT = """
import json, sys
from pathlib import Path
import boto3
keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s"}
s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1", **keys)
s3.create_bucket(Bucket="bucket")
for key, file in json.loads(sys.argv[2]).items():
    s3.put_object(Bucket="bucket", Key=key, Body=Path(file).read_bytes())
print(json.dumps(sorted(found["Key"] for found in s3.list_objects_v2(Bucket="bucket")["Contents"])))
"""


@dataclass(frozen=True)
class Cloud:
    """A bucket that is played here, and what the service needs to read it."""

    scheme: str
    library: str
    server: str
    start: tuple[str, ...]
    address: str
    """The variable that says where the bucket answers."""
    models: str
    """The variable that says where the models are."""
    put: Callable[[str, dict[str, str], Path], list[str]]
    """Makes the bucket and puts files into it by key; returns every key in it."""


def put_s3(address: str, files: dict[str, str], home: Path) -> list[str]:
    """Put by AWS's own client."""
    keys: list[str] = ask("moto", PUT, address, json.dumps(files), home=home)
    return keys


def put_gs(address: str, files: dict[str, str], home: Path) -> list[str]:
    """Put by the JSON API.

    Source: cloud.google.com/storage/docs/json_api/v1/objects/insert, read 2026-11-23.
    """
    _post(address, "/storage/v1/b?project=p", b'{"name": "bucket"}', "application/json")
    for key, file in files.items():
        query = urlencode({"uploadType": "media", "name": key})
        _post(address, f"/upload/storage/v1/b/bucket/o?{query}", Path(file).read_bytes(), "application/octet-stream")
    return sorted(files)


def _post(address: str, path: str, body: bytes, kind: str) -> None:
    connection = HTTPConnection(address.removeprefix("http://"))
    connection.request("POST", path, body, {"Content-Type": kind})
    assert connection.getresponse().status in (200, 409)  # 409: the bucket is there


CLOUDS = [
    Cloud("s3", "s3fs", "moto", ("moto.server", "-H"), "AWS_ENDPOINT_URL", "ANYPORT_MODELS_URI", put_s3),
    Cloud(
        "gs",
        "gcsfs",
        "gcp-storage-emulator",
        ("gcp_storage_emulator", "start", "-M", "-H"),
        "STORAGE_EMULATOR_HOST",
        "AIP_STORAGE_URI",
        put_gs,
    ),
]
KEYS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}


class Bucket:
    """The bucket of one test."""

    def __init__(self, cloud: Cloud, home: Path) -> None:
        self.cloud, self._home, self._port = cloud, home, free_port()
        self._address = f"http://127.0.0.1:{self._port}"

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Have it answer until the block ends; what it holds ends with it."""
        command = [tool(self.cloud.server), "-m", *self.cloud.start, "127.0.0.1", "--port", str(self._port)]
        with process(command, self._home, self._home / "bucket.log", HOME=str(self._home)):
            wait_for(lambda: connects(self._port))
            yield

    def upload(self, folder: Path, odd: dict[str, str] | None = None) -> list[str]:
        """Put a folder's files below `models/`, and files under keys of their own; return every key."""
        files = {f"models/{path.relative_to(folder)}": str(path) for path in folder.rglob("*") if path.is_file()}
        return self.cloud.put(self._address, files | (odd or {}), self._home)

    def variables(self) -> dict[str, str]:
        """What the service needs: the library, and what the cloud's own tools are told."""
        tool(self.cloud.library)
        [libraries] = (TOOLS / self.cloud.library).glob("lib/python*/site-packages")
        said = {self.cloud.address: self._address, self.cloud.models: f"{self.cloud.scheme}://bucket/models"}
        return KEYS | said | {"PYTHONPATH": str(libraries), "HOME": str(self._home), "WEB_CONCURRENCY": "1"}


@pytest.fixture(params=CLOUDS, ids=lambda cloud: cloud.scheme)
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """A bucket of each cloud."""
    home = tmp_path / "home"
    home.mkdir()
    return Bucket(request.param, home)


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


def health(server: Server) -> tuple[int, bytes]:
    """What the service says of its readiness."""
    status, _, body = server.request("GET", "/readyz")
    return status, body


def test_models_come_out_of_the_bucket(bucket: Bucket, tmp_path: Path) -> None:
    """The service waits for a bucket that is not there yet, fetches what lies in it, and answers without it later."""
    fetched, models = tmp_path / "fetched", ROOT / "models"
    with bucket.answering(), running(fetched, **bucket.variables()) as server:
        wait_for(lambda: b"unreadable-bucket" in health(server)[1])
        assert f"models are fetched from {bucket.cloud.scheme}://".encode() in health(server)[1]
        bucket.upload(models)
        wait_for(lambda: health(server)[0] == 200)
        assert server.predict([PENGUIN])[0] == 200
        assert all(line.startswith("{") for line in server.log.read_text().splitlines())
    for path in models.rglob("*"):
        if path.is_file() and path.name != "manifest.json":
            assert (fetched / path.relative_to(models)).read_bytes() == path.read_bytes()
    with running(fetched, **bucket.variables()) as server:
        assert health(server)[0] == 200
        wait_for(lambda: any(line["message"].startswith("no models could be fetched") for line in server.lines()))
        assert health(server)[0] == 200


@pytest.mark.parametrize("bucket", CLOUDS[:1], indirect=True, ids=["s3"])  # the other player takes no such keys
def test_odd_keys_lead_nowhere(bucket: Bucket, tmp_path: Path) -> None:
    """Keys that look like paths out of the folder, and objects that stand for folders, harm nothing."""
    manifest, empty = tmp_path / "manifest.json", tmp_path / "empty"
    manifest.write_text((ROOT / "models/penguins/1/manifest.json").read_text().replace('"penguins"', '"evil"'))
    empty.touch()
    odd = ["models/../evil/1/manifest.json", "models/x/../../y/manifest.json", "models//a/1/manifest.json"]
    files = dict.fromkeys(odd, str(manifest)) | dict.fromkeys(["models/", "models/penguins/"], str(empty))
    with bucket.answering():
        assert set(files) <= set(bucket.upload(ROOT / "models", files))
        with running(tmp_path / "fetched", **bucket.variables()) as server:
            wait_for(lambda: health(server)[0] == 200)
    assert sorted(path.name for path in (tmp_path / "fetched").glob("[!.]*")) == ["default", "penguins"]
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"fetched", "home"}


def test_cut_object_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    """An object that was cut is refused, and mended without a restart."""
    broken = Path(shutil.copytree(ROOT / "models", tmp_path / "broken"))
    (broken / "penguins" / "1" / "model.joblib").write_bytes(b"cut")
    with bucket.answering():
        bucket.upload(broken)
        with running(tmp_path / "fetched", **bucket.variables()) as server:
            wait_for(lambda: b"checksum-mismatch" in health(server)[1])
            assert not list((tmp_path / "fetched").glob("*/*/*"))
            bucket.upload(ROOT / "models")
            wait_for(lambda: health(server)[0] == 200)
