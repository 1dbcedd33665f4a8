"""A pretraining whose numbers leave the finite ones: what ends it, what is kept, and which steps fp16 may skip."""

import math

import pytest
import runs
import torch

from trainer.failures import Diverged
from trainer.pretraining import pretrain
from trainer.runtime import precision
from trainer.runtime.gradients import Gradients

STEPS = 20
"""Of a run of `runs.spec()`."""


def _kept_states(monkeypatch):
    """The TrainStates that pretraining builds."""
    from trainer.pretraining import running

    built = []

    class Kept(running.TrainState):
        def __init__(self, *args):
            super().__init__(*args)
            built.append(self)

    monkeypatch.setattr(running, "TrainState", Kept)
    return built


@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adamw"])
def test_a_diverging_run_ends_with_finite_parameters_and_without_a_checkpoint_of_it(optimizer, tmp_path, monkeypatch):
    # float32 overflows at a rate like this within a few steps.
    rates = {"learning_rate": 1e30, "warmup_epochs": 0, "reference_batch_size": None}
    if optimizer == "lars":
        rates["bias_learning_rate"] = 1e30
    spec = runs.spec(optimizer={"name": optimizer, **rates}, run={"checkpoint": {"every_steps": 1, "keep_last": 50}})
    states = _kept_states(monkeypatch)
    with pytest.raises(Diverged, match=r"Lower optimizer\.learning_rate") as caught:
        pretrain(spec, runs.context(tmp_path))
    bad = caught.value.step
    assert 1 < bad <= STEPS
    state = states[0].state_dict()
    tensors = [*state["model"].values(), *(t for s in state["optimizer"]["state"].values() for t in s.values())]
    assert all(torch.isfinite(t).all() for t in tensors if t.is_floating_point())
    written = runs.events(tmp_path, kind="checkpoint")
    assert [e.step for e in written] == list(range(1, bad))
    before = runs.checkpoint(tmp_path, 1, bad - 1)
    moved = {k: v for k, v in state["model"].items() if "num_batches_tracked" not in k}
    assert all(torch.equal(v, before["model"][k]) for k, v in moved.items())
    assert runs.same(state["optimizer"]["state"], before["optimizer"]["state"])


def test_divergence_is_seen_one_interval_late_but_before_any_checkpoint(tmp_path):
    rates = {"name": "sgd", "learning_rate": 1e30, "warmup_epochs": 0, "reference_batch_size": None}
    run = {"checkpoint": {"every_epochs": 2}, "record": {"metrics_every_steps": 4, "correlation_every_epochs": 10}}
    context = runs.context(tmp_path)
    with pytest.raises(Diverged) as caught:
        pretrain(runs.spec(optimizer=rates, run=run), context)
    assert 1 < caught.value.step <= 4
    assert context.step == 8, "the flag of step 4 is read at step 8, not at the next checkpoint"
    assert runs.events(tmp_path, kind="checkpoint") == []
    points = [e for e in runs.events(tmp_path, kind="metrics") if "learning_rate" in e.data["values"]]
    assert [e.step for e in points] == [4]
    assert "loss" in points[-1].data["non_finite"]


def test_a_run_that_ends_on_a_step_that_fp16_skipped_is_done(tmp_path, monkeypatch):
    """Its gradient has no norm, in the result and in the checkpoint that a resume takes."""
    monkeypatch.setattr(precision, "FIRST_SCALE", 1.0)
    reduced, norms = Gradients.reduce, iter([1.0, 1.0, math.inf])
    monkeypatch.setattr(Gradients, "reduce", lambda self, scale: reduced(self, scale) * next(norms))
    spec = runs.spec(precision="fp16", epochs=1, max_steps=3)
    first = pretrain(spec, runs.context(tmp_path))
    again = pretrain(spec, runs.context(tmp_path, 2))
    assert (first.outcome, again.outcome) == ("ok", "ok")
    for end in (first, again):
        assert end.result is not None
        assert "loss" in end.result["metrics"]
        assert "grad_norm" not in end.result["metrics"]
        assert end.result["skipped_steps"] == end.result["metrics"]["skipped_steps"] == 1
    assert any("1 of 3 steps moved nothing" in e.data["message"] for e in runs.events(tmp_path, 1, "warning"))
    assert runs.resume_step(tmp_path, 2) == 3


def test_a_run_that_moved_nothing_has_diverged(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "FIRST_SCALE", 2.0**120)
    with pytest.raises(Diverged, match=r"3 of 3 steps moved nothing: .* Use bf16 or fp32"):
        pretrain(runs.spec(precision="fp16", epochs=1, max_steps=3), runs.context(tmp_path))
