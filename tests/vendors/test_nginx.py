"""Our nginx snippets in a real nginx of Elastic Beanstalk's shape, alone and before the service."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.platforms.declared import declared
from service.platforms.facts import platforms
from service.platforms.upload import gather
from tests.conftest import PENGUIN, ROOT
from tests.server import START_LIMIT_S, Server, free_port, running
from tests.vendors.tools import process, run, tool

MIB = 2**20
NGINX_CONF = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include conf.d/*.conf;
    map $http_upgrade $connection_upgrade {{
        default "upgrade";
    }}
    server {{
        listen 127.0.0.1:{port} default_server;
        client_header_timeout 60;
        client_body_timeout 60;
        keepalive_timeout 60;
        gzip off;
        include conf.d/elasticbeanstalk/*.conf;
    }}
}}
"""
"""Elastic Beanstalk's file for Amazon Linux 2023, as copies of live instances show it; the paths are ours."""
APPLICATION_CONF = """\
location / {{
    proxy_pass http://127.0.0.1:{service};
    proxy_http_version 1.1;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Host $host;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
}}
"""


@dataclass
class Front:
    """nginx in a folder of its own."""

    folder: Path
    port: int

    @property
    def command(self) -> list[str]:
        """How it is started."""
        return [tool("nginx", "nginx"), "-p", str(self.folder), "-c", "nginx.conf", "-e", "stderr"]

    def check(self) -> str:
        """Return what `nginx -t` says."""
        return run([*self.command, "-t"], self.folder).stderr

    def post(self, body: bytes, **headers: str) -> tuple[int, str, bytes]:
        """Send a body; return status, media type and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            sent = {"Content-Type": "application/json"} | headers
            connection.request("POST", "/predict", body, sent)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read()
        finally:
            connection.close()


def front(folder: Path, service: int = 8000) -> Front:
    """Lay out nginx's files with our snippets, as Elastic Beanstalk does."""
    made = Front(folder / "nginx", free_port())
    shutil.copytree(ROOT / ".platform" / "nginx", made.folder)
    server_block = made.folder / "conf.d" / "elasticbeanstalk"
    server_block.mkdir(parents=True, exist_ok=True)
    (server_block / "00_application.conf").write_text(APPLICATION_CONF.format(service=service))
    (made.folder / "nginx.conf").write_text(NGINX_CONF.format(folder=made.folder, port=made.port))
    return made


@contextmanager
def serving(models_dir: Path, tree: Path, folder: Path) -> Iterator[tuple[Front, Server]]:
    """Run the service with what .ebextensions sets, and nginx before it."""
    told = declared(gather(platforms()["beanstalk"], tree)).environment
    with running(models_dir, **told) as server:
        made = front(folder, server.port)
        log = folder / "nginx.log"
        with process(made.command, made.folder, log) as nginx:
            deadline = time.monotonic() + START_LIMIT_S
            while True:
                try:
                    socket.create_connection(("127.0.0.1", made.port), timeout=5).close()
                    break
                except OSError:
                    assert nginx.poll() is None and time.monotonic() < deadline, log.read_text()
                    time.sleep(0.02)
            yield made, server


def test_nginx_accepts_our_snippets(tmp_path: Path) -> None:
    """Each snippet stands in a block where its directives may be; Elastic Beanstalk runs the same check."""
    assert "test is successful" in front(tmp_path).check()


@pytest.mark.parametrize(
    ("snippet", "text", "complaint"),
    [
        ("conf.d/anyport.conf", "proxy_pass http://127.0.0.1:8000;\n", '"proxy_pass" directive is not allowed here'),
        ("conf.d/elasticbeanstalk/anyport.conf", "client_max_body 5m;\n", 'unknown directive "client_max_body"'),
        ("conf.d/anyport.conf", "client_max_body_size 5m\n", "unexpected end of file"),
    ],
    ids=["the wrong block", "an unknown directive", "no semicolon"],
)
def test_nginx_refuses_a_damaged_snippet(snippet: str, text: str, complaint: str, tmp_path: Path) -> None:
    """The check can fail."""
    made = front(tmp_path)
    (made.folder / snippet).write_text(text)
    assert complaint in made.check()


def test_nginx_before_the_service(models_dir: Path, tree: Path, tmp_path: Path) -> None:
    """Bodies up to the service's own limit pass, those a little over get its own answer, and nginx keeps the rest off;
    the client's address is the one that the balancer wrote, whatever the client put before it."""
    with serving(models_dir, tree, tmp_path) as (nginx, server):
        status, media_type, _ = nginx.post(b"[" + b" " * (2 * MIB))
        assert (status, media_type) == (400, "application/problem+json")
        status, media_type, _ = nginx.post(b"[" + b" " * (4 * MIB + MIB // 2))
        assert (status, media_type) == (413, "application/problem+json")
        status, media_type, page = nginx.post(b"[" + b" " * (6 * MIB))
        assert (status, media_type) == (413, "text/html") and b"nginx" in page
        asked = json.dumps({"instances": [PENGUIN]}).encode()
        status, _, answer = nginx.post(asked, **{"X-Forwarded-For": "198.51.100.66, 203.0.113.9"})
        assert (status, json.loads(answer)["predictions"]) == (200, ["Adelie"])
        assert [line["client"] for line in server.lines() if line.get("status") == 200] == ["203.0.113.9"]
