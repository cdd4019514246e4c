"""The Dockerfile and what describes Azure's route, read by programs that nobody here wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.conftest import ROOT
from tests.vendors.tools import ask, run, tool

VALIDATE = """
import json, sys
from openapi_spec_validator import OpenAPIV2SpecValidator, OpenAPIV30SpecValidator
kinds = {"2": OpenAPIV2SpecValidator, "3": OpenAPIV30SpecValidator}
print(json.dumps([error.message for error in kinds[sys.argv[1]](json.loads(sys.argv[2])).iter_errors()]))
"""


def test_dockerfile_passes_hadolint(tmp_path: Path) -> None:
    """The Dockerfile is read by hadolint, which has nothing to say; a worse one it refuses."""
    lint = tool("hadolint", "bin/hadolint")
    done = run([lint, "container/Dockerfile"], ROOT)
    assert (done.returncode, done.stdout) == (0, "")
    worse = (ROOT / "container" / "Dockerfile").read_text().replace("FROM python:3.12-slim\n", "FROM python\n")
    (tmp_path / "Dockerfile").write_text(worse)
    assert "DL3006" in run([lint, "Dockerfile"], tmp_path).stdout


@pytest.mark.parametrize("version", ["2", "3"])
def test_swagger_is_valid(version: str, client: FlaskClient, home: Path) -> None:
    """What describes `/score` is a valid document of its version; one without its paths is none."""
    told = client.get(f"/swagger.json?version={version}").json
    assert ask("openapi-spec-validator", VALIDATE, version, json.dumps(told), home=home) == []
    del told["paths"]
    assert ask("openapi-spec-validator", VALIDATE, version, json.dumps(told), home=home)
