"""Calls onnxruntime on arrays that are ready, again and again: python loop.py FOLDER ROWS SECONDS

FOLDER holds what the twin's convert.py wrote, ROWS is CSV. It says what wrk would say, and its processor time.
"""

import csv
import json
import sys
import time
from pathlib import Path

import numpy
import onnxruntime

folder, path, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
kinds = json.loads((folder / "columns.json").read_text())
dtypes = {"number": numpy.float32, "text": object}
with open(path, newline="") as lines:
    header, *rows = csv.reader(lines)
cells = dict(zip(header, zip(*rows, strict=True), strict=True))
ready = {name: numpy.array(cells[name], object).astype(dtypes[kind])[:, None] for name, kind in kinds.items()}
session.run(["label"], ready)
times, began, worked = [], time.perf_counter(), time.process_time()
while time.perf_counter() - began < seconds:
    start = time.perf_counter()
    session.run(["label"], ready)
    times.append((time.perf_counter() - start) * 1e6)
spent, duration = time.process_time() - worked, (time.perf_counter() - began) * 1e6
p50, p99 = numpy.percentile(times, (50, 99))
print(f"CPU {spent * 1e6:.0f}")
print(f"RESULT {len(times)} {duration:.0f} {p50:.0f} {p99:.0f} 0 0 0 0")
