"""The stage: an upload in a folder of its own, started as its platform would start it, with all that it starts."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.errors import PlatformError
from service.platforms.client import Address
from service.platforms.declared import Declared
from service.platforms.facts import Platform
from service.platforms.rehearsal.install import UWSGI, Installed, install

KILL_S = 10
STEP_S = 0.05
SAMPLE_S = 0.1
"""How often the memory is looked at."""
LISTENING = "0A"
"""A listening socket's state in /proc/net/tcp. Source: Linux include/net/tcp_states.h, read 2026-11-22."""
NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {tree}/.platform/nginx/conf.d/*.conf;
    server {{
        listen 127.0.0.1:{port};
        include {tree}/.platform/nginx/conf.d/elasticbeanstalk/*.conf;
        location / {{
            proxy_pass http://127.0.0.1:{behind};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""
"""Elastic Beanstalk's layout of nginx's configuration. Source: copies of a live instance's files, read 2026-11-22."""
READ_ONLY = """
set -e
tree=$1 size=$2 keep=$3
shift 3
mount --bind "$tree" "$tree"
mount -o remount,bind,ro "$tree"
mount -t tmpfs -o size="$size" tmpfs /mnt
case "$keep" in /tmp/*) mkdir -p "/mnt/${keep#/tmp/}"; mount --rbind "$keep" "/mnt/${keep#/tmp/}";; esac
mount --move /mnt /tmp
cd "$tree"
exec "$@"
"""
"""Makes a folder read-only and /tmp a small one in memory that keeps one folder, for a process and its children."""


@dataclass
class Stage:
    """Where an upload runs, and what runs there."""

    platform: Platform
    chosen: Declared
    tree: Path
    installed: Installed
    memory_mib: int
    cache: Path
    folder: Path
    port: int
    remarks: list[str] = field(default_factory=list)
    """What could not be done as the platform does it."""
    found: frozenset[Path] = frozenset()
    """What was in the tree before the service started."""
    bytecode: dict[Path, int] = field(default_factory=dict)
    """The files of bytecode that were there then, and when each was written."""
    began: float = 0.0
    """When the service was started, by the clock that never goes back."""
    apart: bool = False
    """Whether the service's first process is process 1, below the one that was started."""
    process: subprocess.Popen[bytes] | None = None
    front: subprocess.Popen[bytes] | None = None
    front_port: int = 0
    peak_mib: float = 0.0
    """The most memory that all its processes took together since the start."""
    cleared: threading.Event = field(default_factory=threading.Event)

    @property
    def log(self) -> Path:
        """What the service writes."""
        return self.folder / "service.log"

    @property
    def address(self) -> Address:
        """Where clients ask."""
        if self.platform.start.front == "socket":
            return Address(unix=self.folder / "socket")
        return Address(port=self.front_port or self.port)

    @property
    def door(self) -> Address:
        """Where the service itself listens, with nobody before it."""
        return Address(unix=self.address.unix, port=self.port)

    def environment(self) -> dict[str, str]:
        """What the service finds in its environment: what the platform, its files and its settings say."""
        given = self.platform.environment(self.port, self.folder / "socket", self.memory_mib)
        if not self.platform.start.gives_port and self.platform.start.port not in (None, self.port):
            given["PORT"] = str(self.port)
        plain = {
            "PATH": f"{self.installed.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin",
            "HOME": str(self.folder / "home"),
            "LANG": "C.UTF-8",
            "ANYPORT_MEMORY_MIB": str(self.memory_mib),
        }
        return plain | given | self.chosen.environment

    def start(self) -> None:
        """Start the service, and what stands before it.

        Raises:
            PlatformError: If nginx refuses its configuration.
        """
        (self.folder / "home").mkdir(exist_ok=True)
        self.found = frozenset(self.tree.rglob("*"))
        self.bytecode = self._bytecode()
        command = self._command()
        self.began = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.tree,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        threading.Thread(target=self._sample, daemon=True).start()
        if self.platform.start.front == "nginx":
            self._start_nginx()

    def compiled(self) -> list[str]:
        """Name the modules of the service and of its libraries that were compiled since the start."""
        written = [path for path, when in self._bytecode().items() if self.bytecode.get(path) != when]
        return sorted(self._module(path) for path in written)

    def _module(self, bytecode: Path) -> str:
        folder = self.tree if bytecode.is_relative_to(self.tree) else self.installed.packages
        module = bytecode.parent.parent / f"{bytecode.name.partition('.cpython')[0]}.py"
        return module.relative_to(folder).as_posix()

    def _bytecode(self) -> dict[Path, int]:
        folders = (self.tree / "service", self.tree / "__pycache__", self.installed.packages)
        return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*.pyc")}

    def _command(self) -> list[str]:
        start, line = self.platform.start, self.chosen.line
        if start.front == "uwsgi":
            return self._uwsgi()
        command = [*start.shell, line] if start.shell else shlex.split(line)
        if start.process_1:
            return self._as_process_1(line)
        return command if "" in start.writable else self._read_only(command)

    def _uwsgi(self) -> list[str]:
        server = install(UWSGI, self.installed.minor, self.cache)
        if tuple(map(int, self.installed.minor.split("."))) >= (3, 13):
            self.remarks.append("uWSGI ran threads: the last one without them has no wheel for this Python")
        itself = f"PYTHONPATH={server.packages}"  # at a reload it is started anew by the Python below the environment
        options = "--master --processes 1 --harakiri 300".split()
        where = ["--http-socket", f"127.0.0.1:{self.port}", "--pythonpath", str(self.installed.packages)]
        return ["env", itself, server.program("uwsgi"), *where, "--wsgi-file", self.chosen.line, *options]

    def _as_process_1(self, line: str) -> list[str]:
        script = self.folder / "start.sh"
        script.write_text(f'#!/bin/sh\ncd "{self.tree}"\nPATH="$PATH:{self.tree}" {line}\n')
        apart = _unshare("--pid", "--fork", "--kill-child")
        self.apart = bool(apart)
        if not apart:
            self.remarks.append("the shell was not process 1: this machine does not let unshare make one")
        return [*apart, *self.platform.start.shell[:-1], str(script)]

    def _read_only(self, command: list[str]) -> list[str]:
        apart = _unshare("--mount")
        if apart:
            return [
                *apart,
                "sh",
                "-c",
                READ_ONLY,
                "sh",
                str(self.tree),
                f"{self.memory_mib}m",
                str(self.cache),
                *command,
            ]
        self.remarks.append(
            "the tree was not read-only: this machine does not let unshare mount; it was watched instead"
        )
        return command

    def _start_nginx(self) -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            self.remarks.append("nginx did not stand before the service: it is not installed (apt install nginx-light)")
            return
        self.front_port = free_port()
        file = self.folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        file.write_text(
            NGINX.format(folder=self.folder, tree=self.tree, port=self.front_port, behind=self.port, user=user)
        )
        command = [program, "-c", str(file), "-e", str(self.folder / "nginx.log")]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True)
        if tested.returncode:
            raise PlatformError(f"nginx refuses .platform/nginx: {tested.stderr.strip().splitlines()[0]}")
        quiet = subprocess.DEVNULL
        self.front = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)

    def pids(self) -> list[int]:
        """Every process that the service started and that still runs."""
        return [] if self.process is None else _of_session(self.process.pid)

    def pss_mib(self) -> float:
        """Memory of all of them, what they share counted once, in MiB."""
        total = 0
        for pid in self.pids():
            with suppress(OSError):  # it has just ended
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    total += int(line.split()[1]) if line.startswith("Pss:") else 0
        return total / 1024

    def _sample(self) -> None:
        while not self.cleared.wait(SAMPLE_S):
            self.peak_mib = max(self.peak_mib, self.pss_mib())

    def send_stop(self) -> None:
        """Send the platform's stop signal to whom the platform sends it."""
        assert self.process is not None
        stop = self.platform.start.stop
        if stop == "all":
            for pid in self.pids():
                _send(pid, signal.SIGTERM)
        elif stop == "reload":
            _send(self.process.pid, signal.SIGHUP)
        else:
            _send(self._first(), signal.SIGTERM)

    def _first(self) -> int:
        assert self.process is not None
        if self.apart:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            return int(children[0]) if children else self.process.pid
        return self.process.pid

    def await_end(self, limit_s: float) -> float | None:
        """Wait for the service to end; return how long that took, None if it did not within the limit."""
        began = time.monotonic()
        while time.monotonic() < began + limit_s:
            if self.process is None or (self.process.poll() is not None and not self.pids()):
                return time.monotonic() - began
            time.sleep(STEP_S)
        return None

    def clear(self) -> None:
        """End whatever still runs."""
        self.cleared.set()
        for process in (self.process, self.front):
            if process is not None:
                for sent in (signal.SIGTERM, signal.SIGKILL):
                    for pid in _of_session(process.pid):
                        _send(pid, sent)
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(KILL_S)

    def lines(self) -> list[dict[str, Any]]:
        """What the service logged as JSON."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                document = json.loads(line)
                found += [document] if isinstance(document, dict) else []
        return found

    def last_words(self) -> str:
        """The last line of the log that says what happened: of an exception, if one is logged."""
        raised = [str(line["exception"]).strip().splitlines()[-1] for line in self.lines() if "exception" in line]
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        telling = [line for line in lines if re.search(r"Error|error|not found|anyport:", line)]
        found = raised or telling or lines or ["it logged nothing"]
        return found[-1][-300:]


@contextmanager
def stage(
    platform: Platform, chosen: Declared, tree: Path, installed: Installed, memory_mib: int, cache: Path
) -> Iterator[Stage]:
    """Set a stage up, and clear it when the block ends."""
    with tempfile.TemporaryDirectory(prefix="anyport-stage-", dir=cache) as name:
        wanted = None if platform.start.gives_port else platform.start.port
        port = wanted if wanted is not None and is_free(wanted) else free_port()
        here = Stage(platform, chosen, tree, installed, memory_mib, cache, Path(name), port)
        if wanted not in (None, port):
            here.remarks.append(f"the service was given port {port}: somebody here listens on {wanted}")
        here.remarks += not_as_there(platform)
        try:
            yield here
        finally:
            here.clear()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def _unshare(*options: str) -> list[str]:
    """Return the command that sets a process apart, empty where this machine does not allow that."""
    program = shutil.which("unshare")
    for rights in ([], ["--user", "--map-root-user"]):
        command = [program or "unshare", *rights, *options]
        if program and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    return []


def _of_session(leader: int) -> list[int]:
    """The processes of a session. One that ended and was not waited for does not count."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            status, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and status != "Z":
                found.append(int(folder.name))
    return sorted(found)


def _send(pid: int, sent: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, sent)


def listening(pids: list[int]) -> list[str]:
    """Return the addresses that processes listen on, as the kernel lists them."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                sockets.add(os.readlink(link))
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else []:
            fields = line.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in sockets:
                found.add(_address(fields[1]))
    return sorted(found)


def _address(written: str) -> str:
    """Read an address and port as the kernel writes them: words of four bytes, each in the machine's own order."""
    host, _, port = written.partition(":")
    octets = b"".join(bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8))
    address = ipaddress.ip_address(octets)
    return f"{address}:{int(port, 16)}" if address.version == 4 else f"[{address}]:{int(port, 16)}"


def not_as_there(platform: Platform) -> Iterator[str]:
    """What no rehearsal does as the platform does."""
    yield f"this machine's {os.cpu_count()} processors, this user and this kernel; its network is open"
    if platform.start.front == "router":
        yield f"{platform.title}'s router: requests came to the service itself, by plain HTTP"
    if "" not in platform.start.writable:
        yield "HOME and the installed libraries could be written"
