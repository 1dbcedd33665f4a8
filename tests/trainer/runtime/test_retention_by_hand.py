"""By hand the trainer deletes by the policy, journal line first; under a worker it deletes nothing."""

import os
import signal
from pathlib import Path

import pytest
import runs
import torch

from barlow_lab.specs import PretrainSpec
from barlow_lab.specs.common import CheckpointSpec
from trainer.pretraining import pretrain
from trainer.runtime import checkpoints, retention
from trainer.runtime.context import Context
from trainer.runtime.retention import Retention
from trainer.training.step_plan import StepPlan


def _spec(**policy) -> PretrainSpec:
    """5 steps an epoch, 4 epochs."""
    record = {"metrics_every_steps": 1, "correlation_every_epochs": 1}
    return runs.spec(run={"checkpoint": policy, "record": record})


def _by_hand(run: Path, attempt: int = 1) -> Context:
    context = runs.context(run, attempt)
    context.retention = Retention(run)
    context.retention.finish()
    return context


def _there(run: Path) -> list[str]:
    """Everything in the folders of checkpoints."""
    return sorted(f"{at.parent.parent.name}/{at.name}" for at in run.glob("attempts/*/checkpoints/*"))


def _names(attempt: int, *steps: int) -> list[str]:
    return [f"{attempt:04d}/step-{step:08d}" for step in steps]


def _write(context: Context, step: int, resume_step: int | None = None, milestone: bool = False, **policy) -> None:
    assert context.journal is not None
    if resume_step is not None:
        context.journal.append("started", step=resume_step, resume_step=resume_step)
    checkpoints.write_checkpoint(
        context,
        {"weights": torch.zeros(3)},
        step=step,
        epoch=1,
        spec={},
        spec_digest="d" * 64,
        policy=CheckpointSpec(**policy),
        milestone=milestone,
        metrics={"loss": float(step)},
    )


def test_milestones_are_due_named_and_kept(tmp_path):
    spec = _spec(every_epochs=3, milestone_every_epochs=2, keep_last=1)
    assert [step for step in range(1, 21) if StepPlan(20, 5, spec).checkpoint_due(step)] == [10, 15, 20]
    assert pretrain(spec, _by_hand(tmp_path)).outcome == "ok"
    lines = [e for e in runs.events(tmp_path, kind="checkpoint") if e.data["checkpoint"] != "backbone"]
    assert [(e.step, e.data["checkpoint"]) for e in lines] == [(10, "milestone"), (15, "last"), (20, "milestone")]
    assert [name for e in lines for name in e.data["deleted"]] == ["checkpoints/step-00000015"]
    assert _there(tmp_path) == _names(1, 10, 20)


@pytest.mark.parametrize("best_by", ["loss", "effective_rank"])
def test_the_score_is_the_metric_as_last_known_and_the_best_is_kept(tmp_path, best_by):
    assert pretrain(_spec(best_by=best_by, every_steps=2, keep_last=1), _by_hand(tmp_path)).outcome == "ok"
    events = runs.events(tmp_path)
    known = {e.step: e.data["values"][best_by] for e in events if e.kind == "metrics" and best_by in e.data["values"]}
    lines = [e for e in events if e.kind == "checkpoint" and e.data["checkpoint"] != "backbone"]
    scores = {e.step: e.data["score"] for e in lines}
    assert scores == {step: known[max(at for at in known if at <= step)] for step in scores}
    best = (min if best_by == "loss" else max)(scores, key=lambda step: scores[step])
    assert _there(tmp_path) == _names(1, *sorted({best, 20}))


def test_a_resumed_run_scores_what_it_has_not_measured_itself(tmp_path, monkeypatch):
    spec = runs.spec(run={"checkpoint": {"every_steps": 3, "best_by": "effective_rank"}})
    first = _by_hand(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(first.stop, "requested", lambda step: step == 7)
        assert pretrain(spec, first).outcome == "stopped"
    assert pretrain(spec, _by_hand(tmp_path, 2)).outcome == "ok"
    measured = runs.events(tmp_path, 1, "checkpoint")[-1].data["score"]
    assert measured is not None
    assert runs.events(tmp_path, 2, "checkpoint")[0].data["score"] == measured


def test_the_earlier_attempts_count_too_and_what_was_passed_over_goes(tmp_path):
    first = _by_hand(tmp_path)
    _write(first, 1, resume_step=0, milestone=True, keep_last=2)
    for step in (2, 3, 4):
        _write(first, step, keep_last=2)
    assert _there(tmp_path) == _names(1, 1, 3, 4)
    second = _by_hand(tmp_path, 2)
    _write(second, 4, resume_step=3, keep_last=2)
    assert _there(tmp_path) == [*_names(1, 1, 3), *_names(2, 4)]
    assert runs.events(tmp_path, 2, "checkpoint")[0].data["deleted"] == ["../0001/checkpoints/step-00000004"]
    _write(second, 5, keep_last=2)
    assert _there(tmp_path) == [*_names(1, 1), *_names(2, 4, 5)]


def test_under_a_worker_nothing_is_deleted(tmp_path):
    context = runs.context(tmp_path)
    for step in range(1, 6):
        _write(context, step, keep_last=1)
    assert _there(tmp_path) == _names(1, 1, 2, 3, 4, 5)
    assert all(event.data["deleted"] == [] for event in runs.events(tmp_path, kind="checkpoint"))


@pytest.mark.parametrize("where", ["before the folder", "in the folder"])
def test_killed_in_a_deletion_it_is_finished_at_the_next_start(tmp_path, where):
    _write(_by_hand(tmp_path), 1, resume_step=0, keep_last=1)
    pid = os.fork()
    if pid == 0:
        context = runs.context(tmp_path, 2)
        context.retention = Retention(tmp_path)
        if where == "before the folder":
            retention.delete = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        else:
            retention.shutil.rmtree = lambda path, **_: path.exists() and os.kill(os.getpid(), signal.SIGKILL)
        _write(context, 2, resume_step=1, keep_last=1)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    left = _names(1, 1) if where == "before the folder" else ["0001/.step-00000001.deleted"]
    assert _there(tmp_path) == [*left, *_names(2, 2)]
    _by_hand(tmp_path, 3)
    assert _there(tmp_path) == _names(2, 2)


def test_half_written_files_go_at_the_next_start_despite_a_damaged_journal(tmp_path):
    first = _by_hand(tmp_path)
    _write(first, 1, resume_step=0)
    half = first.attempt_folder / "checkpoints/.step-00000002.tmp"
    half.mkdir()
    with (first.attempt_folder / "journal.jsonl").open("ab") as file:
        file.write(b"\0" * 64 + b"\n")
    (first.attempt_folder / "checkpoints/step-00000003.bad").mkdir()  # a user set it aside
    second = _by_hand(tmp_path, 2)
    assert _there(tmp_path) == [*_names(1, 1), "0001/step-00000003.bad"]
    _write(second, 2, resume_step=1, keep_last=1)
    assert _there(tmp_path) == ["0001/step-00000003.bad", *_names(2, 2)]
