"""Units of work: of each one is told, and between two of them it can be stopped."""

from __future__ import annotations

from typing import Any

from trainer.runtime.context import Context


class Stopped(Exception):
    """A stop was asked for; `context.stop.reason` says why."""


class Units:
    """Counts finished units over all phases, the same number on every rank, and asks for a stop after each."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._finished = 0

    def progress(self, phase: str, *, step: int, steps: int, **more: Any) -> None:
        """Say that `step` of the phase's `steps` are done; `more` as Context.progress takes it."""
        self._context.progress(phase, step=step, steps=steps, **more)

    def working(self, phase: str) -> None:
        """Say that a part of a unit is done."""
        self._context.working(phase)

    def finished(self) -> None:
        """One more unit is done; every rank calls it equally often.

        Raises:
            Stopped: on every rank after the same unit.
        """
        self._finished += 1
        if self._context.stop.requested(self._finished):
            raise Stopped


class Steps(Units):
    """Of a training that asks for a stop between two steps alone: its units are its steps."""

    def finished(self) -> None:
        assert self._context.step is not None
        if self._context.stop.requested(self._context.step):
            raise Stopped


class UnitsWithinStep(Units):
    """Of work that a training does between two of its steps: the job stays at the step it is at."""

    def progress(self, phase: str, *, step: int, steps: int, **more: Any) -> None:
        self._context.working(phase)

    def finished(self) -> None:
        if self._context.stop.requested_now():
            raise Stopped


def share(count: int, context: Context) -> range:
    """This rank's contiguous share of `count` rows; the shares of all ranks are all rows, in rank order."""
    return range(
        count * context.rank // context.world_size,
        count * (context.rank + 1) // context.world_size,
    )


def rounds(count: int, context: Context, rows: int) -> int:
    """Blocks of `rows` rows in the largest share: ranks with less to do take part with empty blocks."""
    largest = -(-count // context.world_size)
    return -(-largest // rows)
