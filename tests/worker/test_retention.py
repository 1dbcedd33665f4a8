"""Checkpoints of recorded jobs: kept by the policy, deleted row first, finished after a kill at any moment."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import later_kind
import pytest
from lab import Lab
from recorded_runs import RecordedRun, judge
from sqlalchemy import select
from worker_host import Host, small_pretraining

from service.database.tables import Checkpoint
from service.ledger.moves import lock_job
from service.ledger.states import AttemptOutcome
from service.settings import Settings
from worker import checkpoints, retention
from worker.retention import Janitor


@pytest.fixture
def lab(database: Settings) -> Iterator[Lab]:
    lab = Lab(database.model_copy(update={"node_name": "gpu-1", "disk_reserve_bytes": 0}))
    lab.node()
    yield lab
    lab.check()
    lab.engine.dispose()


def _names(attempt: int, *steps: int) -> list[str]:
    return [f"{attempt:04d}/step-{step:08d}" for step in steps]


def _janitor(lab: Lab) -> Janitor:
    return Janitor(lab.settings, lab.engine)


def test_last_best_and_milestones_stay_and_are_named_so(lab: Lab) -> None:
    run, janitor = RecordedRun(lab, keep_last=2, best_by="loss"), _janitor(lab)
    run.write(1, score=9.0)
    run.write(2, score=3.0)
    run.write(3, milestone=True, score=5.0)
    run.write(4, 5, 6)
    run.record()
    janitor.look()
    assert run.rows() == {(1, 2): "best", (1, 3): "milestone", (1, 5): "last", (1, 6): "last"}
    assert run.there() == _names(1, 2, 3, 5, 6)
    run.write(7, score=2.0)
    run.write(8, 9)
    run.record()
    janitor.look()
    assert run.rows() == {(1, 3): "milestone", (1, 7): "best", (1, 8): "last", (1, 9): "last"}
    assert run.there() == _names(1, 3, 7, 8, 9)
    run.write(10, 11)
    run.job.succeed()
    run.record()
    janitor.look()
    assert run.there() == _names(1, 3, 7, 10, 11), "a last look follows the end"
    assert (run.job.run / "backbone/model.safetensors").exists()


@pytest.mark.parametrize("how", ["look", "sweep"])
def test_killed_between_row_and_folder_it_is_finished_by_the_next(lab: Lab, how: str) -> None:
    run = RecordedRun(lab, keep_last=1)
    run.write(1, 2, 3)
    run.record()
    pid = os.fork()
    if pid == 0:
        lab.engine.dispose(close=False)
        retention.checkpoints.delete = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        _janitor(lab).look()
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert run.rows() == {(1, 3): "last"}
    assert run.there() == _names(1, 1, 2, 3), "the row goes first"
    getattr(_janitor(lab), how)()
    assert run.there() == _names(1, 3)


def test_killed_in_the_middle_of_a_folder_it_is_finished_by_the_next(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RecordedRun(lab, keep_last=1)
    run.write(1, 2)
    run.record()

    def half(path: Path, **_: Any) -> None:
        if path.exists():
            (path / "state.pt").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.shutil, "rmtree", half)
        with pytest.raises(KeyboardInterrupt):
            _janitor(lab).look()
    assert run.there() == ["0001/.step-00000001.deleted", *_names(1, 2)], "half of one is not taken for a checkpoint"
    _janitor(lab).look()
    assert run.there() == _names(1, 2)


def test_a_transaction_that_fails_deletes_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RecordedRun(lab, keep_last=1)
    run.write(1, 2)
    run.record()
    monkeypatch.setattr(checkpoints, "_on_disk", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _janitor(lab).look()
    assert run.rows() == {(1, 1): "last", (1, 2): "last"}
    assert run.there() == _names(1, 1, 2)


def test_an_attempt_that_has_written_none_may_fall_back_on_any_before_it(lab: Lab) -> None:
    run, janitor = RecordedRun(lab, keep_last=1), _janitor(lab)
    run.write(1, 2, 3)
    run.record()
    run.job.again()
    janitor.look()
    assert run.there() == _names(1, 1, 2, 3)
    run.job.started(resume_step=3)
    run.write(4)
    run.record()
    janitor.look()
    assert run.there() == _names(2, 4)


def test_what_a_successor_passed_over_goes_when_there_is_a_newer(lab: Lab) -> None:
    """The recorder has deleted the rows beyond the step that the second attempt went on from."""
    run, janitor = RecordedRun(lab, keep_last=2), _janitor(lab)
    run.write(1, 2, 3)
    run.record()
    run.again(resume_step=1)
    run.record()
    janitor.look()
    assert run.there() == _names(1, 1, 2, 3)
    run.write(2)
    run.record()
    janitor.look()
    assert run.rows() == {(1, 1): "last", (2, 2): "last"}
    assert run.there() == [*_names(1, 1), *_names(2, 2)]


def test_killed_before_its_line_a_checkpoint_stays_while_it_is_the_newest(lab: Lab) -> None:
    run, janitor = RecordedRun(lab, keep_last=1), _janitor(lab)
    run.write(1, 2)
    run.folder(3)
    half_written = run.place(4).with_name(".step-00000004.tmp")
    half_written.mkdir()
    run.record()
    janitor.look()
    assert run.there() == ["0001/.step-00000004.tmp", *_names(1, 2, 3)], "the attempt may be about to rename it"
    run.again(resume_step=3)
    run.record()
    janitor.look()
    assert run.there() == _names(1, 2, 3)
    run.write(4)
    run.record()
    janitor.look()
    assert run.there() == _names(2, 4)


def test_what_the_recorder_has_not_come_to_is_left_alone(lab: Lab) -> None:
    run, janitor = RecordedRun(lab, keep_last=1), _janitor(lab)
    run.write(1, 2)
    run.record()
    run.write(3, milestone=True)
    run.write(4)
    janitor.sweep()
    assert run.there() == _names(1, 2, 3, 4)
    run.record()
    janitor.sweep()
    assert run.there() == _names(1, 3, 4)


def test_of_an_ended_job_too(lab: Lab) -> None:
    run = RecordedRun(lab, keep_last=1)
    run.write(1)
    run.folder(2)
    run.folder(3)
    lab.end(run.job.attempt, AttemptOutcome.DIVERGED)
    run.record()
    _janitor(lab).sweep()
    assert run.there() == _names(1, 1, 3)


@pytest.mark.parametrize("kind", ["knn", "continued"])
def test_an_open_job_keeps_the_step_it_takes_and_no_other(lab: Lab, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    later_kind.add(monkeypatch)
    run, janitor = RecordedRun(lab, keep_last=1), _janitor(lab)
    judging = judge(lab, run.id, "step 2", kind)
    judge(lab, run.id, "last")
    run.write(1, 2, 3)
    run.record()
    janitor.look()
    assert run.there() == _names(1, 2, 3)
    lab.cancel(judging)
    janitor.sweep()
    assert run.there() == _names(1, 3)


def test_a_retry_keeps_all_of_the_job_it_goes_on_from(lab: Lab) -> None:
    run, janitor = RecordedRun(lab, keep_last=1), _janitor(lab)
    run.write(1, 2)
    lab.end(run.job.attempt, AttemptOutcome.DIVERGED)
    run.record()
    first = lab.retry(run.id)
    lab.cancel(first)
    second = lab.retry(first)
    janitor.look()
    assert run.there() == _names(1, 1, 2)
    lab.cancel(second)
    janitor.sweep()
    assert run.there() == _names(1, 2)


def test_any_number_of_workers_may_look(lab: Lab) -> None:
    runs = [RecordedRun(lab, f"job-{n}", keep_last=1) for n in range(2)]
    for run in runs:
        run.write(*range(1, 20))
        run.record()
    faults: list[BaseException] = []

    def look() -> None:
        try:
            _janitor(lab).sweep()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    for run in runs:
        assert run.there() == _names(1, 19)


def test_a_folder_of_nobody_s_job_is_left_alone(lab: Lab) -> None:
    run = RecordedRun(lab)
    stranger = lab.settings.runs_dir / str(UUID(int=7)) / "attempts/0001/checkpoints/.step-00000003.deleted"
    stranger.mkdir(parents=True)
    (lab.settings.runs_dir / "notes").mkdir()
    run.write(1)
    run.record()
    _janitor(lab).sweep()
    assert stranger.exists()


@pytest.mark.parametrize("how", ["look", "sweep"])
def test_what_a_user_set_aside_is_left_alone(lab: Lab, how: str) -> None:
    run = RecordedRun(lab, keep_last=1)
    run.write(1, 2, 3)
    run.record()
    run.place(1).rename(run.place(1).with_name("step-00000001.bad"))
    (run.job.run / "attempts/0002.bad/checkpoints/.step-00000001.tmp").mkdir(parents=True)
    getattr(_janitor(lab), how)()
    assert run.there() == ["0001/step-00000001.bad", *_names(1, 3), "0002.bad/.step-00000001.tmp"]


def test_a_job_that_cannot_be_looked_after_holds_up_no_other(lab: Lab) -> None:
    runs = [RecordedRun(lab, f"job-{n}", keep_last=1) for n in range(2)]
    for run in runs:
        run.write(1, 2)
        run.record()
    stuck = runs[0].place(1)
    stuck.with_name(f".{stuck.name}.deleted").touch()  # no folder: it cannot be renamed to this
    janitor = _janitor(lab)
    for look in (janitor.look, janitor.sweep):
        look()
        assert [run.place(1).exists() for run in runs] == [True, False]


def test_nothing_to_do_asks_nothing_of_a_job(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run, janitor = RecordedRun(lab), _janitor(lab)
    run.write(1)
    run.record()
    janitor.look()
    looked: list[UUID] = []
    monkeypatch.setattr(janitor, "_tidy", lambda job_id: bool(looked.append(job_id)) or True)
    janitor.look()
    assert looked == []
    run.write(2)
    run.record()
    janitor.look()
    assert looked == [run.id]


def test_a_job_that_ends_between_two_looks_is_looked_at(lab: Lab) -> None:
    janitor = _janitor(lab)
    janitor.look()
    run = RecordedRun(lab, keep_last=1)
    janitor.expect(run.id)
    run.write(1, 2)
    run.job.succeed()
    run.record()
    janitor.look()
    assert run.there() == _names(1, 2)


def test_a_job_that_is_held_at_its_only_look_is_looked_at_once_it_has_ended(lab: Lab) -> None:
    run, janitor = RecordedRun(lab, keep_last=1), _janitor(lab)
    run.write(1, 2)
    run.record()
    with lab.sessions.begin() as session:
        lock_job(session, run.id)
        janitor.look()
    assert run.there() == _names(1, 1, 2)
    run.job.succeed()
    run.record()
    janitor.look()
    assert run.there() == _names(1, 2)


def test_a_worker_at_work_keeps_to_the_policy_of_a_real_run(host: Host) -> None:
    checkpoint = {"every_steps": 1, "keep_last": 2, "best_by": "loss", "milestone_every_epochs": 1}
    run = {"checkpoint": checkpoint, "record": {"metrics_every_steps": 1}}
    job_id = host.post(small_pretraining(run=run))
    assert host.finish(job_id).state == "succeeded"
    losses = {step: value for (key, step), value in host.points(job_id).items() if key == "loss"}
    best = min(losses, key=lambda step: losses[step])
    folder = host.folder(job_id) / "checkpoints"
    wanted = {f"step-{step:08d}" for step in (7, 13, 14, best)}
    host.wait(lambda: {at.name for at in folder.iterdir()} == wanted, seconds=60)
    with host.sessions() as session:
        there = Checkpoint.job_id == job_id, Checkpoint.deleted_at.is_(None), Checkpoint.kind != "backbone"
        kinds = {row.step: (row.kind, row.score) for row in session.scalars(select(Checkpoint).where(*there))}
    said = {step: "milestone" if step in (7, 14) else "best" if step == best else "last" for step in (7, 13, 14, best)}
    assert kinds == {step: (kind, losses[step]) for step, kind in said.items()}
