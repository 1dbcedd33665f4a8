"""What an end means, from what the trainer said, how its ranks went, and why they were stopped."""

from typing import Any

import pytest

from service.ledger.states import Outcome
from worker.ending import ending


def _said(outcome: str) -> dict[str, Any]:
    facts = {"message": "said so", "result": {"a": 1}, "traceback": None, "step": 7, "backbone": "backbone"}
    return {"outcome": outcome, **facts}


@pytest.mark.parametrize("signalled", [False, True])
@pytest.mark.parametrize(
    ("said", "why", "outcome"),
    [
        ("ok", None, Outcome.OK),
        ("ok", "cancel", Outcome.OK),  # it was done before it heard
        ("ok", "stall", Outcome.OK),
        ("stopped", "cancel", Outcome.STOPPED),
        ("stopped", "pause", Outcome.STOPPED),
        ("stopped", "preempt", Outcome.STOPPED),
        ("stopped", "drain", Outcome.DRAINED),
        ("stopped", "lease", Outcome.LOST),
        ("stopped", None, Outcome.STOPPED),  # somebody sent TERM to a rank
        ("crashed", "lease", Outcome.LOST),  # its ranks ended themselves
        ("crashed", "stall", Outcome.STALLED),
        ("crashed", None, Outcome.CRASHED),
        ("diverged", "drain", Outcome.DIVERGED),
        ("bad_data", "stall", Outcome.BAD_DATA),
        (None, "lease", Outcome.LOST),
        (None, "stall", Outcome.STALLED),
        (None, None, Outcome.CRASHED),
    ],
)
def test_outcome(said: str | None, why: str | None, outcome: Outcome, signalled: bool) -> None:
    end = ending(_said(said) if said else None, [0, 0], why, signalled=signalled, stall_seconds=5)
    assert end.outcome == outcome


@pytest.mark.parametrize("said", ["crashed", None])
@pytest.mark.parametrize(
    ("why", "outcome"),
    [
        ("cancel", Outcome.STOPPED),
        ("pause", Outcome.STOPPED),
        ("preempt", Outcome.STOPPED),
        ("drain", Outcome.DRAINED),
    ],
)
def test_a_crash_on_the_way_out_is_the_stop_s_if_ranks_were_signalled_else_theirs(
    said: str | None, why: str, outcome: Outcome
) -> None:
    outcome_json = _said(said) if said else None
    assert ending(outcome_json, [-9, 1], why, signalled=True, stall_seconds=5).outcome == outcome
    own = ending(outcome_json, [-9, 1], why, signalled=False, stall_seconds=5)
    assert own.outcome == Outcome.CRASHED
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
