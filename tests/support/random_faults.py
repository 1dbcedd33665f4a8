"""Every fault that the soak may draw, by name."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable
from random import Random

import psutil
from fault_stack import LEASE, FaultStack
from faults import (
    await_other,
    away,
    empty_redis,
    fill_disk,
    flip_a_byte,
    flush_redis,
    freeze_part,
    frozen,
    kill,
    kill_part,
    newest_checkpoint,
    send,
    send_message,
    truncate,
)
from sqlalchemy import select

from service.database.tables import Attempt, Job
from service.ledger.states import JobState

Fault = Callable[[FaultStack, Random], None]
FAULTS: dict[str, Fault] = {}


class NothingToHit(Exception):
    """No running job has what this fault needs."""


def _named(name: str) -> Callable[[Fault], Fault]:
    def keep(fault: Fault) -> Fault:
        FAULTS[name] = fault
        return fault

    return keep


@_named("rank killed")
def _(stack: FaultStack, draw: Random) -> None:
    kill([draw.choice(_some_ranks(stack, draw)[1])])


@_named("all ranks killed")
def _(stack: FaultStack, draw: Random) -> None:
    kill(_some_ranks(stack, draw)[1])


@_named("rank frozen")
def _(stack: FaultStack, draw: Random) -> None:
    with frozen([draw.choice(_some_ranks(stack, draw)[1])]):
        time.sleep(_seconds(draw))


@_named("rank told to end")
def _(stack: FaultStack, draw: Random) -> None:
    send([draw.choice(_some_ranks(stack, draw)[1])], signal.SIGTERM)


@_named("worker killed")
def _(stack: FaultStack, draw: Random) -> None:
    kill_part(stack, "worker")


@_named("worker drained")
def _(stack: FaultStack, draw: Random) -> None:
    kill_part(stack, "worker", signal.SIGTERM)


@_named("worker frozen")
def _(stack: FaultStack, draw: Random) -> None:
    with frozen([stack.part("worker")]):
        time.sleep(_seconds(draw))


@_named("worker and ranks killed")
def _(stack: FaultStack, draw: Random) -> None:
    worker = stack.part("worker")
    kill([*_some_ranks(stack, draw)[1], worker])
    await_other(stack, "worker", worker)


@_named("worker and ranks frozen")
def _(stack: FaultStack, draw: Random) -> None:
    with frozen([stack.part("worker"), *_some_ranks(stack, draw)[1]]):
        time.sleep(_seconds(draw))


@_named("scheduler killed")
def _(stack: FaultStack, draw: Random) -> None:
    kill_part(stack, "scheduler")


@_named("scheduler frozen")
def _(stack: FaultStack, draw: Random) -> None:
    freeze_part(stack, "scheduler", _seconds(draw))


@_named("API killed")
def _(stack: FaultStack, draw: Random) -> None:
    kill_part(stack, "api")


@_named("API frozen")
def _(stack: FaultStack, draw: Random) -> None:
    freeze_part(stack, "api", _seconds(draw))


@_named("MLflow killed")
def _(stack: FaultStack, draw: Random) -> None:
    kill_part(stack, "mlflow")


@_named("MLflow frozen")
def _(stack: FaultStack, draw: Random) -> None:
    freeze_part(stack, "mlflow", _seconds(draw))


@_named("MLflow away")
def _(stack: FaultStack, draw: Random) -> None:
    _away(stack, draw, "mlflow")


@_named("Redis away")
def _(stack: FaultStack, draw: Random) -> None:
    _away(stack, draw, "redis")


@_named("Redis frozen")
def _(stack: FaultStack, draw: Random) -> None:
    freeze_part(stack, "redis", _seconds(draw))


@_named("Redis flushed")
def _(stack: FaultStack, draw: Random) -> None:
    flush_redis(stack)


@_named("Redis restarted empty")
def _(stack: FaultStack, draw: Random) -> None:
    empty_redis(stack)


@_named("message doubled")
def _(stack: FaultStack, draw: Random) -> None:
    attempts = stack.read(lambda session: session.scalars(select(Attempt.id)).all())
    if not attempts:
        raise NothingToHit
    send_message(stack, draw.choice(attempts), times=5)


@_named("Postgres restarted")
def _(stack: FaultStack, draw: Random) -> None:
    kill_part(stack, "postgres", draw.choice([signal.SIGINT, signal.SIGQUIT]))


@_named("Postgres frozen")
def _(stack: FaultStack, draw: Random) -> None:
    freeze_part(stack, "postgres", _seconds(draw))


@_named("Postgres away")
def _(stack: FaultStack, draw: Random) -> None:
    _away(stack, draw, "postgres", signal.SIGINT)


@_named("disk full at a checkpoint")
def _(stack: FaultStack, draw: Random) -> None:
    _, ranks = _some_ranks(stack, draw)
    try:
        fill_disk(ranks[0])
    except psutil.NoSuchProcess:
        raise NothingToHit from None


@_named("newest checkpoint damaged")
def _(stack: FaultStack, draw: Random) -> None:
    job, ranks = _some_ranks(stack, draw)
    with frozen(ranks):
        try:
            draw.choice([truncate, flip_a_byte])(newest_checkpoint(stack, job))
        except (ValueError, FileNotFoundError):
            raise NothingToHit from None
        kill(ranks)


@_named("barlow up killed")
def _(stack: FaultStack, draw: Random) -> None:
    stack.kill()
    stack.start()


def _seconds(draw: Random) -> float:
    """Shorter than what is allowed for, or longer than the lease."""
    return draw.uniform(0.5, 2.0) if draw.random() < 0.5 else draw.uniform(1.2, 1.6) * LEASE


def _away(stack: FaultStack, draw: Random, name: str, number: signal.Signals = signal.SIGTERM) -> None:
    with away(stack, name, number):
        time.sleep(_seconds(draw))


def _some_ranks(stack: FaultStack, draw: Random) -> tuple[uuid.UUID, list[psutil.Process]]:
    """A running job and its ranks.

    Raises:
        NothingToHit: no job has any.
    """
    running = select(Job.id).where(Job.state == JobState.RUNNING).order_by(Job.id)
    jobs = list(stack.read(lambda session: session.scalars(running).all()))
    draw.shuffle(jobs)
    for job in jobs:
        if ranks := stack.ranks(job):
            return job, ranks
    raise NothingToHit
