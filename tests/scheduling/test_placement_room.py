"""Room that is kept: reservations for large jobs that have waited long, preemption for those of higher priority."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from service.ledger.reasons import ReasonCode
from service.scheduling.placement import RESERVE_AFTER_SECONDS, decide
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
LONG = RESERVE_AFTER_SECONDS + 1


def job(slots: int = 1, priority: int = 0, waited: float = 0.0, data_set: str = "digits", **has: Any) -> Candidate:
    return Candidate(uuid.uuid4(), slots, data_set, priority, NOW - timedelta(seconds=waited), **has)


class Hosts:
    """Nodes of four slots each, and what runs there."""

    def __init__(self, *names: str, slots: int = 4) -> None:
        self.nodes = [NodeSnapshot(name, True, frozenset({"digits"})) for name in names]
        self.slots = [SlotSnapshot(name, index, free=True) for name in names for index in range(slots)]
        self.attempts: list[AttemptSnapshot] = []

    def run(
        self,
        node: str,
        slots: int,
        priority: int = 0,
        *,
        preemptible: bool = False,
        leaving: bool = False,
        ran: float = 60.0,
    ) -> uuid.UUID:
        since = NOW - timedelta(seconds=ran)
        attempt = AttemptSnapshot(uuid.uuid4(), node, slots, priority, preemptible, leaving, since)
        self.attempts.append(attempt)
        self._occupy(node, slots, quarantined=False)
        return attempt.attempt_id

    def quarantine(self, node: str, slots: int) -> None:
        self._occupy(node, slots, quarantined=True)

    def _occupy(self, node: str, slots: int, *, quarantined: bool) -> None:
        free = [index for index, slot in enumerate(self.slots) if slot.node == node and slot.free]
        for index in free[:slots]:
            self.slots[index] = replace(self.slots[index], free=False, quarantined=quarantined)

    def decide(self, *candidates: Candidate) -> Decision:
        return decide(candidates, self.nodes, self.slots, self.attempts, NOW)


def on(decision: Decision) -> dict[uuid.UUID, str]:
    return {placement.job_id: placement.node for placement in decision.placements}


def test_a_large_job_that_has_waited_long_gets_the_emptiest_node_reserved() -> None:
    hosts = Hosts("a", "b")
    hosts.run("a", 3)
    hosts.run("b", 2)
    large, small = job(4, waited=LONG), job(1)
    decision = hosts.decide(large, small)
    assert decision.reservations == {large.job_id: Reservation("b")}
    assert decision.reasons == {large.job_id: (ReasonCode.RESERVED, {"slots": 4, "node": "b", "free": 2})}
    assert on(decision) == {small.job_id: "a"}
    # Neither a job that has not waited long nor a small one gets one.
    assert hosts.decide(job(4)).reservations == {}
    hosts.run("a", 1)
    hosts.run("b", 2)
    assert hosts.decide(job(1, waited=LONG)).reservations == {}


def test_a_reservation_binds_only_those_behind_it_and_lasts_until_its_job_fits() -> None:
    hosts = Hosts("a", slots=8)
    hosts.run("a", 5)
    large = job(4, waited=LONG, reserved_node="a")
    ahead, behind = job(1), job(1)
    decision = hosts.decide(ahead, large, behind)
    assert decision.reservations == {}
    assert on(decision) == {ahead.job_id: "a"}
    assert decision.reasons[large.job_id] == (ReasonCode.RESERVED, {"slots": 4, "node": "a", "free": 2})
    assert decision.reasons[behind.job_id] == (ReasonCode.BEHIND, {"slots": 1})
    hosts = Hosts("a", slots=8)
    hosts.run("a", 3)
    assert on(hosts.decide(large, behind)) == {large.job_id: "a", behind.job_id: "a"}


def test_a_job_that_fits_elsewhere_goes_there_and_leaves_its_reservation() -> None:
    hosts = Hosts("a", "b")
    hosts.run("a", 1)
    large, small = job(4, waited=LONG, reserved_node="a"), job(3)
    assert on(hosts.decide(large, small)) == {large.job_id: "b", small.job_id: "a"}


def test_a_node_that_is_kept_for_a_later_job_is_taken_last() -> None:
    hosts = Hosts("a", "b")
    hosts.run("a", 1)
    large, ahead = job(4, waited=LONG, reserved_node="a"), job(1)
    hosts.run("b", 1)
    assert on(hosts.decide(ahead, large)) == {ahead.job_id: "b"}
    hosts.run("a", 2)
    assert on(hosts.decide(ahead, large)) == {ahead.job_id: "b"}, "best fit alone would take a"


def test_a_reservation_is_given_up_when_its_node_is_of_no_use() -> None:
    large = job(4, waited=LONG, reserved_node="a")

    def kept(hosts: Hosts) -> Reservation | None:
        return hosts.decide(large).reservations.get(large.job_id, Reservation("a"))

    hosts = Hosts("a")
    hosts.run("a", 1)
    assert kept(hosts) == Reservation("a")
    hosts.quarantine("a", 1)
    assert kept(hosts) is None
    away = Hosts("a", "b")
    away.run("b", 1)
    away.nodes[0] = replace(away.nodes[0], open=False)
    assert kept(away) == Reservation("b")
    moved = Hosts("a")
    moved.nodes[0] = replace(moved.nodes[0], data_sets=frozenset({"textures"}))
    assert kept(moved) is None


def test_a_node_is_kept_for_one_job_only_and_most_are_for_nobody() -> None:
    hosts = Hosts("a", "b", "c", "d", "e", "f", "g", "h")
    for node in hosts.nodes:
        hosts.run(node.name, 1)
    large = [job(4, waited=LONG) for _ in range(4)]
    decision = hosts.decide(*large)
    assert decision.reservations == {large[0].job_id: Reservation("a"), large[1].job_id: Reservation("b")}
    # Should two ever have one node, the first keeps it.
    first, second = (job(4, waited=LONG, reserved_node="a") for _ in range(2))
    assert hosts.decide(first, second).reservations == {second.job_id: Reservation("b")}


def test_preemption_asks_where_the_least_is_lost() -> None:
    hosts = Hosts("a", "b", "c")
    hosts.run("a", 4, preemptible=True)
    hosts.run("b", 2, preemptible=True, priority=3)
    hosts.run("b", 2, preemptible=False)
    hosts.run("c", 1, preemptible=True, priority=3)
    low = hosts.run("c", 1, preemptible=True, priority=1)
    new = hosts.run("c", 1, preemptible=True, priority=1, ran=10)
    hosts.run("c", 1, preemptible=True, priority=1, ran=1000)
    urgent = job(2, priority=5)
    decision = hosts.decide(urgent)
    assert decision.preemptions == [Preemption(urgent.job_id, "c", tuple(sorted((low, new))))]
    assert decision.reservations == {urgent.job_id: Reservation("c", preempting=True)}
    assert decision.reasons == {urgent.job_id: (ReasonCode.PREEMPTING, {"slots": 2, "node": "c", "free": 0})}


def test_only_preemptible_jobs_of_strictly_lower_priority_make_room() -> None:
    hosts = Hosts("a")
    hosts.run("a", 2, preemptible=True, priority=5)
    hosts.run("a", 2, preemptible=False, priority=-5)
    assert hosts.decide(job(1, priority=5)).preemptions == []
    assert hosts.decide(job(4, priority=9)).preemptions == []
    assert len(hosts.decide(job(2, priority=6)).preemptions) == 1


def test_free_slots_and_those_about_to_be_free_count_before_anybody_is_asked() -> None:
    hosts = Hosts("a")
    victims = {hosts.run("a", 1, preemptible=True) for _ in range(2)}
    hosts.run("a", 1, leaving=True)
    assert hosts.decide(job(2, priority=5)).preemptions == []
    (asked,) = hosts.decide(job(4, priority=5)).preemptions
    assert set(asked.attempt_ids) == victims
    # What is coming is promised to one only: the second has to ask.
    first, second = job(2, priority=5), job(2, priority=5)
    assert hosts.decide(first, second).preemptions[0].job_id == second.job_id


def test_nobody_is_asked_twice_for_the_same_room_and_the_room_is_for_nobody_else() -> None:
    hosts = Hosts("a")
    hosts.run("a", 3, preemptible=True, leaving=True)
    hosts.run("a", 1, preemptible=True)
    urgent = job(3, priority=5, reserved_node="a", preempting=True)
    older = job(1)
    decision = hosts.decide(older, urgent)
    assert (decision.placements, decision.preemptions, decision.reservations) == ([], [], {})
    done = Hosts("a")
    done.run("a", 1, preemptible=True)
    decision = done.decide(older, urgent)
    assert on(decision) == {urgent.job_id: "a"}
    # One of those who were asked was faster, another got out of reach: one more has to go, on the same node.
    short = Hosts("a")
    short.run("a", 2, preemptible=True, leaving=True)
    more = short.run("a", 2, preemptible=True)
    assert short.decide(older, urgent).preemptions == [Preemption(urgent.job_id, "a", (more,))]


def test_what_one_preemption_leaves_over_spares_another() -> None:
    hosts = Hosts("a", "b")
    for node in hosts.nodes:
        hosts.run(node.name, 4, preemptible=True)
    urgent = [job(1, priority=5) for _ in range(5)]
    decision = hosts.decide(*urgent)
    assert [preemption.node for preemption in decision.preemptions] == ["a", "b"]
    assert [preemption.job_id for preemption in decision.preemptions] == [urgent[0].job_id, urgent[4].job_id]


def test_preemption_takes_over_a_later_job_s_reservation_but_no_earlier_one_s() -> None:
    hosts = Hosts("a")
    hosts.run("a", 4, preemptible=True, priority=1)
    large, urgent = job(4, waited=LONG, reserved_node="a"), job(2, priority=5)
    ahead = hosts.decide(urgent, large)
    assert ahead.reservations == {urgent.job_id: Reservation("a", preempting=True), large.job_id: None}
    behind = hosts.decide(large, urgent)
    assert (behind.reservations, behind.preemptions) == ({}, [])


def test_a_claim_whose_room_cannot_come_any_more_is_given_up() -> None:
    hosts = Hosts("a", "b")
    hosts.run("a", 4, preemptible=False)
    victim = hosts.run("b", 4, preemptible=True)
    urgent = job(2, priority=5, reserved_node="a", preempting=True)
    decision = hosts.decide(urgent)
    assert decision.preemptions == [Preemption(urgent.job_id, "b", (victim,))]
    assert decision.reservations == {urgent.job_id: Reservation("b", preempting=True)}
