"""What the ledger refuses, with the remedy in the message."""

from __future__ import annotations

from collections.abc import Collection

from service.ledger.states import JobEvent, JobState, Verb


class LedgerError(ValueError):
    """A request that the ledger refuses; nothing was changed."""


class NotFound(LedgerError):
    """A job or a slot that does not exist."""


class JobNameTaken(LedgerError):
    """The experiment already holds a job of this name."""


class DependencyFailed(LedgerError):
    """A job that was to be waited for will never succeed."""


class NodeNameTaken(LedgerError):
    """Another live worker holds this node name, or one of its devices."""


class IllegalMove(LedgerError):
    """A move that the table of moves does not hold."""

    def __init__(self, state: JobState, event: JobEvent) -> None:
        super().__init__(f"a job that {state.words} cannot be {event}")


class IllegalVerb(LedgerError):
    """A user asked for what is not possible in the job's `state`; `legal` is what is."""

    def __init__(self, state: JobState, doing: str, verb: Verb, legal: Collection[Verb]) -> None:
        self.state = state
        self.legal = sorted(legal)
        remedy = f"it allows {', '.join(self.legal)}" if self.legal else "nothing can be asked of it any more"
        super().__init__(f"a job that {doing} cannot be asked to {verb}; {remedy}")


class SlotInUse(LedgerError):
    """A slot that is not in quarantine cannot be released by hand."""
