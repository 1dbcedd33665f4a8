"""A run whose views the batched engine makes."""

import shutil
from typing import Any

import runs
from PIL import Image

from barlow_lab.run_folder import attempt_folder
from trainer.pretraining import pretrain


def _views(**changes: Any) -> dict[str, Any]:
    return {"views": {"preset": "small_images", "size": 12, "engine": "batched", **changes}, "max_steps": 4}


def test_a_run_is_nearly_the_one_of_the_other_engine(tmp_path):
    losses = {}
    for engine in ("pillow", "batched"):
        outcome = pretrain(runs.spec(**_views(engine=engine)), runs.context(tmp_path / engine))
        assert outcome.outcome == "ok"
        losses[engine] = [
            value for (name, _), value in sorted(runs.series(tmp_path / engine).items()) if name == "loss"
        ]
    assert len(losses["batched"]) == 4
    assert losses["batched"] != losses["pillow"]
    for ours, theirs in zip(losses["batched"], losses["pillow"], strict=True):
        assert abs(ours - theirs) < 0.05 * theirs
    with Image.open(attempt_folder(tmp_path / "batched", 1) / "views.png") as picture:
        assert picture.size == (6 * 96, 2 * 3 * 96)


def test_a_resumed_run_is_the_whole_one(tmp_path):
    pretrain(runs.spec(**_views()), runs.context(tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(attempt_folder(tmp_path / "resumed", 1) / "checkpoints" / "step-00000004")
    pretrain(runs.spec(**_views()), runs.context(tmp_path / "resumed", 2))
    assert runs.resume_step(tmp_path / "resumed", 2) == 3
    whole, resumed = (runs.checkpoint(tmp_path / name, number, 4) for name, number in (("whole", 1), ("resumed", 2)))
    for part in ("model", "optimizer"):
        assert runs.same(whole[part], resumed[part])
