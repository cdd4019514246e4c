"""PythonAnywhere's classic web app: a copy of this file stands under /var/www, and the tree in ~/anyport.

There are no variables per app, so they are set here, and no threads, so that log lines are written at once.
Source: help.pythonanywhere.com/pages/Flask, EnvironmentVariables, AsyncInWebApps, read 2026-11-22.
"""

import logging.config
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.expanduser("~/anyport") if here.startswith("/var/www") else here)
os.environ.setdefault("ANYPORT_CLIENT_HOPS", "1")  # PythonAnywhere's nginx writes the last item of X-Forwarded-For

from service.logs import log_config  # noqa: E402
from service.wsgi import application, settings  # noqa: E402

logging.config.dictConfig(log_config(settings.log_level, in_background=False))

__all__ = ["application"]
