"""Protocols: one module of plain functions for each wire format.

To add one, copy the nearest, change it, and add a line to the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from service.errors import ServiceError
from service.protocols import azureml, eas, mlflow, native, oci, openinference, sagemaker, vertex, watsonx
from service.signature import Signature
from service.table import PredictRequest, PredictResponse

__all__ = ["PROTOCOLS", "Codec"]


class Codec(Protocol):
    """One wire format, both halves. A module with these names is one."""

    @property
    def REQUEST_TYPES(self) -> tuple[str, ...]:
        """Media types that it reads."""

    @property
    def RESPONSE_TYPES(self) -> tuple[str, ...]:
        """Media types that it writes, the preferred one first."""

    @property
    def ERROR_TYPE(self) -> str:
        """The media type of its errors."""

    @property
    def STATUSES(self) -> Mapping[int, int]:
        """What it answers instead of some of the errors' own statuses."""

    def decode_request(
        self, body: bytes, content_type: str, parameters: Mapping[str, str], signature: Signature, max_rows: int
    ) -> PredictRequest:
        """Read a prediction request.

        Args:
            body: The whole body.
            content_type: The Content-Type header, "" if absent.
            parameters: The query string's parameters, and what the codec wants to know of headers.
            signature: The signature of the model that is asked.
            max_rows: How many rows one request may have.

        Raises:
            RequestError: With everything that is wrong with it.
        """

    def encode_response(self, response: PredictResponse, content_type: str) -> bytes:
        """Write a prediction response."""

    def encode_error(self, error: ServiceError, request_id: str) -> bytes:
        """Write an error in the protocol's own words."""

    def encode_request(self, rows: list[Any], *, probabilities: bool = False) -> bytes:
        """Write the request that a client sends for these rows."""

    def decode_response(self, body: bytes) -> list[Any]:
        """Read the predictions out of an answer, one item a row."""


PROTOCOLS: dict[str, Codec] = {
    "native": native,
    "openinference": openinference,
    "mlflow": mlflow,
    "sagemaker": sagemaker,
    "vertex": vertex,
    "azureml": azureml,
    "watsonx": watsonx,
    "oci": oci,
    "eas": eas,
}
