"""An experiment is found in MLflow by its id, whatever it is called there; one that was doubled becomes one again."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from journals import RecordedJob
from lab import Lab
from mlflow.exceptions import MlflowException
from recorded import assert_exported, export, exporter, in_mlflow, in_postgres, record, runs
from sqlalchemy import select, update
from unreliable import unreliable

from service import recording
from service.database.tables import Experiment, Job
from service.local.agreement import compare
from service.local.servers import Mlflow
from service.recording import request_rebuild
from service.settings import Settings
from worker.recorder.mlflow_run import make_client


@pytest.fixture
def client(mlflow: Mlflow) -> Any:
    return make_client(mlflow.url, mlflow.token)


class Renaming:
    """What an admin does in MLflow's page, and what a former version left: done where MLflow keeps it, as the recorder
    may not."""

    def __init__(self, mlflow: Mlflow) -> None:
        self._url = mlflow.database_url

    def rename(self, experiment: str, name: str) -> None:
        self._do("UPDATE experiments SET name = %s WHERE experiment_id = %s", name, experiment)

    def untag(self, experiment: str) -> None:
        self._do("DELETE FROM experiment_tags WHERE experiment_id = %s", experiment)

    def _do(self, statement: str, *values: str) -> None:
        with psycopg.connect(self._url) as connection:
            connection.execute(statement, values)


@pytest.fixture
def admin(mlflow: Mlflow) -> Renaming:
    return Renaming(mlflow)


def stored(job: RecordedJob) -> str:
    with job.lab.sessions() as session:
        of = select(Experiment.mlflow_experiment_id).join(Job).where(Job.id == job.id)
        return str(session.scalars(of).one())


def running(lab: Lab, database: Settings, name: str) -> RecordedJob:
    job = RecordedJob(lab, database, name)
    job.started()
    job.steps(1, 5)
    job.checkpoint(5)
    record(job)
    return job


def end(job: RecordedJob) -> None:
    job.steps(6, 7)
    job.succeed()
    record(job)


def homes(job: RecordedJob, client: Any) -> list[str]:
    """The experiments that hold runs of a job."""
    return [client.get_run(run).info.experiment_id for run in runs(job, client)]


def doubled(job: RecordedJob, client: Any, admin: Renaming) -> tuple[str, str]:
    """What former versions made of a renamed experiment: that one, and the second one, which is stored."""
    first = stored(job)
    admin.rename(first, f"renamed {uuid.uuid4()}")
    second = client.create_experiment(f"lab-{job.lab.engine.url.database}")
    with job.lab.sessions.begin() as session:
        session.execute(update(Experiment).values(mlflow_experiment_id=second))
    admin.untag(first)
    return first, second


@pytest.mark.parametrize("tagged", [True, False], ids=["ours", "of a former version"])
def test_a_renamed_experiment_keeps_its_runs(
    lab: Lab, database: Settings, client: Any, admin: Renaming, tagged: bool
) -> None:
    job = running(lab, database, "long")
    goes_on = exporter(job, client)
    goes_on.export(job.id)
    experiment, run = stored(job), job.row().mlflow_run_id
    if not tagged:
        admin.untag(experiment)
    renamed = f"the best ones so far {uuid.uuid4()}"
    admin.rename(experiment, renamed)
    end(job)
    export(job, client)  # by a worker that was started anew
    other = running(lab, database, "next")
    end(other)
    export(other, client)
    for each in (job, other):
        assert_exported(each, client)
        assert homes(each, client) == [experiment] == [stored(each)]
    assert job.row().mlflow_run_id == run
    assert client.get_experiment(experiment).name == renamed
    assert client.get_experiment_by_name(f"lab-{lab.engine.url.database}") is None


def test_the_name_that_another_experiment_was_renamed_to_is_not_taken_for_ours(
    lab: Lab, database: Settings, client: Any, admin: Renaming
) -> None:
    job = running(lab, database, "first")
    exporter(job, client).export(job.id)
    name = f"second-{uuid.uuid4()}"
    admin.rename(stored(job), name)
    admin.untag(stored(job))
    other = running(lab, database, "other")
    with lab.sessions.begin() as session:
        experiment = Experiment(name=name)
        session.add(experiment)
        session.flush()
        session.execute(update(Job).where(Job.id == other.id).values(experiment_id=experiment.id))
    end(other)
    export(other, client)
    assert stored(other) != stored(job)
    assert client.get_experiment(stored(other)).name == f"{name} ({experiment.id})"
    assert_exported(other, client)


def test_an_id_that_another_mlflow_gave_is_not_believed(lab: Lab, database: Settings, client: Any) -> None:
    """A database that was lost and made anew counts from 1 again."""
    job = running(lab, database, "one")
    strange = client.create_experiment(f"strange-{uuid.uuid4()}", tags={"barlow.experiment_id": str(uuid.uuid4())})
    for wrong in (strange, "2147483647"):
        with lab.sessions.begin() as session:
            session.execute(update(Experiment).values(mlflow_experiment_id=wrong))
        exporter(job, client).export(job.id)
        assert client.get_experiment(stored(job)).name == f"lab-{lab.engine.url.database}"


def test_a_rebuild_makes_one_of_an_experiment_that_was_doubled(
    lab: Lab, database: Settings, client: Any, mlflow: Mlflow, admin: Renaming, tmp_path: Path
) -> None:
    """As former versions left it: `earlier` in the renamed one, `long` in both, `later` in the second."""
    earlier = running(lab, database, "earlier")
    end(earlier)
    export(earlier, client)
    long = running(lab, database, "long")
    exporter(long, client).export(long.id)
    first, second, name = *doubled(long, client, admin), f"lab-{lab.engine.url.database}"
    client.create_run(second, tags={"barlow.job_id": str(long.id)})
    end(long)
    later = running(lab, database, "later")
    end(later)
    for job in (long, later):
        export(job, client)
    assert (len(runs(long, client)), homes(earlier, client), homes(later, client)) == (2, [first], [second])
    assert any("MLflow has 2" in fault for fault in differences(database, mlflow, name))
    for job in (earlier, long, later):
        rebuild(job, client)
    for job in (earlier, long, later):
        assert_exported(job, client)
        assert homes(job, client) == [first] == [stored(job)]
        assert in_mlflow(job, client) == in_postgres(job)
    assert not any("MLflow has" in fault for fault in differences(database, mlflow, name))


def test_a_run_stays_in_its_experiment_until_it_is_rebuilt(
    lab: Lab, database: Settings, client: Any, admin: Renaming
) -> None:
    """Of two that are ours: `old` was begun in the renamed one, `new` in the second, `other` has the first chosen."""
    other = running(lab, database, "other")
    end(other)
    export(other, client)
    old = running(lab, database, "old")
    exporter(old, client).export(old.id)
    first, second = doubled(old, client, admin)
    new = running(lab, database, "new")
    goes_on = exporter(new, client)
    goes_on.export(new.id)
    begun = {job.id: job.row().mlflow_run_id for job in (old, new)}
    assert (homes(old, client), homes(new, client)) == ([first], [second])
    exporter(old, client).export(old.id)  # the second one is stored
    assert homes(old, client) == [first]
    rebuild(other, client)
    assert stored(other) == first
    for job in (old, new):
        job.steps(6, 7)
        job.checkpoint(7)
        record(job)
        exporter(job, client).export(job.id)  # by a worker that was started anew
    goes_on.export(new.id)  # and by the other one
    for job, home in ((old, first), (new, second)):
        job.steps(8, 9)
        job.succeed()
        record(job)
        export(job, client)
        assert_exported(job, client)
        assert (homes(job, client), job.row().mlflow_run_id) == ([home], begun[job.id])
    with lab.sessions() as session:
        assert recording.homes(session, [old.id, new.id]) == {old.id: first, new.id: second}
    rebuild(new, client)
    assert_exported(new, client)
    assert homes(new, client) == [first]


def test_a_run_whose_making_was_never_answered_is_taken_over_where_it_is(
    lab: Lab, database: Settings, client: Any, mlflow: Mlflow, admin: Renaming
) -> None:
    job = running(lab, database, "unanswered")
    with unreliable(mlflow.url) as (url, behind):
        behind.choose = lambda method, path: "lost answer" if path.endswith("runs/create") else None
        with pytest.raises(MlflowException):
            exporter(job, make_client(url, mlflow.token)).export(job.id)
    assert job.row().mlflow_run_id is None
    made = runs(job, client)
    first, second = doubled(job, client, admin)
    end(job)
    export(job, client)
    assert_exported(job, client)
    assert (runs(job, client), homes(job, client), stored(job)) == (made, [first], second)


def rebuild(job: RecordedJob, client: Any) -> None:
    with job.lab.sessions.begin() as session:
        request_rebuild(session, job.id, actor="test")
    export(job, client)


def differences(database: Settings, mlflow: Mlflow, name: str) -> list[str]:
    return compare(database.database_url.get_secret_value(), mlflow.url, name, token=mlflow.token).faults
