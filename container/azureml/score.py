"""What Azure Machine Learning's own inference server runs: init() once, and run() for each request.

The models are those that Azure has mounted at AZUREML_MODEL_DIR; `service/` stands beside this file, or above it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.scoring import Scorer

for folder in Path(__file__).resolve().parents:
    if (folder / "service" / "scoring.py").is_file():
        sys.path.insert(0, str(folder))
        break

SCORERS: list[Scorer] = []
"""The one that init() has made."""


def init() -> None:
    """Open the model and have it answer its golden rows; a fault here ends the server, which says why."""
    from service.settings import limit_compute_threads

    limit_compute_threads()  # before anything imports numpy
    from service.scoring import Scorer

    SCORERS[:] = [Scorer("azureml")]


def run(data: str) -> Any:
    """Answer one request: its body as text."""
    from azureml_inference_server_http.api.aml_response import AMLResponse

    [scorer] = SCORERS
    status, body, content_type = scorer.score(data.encode())
    return AMLResponse(body, status, {"Content-Type": content_type}, run_function_failed=status >= 500)
