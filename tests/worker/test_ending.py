"""What an end means, from what the trainer said, how its ranks went, and why they were stopped."""

from typing import Any

import pytest

from service.ledger.states import Outcome
from worker.ending import ending


def _said(outcome: str) -> dict[str, Any]:
    facts = {"message": "said so", "result": {"a": 1}, "traceback": None, "step": 7, "backbone": "backbone"}
    return {"outcome": outcome, **facts}


@pytest.mark.parametrize(
    ("said", "why", "outcome"),
    [
        ("ok", None, Outcome.OK),
        ("ok", "cancel", Outcome.OK),  # it was done before it heard
        ("ok", "stall", Outcome.OK),
        ("stopped", "cancel", Outcome.STOPPED),
        ("stopped", "drain", Outcome.DRAINED),
        ("stopped", "lease", Outcome.LOST),
        ("stopped", None, Outcome.STOPPED),  # somebody sent TERM to a rank
        ("crashed", "drain", Outcome.DRAINED),  # killed in the middle of a collective
        ("crashed", "stall", Outcome.STALLED),
        ("crashed", None, Outcome.CRASHED),
        ("diverged", "drain", Outcome.DIVERGED),
        ("bad_data", "stall", Outcome.BAD_DATA),
        (None, "drain", Outcome.DRAINED),
        (None, "stall", Outcome.STALLED),
        (None, None, Outcome.CRASHED),
    ],
)
def test_outcome(said: str | None, why: str | None, outcome: Outcome) -> None:
    end = ending(_said(said) if said else None, [0, 0], why, stall_seconds=5)
    assert end.outcome == outcome


def test_ranks_that_end_without_a_word_are_named_with_their_ends() -> None:
    end = ending(None, [-9, 1], None, stall_seconds=5)
    assert "rank 0 was ended by SIGKILL (by hand, or by the kernel for want of memory)" in end.message
    assert "rank 1 exited with status 1" in end.message
    assert end.error(["last line"]) == {
        "class": "crashed",
        "message": end.message,
        "log_tail": ["last line"],
        "traceback": None,
    }
