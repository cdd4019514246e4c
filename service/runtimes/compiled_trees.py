"""The runtime of compiled models with trees in them, which onnxruntime runs; otherwise as `compiled`."""

from __future__ import annotations

from service.runtimes.compiled import LAYOUTS, SUFFIXES, bind, examine, load

__all__ = ["IMPORTS", "LAYOUTS", "LIBRARIES", "SUFFIXES", "bind", "examine", "load"]

LIBRARIES = ("onnxruntime",)
IMPORTS = ("onnxruntime",)
