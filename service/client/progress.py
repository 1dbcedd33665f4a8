"""Live progress of several jobs: bars in a terminal, lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from service.api.schemas import JobDetail
from service.client.api import Client
from service.ledger.states import JobState

_SECONDS_BETWEEN_LINES = 10.0


class Display(Protocol):
    """Shows the jobs as they are now; used as a context manager."""

    def show(self, jobs: list[JobDetail]) -> None: ...

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def watch(client: Client, ids: Sequence[UUID], console: Console) -> list[JobDetail]:
    """Show the jobs until none can go on by itself: each has ended, is paused, or waits for one of these that is.

    Returns them as they are then.
    """
    with display(console) as screen:
        while True:
            jobs = [client.job(job_id) for job_id in ids]
            screen.show(jobs)
            if all(job.state.terminal or job.id in held_up(jobs) for job in jobs):
                return jobs
            time.sleep(1.0)


def held_up(jobs: Sequence[JobDetail]) -> set[UUID]:
    """Those that wait for a user to resume them, or for one that does."""
    found = {job.id for job in jobs if job.state == JobState.PAUSED}
    while more := {job.id for job in jobs if job.state == JobState.WAITING and found & {*job.after}} - found:
        found |= more
    return found


def display(console: Console) -> Display:
    """The one that fits where the output goes."""
    return Bars(console) if console.is_terminal else Lines(console)


class Bars(Progress):
    """One bar per job."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            TextColumn("{task.description:<18}", markup=False),
            TextColumn("{task.fields[state]:<10}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %", markup=False),
            TextColumn("{task.fields[facts]}", markup=False),
            console=console,
        )
        self._bars: dict[UUID, TaskID] = {}

    def show(self, jobs: list[JobDetail]) -> None:
        """Draw the jobs as they are now."""
        for job in jobs:
            if job.id not in self._bars:
                self._bars[job.id] = self.add_task(job.name, total=1.0, state="", facts="")
            self.update(self._bars[job.id], completed=_fraction(job), state=job.state, facts=facts(job))
        self.refresh()


class Lines:
    """A line when a job's state changes, and one every ten seconds while it runs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[UUID, str] = {}
        self._last: dict[UUID, float] = {}

    def show(self, jobs: list[JobDetail]) -> None:
        """Write what is new since the last call."""
        now = time.monotonic()
        for job in jobs:
            changed = self._states.get(job.id) != job.state
            due = job.state == JobState.RUNNING and now - self._last.get(job.id, 0.0) >= _SECONDS_BETWEEN_LINES
            if changed or due:
                self._states[job.id], self._last[job.id] = job.state, now
                self._console.print(
                    f"{job.name:<18} {job.state:<10} {facts(job)}".rstrip(), highlight=False, soft_wrap=True
                )

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


def facts(job: JobDetail) -> str:
    """Epoch, step, loss, images/s and ETA, as far as they are known; or why the job does not run."""
    if job.state != JobState.RUNNING:
        return job.reason.words if job.reason and job.state != JobState.SUCCEEDED else ""
    out: list[str] = []
    if (at := job.progress) is not None:
        if at.epoch is not None and at.epochs is not None:
            out.append(f"epoch {at.epoch}/{at.epochs}")
        elif at.phase:
            out.append(at.phase)
        if at.step is not None and at.steps is not None:
            out.append(f"step {at.step}/{at.steps}")
        if (loss := job.last_metrics.get("loss") or job.last_metrics.get(f"{job.kind}_loss")) is not None:
            out.append(f"loss {loss.value:.3g}")
        if at.images_per_second:
            out.append(f"{at.images_per_second:,.0f} images/s")
        if at.eta_seconds is not None:
            out.append(f"{_clock(at.eta_seconds)} left")
    return "  ".join(out)


def _fraction(job: JobDetail) -> float:
    if job.state == JobState.SUCCEEDED:
        return 1.0
    return (job.progress.fraction if job.progress else None) or 0.0


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
