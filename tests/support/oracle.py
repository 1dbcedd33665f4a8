"""The one judge of the fault suite: whatever was done to a job, it must look as if nothing had been."""

from __future__ import annotations

import hashlib
import json
import pickle
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import psycopg
from lab import _check_job as replay
from sqlalchemy import select
from stack_view import PATIENCE, StackView

from barlow_lab.specs import digest, parse_spec
from service import outgoing_http
from service.database.tables import Attempt, Correlation, Job, Metric, Slot
from service.ledger.states import JobState
from service.local.agreement import compare

WALL_CLOCK = {"images_per_second", "data_seconds", "step_seconds"}
"""Metrics that tell of the machine, not of the science."""
MLFLOW_STATUS = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
FREE_SECONDS = 30.0
"""A quarantined slot comes free with a heartbeat of its worker, which may just be starting again."""

T = TypeVar("T")
Points = dict[tuple[str, int], float]


@dataclass(frozen=True)
class Science:
    """What a job found out: its result, its metric points, its correlation records with the arrays of their files."""

    result: dict[str, Any] | None
    points: Points
    records: dict[int, tuple[Any, ...]]


class Undisturbed:
    """What undisturbed jobs found out, in a folder that several test processes may share.

    It is the same on every stack of a machine: it depends on the spec and the number of ranks alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> Science | None:
        """None: nobody has run one yet."""
        file = self._file(key)
        return pickle.loads(file.read_bytes()) if file.exists() else None

    def put(self, key: str, science: Science) -> None:
        """Remember it, whole or not at all."""
        unfinished = self._folder / str(uuid.uuid4())
        unfinished.write_bytes(pickle.dumps(science))
        unfinished.rename(self._file(key))

    def _file(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()


class Oracle:
    """Judges the jobs of one stack against undisturbed ones of the same science and number of ranks."""

    def __init__(self, stack: StackView, undisturbed: Undisturbed) -> None:
        self._stack = stack
        self._undisturbed = undisturbed

    def prepare(self, spec: dict[str, Any]) -> None:
        """Run an undisturbed job of this science now, if there was none."""
        self._reference(self._key(spec), spec)

    def check(self, job_id: uuid.UUID, state: str = "succeeded", outcomes: Sequence[str] | None = None) -> Job:
        """Wait for the end of the job and of its recording; everything must be as it should.

        Args:
            job_id: the job.
            state: the one right state at the end.
            outcomes: of its attempts; left out, any that lead to the state will do.
        """
        self._wait_until_recorded(job_id)
        job, attempts = self._stack.job(job_id), self._stack.attempts(job_id)
        assert job.state == state, (job.state, job.error, job.reason)
        if outcomes is not None:
            assert [attempt.outcome for attempt in attempts] == list(outcomes), [a.message for a in attempts]
        replay(job, self._stack.history(job_id), attempts)
        self._check_science(job)
        self._check_mlflow(job)
        self._check_turns(job, attempts)
        self._check_nothing_left(attempts)
        return job

    def check_idle(self) -> None:
        """With no job at work: all slots are free, and no process of any attempt is there."""
        self._stack.wait(lambda: not self._held(None), "all slots are free", FREE_SECONDS)
        everyone = self._stack.read(lambda session: session.scalars(select(Attempt.id)).all())
        assert {attempt: found for attempt in everyone if (found := self._stack.marked(attempt))} == {}

    def _wait_until_recorded(self, job_id: uuid.UUID) -> None:
        def recorded() -> bool:
            job = self._stack.ask(lambda client: client.job(job_id))
            return job.state.terminal and job.recording.mlflow == "complete" == job.recording.postgres

        try:
            what = f"job {job_id} has ended and is recorded"
            self._stack.wait(recorded, what, 2 * PATIENCE, every=0.4)  # nothing is to be hit then
        except AssertionError as error:
            raise AssertionError(f"{error}: {self._stack.ask(lambda client: client.job(job_id))}") from None

    def _check_science(self, job: Job) -> None:
        found = self._science(job)
        steps = sorted(step for key, step in found.points if key == "loss")
        # The steps that a retry did not have to take are in the job it is the retry of.
        first = steps[0] if steps and job.retry_of is not None else 1
        assert steps == list(range(first, first + len(steps))), f"steps of {job.id} are missing: {steps}"
        if not found.points and job.state != JobState.SUCCEEDED:
            return
        right = self._reference(self._key(job.spec), job.spec)
        if job.state == JobState.SUCCEEDED:
            assert _anonymous(found.result) == _anonymous(right.result), (found.result, right.result)
            last = max(step for _, step in right.points)
        else:  # as far as it came; what belongs to its last step may be missing
            last = steps[-1] - 1
        wrong = found.points.items() - right.points.items()
        assert not wrong, f"not as in the undisturbed run: {sorted(wrong)[:5]}"
        missing = {point for point in right.points.keys() - found.points.keys() if first <= point[1] <= last}
        assert not missing, f"missing: {sorted(missing)[:5]}"
        for step, record in found.records.items():
            assert record == right.records.get(step), f"another correlation record at step {step}"
        assert found.records.keys() >= {step for step in right.records if first <= step <= last}

    def _check_mlflow(self, job: Job) -> None:
        """MLflow equals Postgres point by point, in exactly one run."""
        runs = _patiently(lambda: self._mlflow_runs(job))
        if job.mlflow_run_id is None:
            assert runs == []
            assert self._science(job).points == {}
            return
        assert [run["info"]["run_id"] for run in runs] == [job.mlflow_run_id], [run["info"] for run in runs]
        assert runs[0]["info"]["status"] == MLFLOW_STATUS[job.state], runs[0]["info"]["status"]
        experiment = self._experiment(job)
        ends, token = self._stack.endpoints, self._stack.mlflow_token
        agreement = _patiently(lambda: compare(ends["database"], ends["mlflow"], experiment, token=token))
        # A job that was stopped early has few points, or none.
        faults = [fault for fault in agreement.faults if ", at least " not in fault and "no metric in" not in fault]
        assert not faults, faults

    def _check_turns(self, job: Job, attempts: Sequence[Attempt]) -> None:
        """Each journal is one writer's from line 1 on, and ends before that of the next attempt begins."""
        ended = 0.0
        for attempt in attempts:
            lines = self._stack.lines(job.id, attempt.number)
            assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
            if lines:
                assert ended < lines[0].at, f"attempt {attempt.number} of {job.id} began before the one before it ended"
                ended = lines[-1].at

    def _check_nothing_left(self, attempts: Sequence[Attempt]) -> None:
        ids = [attempt.id for attempt in attempts]
        self._stack.wait(lambda: not self._held(ids), f"the slots of {ids} are free", FREE_SECONDS)
        left = {str(attempt): self._stack.marked(attempt) for attempt in ids}
        assert not any(left.values()), left

    def _held(self, attempts: Sequence[uuid.UUID] | None) -> bool:
        """Whether a slot is held, or quarantined, by one of these attempts; None: by any."""
        held = Slot.attempt_id.is_not(None) if attempts is None else Slot.attempt_id.in_(attempts)
        condition = held | Slot.quarantined_at.is_not(None) if attempts is None else held
        return bool(self._stack.read(lambda session: session.scalars(select(Slot).where(condition)).all()))

    def _reference(self, key: str, spec: dict[str, Any]) -> Science:
        if (known := self._undisturbed.get(key)) is None:
            run = {k: v for k, v in spec["run"].items() if k != "stall_seconds"}
            calm = {**spec, "run": {**run, "after": [], "labels": {}, "priority": 100}}
            job_id = self._stack.submit(calm, "undisturbed")
            self._wait_until_recorded(job_id)
            assert self._stack.outcomes(job_id) == ["ok"]
            known = self._science(self._stack.job(job_id))
            self._undisturbed.put(key, known)
        return known

    def _key(self, spec: dict[str, Any]) -> str:
        """The same for the same science on the same number of ranks; the id of a backbone's job says nothing."""
        source = spec.get("backbone_from", {}).get("job")
        if source is not None:
            whole = self._stack.job(uuid.UUID(source)).spec
            rest = {**spec, "backbone_from": {"pixels": True}}
            return f"{self._key(rest)} of {self._key(whole)}"
        return f"{digest(parse_spec(spec))} on {spec.get('resources', {}).get('slots', 1)}"

    def _science(self, job: Job) -> Science:
        points = self._stack.read(
            lambda session: session.execute(
                select(Metric.key, Metric.step, Metric.value).where(Metric.job_id == job.id)
            ).all()
        )
        rows = self._stack.read(
            lambda session: session.scalars(select(Correlation).where(Correlation.job_id == job.id)).all()
        )
        return Science(
            result=job.result and {k: _without_clock(v) for k, v in job.result.items()},
            points={(key, step): value for key, step, value in points if key not in WALL_CLOCK},
            records={row.step: (row.epoch, row.dim, _text(row.summary), self._arrays(job, row)) for row in rows},
        )

    def _arrays(self, job: Job, row: Correlation) -> tuple[tuple[str, bytes], ...]:
        with np.load(self._stack.run(job.id) / row.file) as arrays:
            return tuple((name, arrays[name].tobytes()) for name in sorted(arrays))

    def _experiment(self, job: Job) -> str:
        return self._stack.ask(lambda client: client.job(job.id)).experiment

    def _mlflow_runs(self, job: Job) -> list[dict[str, Any]]:
        """Every MLflow run of the job, wherever it stands."""
        headers = {"Authorization": f"Bearer {self._stack.mlflow_token}"}
        with outgoing_http.client(
            f"{self._stack.endpoints['mlflow']}/api/2.0/mlflow", headers=headers, timeout=60
        ) as client:
            found = client.post("/experiments/search", json={"max_results": 1000}).raise_for_status().json()
            body = {
                "experiment_ids": [experiment["experiment_id"] for experiment in found["experiments"]],
                "filter": f"tags.`barlow.job_id` = '{job.id}'",
            }
            return list(client.post("/runs/search", json=body).raise_for_status().json().get("runs", []))


def _anonymous(result: Any) -> Any:
    """A result without the id of the job whose backbone was judged; the backbone's digest stays."""
    if result is None or "source" not in result.get("backbone", {}):
        return result
    return {**result, "backbone": {key: value for key, value in result["backbone"].items() if key != "source"}}


def _patiently(ask: Callable[[], T]) -> T:
    """What the servers say, asked again while one of them is away."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except (httpx.HTTPError, psycopg.OperationalError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _without_clock(value: Any) -> Any:
    return {k: v for k, v in value.items() if k not in WALL_CLOCK} if isinstance(value, dict) else value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
