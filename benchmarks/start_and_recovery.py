"""How long a job waits for its ranks: after a submit on an idle node, and after its worker was killed.

    python benchmarks/start_and_recovery.py [--starts 20] [--kills 5] [--lease 60]

Real API, scheduler, PostgreSQL and Redis, and two workers of one CPU slot each, with the service's own times; `--lease`
is BARLOW_LEASE_SECONDS, with a heartbeat of a sixth of it and a poll of half of it at most. All moments are the
database's.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.database import migrate
from service.database.engine import connect
from service.local.ports import HOST, port_or_free
from service.local.process import Child
from service.local.servers import Postgres, Redis
from service.settings import Settings

SPEC: dict[str, Any] = {
    "kind": "pretrain",
    "data": {"name": "digits"},
    "views": {"preset": "small_images", "size": 16},
    "backbone": {"name": "tiny"},
    "projector": {"widths": [32, 32]},
    "epochs": 5000,
    "batch_size": 64,
}


class Lab:
    """The processes of a small lab; workers are named by their node."""

    def __init__(self, directory: Path, lease_seconds: float) -> None:
        self.directory = directory
        self._postgres = Postgres(directory, secrets.token_urlsafe(16), directory / "postgres.log")
        self._postgres.start()
        self._postgres.create_database("barlow")
        self._redis = Redis(directory, secrets.token_urlsafe(16), directory / "redis.log")
        self._redis.start()
        self.database = connect(self._postgres.url("barlow"), autocommit=True)
        migrate.upgrade(Settings(database_url=self._postgres.url("barlow")))
        port = port_or_free(0)
        self._api = f"http://{HOST}:{port}"
        self._environment = {
            "BARLOW_DATABASE_URL": self._postgres.url("barlow"),
            "BARLOW_REDIS_URL": self._redis.url,
            "BARLOW_RUNS_DIR": str(directory / "runs"),
            "BARLOW_API_PORT": str(port),
            "BARLOW_SLOTS": "1",
            "BARLOW_LEASE_SECONDS": str(lease_seconds),
            "BARLOW_HEARTBEAT_SECONDS": str(lease_seconds / 6),
            "BARLOW_POLL_SECONDS": str(min(15.0, lease_seconds / 2)),
        }
        self.children: dict[str, Child] = {}
        for name, module in (("api", "service.api"), ("scheduler", "service.scheduling")):
            self._start(name, module)
        for node in ("a", "b"):
            self.start_worker(node)

    def start_worker(self, node: str) -> None:
        """Start the worker of a node and wait until it is registered."""
        before = self.ask("SELECT registered_at FROM nodes WHERE name = %s", node)
        self._start(node, "worker", BARLOW_NODE_NAME=node)
        while self.ask("SELECT registered_at FROM nodes WHERE name = %s", node) == before:
            time.sleep(0.1)

    def submit(self) -> str:
        """Post the spec; returns the job's id."""
        request = urllib.request.Request(
            f"{self._api}/api/v1/jobs", json.dumps(SPEC).encode(), {"Content-Type": "application/json"}
        )
        while True:
            try:
                with urllib.request.urlopen(request) as answer:
                    return str(json.load(answer)["id"])
            except ConnectionError:  # it is still starting
                time.sleep(0.2)
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionError):
                    raise
                time.sleep(0.2)

    def cancel(self, job: str) -> None:
        """Cancel a job and wait for its end."""
        urllib.request.urlopen(urllib.request.Request(f"{self._api}/api/v1/jobs/{job}:cancel", b"")).close()
        while self.ask("SELECT count(*) FROM slots WHERE attempt_id IS NOT NULL") != (0,):
            time.sleep(0.1)

    def at(self, job: str, kind: str, attempt: int) -> float | None:
        """When an event of an attempt was written, seconds since the epoch."""
        found = self.ask(
            "SELECT extract(epoch FROM at)::float FROM events"
            " WHERE job_id = %s AND kind = %s AND (payload ->> 'attempt')::int = %s",
            job, kind, attempt,
        )  # fmt: skip
        return found[0] if found else None

    def wait_for(self, job: str, kind: str, attempt: int) -> float:
        """The same, once it is there."""
        while (at := self.at(job, kind, attempt)) is None:
            time.sleep(0.05)
        return at

    def ask(self, query: str, *values: Any) -> Any:
        """The first row of an answer, None if there is none."""
        return self.database.execute(query, values).fetchone()

    def close(self) -> None:
        """End everything."""
        for child in reversed(self.children.values()):
            child.stop()
        self.database.close()
        self._redis.stop()
        self._postgres.stop()

    def _start(self, name: str, module: str, **environment: str) -> None:
        child = Child(
            name,
            [sys.executable, "-P", "-m", module],
            log=self.directory / f"{name}.log",
            environment={**self._environment, **environment},
            ours=True,
        )
        child.start()
        self.children[name] = child


def starts(lab: Lab, repeats: int) -> dict[str, list[float]]:
    """Seconds from the answer's row to each stage of its first attempt, both nodes idle."""
    stages: dict[str, list[float]] = {"placed": [], "accepted": [], "running": []}
    for _ in range(repeats):
        job = lab.submit()
        lab.wait_for(job, "attempt_running", 1)
        created = lab.ask("SELECT extract(epoch FROM created_at)::float FROM jobs WHERE id = %s", job)[0]
        for stage, seconds in stages.items():
            at = lab.at(job, f"attempt_{stage}", 1)
            assert at is not None
            seconds.append(at - created)
        lab.cancel(job)
    return stages


def kills(lab: Lab, repeats: int) -> list[float]:
    """Seconds from the kill -9 of a job's worker, at any moment of its heartbeat, to its ranks on the other node."""
    waits = []
    for _ in range(repeats):
        job = lab.submit()
        lab.wait_for(job, "attempt_running", 1)
        time.sleep(10 + 10 * secrets.SystemRandom().random())
        node = lab.ask("SELECT node FROM attempts WHERE job_id = %s", job)[0]
        killed = lab.ask("SELECT extract(epoch FROM clock_timestamp())::float")[0]
        os.kill(lab.children[node].pid, signal.SIGKILL)
        waits.append(lab.wait_for(job, "attempt_running", 2) - killed)
        print(f"  killed {node}: {waits[-1]:.1f} s", flush=True)
        lab.children[node].stop()
        lab.start_worker(node)
        lab.cancel(job)
    return waits


def said(name: str, seconds: Sequence[float]) -> str:
    """One line of a distribution."""
    ordered = sorted(seconds)
    return (
        f"{name:<34} n {len(ordered):>3}   min {ordered[0]:.2f}   median {statistics.median(ordered):.2f}   "
        f"p90 {ordered[round(0.9 * (len(ordered) - 1))]:.2f}   max {ordered[-1]:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--lease", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="barlow-benchmark-") as directory:
        lab = Lab(Path(directory), arguments.lease)
        try:
            stages = starts(lab, arguments.starts) if arguments.starts else {}
            waits = kills(lab, arguments.kills) if arguments.kills else []
        finally:
            lab.close()
    for stage, seconds in stages.items():
        words = {"placed": "placed", "accepted": "accepted by the worker", "running": "ranks spawned"}[stage]
        print(said(f"submit -> {words}", seconds))
    if waits:
        print(said(f"worker killed -> runs elsewhere ({arguments.lease:g} s)", waits))


if __name__ == "__main__":
    main()
