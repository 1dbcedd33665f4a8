"""Journals → Postgres: every line once, whatever is killed, and the line of the attempt that counts."""

import os
import signal
import threading

import pytest
from journals import RecordedJob
from lab import Lab
from sqlalchemy import event, select

from service.database.tables import Checkpoint, Correlation
from service.recording import POSTGRES
from service.settings import Settings
from worker.recorder import postgres
from worker.recorder.postgres import PostgresRecorder


def _recorder(lab: Lab, job: RecordedJob) -> PostgresRecorder:
    return PostgresRecorder(lab.sessions, job.run.parent)


def test_a_successor_replaces_what_lies_beyond_the_step_it_resumes_from(lab: Lab, database: Settings) -> None:
    job = RecordedJob(lab, database)
    recorder = _recorder(lab, job)
    job.started()
    job.steps(1, 5)
    job.correlation(5)
    job.checkpoint(5)
    job.steps(6, 9)
    job.correlation(9)
    recorder.flush(job.id)
    assert len(job.points()) == 18, "a dead attempt's points stand until its successor starts"
    job.again()
    job.started(resume_step=5)
    recorder.flush(job.id)
    assert {step for _, step in job.points()} == {1, 2, 3, 4, 5}
    job.steps(6, 7, value=100.0)
    recorder.flush(job.id)
    assert job.points() == {
        (key, step): ((100.0 if step > 5 else 0.0) + sign * step, 2 if step > 5 else 1)
        for key, sign in (("loss", 1), ("on_diagonal", -1))
        for step in range(1, 8)
    }
    with lab.sessions() as session:
        assert session.scalars(select(Correlation.step).where(Correlation.job_id == job.id)).all() == [5]
    assert lab.kinds(job.id).count("attempt_resumed") == 1


def test_a_first_attempt_that_died_before_any_checkpoint_leaves_nothing(lab: Lab, database: Settings) -> None:
    job = RecordedJob(lab, database)
    job.started()
    job.steps(1, 9)
    job.again()
    job.again()  # the second died before it began
    job.started()
    job.steps(1, 2, value=50.0)
    _recorder(lab, job).flush(job.id)
    assert job.points().keys() == {(key, step) for key in ("loss", "on_diagonal") for step in (1, 2)}
    assert {attempt for _, attempt in job.points().values()} == {3}


def test_progress_warnings_and_deleted_checkpoints(lab: Lab, database: Settings) -> None:
    job = RecordedJob(lab, database)
    job.started()
    job.journal.append("progress", step=3, epoch=1, phase="train", steps=20, fraction=0.15)
    job.journal.append("warning", step=3, message="one picture is broken")
    job.checkpoint(3)
    job.checkpoint(6, deleted=["checkpoints/step-00000003"])
    job.journal.append("checkpoint", step=6, epoch=1, checkpoint="backbone", path="backbone")
    _recorder(lab, job).flush(job.id)
    progress = job.row().progress
    assert progress is not None
    assert (progress["step"], progress["steps"], progress["fraction"]) == (3, 20, 0.15)
    warning = next(event for event in lab.events(job.id) if event.kind == "warning")
    assert warning.payload["message"] == "one picture is broken"
    assert lab.attempt(job.id).last_step == 6
    assert lab.attempt(job.id).last_progress_at is not None
    with lab.sessions() as session:
        rows = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step)).all()
        assert [(row.step, row.kind, row.deleted_at is None) for row in rows] == [(3, "last", False), (6, "last", True)]


def test_words_that_postgres_does_not_take_hold_up_nothing(lab: Lab, database: Settings) -> None:
    job = RecordedJob(lab, database)
    job.started()
    job.journal.append("warning", step=0, message="caf\udce9.png", **{"nul\0": ["\0"]})
    job.steps(1, 2)
    _recorder(lab, job).flush(job.id)
    assert len(job.points()) == 4
    warning = next(event for event in lab.events(job.id) if event.kind == "warning")
    assert warning.payload == {"message": r"caf\udce9.png", r"nul\x00": [r"\x00"]}


def test_complete_only_when_the_job_has_ended_and_all_is_read(lab: Lab, database: Settings) -> None:
    job = RecordedJob(lab, database)
    recorder = _recorder(lab, job)
    job.started()
    recorder.flush(job.id)
    assert recorder.pending() == [job.id]
    job.steps(1, 2)
    job.succeed()
    assert not job.watermark(POSTGRES).complete
    recorder.flush(job.id)
    assert job.watermark(POSTGRES).complete
    assert len(job.points()) == 4
    assert recorder.pending() == []


def test_an_attempt_that_a_user_set_aside_is_none(lab: Lab, database: Settings) -> None:
    job = RecordedJob(lab, database)
    job.started()
    job.steps(1, 2)
    aside = job.run / "attempts/0002.bad"
    aside.mkdir()
    (aside / "journal.jsonl").write_bytes((job.folder / "journal.jsonl").read_bytes())
    _recorder(lab, job).flush(job.id)
    job.succeed()
    _recorder(lab, job).flush(job.id)
    assert job.watermark(POSTGRES).complete
    assert {attempt for _, attempt in job.points().values()} == {1}


def test_a_torn_line_waits_and_a_damaged_one_is_left_out(lab: Lab, database: Settings) -> None:
    job = RecordedJob(lab, database)
    recorder = _recorder(lab, job)
    job.started()
    job.steps(1, 1)
    journal = job.folder / "journal.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"seq": 3, "at": 1.0, "kind": "metrics", "step": 2, "epoch": 1, "values": {"lo')
    recorder.flush(job.id)
    assert {step for _, step in job.points()} == {1}
    with journal.open("ab") as file:
        file.write(b'ss": 2.0}}\n')
        begins = file.tell()
        file.write(b"\0" * 64 + b"\n")
    job.steps(3, 4)
    recorder.flush(job.id)
    assert {step for _, step in job.points()} == {1, 2, 3, 4}
    (warning,) = (event for event in lab.events(job.id) if event.kind == "warning")
    assert (warning.payload["file"], warning.payload["byte"]) == ("attempts/0001/journal.jsonl", begins)
    job.again()
    job.started(resume_step=1)
    job.steps(2, 2, value=7.0)
    recorder.flush(job.id)
    assert job.points()[("loss", 2)] == (9.0, 2)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b'{"seq": 1}',
        b'{"seq": 1, "at": "noon", "kind": "metrics", "step": 1, "epoch": 1, "values": {}}',
        b'{"seq": 1, "at": 1.0, "kind": "metrics", "step": 9, "epoch": 1, "valuez": {"loss": 1.0}}',
        b'{"seq": 1, "at": 1.0, "kind": "metrics", "step": 9, "epoch": 1, "values": {"loss": "1.0x"}}',
        b'{"seq": 1, "at": 1.0, "kind": "metrics", "step": 9, "epoch": 1, "values": {"loss": null}}',
        b'{"seq": 1, "at": 1.0, "kind": "metrics", "step": 99999999999999999999, "epoch": 1, "values": {"loss": 1}}',
        b'{"seq": 1, "at": 1.0, "kind": "checkpoint", "step": 2, "epoch": 1, "checkpoint": "last"}',
        b'{"seq": 1, "at": 1.0, "kind": "metrics\xff", "step": 9, "epoch": 1, "values": {}}',
    ],
)
def test_no_damaged_line_keeps_the_others_from_counting(lab: Lab, database: Settings, line: bytes) -> None:
    job = RecordedJob(lab, database)
    job.started()
    job.steps(1, 3)
    begins = (job.folder / "journal.jsonl").stat().st_size
    with (job.folder / "journal.jsonl").open("ab") as file:
        file.write(line + b"\n")
    job.steps(4, 6)
    job.journal.append("warning", step=6, message="counted by its event")
    recorder = _recorder(lab, job)
    recorder.flush(job.id)
    recorder.flush(job.id)
    assert {step for _, step in job.points()} == set(range(1, 7))
    warnings = [event.payload for event in lab.events(job.id) if event.kind == "warning"]
    assert [warning.get("byte") for warning in warnings] == [begins, None]


def test_two_recorders_at_once_record_every_line_once(
    lab: Lab, database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "BATCH", 7)
    job = RecordedJob(lab, database)
    job.started()
    job.steps(1, 150)
    for _ in range(20):
        job.journal.append("warning", step=150, message="counted by its event")
    threads = [threading.Thread(target=_recorder(lab, job).flush, args=(job.id,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(job.points()) == 300
    assert lab.kinds(job.id).count("warning") == 20


def test_a_recorder_that_is_killed_before_its_commit_has_recorded_nothing(lab: Lab, database: Settings) -> None:
    job = RecordedJob(lab, database)
    job.started()
    job.journal.append("warning", step=0, message="counted by its event")
    job.steps(1, 3)
    pid = os.fork()
    if pid == 0:
        lab.engine.dispose(close=False)
        event.listen(lab.engine, "commit", lambda _: os.kill(os.getpid(), signal.SIGKILL))
        _recorder(lab, job).flush(job.id)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert job.points() == {}
    _recorder(lab, job).flush(job.id)
    assert lab.kinds(job.id).count("warning") == 1
    assert len(job.points()) == 6
