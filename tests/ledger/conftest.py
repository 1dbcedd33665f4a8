"""A fresh run database with short ways to use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import Lab

from service.settings import Settings


@pytest.fixture
def lab(database: Settings) -> Iterator[Lab]:
    """The ledger on a database of the test's own; what must always hold is checked at the end."""
    lab = Lab(database)
    yield lab
    lab.check()
    lab.engine.dispose()
