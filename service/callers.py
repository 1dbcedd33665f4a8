"""Who asks for something: the holder of a token, and what its role allows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Role(StrEnum):
    """What the holder of a token may do; each role may do what those before it may."""

    READER = "reader"
    SUBMITTER = "submitter"
    ADMIN = "admin"

    def may(self, least: Role) -> bool:
        """Whether this role is `least`, or more."""
        return _ORDER.index(self) >= _ORDER.index(least)


_ORDER = list(Role)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Holds nothing secret."""

    name: str
    """The token's name: the actor of events."""
    user: str
    """Whose token it is: the owner of jobs and of idempotency keys, whichever token was used."""
    role: Role
    expires_at: datetime | None = None
