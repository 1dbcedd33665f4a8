"""A job that goes on from an earlier step: what MLflow has of it stays, or is made again."""

import pytest
from journals import RecordedJob
from lab import Lab
from recorded import Meanwhile, assert_exported, both, export, exporter, images, in_mlflow, in_postgres, record, runs

from service.local.servers import Mlflow
from service.settings import Settings
from worker.recorder.mlflow_run import make_client


@pytest.mark.parametrize("resume_step", [0, 5])
def test_a_resume_below_what_mlflow_has_begins_a_new_run(
    lab: Lab, database: Settings, mlflow: Mlflow, resume_step: int
) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = RecordedJob(lab, database)
    goes_on = exporter(job, client)
    job.started()
    job.steps(1, 5)
    job.correlation(5)
    job.checkpoint(5)
    job.steps(6, 9)
    job.correlation(9)
    job.checkpoint(9)  # it will be found damaged
    record(job)
    goes_on.export(job.id)
    former = job.row().mlflow_run_id
    job.again()
    job.started(resume_step=resume_step)
    job.steps(resume_step + 1, 7, value=100.0)
    job.checkpoint(7)
    record(job)
    assert lab.kinds(job.id).count("mlflow_rebuild_requested") == 1
    goes_on.export(job.id)
    assert job.row().mlflow_run_id != former
    assert runs(job, client) == [job.row().mlflow_run_id]
    assert in_mlflow(job, client) == in_postgres(job)
    assert len(in_mlflow(job, client)["loss"]) == 7
    steps = {key for key, _ in images(job, client)}
    assert steps == ({"pictures~correlation+step+5"} if resume_step else set())
    job.succeed()
    record(job)
    export(job, client)
    assert_exported(job, client)


def test_a_resume_that_mlflow_knows_nothing_beyond_keeps_its_run(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = RecordedJob(lab, database)
    job.views()
    job.started()
    job.steps(1, 5)
    job.checkpoint(5)
    job.steps(6, 9)
    record(job)
    export(job, client)
    former = job.row().mlflow_run_id
    job.again()
    job.views()  # as every attempt shows them
    job.started(resume_step=5)
    job.steps(6, 7, value=100.0)
    job.checkpoint(7)
    record(job)
    export(job, client)
    assert job.row().mlflow_run_id == former
    assert "mlflow_rebuild_requested" not in lab.kinds(job.id)
    assert in_mlflow(job, client) == in_postgres(job)
    top = sorted(artifact.path for artifact in client.list_artifacts(former))
    assert top == ["spec.yaml", "views.png"], "the picture that a run has one of is no series"


def test_a_checkpoint_whose_line_comes_behind_later_steps_covers_its_own(
    lab: Lab, database: Settings, mlflow: Mlflow
) -> None:
    """The trainer goes on while it is written. Killed before the line of the next one, it was written all the same."""
    client = make_client(mlflow.url, mlflow.token)
    job = RecordedJob(lab, database)
    goes_on = exporter(job, client)
    job.started()
    job.steps(1, 7)
    job.correlation(7)
    record(job)
    job.checkpoint(5)
    record(job)
    assert lab.attempt(job.id).last_step == 7
    goes_on.export(job.id)
    assert [step for step, *_ in in_mlflow(job, client)["loss"]] == [1, 2, 3, 4, 5]
    assert images(job, client) == {}
    former = job.row().mlflow_run_id
    job.steps(8, 12)
    record(job)
    job.again()
    job.started(resume_step=10)
    job.steps(11, 13, value=100.0)
    job.checkpoint(11)
    record(job)
    goes_on.export(job.id)
    assert (job.points()["loss", 10], job.points()["loss", 11]) == ((10.0, 1), (111.0, 2))
    assert [step for step, *_ in in_mlflow(job, client)["loss"]] == list(range(1, 12))
    assert images(job, client) == both("correlation", 7)
    assert job.row().mlflow_run_id == former
    assert "mlflow_rebuild_requested" not in lab.kinds(job.id)
    job.succeed()
    record(job)
    export(job, client)
    assert_exported(job, client)


def test_a_point_that_is_recorded_again_replaces_the_one_in_mlflow(
    lab: Lab, database: Settings, mlflow: Mlflow
) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = RecordedJob(lab, database)
    job.started()
    job.steps(1, 5)
    job.checkpoint(5)
    record(job)
    export(job, client)
    job.again()
    job.started(resume_step=5)
    job.journal.metrics(5, 1, {"loss": 100.0})
    record(job)
    export(job, client)
    assert len(in_mlflow(job, client)["loss"]) == 5
    assert in_mlflow(job, client) == in_postgres(job)


def test_what_is_undone_while_it_is_being_sent_does_not_stay(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = RecordedJob(lab, database)
    job.started()
    job.steps(1, 9)
    job.checkpoint(9)
    record(job)

    def successor() -> None:
        job.again()
        job.started(resume_step=3)
        job.steps(4, 5, value=100.0)
        job.checkpoint(5)
        record(job)

    exporter(job, Meanwhile(client, successor)).export(job.id)
    export(job, client)
    assert len(in_mlflow(job, client)["loss"]) == 5
    assert in_mlflow(job, client) == in_postgres(job)
    assert runs(job, client) == [job.row().mlflow_run_id]
