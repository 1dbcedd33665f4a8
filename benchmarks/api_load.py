"""The API under load: a real API process over PostgreSQL, submits by concurrent clients, then lists of 100,000 jobs.

    python benchmarks/api_load.py [--clients 50] [--seconds 20] [--jobs 100000]

The clients run on the same machine and take their share of its cores. PostgreSQL writes through to the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sqlalchemy import text

from service.database import migrate
from service.database.engine import make_engine
from service.local.servers import Postgres
from service.settings import Settings

SPEC: dict[str, Any] = {
    "kind": "pretrain",
    "data": {"name": "textures"},
    "views": {"preset": "small_images", "size": 32},
    "backbone": {"name": "tiny"},
    "projector": {"widths": [128, 64]},
    "batch_size": 100,
}
EXPERIMENTS = 20
Request = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0, help="of submitting")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=100, help="of each list")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, api(Path(scratch)) as (address, settings):
        print(f"{'request':<44} {'n':>6} {'p50':>8} {'p90':>8} {'p99':>8} {'max':>8}  ms")
        for clients in (1, arguments.clients):
            seconds = arguments.seconds if clients > 1 else 5.0
            durations = asyncio.run(submit(address, clients, seconds))
            show(f"submit, {clients} client(s)", durations)
            print(f"  {len(durations) / seconds:.0f} submissions per second sustained")
        began = time.monotonic()
        jobs = fill(settings, arguments.jobs)
        print(f"{jobs:,} jobs in the database (filled in {time.monotonic() - began:.0f} s)")
        for name, path in lists(settings).items():
            show(name, asyncio.run(repeat(address, path, 1, arguments.repeats)))
        for name in ("list, first page", "show a queued job"):
            path = lists(settings)[name]
            each = max(1, arguments.repeats // 10)
            show(f"{name}, {arguments.clients} clients", asyncio.run(repeat(address, path, arguments.clients, each)))


@contextmanager
def api(folder: Path, variables: Mapping[str, str] | None = None) -> Iterator[tuple[str, Settings]]:
    """An API process over a migrated PostgreSQL of its own, with these variables, too: its address, its settings."""
    postgres = Postgres(folder, secrets.token_urlsafe(16), folder / "postgres.log")
    postgres.start()
    try:
        postgres.create_database("barlow")
        settings = Settings(database_url=postgres.url("barlow"), runs_dir=folder / "runs")
        migrate.upgrade(settings)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BARLOW_")}
        database = settings.database_url.get_secret_value()
        process = subprocess.Popen(
            [sys.executable, "-m", "service.api", "--port", "0"],
            env=clean
            | {"BARLOW_DATABASE_URL": database, "BARLOW_RUNS_DIR": str(settings.runs_dir)}
            | dict(variables or {}),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1], settings
        finally:
            process.terminate()
            process.wait(30)
    finally:
        postgres.stop()


async def submit(address: str, clients: int, seconds: float) -> list[float]:
    """Each client submits one job after another until the time is over; seconds per request."""
    until = time.monotonic() + seconds

    async def post(client: httpx.AsyncClient) -> httpx.Response:
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return await client.post("/jobs?experiment=load", json=SPEC, headers=headers)

    return await load(address, clients, post, lambda _: time.monotonic() < until, expected=201)


async def repeat(address: str, path: str, clients: int, each: int) -> list[float]:
    """Each client asks `each` times; seconds per request."""
    return await load(address, clients, lambda client: client.get(path), lambda done: done < each, expected=200)


async def load(
    address: str, clients: int, request: Request, goes_on: Callable[[int], bool], *, expected: int
) -> list[float]:
    durations: list[float] = []

    async def one() -> None:
        async with httpx.AsyncClient(base_url=f"{address}/api/v1", timeout=120) as client:
            done = 0
            while goes_on(done):
                began = time.perf_counter()
                answer = await request(client)
                durations.append(time.perf_counter() - began)
                done += 1
                if answer.status_code != expected:
                    raise SystemExit(f"{answer.request.url}: {answer.status_code} {answer.text}")

    await asyncio.gather(*(one() for _ in range(clients)))
    return durations


def fill(settings: Settings, wanted: int) -> int:
    """Copies of a submitted job, spread over experiments, labels and states as in a lab's third year."""
    engine = make_engine(settings)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO experiments (name) SELECT 'sweep-' || i FROM generate_series(1, :n) AS i"),
            {"n": EXPERIMENTS},
        )
        there = connection.scalar(text("SELECT count(*) FROM jobs")) or 0
        connection.execute(
            text("""
                INSERT INTO jobs (experiment_id, kind, name, labels, spec, spec_digest, state, priority, order_key,
                                  slots, nodes, created_at, queued_at, finished_at)
                SELECT experiments.id, 'pretrain', 'job-' || i, jsonb_build_object('sweep', (i % 500)::text),
                       model.spec, model.spec_digest, state, 0, i, 1, 1, now(), now(),
                       CASE WHEN state IN ('succeeded', 'failed', 'cancelled') THEN now() END
                FROM generate_series(1, :n) AS i
                JOIN experiments ON experiments.name = 'sweep-' || (1 + i % :experiments)
                CROSS JOIN (SELECT spec, spec_digest FROM jobs LIMIT 1) AS model
                CROSS JOIN LATERAL (SELECT CASE WHEN i > :n - 10000 THEN 'queued' WHEN i % 10 = 0 THEN 'failed'
                                                WHEN i % 5000 = 1 THEN 'running' ELSE 'succeeded' END AS state) AS s
                ORDER BY i
            """),
            {"n": wanted - there, "experiments": EXPERIMENTS},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        count = connection.scalar(text("SELECT count(*) FROM jobs")) or 0
    engine.dispose()
    return count


def lists(settings: Settings) -> dict[str, str]:
    """What is asked, by name."""
    engine = make_engine(settings)
    with engine.connect() as connection:
        ids = connection.scalars(text("SELECT id FROM jobs ORDER BY id")).all()
        queued = connection.scalar(text("SELECT id FROM jobs WHERE state = 'queued' ORDER BY order_key DESC LIMIT 1"))
    engine.dispose()

    def after(row: uuid.UUID) -> str:
        return base64.urlsafe_b64encode(json.dumps([str(row)]).encode()).decode().rstrip("=")

    return {
        "list, first page": "/jobs",
        "list, first page of 200": "/jobs?page_size=200",
        "list, page at the middle": f"/jobs?page_token={after(ids[len(ids) // 2])}",
        "list, last page": f"/jobs?page_token={after(ids[50])}",
        "list, state=failed": "/jobs?state=failed",
        "list, state=running (20 of them)": "/jobs?state=running",
        "list, state=paused (none)": "/jobs?state=paused",
        "list, experiment": "/jobs?experiment=sweep-7",
        "list, experiment and state": "/jobs?experiment=sweep-7&state=failed",
        "list, label (1 of 500)": "/jobs?label=sweep=77",
        "list, match=NAME": "/jobs?match=job-4711",
        "list, match=END OF ID": f"/jobs?match={str(ids[1000])[-8:]}",
        "show an ended job": f"/jobs/{ids[len(ids) // 2]}",
        "show a queued job": f"/jobs/{queued}",
        "show an experiment with its jobs": "/experiments/sweep-7",
        "list, experiments": "/experiments",
    }


def show(name: str, durations: list[float]) -> None:
    p50, p90, p99, most = np.percentile(np.array(durations) * 1000, [50, 90, 99, 100])
    print(f"{name:<44} {len(durations):>6} {p50:>8.1f} {p90:>8.1f} {p99:>8.1f} {most:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
