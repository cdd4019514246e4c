"""The default model as a function from bytes to bytes: for platforms that bring their own server and call a function.

It knows no web framework. `container/` has the files that such platforms want.
"""

from __future__ import annotations

import logging
import uuid
from typing import NamedTuple

from service.errors import NotReady, PackageError, PayloadTooLarge, ServiceError
from service.predictor import open_predictor
from service.protocols import PROTOCOLS
from service.settings import Settings, read_settings
from service.store import Store
from service.table import most_rows

log = logging.getLogger(__name__)


class Scored(NamedTuple):
    """What a request is answered with."""

    status: int
    body: bytes
    content_type: str


class Scorer:
    """The default model of the store, in one protocol's words.

    Args:
        protocol: The protocol's name.
        settings: What the operator decides; read from the environment if not given.

    Raises:
        ServiceError: If there is no default model, or it cannot be opened or does not answer its golden rows.
    """

    def __init__(self, protocol: str, settings: Settings | None = None) -> None:
        self._settings = settings or read_settings()
        store = Store(self._settings.models_dir)
        name = store.default()
        if name is None:
            raise NotReady(f"{self._settings.models_dir} has no default model; pack one, or `flask activate` it")
        self._predictor = open_predictor(store, store.manifest(name, store.active(name)), self._settings.policy)
        self._codec = PROTOCOLS[protocol]

    def score(self, body: bytes, content_type: str = "") -> Scored:
        """Answer one request; what is wrong with it, or fails, is told in the protocol's words."""
        request_id = uuid.uuid4().hex
        try:
            return Scored(200, self._answer(body, content_type), self._codec.RESPONSE_TYPES[0])
        except ServiceError as error:
            known = error
            if error.status >= 500 or isinstance(error, PackageError):
                log.warning("%s: %s (request %s)", error.code, error.detail, request_id)
        except Exception:
            log.exception("unexpected (request %s)", request_id)
            known = ServiceError("the model failed on this request; the log says more under the request id")
        status = self._codec.STATUSES.get(known.status, known.status)
        return Scored(status, self._codec.encode_error(known, request_id), self._codec.ERROR_TYPE)

    def _answer(self, body: bytes, content_type: str) -> bytes:
        most = self._settings.max_body_bytes
        if len(body) > most:
            raise PayloadTooLarge(f"the body has {len(body)} bytes and may have {most}; send fewer rows at once")
        signature = self._predictor.manifest.signature
        max_rows = most_rows(signature, self._settings.max_rows, self._settings.max_cells)
        request = self._codec.decode_request(body, content_type, {}, signature, max_rows)
        return self._codec.encode_response(self._predictor.predict(request), self._codec.RESPONSE_TYPES[0])
