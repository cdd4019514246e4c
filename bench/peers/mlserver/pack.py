"""Writes the settings that MLServer reads beside a model: python pack.py NAME MODEL FOLDER"""

import json
import sys
from pathlib import Path

name, model, folder = sys.argv[1:]
settings = {"name": name, "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": model}}
(Path(folder) / "model-settings.json").write_text(json.dumps(settings))
