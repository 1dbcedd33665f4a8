"""Files that cannot be read, on two real ranks: the same training, the same evaluation and the same words as on one."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from evaluations_of_digits import context_in, spec_of
from odd_trees import make_split

from barlow_lab.environment import RENDEZVOUS_FILE
from barlow_lab.journal import read_events
from trainer.evaluation import run_evaluation
from trainer.pretraining import pretrain
from trainer.runtime import process_group
from trainer.runtime.rank_exit import end_process

KNN = spec_of(data={"name": "own"}, k=3)
PRETRAIN = runs.spec(data={"name": "own", "split": "scattered"}, batch_size=10, epochs=1, precision="fp64", run={
    "checkpoint": {"every_epochs": 10}, "record": {"metrics_every_steps": 1, "correlation_every_epochs": 10},
})  # fmt: skip


def both_jobs(folder: Path, tree: Path, rank: int = 0, world_size: int = 1) -> None:
    """An evaluation and a pretraining in `folder`."""
    inputs = {"data": {"own": {"format": "image_folder", "root": str(tree)}}}
    judged, trained = (
        context_in(folder / kind, rank=rank, world_size=world_size, inputs=inputs) for kind in ("knn", "pretrain")
    )
    (folder / f"result-{rank}.json").write_text(json.dumps(run_evaluation(KNN, judged)))
    end = pretrain(PRETRAIN, trained)
    assert end.outcome == "ok"
    assert end.result is not None
    (folder / f"unreadable-{rank}.txt").write_text(str(end.result["unreadable_images"]))


def rank_of_two(rank: int, folder: Path, tree: Path) -> None:
    """One of two real processes."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        RENDEZVOUS_FILE: str(folder / "meeting"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    torch.set_num_threads(1)
    process_group.join()
    both_jobs(folder, tree, rank, 2)
    process_group.leave()
    end_process(0)


def warnings(folder: Path) -> list[dict[str, Any]]:
    return [e.data for e in read_events(folder / "journal.jsonl") if e.kind == "warning" and "unreadable" in e.data]


def test_two_ranks_do_with_damaged_files_what_one_does(tmp_path: Path) -> None:
    # Of 65 images neither all of a batch of rank 0's share of 32 nor both sides of the seam can be read.
    damaged = {0, *range(16, 32), 32, 33, 64}
    make_split(tmp_path / "tree/train", 65, damaged)
    make_split(tmp_path / "tree/test", 23, {5, 22})
    # One epoch over these: each is met by the one rank or the other.
    make_split(tmp_path / "tree/scattered", 40, range(0, 40, 4))
    one, two = tmp_path / "one", tmp_path / "two"
    two.mkdir()
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=rank_of_two, args=(rank, two, tmp_path / "tree")) for rank in range(2)]
    for process in ranks:
        process.start()
    one.mkdir()
    both_jobs(one, tmp_path / "tree")
    for process in ranks:
        process.join(timeout=240)
        process.kill()
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]

    expected = json.loads((one / "result-0.json").read_text())
    assert [json.loads((two / f"result-{rank}.json").read_text()) for rank in range(2)] == [expected, expected]
    assert expected["data"]["unreadable"] == {"train": 20, "test": 2}
    assert (expected["data"]["train_images"], expected["data"]["test_images"]) == (45, 21)
    assert warnings(two / "knn") == warnings(one / "knn")
    assert [(data["unreadable"], len(data["images"])) for data in warnings(one / "knn")] == [(20, 20), (2, 2)]

    losses, losses_alone = (
        [e.data["values"]["loss"] for e in read_events(folder / "pretrain/journal.jsonl")
         if e.kind == "metrics" and "loss" in e.data["values"]]
        for folder in (two, one)
    )  # fmt: skip
    assert len(losses) == len(losses_alone) == 4
    assert losses == pytest.approx(losses_alone, rel=1e-8)
    said, said_alone = (warnings(folder / "pretrain") for folder in (two, one))
    names, names_alone = ({data["message"].split(" cannot")[0] for data in each} for each in (said, said_alone))
    assert names == names_alone
    assert len(said) == len(said_alone) == len(names)  # each file once, whichever rank met it
    assert [data["unreadable"] for data in said] == list(range(1, len(names) + 1))
    counts = [file.read_text() for folder in (one, two) for file in sorted(folder.glob("unreadable-*.txt"))]
    assert counts == ["10", "10", "10"]
    assert names == {f"class-{number % 3}/{number:03d}.png" for number in range(0, 40, 4)}
