"""Probes of a pretraining: what they see, that they change nothing, and how they end. On ranks: test_feature_ranks."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from torch import Tensor, nn

from barlow_lab.specs import PretrainSpec, digest, parse_spec
from trainer.data.errors import DataError, NothingReadable
from trainer.data.registry import open_images
from trainer.diagnostics import probes
from trainer.evaluation import run_evaluation
from trainer.failures import BadSpec, Diverged
from trainer.pretraining import pretrain
from trainer.runtime import compiling
from trainer.runtime.context import Context
from trainer.runtime.units import Stopped, UnitsWithinStep
from trainer.runtime.untouched import untouched
from trainer.training import metric_series
from trainer.training.metric_series import MetricSeries

NAMES = ("knn_top1", "probe_top1")


def probed(asked: dict[str, Any] | None = None, **changes: Any) -> PretrainSpec:
    """4 epochs of 5 steps, with a probe after the second and the fourth; `asked` None: without."""
    small = {"every_epochs": 2, "limit": 70, "k": 5, "epochs": 2}
    record = {
        "metrics_every_steps": 1,
        "correlation_every_epochs": 10,
        "probes": None if asked is None else small | asked,
    }
    return runs.spec(run={"checkpoint": {"every_steps": 3}, "record": record}, **changes)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("plain")
    assert pretrain(probed(), runs.context(folder)).outcome == "ok"
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("probed")
    assert pretrain(probed({}), runs.context(folder)).outcome == "ok"
    return folder


def points(folder: Path) -> dict[tuple[str, int], float]:
    """What the probes saw, over all attempts; fails if a point is there twice."""
    return {place: value for place, value in runs.series(folder).items() if place[0] in NAMES}


def others(folder: Path) -> dict[tuple[str, int], float]:
    return {place: value for place, value in runs.series(folder).items() if place[0] not in NAMES}


def test_a_run_with_probes_is_the_run_without_them_to_the_last_bit(undisturbed: Path, plain: Path) -> None:
    assert set(points(undisturbed)) == {(name, step) for name in NAMES for step in (10, 20)}
    assert all(5 < value <= 100 for value in points(undisturbed).values())
    assert not points(plain)
    assert others(undisturbed) == others(plain)
    for step in (3, 10, 12, 20):
        for part in ("model", "optimizer"):
            assert runs.same(*(runs.checkpoint(run, 1, step)[part] for run in (undisturbed, plain))), (step, part)
    assert digest(probed({})) == digest(probed())


def test_the_result_has_the_last_probe(tmp_path: Path) -> None:
    end = pretrain(probed({"every_epochs": 3}), runs.context(tmp_path))
    assert end.result is not None
    assert set(points(tmp_path)) == {(name, step) for name in NAMES for step in (15, 20)}
    for name in NAMES:
        assert end.result["metrics"][name] == points(tmp_path)[name, 20]


def test_a_probe_sees_what_evaluations_of_the_checkpoint_see(tmp_path: Path) -> None:
    pretrain(probed({"limit": 2000, "every_epochs": 10}), runs.context(tmp_path))
    checkpoint = tmp_path / "attempts/0001/checkpoints/step-00000020"
    common = {"data": "digits", "images": {"size": 12}, "batch_size": 32, "backbone_from": {"job": "p"}}
    for kind, more, name in (
        ("knn", {"k": 5}, "knn_top1"),
        ("linear", {"protocol": "cached-features", "epochs": 2, "batch_size": 256}, "probe_top1"),
    ):
        context = runs.context(tmp_path / kind)
        context.inputs = {"backbone": {"checkpoint": str(checkpoint)}, "data": {}}
        result = run_evaluation(parse_spec({"kind": kind, **common, **more}), context)  # type: ignore[arg-type]
        assert result is not None
        assert points(tmp_path)[name, 20] == pytest.approx(result["scores"]["top1"]["last"], abs=0.3), "one image"


@pytest.mark.long
def test_a_compiled_network_trains_as_it_would_without_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BACKEND", "aot_eager"), ("WARM_UP", 1), ("TIMED", 1)):
        monkeypatch.setattr(compiling, name, value)
    graphs = []
    for name, asked in (("probed", {"every_epochs": 1}), ("plain", None)):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        spec = probed(asked, max_steps=10)
        spec = spec.model_copy(update={"run": spec.run.model_copy(update={"compile": "on"})})
        assert pretrain(spec, runs.context(tmp_path / name)).outcome == "ok"
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert others(tmp_path / "probed") == others(tmp_path / "plain")
    assert len(points(tmp_path / "probed")) == 4
    assert graphs[0] == graphs[1] > 0, "nothing is compiled anew for a probe"


class Restless(nn.Module):
    """Draws, and changes its buffers, in evaluation mode too; one part of it is never in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.frozen = nn.Dropout().eval()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        out: Tensor = self.norm(x + torch.randn_like(x))
        return out


def test_the_network_and_the_generators_are_as_they_were(tmp_path: Path) -> None:
    network = Restless()
    network(torch.randn(5, 3))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    drawn = torch.get_rng_state()
    with contextlib.suppress(KeyError), untouched(network, torch.device("cpu")):
        assert not any(part.training for part in network.modules())
        network(torch.randn(5, 3))
        network.norm.train()(torch.randn(5, 3))
        raise KeyError
    assert runs.same(dict(network.state_dict()), before)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [part.training for part in network.modules()] == [True, True, False]


def test_a_probe_draws_nothing_from_torch_s_generator(tmp_path: Path) -> None:
    states = []
    for asked in ({}, None):
        torch.manual_seed(3)
        pretrain(probed(asked), runs.context(tmp_path / str(asked)))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def asked_to_stop_in_probe(context: Context, monkeypatch: pytest.MonkeyPatch, *, at_step: int, unit: int) -> Context:
    """The context, whose control.json asks for a pause in the middle of the probe after `at_step`."""
    asked = context.stop.requested_now
    units = []

    def requested_now() -> bool:
        if context.step == at_step:
            units.append(at_step)
            if len(units) == unit:
                (context.attempt_folder / "control.json").write_text('{"stop": "pause"}')
        return asked()

    monkeypatch.setattr(context.stop, "requested_now", requested_now)
    return context


@pytest.mark.parametrize("unit", [1, 6, 7])
@pytest.mark.parametrize("at_step", [10, 20])
def test_a_stop_within_a_probe_is_heeded_and_the_resumed_run_makes_the_probe(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_step: int, unit: int
) -> None:
    """In the features (3 batches of either split), the classifier or the neighbours."""
    first = asked_to_stop_in_probe(runs.context(tmp_path), monkeypatch, at_step=at_step, unit=unit)
    end = pretrain(probed({}), first)
    assert (end.outcome, end.step) == ("stopped", at_step)
    assert {step for _, step in points(tmp_path)} == {step for step in (10,) if step < at_step}
    assert runs.events(tmp_path, kind="checkpoint")[-1].step == at_step
    end = pretrain(probed({}), runs.context(tmp_path, 2))
    assert end.outcome == "ok"
    assert runs.resume_step(tmp_path, 2) == at_step
    assert runs.series(tmp_path) == runs.series(undisturbed)
    assert end.result is not None
    assert end.result["metrics"]["knn_top1"] == points(undisturbed)["knn_top1", 20]


def test_stopped_again_in_the_probe_that_a_resumed_run_begins_with(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for attempt in (1, 2):
        context = asked_to_stop_in_probe(runs.context(tmp_path, attempt), monkeypatch, at_step=10, unit=2)
        end = pretrain(probed({}), context)
        assert (end.outcome, end.step) == ("stopped", 10)
    assert pretrain(probed({}), runs.context(tmp_path, 3)).outcome == "ok"
    assert runs.series(tmp_path) == runs.series(undisturbed)


@pytest.mark.parametrize("step", [10, 11])
def test_a_stop_between_steps_makes_no_probe_twice(undisturbed: Path, tmp_path: Path, step: int) -> None:
    context = runs.context(tmp_path)
    asked = context.stop.requested

    def requested(at: int) -> bool:
        if at == step:
            (context.attempt_folder / "control.json").write_text('{"stop": "pause"}')
        return asked(at)

    context.stop.requested = requested  # type: ignore[method-assign]
    assert pretrain(probed({}), context).outcome == "stopped"
    assert pretrain(probed({}), runs.context(tmp_path, 2)).outcome == "ok"
    assert runs.series(tmp_path) == runs.series(undisturbed)


@pytest.mark.parametrize(
    ("asked", "changes", "error", "said"),
    [
        ({"test_split": "val"}, {}, DataError, "run.record.probes: data set 'digits' has no split 'val'; known: train"),
        ({}, {"data": {"name": "scenes", "limit": 32}}, DataError, "run.record.probes: .*no single class"),
        (
            {"k": 1500, "limit": 5000}, {}, BadSpec,
            "run.record.probes.k 1500 is above the 1437 images of split 'train'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_probed_is_said_before_training(
    tmp_path: Path, asked: dict[str, Any], changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        pretrain(probed(asked, **changes), runs.context(tmp_path))
    assert not runs.events(tmp_path, kind="metrics")


def test_classes_that_the_limit_leaves_no_image_of_are_told_as_in_an_evaluation(tmp_path: Path) -> None:
    context = runs.context(tmp_path)
    spec = probed({"limit": 8})
    assert spec.run.record.probes is not None
    probes._open_splits(spec, spec.run.record.probes, open_images("digits", "train"), context)
    told = [event.data["message"] for event in runs.events(tmp_path, kind="warning")]
    began = [each.partition(" without any")[0] for each in told]
    of = "of 10 classes of split"
    assert began == [f"run.record.probes: limit leaves {said}" for said in (f"6 {of} train", f"5 {of} test")]
    assert "nothing is asked about them, so raise it or leave it out" in told[1]


@pytest.mark.parametrize("error", [BadSpec("not finite"), NothingReadable("none"), Diverged("its loss", 3)])
def test_a_probe_that_cannot_be_made_is_warned_of_and_training_goes_on(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*given: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(probes, "extract", failing)
    assert pretrain(probed({}), runs.context(tmp_path)).outcome == "ok"
    warned = [event.data["message"] for event in runs.events(tmp_path, kind="warning")]
    assert warned == [f"no probe at step {step}: {error}" for step in (10, 20)]
    assert runs.series(tmp_path) == runs.series(plain)


def test_what_ends_a_probe_on_one_rank_alone_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: object, **named: object) -> None:
        raise DataError("image 5 cannot be loaded")

    monkeypatch.setattr(probes, "extract", failing)
    with pytest.raises(DataError, match="image 5"):  # a rank that went on would meet the others in other collectives
        pretrain(probed({}), runs.context(tmp_path))


def test_a_probe_tells_that_it_is_at_work_while_the_job_stays_at_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.runtime.context.PROGRESS_SECONDS", 0.0)
    pretrain(probed({}), runs.context(tmp_path))
    told = [event for event in runs.events(tmp_path, kind="progress") if event.data["phase"] == probes.PHASE]
    assert {(event.step, event.data["steps"]) for event in told} == {(10, 20), (20, 20)}
    assert len(told) > 2 * 6


def test_units_within_a_step_are_agreed_about_at_once(tmp_path: Path) -> None:
    context = runs.context(tmp_path)
    assert not context.stop.requested(1000)
    assert not context.stop.requested_now()
    units = UnitsWithinStep(context)
    units.finished()
    (context.attempt_folder / "control.json").write_text('{"stop": "drain"}')
    with pytest.raises(Stopped):
        units.finished()
    assert context.stop.requested(1001)
    assert context.stop.reason == "drain"


def test_the_clock_of_the_metrics_stands_while_a_probe_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(metric_series.time, "perf_counter", lambda: now[0])
    series = MetricSeries(runs.context(tmp_path), 32)
    now[0] += 2.0
    with series.clock_stopped():
        now[0] += 100.0
    now[0] += 1.0
    series.take(1, 1, {}, {}, torch.tensor(0))
    series.flush()
    assert series.last["step_seconds"] == 3.0
