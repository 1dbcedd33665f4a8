"""Placement as a pure function: who gets what, and what the others are told."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from service.ledger.reasons import ReasonCode
from service.scheduling.explaining import FIGURED
from service.scheduling.placement import decide
from service.scheduling.placement_values import (
    AttemptSnapshot,
    Candidate,
    Decision,
    NodeSnapshot,
    Preemption,
    Reservation,
    SlotSnapshot,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGITS = frozenset({"digits"})


def job(slots: int = 1, data_set: str = "digits", priority: int = 0, waited: float = 0.0, **has: Any) -> Candidate:
    return Candidate(uuid.uuid4(), slots, data_set, priority, NOW - timedelta(seconds=waited), **has)


def host(name: str, free: int, busy: int = 0, quarantined: int = 0) -> list[SlotSnapshot]:
    states = [(True, False)] * free + [(False, False)] * busy + [(False, True)] * quarantined
    return [SlotSnapshot(name, index, is_free, locked) for index, (is_free, locked) in enumerate(states)]


def on(decision: Decision) -> dict[uuid.UUID, tuple[str, tuple[int, ...]]]:
    return {placement.job_id: (placement.node, placement.indices) for placement in decision.placements}


def live(*names: str, data_sets: frozenset[str] = DIGITS) -> list[NodeSnapshot]:
    return [NodeSnapshot(name, True, data_sets) for name in names]


def test_small_jobs_share_a_host_and_leave_the_other_whole() -> None:
    small, large = [job(), job()], job(4)
    decision = decide([*small, large], live("a", "b"), [*host("a", 4), *host("b", 3)], [], NOW)
    assert on(decision) == {
        small[0].job_id: ("b", (0,)),
        small[1].job_id: ("b", (1,)),
        large.job_id: ("a", (0, 1, 2, 3)),
    }


def test_a_job_is_never_spread_over_hosts() -> None:
    wide = job(4)
    decision = decide([wide], live("a", "b"), [*host("a", 3, busy=1), *host("b", 2, busy=2)], [], NOW)
    assert decision.placements == []
    reason = {"slots": 4, "node": "a", "free": 3, "quarantined": 0}
    assert decision.reasons == {wide.job_id: (ReasonCode.NEEDS_SLOTS, reason)}


def test_a_blocked_large_job_does_not_hold_up_smaller_ones() -> None:
    large, small = job(4), job(1)
    decision = decide([large, small], live("a"), host("a", 2, busy=2), [], NOW)
    assert set(on(decision)) == {small.job_id}
    assert set(decision.reasons) == {large.job_id}


def test_the_first_in_order_is_served_first() -> None:
    first, second = job(2), job(2)
    decision = decide([first, second], live("a"), host("a", 3), [], NOW)
    assert set(on(decision)) == {first.job_id}
    assert decision.reasons[second.job_id][1]["free"] == 1


def test_reasons_without_any_node_or_with_none_up() -> None:
    waiting = job()
    assert decide([waiting], [], [], [], NOW).reasons[waiting.job_id] == (ReasonCode.NO_NODE, {})
    away = [NodeSnapshot("b", False, DIGITS), NodeSnapshot("a", False, DIGITS)]
    reason = decide([waiting], away, [*host("a", 2), *host("b", 2)], [], NOW).reasons[waiting.job_id]
    assert reason == (ReasonCode.NODES_AWAY, {"nodes": ["a", "b"]})


def test_a_job_larger_than_every_host_is_told_so_even_while_that_host_is_away() -> None:
    waiting = job(5)
    nodes = [*live("a"), NodeSnapshot("b", False, DIGITS)]
    reason = decide([waiting], nodes, [*host("a", 2), *host("b", 0, busy=4)], [], NOW).reasons[waiting.job_id]
    assert reason == (ReasonCode.TOO_LARGE, {"slots": 5, "node": "b", "total": 4})


def test_a_job_goes_only_where_its_data_are() -> None:
    imagenet, other = job(data_set="imagenet"), job(data_set="nowhere")
    nodes = [*live("a"), *live("b", data_sets=DIGITS | {"imagenet"})]
    decision = decide([imagenet, other], nodes, [*host("a", 1), *host("b", 4)], [], NOW)
    assert on(decision) == {imagenet.job_id: ("b", (0,))}
    assert decision.reasons[other.job_id] == (ReasonCode.NO_DATA, {"data": "nowhere", "nodes": ["a", "b"]})


def test_a_job_goes_only_where_its_weights_are_or_may_be() -> None:
    """A node that has not said all that it has may have any."""
    says = {"a": {"other.pth"}, "b": {"resnet50.pth", "other.pth"}, "c": set(), "d": None}
    nodes = [NodeSnapshot(name, True, DIGITS, None if said is None else frozenset(said)) for name, said in says.items()]
    slots = [slot for name in "abcd" for slot in host(name, {"b": 1}.get(name, 4))]
    judging = [job(weights="resnet50.pth") for _ in range(6)]
    decision = decide(judging, nodes, slots, [], NOW)
    assert [node for node, _ in on(decision).values()] == ["b", "d", "d", "d", "d"]
    reason = {"slots": 1, "node": "b", "free": 0, "quarantined": 0}
    assert decision.reasons == {judging[5].job_id: (ReasonCode.NEEDS_SLOTS, reason)}

    lost, lacking, plain = job(weights="lost.pth"), job(weights="lost.pth", data_set="nowhere"), job()
    decision = decide([lost, lacking, plain], nodes[:3], slots[:9], [], NOW)
    assert set(on(decision)) == {plain.job_id}
    assert decision.reasons == {
        lost.job_id: (ReasonCode.NO_WEIGHTS, {"weights": "lost.pth", "data": "digits", "nodes": ["a", "b", "c"]}),
        lacking.job_id: (ReasonCode.NO_DATA, {"data": "nowhere", "nodes": ["a", "b", "c"]}),
    }


def test_nobody_makes_room_on_a_host_without_the_weights() -> None:
    nodes = [NodeSnapshot("a", True, DIGITS, frozenset()), NodeSnapshot("b", True, DIGITS, frozenset({"resnet50.pth"}))]
    slots = [*host("a", 0, busy=1), *host("b", 0, busy=1)]
    running = [AttemptSnapshot(uuid.uuid4(), name, 1, 0, True, False, NOW) for name in "ab"]
    urgent = job(weights="resnet50.pth", priority=1, reserved_node="a", preempting=True)
    decision = decide([urgent], nodes, slots, running, NOW)
    assert decision.preemptions == [Preemption(urgent.job_id, "b", (running[1].attempt_id,))]
    assert decision.reservations == {urgent.job_id: Reservation("b", True)}


def test_a_host_that_is_not_up_gets_nothing() -> None:
    waiting = job()
    decision = decide(
        [waiting], [NodeSnapshot("a", False, DIGITS), *live("b")], [*host("a", 1), *host("b", 0, 1)], [], NOW
    )
    assert decision.placements == []
    assert decision.reasons[waiting.job_id][1]["node"] == "b"


def test_quarantined_slots_are_not_given_and_are_told() -> None:
    waiting = job()
    decision = decide([waiting], live("a"), host("a", 0, busy=1, quarantined=2), [], NOW)
    assert decision.reasons[waiting.job_id][1] == {"slots": 1, "node": "a", "free": 0, "quarantined": 2}


def test_one_that_is_about_to_go_gets_nothing() -> None:
    waiting = job()
    nodes = [NodeSnapshot("a", False, DIGITS), *live("b")]
    decision = decide([waiting], nodes, [*host("a", 4), *host("b", 1)], [], NOW)
    assert on(decision) == {waiting.job_id: ("b", (0,))}


def test_many_alike_are_told_figures_at_the_head_of_the_queue_only() -> None:
    waiting = [job(2) for _ in range(FIGURED + 5)]
    other = job(3)
    decision = decide([*waiting, other], live("a"), host("a", 1, busy=3), [], NOW)
    codes = [decision.reasons[candidate.job_id][0] for candidate in [*waiting, other]]
    assert codes == [ReasonCode.NEEDS_SLOTS] * FIGURED + [ReasonCode.BEHIND] * 5 + [ReasonCode.NEEDS_SLOTS]
