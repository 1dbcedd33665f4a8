"""What features come to on any number of ranks. Run by test_feature_ranks.py as a script on each rank,
`python feature_laws.py FOLDER`, and in its own process for one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import runs
import torch
from knn_cases import Case, case, peak_bytes, places
from svm_cases import machines_of, objects

from barlow_lab.specs import PretrainSpec, parse_spec
from barlow_lab.specs.kinds.evaluation import EvaluationImages
from trainer.data.registry import open_data_set
from trainer.evaluation import knn, run_evaluation
from trainer.evaluation.features import extract
from trainer.pretraining import pretrain
from trainer.runtime import process_group
from trainer.runtime.context import Context
from trainer.runtime.rank_exit import end_process
from trainer.runtime.units import Units

SMALL_BLOCKS = 150
PEAK_BLOCKS = 2**13
PROBES = {"every_epochs": 1, "limit": 70, "k": 5, "epochs": 2}
KINDS: dict[str, dict[str, Any]] = {
    "knn": {"k": 7},
    "linear": {"protocol": "cached-features", "epochs": 4},
    "svm": {"costs": [0.1, 1.0]},
    "invariance": {"images_per_class": 5, "steps": 3},
}


def cases() -> list[Case]:
    """Odd numbers of images, of which some ranks have none, with and without ties."""
    sizes = [(2, 5, 2), (17, 11, 9), (40, 1, 20)]
    return [
        case(seed, train=train, test=test, k=k, temperature=0.07, ties=ties)
        for ties in (False, True)
        for seed, (train, test, k) in enumerate(sizes)
    ]


def crowded() -> Case:
    """Many candidates of each rank."""
    return case(0, train=600, test=40, k=100, temperature=0.1, ties=False, width=16)


def pretraining(folder: Path, context: Context, *, probes: bool) -> None:
    """2 epochs of 5 steps, with a probe after each or without."""
    record = {"metrics_every_steps": 1, "correlation_every_epochs": 10, "probes": PROBES if probes else None}
    spec = runs.spec(epochs=2, run={"checkpoint": {"every_steps": 5}, "record": record})
    assert isinstance(spec, PretrainSpec)
    assert pretrain(spec, context).outcome == "ok"


def judged(kind: str, context: Context) -> str:
    """The result of a whole evaluation, as JSON."""
    spec = parse_spec(
        {"kind": kind, "data": {"name": "digits", "limit": 203}, "images": {"size": 8, "resize": 8}, "batch_size": 32,
         "backbone_from": {"random": 3}, "backbone": {"name": "tiny"}, **KINDS[kind]}
    )  # fmt: skip
    return json.dumps(run_evaluation(spec, context), sort_keys=True)  # type: ignore[arg-type]


def all_laws(folder: Path, rank: int, ranks: int) -> dict[str, Any]:
    """Everything that has to be the same whatever `ranks`, and this rank's share of features."""

    def context(name: str) -> Context:
        return runs.context(folder / name, rank=rank, world_size=ranks)

    here = context("knn-cases")
    whole = [places(one, here).tolist() for one in cases()]
    with mock.patch.object(knn, "BLOCK_VALUES", SMALL_BLOCKS):
        small = [places(one, here).tolist() for one in cases()]
    peak = None
    if ranks == 3:
        with mock.patch.object(knn, "BLOCK_VALUES", PEAK_BLOCKS):
            peak = peak_bytes(crowded(), here)
    rng = np.random.default_rng(1)
    train, test = objects(90, seed=1, spread=0.8), objects(60, seed=2, spread=0.8)
    train.presence[rng.random(train.presence.shape) < 0.1] = -1
    share = extract(
        torch.nn.Flatten(), open_data_set("digits", "test", limit=61), EvaluationImages(size=8, resize=8),
        batch_size=10, phase="features", context=here, units=Units(here),
    )  # fmt: skip
    if ranks == 2:
        for probes in (True, False):
            name = "probed" if probes else "plain"
            pretraining(folder / name, context(name), probes=probes)
    return {
        "places": whole,
        "places in small blocks": small,
        "machines": machines_of(here, train, test),
        "results": {kind: judged(kind, context(kind)) for kind in KINDS},
        "peak": peak,
        "share": share.indices.tolist(),
        "shares": share.gathered("features", here).indices.tolist(),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = process_group.join()
    told = all_laws(Path(sys.argv[1]), place.rank, place.world_size)
    (Path(sys.argv[1]) / f"{place.rank}.json").write_text(json.dumps(told))
    process_group.leave()
    end_process(0)
