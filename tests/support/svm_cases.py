"""Images of several classes each, for tests of support vector machines, and what JSON can say of these."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from barlow_lab.specs import SvmSpec, parse_spec
from trainer.evaluation.svm import LabelledFeatures, train_machines
from trainer.runtime.context import Context
from trainer.runtime.units import Units

CLASSES = 4
COSTS = [0.01, 1.0, 100.0]


def svm_spec(**fields: Any) -> SvmSpec:
    spec = parse_spec(
        {"kind": "svm", "data": {"name": "digits", "limit": 203}, "images": {"size": 8, "resize": 8}, "costs": COSTS,
         "backbone_from": {"pixels": True}, **fields}
    )  # fmt: skip
    assert isinstance(spec, SvmSpec)
    return spec


def objects(count: int, *, seed: int, spread: float, width: int = 10) -> LabelledFeatures:
    """Images of any of the classes, each of which adds a direction of its own."""
    directions = np.random.default_rng(0).normal(size=(CLASSES, width))
    rng = np.random.default_rng(seed)
    presence = (rng.random((count, CLASSES)) < 0.3).astype(np.int8)
    values = presence @ directions + spread * rng.normal(size=(count, width))
    return LabelledFeatures(values / np.linalg.norm(values, axis=1, keepdims=True), presence)


def machines_of(context: Context, train: LabelledFeatures, test: LabelledFeatures) -> list[list[float | None]]:
    """What JSON can say of the machines."""
    found = train_machines(svm_spec(), train, test, context, Units(context))
    numbers = [[m.cost, m.eleven_point, m.all_points, m.unfinished] for m in found]
    return [[None if math.isnan(x) else x for x in row] for row in numbers]
