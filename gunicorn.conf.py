"""How gunicorn runs the service. Everything that a start line would say is computed here, so that the line is always

    gunicorn -c gunicorn.conf.py service.wsgi:app

Sources: gunicorn 27.0.1 `gunicorn/config.py`; pages of the platforms as noted; all read 2026-11-22.
"""

import importlib
import logging
import os
import signal
import sys
from contextlib import suppress

import gunicorn

from service.kernel import importing

with importing():
    from service.settings import limit_compute_threads, read_settings

    limit_compute_threads()  # before numpy is imported, here or in a worker

    from service import capacity
    from service.errors import ServiceError
    from service.fetcher import announce, start_fetching
    from service.gunicorn_check import check_gunicorn
    from service.logs import log_config
    from service.runtimes import RUNTIMES
    from service.store import Store
    from service.worker import board

try:
    settings = read_settings()
except ServiceError as error:
    sys.exit(f"anyport: {error.detail}")  # one clear line, before any worker starts

_store = Store(settings.models_dir)


def _manifests():
    """Every manifest that can be read; a worker says what is wrong with the others."""
    for name, versions in _store.versions().items():
        for version in versions:
            try:
                if settings.serve == "all" or version == _store.active(name):
                    yield _store.manifest(name, version)
            except ServiceError:
                continue


_memory_mib = settings.memory_mib or capacity.memory_limit_mib()
_each_mib = capacity.worker_mib(manifest.cost for manifest in _manifests())

# PORT and its relatives at all addresses, else 127.0.0.1:8000. Render's own GUNICORN_CMD_ARGS overrides it.
bind = settings.bind

# Prediction is work for processors: one worker each, as many as the measured size of the models lets fit.
workers = settings.workers or capacity.fitting_workers(capacity.cpu_limit(), _memory_mib, _each_mib)

# Our own: no slow client holds a thread, and nothing that was accepted is lost (service/worker.py).
worker_class = "service.worker.AnyportWorker"
threads = settings.threads

# The heartbeat's limit.
timeout = 120

# Heroku and Render kill 30 s after SIGTERM (devcenter.heroku.com/articles/dynos, render.com/docs/deploys), others
# sooner or later: ANYPORT_STOP_GRACE_S.
graceful_timeout = settings.graceful_timeout_s

# Heroku's router keeps a connection for up to 90 s and must not find it closed (heroku/python-getting-started).
keepalive = 95

# A heartbeat on a slow disk stalls and gets healthy workers killed; shared memory never does.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None

# It would open a socket under HOME, which is a network share on Azure and read-only on App Engine.
control_socket_disable = True

# The master imports libraries (see when_ready), but loads no model: OpenMP and BLAS threads do not survive a fork.
preload_app = False

# Headers: drop what WSGI could confuse, take no path from a proxy, parse with the stricter parser.
header_map = "drop"
forwarder_headers = ""
http_parser = "python"

# The service writes its own line for each request.
accesslog = None
logconfig_dict = log_config(settings.log_level)

WORKER_MODULES = ("service.web", "service.command_line")
"""What `create_app` imports and the lines above have not: Flask with all that it brings."""


def on_starting(server):
    """Say what was decided, and refuse what cannot work, whatever switched it on."""
    try:
        check_gunicorn(server.cfg, gunicorn.__version__)
    except ServiceError as error:
        asked = " ".join([*sys.argv[1:], os.environ.get("GUNICORN_CMD_ARGS", "")]).strip()
        refuse(f"{error.detail}; it was started with: {asked}")
    if settings.models_uri is not None:
        try:
            announce(settings.models_uri, _store)
        except ServiceError as error:
            refuse(error.detail)
    if not settings.models_dir.is_dir():
        refuse(f"ANYPORT_MODELS_DIR={str(settings.models_dir)!r} is not a folder; make one with `flask pack`")
    server.log.info(
        "%d workers of about %.0f MiB within %.0f MiB and %.2g processors",
        workers,
        _each_mib,
        _memory_mib,
        capacity.cpu_limit(),
    )
    board.prepare(_memory_mib * capacity.WATERMARK / workers, capacity.bodies_mib(_memory_mib, workers, _each_mib))
    if workers * _each_mib > _memory_mib:
        server.log.warning("the models need about %.0f MiB and %.0f are there", workers * _each_mib, _memory_mib)


def refuse(reason):
    """End the start, with the reason as the last line."""
    logging.shutdown()  # writes what was logged before
    sys.exit(f"anyport: {reason}")


def when_ready(server):
    """Begin to fetch models, and import what every worker needs, once the port is open.

    The workers then share those pages and start sooner.
    """
    fetching = start_fetching(_store) if settings.models_uri is not None else None
    with importing():
        for module in _needed_modules():
            with suppress(ImportError):  # the worker that needs it says so, with the way to mend it
                importlib.import_module(module)
    # Ctrl-C drains like SIGTERM; a second one ends at once.
    server.handle_int = server.handle_term = lambda: stop(server, fetching)


def _needed_modules():
    yield from WORKER_MODULES
    for runtime in sorted({manifest.artifacts[0].runtime for manifest in _manifests()} & set(RUNTIMES)):
        yield from RUNTIMES[runtime].IMPORTS


def stop(server, fetching):
    """Tell the workers that nobody accepts after them, then end as gunicorn does."""
    board.announce_stop()
    if fetching is not None:
        fetching.terminate()
    type(server).handle_term(server)


def child_exit(server, ended):
    """A worker that was killed no longer counts when connections are shared out."""
    board.forget(ended.age)


def post_worker_init(started):
    """A terminal sends Ctrl-C to every process; the master hears it and drains the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def on_exit(server):
    """Clear up, and end a failed start with a line that says what to do."""
    board.clear()
    if sys.exc_info()[0] is not None and getattr(sys.exc_info()[1], "exit_status", 0):
        server.log.error("anyport did not start: the lines above say why; `flask run` shows the same error alone")
