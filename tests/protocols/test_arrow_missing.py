"""Without pyarrow, Arrow is refused with the way to have it; nothing else changes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import PENGUIN, ROOT

ARROW = "application/vnd.apache.arrow.stream"
ADVICE = f"{ARROW} needs pyarrow, which is not installed; add pyarrow to requirements.in, then `make lock install`"
CODE = f"""
import json, sys
sys.modules["pyarrow"] = None  # as where it is not installed, also where it is
from service import create_app
client = create_app().test_client()
for content_type, accept in json.loads(sys.argv[1]):
    headers = {{"Content-Type": content_type, "Accept": accept}}
    answer = client.post("/predict", data=json.dumps({{"instances": [{PENGUIN!r}]}}), headers=headers)
    print(json.dumps([answer.status_code, answer.content_type, answer.text]))
"""
JSON = "application/json"
ASKED = {
    "in": (ARROW, "*/*"),
    "in, with a parameter": (f"{ARROW.upper()}; x=1", "*/*"),
    "out": (JSON, ARROW),
    "out, at any price": (JSON, f"{ARROW};q=0.5"),
    "out, or JSON": (JSON, f"{ARROW}, application/json;q=0.5"),
    "neither": (JSON, "image/png"),
}


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[int, str, Any]]:
    """What a process without pyarrow answers to each."""
    child = [sys.executable, "-c", CODE, json.dumps(list(ASKED.values()))]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {name: (status, kind, json.loads(text)) for name, (status, kind, text) in zip(ASKED, found, strict=True)}


@pytest.mark.parametrize("name", ["in", "in, with a parameter"])
def test_1_8_a_stream_is_not_read(answers: dict[str, tuple[int, str, Any]], name: str) -> None:
    """A stream is an unsupported media type, and the problem says what is missing and how to add it."""
    status, kind, problem = answers[name]
    assert (status, kind, problem["type"]) == (415, "application/problem+json", "/problems/unsupported-media-type")
    assert problem["detail"] == f"{ADVICE}, or send application/json or text/csv"


@pytest.mark.parametrize("name", ["out", "out, at any price"])
def test_a_stream_is_not_written(answers: dict[str, tuple[int, str, Any]], name: str) -> None:
    """A client that accepts nothing but a stream is told the same."""
    status, kind, problem = answers[name]
    assert (status, kind, problem["type"]) == (406, "application/problem+json", "/problems/not-acceptable")
    assert (
        problem["detail"]
        == f"Accept is {ASKED[name][1]!r} and the answer may be application/json or text/csv; {ADVICE}"
    )


def test_other_forms_are_answered_as_ever(answers: dict[str, tuple[int, str, Any]]) -> None:
    """Who takes JSON too gets it, and who wants something else hears nothing of Arrow."""
    assert answers["out, or JSON"][:2] == (200, JSON)
    assert answers["neither"][0] == 406 and "rrow" not in answers["neither"][2]["detail"]
