"""A stream of small jobs under random faults, every job judged by the oracle of the fault suite.

    python tests/faults/soak.py --minutes 30 --seed 7        (make soak MINUTES=30 SEED=7; tests/support in PYTHONPATH)

The seed fixes what users and faults do one after another; how it meets is up to the machine. Exit status 1 when a job
was not as it should be: it is printed, and the stack's directory, with the logs and run directories, is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
import redis
from fault_stack import FaultStack, knn, pretrain
from kombu.exceptions import OperationalError as BrokerAway
from oracle import Oracle, Undisturbed
from random_faults import FAULTS, NothingToHit

from service.client.api import Client
from service.client.connection import ApiError
from service.ledger.states import JobState

SAY_SECONDS = 10.0
MOST_AT_ONCE = 5
LAST_SECONDS = 600.0
"""For the jobs that are unfinished when the time is over."""
RESTARTS = 100
"""The jobs of the soak never did anything wrong: they must get to their end."""


@dataclass
class Soaked:
    """A job of the soak, what it evaluates, and whether its user cancelled it."""

    id: uuid.UUID
    source: uuid.UUID | None = None
    cancelled: bool = False


@dataclass
class Soak:
    """What has happened so far. Users, faults and the judge are a thread each."""

    stack: FaultStack
    oracle: Oracle
    seed: int
    unjudged: list[Soaked] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def use(self) -> None:
        """What the users do, until it is over: submit, cancel, pause and resume."""
        draw, number = Random(f"users {self.seed}"), 0
        while not self.over.wait(draw.uniform(0.5, 4.0)):
            with self._watched("a user"), contextlib.suppress(ApiError):
                if len(self.unjudged) < MOST_AT_ONCE:
                    number += 1
                    spec, source = self._spec(draw)
                    self.unjudged.append(Soaked(self.stack.submit(spec, f"soak-{number:04d}"), source))
                elif draw.random() < 0.15:
                    self._ask(draw, draw.choice(self.unjudged))

    def harm(self) -> None:
        """Faults one after another, until it is over."""
        draw = Random(f"faults {self.seed}")
        while not self.over.wait(draw.uniform(2.0, 8.0)):
            name = draw.choice(sorted(FAULTS))
            # What a fault wants to hit may be away by the fault before it.
            nothing = (NothingToHit, psutil.NoSuchProcess, redis.RedisError, BrokerAway)
            with self._watched(f"the fault {name}"), contextlib.suppress(*nothing):
                FAULTS[name](self.stack, draw)
                self.faults[name] += 1

    def judge(self) -> None:
        """Every job once it has ended, until it is over and no job is left."""
        last: float | None = None
        while not (self.over.is_set() and not self.unjudged):
            for job in list(self.unjudged):
                state = JobState(self.stack.job(job.id).state)
                if self.over.is_set():
                    last = last or time.monotonic() + LAST_SECONDS
                    if state is JobState.PAUSED:
                        self._try(lambda client, job=job: client.resume(job.id))
                if state.terminal or (last is not None and time.monotonic() > last):
                    with self._watched(f"job {job.id}"):
                        self._judge(job)
                    self.unjudged.remove(job)
            time.sleep(0.5)
        with self._watched("the end"):
            self.oracle.check_idle()

    def line(self, minutes: float) -> str:
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        return (
            f"{minutes:5.1f} min  judged: {states or 'none'}; at work: {len(self.unjudged)}  "
            f"faults: {self.faults.total()}  violations: {len(self.violations)}"
        )

    def table(self) -> str:
        rows = [("jobs", self.states.total())]
        for title, counts, names in (
            ("", self.states, sorted(self.states)),
            ("asked by users", self.asked, sorted(self.asked)),
            ("faults", self.faults, sorted(FAULTS)),
        ):
            rows += [(title, counts.total())] if title else []
            rows += [(f"  {name}", counts[name]) for name in names]
        rows += [("violations", len(self.violations)), ("seed", self.seed)]
        return "\n".join(f"{name:32}{count:6}" for name, count in rows)

    def _spec(self, draw: Random) -> tuple[dict[str, Any], uuid.UUID | None]:
        run = {"priority": draw.randint(-5, 5), "preemptible": draw.random() < 0.5, "max_restarts": RESTARTS}
        sources = [job.id for job in self.unjudged if job.source is None and not job.cancelled]
        if sources and draw.random() < 0.4:
            source = draw.choice(sources)
            return knn(source, **run), source
        return pretrain(draw.choice([1, 2]), **run), None

    def _ask(self, draw: Random, job: Soaked) -> None:
        paused = self.stack.job(job.id).state == JobState.PAUSED
        verb = "resume" if paused else draw.choice(["cancel", "pause", "pause", "pause"])
        job.cancelled = job.cancelled or verb == "cancel"
        if self._try(lambda client: getattr(client, verb)(job.id)):
            self.asked[verb] += 1

    def _try(self, verb: Callable[[Client], object]) -> bool:
        """Whether the API took it; a verb that came too late is refused."""
        try:
            self.stack.ask(verb)
        except ApiError:
            return False
        return True

    def _judge(self, job: Soaked) -> None:
        state = self.stack.job(job.id).state
        sourceless = job.source is not None and self.stack.job(job.source).state != JobState.SUCCEEDED
        right = {"succeeded"} | ({"cancelled"} if job.cancelled or sourceless else set())
        assert state in right, f"{state} where {' or '.join(sorted(right))} is right: {self.stack.job(job.id).error}"
        self.states[state] += 1
        self.oracle.check(job.id, state)

    @contextlib.contextmanager
    def _watched(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception:
            self.violations.append(f"{what}:\n{traceback.format_exc()}")
            print(f"VIOLATION  {self.violations[-1]}", flush=True)


def main() -> int:
    """Soak for so many minutes; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="left out: another one each time")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(10**6)
    folder = Path(tempfile.mkdtemp(prefix="barlow-soak-"))
    stack = FaultStack(folder / "lab")
    print(f"soaking for {options.minutes:g} minutes, seed {seed}", flush=True)
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir()
    soak = Soak(stack, Oracle(stack, Undisturbed(undisturbed)), seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave nothing then, either
    try:
        stack.start()
        _soak(soak, options.minutes * 60)
        kept = f"\nkept: {folder}" if soak.violations else ""
        print(soak.table() + kept, flush=True)
    finally:
        stack.end(keep=bool(soak.violations))
        if not soak.violations:
            shutil.rmtree(folder)
    return 1 if soak.violations else 0


def _soak(soak: Soak, seconds: float) -> None:
    for slots in (1, 2):
        soak.oracle.prepare(pretrain(slots))
    threads = [threading.Thread(target=part, daemon=True) for part in (soak.use, soak.harm, soak.judge)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    while any(thread.is_alive() for thread in threads):
        if time.monotonic() - began > seconds:
            soak.over.set()
        print(soak.line((time.monotonic() - began) / 60), flush=True)
        threads[-1].join(SAY_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
