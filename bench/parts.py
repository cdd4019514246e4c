"""Where the time of one plain prediction goes: microseconds by part, in one process, without a network.

    python -m bench.parts [MODELS_DIR=models] [REQUESTS=5000]

Each part is called by itself on what the part before it made; all take turns, so that a noisy machine is fair, and
medians are printed. The log goes to /dev/null.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from gunicorn.config import Config

from service import create_app
from service.answer import Answers
from service.framing import read_head
from service.heads import Heads
from service.logs import BackgroundHandler, JsonFormatter
from service.protocols import native
from service.settings import Settings
from service.web.exchange import Exchange
from service.web.lane import headers_of, read_plain

CLIENT, SERVER = ("127.0.0.1", 50000), ("127.0.0.1", 8000)

IDS = count()


def request_bytes(example: dict[str, Any]) -> bytes:
    """Write the request that a plain client sends."""
    body = json.dumps({"instances": [example]}).encode()
    fields = f"Host: 127.0.0.1:8000\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"POST /predict HTTP/1.1\r\n{fields}\r\n".encode() + body


def with_new_id(request: bytes) -> bytes:
    """Return the request as a router sends it on, with an id of its own."""
    return request.replace(b"\r\n", b"\r\nX-Request-ID: %d\r\n" % next(IDS), 1)


def gunicorn_config() -> Config:
    """Return gunicorn's configuration as `gunicorn.conf.py` makes it, as far as heads are concerned."""
    cfg = Config()
    for name, value in {"header_map": "drop", "forwarder_headers": "", "http_parser": "python"}.items():
        cfg.set(name, value)
    return cfg


def make_parts(models: Path) -> dict[str, Callable[[], Any]]:
    """Return each part as a call, and the whole as the last."""
    app = create_app(Settings(models_dir=models))
    serving, cfg = app.extensions["anyport"], gunicorn_config()
    predictor = serving.catalogue().predictor()
    signature = predictor.manifest.signature
    request = request_bytes(signature.example())
    heads, answers = Heads(cfg), Answers(app, cfg)
    read = heads.read(request, CLIENT, SERVER)
    body = read.body
    decoded = native.decode_request(body, "application/json", {}, signature, 1)
    response = predictor.predict(decoded)
    exchange = Exchange("")
    exchange.ask(predictor)
    answer = exchange.predict(predictor, body, "application/json", {}, 1, "application/json")
    received = bytearray(request)
    return {
        "frame: where the request ends": lambda: read_head(received),
        "head: its lines, of which one is new": lambda: heads.read(with_new_id(request), CLIENT, SERVER),
        "head: what it asks for": lambda: read_plain(read.said),
        "the request's id": lambda: Exchange(""),
        "decode: JSON to checked columns": lambda: native.decode_request(body, "application/json", {}, signature, 1),
        "predict: the model": lambda: predictor.predict(decoded),
        "encode: predictions to JSON": lambda: native.encode_response(response, "application/json"),
        "log: one line": lambda: exchange.log("POST", "/predict", 200, "127.0.0.1"),
        "headers of the answer": lambda: headers_of(answer, exchange),
        "the whole, from bytes to bytes": lambda: answers.answer(with_new_id(request), CLIENT, SERVER, close=False),
    }


def measure(parts: dict[str, Callable[[], Any]], requests: int) -> dict[str, float]:
    """Return the median of each part, in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(requests):
        for name, call in parts.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) * 1e6 for name, taken in times.items()}


def main(models: str = "models", requests: str = "5000") -> None:
    """Print the table."""
    handler = BackgroundHandler(os.open(os.devnull, os.O_WRONLY))
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    found = measure(make_parts(Path(models)), int(requests))
    for name, microseconds in found.items():
        print(f"{microseconds:7.1f} us  {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
