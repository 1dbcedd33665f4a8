"""What an end means, from what the trainer said, how its ranks went, and why they were stopped."""

from typing import Any

import pytest

from service.ledger.states import AttemptOutcome
from worker.attempt_outcome import ending


def _said(outcome: str) -> dict[str, Any]:
    facts = {"message": "said so", "result": {"a": 1}, "traceback": None, "step": 7, "backbone": "backbone"}
    return {"outcome": outcome, **facts}


@pytest.mark.parametrize("signalled", [False, True])
@pytest.mark.parametrize(
    ("said", "why", "outcome"),
    [
        ("ok", None, AttemptOutcome.OK),
        ("ok", "cancel", AttemptOutcome.OK),  # it was done before it heard
        ("ok", "stall", AttemptOutcome.OK),
        ("stopped", "cancel", AttemptOutcome.STOPPED),
        ("stopped", "pause", AttemptOutcome.STOPPED),
        ("stopped", "preempt", AttemptOutcome.STOPPED),
        ("stopped", "drain", AttemptOutcome.DRAINED),
        ("stopped", "lease", AttemptOutcome.LOST),
        ("stopped", None, AttemptOutcome.STOPPED),  # somebody sent TERM to a rank
        ("crashed", "lease", AttemptOutcome.LOST),  # its ranks ended themselves
        ("crashed", "stall", AttemptOutcome.STALLED),
        ("crashed", None, AttemptOutcome.CRASHED),
        ("diverged", "drain", AttemptOutcome.DIVERGED),
        ("bad_data", "stall", AttemptOutcome.BAD_DATA),
        (None, "lease", AttemptOutcome.LOST),
        (None, "stall", AttemptOutcome.STALLED),
        (None, None, AttemptOutcome.CRASHED),
    ],
)
def test_outcome(said: str | None, why: str | None, outcome: AttemptOutcome, signalled: bool) -> None:
    end = ending(_said(said) if said else None, [0, 0], why, signalled=signalled, stall_seconds=5)
    assert end.outcome == outcome


@pytest.mark.parametrize("said", ["crashed", None])
@pytest.mark.parametrize(
    ("why", "outcome"),
    [
        ("cancel", AttemptOutcome.STOPPED),
        ("pause", AttemptOutcome.STOPPED),
        ("preempt", AttemptOutcome.STOPPED),
        ("drain", AttemptOutcome.DRAINED),
    ],
)
def test_a_crash_on_the_way_out_is_the_stop_s_if_ranks_were_signalled_else_theirs(
    said: str | None, why: str, outcome: AttemptOutcome
) -> None:
    outcome_json = _said(said) if said else None
    assert ending(outcome_json, [-9, 1], why, signalled=True, stall_seconds=5).outcome == outcome
    own = ending(outcome_json, [-9, 1], why, signalled=False, stall_seconds=5)
    assert own.outcome == AttemptOutcome.CRASHED
    assert own.message == ("said so" if said else own.message)


def test_ranks_that_end_without_a_word_are_named_with_their_ends() -> None:
    end = ending(None, [-9, 1], None, signalled=False, stall_seconds=5)
    assert "rank 0 was ended by SIGKILL (by hand, or by the kernel for want of memory)" in end.message
    assert "rank 1 exited with status 1" in end.message
    assert end.error(["last line"]) == {
        "class": "crashed",
        "message": end.message,
        "log_tail": ["last line"],
        "traceback": None,
    }
