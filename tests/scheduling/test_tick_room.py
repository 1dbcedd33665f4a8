"""Reservations, preemption, drains and long quarantines over real rows, tick by tick."""

from __future__ import annotations

import uuid

import pytest
from lab import LEASE, Lab
from sqlalchemy import func, text, update

from service.database.tables import Job, Slot
from service.ledger import nodes
from service.ledger.reasons import words
from service.ledger.states import AttemptOutcome, AttemptState, JobState
from service.scheduling.placement import RESERVE_AFTER_SECONDS
from service.scheduling.placing import place
from service.scheduling.reaping import OVERDUE_SECONDS
from service.scheduling.tick import tick


def look(lab: Lab) -> None:
    with lab.sessions() as session:
        tick(session, instance=uuid.uuid4(), lease_seconds=LEASE, may_reap=True, complete=lab.complete)
    lab.check()


def told(lab: Lab, job_id: uuid.UUID) -> str:
    job = lab.job(job_id)
    return words(job.reason_code, job.reason)


def wait_long(lab: Lab, job_id: uuid.UUID) -> None:
    """As if it had been queued for longer than the bound; its place in the order moves with it."""
    with lab.sessions.begin() as session:
        since = func.clock_timestamp() - text(f"interval '{RESERVE_AFTER_SECONDS + 1} seconds'")
        moved = {"queued_at": since, "order_key": Job.order_key - RESERVE_AFTER_SECONDS - 1}
        session.execute(update(Job).where(Job.id == job_id).values(moved))


def versions(lab: Lab) -> dict[uuid.UUID, str]:
    """Of every job's row; each write changes it."""
    with lab.engine.connect() as connection:
        rows = connection.execute(text("SELECT id, xmin::text || ctid::text AS version FROM jobs"))
        return {row.id: row.version for row in rows}


def test_a_reservation_lasts_over_ticks_until_its_job_is_placed(lab: Lab) -> None:
    lab.node(slots=2)
    first, second = lab.submit(), lab.submit()
    look(lab)
    running = {job_id: lab.accept(lab.attempt(job_id)) for job_id in (first, second)}
    large = lab.submit(slots=2)
    wait_long(lab, large)
    look(lab)
    assert lab.job(large).reserved_node == "gpu-1"
    assert told(lab, large) == "has waited long: gpu-1 is kept free for it, 0 of 2 slots so far"
    small = lab.submit()
    lab.end(running[first], AttemptOutcome.OK)
    look(lab)
    assert told(lab, large) == "has waited long: gpu-1 is kept free for it, 1 of 2 slots so far"
    assert told(lab, small) == "needs 1 slot on one node; other jobs stand before it"
    before = versions(lab)
    look(lab)
    assert versions(lab) == before
    lab.end(running[second], AttemptOutcome.OK)
    look(lab)
    assert told(lab, large) == "starts on gpu-1"
    assert lab.job(large).reserved_node is None
    assert lab.job(small).state == JobState.QUEUED


def test_a_reservation_moves_on_when_its_node_is_gone(lab: Lab) -> None:
    lab.node("gpu-1", slots=2)
    lab.node("gpu-2", slots=3)
    for _ in range(5):
        lab.submit()
    look(lab)
    large = lab.submit(slots=2)
    wait_long(lab, large)
    look(lab)
    assert lab.job(large).reserved_node == "gpu-1"
    lab.unseen("gpu-1")
    look(lab)
    assert lab.job(large).reserved_node == "gpu-2"
    lab.unseen("gpu-2")
    look(lab)
    assert lab.job(large).reserved_node is None
    assert told(lab, large) == "no node is up; known: gpu-1, gpu-2"


def test_preemption_from_the_request_to_the_return(lab: Lab) -> None:
    lab.node(slots=2)
    victim = lab.submit(slots=2, preemptible=True)
    attempt = lab.start(victim)
    older = lab.submit()
    wait_long(lab, older)
    urgent = lab.submit(slots=1, priority=1)
    look(lab)
    assert lab.attempt(victim).preempted_for == urgent
    assert (lab.job(urgent).reserved_node, lab.job(urgent).preempting) == ("gpu-1", True)
    assert told(lab, urgent) == "jobs of lower priority on gpu-1 make room for it, 0 of 1 slot free so far"
    assert lab.kinds(victim)[-1] == "preemption_requested"
    look(lab)
    assert lab.kinds(victim).count("preemption_requested") == 1
    assert lab.end(attempt, AttemptOutcome.STOPPED, "wrote a checkpoint")
    assert told(lab, victim).startswith("queued again: it made room for job")
    look(lab)
    # It stands behind the one it made room for, and behind those that waited before it was told to go.
    assert lab.attempt(urgent).state == AttemptState.PLACED
    assert lab.attempt(older).state == AttemptState.PLACED
    assert lab.job(victim).state == JobState.QUEUED
    assert (lab.job(urgent).reserved_node, lab.job(urgent).preempting) == (None, False)
    for job_id in (urgent, older):
        lab.end(lab.accept(lab.attempt(job_id)), AttemptOutcome.OK)
    look(lab)
    assert lab.attempt(victim).number == 2
    assert lab.job(victim).restarts == 0


def test_room_that_was_made_is_not_taken_by_an_older_job(lab: Lab) -> None:
    lab.node(slots=2)
    victim = lab.start(lab.submit(slots=2, preemptible=True))
    older = lab.submit(slots=1)
    wait_long(lab, older)
    urgent = lab.submit(slots=2, priority=0)
    with lab.sessions.begin() as session:
        # Its priority does not make up for the other's wait.
        session.execute(update(Job).where(Job.id == urgent).values(priority=1))
    look(lab)
    assert lab.job(urgent).preempting
    assert lab.job(older).order_key < lab.job(urgent).order_key
    lab.end(victim, AttemptOutcome.STOPPED)
    look(lab)
    assert lab.attempt(urgent).state == AttemptState.PLACED
    assert told(lab, older) == "needs 1 slot on one node, 0 free on gpu-1"


def test_what_was_not_accepted_yet_makes_room_at_once(lab: Lab) -> None:
    lab.node(slots=1)
    victim = lab.submit(preemptible=True)
    look(lab)
    urgent = lab.submit(priority=1)
    look(lab)
    assert lab.attempt(victim).state == AttemptState.ENDED
    look(lab)
    assert told(lab, urgent) == "starts on gpu-1"


def test_a_node_that_is_about_to_go_gets_nothing(lab: Lab) -> None:
    lab.node("gpu-1", slots=2)
    lab.node("gpu-2", slots=1)
    with lab.sessions.begin() as session:
        assert nodes.begin_drain(session, "gpu-1", lab.instances["gpu-1"])
    first, second = lab.submit(), lab.submit()
    look(lab)
    assert lab.attempt(first).node == "gpu-2"
    assert told(lab, second) == "needs 1 slot on one node, 0 free on gpu-2"
    lab.node("gpu-1", slots=2)
    look(lab)
    assert lab.attempt(second).node == "gpu-1"


def test_a_backlog_is_told_once(lab: Lab) -> None:
    lab.node(slots=1)
    lab.start(lab.submit())
    for _ in range(40):
        lab.submit()
    look(lab)
    before = versions(lab)
    look(lab)
    assert versions(lab) == before
    new = lab.submit()
    look(lab)
    after = versions(lab)
    assert {job_id for job_id in after if after[job_id] != before.get(job_id)} == {new}


def test_jobs_that_back_off_are_not_looked_at_and_keep_their_reason(lab: Lab) -> None:
    lab.node(slots=1)
    job_id = lab.submit(max_restarts=2)
    lab.end(lab.start(job_id), AttemptOutcome.CRASHED, "boom")
    before = versions(lab)
    look(lab)
    assert versions(lab) == before
    assert told(lab, job_id).startswith("retry 1 of 2 in")
    lab.skip_backoff(job_id)
    look(lab)
    assert told(lab, job_id) == "starts on gpu-1"


def test_a_long_quarantine_is_reported_once(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.node(slots=1)
    job_id = lab.submit()
    lab.expire(lab.start(job_id))
    look(lab)
    look(lab)
    assert "warning" not in lab.kinds(job_id)
    with lab.sessions.begin() as session:
        session.execute(
            update(Slot).values(quarantined_at=Slot.quarantined_at - text(f"interval '{OVERDUE_SECONDS}s'"))
        )
    with lab.engine.begin() as busy:
        busy.execute(text("SELECT 1 FROM jobs FOR UPDATE"))
        look(lab)
    assert "warning" not in lab.kinds(job_id)
    look(lab)
    look(lab)
    (event,) = [event for event in lab.events(job_id) if event.kind == "warning"]
    assert event.payload["attempt"] == 1
    assert "slot 0 of gpu-1 is in quarantine for more than 10 minutes" in event.payload["message"]
    assert sum("is in quarantine since" in line for line in caplog.messages) == 1


@pytest.mark.parametrize("table", ["jobs", "attempts", "slots"])
def test_a_tick_waits_for_nobody(lab: Lab, table: str) -> None:
    """Somebody who is frozen in a transaction may hold any row for a minute."""
    lab.node(slots=3)
    late, victim = lab.submit(), lab.submit(preemptible=True, slots=2)
    look(lab)
    lab.expire(lab.accept(lab.attempt(late)))
    lab.accept(lab.attempt(victim))
    urgent = lab.submit(slots=2, priority=1)
    with lab.engine.begin() as frozen:
        frozen.execute(text(f"SELECT 1 FROM {table} FOR UPDATE"))
        with lab.engine.connect() as connection:
            # A tick that waits would end by this.
            connection.execute(text("SET statement_timeout = '20s'"))
            connection.commit()
            with lab.sessions(bind=connection) as session:
                tick(session, instance=uuid.uuid4(), lease_seconds=LEASE, may_reap=True, complete=lab.complete)
            connection.execute(text("RESET statement_timeout"))
            connection.commit()
    look(lab)
    assert lab.job(late).state == JobState.QUEUED
    assert lab.attempt(victim).preempted_for == urgent


def test_more_than_a_tick_may_place_is_left_to_the_next(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.scheduling.placing.PLACEMENTS_PER_TICK", 2)
    lab.node(slots=3)
    jobs = [lab.submit() for _ in range(4)]
    with lab.sessions() as session:
        assert place(session, lease_seconds=LEASE)
        assert [lab.job(job_id).reason_code for job_id in jobs] == ["placed", "placed", None, "needs_slots"]
        assert not place(session, lease_seconds=LEASE)
    assert [lab.job(job_id).reason_code for job_id in jobs] == ["placed", "placed", "placed", "needs_slots"]
