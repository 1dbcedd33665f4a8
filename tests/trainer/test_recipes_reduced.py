"""The experiments that put a claim to the test: a reduced cell of each trains, and what judges it gives its scores."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import runs

from barlow_lab.run_folder import BACKBONE
from barlow_lab.specs import ExperimentSpec, PretrainSpec, Spec, load_spec_file, parse_experiment
from barlow_lab.specs.backbone_inputs import backbone_input
from trainer.runtime.context import Context

RECIPES = Path(__file__).parents[2] / "recipes"
CLAIMED = [
    path for path in sorted(RECIPES.glob("*.yaml")) if "under test" in path.read_text("utf-8").split("\nname")[0]
]
UNLABELLED = {"textures-closed-form", "textures-symmetry"}
"""Experiments that no label is asked in."""
SMALLER = {"batch_size": 32, "sub_batch": 32, "queue": 64, "clusters": [4]}
"""Of a pretraining and its objective, where they name it."""


def reduced(recipe: Path) -> ExperimentSpec:
    """The same experiment of small images and few of them: two steps, and looks along the way at fewer still."""
    body = load_spec_file(recipe)
    for job in body["jobs"].values():
        job["data"] = {**job["data"], "limit": 128}
        job |= {name: value for name, value in SMALLER.items() if name in job}
        job |= {"views": {**job["views"], "size": 16}} if "views" in job else {"images": {"size": 16, "resize": 16}}
        if job["kind"] == "pretrain":
            job["max_steps"] = 2
            if "probes" in (record := job["run"]["record"]):
                record["probes"] = {**record["probes"], "limit": 32, "epochs": 1}
        elif job["kind"] == "closed_form":
            job["held_out"] = 64
        elif job["kind"] == "invariance":
            job |= {"images_per_class": 2, "steps": 3}
    for objective in body.get("zip", {}).get("objective", []):
        objective |= {name: value for name, value in SMALLER.items() if name in objective}
    return parse_experiment(body)


def run(spec: Spec, folder: Path, inputs: dict[str, Any]) -> tuple[dict[str, Any], Context]:
    module, _, name = spec.run_by.partition(":")
    context = runs.context(folder)
    context.inputs = {**context.inputs, **inputs}
    end = getattr(importlib.import_module(module), name)(spec, context)
    assert end.outcome == "ok", end
    return end.result, context


@pytest.mark.parametrize("recipe", CLAIMED, ids=lambda path: path.stem)
def test_a_reduced_cell_of_an_experiment_trains_and_is_judged(recipe: Path, tmp_path: Path) -> None:
    experiment = reduced(recipe)
    pretraining = [name for name, spec in experiment.jobs.items() if isinstance(spec, PretrainSpec)][-1]
    result, context = run(experiment.jobs[pretraining], tmp_path / "pretrain", {})
    assert result["steps"] == 2
    inputs = {"backbone": backbone_input(context.attempt_folder / BACKBONE)}
    of_it = {spec.kind: name for name, spec in experiment.jobs.items() if pretraining in experiment.edges[name]}
    alone = {spec.kind: name for name, spec in experiment.jobs.items() if not experiment.edges[name]}
    assert of_it
    for name in [*of_it.values(), *(name for kind, name in alone.items() if kind != "pretrain")]:
        judged, _ = run(experiment.jobs[name], tmp_path / name, inputs)
        assert math.isfinite(judged["scores"][judged["headline"]]["last"])


def test_the_experiments_have_three_seeds_and_both_judges() -> None:
    assert len(CLAIMED) >= 8
    for recipe in CLAIMED:
        body = load_spec_file(recipe)
        assert body["seeds"] == 3, recipe.stem
        kinds = {job["kind"] for job in body["jobs"].values()}
        assert {"knn", "linear"} <= kinds or recipe.stem in UNLABELLED, recipe.stem
