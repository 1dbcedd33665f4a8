"""Do the run database and MLflow tell the same story? Compares runs, params and every point of an experiment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row

from barlow_lab.specs.kinds import MAKERS
from service import outgoing_http
from service.database.engine import connect
from service.mlflow_layout import LAYOUT_TAG, metric_name, params
from service.recording import JOB_TAG

Point = tuple[int, float, int]
"""Step, value, milliseconds since the epoch."""

_FEWEST_OF_A_PRETRAINING = 50
_OF_PROBES = ("knn_top1", "probe_top1")  # of a pretraining, every few epochs
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was compared: points by job name and metric. `faults` is empty when both sides are the same."""

    points: dict[str, dict[str, int]]
    faults: list[str]

    @property
    def total(self) -> int:
        """Number of points that both sides hold."""
        return sum(sum(keys.values()) for keys in self.points.values())


def compare(
    database_url: str, mlflow_url: str, experiment: str, *, token: str | None, same_account: bool = False
) -> Agreement:
    """Compare all jobs of the named experiment, both ways.

    It is a fault, too, when a job has another number of runs than one, when a side is empty, or when a metric of a
    pretraining, but for its probes, has fewer than 50 points: then there was nothing to compare. To be called when
    every job is recorded completely. `token` opens MLflow: a reader's is enough; `same_account`: as for
    outgoing_http.client.

    Raises:
        httpx.HTTPError, psycopg.Error: a side does not answer.
    """
    points: dict[str, dict[str, int]] = {}
    faults: list[str] = []
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with (
        connect(database_url, row_factory=dict_row) as connection,
        outgoing_http.client(mlflow_url, ours=True, same_account=same_account, headers=headers) as mlflow,
    ):
        jobs = connection.execute(
            "SELECT jobs.id, jobs.name, jobs.kind, jobs.spec, jobs.mlflow_run_id, sources.name AS source FROM jobs"
            " JOIN experiments ON experiments.id = jobs.experiment_id LEFT JOIN jobs AS sources"
            " ON sources.id = jobs.source_job_id WHERE experiments.name = %s ORDER BY jobs.id",
            [experiment],
        ).fetchall()
        if not jobs:
            faults.append(f"the run database has no job of experiment {experiment}")
        for job in jobs:
            name = job["name"]
            if job["mlflow_run_id"] is None:
                faults.append(f"{name}: no MLflow run")
                continue
            run = _get(mlflow, "runs/get", run_id=job["mlflow_run_id"])["run"]
            faults += _run_faults(mlflow, job, run)
            named = metric_name if _has_layout(run) else str
            here, there = _in_database(connection, job["id"]), _in_mlflow(mlflow, run)
            here = {named(key): found for key, found in here.items()}
            points[name] = {key: len(values) for key, values in here.items()}
            faults += _differences(name, here, there, fewest=_FEWEST_OF_A_PRETRAINING if job["kind"] in MAKERS else 1)
    return Agreement(points, faults)


def _run_faults(client: httpx.Client, job: dict[str, Any], run: dict[str, Any]) -> Iterator[str]:
    """Whether it is the job's only run, and holds its spec."""
    experiments = [
        found["experiment_id"] for found in _post(client, "experiments/search", max_results=1000)["experiments"]
    ]
    runs = _post(client, "runs/search", experiment_ids=experiments, filter=f"tags.`{JOB_TAG}` = '{job['id']}'")
    found = [other["info"]["run_id"] for other in runs.get("runs", [])]
    if found != [run["info"]["run_id"]]:
        yield f"{job['name']}: its run is {run['info']['run_id']}, and MLflow has {len(found)}: {', '.join(found)}"
    if not _has_layout(run):
        return  # a former version began it, and logged other params
    logged = {param["key"]: param.get("value", "") for param in run["data"].get("params", [])}
    expected = params(job["spec"], job["source"])
    if wrong := sorted(key for key in logged.keys() | expected.keys() if logged.get(key) != expected.get(key)):
        yield f"{job['name']}: MLflow has other params than the spec: {', '.join(wrong[:_SHOWN])}"


def _has_layout(run: dict[str, Any]) -> bool:
    key, value = LAYOUT_TAG
    return {"key": key, "value": value} in run["data"].get("tags", [])


def _differences(name: str, here: dict[str, set[Point]], there: dict[str, set[Point]], *, fewest: int) -> Iterator[str]:
    if not here:
        yield f"{name}: no metric in the run database"
    for key in sorted(here.keys() | there.keys()):
        ours, theirs = here.get(key, set()), there.get(key, set())
        for what, rest in (("only in the run database", ours - theirs), ("only in MLflow", theirs - ours)):
            if rest:
                shown = ", ".join(f"step {s}: {v!r} at {t}" for s, v, t in sorted(rest)[:_SHOWN])
                yield f"{name}: {len(rest)} points of {key} are {what} ({shown}{', ...' if len(rest) > _SHOWN else ''})"
        if len(ours) < (1 if key in _OF_PROBES else fewest):
            yield f"{name}: {key} has {len(ours)} points, at least {fewest} are expected"


def _in_database(connection: psycopg.Connection[dict[str, Any]], job_id: Any) -> dict[str, set[Point]]:
    points: dict[str, set[Point]] = {}
    query = "SELECT key, step, value, at FROM metrics WHERE job_id = %s"
    for row in connection.execute(query, [job_id]):
        points.setdefault(row["key"], set()).add((row["step"], row["value"], round(row["at"].timestamp() * 1000)))
    return points


def _in_mlflow(client: httpx.Client, run: dict[str, Any]) -> dict[str, set[Point]]:
    keys = [metric["key"] for metric in run["data"].get("metrics", [])]
    return {key: set(_history(client, run["info"]["run_id"], key)) for key in keys}


def _history(client: httpx.Client, run_id: str, key: str) -> Iterator[Point]:
    page: str | None = None
    while page != "":
        token = {} if page is None else {"page_token": page}
        answer = _get(client, "metrics/get-history", run_id=run_id, metric_key=key, max_results=1000, **token)
        for metric in answer.get("metrics", []):
            yield int(metric["step"]), float(metric["value"]), int(metric["timestamp"])
        page = answer.get("next_page_token", "")


def _get(client: httpx.Client, method: str, **parameters: Any) -> dict[str, Any]:
    return _content(client.get(f"/api/2.0/mlflow/{method}", params=parameters, timeout=60))


def _post(client: httpx.Client, method: str, **body: Any) -> dict[str, Any]:
    return _content(client.post(f"/api/2.0/mlflow/{method}", json=body, timeout=60))


def _content(answer: httpx.Response) -> dict[str, Any]:
    answer.raise_for_status()
    content: dict[str, Any] = answer.json()
    return content
