"""Every reason can be told to a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.ledger.reasons import ReasonCode, words

EXAMPLES: dict[ReasonCode, tuple[dict[str, Any], str]] = {
    ReasonCode.WAITS_FOR_JOB: ({"jobs": [{"id": "1", "name": "a"}]}, "waits for job a (1)"),
    ReasonCode.DEPENDENCY_FAILED: (
        {"id": "1", "name": "a", "state": "failed"},
        "cancelled: job a (1), which it waited for, has failed",
    ),
    ReasonCode.NO_NODE: ({}, "no node seen yet"),
    ReasonCode.NODES_AWAY: ({"nodes": ["gpu-1", "gpu-2"]}, "no node is up; known: gpu-1, gpu-2"),
    ReasonCode.NO_DATA: ({"data": "x", "nodes": ["gpu-1"]}, "data set x can be used on no node that is up (gpu-1)"),
    ReasonCode.NO_WEIGHTS: (
        {"weights": "a/b.pth", "data": "x", "nodes": ["gpu-1", "gpu-2"]},
        "weights a/b.pth are on no node that is up and can use data set x (gpu-1, gpu-2); put them below "
        "BARLOW_BACKBONES_DIR of one",
    ),
    ReasonCode.TOO_LARGE: (
        {"slots": 8, "node": "gpu-1", "total": 4},
        "needs 8 slots on one node; the largest, gpu-1, has 4",
    ),
    ReasonCode.NEEDS_SLOTS: (
        {"slots": 4, "node": "gpu-1", "free": 2, "quarantined": 0},
        "needs 4 slots on one node, 2 free on gpu-1",
    ),
    ReasonCode.REQUEUED: ({"why": "lost node gpu-2"}, "queued again: lost node gpu-2"),
    ReasonCode.PLACED: ({"node": "gpu-1"}, "starts on gpu-1"),
    ReasonCode.BEHIND: ({"slots": 4}, "needs 4 slots on one node; other jobs stand before it"),
    ReasonCode.RESERVED: (
        {"slots": 4, "node": "gpu-1", "free": 1},
        "has waited long: gpu-1 is kept free for it, 1 of 4 slots so far",
    ),
    ReasonCode.PREEMPTING: (
        {"slots": 4, "node": "gpu-1", "free": 1},
        "jobs of lower priority on gpu-1 make room for it, 1 of 4 slots free so far",
    ),
    ReasonCode.PREEMPTED: (
        {"by": {"id": "1", "name": "a"}},
        "queued again: it made room for job a (1), which has a higher priority",
    ),
    ReasonCode.STOPPING: ({"actor": "alice", "verb": "pause"}, "is being stopped: paused by alice"),
    ReasonCode.PAUSED: ({"actor": "alice"}, "paused by alice"),
    ReasonCode.CANCELLED: ({"actor": "alice"}, "cancelled by alice"),
}


@pytest.mark.parametrize("code", list(ReasonCode))
def test_each_reason_has_its_words(code: ReasonCode) -> None:
    if code is not ReasonCode.BACKING_OFF:
        data, expected = EXAMPLES[code]
        assert words(code, data) == expected


def test_a_wait_counts_down_to_zero() -> None:
    def told(seconds: float) -> str:
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        return words("backing_off", {"retry": 2, "of": 3, "until": until.isoformat(), "why": "signal 9"})

    assert told(-5) == "retry 2 of 3 in 0 s: signal 9"
    assert told(3600) in [f"retry 2 of 3 in {s} s: signal 9" for s in range(3590, 3601)]


def test_quarantine_and_single_slots_are_told() -> None:
    data = {"slots": 1, "node": "gpu-1", "free": 0, "quarantined": 2}
    assert words("needs_slots", data) == "needs 1 slot on one node, 0 free and 2 in quarantine on gpu-1"


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a valid ReasonCode"):
        words("tired", {})
