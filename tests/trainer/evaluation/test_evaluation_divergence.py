"""A training that has diverged ends with the remedy, and leaves no checkpoint of it."""

import contextlib
import copy
import math

import labelled_runs
import pytest
import runs
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.evaluation.classifier import Classification
from trainer.evaluation.descent import Descent, Group
from trainer.failures import BadSpec, Diverged


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """36 labelled images in three classes, and 15 to test."""
    return labelled_runs.tree(tmp_path_factory.mktemp("colours"))


@pytest.mark.parametrize(
    ("kind", "rate", "said"),
    [
        ("linear", "learning_rate", "after step 1 the parameters are not finite; lower learning_rate$"),
        (
            "semi_supervised",
            "backbone_learning_rate",
            "after step 1 the parameters are not finite; lower learning_rate or backbone_learning_rate$",
        ),
    ],
)
@pytest.mark.parametrize("often", ["metrics_every_steps", "every_steps", "neither"])
def test_a_rate_that_is_too_high_ends_the_run_without_a_checkpoint_of_it(colours, tmp_path, kind, rate, said, often):
    run = {"record": {"metrics_every_steps": 100}, "checkpoint": {"every_epochs": 100}}
    if often == "metrics_every_steps":
        run["record"] = {often: 1}
    elif often == "every_steps":
        run["checkpoint"] = {often: 1}
    # The gradient of a classifier is bounded, and stays so where the parameters no longer are numbers.
    said = said.replace("after step 1", "after step [0-9]+" if often == "neither" else "after step 1")
    said = f"{said}|the gradient of step 2 is not finite; .* lower learning_rate" if often == "neither" else said
    with pytest.raises(Diverged, match=said):
        labelled_runs.run(tmp_path, colours, kind, precision="fp32", run=run, **{rate: 1e300})
    assert runs.events(tmp_path, kind="checkpoint") == []


def test_a_step_that_is_not_finite_leaves_everything_as_it_was():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    descent = Descent(
        model, [Group([*model.parameters()], 0.1, 0.01)], momentum=0.9, precision="fp64", device=torch.device("cpu")
    )
    for step, factor in enumerate([1.0, math.nan, 1.0], start=1):
        before = copy.deepcopy((model.state_dict(), descent.state_dict()))
        descent.begin()
        norm = descent.step(model(torch.arange(6.0, dtype=torch.float64).view(3, 2)).square().sum() * factor, step, 1.0)
        assert bool(norm.isfinite()) is (step != 2)
        now = (model.state_dict(), descent.state_dict())
        for state in (*before, *now):
            state.pop("1.num_batches_tracked", None)  # counted, not used
        assert runs.same(before, now) is (step != 1)
        if step == 1:
            descent.raise_if_diverged(1, {"loss": 2.0})
            with pytest.raises(Diverged, match=r"^loss of step 1 is inf; lower learning_rate$"):
                descent.raise_if_diverged(1, {"loss": math.inf})
        else:
            with pytest.raises(Diverged, match=r"the gradient of step 2 is not finite; .* To mend it, lower") as ended:
                descent.raise_if_diverged(step)
            assert ended.value.step == 2


def test_a_backbone_that_has_diverged_is_not_the_rates_fault(colours, tmp_path, monkeypatch):
    opened = Classification.__init__

    def spoilt(self, *positional, **named):
        opened(self, *positional, **named)
        next(self.model["backbone"].parameters()).data.fill_(math.nan)

    monkeypatch.setattr(Classification, "__init__", spoilt)
    with pytest.raises(BadSpec, match="the backbone's features are not finite: it has diverged"):
        labelled_runs.run(tmp_path, colours, "linear")


class _Readings(TorchDispatchMode):
    """Counts how often the host waits for a number of the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
def test_parameters_are_looked_at_with_one_reading_however_many_there_are(value):
    model = nn.ModuleList(nn.Linear(2, 2) for _ in range(5))
    descent = Descent(
        model, [Group([*model.parameters()], 0.1, 0.0)], momentum=0.9, precision="fp32", device=torch.device("cpu")
    )
    with torch.no_grad():
        model[3].bias[1] = value
    ends = pytest.raises(Diverged, match="after step 7") if not math.isfinite(value) else contextlib.nullcontext()
    with _Readings() as readings, ends:
        descent.raise_if_diverged(7)
    assert readings.count == 2, "of the gradients, and of the parameters"
