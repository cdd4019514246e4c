"""Requests in flight: many at once, sent whole, so that a service can be ended while it answers them."""

from __future__ import annotations

import http.client
import threading
import time

from service.manifest import Manifest
from service.platforms.client import JSON, Address, Answer, golden_body, golden_path, mismatches
from service.platforms.report import Failed

IN_FLIGHT = 32
MOST_ROWS = 8000
"""How many rows one of the requests may have."""
FLIGHT_S = 0.3
"""How long the requests keep the service busy together, about."""
PATIENCE_S = 30.0


class Flight:
    """Requests that were sent at once, each on a connection and in a thread of its own."""

    def __init__(self, address: Address, manifest: Manifest, times: int) -> None:
        self.faults: list[str] = []
        self._address, self._manifest, self._times = address, manifest, times
        self._body = golden_body(manifest.golden, times)  # written before: a quick service answers while others write
        self._sent = threading.Semaphore(0)
        self._landed: list[None] = []
        self._clients = [threading.Thread(target=self._fly) for _ in range(IN_FLIGHT)]
        for client in self._clients:
            client.start()
        for _ in self._clients:
            self._sent.acquire()

    @property
    def in_flight(self) -> int:
        """How many have no answer yet."""
        return IN_FLIGHT - len(self._landed)

    def land(self) -> None:
        """Wait for every answer."""
        for client in self._clients:
            client.join(PATIENCE_S)

    def _fly(self) -> None:
        try:
            self._ask()
        finally:
            self._landed.append(None)

    def _ask(self) -> None:
        manifest, connection = self._manifest, self._address.connect(PATIENCE_S)
        try:
            connection.request("POST", golden_path(manifest), self._body, JSON)
        except OSError as error:
            self.faults.append(f"it could not be sent: {error}")
            return
        finally:
            self._sent.release()
        try:
            response = connection.getresponse()
            answer = Answer(response.status, {}, response.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.faults.append(f"{type(error).__name__} instead of an answer")
        else:
            self.faults.extend(mismatches(manifest, answer, self._times))
        finally:
            connection.close()


def take_off(address: Address, manifest: Manifest) -> Flight:
    """Send requests until half of them or more are being answered at once: larger ones, where the service is quick.

    Raises:
        Failed: If one is not answered right, though nothing disturbed the service.
    """
    times = _times(address, manifest)
    while True:
        flight = Flight(address, manifest, times)
        if flight.in_flight >= IN_FLIGHT // 2 or 2 * times * len(manifest.golden.rows) > MOST_ROWS:
            return flight
        flight.land()
        if flight.faults:
            raise Failed(f"{len(flight.faults)} of {IN_FLIGHT} requests at once were not answered: {flight.faults[0]}")
        times *= 2


def _times(address: Address, manifest: Manifest) -> int:
    """How often the golden rows go into one request, so that all in flight together take `FLIGHT_S`, about."""
    times, share_s = 1, FLIGHT_S / IN_FLIGHT
    while 2 * times * len(manifest.golden.rows) <= MOST_ROWS:
        began = time.monotonic()
        address.ask("POST", golden_path(manifest), golden_body(manifest.golden, times), JSON)
        if time.monotonic() - began > share_s:
            break
        times *= 2
    return times
