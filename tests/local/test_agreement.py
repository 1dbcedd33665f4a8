"""The comparison finds every way in which two records can differ."""

from __future__ import annotations

import re
import secrets
import uuid
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.types.json import Json

from service.local.agreement import Agreement, compare
from service.local.servers import Mlflow
from service.settings import Settings

SPEC = {"kind": "pretrain", "data": {"name": "digits"}}
PARAMS = [{"key": "data", "value": "digits"}, {"key": "learning_rate", "value": "0.2"}]
START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


class TwoSides:
    """A pretraining with 60 points of `loss` on both sides."""

    def __init__(self, database: Settings, mlflow: Mlflow) -> None:
        self.database_url, self.mlflow = database.database_url.get_secret_value(), mlflow
        self.experiment = f"e-{secrets.token_hex(4)}"
        created = self.post("experiments/create", name=self.experiment)
        self.experiment_id = created["experiment_id"]
        self.job_id = uuid.uuid4()
        self.run_id = self.make_run()
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute("INSERT INTO experiments (name) VALUES (%s) RETURNING id", [self.experiment])
            connection.execute(
                "INSERT INTO jobs (id, experiment_id, kind, name, spec, spec_digest, state, priority, order_key, slots,"
                " nodes, mlflow_run_id) VALUES (%s, %s, 'pretrain', 'p', %s, '', 'succeeded', 0, 0, 1, 1, %s)",
                [self.job_id, row.fetchone()[0], Json(SPEC), self.run_id],
            )
        self.write_database([(step, step / 7) for step in range(60)])
        self.write_mlflow([(step, step / 7) for step in range(60)])

    def make_run(self) -> str:
        """An MLflow run of the job, with its params; returns its id."""
        tags = [{"key": "barlow.job_id", "value": str(self.job_id)}, {"key": "barlow.layout", "value": "2"}]
        run = self.post("runs/create", experiment_id=self.experiment_id, start_time=0, tags=tags)["run"]["info"]
        self.post("runs/log-batch", run_id=run["run_id"], params=PARAMS)
        return str(run["run_id"])

    def post(self, method: str, **body: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self.mlflow.url}/api/2.0/mlflow/{method}", json=body, headers=self.mlflow.headers)
        answer.raise_for_status()
        return answer.json()

    def write_database(self, points: list[tuple[int, float]], key: str = "loss") -> None:
        with psycopg.connect(self.database_url) as connection:
            connection.cursor().executemany(
                "INSERT INTO metrics (job_id, key, step, value, at, attempt) VALUES (%s, %s, %s, %s, %s, 1)",
                [(self.job_id, key, s, v, datetime.fromtimestamp(START + s, UTC)) for s, v in points],
            )

    def write_mlflow(self, points: list[tuple[int, float]], key: str = "loss") -> None:
        metrics = [{"key": key, "step": s, "value": v, "timestamp": int((START + s) * 1000)} for s, v in points]
        self.post("runs/log-batch", run_id=self.run_id, metrics=metrics)

    def sql(self, query: str) -> None:
        with psycopg.connect(self.database_url) as connection:
            connection.execute(query)

    def compare(self) -> Agreement:
        return compare(self.database_url, self.mlflow.url, self.experiment, token=self.mlflow.token)


@pytest.fixture
def sides(database: Settings, mlflow: Mlflow) -> TwoSides:
    return TwoSides(database, mlflow)


def test_equal_sides_agree(sides: TwoSides) -> None:
    agreement = sides.compare()
    assert agreement.faults == []
    assert agreement.points == {"p": {"loss": 60}}
    assert agreement.total == 60


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda s: s.sql("DELETE FROM metrics WHERE step = 7"),
            r"p: 1 points of loss are only in MLflow \(step 7: 1.0",
        ),
        (lambda s: s.sql("UPDATE metrics SET value = value + 1e-12 WHERE step = 7"), "only in the run database"),
        (lambda s: s.sql("UPDATE metrics SET at = at + interval '2 ms' WHERE step = 7"), "only in the run database"),
        (
            lambda s: s.write_database([(i, 0.5) for i in range(60)], "lr"),
            "60 points of lr are only in the run database",
        ),
        (lambda s: s.write_mlflow([(7, 2.0)]), "1 points of loss are only in MLflow"),
        (lambda s: s.sql("DELETE FROM metrics"), "no metric in the run database"),
        (lambda s: s.sql("UPDATE jobs SET mlflow_run_id = NULL"), "no MLflow run"),
        (
            lambda s: s.sql("""UPDATE jobs SET spec = '{"kind": "pretrain", "data": {"name": "other"}}'"""),
            "other params than the spec",
        ),
        (lambda s: s.make_run(), "MLflow has 2"),
        (lambda s: s.sql("DELETE FROM metrics; DELETE FROM jobs"), "has no job"),
    ],
)
def test_every_difference_is_a_fault(sides: TwoSides, change: Any, fault: str) -> None:
    change(sides)
    found = sides.compare().faults
    assert any(re.search(fault, line) for line in found), found


def test_too_few_points_are_a_fault(sides: TwoSides) -> None:
    sides.write_database([(i, 0.5) for i in range(49)], "lr")
    sides.write_mlflow([(i, 0.5) for i in range(49)], "lr")
    assert sides.compare().faults == ["p: lr has 49 points, at least 50 are expected"]
