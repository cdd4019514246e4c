"""Logs: one JSON object a line on standard output, ASCII only, with the keys that log collectors look for.

Source for `severity` and `message`: cloud.google.com/logging/docs/structured-logging, read 2026-11-22.
"""

from __future__ import annotations

import json
import logging
import time
from contextvars import ContextVar
from typing import Any

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that is being answered; every line that is logged meanwhile carries it."""
MAX_TEXT = 256
MAX_EXCEPTION = 8192


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object, with the facts of a request where it has them."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "severity": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
            "pid": record.process,
        }
        if (request_id := REQUEST_ID.get()) is not None:
            line["request_id"] = request_id
        facts = getattr(record, "facts", {})
        line |= {key: value[:MAX_TEXT] if isinstance(value, str) else value for key, value in facts.items()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-MAX_EXCEPTION:]
        return json.dumps(line)


def log_config(level: str) -> dict[str, Any]:
    """Return the `logging.config` dictionary; gunicorn's own messages go the same way."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stdout": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}},
        "root": {"level": level.upper(), "handlers": ["stdout"]},
        "loggers": {
            "gunicorn.error": {"level": level.upper(), "handlers": ["stdout"], "propagate": False},
            "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
        },
    }
