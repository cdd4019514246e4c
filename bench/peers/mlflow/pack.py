"""Saves the estimator as an MLflow model with its signature: python pack.py MODEL SAMPLE TARGET FOLDER"""

import sys
from pathlib import Path

import joblib
import mlflow.sklearn
import pandas
from mlflow.models import infer_signature

model, sample, target, folder = sys.argv[1:]
estimator = joblib.load(model)
rows = pandas.read_csv(sample).drop(columns=target)
signature = infer_signature(rows, estimator.predict(rows))
mlflow.sklearn.save_model(estimator, Path(folder) / "model", signature=signature, serialization_format="cloudpickle")
