"""Runtimes: one module for each model format, behind one interface.

To add one, copy the nearest, change it, and add a line to the table.
"""

from __future__ import annotations

from service.runtimes import compiled, compiled_trees, joblib, mlflow, onnx, score, skops
from service.runtimes.base import Facts, Loaded, Outputs, Policy, Runtime, RuntimeModule, Source

__all__ = ["RUNTIMES", "Facts", "Loaded", "Outputs", "Policy", "Runtime", "RuntimeModule", "Source"]

RUNTIMES: dict[str, RuntimeModule] = {
    "joblib": joblib,
    "skops": skops,
    "onnx": onnx,
    "mlflow": mlflow,
    "score": score,
    "compiled": compiled,
    "compiled-trees": compiled_trees,
}
