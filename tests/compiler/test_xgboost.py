"""XGBoost from end to end: packed, served without it, to the last digit; and its arithmetic, which is not numpy's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from service.runtimes.operators import FUNCTIONS, SHARES
from service.store import Store
from tests.compiler.fitted import number, sample
from tests.compiler.test_compile import NUMBERS, TEXTS, fitted, numbered, xgboost
from tests.conftest import ROOT

SERVE = """
import json, sys
from pathlib import Path
from service import create_app
from service.settings import Settings
client = create_app(Settings(models_dir=Path(sys.argv[1]))).test_client()
answer = client.post("/predict", json={"instances": json.loads(sys.argv[2])})
assert answer.status_code == 200, answer.text
print(json.dumps([answer.json["predictions"], sorted(sys.modules)]))
"""
HALF = np.arange(-40, 41, dtype=np.float32) * np.float32(2.0**-25)
"""Scores so near to nothing that single precision takes some of them for a half."""


def serve(store: Path, rows: Any) -> tuple[list[Any], set[str]]:
    """What a process of its own answers, and which modules it has imported for that."""
    child = subprocess.run(
        [sys.executable, "-c", SERVE, str(store), rows.to_json(orient="records")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    predictions, modules = json.loads(child.stdout.splitlines()[-1])
    return predictions, set(modules)


def piped() -> tuple[Any, Any, Any]:
    """A regression of every kind of column behind a sparse encoder, its rows, and its target."""
    rows = sample(gaps=True)
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), TEXTS), remainder="passthrough")
    return make_pipeline(encode, xgboost("XGBRegressor")), rows, number(rows)


def bare() -> tuple[Any, Any, Any]:
    """A classifier of numbers with gaps, its rows, and its labels."""
    rows = sample(gaps=True)
    return xgboost("XGBClassifier"), rows[NUMBERS], numbered(3, rows)


@pytest.mark.parametrize("make", [piped, bare])
def test_worker_answers_as_xgboost_without_it(make: Any, tmp_path: Path, pack_model: Any) -> None:
    """A process that imports neither XGBoost nor scikit-learn answers what they answer, to the last digit."""
    model, rows, target = make()
    model.fit(rows, target)
    packed = pack_model(model, rows.assign(y=target), Store(tmp_path / "models"), targets=("y",))
    assert [artifact.runtime for artifact in packed.manifest.artifacts] == ["compiled", "joblib"]
    predictions, modules = serve(tmp_path / "models", rows)
    assert predictions == model.predict(rows).tolist()
    assert not modules & {"xgboost", "sklearn", "scipy", "pandas", "joblib"}


def test_model_without_a_compiled_form_is_packed_as_it_is(tmp_path: Path, pack_model: Any) -> None:
    """It answers itself, upon the compiled steps before it, and the user is told why."""
    rows = sample()
    encode = make_column_transformer((OneHotEncoder(), TEXTS), remainder="passthrough", sparse_threshold=0.0)
    model = make_pipeline(encode, xgboost("XGBRegressor", missing=-1.0)).fit(rows, number(rows))
    packed = pack_model(model, rows.assign(y=number(rows)), Store(tmp_path / "models"), targets=("y",))
    assert packed.manifest.artifacts[0].layout == "prepared"
    assert "XGBoost with missing=-1.0 has no compiled form" in packed.notes[-1]
    predictions, modules = serve(tmp_path / "models", rows)
    assert predictions == model.predict(rows).tolist()
    assert "xgboost" in modules


@pytest.mark.parametrize(
    "case",
    [
        "XGBoost regressor",
        "XGBoost regressor, stopped early",
        "XGBoost of a sparse matrix",
        "XGBoost with categoricals",
    ],
)
def test_sums_are_equal_to_the_last_bit(case: str) -> None:
    """The sums of leaves are XGBoost's own on rows that neither it nor the proof has seen, not only near them."""
    it = fitted(case)
    compiled = it.compile()
    assert compiled.parity.largest_error == 0.0
    table = it.fresh()
    assert it.ask(it.open(compiled), table).predictions.tolist() == it.ask(it.original, table).predictions.tolist()


def answers_to(margins: Any) -> tuple[Any, Any]:
    """The labels and probabilities that XGBoost makes of given sums: of a tree that adds nothing to them."""
    rows = sample(gaps=True)[NUMBERS]
    n_classes = margins.shape[1] if margins.ndim == 2 else 2
    model = xgboost("XGBClassifier", n_estimators=1, gamma=1e9, learning_rate=0.0)
    model.fit(rows, numbered(n_classes, sample(gaps=True)))
    asked = np.zeros((len(margins), len(NUMBERS)))
    assert np.array_equal(model.predict(asked, base_margin=margins, output_margin=True).reshape(margins.shape), margins)
    return model.predict(asked, base_margin=margins), model.predict_proba(asked, base_margin=margins)


FAR = np.linspace(-90.0, 90.0, 601, dtype=np.float32)


@pytest.mark.parametrize(
    ("shares", "margins"),
    [
        ("single-sigmoid", HALF),
        ("single-sigmoid", FAR),
        ("single-softmax", np.column_stack([HALF, np.zeros_like(HALF), HALF[::-1]])),
        ("single-softmax", np.column_stack([FAR, FAR[::-1], np.ones_like(FAR)])),
    ],
    ids=["sigmoid near a half", "sigmoid", "softmax near a draw", "softmax"],
)
def test_probabilities_are_those_of_xgboost(shares: str, margins: Any) -> None:
    """Labels are the same where single precision cannot tell two classes apart, and probabilities to its last digit."""
    labels, expected = answers_to(margins)
    found = SHARES[shares](margins.reshape(len(margins), -1).astype(float))
    assert found.argmax(axis=1).tolist() == labels.tolist()
    np.testing.assert_allclose(found, expected, rtol=2e-7)


def test_draw_is_not_what_the_sums_say() -> None:
    """Some sums above zero are a half in single precision, and so the first class: the test above can fail."""
    labels, _ = answers_to(HALF)
    assert (HALF[labels == 0] > 0.0).any()
    assert (HALF[labels == 1] > 0.0).all()


def test_zeros_become_missing() -> None:
    """What a sparse matrix does not hold is missing; what was missing stays so."""
    found = FUNCTIONS["zero-as-missing"](np.array([[0.0, -0.0, 1e-300, np.nan, 2.0]]))
    assert np.isnan(found).tolist() == [[True, True, False, True, False]]
