"""What OCI Data Science's managed runtime runs: load_model() once, and predict() for each request.

`service/` and `models/` stand beside this file in the artefact.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.scoring import Scorer

HERE = Path(__file__).resolve().parent


def load_model() -> Scorer:
    """Open the model and have it answer its golden rows."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    from service.settings import limit_compute_threads, read_settings

    limit_compute_threads()  # before anything imports numpy
    from service.scoring import Scorer

    return Scorer("oci", read_settings().model_copy(update={"models_dir": HERE / "models"}))


def predict(data: Any, model: Any = load_model()) -> Any:  # noqa: B008  # Oracle's contract
    """Answer one request: its document, or its text.

    Raises:
        ValueError: With what is wrong with it. Oracle's runtime answers any error with 500; a document would be 200.
    """
    body = data if isinstance(data, bytes) else (data if isinstance(data, str) else json.dumps(data)).encode()
    status, answer, _ = model.score(body)
    document = json.loads(answer)
    if status != 200:
        raise ValueError(document["message"])
    return document
