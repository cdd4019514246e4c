"""The process that fetches models while the service runs, and how gunicorn's master starts it.

The port is open meanwhile, and the workers, which follow the models folder, answer that they are not ready. Run as
`python -m service.fetcher PARENT FOLDER`, with the process id of the master, which it does not outlive.
"""

from __future__ import annotations

import logging.config
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from service.bucket import Bucket, scheme_of
from service.errors import PackageError, SettingsError, UntrustedModel, shorten
from service.fetch import Outcome, fetch
from service.kernel import end_with_parent
from service.logs import log_config
from service.settings import Settings, read_settings
from service.store import Store

ROOT = Path(__file__).resolve().parent.parent
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
RENEWAL_S = 5.0
"""How long after one fetching process was killed the next one begins."""
MAX_NOTE = 500

log = logging.getLogger("service.fetcher")


def announce(address: str, store: Store) -> None:
    """Make the models folder and note, where it holds nothing whole, that its packages are awaited.

    Raises:
        SettingsError: If the address is none, or the folder cannot be made.
        MissingLibrary: If the library that reads the address is not installed.
    """
    scheme = scheme_of(address)
    try:
        store.folder.mkdir(0o700, parents=True, exist_ok=True)
        if not store.versions() or store.awaited() is not None:
            store.await_packages(f"models are fetched from {scheme}://: it has not been asked yet")
    except OSError as error:
        raise SettingsError(
            f"the folder for fetched models cannot be written ({error.strerror}); set ANYPORT_CACHE_DIR, or "
            "ANYPORT_MODELS_DIR, to one that can"
        ) from error


def start_fetching(store: Store) -> subprocess.Popen[bytes]:
    """Start the process. It has none of this one's sockets, and hears none of the terminal's signals."""
    command = [sys.executable, "-m", "service.fetcher", str(os.getpid()), str(store.folder.absolute())]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True)


class Fetcher:
    """Fetches until everything is here."""

    def __init__(self, settings: Settings, address: str, store: Store) -> None:
        self._address, self._scheme = address, scheme_of(address)
        self._trusted = settings.models_sha256
        self._store = store
        self._followed: dict[str, str] = {}

    def run(self) -> None:
        """Try until nothing is refused, with growing pauses."""
        log.info("models are fetched from %s", self._address)
        pause_s = FIRST_PAUSE_S
        while not self.attempt():
            time.sleep(pause_s * random.uniform(0.75, 1.25))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def attempt(self) -> bool:
        """Look at the bucket once; return whether everything is here. What goes wrong is logged and noted."""
        began = time.monotonic()
        try:
            outcome = fetch(Bucket(self._address), self._store, self._trusted, self._tell, self._followed)
            self._report(outcome, time.monotonic() - began)
        except PackageError as error:
            log.error("no models could be fetched: %s", error.detail)
            self._note(f"{error.code}, {error.title}; it is tried again")
        except Exception as error:  # a full disk, or what nobody thought of: it must not end the tries
            log.exception("no models could be fetched")
            self._note(f"{type(error).__name__}; it is tried again, and the log says more")
        else:
            return all(isinstance(error, UntrustedModel) for error in outcome.refused.values())
        return False

    def _report(self, outcome: Outcome, elapsed_s: float) -> None:
        for what, error in outcome.refused.items():
            log.error("%s is not fetched: %s", what, error.detail)
        if not outcome.complete:
            kinds = {f"{error.code}, {error.title}" for error in outcome.refused.values()}
            self._note(f"{'; '.join(sorted(kinds))}; it is tried again, and the log says more")
        arrived, held = ", ".join(outcome.arrived) or "nothing", ", ".join(outcome.held) or "nothing"
        log.info("fetched in %.1f s: %s; here before: %s", elapsed_s, arrived, held)

    def _tell(self, message: str) -> None:
        log.info("%s://: %s", self._scheme, message)
        self._note(message)

    def _note(self, why: str) -> None:
        """Tell the workers, which tell whoever asks whether they are ready; what was there before answers anyway."""
        if self._store.awaited() is not None:
            with suppress(OSError):  # a full disk: they go on telling what they told before
                self._store.await_packages(f"models are fetched from {self._scheme}://: {shorten(why, MAX_NOTE)}")


def main(parent: int, folder: Path) -> None:
    """Fetch what the settings name into a folder, for as long as the process lives that started this one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that what is half done is cleared away
    end_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        return
    settings = read_settings()
    logging.config.dictConfig(log_config(settings.log_level, in_background=False))
    assert settings.models_uri is not None
    fetcher = Fetcher(settings, settings.models_uri, Store(folder))
    while not _run_apart(fetcher):
        time.sleep(RENEWAL_S)


def _run_apart(fetcher: Fetcher) -> bool:
    """Fetch in a process of its own, the first to go where memory runs out; return whether it came to its end."""
    parent, child = os.getpid(), os.fork()
    if not child:
        end_with_parent(signal.SIGTERM)
        with suppress(OSError):  # a sandbox without this file
            Path("/proc/self/oom_score_adj").write_text("1000")
        if os.getppid() == parent:
            fetcher.run()
        sys.exit()
    _, status = os.waitpid(child, 0)
    if status:
        log.error("the process that fetches models ended with status %d; another one goes on", status)
    return status == 0


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
