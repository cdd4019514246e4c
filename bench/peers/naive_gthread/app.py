"""The service that most people write first: Flask, a DataFrame of what was sent, and predict."""

import os

import joblib
import pandas
from flask import Flask, request

app = Flask(__name__)
model = joblib.load(os.environ["MODEL"])


@app.post("/predict")
def predict():
    """Answer labels, and probabilities where they are asked for."""
    rows = pandas.DataFrame(request.get_json()["instances"])
    answer = {"predictions": model.predict(rows).tolist()}
    if "probabilities" in request.args:
        answer["probabilities"] = model.predict_proba(rows).tolist()
    return answer
