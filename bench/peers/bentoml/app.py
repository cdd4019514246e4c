"""A BentoML service around the estimator."""

import os

import bentoml
import joblib
import pandas


@bentoml.service(workers=int(os.environ["WORKERS"]))
class Model:
    """The estimator, loaded once in each worker."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api
    def predict(self, instances: pandas.DataFrame) -> dict:
        """Answer labels."""
        return {"predictions": self.model.predict(instances).tolist()}

    @bentoml.api
    def probabilities(self, instances: pandas.DataFrame) -> dict:
        """Answer labels and probabilities."""
        shares = self.model.predict_proba(instances).tolist()
        return {"predictions": self.model.predict(instances).tolist(), "probabilities": shares}
