"""A whole pretraining with PCL on two real ranks: the curve of one rank, and resumed to the same bits."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import runs
import torch

from barlow_lab.environment import RENDEZVOUS_FILE
from trainer.pretraining import pretrain
from trainer.runtime import process_group
from trainer.runtime.rank_exit import end_process

OBJECTIVE = {"name": "pcl", "queue": 96, "clusters": [4, 9], "negatives": 5, "warmup_epochs": 1, "restarts": 2}
SPEC = runs.spec(
    objective=OBJECTIVE,
    precision="fp64",
    epochs=3,
    optimizer={"name": "adamw", "learning_rate": 3e-3, "reference_batch_size": None},
)
STEPS, STOPPED_AT = 15, 8
"""It stops in the epoch after the warm-up, whose clusters the attempt that goes on has from the checkpoint alone."""


def rank_of_two(rank: int, folder: Path) -> None:
    """One of two real processes: the run undisturbed, and once more, stopped and resumed."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        RENDEZVOUS_FILE: str(folder / "meeting"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    torch.set_num_threads(1)
    process_group.join()
    assert pretrain(SPEC, runs.context(folder / "whole", rank=rank, world_size=2)).outcome == "ok"
    stopped = runs.context(folder / "cut", rank=rank, world_size=2)
    stopped.stop.requested = lambda step: step == STOPPED_AT  # type: ignore[method-assign]
    assert pretrain(SPEC, stopped).outcome == "stopped"
    assert pretrain(SPEC, runs.context(folder / "cut", 2, rank=rank, world_size=2)).outcome == "ok"
    process_group.leave()
    end_process(0)


def test_two_ranks_have_the_curve_of_one_and_go_on_to_the_same_bits(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=rank_of_two, args=(rank, tmp_path)) for rank in range(2)]
    for process in ranks:
        process.start()
    assert pretrain(SPEC, runs.context(tmp_path / "one")).outcome == "ok"
    for process in ranks:
        process.join(timeout=120)
        process.kill()
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]

    one, whole = runs.series(tmp_path / "one"), runs.series(tmp_path / "whole")
    assert ("prototypes", STEPS) in one
    assert whole == pytest.approx(one, rel=1e-8, abs=1e-12)
    assert runs.resume_step(tmp_path / "cut", 2) == STOPPED_AT
    assert runs.series(tmp_path / "cut") == whole
    ends = [runs.checkpoint(tmp_path / run, attempt, STEPS) for run, attempt in (("cut", 2), ("whole", 1))]
    for part in ends[1].keys() - {"metrics"}:
        assert runs.same(ends[0][part], ends[1][part]), part
