"""The committed bodies of each cloud's protocol: what is read of its requests, and what its answers and errors are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from service.errors import Fault, InvalidInstances, RequestError
from service.protocols import PROTOCOLS
from service.table import PredictResponse
from tests.protocols.test_native import PENGUINS, ROOT

WIRE = ROOT / "tests" / "wire"
ROWS = [
    {
        "bill_length_mm": 39.1,
        "bill_depth_mm": 18.7,
        "flipper_length_mm": 181.0,
        "body_mass_g": 3750.0,
        "island": "Torgersen",
        "sex": "male",
    },
    {
        "bill_length_mm": 46.1,
        "bill_depth_mm": 13.2,
        "flipper_length_mm": 211.0,
        "body_mass_g": 4500.0,
        "island": "Biscoe",
        "sex": None,
    },
]
TYPES = {"json": "application/json", "csv": "text/csv", "jsonl": "application/jsonlines"}
SHARES = (np.array([[0.75, 0.125, 0.125], [0.0, 0.25, 0.75]]),)


@dataclass(frozen=True)
class Sent:
    """A request's file, what its headers say, and what goes on from it to the answer."""

    protocol: str
    file: str
    wishes: Any = None
    probabilities: bool = False
    parameters: dict[str, str] = field(default_factory=dict)
    answer: str = "response.json"
    content_type: str | None = None


SENT = [
    Sent("mlflow", "request-split.json", probabilities=True, answer="response-probabilities.json"),
    Sent("mlflow", "request-records.json"),
    Sent("mlflow", "request-instances.json"),
    Sent("mlflow", "request-inputs.json"),
    Sent("mlflow", "request.csv"),
    Sent("mlflow", "request.csv", content_type=""),
    Sent("sagemaker", "request.csv", False, answer="response.csv"),
    Sent("sagemaker", "request.csv", False, answer="response.csv", content_type=""),
    Sent(
        "sagemaker",
        "request.csv",
        False,
        probabilities=True,
        parameters={"custom-attributes": "a=1,probabilities=true"},
        answer="response-probabilities.csv",
    ),
    Sent("sagemaker", "request.jsonl", False, answer="response.jsonl"),
    Sent("sagemaker", "request-list.json", True, answer="response-list.json"),
    Sent("sagemaker", "request-instances.json", False, answer="response-instances.json"),
    Sent(
        "vertex",
        "request.json",
        "77",
        probabilities=True,
        parameters={"deployed-model": "77"},
        answer="response-probabilities.json",
    ),
    Sent("azureml", "request-data.json", "data", answer="response-data.json"),
    Sent("azureml", "request-input-data.json", "input_data", answer="response-input-data.json"),
    Sent("azureml", "request-automl.json", "Inputs", probabilities=True, answer="response-automl.json"),
    Sent("watsonx", "request.json", (1, 1), probabilities=True),
    Sent("oci", "request.json"),
    Sent("oci", "request-frame.json"),
    Sent("eas", "request.json", content_type="application/octet-stream"),
    Sent("eas", "request.csv", content_type="application/octet-stream"),
]
CLOUDS = sorted({sent.protocol for sent in SENT})


@pytest.mark.parametrize("sent", SENT, ids=lambda sent: f"{sent.protocol} {sent.file}")
def test_request_is_read_as_committed(sent: Sent) -> None:
    """The two rows of the example, one with a missing value, are read, and what the answer owes to the request."""
    body = (WIRE / sent.protocol / sent.file).read_bytes()
    content_type = TYPES[sent.file.rpartition(".")[2]] if sent.content_type is None else sent.content_type
    found = PROTOCOLS[sent.protocol].decode_request(body, content_type, sent.parameters, PENGUINS, 2)
    columns = {name: found.table.cells(name) for name in found.table.columns}
    assert columns == {name: [row[name] for row in ROWS] for name in ROWS[0]}
    assert (found.probabilities, found.wishes) == (sent.probabilities, sent.wishes)


@pytest.mark.parametrize("sent", SENT, ids=lambda sent: f"{sent.protocol} {sent.file}")
def test_answer_is_written_as_committed(sent: Sent) -> None:
    """The answer to the example is the committed one, byte for byte."""
    shares = SHARES if sent.probabilities else None
    response = PredictResponse("penguins", "1", PENGUINS, np.array(["Adelie", "Gentoo"]), shares, sent.wishes)
    written = PROTOCOLS[sent.protocol].encode_response(response, TYPES[sent.answer.rpartition(".")[2]])
    assert written == (WIRE / sent.protocol / sent.answer).read_bytes()


@pytest.mark.parametrize("protocol", CLOUDS)
def test_error_is_written_as_committed(protocol: str) -> None:
    """An error tells every fault by row and feature in the protocol's own words."""
    faults = [
        Fault("invalid-instance", "expected a number, found the text '39.1'", 0, "bill_length_mm"),
        Fault("missing-feature", "'sex' is missing", 1, "sex"),
    ]
    written = PROTOCOLS[protocol].encode_error(InvalidInstances("two things", faults=faults), "golden-1")
    assert written == (WIRE / protocol / "error.json").read_bytes()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_committed_bodies_have_a_source(protocol: str) -> None:
    """Every protocol has its bodies, each named in a page that says where they come from and when."""
    folder = WIRE / protocol
    told = (folder / "sources.md").read_text()
    assert "2026-" in told
    assert len(list(folder.iterdir())) >= 4


@pytest.mark.parametrize("sent", SENT, ids=lambda sent: f"{sent.protocol} {sent.file}")
def test_rows_are_counted(sent: Sent) -> None:
    """No form of a request has more rows than one may have."""
    body = (WIRE / sent.protocol / sent.file).read_bytes()
    content_type = TYPES[sent.file.rpartition(".")[2]] if sent.content_type is None else sent.content_type
    with pytest.raises(RequestError):
        PROTOCOLS[sent.protocol].decode_request(body, content_type, sent.parameters, PENGUINS, 1)
