"""Logs: one JSON object a line on standard output, ASCII only, with the keys that log collectors look for.

Source for `severity` and `message`: cloud.google.com/logging/docs/structured-logging, read 2026-11-22.
"""

from __future__ import annotations

import json
import logging
import os
import select
import time
from collections import deque
from contextvars import ContextVar
from functools import lru_cache
from threading import Event, Lock, Thread
from typing import Any

import msgspec

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that is being answered; every line that is logged meanwhile carries it."""
MAX_TEXT = 256
MAX_EXCEPTION = 8192
MAX_WAITING = 10_000
"""How many lines wait for whoever reads the log before more are dropped."""
GATHER_S = 0.05
"""How long lines gather before they are written together."""
FLUSH_S = 1.0
MAX_DISTINCT = 1000
"""How many different warnings of libraries one process logs."""


class RequestRecord(logging.LogRecord):
    """What is logged of one request: a record without the looks around that Python's own takes for each line."""

    def __init__(self, logger: str, message: str, facts: dict[str, Any]) -> None:
        created = time.time()
        self.__dict__.update(
            BLANK, name=logger, msg=message, facts=facts, created=created, msecs=int(created % 1 * 1000)
        )


WHERE = ("thread", "threadName", "process", "processName")
BLANK = vars(logging.LogRecord("", logging.INFO, "", 0, "", (), None)) | dict.fromkeys(WHERE)
"""What such a record has beside; where it was made, as little as any record of ours."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object, with the facts of a request where it has them."""

    def __init__(self) -> None:
        super().__init__()
        self._second = lru_cache(1)(lambda second: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, Any] = {
            "time": f"{self._second(int(record.created))}.{int(record.msecs):03d}Z",
            "severity": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
            "pid": os.getpid(),
        }
        if (request_id := REQUEST_ID.get()) is not None:
            line["request_id"] = request_id
        facts = getattr(record, "facts", {})
        line |= {key: value[:MAX_TEXT] if isinstance(value, str) else value for key, value in facts.items()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-MAX_EXCEPTION:]
        return _as_json(line)


class Once(logging.Filter):
    """Passes each message once: scikit-learn's threads race over Python's own memory of warnings."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[int] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is new."""
        message = hash(record.getMessage())
        if message in self._seen or len(self._seen) >= MAX_DISTINCT:
            return False
        self._seen.add(message)
        return True


class BackgroundHandler(logging.Handler):
    """Writes lines in a thread of its own, so that whoever logs never waits for a collector that stopped reading.

    Lines beyond `MAX_WAITING` are dropped, and their number is told as soon as lines pass again. It survives forks.
    """

    def __init__(self, descriptor: int = 1) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._begin()
        _lighten_records()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._some, self._hurry = Event(), Event()
        self._writing = Lock()
        self._thread: Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Leave a record's line to the thread."""
        if self._pid != os.getpid():
            self._begin()  # threads do not survive a fork, and what waited is the parent's to write
        if len(self._lines) >= MAX_WAITING:
            self._dropped += 1
            return
        try:
            self._lines.append(self.format(record))
        except Exception:  # a record that cannot be formatted is no fault of the request that logs it
            self.handleError(record)
            return
        if self._thread is None:
            self._thread = Thread(target=self._write, name="log", daemon=True)
            self._thread.start()
        if not self._some.is_set():  # to look costs less than to set; the thread clears it before it takes the lines
            self._some.set()

    def _write(self) -> None:
        while self._some.wait():
            self._hurry.wait(GATHER_S)  # to wake for each line would cost every request a turn of the interpreter
            self._some.clear()
            with self._writing:
                self._empty()

    def _empty(self) -> None:
        while self._lines:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                lines.append(self.format(_dropped_record(dropped)))
            _write_all(self._descriptor, ("\n".join(lines) + "\n").encode("ascii"))

    def flush(self) -> None:
        """Wait for what was logged to be written, but not for ever."""
        self._hurry.set()
        until = time.monotonic() + FLUSH_S
        while self._pid == os.getpid() and time.monotonic() < until:
            if not self._lines and self._writing.acquire(timeout=FLUSH_S):
                self._writing.release()
                break
            time.sleep(0.001)
        self._hurry.clear()


def _as_json(line: dict[str, Any]) -> str:
    """Write a line in ASCII; msgspec is five times faster than json, and writes nothing but ASCII as it is."""
    try:
        written = msgspec.json.encode(line)
    except (TypeError, UnicodeEncodeError):  # half a surrogate pair, or what only json takes
        return json.dumps(line, separators=(",", ":"))
    return written.decode("ascii") if written.isascii() else json.dumps(line, separators=(",", ":"))


def _lighten_records() -> None:
    """Have records leave out what no line of ours says: threads, processes and the place in the source.

    Source: docs.python.org/3/howto/logging.html#optimization, read 2026-11-23.
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    setattr(logging, "logAsyncioTasks", False)  # noqa: B010  # not in Python 3.11
    setattr(logging, "_srcfile", None)  # noqa: B010  # this is how the page says it, and the types do not know it


def _dropped_record(number: int) -> logging.LogRecord:
    message = "%d lines were not logged: what reads the log was too slow"
    return logging.LogRecord(__name__, logging.WARNING, "", 0, message, (number,), None)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except OSError:
            return  # nobody reads the log any more, so there is nobody to tell


TALKATIVE = (
    *("aiobotocore", "botocore", "s3fs", "gcsfs", "google", "adlfs", "azure", "msal", "oci", "ocifs", "oss2", "ossfs"),
    *("aiohttp", "asyncio", "fsspec", "requests", "urllib3"),
)
"""Libraries that fetch models: at debug level they log headers, in which credentials stand."""


def log_config(level: str, *, in_background: bool = True) -> dict[str, Any]:
    """Return the `logging.config` dictionary; gunicorn's own messages go the same way.

    Args:
        level: The least severity that is logged.
        in_background: Whether a thread writes the lines; where there are no threads, whoever logs does.
    """
    at_once = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
    handler = {"()": BackgroundHandler} if in_background else at_once
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"once": {"()": Once}},
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stdout": handler | {"formatter": "json"}},
        "root": {"level": level.upper(), "handlers": ["stdout"]},
        "loggers": {
            "gunicorn.error": {"level": level.upper(), "handlers": ["stdout"], "propagate": False},
            "py.warnings": {"filters": ["once"]},
            "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
            **{name: {"level": "WARNING"} for name in TALKATIVE},
        },
    }
