"""An evaluation that trains, stopped or killed anywhere and resumed, is the undisturbed one to the last bit."""

import json

import labelled_runs
import pytest
import runs
from labelled_runs import EPOCHS, KINDS, STEPS_PER_EPOCH, Killed, StopAfter

from barlow_lab.journal import Journal
from trainer.data.errors import DataError
from trainer.evaluation import run_evaluation
from trainer.evaluation.classifier import Classification
from trainer.evaluation.fitting import Scores
from trainer.failures import BadSpec
from trainer.training.loop import _Loop

STEPS = EPOCHS * STEPS_PER_EPOCH
UNITS = 1 + (STEPS - 1) + EPOCHS
"""Moments at which a run can be stopped: before the first step, between steps, between the two batches of a test."""


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Of the training images one cannot be read, and one of the test's."""
    return labelled_runs.tree(tmp_path_factory.mktemp("colours"), train_unreadable=(4,), test_unreadable=(2,))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, colours):
    """Kind → (run folder, result) of the undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    return {kind: (folder / kind, labelled_runs.run(folder / kind, colours, kind)) for kind in KINDS}


def assert_whole(folder, attempt, result, undisturbed):
    """What the attempts up to this one have left is what the undisturbed run has."""
    right_folder, right = undisturbed
    assert json.dumps(result) == json.dumps(right)
    assert runs.series(folder) == runs.series(right_folder)
    newest = max(folder.glob(f"attempts/*/checkpoints/step-{STEPS:08d}"))
    ours, theirs = runs.checkpoint(folder, int(newest.parts[-3]), STEPS), runs.checkpoint(right_folder, 1, STEPS)
    for part in ("fit", "descent", "metrics", "data"):
        ours_part, theirs_part = ours[part], theirs[part]
        if part == "fit":  # the newest checkpoint may have been written in the middle of the last test
            ours_part, theirs_part = ({**state, "tested": None} for state in (ours_part, theirs_part))
        assert runs.same(ours_part, theirs_part), part
    told = [e.data["message"] for n in range(1, attempt + 1) for e in runs.events(folder, n, "warning")]
    assert len(told) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stopped_anywhere_goes_on_to_the_same_end(whole, colours, tmp_path, kind):
    counted = labelled_runs.context(tmp_path / "counted", colours)
    counted.stop = StopAfter(10**9)
    units = []
    counted.stop.requested = lambda step: bool(units.append(step))
    assert run_evaluation(labelled_runs.spec(kind), counted) is not None
    assert units == list(range(1, UNITS + 1))
    # One after the other: each attempt is stopped after a few units more than it needs to go on.
    for stride in (1, 2, 3) if kind == "linear" else (2,):
        folder, attempt, result = tmp_path / str(stride), 0, None
        while result is None:
            attempt += 1
            context = labelled_runs.context(folder, colours, attempt)
            context.stop = StopAfter(1 + stride)
            result = run_evaluation(labelled_runs.spec(kind), context)
            assert attempt < 3 * UNITS
        assert attempt > UNITS / (1 + stride) - 2
        assert_whole(folder, attempt, result, whole[kind])


@pytest.mark.parametrize("after", range(1, UNITS + 1))
def test_a_stop_after_any_unit_costs_nothing(whole, colours, tmp_path, after):
    kind = KINDS[after % 2]
    context = labelled_runs.context(tmp_path, colours)
    context.stop = StopAfter(after)
    stopped = run_evaluation(labelled_runs.spec(kind), context)
    assert stopped is None
    done = context.step
    result = labelled_runs.run(tmp_path, colours, kind, attempt=2)
    assert runs.resume_step(tmp_path, 2) == done
    assert_whole(tmp_path, 2, result, whole[kind])


def test_a_stop_before_the_first_step_leaves_no_checkpoint_and_starts_over(whole, colours, tmp_path):
    context = labelled_runs.context(tmp_path, colours)
    (context.attempt_folder / "control.json").write_text(json.dumps({"stop": "drain"}))
    assert run_evaluation(labelled_runs.spec("linear"), context) is None
    assert (context.stop.reason, context.step) == ("drain", 0)
    assert not (context.attempt_folder / "checkpoints").exists()
    result = labelled_runs.run(tmp_path, colours, "linear", attempt=2)
    assert runs.resume_step(tmp_path, 2) == 0
    assert_whole(tmp_path, 2, result, whole["linear"])


def killed(monkeypatch, folder, data, kind, attempt, where, name, number):
    """An attempt that ends without a word when the method `name` of `where` is called for the number-th time."""
    calls, whole_method = [], getattr(where, name)

    def dying(self, *positional, **named):
        calls.append(name)
        if len(calls) == number:
            raise Killed
        return whole_method(self, *positional, **named)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, dying)
        with pytest.raises(Killed):
            labelled_runs.run(folder, data, kind, attempt=attempt)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1, 3, 4, 5, 8, 12])
def test_a_run_killed_at_a_step_goes_on_from_the_checkpoint_before(whole, colours, tmp_path, monkeypatch, kind, step):
    killed(monkeypatch, tmp_path, colours, kind, 1, Classification, "update", step)
    result = labelled_runs.run(tmp_path, colours, kind, attempt=2)
    saved = {0, 3, 4, 6, 8, 9, 12}
    assert runs.resume_step(tmp_path, 2) == max(one for one in saved if one < step)
    assert_whole(tmp_path, 2, result, whole[kind])


@pytest.mark.parametrize(
    ("where", "name", "number", "resumed"),
    [
        (Classification, "test", 2, 6),  # in the second test: nothing of it was told
        (_Loop, "_save", 4, 6),  # between the second test, which was told, and its checkpoint
        (_Loop, "_save", 6, 9),  # and the last one
    ],
)
def test_a_run_killed_about_a_test_tells_it_once(whole, colours, tmp_path, monkeypatch, where, name, number, resumed):
    killed(monkeypatch, tmp_path, colours, "linear", 1, where, name, number)
    result = labelled_runs.run(tmp_path, colours, "linear", attempt=2)
    assert runs.resume_step(tmp_path, 2) == resumed
    assert_whole(tmp_path, 2, result, whole["linear"])


@pytest.mark.parametrize("test", [1, 3])
def test_an_interrupted_test_that_a_killed_attempt_has_told_is_told_once(whole, colours, tmp_path, monkeypatch, test):
    step = test * STEPS_PER_EPOCH
    first = labelled_runs.context(tmp_path, colours)
    first.stop = StopAfter(step + test)  # between the batches of that test
    assert run_evaluation(labelled_runs.spec("linear"), first) is None
    assert [e.step for e in runs.events(tmp_path, kind="checkpoint")][-1] == step
    assert ("linear_top1", step) not in runs.series(tmp_path)
    # It tells the test with its first line, and is gone before it has a checkpoint.
    journalled = Journal.metrics

    def last_words(self, *told):
        journalled(self, *told)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "metrics", last_words)
        with pytest.raises(Killed):
            labelled_runs.run(tmp_path, colours, "linear", attempt=2)
    assert runs.resume_step(tmp_path, 2) == step
    assert ("linear_top1", step) in runs.series(tmp_path)
    # Nor does one that is gone at once take it back.
    killed(monkeypatch, tmp_path, colours, "linear", 3, Classification, "test", 1)
    result = labelled_runs.run(tmp_path, colours, "linear", attempt=4)
    assert [runs.resume_step(tmp_path, attempt) for attempt in (2, 3, 4)] == [step] * 3
    assert_whole(tmp_path, 4, result, whole["linear"])


def test_what_a_killed_attempt_told_beyond_its_successors_start_is_told_again(whole, colours, tmp_path, monkeypatch):
    killed(monkeypatch, tmp_path, colours, "linear", 1, _Loop, "_save", 4)  # it told the test of step 8
    second = labelled_runs.context(tmp_path, colours, attempt=2)
    second.stop = StopAfter(3)  # before step 7, before step 8, between the batches of that test
    assert run_evaluation(labelled_runs.spec("linear"), second) is None
    result = labelled_runs.run(tmp_path, colours, "linear", attempt=3)
    assert [runs.resume_step(tmp_path, attempt) for attempt in (1, 2, 3)] == [0, 6, 8]
    assert_whole(tmp_path, 3, result, whole["linear"])


def test_a_run_that_is_at_its_end_only_says_its_result_again(whole, colours, tmp_path, monkeypatch):
    killed(monkeypatch, tmp_path, colours, "linear", 1, Classification, "result", 1)
    result = labelled_runs.run(tmp_path, colours, "linear", attempt=2)
    assert runs.resume_step(tmp_path, 2) == STEPS
    assert runs.events(tmp_path, 2, "metrics") == []
    assert_whole(tmp_path, 2, result, whole["linear"])


def test_a_checkpoint_of_other_data_or_another_backbone_is_refused(colours, tmp_path):
    for name in ("data", "backbone"):
        context = labelled_runs.context(tmp_path / name, colours)
        context.stop = StopAfter(6)
        assert run_evaluation(labelled_runs.spec("linear"), context) is None
    for attempt, split in enumerate(("train", "test"), start=2):
        other = labelled_runs.tree(tmp_path / split, **{f"{split}_unreadable": (1, 2)})
        with pytest.raises(
            DataError, match=r"not those that this run began with: names or sizes .* Put back what it was"
        ):
            labelled_runs.run(tmp_path / "data", other, "linear", attempt=attempt)
    context = labelled_runs.context(tmp_path / "backbone", colours, attempt=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.evaluation.backbone._digest", lambda module: "0" * 64)
        with pytest.raises(BadSpec, match="the backbone is not the one that this job began with"):
            run_evaluation(labelled_runs.spec("linear"), context)


def test_best_is_the_earliest_of_the_highest_and_last_the_last():
    scores = Scores("top1")
    for step, top1, top5 in ((4, 50.0, 90.0), (8, 60.0, 80.0), (12, 60.0, 99.0), (16, 55.0, 70.0)):
        scores.take(step, {"top1": top1, "top5": top5})
    again = Scores("top1")
    again.load_state_dict(scores.state_dict())
    assert again == scores
    assert scores.result() == {
        "headline": "top1",
        "scores": {"top1": {"last": 55.0, "best": 60.0}, "top5": {"last": 70.0, "best": 80.0}},
        "best_step": 8,
        "steps": 16,
    }


def test_progress_tells_steps_speed_and_time_to_go(colours, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.runtime.context.PROGRESS_SECONDS", 0.0)
    labelled_runs.run(tmp_path, colours, "linear")
    progress = [e for e in runs.events(tmp_path, kind="progress") if e.data["phase"] == "training"]
    first, *progress = progress
    assert (first.step, "eta_seconds" in first.data) == (0, False), "there is no speed yet"
    assert [e.step for e in progress] == list(range(1, STEPS + 1))
    assert {(e.data["steps"], e.data["epochs"]) for e in progress} == {(STEPS, EPOCHS)}
    assert [e.epoch for e in progress] == [1 + (step - 1) // STEPS_PER_EPOCH for step in range(1, STEPS + 1)]
    assert all(e.data["images_per_second"] > 0 for e in progress)
    assert progress[-1].data["eta_seconds"] == 0 < progress[0].data["eta_seconds"]
    testing = [e for e in runs.events(tmp_path, kind="progress") if e.data["phase"] == "testing"]
    assert {e.step for e in testing} == {4, 8, 12}  # where the training is
