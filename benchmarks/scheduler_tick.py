"""How long the scheduler takes for a look at a long queue: the distribution of a tick and of its parts.

    python benchmarks/scheduler_tick.py [--jobs 100000] [--slots 1000] [--ticks 100]

A PostgreSQL server of its own (nothing is left of it), hosts of eight slots, and a queue of several sizes, data sets
and priorities, a third of it preemptible. Before each tick a few attempts end, as many jobs are submitted, and what
was placed is accepted: every tick reads a queue of the same length and has something to place.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import statistics
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from barlow_lab.specs import parse_spec
from service.completion import Completion
from service.database import migrate
from service.database.engine import make_engine, session_factory
from service.database.tables import Attempt, Job, Node, Slot
from service.ledger import attempts
from service.ledger.jobs import ensure_experiment
from service.ledger.states import AttemptOutcome, AttemptState, JobState
from service.local.servers import Postgres
from service.scheduling import placing, tick
from service.settings import Settings

HOST_SLOTS = 8
SIZES = (1, 1, 1, 1, 2, 2, 4, 8)
DATA_SETS = ("digits", "textures", "imagenet", "places")
PRIORITIES = (0, 0, 0, 0, 1, 2, 5)
QUEUED_OVER_SECONDS = 24 * 3600
LEASE_SECONDS = 3600.0
CHURN = 4
"""Attempts that end between two ticks of 2 s: 1,000 slots in jobs of two slots and four minutes."""
PARTS = {
    tick: ("reap", "report_quarantines", "release", "place"),
    placing: ("read", "decide"),
}

_NODES = text("""
    INSERT INTO nodes (name, instance, versions, data_sets, cores, memory_bytes)
    SELECT 'gpu-' || n, gen_random_uuid(), '{}',
           (SELECT jsonb_object_agg(name, '{"splits": {"train": 1000000}}'::jsonb)
            FROM unnest(CAST(:data_sets AS text[])) WITH ORDINALITY AS there(name, number)
            WHERE number = 1 OR (n + number) % 2 = 0),
           64, 1e12
    FROM generate_series(1, :count) AS n
""")
_SLOTS = text("""
    INSERT INTO slots (node, index, kind, uuid, memory_bytes)
    SELECT name, index, 'cuda', name || '-' || index, 8e10 FROM nodes, generate_series(0, :slots - 1) AS index
""")
_JOBS = text("""
    INSERT INTO jobs (experiment_id, kind, name, spec, spec_digest, state, priority, order_key, slots, nodes,
                      queued_at, event_seq)
    SELECT :experiment, 'pretrain', 'job-' || gen_random_uuid(),
           jsonb_set(jsonb_set(CAST(:spec AS jsonb), '{data,name}', to_jsonb(data_set)),
                     '{run,preemptible}', to_jsonb(n % 3 = 0)),
           'none', 'queued', priority, extract(epoch FROM queued_at) - 600 * priority, slots, 1, queued_at, 1
    FROM (
        SELECT n, (CAST(:sizes AS int[]))[1 + floor(random() * cardinality(CAST(:sizes AS int[])))::int] AS slots,
               (CAST(:data_sets AS text[]))[1 + floor(random() * cardinality(CAST(:data_sets AS text[])))::int]
                   AS data_set,
               (CAST(:priorities AS int[]))[1 + floor(random() * cardinality(CAST(:priorities AS int[])))::int]
                   AS priority,
               clock_timestamp() - make_interval(secs => :over * random()) AS queued_at
        FROM generate_series(1, :count) AS n
    ) AS drawn
""")


def submit(session: Session, count: int, *, over_seconds: float) -> None:
    """`count` queued jobs, submitted at random times since `over_seconds` ago."""
    experiment = ensure_experiment(session, "bench").id
    spec = json.dumps(parse_spec({"kind": "pretrain", "data": "digits"}).resolved())
    drawn = {"sizes": list(SIZES), "data_sets": list(DATA_SETS), "priorities": list(PRIORITIES)}
    session.execute(_JOBS, {"experiment": experiment, "spec": spec, "count": count, "over": over_seconds, **drawn})


def live_a_little(session: Session, draw: random.Random) -> int:
    """What happens between two ticks: everything placed starts, a few end, as many jobs are submitted."""
    live = session.scalars(select(Attempt).where(Attempt.state != AttemptState.ENDED)).all()
    for attempt in live:
        if attempt.state == AttemptState.PLACED:
            instance = session.get_one(Node, attempt.node).instance
            attempts.accept(session, attempt.id, node=attempt.node, instance=instance, lease_seconds=LEASE_SECONDS)
    said: dict[str, Any] = {"message": "", "result": None, "error": None, "actor": "bench", "backoff_seconds": 0.0}
    leaving = [attempt for attempt in live if attempt.preempted_at is not None]
    for attempt in leaving:
        attempts.end(session, attempt.id, attempt.token, outcome=AttemptOutcome.STOPPED, **said)
    ending = draw.sample([a for a in live if a.preempted_at is None], min(CHURN, len(live) - len(leaving)))
    for attempt in ending:
        attempts.end(session, attempt.id, attempt.token, outcome=AttemptOutcome.OK, **said)
    submit(session, len(ending), over_seconds=1.0)
    session.commit()
    return len(leaving) + len(ending)


def occupied(session: Session) -> float:
    """The share of the slots that is in use."""
    return float(session.scalars(select(func.count(Slot.attempt_id) * 1.0 / func.count())).one())


@contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Adds to `seconds` what the parts of a tick take."""

    def clocked(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **more: Any) -> Any:
            started = time.perf_counter()
            try:
                return work(*given, **more)
            finally:
                seconds[name] += time.perf_counter() - started

        return run

    originals = {(module, name): getattr(module, name) for module, names in PARTS.items() for name in names}
    for (module, name), work in originals.items():
        setattr(module, name, clocked(name, work))
    try:
        yield
    finally:
        for (module, name), work in originals.items():
            setattr(module, name, work)


def one_tick(session: Session, complete: Completion) -> dict[str, float]:
    """Seconds of a tick and of its parts."""
    seconds: dict[str, float] = defaultdict(float)
    started, processor = time.perf_counter(), time.process_time()
    with timed(seconds):
        tick.tick(session, instance=uuid.UUID(int=1), lease_seconds=LEASE_SECONDS, may_reap=True, complete=complete)
    seconds["whole tick"] = time.perf_counter() - started
    # What a busy machine does not change much; the server's is not in it.
    seconds["own processor time"] = time.process_time() - processor
    seconds["carry out and tell"] = seconds.pop("place") - seconds["read"] - seconds["decide"]
    return seconds


def show(name: str, seconds: list[float]) -> None:
    """One row of the table, in milliseconds."""
    milliseconds = sorted(1000 * value for value in seconds)
    p90 = milliseconds[min(len(milliseconds) - 1, int(0.9 * len(milliseconds)))]
    print(f"{name:<20}{statistics.median(milliseconds):>10.1f}{p90:>10.1f}{milliseconds[-1]:>10.1f}")


def measure(engine: Engine, settings: Settings, ticks: int) -> None:
    """Fill the hosts, then look `ticks` times, and print what it took."""
    draw = random.Random(0)
    complete = Completion(settings.runs_dir, backoff_seconds=0.0)
    sessions = session_factory(engine)
    filling: list[float] = []
    with sessions() as session:
        while not filling or occupied(session) < 0.95:
            filling.append(one_tick(session, complete)["whole tick"])
            live_a_little(session, draw)
    print(f"the hosts were filled in {len(filling)} ticks, {sum(filling):.1f} s")
    taken: dict[str, list[float]] = defaultdict(list)
    ended = 0
    for _ in range(ticks):
        with sessions() as session:
            ended += live_a_little(session, draw)
        with sessions() as session:
            for name, seconds in one_tick(session, complete).items():
                taken[name].append(seconds)
    with sessions() as session:
        facts = session.execute(
            select(func.count().filter(Job.state == JobState.QUEUED), func.count(Job.reserved_node))
        ).one()
    print(f"{ticks} ticks, {ended} attempts ended between them; then {facts[0]} queued, {facts[1]} with a node kept")
    print(f"{'milliseconds':<20}{'median':>10}{'p90':>10}{'max':>10}")
    for name, durations in sorted(taken.items(), key=lambda part: -statistics.median(part[1])):
        show(name, durations)


def main() -> None:
    """Start a server, fill it, measure, stop it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--ticks", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Reached from the server's own user, too.
        Path(folder).chmod(0o755)
        postgres = Postgres(Path(folder), secrets.token_urlsafe(16), Path(folder) / "postgres.log")
        postgres.start()
        try:
            postgres.create_database("bench")
            settings = Settings(database_url=postgres.url("bench"), runs_dir=Path(folder) / "runs")
            migrate.upgrade(settings)
            engine = make_engine(settings)
            with Session(engine) as session:
                session.execute(_NODES, {"count": given.slots // HOST_SLOTS, "data_sets": list(DATA_SETS)})
                session.execute(_SLOTS, {"slots": HOST_SLOTS})
                submit(session, given.jobs, over_seconds=QUEUED_OVER_SECONDS)
                session.commit()
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))
            print(f"{given.jobs} queued jobs, {given.slots} slots on {given.slots // HOST_SLOTS} hosts")
            measure(engine, settings, given.ticks)
            engine.dispose()
        finally:
            postgres.stop()


if __name__ == "__main__":
    main()
