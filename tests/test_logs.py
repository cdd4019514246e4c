"""Logs: one line of ASCII JSON for each record, whatever it holds."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import re
import select
import sys
from typing import Any

import pytest

from service.logs import MAX_TEXT, MAX_WAITING, BackgroundHandler, JsonFormatter, Once, log_config


def line_of(message: str, *arguments: Any, exc_info: Any = None, **facts: Any) -> str:
    """The line that a record becomes."""
    record = logging.LogRecord("service.tests", logging.WARNING, __file__, 1, message, arguments, exc_info)
    if facts:
        record.facts = facts
    return JsonFormatter().format(record)


def read(line: str) -> dict[str, Any]:
    """Parse one line, which must be one, in ASCII."""
    assert line.isascii() and line.isprintable()
    document: dict[str, Any] = json.loads(line)
    return document


def test_line_has_the_keys_of_collectors() -> None:
    """A line tells time in UTC, severity, message, logger and process."""
    document = read(line_of("%d models in %s", 3, "a"))
    assert list(document) == ["time", "severity", "message", "logger", "pid"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document["time"])
    assert (document["severity"], document["message"]) == ("WARNING", "3 models in a")
    assert (document["logger"], document["pid"]) == (
        "service.tests",
        logging.LogRecord("", 0, "", 0, "", (), None).process,
    )


def test_line_tells_the_time_in_utc() -> None:
    """The time is the record's own, to the millisecond, in UTC."""
    record = logging.LogRecord("a", logging.INFO, "", 1, "x", (), None)
    record.created, record.msecs = 1_714_564_800.042, 42.0
    assert json.loads(JsonFormatter().format(record))["time"] == "2024-05-01T12:00:00.042Z"


@pytest.mark.parametrize(
    "text", ["é😀", "a\nb", "a\r\nb", '"quoted"', "\x00\x1b[31m", "\u2028", "\ud83d", "\\"], ids=ascii
)
def test_5_30_line_is_one_ascii_line(text: str) -> None:
    """Line ends, control signs, quotes and everything beyond ASCII are escaped, in messages and in facts."""
    document = read(line_of("%s", text, path=text))
    assert document["message"] == text
    assert document["path"] == text


def test_line_has_the_facts_of_a_request() -> None:
    """The facts of a request stand beside the message, with their types."""
    document = read(line_of("done", status=200, milliseconds=1.5, model=None, ok=True, route="/"))
    assert {key: document[key] for key in ("status", "milliseconds", "model", "ok", "route")} == {
        "status": 200,
        "milliseconds": 1.5,
        "model": None,
        "ok": True,
        "route": "/",
    }


@pytest.mark.parametrize(("length", "kept"), [(255, 255), (256, 256), (257, 256), (100_000, 256)])
def test_5_30_client_text_is_cut(length: int, kept: int) -> None:
    """A fact that is text is cut to 256 characters."""
    assert MAX_TEXT == 256
    assert read(line_of("x", path="é" * length))["path"] == "é" * kept


def test_5_30_client_text_in_an_exception_is_cut() -> None:
    """An exception's text, which may repeat a whole body, does not make a line of a megabyte."""
    try:
        raise ValueError("could not convert " + "x" * 1_000_000)
    except ValueError:
        line = line_of("it failed", exc_info=sys.exc_info())
    assert len(line) < 20_000


def test_line_has_the_exception() -> None:
    """An exception stands in the line with its traceback."""
    try:
        raise ValueError("no such thing\nin two lines")
    except ValueError:
        document = read(line_of("it failed", exc_info=sys.exc_info()))
    assert document["message"] == "it failed"
    assert document["exception"].startswith("Traceback (most recent call last):\n")
    assert document["exception"].endswith("ValueError: no such thing\nin two lines")


def test_line_without_an_exception_has_no_such_key() -> None:
    """There is no exception in a line unless there was one."""
    assert "exception" not in read(line_of("fine"))


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_config_logs_from_the_level(level: str) -> None:
    """The level holds for the root and for gunicorn's own messages, and gunicorn's access log stays shut."""
    config = log_config(level)
    assert config["root"]["level"] == config["loggers"]["gunicorn.error"]["level"] == level.upper()
    assert config["loggers"]["gunicorn.access"]["handlers"] == []


def test_config_writes_one_line_for_each_record(capfd: pytest.CaptureFixture[str]) -> None:
    """With the configuration in force, ours and gunicorn's messages come once each, as JSON, on standard output."""
    root = logging.getLogger()
    names = ["gunicorn.error", "gunicorn.access"]
    before = root.level, root.handlers[:]
    try:
        logging.config.dictConfig(log_config("info"))
        logging.getLogger("service.requests").info("ours é\n", extra={"facts": {"status": 200}})
        logging.getLogger("service.requests").debug("too fine")
        logging.getLogger("gunicorn.error").warning("gunicorn's")
        logging.getLogger("gunicorn.access").info("access")
        root.handlers[0].flush()
    finally:
        root.setLevel(before[0])
        root.handlers[:] = before[1]
        for name in names:
            logger = logging.getLogger(name)
            logger.setLevel(logging.NOTSET)
            logger.handlers, logger.propagate = [], True
    lines = [read(line) for line in capfd.readouterr().out.splitlines()]
    assert [(line["logger"], line["message"], line.get("status")) for line in lines] == [
        ("service.requests", "ours é\n", 200),
        ("gunicorn.error", "gunicorn's", None),
    ]


def test_5_30_logging_never_blocks() -> None:
    """A collector that stops reading stops nobody: lines are dropped, and told of once it reads again."""
    reads, writes = os.pipe()
    handler = BackgroundHandler(writes)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("told")
    logger.addHandler(handler)
    for number in range(3 * MAX_WAITING):
        logger.error("line %d %s", number, "x" * 100)  # far more than a pipe and the queue hold
    received = b""
    with open(reads, "rb", buffering=0) as pipe:
        while b"were not logged" not in received:
            assert select.select([pipe], [], [], 10)[0], "no line tells of the dropped ones"
            received += pipe.read(1 << 20)
    os.close(writes)
    lines = [json.loads(line) for line in received.decode().splitlines()]
    dropped = int(lines[-1]["message"].split()[0])
    assert dropped > 0 and len(lines) - 1 + dropped == 3 * MAX_WAITING


def test_5_30_line_that_cannot_be_formatted_raises_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """A record whose arguments do not fit its text costs that line, and not the request that logs it."""
    reads, writes = os.pipe()
    handler = BackgroundHandler(writes)
    handler.setFormatter(JsonFormatter())
    for message in ("%d", "plain"):
        handler.handle(logging.LogRecord("a", logging.INFO, "", 1, message, ("x",) if "%" in message else (), None))
    handler.flush()
    os.close(writes)
    with open(reads, "rb") as pipe:
        assert [json.loads(line)["message"] for line in pipe] == ["plain"]
    assert "Logging error" in capfd.readouterr().err


def test_lines_are_written_after_a_fork() -> None:
    """A child process writes its own lines, and not what its parent had still to write."""
    reads, writes = os.pipe()
    handler = BackgroundHandler(writes)
    handler.setFormatter(JsonFormatter())
    record = logging.LogRecord("a", logging.INFO, "", 1, "parent", (), None)
    handler.handle(record)
    handler.flush()
    child = os.fork()
    if not child:
        record.msg = "child"
        handler.handle(record)
        handler.flush()
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writes)
    with open(reads, "rb") as pipe:
        assert [json.loads(line)["message"] for line in pipe] == ["parent", "child"]


def test_warnings_of_libraries_are_logged_once() -> None:
    """The same warning again says nothing new."""
    once = Once()
    record = logging.LogRecord("py.warnings", logging.WARNING, "", 1, "old", (), None)
    other = logging.LogRecord("py.warnings", logging.WARNING, "", 1, "new", (), None)
    assert [once.filter(record), once.filter(record), once.filter(other)] == [True, False, True]


def test_libraries_of_buckets_are_silent_at_debug_level() -> None:
    """At debug level the libraries that fetch models would log headers with credentials; they log warnings alone."""
    told = log_config("debug")["loggers"]
    for name in ("botocore", "aiobotocore", "gcsfs", "google", "azure", "oci", "urllib3", "aiohttp", "fsspec"):
        assert told[name]["level"] == "WARNING"
