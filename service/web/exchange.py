"""One request and what is told of it: its id, its facts for the log, and what every answer carries.

Both ways to an answer use it, Flask's (`edge`) and the lane's. It knows no Flask.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from dataclasses import dataclass, field
from random import getrandbits
from typing import Any

from service import errors, logs
from service.predictor import Predictor
from service.protocols import Codec, native, oci

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
PEER = re.compile(r"([0-9.]+)(?::\d+)?|\[([0-9A-Fa-f:.]+)\](?::\d+)?|([0-9A-Fa-f:.]+)")
"""An address as proxies write it, with a port or without."""
OF_OCI = re.compile(rb'\s*\{\s*"data(_type)?"\s*:')
"""How a document of OCI's begins, and none of the native protocol."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

log = logging.getLogger("service.requests")


@dataclass(frozen=True)
class Answer:
    """What a request is answered with, before the headers that every answer carries."""

    body: bytes
    content_type: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Exchange:
    """One request on its way to its answer.

    Args:
        wanted: The id that the client gives it; another is made if it is none.
        codec: The protocol that it speaks.
    """

    def __init__(self, wanted: str, codec: Codec = native) -> None:
        self.codec = codec
        self.began = time.perf_counter()
        self.request_id: str = wanted if REQUEST_ID.fullmatch(wanted) else f"{getrandbits(128):032x}"
        self.facts: dict[str, Any] = {}
        logs.REQUEST_ID.set(self.request_id)

    def hear(self, body: bytes) -> None:
        """Speak the protocol that a body on a path of several is written in."""
        if OF_OCI.match(body):
            self.codec = oci

    @staticmethod
    def end() -> None:
        """Let what is logged from now on be no part of this request."""
        logs.REQUEST_ID.set(None)

    def ask(self, predictor: Predictor) -> None:
        """Note which model is asked."""
        self.facts |= {"model": predictor.manifest.name, "version": predictor.manifest.version}

    def predict(
        self,
        predictor: Predictor,
        body: bytes,
        content_type: str,
        parameters: dict[str, str],
        max_rows: int,
        accepted: str,
    ) -> Answer:
        """Answer a whole prediction request.

        Args:
            predictor: The model that it asks.
            body: Its body.
            content_type: Its Content-Type header, "" if absent.
            parameters: The query string's parameters, and what headers say of the body where the codec wants it.
            max_rows: How many rows it may have.
            accepted: The media type of the answer; the protocol's own where it does not write that.
        """
        if accepted not in self.codec.RESPONSE_TYPES:
            accepted = self.codec.RESPONSE_TYPES[0]
        manifest = predictor.manifest
        decoded = self.codec.decode_request(body, content_type, parameters, manifest.signature, max_rows)
        self.facts["rows"] = decoded.table.n_rows
        answer = self.codec.encode_response(predictor.predict(decoded), accepted)
        return Answer(answer, accepted, headers={"Anyport-Model": manifest.label})

    def problem(self, error: errors.ServiceError) -> Answer:
        """Answer with an error, in the protocol's own words."""
        self.facts["problem"] = error.code
        status = self.codec.STATUSES.get(error.status, error.status)
        return Answer(self.codec.encode_error(error, self.request_id), self.codec.ERROR_TYPE, status)

    def refuse(self, error: errors.ServiceError) -> Answer:
        """Answer an error of ours that was raised on the way."""
        if isinstance(error, errors.PackageError) or error.status >= 500:
            log.warning("%s: %s", error.code, error.detail)
        answer = self.problem(error)
        if error.status == errors.NotReady.status:
            answer.headers["Retry-After"] = "5"
        if error.status == errors.Unauthorized.status:
            answer.headers["WWW-Authenticate"] = "EAS"
        return answer

    def fail(self, error: Exception) -> Answer:
        """Answer an error that nobody has foreseen; only the log tells what it was."""
        log.error("unexpected %s", type(error).__name__, exc_info=error)
        detail = "the service failed on this request; its log says more under the request id"
        return self.problem(errors.ServiceError(detail))

    def log(self, method: str, route: str, status: int, client: str) -> None:
        """Write the one line that the log has of this request."""
        if not log.isEnabledFor(logging.INFO):
            return
        facts = {
            "method": method,
            "route": route,
            "status": status,
            "client": client,
            "milliseconds": round((time.perf_counter() - self.began) * 1000, 3),
        }
        log.handle(logs.RequestRecord(log.name, f"{method[:16]} {route} {status}", facts | self.facts))


def client_address(forwarded_for: str, peer: str, hops: int) -> str:
    """Return the address of whoever sent the request: what the last proxy that is trusted says, else who connected.

    Only the last `hops` items of X-Forwarded-For were written by proxies of ours; what stands before them, a client may
    have made up. Azure's front end writes a port too.
    """
    items = forwarded_for.split(",")
    if 0 < hops <= len(items):
        item = items[-hops].strip()
        found = PEER.fullmatch(item)
        try:
            return str(ipaddress.ip_address(found[found.lastindex or 0] if found else item))
        except ValueError:
            pass  # no proxy writes this
    return peer
