"""The error tree: what each class carries, and how many faults become one error."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import pytest

from service import errors
from service.errors import (
    MAX_FAULTS,
    Fault,
    InvalidInstance,
    InvalidInstances,
    MissingFeature,
    NumberOutOfRange,
    RequestError,
    ServiceError,
    every_error,
    faults_error,
    shorten,
)

ERRORS = every_error()
TREE = errors.__doc__.partition("\nServiceError\n")[2]


def faults(*codes: str) -> list[Fault]:
    """One fault of each code, numbered."""
    return [Fault(code, f"detail {row}", row) for row, code in enumerate(codes)]


@pytest.mark.parametrize("error", ERRORS)
def test_error_has_words_and_a_status(error: type[ServiceError]) -> None:
    """Every class has a code in kebab case, a title without a full stop and an HTTP error status."""
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", error.code)
    assert error.title[0].isupper() and not error.title.endswith(".")
    assert type(error.status) is int and 400 <= error.status < 600


@pytest.mark.parametrize("error", ERRORS)
def test_error_has_a_code_and_title_of_its_own(error: type[ServiceError]) -> None:
    """No class shares its code or its title with another one, its parent included."""
    assert [other for other in ERRORS if other.code == error.code] == [error]
    assert [other for other in ERRORS if other.title == error.title] == [error]


@pytest.mark.parametrize("error", ERRORS)
def test_status_tells_whose_fault_it_is(error: type[ServiceError]) -> None:
    """Exactly the request errors have a status below 500."""
    assert (error.status < 500) == issubclass(error, RequestError)


def test_every_error_lists_parents_first() -> None:
    """The list begins with the root, names no class twice and puts a parent before its children."""
    assert ERRORS[0] is ServiceError
    assert max(Counter(ERRORS).values()) == 1
    assert all(ERRORS.index(error.__base__) < ERRORS.index(error) for error in ERRORS[1:])


def test_docstring_draws_every_class_once() -> None:
    """The tree in the module's docstring names every class exactly once, and nothing else."""
    drawn = re.findall(r"\b(?:[A-Z][a-z]+)+\b", TREE)
    assert Counter(drawn) == Counter(error.__name__ for error in ERRORS[1:])


@pytest.mark.parametrize("error", [error for error in ERRORS if not error.__subclasses__() and error.status < 500])
def test_docstring_gives_the_status(error: type[ServiceError]) -> None:
    """The tree gives a request error's status behind its name, on its line or on the line of its parent."""
    parents = [base.__name__ for base in (error, *error.__mro__[1:]) if issubclass(base, ServiceError)]
    [line, *_] = [line for name in parents for line in TREE.splitlines() if name in line and re.search(r"\d{3}", line)]
    behind = line.partition(error.__name__)[2] or line
    assert re.findall(r"\d{3}", behind)[0] == str(error.status)


def test_fault_is_frozen() -> None:
    """A fault cannot be changed once it is made."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Fault("invalid-instance", "x").row = 1  # type: ignore[misc]


@pytest.mark.parametrize("count", [0, 1, MAX_FAULTS - 1, MAX_FAULTS, MAX_FAULTS + 1, 1000])
def test_error_keeps_twenty_faults(count: int) -> None:
    """An error holds its first MAX_FAULTS faults, in their order, and drops the rest."""
    given = faults(*["invalid-instance"] * count)
    assert InvalidInstances("x", faults=iter(given)).faults == tuple(given[:MAX_FAULTS])


def test_error_is_its_detail() -> None:
    """An error's text is its detail, and it has no faults unless some are given."""
    error = ServiceError("what to do next")
    assert (str(error), error.detail, error.faults) == ("what to do next", "what to do next", ())


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["missing-feature"], MissingFeature),
        (["invalid-instance"] * 3, InvalidInstance),
        (["number-out-of-range"] * 30, NumberOutOfRange),
        (["missing-feature", "invalid-instance"], InvalidInstances),
        (["missing-feature"] * 25 + ["unknown-feature"], InvalidInstances),
        (["no-such-code"], InvalidInstances),
        (["not-ready"], InvalidInstances),
        (["internal-error"], InvalidInstances),
    ],
)
def test_faults_error_picks_the_common_class(codes: list[str], expected: type[ServiceError]) -> None:
    """Faults of one request error become that error; mixed, unknown and server codes become invalid-instances."""
    error = faults_error(faults(*codes), len(codes))
    assert type(error) is expected
    assert error.faults == tuple(faults(*codes)[:MAX_FAULTS])


@pytest.mark.parametrize(("total", "detail"), [(1, "detail 0"), (2, "detail 0; 1 more"), (900, "detail 0; 899 more")])
def test_faults_error_counts_the_others(total: int, detail: str) -> None:
    """The detail is the first fault's, with the number of all the others."""
    assert faults_error(faults("missing-feature", "missing-feature"), total).detail == detail


@pytest.mark.parametrize(("text", "short"), [("", ""), ("abcd", "abcd"), ("abcde", "abc…"), ("é" * 5, "ééé…")])
def test_shorten_cuts_at_the_limit(text: str, short: str) -> None:
    """Text within the limit stays; longer text is cut so that it has exactly the limit, its last sign an ellipsis."""
    assert shorten(text, 4) == short
