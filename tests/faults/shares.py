"""Shares: how many of 16 kept-alive connections each of two workers holds.

python -m tests.faults.shares 20       # tries; it prints the largest share of each
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.conftest import PENGUIN, ROOT
from tests.server import Server, running

CLIENTS = 16
MOST = 10


def question(request_id: str) -> bytes:
    """A prediction request as bytes."""
    body = json.dumps({"instances": [PENGUIN]}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Request-ID: {request_id}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def largest_share(server: Server, turn: int) -> int:
    """Open 16 connections, ask once on each, and return how many of them one worker holds at most."""
    kept = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(CLIENTS)]
    try:
        for number, client in enumerate(kept):
            client.sendall(question(f"share-{turn}-{number}"))
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
    finally:
        for client in kept:
            client.close()
    asked = [line["pid"] for line in answered(server) if line["request_id"].startswith(f"share-{turn}-")]
    assert len(asked) == CLIENTS
    return max(Counter(asked).values())


def answered(server: Server) -> list[dict[str, str]]:
    """The lines of predictions, once the log has been written."""
    time.sleep(0.2)
    return [line for line in server.lines() if line.get("route") == "/predict" and "request_id" in line]


def await_workers(server: Server, workers: int) -> None:
    """Wait until every worker has loaded its models."""
    server.await_lines("answers now", workers)
    time.sleep(0.5)  # the last one has said so, and begins to accept


def main(tries: int) -> int:
    """Print the shares; 1 if a worker held too many."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(shutil.copytree(ROOT / "models", Path(folder) / "models"))
        with running(models, WEB_CONCURRENCY="2") as server:
            await_workers(server, 2)
            shares = [largest_share(server, turn) for turn in range(tries)]
    print(f"largest shares of {CLIENTS} connections over 2 workers: {shares}")
    return int(max(shares) > MOST)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
