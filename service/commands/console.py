"""What the commands share: errors as one line with exit status 1, and output for people or programs."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from service.errors import ServiceError


@contextmanager
def plain_errors(as_json: bool = False) -> Iterator[None]:
    """Turn an error of ours into a message and exit status 1, without a traceback."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # the message below says it all
    try:
        yield
    except ServiceError as error:
        if as_json:
            _end_as_json(error.code, error.detail)
        lines = [f"  row {f.row}, {f.feature}: {f.detail}" for f in error.faults if f.row is not None]
        raise click.ClickException("\n".join([error.detail, *lines[:5]])) from error
    except OSError as error:
        detail = f"{error.filename or 'a file'}: {error.strerror or error}"
        if as_json:
            _end_as_json("os-error", detail)
        raise click.ClickException(detail) from error
    finally:
        logging.disable(before)


def _end_as_json(code: str, detail: str) -> NoReturn:
    click.echo(json.dumps({"error": {"code": code, "detail": detail}}))
    sys.exit(1)


def echo_json(document: Any) -> None:
    """Print a document as indented JSON."""
    click.echo(json.dumps(document, indent=2))


def tell(message: str) -> None:
    """Say on a terminal what is being done now; programs see nothing of it."""
    if sys.stderr.isatty():
        click.echo(f"… {message}", err=True)
