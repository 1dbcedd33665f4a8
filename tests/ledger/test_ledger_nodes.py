"""Hosts: one worker per name and per device, what a former worker left behind, quarantine."""

from __future__ import annotations

import uuid

import pytest
from lab import LEASE, Lab

from service.database.tables import Node
from service.ledger import nodes
from service.ledger.errors import NodeNameTaken
from service.ledger.nodes import SlotReport
from service.ledger.states import AttemptOutcome, JobState


def devices(*uuids: str, empty: bool = True) -> list[SlotReport]:
    return [SlotReport(index, "cuda", device, 2**30, empty) for index, device in enumerate(uuids)]


def alive(lab: Lab, name: str) -> bool:
    with lab.sessions() as session:
        return session.query(nodes.is_live(LEASE)).filter(Node.name == name).scalar()


def test_a_second_live_worker_of_one_name_is_refused(lab: Lab) -> None:
    lab.node()
    with pytest.raises(NodeNameTaken, match="BARLOW_NODE_NAME"):
        lab.node(instance=uuid.uuid4())
    lab.node()  # the same process again, for example after a change of its data sets


def test_a_name_is_free_once_its_worker_was_silent_for_a_lease_or_has_left(lab: Lab) -> None:
    lab.node()
    first = lab.instances["gpu-1"]
    lab.unseen("gpu-1")
    assert not alive(lab, "gpu-1")
    lab.node(instance=uuid.uuid4())
    second = lab.instances["gpu-1"]
    with lab.sessions.begin() as session:
        assert not nodes.seen(session, "gpu-1", first)
        assert nodes.seen(session, "gpu-1", second)
        assert not nodes.leave(session, "gpu-1", first, lab.complete)
        assert nodes.leave(session, "gpu-1", second, lab.complete)
    assert not alive(lab, "gpu-1")
    lab.node(instance=uuid.uuid4())
    assert alive(lab, "gpu-1")


def test_a_heartbeat_keeps_a_node_alive(lab: Lab) -> None:
    lab.node()
    lab.unseen("gpu-1")
    with lab.sessions.begin() as session:
        assert nodes.seen(session, "gpu-1", lab.instances["gpu-1"])
    assert alive(lab, "gpu-1")


def test_a_new_worker_loses_what_the_former_one_held(lab: Lab) -> None:
    lab.node(slots=3)
    run, placed, other = lab.submit("run"), lab.submit("placed"), lab.submit("other")
    lab.start(run)
    lab.cancel(other)
    held = [lab.attempt(run), lab.attempt(placed)]
    lab.unseen("gpu-1")
    lab.node(slots=3, instance=uuid.uuid4())
    for job_id, attempt in zip((run, placed), held, strict=True):
        job = lab.job(job_id)
        assert (job.state, job.restarts, job.reason_code) == (JobState.QUEUED, 0, "requeued")
        assert not lab.end(attempt, AttemptOutcome.OK)
    # The new worker reported the slots empty, so nothing is left in quarantine.
    assert [(slot.attempt_id, slot.quarantined_at) for slot in lab.slots()] == [(None, None)] * 3
    lab.place()
    assert lab.attempt(run).number == lab.attempt(placed).number == 2


def test_the_same_worker_keeps_its_attempts_when_it_registers_again(lab: Lab) -> None:
    lab.node(slots=2)
    job_id = lab.submit()
    attempt = lab.start(job_id)
    lab.node(slots=2, report=[SlotReport(i, "cpu", f"gpu-1-cpu-{i}", 1, empty=i == 1) for i in range(2)])
    assert lab.job(job_id).state == JobState.RUNNING
    assert [(slot.attempt_id, slot.quarantined_at) for slot in lab.slots()] == [(attempt.id, None), (None, None)]


def test_slots_that_are_not_empty_stay_out_of_use(lab: Lab) -> None:
    lab.node(report=devices("a", "b", empty=False))
    job_id = lab.submit()
    lab.place()
    assert lab.job(job_id).reason == {"slots": 1, "node": "gpu-1", "free": 0, "quarantined": 2}
    with lab.sessions.begin() as session:
        assert nodes.release_quarantined(session, "gpu-1", [1]) == 1
        assert nodes.release_quarantined(session, "gpu-1", [1]) == 0
    lab.place()
    assert [slot.attempt_id for slot in lab.slots()] == [None, lab.attempt(job_id).id]


def test_slots_of_a_lost_attempt_stay_in_quarantine_if_a_new_worker_finds_them_full(lab: Lab) -> None:
    lab.node(report=devices("a"))
    attempt = lab.start(lab.submit())
    lab.unseen("gpu-1")
    lab.node(instance=uuid.uuid4(), report=devices("a", empty=False))
    (slot,) = lab.slots()
    assert slot.attempt_id == attempt.id
    assert slot.quarantined_at is not None


def test_a_slot_that_is_gone_is_retired_and_comes_back(lab: Lab) -> None:
    lab.node(report=devices("a", "b"))
    lab.node(report=devices("a"))
    assert [slot.retired_at is None for slot in lab.slots()] == [True, False]
    job_id = lab.submit(slots=2)
    lab.place()
    assert lab.job(job_id).reason == {"slots": 2, "node": "gpu-1", "total": 1}
    lab.node(report=devices("a", "b"))
    lab.place()
    assert lab.job(job_id).reason_code == "placed"


def test_renumbered_devices_follow_their_uuid(lab: Lab) -> None:
    lab.node(report=devices("a", "b"))
    lab.node(report=devices("b", "a"))
    assert [slot.device_uuid for slot in lab.slots()] == ["b", "a"]
    lab.node(report=devices("b", "c"))
    assert [slot.device_uuid for slot in lab.slots()] == ["b", "c"]


def test_a_host_that_comes_back_under_another_name_brings_its_devices(lab: Lab) -> None:
    lab.node("old", report=devices("a", "b"))
    with pytest.raises(NodeNameTaken, match="one worker per device"):
        lab.node("new", report=devices("a", "b"))
    lab.unseen("old")
    lab.node("new", report=devices("a", "b"))
    assert [slot.device_uuid for slot in lab.slots("new")] == ["a", "b"]
    assert lab.slots("old") == []


def test_what_was_placed_on_a_node_that_leaves_is_queued_again_at_once(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    lab.place()
    placed = lab.attempt(job_id)
    with lab.sessions.begin() as session:
        assert nodes.leave(session, "gpu-1", lab.instances["gpu-1"], lab.complete)
    assert (lab.attempt(job_id).outcome, lab.job(job_id).state) == (AttemptOutcome.DRAINED, JobState.QUEUED)
    assert lab.job(job_id).reason == {"why": "node gpu-1 has left"}
    assert lab.slots()[0].attempt_id is None
    assert lab.accept(placed) is None
    lab.node("gpu-2")
    assert lab.start(job_id).node == "gpu-2"
