"""A LitServe service around the estimator: python app.py PORT WORKERS"""

import os
import sys

import joblib
import litserve
import pandas


class Model(litserve.LitAPI):
    """The estimator, loaded once in each worker."""

    def setup(self, device):
        """Load the estimator."""
        self.model = joblib.load(os.environ["MODEL"])

    def decode_request(self, request):
        """Make a DataFrame of what was sent."""
        return pandas.DataFrame(request["instances"])

    def predict(self, rows):
        """Answer labels."""
        return self.model.predict(rows).tolist()

    def encode_response(self, labels):
        """Name what is answered."""
        return {"predictions": labels}


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    server = litserve.LitServer(Model(), accelerator="cpu", devices=1, workers_per_device=workers)
    server.run(host="127.0.0.1", port=port, log_level="warning", access_log=False, generate_client_file=False)
