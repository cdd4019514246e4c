"""The short forms of tests/faults: counted, not timed, because a busy machine must not fail them."""

from __future__ import annotations

import pytest

from tests.faults import invalid_requests, overload, slow_clients

pytestmark = pytest.mark.slow


def test_2_9_every_slow_client_is_closed_while_all_others_are_answered() -> None:
    """40 clients of every slow kind at once: nobody else is refused, and the service gets rid of each of them."""
    clients = 40
    with slow_clients.besieged(workers=2, clients=clients) as server:
        outcome = slow_clients.siege(server, slow_clients.KINDS, clients)
    assert set(outcome.asked) == {"right"} and outcome.asked["right"] > 50
    assert dict(outcome.closed) == dict.fromkeys(slow_clients.KINDS, clients)
    assert outcome.answers == {name: {kind.answer: clients} for name, kind in slow_clients.KINDS.items()}


def test_2_14_overload_loses_nothing() -> None:
    """Under ten times the capacity every request is answered, rightly or with a refusal, and the service recovers."""
    outcome = overload.overload(seconds=4)
    assert not +outcome.faults
    assert outcome.overload.right > 0 and outcome.overload.refused > 0
    assert outcome.recovery_s < overload.RECOVERY_LIMIT_S


def test_1_2_invalid_requests_are_refused() -> None:
    """gunicorn's own invalid requests are refused and never answered 2xx or 500; its valid ones are answered."""
    assert invalid_requests.complaints() == []
