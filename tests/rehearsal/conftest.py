"""A tree on its way to a platform, in a git repository of its own, and a cache of virtual environments."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.checkout import commit_checkout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the checkout, committed."""
    return commit_checkout(tmp_path / "tree")


@pytest.fixture(scope="session")
def cache() -> Path:
    """Where virtual environments are kept from one test to the next."""
    return Path(sys.prefix) / "rehearsals"
