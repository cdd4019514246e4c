"""Memory: the worst bodies at once on a plan of 512 MB, what requests leave behind, and a model that leaks.

    python -m tests.faults.memory bodies         # eight of the worst bodies at once, again and again
    python -m tests.faults.memory slope 100000   # requests, and the growth of the workers after the first tenth
    python -m tests.faults.memory leak 20        # workers that are replaced because their model keeps memory

It prints what it counted and measured: for `bodies` MiB of proportional memory (PSS) of the whole service, for the
others MiB of the workers' own memory (RssAnon), which does not change with what else the machine runs.
"""

from __future__ import annotations

import http.client
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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from tests.conftest import PENGUIN, ROOT
from tests.faults.witness import workers_of
from tests.leaky import LeakySum
from tests.server import Server, running
from tests.slow import SlowSum
from tests.test_server import pack_into

PLAN_MIB = 512
BODY_BYTES = 4 * 2**20
JSON, CSV = "application/json", "text/csv"
SLOW, LEAKY = "/v1/models/slow:predict", "/v1/models/leaky:predict"
CLIENTS = 8
LEAK_MIB = 1.0
PAUSE_S = 0.05
LEAK_LIMIT_S = 20
"""How long one replacement may take before the leak is given up."""
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
    return _sum_mib([server.process.pid, *workers_of(server)], "smaps_rollup", "Pss:")


def _sum_mib(pids: list[int], file: str, field: str) -> float:
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
        except OSError:  # it has just ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(field))
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


def ask_once(server: Server, kind_and_body: tuple[str, bytes]) -> str:
    """Send one body and say what became of it; a 503 must name its problem and when to come again."""
    kind, body = kind_and_body
    status, headers, answer = server.request("POST", "/predict", body, {"Content-Type": kind})
    if status == 503 and (json.loads(answer)["type"], headers["Retry-After"]) != ("/problems/insufficient-memory", "1"):
        return f"another 503: {answer[:80]}"
    return f"status {status}"


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
            counted.update(pool.map(partial(ask_once, server), these))
            counted["status 200, small"] += server.predict([PENGUIN])[0] == 200
        peak.ended.set()
        peak.join()
        replaced = sum("is replaced" in line["message"] for line in server.lines())
        counted["workers killed"] = len(set(before) - set(workers_of(server))) - replaced
    return counted, peak.mib


def own_mib(server: Server) -> float:
    """Memory that the workers have to themselves, the most of them that can be looked at."""
    return _sum_mib(workers_of(server), "status", "RssAnon:")


def pack_sum(models: Path, name: str, model: Any) -> None:
    """Pack a model of two columns that adds them up."""
    rows = pandas.DataFrame(np.arange(8.0).reshape(4, 2), columns=["a", "b"])
    pack_into(models.parent, name, model.fit(rows), rows)


def ask_again_and_again(port: int, times: int) -> Counter[str]:
    """Ask a tiny model one question many times on one connection."""
    body = b'{"instances":[[1,2]]}'
    head = f"POST {SLOW} HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    counted: Counter[str] = Counter()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        for _ in range(times):
            connection.sendall(head + body)
            answer = b""
            while not answer.endswith(b"}\n"):
                part = connection.recv(65536)
                if not part:
                    counted["lost"] += 1
                    return counted
                answer += part
            counted["right" if b'{"predictions":[3.0]' in answer else answer[:40].decode()] += 1
    return counted


def slope(requests: int, models: Path) -> tuple[Counter[str], float]:
    """Ask many times; return the answers, and by how many MiB the workers have grown after the first tenth."""
    pack_sum(models, "slow", SlowSum())
    counted: Counter[str] = Counter()

    def ask(server: Server, number: int) -> None:
        with ThreadPoolExecutor(CLIENTS) as pool:
            for part in pool.map(lambda _: ask_again_and_again(server.port, number // CLIENTS), range(CLIENTS)):
                counted.update(part)

    with running(models, WEB_CONCURRENCY="2", SLOW_S="0") as server:
        server.await_lines("answers now", 4)  # two models in two workers
        ask(server, requests // 10)
        before = own_mib(server)
        ask(server, requests - requests // 10)
        return counted, own_mib(server) - before


class Asker(threading.Thread):
    """A client of a leaky model, which checks every answer. Even ones keep their connection."""

    def __init__(self, number: int, port: int, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number, self.port, self.ended = number, port, ended
        self.counted: Counter[str] = Counter()

    def run(self) -> None:
        """Ask until told to end, with pauses, so that the model does not leak faster than a worker looks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        turn = self.number
        while not self.ended.wait(PAUSE_S):
            turn += 1
            self.counted[self.ask(connection, turn)] += 1
            if self.number % 2:
                connection.close()
        connection.close()

    def ask(self, connection: http.client.HTTPConnection, turn: int) -> str:
        """Send one request and say what became of it."""
        try:
            connection.request("POST", LEAKY, json.dumps({"instances": [[turn, 1]]}), {"Content-Type": JSON})
            answer = connection.getresponse()
            document = json.loads(answer.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return f"lost ({type(error).__name__})"
        if answer.status != 200:
            return f"status {answer.status}"
        return "right" if document["predictions"] == [turn + 1.0] else "wrong"


def replacements(server: Server) -> list[tuple[str, int]]:
    """What the log says of workers, in order: `replaced` where one is about to end, `answers` where one has begun."""
    said = {"is replaced": "replaced", "leaky/1 answers now": "answers"}
    lines = sorted(server.lines(), key=lambda line: str(line["time"]))
    return [(name, line["pid"]) for line in lines for words, name in said.items() if words in line["message"]]


def most_at_once(events: list[tuple[str, int]], workers: int) -> int:
    """How many workers were being replaced at once, at most."""
    begun = most = at_once = 0
    for name, _ in events:
        if name == "replaced":
            at_once += 1
        elif begun < workers:
            begun += 1  # one of the first
        else:
            at_once -= 1
        most = max(most, at_once)
    return most


def leak(times: int, models: Path) -> tuple[Counter[str], float]:
    """Have workers replaced by a model that leaks while clients ask; return the answers and the peak of memory."""
    pack_sum(models, "leaky", LeakySum())
    limits = {"WEB_CONCURRENCY": "2", "ANYPORT_MEMORY_MIB": "200", "LEAK_MIB": str(LEAK_MIB)}
    with running(models, **limits) as server:
        server.await_lines("answers now", 4)  # two models in two workers
        ended, peak_mib = threading.Event(), 0.0
        askers = [Asker(number, server.port, ended) for number in range(CLIENTS)]
        for asker in askers:
            asker.start()
        deadline = time.monotonic() + LEAK_LIMIT_S * times
        while [name for name, _ in replacements(server)].count("answers") < 2 + times and time.monotonic() < deadline:
            time.sleep(0.1)
            peak_mib = max(peak_mib, own_mib(server))
        ended.set()
        for asker in askers:
            asker.join()
        counted = sum((asker.counted for asker in askers), Counter())
        events = replacements(server)
        counted["workers replaced"] = [name for name, _ in events].count("replaced")
        counted["workers replaced at once"] = most_at_once(events, 2)
        return counted, peak_mib


def measured(what: Callable[[int, Path], tuple[Counter[str], float]], times: int) -> tuple[Counter[str], float]:
    """Run one measurement on a copy of the demo model."""
    with tempfile.TemporaryDirectory() as folder:
        return what(times, Path(shutil.copytree(ROOT / "models", Path(folder) / "models")))


def main(what: str, times: int) -> int:
    """Print one measurement; 1 if a promise is broken."""
    began = time.monotonic()
    counted, mib = measured({"bodies": bodies, "slope": slope, "leak": leak}[what], times)
    if what == "bodies":
        print(dict(counted), f"peak {mib:.0f} MiB of {PLAN_MIB}")
        return int(bool(counted["workers killed"]) or not counted["status 503"] or mib > PLAN_MIB)
    if what == "leak":
        print(dict(counted), f"peak {mib:.0f} MiB in {time.monotonic() - began:.0f} s")
        allowed = {"right", "workers replaced", "workers replaced at once"}
        return int(set(counted) != allowed or counted["workers replaced at once"] != 1)
    print(dict(counted), f"grown by {mib:.2f} MiB in {time.monotonic() - began:.0f} s")
    return int(set(counted) != {"right"} or mib > 1)


if __name__ == "__main__":
    sys.exit(
        main(
            sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else {"bodies": 40, "leak": 20}.get(sys.argv[1], 100_000)
        )
    )
