"""Limits of one request: how many rows a model takes depends on how many features it has."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from flask import Flask
from flask.testing import FlaskClient

from service import create_app
from service.settings import Settings
from tests.conftest import PENGUIN, ROOT
from tests.slow import SlowSum
from tests.test_server import pack_into

JSON, CSV = "application/json", "text/csv"
CELLS = 30


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """A client of penguins, with six features, and a sum of two, where one request may have 30 cells."""
    folder = tmp_path_factory.mktemp("limits")
    models = Path(shutil.copytree(ROOT / "models", folder / "models"))
    rows = pandas.DataFrame(np.arange(8.0).reshape(4, 2), columns=["a", "b"])
    pack_into(folder, "sum", SlowSum().fit(rows), rows)
    return create_app(Settings(models_dir=models, max_cells=CELLS, max_rows=1000)).test_client()


def body(row: dict[str, Any], n_rows: int, shape: str) -> tuple[str, bytes]:
    """A request of equal rows, and its media type."""
    if shape == "csv":
        return CSV, "\n".join([",".join(row), *[",".join(map(str, row.values()))] * n_rows]).encode()
    if shape == "columns":
        return JSON, json.dumps({"inputs": {name: [value] * n_rows for name, value in row.items()}}).encode()
    return JSON, json.dumps({"instances": [row if shape == "objects" else list(row.values())] * n_rows}).encode()


@pytest.mark.parametrize("shape", ["objects", "lists", "columns", "csv"])
@pytest.mark.parametrize(("model", "row"), [("penguins", PENGUIN), ("sum", {"a": 1.0, "b": 2.0})])
def test_1_7_model_with_many_features_takes_fewer_rows(
    model: str, row: dict[str, Any], shape: str, served: FlaskClient
) -> None:
    """As many rows as the cells allow are answered in any shape, and one more is told what the model takes."""
    allowed = CELLS // len(row)
    path = f"/v1/models/{model}:predict"
    media_type, fits = body(row, allowed, shape)
    answer = served.post(path, data=fits, headers={"Content-Type": media_type, "Accept": JSON})
    assert answer.status_code == 200 and len(answer.json["predictions"]) == allowed
    for more in (1, 1000):
        media_type, exceeds = body(row, allowed + more, shape)
        answer = served.post(path, data=exceeds, headers={"Content-Type": media_type})
        assert (answer.status_code, answer.json["type"]) == (422, "/problems/too-many-rows")
        assert re.search(rf"\b{allowed}\b", answer.json["detail"])


@pytest.mark.parametrize("cells", [1, 5, 6, 11, 12])
def test_1_7_one_row_is_always_taken(cells: int, make_app: Callable[..., Flask]) -> None:
    """A model of more features than the limit of cells still takes one row."""
    client = make_app(max_cells=cells).test_client()
    answers = [client.post("/predict", json={"instances": [PENGUIN] * n_rows}) for n_rows in (1, 2)]
    assert [answer.status_code for answer in answers] == [200, 200 if cells >= 12 else 422]
    assert client.post("/predict", json={"instances": [PENGUIN] * 3}).json["type"] == "/problems/too-many-rows"
