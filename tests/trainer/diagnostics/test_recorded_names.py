"""A metric or a picture has a name of its own, and one that it can have everywhere: others are refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from looks import FirstFilters
from torch import nn

from trainer.diagnostics import listed
from trainer.diagnostics.base import Diagnostic, NetworkSeen, Records
from trainer.diagnostics.listed import DIAGNOSTICS
from trainer.diagnostics.recorded_names import OF_THE_LOOP, judge_terms, taken_by_diagnostics
from trainer.failures import BadSpec
from trainer.objectives.barlow_twins import BarlowTwins
from trainer.objectives.base import Terms, build_objective
from trainer.pretraining import pretrain
from trainer.training.step_plan import StepPlan

ONE = torch.ones(())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loss", "the loop of every pretraining records one of this name"),
        ("step_seconds", "the loop of every pretraining records one of this name"),
        ("effective_rank", "diagnostic 'effective rank' records one of this name"),
        ("knn_top1", "diagnostic 'probe' records one of this name"),
        ("a/b c\n", "1 to 100 characters of a-z, 0-9 and _ are expected"),
        ("fine\n", "1 to 100 characters of a-z, 0-9 and _ are expected"),
        ("", "1 to 100 characters of a-z, 0-9 and _ are expected"),
        ("a" * 101, "1 to 100 characters of a-z, 0-9 and _ are expected"),
    ],
)
@pytest.mark.parametrize("known", [False, True], ids=["parts", "known"])
def test_an_objective_s_metric_is_refused(name: str, said: str, known: bool) -> None:
    objective = build_objective(runs.spec().objective)
    terms = Terms(ONE, {}, {name: 1.0}) if known else Terms(ONE, {name: ONE})
    with pytest.raises(BadSpec) as caught:
        judge_terms(terms, objective, taken_by_diagnostics(DIAGNOSTICS))
    who = "objective 'barlow_twins' (trainer.objectives.barlow_twins:BarlowTwins)"
    assert str(caught.value) == f"{who} records metric {name!r}: {said}; rename it where it is defined"


def test_one_name_for_two_metrics_of_an_objective_is_refused() -> None:
    with pytest.raises(BadSpec, match="'mine' among `parts` and among `known`"):
        judge_terms(Terms(ONE, {"mine": ONE}, {"mine": 1.0}), build_objective(runs.spec().objective), {})


def test_a_run_ends_by_it_at_its_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = BarlowTwins.__call__

    def colliding(self: BarlowTwins, *embeddings: torch.Tensor) -> Terms:
        return Terms(plain(self, *embeddings).loss, {"rankme": ONE})

    monkeypatch.setattr(BarlowTwins, "__call__", colliding)
    with pytest.raises(BadSpec, match=r"'barlow_twins' .* records metric 'rankme': diagnostic 'effective rank'"):
        pretrain(runs.spec(), runs.context(tmp_path))
    assert not runs.events(tmp_path, kind="metrics")


def test_every_metric_of_the_loop_is_known_to_be(tmp_path: Path) -> None:
    assert pretrain(runs.spec(objective={"name": "vicreg"}, max_steps=2), runs.context(tmp_path)).outcome == "ok"
    events = runs.events(tmp_path, kind="metrics")
    recorded = {name for event in events for name in event.data["values"]}
    of_objective = {"invariance", "variance", "covariance", "feature_std_mean"}
    of_diagnostics = {name for kind in DIAGNOSTICS for name in kind.metric_names}
    assert recorded - of_objective - of_diagnostics == {*OF_THE_LOOP} - {"skipped_steps"}, "which fp16 alone has"


@pytest.mark.parametrize(
    ("field", "name", "said"),
    [
        ("metric_names", "loss", "records metric 'loss': the loop of every pretraining records one of this name"),
        ("metric_names", "rankme", "records metric 'rankme': diagnostic 'effective rank' records one of this name"),
        ("metric_names", "a b", "records metric 'a b': 1 to 100 characters of a-z, 0-9 and _ are expected"),
        ("picture_keys", "views", "records picture 'views': the loop of every pretraining records one of this name"),
        ("picture_keys", "correlation", "diagnostic 'correlation record' records one of this name"),
        ("picture_keys", "../x", "records picture '../x': 1 to 100 characters of a-z and - are expected"),
    ],
)
def test_a_diagnostic_s_name_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, name: str, said: str
) -> None:
    odd = type("Odd", (FirstFilters,), {field: (name,), "name": "odd"})
    monkeypatch.setattr(listed, "DIAGNOSTICS", [*DIAGNOSTICS, odd])
    with pytest.raises(BadSpec, match=r"^diagnostic 'odd' records ") as caught:
        pretrain(runs.spec(), runs.context(tmp_path))
    assert said in str(caught.value)
    assert not runs.events(tmp_path, kind="metrics")


@pytest.mark.parametrize(("field", "what"), [("metric_names", "metric"), ("picture_keys", "picture")])
def test_what_a_diagnostic_does_not_list_it_cannot_record(tmp_path: Path, field: str, what: str) -> None:
    made: Any = type("Unlisted", (FirstFilters,), {field: ()})
    one: Diagnostic = made.__new__(made)
    plan = StepPlan(2, 1, runs.spec())
    records = Records(one, runs.context(tmp_path), {}, plan, 1, resumed=False)
    network = nn.ModuleDict({"backbone": nn.Conv2d(3, 2, 3), "projector": nn.Identity()})
    with pytest.raises(BadSpec, match=f"'first filters' records {what} .* not among its {field}; add it there"):
        made.observe(one, NetworkSeen(1, 0, network), records)
