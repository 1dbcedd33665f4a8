"""What the ledger refuses, with the remedy in the message."""

from __future__ import annotations

from service.ledger.states import JobEvent, JobState


class LedgerError(ValueError):
    """A request that the ledger refuses; nothing was changed."""


class NotFound(LedgerError):
    """A job that does not exist."""


class JobNameTaken(LedgerError):
    """The experiment already holds a job of this name."""


class DependencyFailed(LedgerError):
    """A job that was to be waited for will never succeed."""


class NodeNameTaken(LedgerError):
    """Another live worker holds this node name, or one of its devices."""


class IllegalMove(LedgerError):
    """A move that the table of moves does not hold."""

    def __init__(self, state: JobState, event: JobEvent) -> None:
        super().__init__(f"a job that is {state} cannot be {event}")
