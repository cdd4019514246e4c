"""app.yaml before the parser that gcloud uses: Google's own appengine-python-standard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.vendors.tools import ask

READ = """
import json, sys
from google.appengine.api import appinfo
try:
    info = appinfo.LoadSingleAppInfo(sys.argv[1])
except Exception as error:
    print(json.dumps(str(error)))
else:
    keys = ("runtime", "entrypoint", "instance_class", "inbound_services")
    said = {key: getattr(info, key) for key in keys} | {"max_instances": info.automatic_scaling.max_instances}
    print(json.dumps(said))
"""
APP_YAML = (ROOT / "app.yaml").read_text()


def read(text: str, home: Path) -> Any:
    """Return what the parser found, or its complaint."""
    return ask("appengine", READ, text, home=home)


def test_app_yaml_says_what_it_should(home: Path) -> None:
    """The parser accepts every key, and finds the runtime, the start line, the size and the limit of instances."""
    assert read(APP_YAML, home) == {
        "runtime": "python312",
        "entrypoint": "exec gunicorn -c gunicorn.conf.py service.wsgi:app",
        "instance_class": "F2",
        "inbound_services": ["warmup"],
        "max_instances": 4,
    }


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (APP_YAML + "workers: 2\n", "Unexpected attribute 'workers'"),
        (APP_YAML + "manual_scaling:\n  instances: 1\n", "There may be only one of 'automatic_scaling'"),
        (APP_YAML.replace("- warmup", "- warm_up"), "Value 'warm_up' for inbound_services does not match"),
        (APP_YAML + "runtime: python312\n", "Duplicate attribute 'runtime'"),
        (APP_YAML.replace("runtime: ", "# "), 'You must specify a "runtime" field'),
    ],
    ids=["an unknown key", "two kinds of scaling", "an unknown service", "a key twice", "no runtime"],
)
def test_the_parser_refuses_a_damaged_app_yaml(changed: str, complaint: str, home: Path) -> None:
    """The check can fail: what is wrong in app.yaml is named."""
    assert complaint in read(changed, home)
