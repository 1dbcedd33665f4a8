"""The tick over real rows: order of the queue, reasons, what is reaped and when."""

from __future__ import annotations

import uuid
from typing import Any

from lab import DIGITS, LEASE, Lab
from sqlalchemy import select, text

from barlow_lab.specs import parse_spec
from service.database.tables import Node, SchedulerSeen
from service.ledger import jobs
from service.ledger.dependants import PRIORITY_SECONDS
from service.ledger.reasons import words
from service.ledger.states import AttemptOutcome, JobState
from service.scheduling.tick import placed, tick


def look(lab: Lab, *, may_reap: bool = True) -> list[tuple[str, uuid.UUID]]:
    with lab.sessions() as session:
        tick(session, instance=uuid.uuid4(), lease_seconds=LEASE, may_reap=may_reap, complete=lab.complete)
        return placed(session)


def told(lab: Lab, job_id: uuid.UUID) -> str:
    job = lab.job(job_id)
    return words(job.reason_code, job.reason)


def version(lab: Lab, job_id: uuid.UUID) -> object:
    """Changes with every write to the row."""
    with lab.engine.connect() as connection:
        return connection.execute(text("SELECT xmin::text, ctid::text FROM jobs WHERE id = :id"), {"id": job_id}).one()


def test_an_evaluation_is_placed_where_its_weights_are(lab: Lab) -> None:
    """A file by its name, and that of torchvision's weights; a node that has not said anything may have them."""

    def judging(name: str, source: dict[str, Any]) -> uuid.UUID:
        spec = {"kind": "knn", "data": "digits", "backbone_from": source}
        with lab.sessions.begin() as session:
            experiment = jobs.ensure_experiment(session, "lab").id
            how = {"after": [], "source_job_id": None, "actor": "test", "user": None}
            return jobs.submit(session, experiment_id=experiment, spec=parse_spec(spec), name=name, **how).id

    def say(node: str, *names: str) -> None:
        with lab.sessions.begin() as session:
            session.get_one(Node, node).backbones = {"names": names}

    lab.node("gpu-1", slots=4)
    lab.node("gpu-2", slots=4)
    say("gpu-1")
    say("gpu-2")
    mine = judging("mine", {"file": "mine/backbone"})
    theirs = judging("theirs", {"torchvision": "ResNet50_Weights.IMAGENET1K_V2"})
    pixels = judging("pixels", {"pixels": True})
    assert look(lab) == [("gpu-1", lab.attempt(pixels).id)]
    assert told(lab, mine).startswith("weights mine/backbone are on no node that is up and can use data set digits (")
    assert told(lab, theirs).startswith("weights resnet50-11ad3fa6.pth are on no node that is up")
    say("gpu-2", "mine/backbone")
    look(lab)
    lab.node("gpu-3", slots=1)
    look(lab)
    assert (lab.attempt(mine).node, lab.attempt(theirs).node) == ("gpu-2", "gpu-3")


def test_reasons_follow_what_happens_and_are_written_only_when_they_change(lab: Lab) -> None:
    job_id = lab.submit(slots=2)
    look(lab)
    assert told(lab, job_id) == "no node seen yet"
    lab.node(slots=1)
    look(lab)
    assert told(lab, job_id) == "needs 2 slots on one node; the largest, gpu-1, has 1"
    lab.node("gpu-2", slots=2, data_sets={})
    look(lab)
    assert told(lab, job_id) == "needs 2 slots on one node, 1 free on gpu-1"
    before = version(lab, job_id)
    for _ in range(3):
        look(lab)
    assert version(lab, job_id) == before
    other = lab.submit(data="textures")
    look(lab)
    assert told(lab, other) == "data set textures can be used on no node that is up (gpu-1, gpu-2)"
    assert version(lab, job_id) == before
    lab.unseen("gpu-1")
    lab.unseen("gpu-2")
    look(lab)
    assert told(lab, job_id) == "no node is up; known: gpu-1, gpu-2"
    lab.node("gpu-2", slots=2, data_sets=DIGITS)
    assert look(lab) == [("gpu-2", lab.attempt(job_id).id)]
    assert told(lab, job_id) == "starts on gpu-2"
    assert lab.job(other).state == JobState.QUEUED


def test_priority_is_worth_waiting_time(lab: Lab) -> None:
    early, late, urgent = lab.submit(), lab.submit(), lab.submit(priority=1)
    gap = lab.job(late).order_key - lab.job(urgent).order_key
    assert PRIORITY_SECONDS - 60 < gap < PRIORITY_SECONDS
    lab.node(slots=1)
    order = []
    for _ in range(3):
        ((_, attempt_id),) = look(lab)
        (job_id,) = [j for j in (early, late, urgent) if j not in order and lab.job(j).reason_code == "placed"]
        assert lab.attempt(job_id).id == attempt_id
        order.append(job_id)
        lab.end(lab.accept(lab.attempt(job_id)), AttemptOutcome.OK)
    assert order == [urgent, early, late]


def test_nothing_is_reaped_while_it_may_not(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    attempt = lab.start(job_id)
    lab.expire(attempt)
    look(lab, may_reap=False)
    assert lab.job(job_id).state == JobState.RUNNING
    look(lab)
    assert lab.job(job_id).state == JobState.QUEUED


def test_a_job_that_somebody_is_at_is_left_for_the_next_tick(lab: Lab) -> None:
    lab.node()
    job_id, other = lab.submit(), lab.submit()
    with lab.engine.begin() as busy:
        busy.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": job_id})
        look_at_others = look(lab)
        assert look_at_others == [("gpu-1", lab.attempt(other).id)]
    assert len(look(lab)) == 2
    assert told(lab, job_id) == "starts on gpu-1"


def test_every_tick_says_that_it_was_there(lab: Lab) -> None:
    look(lab)
    with lab.sessions() as session:
        first = session.scalars(select(SchedulerSeen)).one()
    look(lab)
    with lab.sessions() as session:
        second = session.scalars(select(SchedulerSeen)).one()
    assert second.seen_at > first.seen_at
    assert second.instance != first.instance
