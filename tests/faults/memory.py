"""Memory: the worst bodies at once on a plan of 512 MB, and what a hundred thousand requests leave behind.

    python -m tests.faults.memory bodies         # eight of the worst bodies at once, again and again
    python -m tests.faults.memory slope 100000   # requests, and the growth of the workers after the first tenth

It prints what it counted and measured, in MiB of proportional memory (PSS) of the whole service.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import PENGUIN, ROOT
from tests.faults.witness import workers_of
from tests.server import Server, running

PLAN_MIB = 512
BODY_BYTES = 4 * 2**20
JSON, CSV = "application/json", "text/csv"
EMOJI = "\N{GRINNING FACE}"


def worst_bodies() -> list[tuple[str, bytes]]:
    """Eight bodies of the largest size that grow most; `bench/decoders.py` has more."""
    header = ",".join(PENGUIN) + "\n"
    shapes = [
        (JSON, '{"instances":[', "{},", "{}]}"),
        (JSON, '{"instances":[', "[],", "[]]}"),
        (JSON, '{"instances":[', '["ab","ab","ab","ab",1,1],', "[]]}"),
        (JSON, '{"instances":[[', "1e9,", "1]]}"),
        (JSON, '{"instances":[[1,1,1,1,"' + EMOJI, "a", '","b"]]}'),
        (JSON, '{"inputs":{"island":[', '"ab",', '"ab"]}}'),
        (CSV, f'{header}1,1,1,1,"{EMOJI}', ":", '",b\n'),
        (CSV, header, "ab,ab,ab,ab,ab,cd\n", ""),
    ]
    return [
        (kind, (head + item * ((BODY_BYTES - len((head + tail).encode())) // len(item)) + tail).encode())
        for kind, head, item, tail in shapes
    ]


def pss_mib(server: Server) -> float:
    """Proportional memory of the master and its workers."""
    total = 0
    for pid in [server.process.pid, *workers_of(server)]:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has just ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


class Peak(threading.Thread):
    """Looks at the service's memory again and again, and keeps the largest figure."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server, self.mib, self.ended = server, 0.0, threading.Event()

    def run(self) -> None:
        """Look until told to end."""
        while not self.ended.wait(0.01):
            self.mib = max(self.mib, pss_mib(self.server))


def bodies(rounds: int, models: Path) -> tuple[Counter[str], float]:
    """Send eight of the worst bodies at once, and honest ones of the same size; return answers and peak memory."""
    row = list(PENGUIN.values())
    honest = json.dumps({"instances": [row] * 10_000}).encode()
    asked = [*worst_bodies(), *[(JSON, honest)] * 2]
    counted: Counter[str] = Counter()
    with (
        running(models, WEB_CONCURRENCY="2", ANYPORT_MEMORY_MIB=str(PLAN_MIB)) as server,
        ThreadPoolExecutor(8) as pool,
    ):
        before, peak = workers_of(server), Peak(server)
        peak.start()
        for turn in range(rounds):
            # All eight alike every other time, so that each shape meets itself.
            these = asked if turn % 2 == 0 else [asked[turn // 2 % len(asked)]] * 8
            answers = pool.map(lambda kb: server.request("POST", "/predict", kb[1], {"Content-Type": kb[0]})[0], these)
            counted.update(f"status {status}" for status in answers)
            counted["status 200, small"] += server.predict([PENGUIN])[0] == 200
        peak.ended.set()
        peak.join()
        replaced = sum("is replaced" in line["message"] for line in server.lines())
        counted["workers killed"] = len(set(before) - set(workers_of(server))) - replaced
    return counted, peak.mib


def ask_again_and_again(port: int, times: int) -> Counter[str]:
    """Ask one question many times on one connection."""
    body = json.dumps({"instances": [PENGUIN]}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    counted: Counter[str] = Counter()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        for _ in range(times):
            connection.sendall(head + body)
            answer = b""
            while not answer.endswith(b"}\n"):
                answer += connection.recv(65536)
            counted["right" if b'{"predictions":["Adelie"]' in answer else answer[:40].decode()] += 1
    return counted


def slope(requests: int, models: Path) -> tuple[Counter[str], float]:
    """Ask many times; return the answers, and by how many MiB the service has grown after the first tenth."""
    counted: Counter[str] = Counter()

    def ask(server: Server, number: int) -> None:
        with ThreadPoolExecutor(8) as pool:
            for part in pool.map(lambda _: ask_again_and_again(server.port, number // 8), range(8)):
                counted.update(part)

    with running(models, WEB_CONCURRENCY="2") as server:
        ask(server, requests // 10)
        before = pss_mib(server)
        ask(server, requests - requests // 10)
        return counted, pss_mib(server) - before


def measured(what: Callable[[int, Path], tuple[Counter[str], float]], times: int) -> tuple[Counter[str], float]:
    """Run one measurement on a copy of the demo model."""
    with tempfile.TemporaryDirectory() as folder:
        return what(times, Path(shutil.copytree(ROOT / "models", Path(folder) / "models")))


def main(what: str, times: int) -> int:
    """Print one measurement; 1 if a promise is broken."""
    if what == "bodies":
        counted, peak = measured(bodies, times)
        print(dict(counted), f"peak {peak:.0f} MiB of {PLAN_MIB}")
        return int(bool(counted["workers killed"]) or not counted["status 503"] or peak > PLAN_MIB)
    began = time.monotonic()
    counted, grown = measured(slope, times)
    print(dict(counted), f"grown by {grown:.2f} MiB in {time.monotonic() - began:.0f} s")
    return int(set(counted) != {"right"} or grown > 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else {"bodies": 40}.get(sys.argv[1], 100_000)))
