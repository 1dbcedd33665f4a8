"""The list of diagnostics: each sees the same in every order, one more takes a file and a line, a stop costs none.

Shape suffixes: 2 views, n images, d features, f of the backbone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from looks import FirstFilters
from train_states import built, views

from barlow_lab.specs import PretrainSpec
from trainer.data.registry import open_images
from trainer.diagnostics import listed
from trainer.diagnostics.base import BatchSeen, Diagnosed, Diagnostic, NetworkSeen
from trainer.diagnostics.listed import DIAGNOSTICS, Diagnostics
from trainer.diagnostics.probes import Probes
from trainer.objectives.base import Terms
from trainer.pretraining import pretrain
from trainer.runtime.units import Stopped
from trainer.training.step_plan import StepPlan

PROBES = {"every_epochs": 1, "limit": 30, "k": 3, "epochs": 1}
RECORD = {"metrics_every_steps": 1, "correlation_every_epochs": 1, "probes": PROBES}
EVERYTHING = {**RECORD, "population": {"images": 64}}


def spec(record: dict[str, Any] = RECORD, **changes: Any) -> PretrainSpec:
    """2 epochs of 5 steps, with probes and what else there is in any case after each."""
    return runs.spec(epochs=2, run={"record": record}, **changes)


def listed_in(monkeypatch: pytest.MonkeyPatch, kinds: list[type[Diagnostic]]) -> None:
    monkeypatch.setattr(listed, "DIAGNOSTICS", kinds)


def orders() -> list[list[type[Diagnostic]]]:
    """Each first once, and each behind each other: the rotations of the list and of its reverse."""
    whole = [*DIAGNOSTICS, FirstFilters]
    return [one[at:] + one[:at] for one in (whole, whole[::-1]) for at in range(len(whole))]


def test_each_sees_the_same_in_every_order_and_leaves_the_run_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = built()
    pair = (views(1)[0], views(1)[1])
    update = state.update(*pair, 1)
    terms = Terms(update.terms.loss.detach(), {})
    images = open_images("digits", "train", limit=64)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    looked_at = [tensor.clone() for tensor in (*pair, update.z_a_nd, update.z_b_nd)]
    found = []
    for number, order in enumerate(orders()):
        listed_in(monkeypatch, order)
        context = runs.context(tmp_path / str(number))
        plan = StepPlan(4, 2, spec(EVERYTHING))
        drawn = torch.get_rng_state()
        diagnostics = Diagnostics(Diagnosed(plan.spec, plan, state.model, state.objective, images, context))
        newest: dict[str, float] = {}
        seen = BatchSeen(2, 1, state.model, pair, update.z_a_nd, update.z_b_nd, *update.features_2nf, terms)
        diagnostics.observe_batch(2, lambda seen=seen: seen, newest)
        diagnostics.observe_network(NetworkSeen(2, 1, state.model), newest)

        told = runs.events(tmp_path / str(number))
        events = [(event.kind, event.step, event.data) for event in told if event.kind != "progress"]
        pictures = sorted(context.attempt_folder.glob("*/step-*.png"))
        files = {str(path.relative_to(context.attempt_folder)): path.read_bytes() for path in pictures}
        found.append((newest, sorted(map(repr, events)), files, diagnostics.state_dict()))
        assert runs.same(dict(state.model.state_dict()), before), order
        assert all(map(torch.equal, (*pair, update.z_a_nd, update.z_b_nd), looked_at)), order
        assert torch.equal(torch.get_rng_state(), drawn), order
        assert all(part.training for part in state.model.modules()), order
    probed = {"knn_top1", "probe_top1"}
    assert found[0][0].keys() >= {
        "effective_rank",
        "rankme",
        "feature_spread",
        "first_filters_size",
        "population_images",
        *probed,
    }
    assert all(one == found[0] for one in found)


def test_one_more_takes_a_file_of_its_own_and_its_line_in_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pretrain(spec(), runs.context(tmp_path / "plain"))
    listed_in(monkeypatch, [*DIAGNOSTICS, FirstFilters])
    end = pretrain(spec(), runs.context(tmp_path / "run"))

    pictures = [event for event in runs.events(tmp_path / "run", kind="image") if event.data["key"] != "views"]
    assert [(event.step, event.data) for event in pictures] == [
        (step, {"key": "first-filters", "file": f"first-filters/step-{step:08d}.png"}) for step in (5, 10)
    ]
    assert all((tmp_path / "run/attempts/0001" / event.data["file"]).is_file() for event in pictures)
    series, without = runs.series(tmp_path / "run"), runs.series(tmp_path / "plain")
    assert {name for name, _ in series.keys() - without.keys()} == {"first_filters_size"}
    assert {place: series[place] for place in without} == without
    assert end.result is not None
    assert plain.result is not None
    assert end.result["backbone"] == plain.result["backbone"]
    assert runs.checkpoint(tmp_path / "run", 1, 10)["first_filters_observed"] == 10


def test_what_a_stop_leaves_unseen_the_next_attempt_sees_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop comes in the midst of the probe, which one has looked before, and one is to look after."""

    class Second(FirstFilters):
        metric_names = ("second",)
        picture_keys = ()
        observed_key = "second_observed"

        def observe(self, seen: Any, records: Any) -> None:
            records.metrics({"second": float(seen.step)})

    listed_in(monkeypatch, [FirstFilters, *DIAGNOSTICS, Second])
    assert pretrain(spec(), runs.context(tmp_path / "whole")).outcome == "ok"

    def stopped(*_: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Probes, "_look", stopped)
        end = pretrain(spec(), runs.context(tmp_path / "run"))
    assert (end.outcome, end.step) == ("stopped", 5)
    assert {("first_filters_size", 5), ("effective_rank", 5)} <= runs.series(tmp_path / "run").keys()
    assert not {("knn_top1", 5), ("second", 5)} & runs.series(tmp_path / "run").keys()
    assert pretrain(spec(), runs.context(tmp_path / "run", 2)).outcome == "ok"
    assert runs.series(tmp_path / "run") == runs.series(tmp_path / "whole")
    assert runs.correlations(tmp_path / "run").keys() == {0, 5, 10}


def test_two_that_keep_something_under_one_key_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed_in(monkeypatch, [FirstFilters, FirstFilters])
    with pytest.raises(AssertionError, match="first_filters_observed"):
        pretrain(spec(), runs.context(tmp_path))
    assert not runs.events(tmp_path, kind="metrics")
