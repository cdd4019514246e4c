"""The WSGI entry: `app`, which gunicorn is told, and `application`, which other servers look for.

Source: Elastic Beanstalk, PythonAnywhere and uWSGI look for `application`; read 2026-11-22.
"""

from __future__ import annotations

import logging.config

from service import create_app
from service.logs import log_config
from service.settings import read_settings

settings = read_settings()
logging.config.dictConfig(log_config(settings.log_level))
logging.captureWarnings(True)
app = application = create_app(settings)
# Nothing is loaded here: this module may be imported before a server forks. See `post_worker_init` in gunicorn.conf.py.
