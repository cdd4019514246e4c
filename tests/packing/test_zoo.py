"""Models that the repository has never seen: packed, served over HTTP, and compared with the estimators themselves."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from service import create_app
from service.errors import UnreadableModel
from service.settings import Settings
from service.store import Store
from tests.zoo import ZOO, Animal


def instances(sample: Any, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The sample's rows as a client would send them."""
    return json.loads(sample[list(names)].to_json(orient="records", double_precision=15))


def flat(numbers: Any) -> list[float]:
    """All numbers of nested lists, in order; the classes of two outputs may differ in number."""
    return [n for item in numbers for n in flat(item)] if isinstance(numbers, list) else [numbers]


def shares_of(animal: Animal) -> list[Any]:
    """The estimator's probabilities, row by row."""
    shares = animal.probabilities
    return (
        [list(row) for row in zip(*(s.tolist() for s in shares), strict=True)]
        if isinstance(shares, list)
        else shares.tolist()
    )


@pytest.mark.parametrize("name", ZOO)
def test_served_answers_equal_the_estimators_own(name: str, tmp_path: Path, pack_model: Any) -> None:
    """A packed model answers 200 rows over HTTP as the estimator does in process, probabilities included."""
    animal = ZOO[name]()
    packed = pack_model(animal.model, animal.sample, Store(tmp_path / "models"), name=name, **animal.choices)
    client = create_app(Settings(models_dir=tmp_path / "models")).test_client()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(animal.model.predict(animal.inputs))
    rows = instances(animal.sample, packed.manifest.signature.names)
    body = {"instances": rows, "parameters": {"probabilities": animal.probabilities is not None}}
    answer = client.post(f"/v1/models/{name}:predict", json=body)
    assert answer.status_code == 200, answer.text
    predictions = answer.json["predictions"]
    assert len(predictions) == 200
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(predictions, expected, rtol=1e-12)
    else:
        assert predictions == expected.tolist()
    if animal.probabilities is not None:
        np.testing.assert_allclose(flat(answer.json["probabilities"]), flat(shares_of(animal)), rtol=1e-9)
    csv = client.post(
        f"/v1/models/{name}:predict",
        data=animal.sample[list(packed.manifest.signature.names)].to_csv(index=False),
        headers={"Content-Type": "text/csv"},
    )
    assert csv.status_code == 200, csv.text
    assert csv.json["predictions"] == predictions


def test_bare_onnx_graph_answers_as_onnxruntime(tmp_path: Path, pack_model: Any) -> None:
    """A graph from onnxruntime's own data sets, whose first dimension is fixed at 3, answers 200 rows."""
    import onnxruntime
    from onnxruntime.datasets import get_example

    path = Path(get_example("logreg_iris.onnx"))
    rows = np.random.default_rng(0).uniform(0, 8, (200, 2)).astype("float32")
    sample = pandas.DataFrame(rows.astype(float).round(6), columns=["length", "width"])
    pack_model(path, sample, Store(tmp_path / "models"), name="iris")
    client = create_app(Settings(models_dir=tmp_path / "models")).test_client()
    answer = client.post("/predict?probabilities=true", json={"instances": sample.to_numpy().tolist()})
    assert answer.status_code == 200, answer.text
    session = onnxruntime.InferenceSession(str(path))
    padded = np.vstack([sample.to_numpy().astype("float32"), np.zeros((1, 2), "float32")])
    expected = [session.run(None, {"float_input": padded[start : start + 3]}) for start in range(0, 201, 3)]
    assert answer.json["predictions"] == np.concatenate([labels for labels, _ in expected]).tolist()[:200]
    shares = [list(row.values()) for _, block in expected for row in block][:200]
    np.testing.assert_allclose(answer.json["probabilities"], shares, rtol=1e-6)


def test_categoricals_of_numbers_are_refused(tmp_path: Path, pack_model: Any) -> None:
    """LightGBM trained on a categorical of numbers is refused, for its requests could only be misunderstood."""
    from lightgbm import LGBMClassifier

    rows = pandas.DataFrame({"deck": [1, 2, 3] * 60, "x": range(180), "y": [0, 1, 1] * 60})
    inputs = rows[["deck", "x"]].astype({"deck": "category"})
    model = LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(inputs, rows.y)
    with pytest.raises(UnreadableModel, match="categorical of numbers"):
        pack_model(model, rows, Store(tmp_path / "models"), targets=("y",), dtypes={"deck": "string"})
