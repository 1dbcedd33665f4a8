"""Times that cannot work together are refused before anything starts."""

import pytest
from pydantic import ValidationError

from service.settings import Settings

DATABASE = "postgresql://user:password@host/name"


@pytest.mark.parametrize("late", ["heartbeat", "poll"])
def test_what_happens_once_in_a_lease_must_fit_it_twice(late: str) -> None:
    Settings(database_url=DATABASE, lease_seconds=30.0, **{f"{late}_seconds": 15.0})  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=f"BARLOW_{late.upper()}_SECONDS 16 must be at most half of .* 30, or "):
        Settings(database_url=DATABASE, lease_seconds=30.0, **{f"{late}_seconds": 16.0})  # type: ignore[arg-type]
