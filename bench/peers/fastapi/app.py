"""FastAPI as its tutorial shows it: a pydantic body, a plain function, a DataFrame and predict."""

import os
from typing import Any

import joblib
import pandas
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load(os.environ["MODEL"])


class Rows(BaseModel):
    """What is sent."""

    instances: list[dict[str, Any]]


@app.post("/predict")
def predict(body: Rows, probabilities: bool = False):
    """Answer labels, and probabilities where they are asked for."""
    rows = pandas.DataFrame(body.instances)
    answer = {"predictions": model.predict(rows).tolist()}
    if probabilities:
        answer["probabilities"] = model.predict_proba(rows).tolist()
    return answer
