"""The default model as a function from bytes to bytes, and the file in which Oracle's runtime calls it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import ChecksumMismatch, NotReady
from service.protocols import PROTOCOLS
from service.scoring import Scorer
from service.settings import Settings
from tests.conftest import PENGUIN, ROOT

CLOUDS = [name for name in PROTOCOLS if name != "native"]


@pytest.mark.parametrize("protocol", CLOUDS)
def test_every_protocol_is_answered(protocol: str, models_dir: Path) -> None:
    """A request in any protocol's words is answered in them, without a web framework."""
    codec = PROTOCOLS[protocol]
    scored = Scorer(protocol, Settings(models_dir=models_dir)).score(codec.encode_request([PENGUIN]))
    assert (scored.status, scored.content_type) == (200, codec.RESPONSE_TYPES[0])
    assert codec.decode_response(scored.body) == ["Adelie"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [(b"{", 400, "line 1"), (b'{"data": [1]}', 400, "expected an object"), (b" " * 2000, 413, "may have 1024")],
)
def test_faults_are_told_with_an_id(body: bytes, status: int, said: str, models_dir: Path) -> None:
    """A fault has its status and the protocol's words, with an id under which the log tells more."""
    scored = Scorer("azureml", Settings(models_dir=models_dir, max_body_bytes=1024)).score(body)
    assert (scored.status, scored.content_type) == (status, "application/json")
    assert said in json.loads(scored.body)["message"] and "(request " in json.loads(scored.body)["message"]


def test_failure_of_the_model_is_no_secret_and_no_text(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the model raises is logged, and the caller gets its id alone."""
    scorer = Scorer("azureml", Settings(models_dir=models_dir))
    monkeypatch.setattr(type(scorer._predictor), "predict", lambda *_: 1 / 0)
    scored = scorer.score(json.dumps({"data": [PENGUIN]}).encode())
    assert scored.status == 500 and b"division" not in scored.body
    assert "ZeroDivisionError" in caplog.text


def test_model_that_cannot_be_opened_is_told(models_dir: Path, tmp_path: Path) -> None:
    """Without a model, or with a damaged one, there is no scorer, and the error says why."""
    with pytest.raises(NotReady, match="no default model"):
        Scorer("oci", Settings(models_dir=tmp_path / "empty"))
    for file in (models_dir / "penguins" / "1").iterdir():
        if file.name != "manifest.json":
            file.write_bytes(b"damaged")
    with pytest.raises(ChecksumMismatch):
        Scorer("oci", Settings(models_dir=models_dir))


def test_oracle_s_runtime_can_call_it(tmp_path: Path) -> None:
    """Out of an artefact, predict() answers documents and texts, raises what is wrong, and needs no web framework."""
    artefact = tmp_path / "artefact"
    shutil.copytree(ROOT / "service", artefact / "service", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "models", artefact / "models")
    shutil.copy(ROOT / "container" / "oci" / "score.py", artefact)
    code = (
        "import json, sys\n"
        f"sys.path.insert(0, {str(artefact)!r})\n"
        "import score\n"
        f"rows = {[PENGUIN]!r}\n"
        "answers = [score.predict({'data': rows}), score.predict(json.dumps({'data': rows}))]\n"
        "try:\n    score.predict({'data': 1})\nexcept ValueError as error:\n    refused = str(error)\n"
        "print(json.dumps([answers, refused, 'flask' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    answers, refused, flask = json.loads(done.stdout.splitlines()[-1])
    assert answers == [{"prediction": ["Adelie"]}] * 2
    assert "must be a list" in refused and not flask
