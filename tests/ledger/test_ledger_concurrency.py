"""Users, a scheduler and workers at the same time on the same rows: no deadlock, no broken promise."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lab import LEASE, Lab
from sqlalchemy import select

from service.database.tables import Attempt
from service.ledger import attempts
from service.ledger.errors import DependencyFailed
from service.ledger.nodes import SlotReport
from service.ledger.states import AttemptOutcome, AttemptState, JobState

ROUNDS = 25


def test_everybody_at_once(lab: Lab) -> None:
    for name in ("gpu-1", "gpu-2"):
        lab.node(name, slots=2)
    jobs: list[uuid.UUID] = [lab.submit() for _ in range(4)]
    over = threading.Event()

    def user(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(ROUNDS):
            if draw.random() < 0.6:
                try:
                    jobs.append(lab.submit(after=draw.sample(jobs[-6:], 2), slots=draw.choice([1, 1, 2])))
                except DependencyFailed:
                    jobs.append(lab.submit())
            else:
                lab.cancel(draw.choice(jobs[-12:]))

    def scheduler() -> None:
        while not over.is_set():
            lab.reap()
            lab.release()
            lab.place()

    def worker(seed: int) -> None:
        draw = random.Random(seed)
        while not over.is_set():
            with lab.sessions() as session:
                live = list(session.scalars(select(Attempt).where(Attempt.state != AttemptState.ENDED)))
            for attempt in live:
                if attempt.state == AttemptState.PLACED:
                    lab.accept(attempt)
                elif draw.random() < 0.2:
                    lab.expire(attempt)
                else:
                    with lab.sessions.begin() as session:
                        attempts.renew(session, attempt.id, attempt.token, lease_seconds=LEASE)
                    lab.end(
                        attempt,
                        draw.choice(
                            [AttemptOutcome.OK, AttemptOutcome.OK, AttemptOutcome.CRASHED, AttemptOutcome.BAD_DATA]
                        ),
                    )

    def guarded(work: Callable[..., None], *given: int) -> None:
        try:
            work(*given)
        except BaseException:
            over.set()
            raise

    with ThreadPoolExecutor(6) as pool:
        others = [pool.submit(guarded, scheduler), *(pool.submit(guarded, worker, seed) for seed in (1, 2))]
        users = [pool.submit(guarded, user, seed) for seed in (3, 4, 5)]
        for future in users:
            future.result()
        over.set()
        for future in others:
            future.result()
    lab.check()

    # Left alone, every job comes to its end.
    for _ in range(len(jobs)):
        if all(JobState(lab.job(job_id).state).terminal for job_id in jobs):
            break
        for name in ("gpu-1", "gpu-2"):
            lab.node(name, slots=2)
        lab.release()
        for job_id in jobs:
            lab.skip_backoff(job_id)
        lab.place()
        with lab.sessions() as session:
            live = list(session.scalars(select(Attempt).where(Attempt.state != AttemptState.ENDED)))
        for attempt in live:
            accepted = lab.accept(attempt) or attempt
            assert lab.end(accepted, AttemptOutcome.OK)
    assert all(JobState(lab.job(job_id).state).terminal for job_id in jobs)


def test_slots_are_locked_in_one_order_by_all(lab: Lab) -> None:
    lab.node(slots=4)
    over = threading.Event()

    def host(seed: int) -> None:
        draw = random.Random(seed)
        while not over.is_set():
            report = [SlotReport(index, "cpu", f"gpu-1-cpu-{index}", 2**30) for index in range(4)]
            lab.node(report=draw.sample(report, 4))

    with ThreadPoolExecutor(2) as pool:
        hosts = [pool.submit(host, seed) for seed in (1, 2)]
        try:
            for _ in range(50):
                lab.cancel(lab.submit(slots=4))
                job_id = lab.submit(slots=3)
                lab.place()
                lab.cancel(job_id)
        finally:
            over.set()
        for future in hosts:
            future.result()


def test_one_name_submitted_by_many_is_one_job(lab: Lab) -> None:
    def submit(_: int) -> bool:
        try:
            lab.submit("same")
        except ValueError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(submit, range(16))) == 1
