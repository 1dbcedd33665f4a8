"""Runs that the last version with a single objective left paused go on in this one to the end it would have reached.

kept/ was written once by that version and is never renewed: of a pretraining and a linear classifier the spec as it was
stored, the run folder of the paused attempt, and of the same run undisturbed every point of its metrics, and the sum
and length of every tensor at its end. All of it is in float64, so that another processor ends within rounding.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import runs
import torch

from barlow_lab.specs import PretrainSpec, parse_spec
from trainer.evaluation import run_evaluation
from trainer.pretraining import pretrain

KEPT = Path(__file__).parent / "kept"


@pytest.mark.parametrize(("kind", "paused", "last"), [("pretrain", 14, 30), ("linear", 5, 20)])
def test_a_run_paused_by_a_former_version_goes_on_to_the_end_it_would_have_reached(tmp_path, kind, paused, last):
    run = tmp_path / "run"
    shutil.copytree(KEPT / kind / "run", run)
    spec = parse_spec(json.loads((KEPT / kind / "spec.json").read_text()))
    context = runs.context(run, 2)
    _ = pretrain(spec, context) if isinstance(spec, PretrainSpec) else run_evaluation(spec, context)

    assert runs.resume_step(run, 2) == paused
    undisturbed = json.loads((KEPT / kind / "undisturbed.json").read_text())
    right = {(name, step): value for name, step, value in undisturbed["series"]}
    found = runs.series(run)
    assert right.keys() <= found.keys()
    for point, value in right.items():
        assert found[point] == pytest.approx(value, rel=1e-8, abs=1e-12), point
    tensors = dict(_tensors(runs.checkpoint(run, 2, last)))
    for name, (total, length) in undisturbed["tensors"].items():
        assert tensors[name].norm().item() == pytest.approx(length, rel=1e-8), name
        assert tensors[name].sum().item() == pytest.approx(total, rel=1e-8, abs=1e-8 * length), name


def _tensors(state: dict[str, Any], at: str = "") -> list[tuple[str, torch.Tensor]]:
    """Every tensor of floating point in a state, by its keys with dots between."""
    found = []
    for key, value in state.items():
        if isinstance(value, dict):
            found += _tensors(value, f"{at}{key}.")
        elif isinstance(value, torch.Tensor) and value.is_floating_point():
            found.append((f"{at}{key}", value.double()))
    return found
