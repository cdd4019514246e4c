"""MLflow's own client of its scoring server, against a service without any setting."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.protocols import mlflow
from tests.conftest import PENGUIN, ROOT
from tests.server import Server, running
from tests.vendors.tools import ask

QUIET = """
import os
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
"""
CLIENT = (
    QUIET
    + """
import json, sys
import numpy as np
import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
port, rows = int(sys.argv[1]), json.loads(sys.argv[2])
client = ScoringServerClient("127.0.0.1", port)
client.wait_server_ready(timeout=10)
frame = pd.DataFrame(rows)
lists = frame.to_numpy(dtype=object)
forms = {
    "frame": frame,
    "turned": frame[frame.columns[::-1]].set_index(pd.Index([7] * len(frame))),
    "array": lists,
    "list": [[row[name] for name in frame.columns] for row in rows],
    "objects": rows,
    "text": json.dumps({"dataframe_records": rows}),
}
labels = {name: client.invoke(form)["predictions"] for name, form in forms.items()}
whole = client.invoke(frame, params={"probabilities": True})
gaps = frame[["sex", "bill_length_mm"]].isna().sum().tolist()
print(json.dumps({
    "version": client.get_version(), "gaps": gaps, "labels": labels, "whole": whole,
    "frame": client.invoke(frame).get_predictions().iloc[:, 0].tolist(),
    "array": client.invoke(frame).get_predictions("ndarray").tolist(),
}))
"""
)
REFUSED = (
    QUIET
    + """
import json, sys
import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
client = ScoringServerClient("127.0.0.1", int(sys.argv[1]))
frame = pd.DataFrame(json.loads(sys.argv[2]))
asked = {
    "missing": (frame.drop(columns="island"), None),
    "unknown": (frame.assign(wings=2), None),
    "text": (frame.assign(body_mass_g="heavy"), None),
    "null": (frame.assign(island=None), None),
    "infinity": (frame.assign(body_mass_g=float("inf")), None),
    "none": (frame.head(0), None),
    "short": ([[39.1, 18.7]], None),
    "params": (frame, {"temperature": 1}),
}
said = {}
for name, (data, params) in asked.items():
    try:
        said[name] = f"answered {client.invoke(data, params=params)}"
    except Exception as error:
        said[name] = str(error)
print(json.dumps(said))
"""
)
NOT_READY = (
    QUIET
    + """
import json, sys
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
client = ScoringServerClient("127.0.0.1", int(sys.argv[1]))
said = []
for call in (lambda: client.wait_server_ready(timeout=0), lambda: client.invoke([[1]])):
    try:
        said.append(f"answered {call()}")
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
print(json.dumps(said))
"""
)

OTHER = {"bill_length_mm": 49.0, "flipper_length_mm": 220.0, "body_mass_g": 5200.0, "island": "Biscoe"}
ROWS: list[dict[str, Any]] = [
    PENGUIN,
    PENGUIN | OTHER,
    PENGUIN | {"sex": None},
    PENGUIN | OTHER | {"sex": None, "bill_length_mm": None},
]
REFUSALS = {
    "missing": "'island' is missing",
    "unknown": "'wings' is not a feature of this model",
    "text": "row 0, 'body_mass_g': expected a number, found the text 'heavy'",
    "null": "'island' is null and the model takes no missing value here",
    "infinity": "Infinity is not JSON; send null for a missing value",
    "none": "0 rows were sent; send at least 1",
    "short": "row 0: expected 6 values in signature order, found 2",
    "params": "the parameter 'temperature' is not known",
}
"""What stands in the text of each refusal."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service under gunicorn, to which nobody has named a protocol."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path_factory.mktemp("served") / "models"))
    with running(models, WEB_CONCURRENCY="1") as server:
        yield server


def test_client_reads_every_answer(server: Server, tmp_path: Path) -> None:
    """Frames, arrays, lists and texts, with missing values, get the labels and shares of the native protocol."""
    said = ask("mlflow", CLIENT, str(server.port), json.dumps(ROWS), home=tmp_path)
    status, native = server.predict(ROWS, "/predict?probabilities=true")
    assert status == 200
    labels = native["predictions"]
    assert set(labels) > {labels[0]}
    assert said.pop("labels") == {form: labels for form in ("frame", "turned", "array", "list", "objects", "text")}
    assert said.pop("whole") == {name: native[name] for name in ("predictions", "probabilities", "classes")}
    assert said == {"version": mlflow.VERSION, "gaps": [2, 1], "frame": labels, "array": labels}


def test_client_raises_what_we_refuse(server: Server, tmp_path: Path) -> None:
    """A request that cannot be answered is the client's exception, with the status, MLflow's code and our text."""
    said = ask("mlflow", REFUSED, str(server.port), json.dumps(ROWS), home=tmp_path)
    assert said.keys() == REFUSALS.keys()
    for name, text in REFUSALS.items():
        assert said[name].startswith('Invocation failed (error code 400, response: {"error_code":"BAD_REQUEST",'), name
        assert text in said[name]


def test_client_waits_for_a_service_that_has_no_model(tmp_path: Path) -> None:
    """A service without a model is not ready for the client, and refuses its rows."""
    models = tmp_path / "models"
    models.mkdir()
    with running(models, WEB_CONCURRENCY="1") as server:
        waited, invoked = ask("mlflow", NOT_READY, str(server.port), home=tmp_path)
    assert waited.startswith("RuntimeError: ") and "ping failed (error code 503)" in waited
    assert invoked.startswith("Exception: Invocation failed (error code 503") and "TEMPORARILY_UNAVAILABLE" in invoked
