"""The fastest service that a skilled user writes by hand for one model: the ONNX graph, orjson, nothing checked."""

import json
import os
from pathlib import Path

import numpy
import onnxruntime
import orjson
from fastapi import FastAPI, Request, Response

FOLDER = Path(os.environ["PREPARED"])
COLUMNS = json.loads((FOLDER / "columns.json").read_text())
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(FOLDER / "model.onnx", options, providers=["CPUExecutionProvider"])
KINDS = [(name, {"number": numpy.float32, "text": object}[kind]) for name, kind in COLUMNS.items()]
CELLS = {"number": "f4", "text": "U32"}
app = FastAPI()


def columns(rows):
    """Return a column of shape (n_rows, 1) for each input of the graph."""
    return {name: numpy.array([[row[name]] for row in rows], dtype) for name, dtype in KINDS}


@app.post("/predict")
async def predict(request: Request):
    """Answer labels, in the event loop: a thread would cost more than the prediction."""
    rows = orjson.loads(await request.body())["instances"]
    labels = session.run(["label"], columns(rows))[0]
    return Response(orjson.dumps({"predictions": labels.tolist()}), media_type="application/json")


@app.post("/probabilities")
async def probabilities(request: Request):
    """Answer labels and probabilities."""
    rows = orjson.loads(await request.body())["instances"]
    labels, shares = session.run(["label", "probabilities"], columns(rows))
    answer = {"predictions": labels.tolist(), "probabilities": shares.tolist()}
    return Response(orjson.dumps(answer), media_type="application/json")


@app.post("/csv")
async def by_csv(request: Request):
    """Answer CSV with CSV; as fast as pandas, which it spares."""
    head, *lines = (await request.body()).decode().splitlines()
    kinds = [(name, CELLS[COLUMNS[name]]) for name in head.split(",")]
    rows = numpy.loadtxt(lines, delimiter=",", dtype=kinds, ndmin=1)
    labels = session.run(["label"], {name: rows[name].astype(dtype)[:, None] for name, dtype in KINDS})[0]
    return Response("\n".join(["label", *labels.tolist(), ""]), media_type="text/csv")
