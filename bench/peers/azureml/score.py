"""The entry script that Azure Machine Learning asks for."""

import json
import os

import joblib
import pandas


def init():
    """Load the estimator."""
    global model
    model = joblib.load(os.environ["MODEL"])


def run(raw_data):
    """Answer labels."""
    rows = pandas.DataFrame(json.loads(raw_data)["instances"])
    return {"predictions": model.predict(rows).tolist()}
