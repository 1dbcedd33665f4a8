"""Detection from spec to result: resumed to the bit, the same on two ranks, and able to learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import detection_ranks
import numpy as np
import pytest
import ranks
import runs
import torch
from detection_ranks import spec
from drawn_objects import DrawnObjects
from PIL import Image

from barlow_lab.specs import DetectionSpec
from barlow_lab.specs.common import BackboneSpec
from trainer.data.errors import DataError
from trainer.evaluation import run_evaluation
from trainer.evaluation.detection import running
from trainer.evaluation.detection.training import warm_up
from trainer.failures import BadSpec, Diverged
from trainer.models.backbones import build_backbone
from trainer.runtime import checkpoints
from trainer.runtime.context import Context

# pycocotools 2.0.11 against NumPy 2.4.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class Data:
    """Splits in the place of a registered data set's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.train, self.test = DrawnObjects(10), DrawnObjects(5, odd=True, seed=1)
        monkeypatch.setattr(running, "open_annotated", lambda name, split, **more: getattr(self, split))


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Data:
    return Data(monkeypatch)


def _run(given: DetectionSpec, context: Context) -> dict[str, Any]:
    result = run_evaluation(given, context)
    assert result is not None
    json.dumps(result)
    return result


def test_a_run_says_what_it_is_and_what_it_measured(data: Data, tmp_path: Path):
    data.train = DrawnObjects(11, without=(4,), ignored=True)
    result = _run(spec(evaluate_every_steps=4), runs.context(tmp_path))
    assert result["protocol"] == "detection-coco-mask-rcnn-c4/2"
    assert result["departures"]["steps"] == {"protocol": 90_000, "here": 6}
    assert result["headline"] == "mask_ap"
    names = {
        f"{kind}_{n}"
        for kind in ("box", "mask")
        for n in ("ap", "ap50", "ap75", "ap_11_point", "ap50_11_point", "ap75_11_point")
    }
    assert result["scores"].keys() == names
    assert all(0 <= score[which] <= 100 for score in result["scores"].values() for which in ("last", "best"))
    assert result["data"]["train_images"] == 10
    assert result["data"]["train_images_without_objects"] == 1
    assert result["data"]["test_images_without_objects"] == 0
    assert (result["data"]["train_objects_ignored"], result["data"]["test_objects_ignored"]) == (10, 0)
    assert (result["data"]["test_images"], result["data"]["test_objects"]) == (5, 10)
    assert result["evaluator"]["matching"] == "COCO"
    assert result["evaluator"]["otherwise"] == []
    assert result["detector"]["anchors_per_cell"] == 9
    assert result["detector"]["stride"] == 4
    assert result["backbone"]["source"]["name"] == "tiny_resnet"
    assert len(result["backbone"]["digest"]) == len(result["detector"]["drawn_digest"]) == 64
    points = runs.series(tmp_path)
    parts = [points[f"detection_{part}_loss", 3] for part in ("rpn_class", "rpn_box", "class", "box", "mask")]
    assert points["detection_loss", 3] == pytest.approx(sum(parts), rel=1e-6)
    assert {step for name, step in points if name == "detection_mask_ap"} == {4, 6}
    rates = [points["detection_learning_rate", step] for step in range(1, 7)]
    assert rates == pytest.approx([0.02 * 0.001, 0.02 * 0.5005, 0.02, 0.02, 0.002, 0.002])
    images = runs.events(tmp_path, kind="image")
    assert [(event.step, event.data["key"]) for event in images] == [(4, "detections"), (6, "detections")]
    with Image.open(tmp_path / "attempts" / "0001" / images[0].data["file"]) as picture:
        assert picture.width == picture.height


def test_without_masks_the_headline_is_of_boxes(data: Data, tmp_path: Path):
    data.train, data.test = DrawnObjects(10, has_masks=False), DrawnObjects(5, has_masks=False, seed=1)
    result = _run(spec(masks=False, steps=1, warmup_steps=0), runs.context(tmp_path))
    assert result["headline"] == "box_ap"
    assert not [name for name in result["scores"] if name.startswith("mask")]
    assert ("detection_mask_loss", 1) not in runs.series(tmp_path)


def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(data: Data, tmp_path: Path):
    """Stopped after the third step and resumed where torch's generators stand elsewhere."""
    data.train = DrawnObjects(10, odd=True)
    given = spec(evaluate_every_steps=2)
    whole = _run(given, runs.context(tmp_path / "whole"))
    first = runs.context(tmp_path / "cut")
    first.stop = _StopAfter(first, step=3)
    assert run_evaluation(given, first) is None
    torch.rand(17)
    resumed = _run(given, runs.context(tmp_path / "cut", 2))
    assert runs.resume_step(tmp_path / "cut", 2) == 3
    assert runs.same(runs.checkpoint(tmp_path / "cut", 2, 6), runs.checkpoint(tmp_path / "whole", 1, 6))
    assert runs.series(tmp_path / "cut") == runs.series(tmp_path / "whole")
    assert resumed == whole


class _StopAfter:
    """Asks for a stop once a step is done."""

    reason = "pause"

    def __init__(self, context: Context, step: int) -> None:
        self._context, self._step = context, step

    def requested(self, units: int) -> bool:
        return self._context.step is not None and self._context.step >= self._step


def test_a_run_of_an_earlier_version_of_the_protocol_is_refused_with_what_changed(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The checkpoints of the first version do not say which it is."""
    first = runs.context(tmp_path)
    first.stop = _StopAfter(first, step=3)
    assert run_evaluation(spec(), first) is None
    read_state = checkpoints.read_state
    monkeypatch.setattr(
        checkpoints,
        "read_state",
        lambda *given: {key: value for key, value in read_state(*given).items() if key != "protocol_version"},
    )
    with pytest.raises(BadSpec) as refused:
        run_evaluation(spec(), runs.context(tmp_path, 2))
    assert "began under detection-coco-mask-rcnn-c4/1, and here its result would be one of" in str(refused.value)
    assert "detection-coco-mask-rcnn-c4/2 (VOC's difficult objects" in str(refused.value)
    assert "submit it as a new job" in str(refused.value)


def _coco(root: Path, segmentations: dict[int, Any]) -> Path:
    """Four images of two objects for each of two splits, as files; `segmentations` by the number of the object."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        images, objects = [], []
        for number in range(4):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(root / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 64})
            for x in (5, 30):
                there = {"id": len(objects), "image_id": number, "category_id": x, "bbox": [x, 5, 20, 20]}
                whole = [[x, 5, x + 20, 5, x + 20, 25, x, 25]]
                objects.append({**there, "segmentation": segmentations.get(len(objects), whole)})
        objects[0]["bbox"] = [-6, 5, 20, 20]
        objects[2]["bbox"] = [5, 5, 0, 20]
        categories = [{"id": 5, "name": "left"}, {"id": 30, "name": "right"}]
        file = {"images": images, "annotations": objects, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(file))
    return root


def _on_files(root: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    context = runs.context(folder)
    files = {split: {"images": split, "annotations": f"{split}.json"} for split in ("train", "test")}
    context.inputs["data"] = {"own": {"format": "coco", "root": str(root), "splits": files}}
    return _run(spec(data={"name": "own"}, steps=2, warmup_steps=0, batch_size=2, **changes), context)


SLIVER = [[5.1, 5.1, 5.3, 5.1, 5.2, 9.3]]
BAD_MASKS = {
    1: [], 3: [[30, 5, 31, 6], [30, 5, 50, 5, 50, 25, 30, 25]], 5: {"size": [3, 3], "counts": [9]}, 6: SLIVER,
}  # fmt: skip


def test_a_job_of_boxes_alone_keeps_every_image_whatever_its_masks(tmp_path: Path):
    result = _on_files(_coco(tmp_path / "data", BAD_MASKS), tmp_path / "run", masks=False)
    facts = result["data"]
    assert (facts["train_images"], facts["test_images"], facts["test_objects"]) == (4, 4, 8)
    assert facts["unreadable"] == {"train": 0, "test": 0}
    for split in ("train", "test"):
        assert (facts[f"{split}_boxes_cut"], facts[f"{split}_objects_without_area"]) == (1, 1)
    cut, missed = result["evaluator"]["otherwise"]
    assert cut == (
        "boxes that reach over the edge of their image are cut off there (1); COCOeval takes them as they are"
    )
    assert "count as missed, as COCOeval counts them: nothing can find them (1 of 8)" in missed
    said = [event.data["message"] for event in runs.events(tmp_path / "run", kind="warning")]
    assert [one for one in said if "mask" in one] == []
    assert [one for one in said if cut in one and missed in one]
    assert [
        one
        for one in said
        if "split 'train'" in one and "cut off there (1); objects whose box has no area teach" in one
    ]


def test_with_masks_a_bad_polygon_or_its_object_is_left_out_and_counted(tmp_path: Path):
    result = _on_files(_coco(tmp_path / "data", BAD_MASKS), tmp_path / "run")
    facts = result["data"]
    assert (facts["train_images"], facts["test_images"], facts["test_objects"]) == (4, 4, 6)
    assert facts["unreadable"] == {"train": 0, "test": 0}
    for split in ("train", "test"):
        assert (facts[f"{split}_objects_left_out"], facts[f"{split}_polygons_left_out"]) == (2, 1)
        assert facts[f"{split}_masks_empty"] == 1
    assert len(result["evaluator"]["otherwise"]) == 4
    said = [event.data["message"] for event in runs.events(tmp_path / "run", kind="warning")]
    for split in ("train", "test"):
        assert (
            f"split '{split}': objects without a mask that can be read are left out, with their boxes (2); what is no "
            "polygon is left out of the masks of other objects (1); objects whose mask covers no pixel, or the first "
            "one alone, are kept, and nothing fits it (1). The first: 0.png: neither polygons nor run lengths of "
            "64 x 64 pixels"
        ) in said


def test_masks_none_of_which_can_be_read_are_refused_with_the_first_cause(tmp_path: Path):
    root = _coco(tmp_path / "data", {place: [[1, 2, 3, 4]] for place in range(8)})
    with pytest.raises(DataError, match=r"no object of split 'train' .*0\.png: a polygon is .*masks: false"):
        _on_files(root, tmp_path / "run")


def test_voc_s_difficult_objects_are_judged_by_voc_s_rule(data: Data, tmp_path: Path):
    more = {"ignored": True, "ignored_are_difficult": True, "has_masks": False}
    data.train, data.test = DrawnObjects(4, **more), DrawnObjects(4, seed=1, **more)
    result = _run(spec(masks=False, steps=1, warmup_steps=0), runs.context(tmp_path))
    assert result["evaluator"] == {"matching": "PASCAL VOC", "otherwise": []}
    assert (result["data"]["test_objects"], result["data"]["test_objects_ignored"]) == (4, 4)


def test_a_finished_run_that_is_run_again_says_the_same(data: Data, tmp_path: Path):
    whole = _run(spec(steps=3), runs.context(tmp_path))
    assert _run(spec(steps=3), runs.context(tmp_path, 2)) == whole


@pytest.fixture(scope="module")
def one_rank_and_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ranks")
    processes = ranks.start([detection_ranks.__file__, folder], 2, folder)
    alone = detection_ranks.trained_and_tested(folder, 0, 1)
    assert ranks.finish(processes) == [0, 0], ranks.log(folder)
    return alone, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.long
def test_the_same_weights_have_the_same_scores_on_two_ranks(one_rank_and_two):
    alone, together = one_rank_and_two
    assert alone["untrained"]["box_ap50"] > 0, "an untrained detector hits something: else nothing was compared"
    for results in together:
        assert results["untrained"] == alone["untrained"]


@pytest.mark.long
def test_two_ranks_go_down_the_gradient_of_the_global_batch(one_rank_and_two):
    """Images of one size, so that none is padded: then ranks do not change what is trained."""
    alone, together = one_rank_and_two
    assert runs.same(together[0], together[1]), "ranks end with the same bits"
    for name, expected in alone["metrics"].items():
        assert together[0]["metrics"][name] == pytest.approx(expected, rel=1e-8), name
    for name, expected in alone["state"].items():
        largest = max(expected.abs().max().item(), 1e-300)
        distance = (together[0]["state"][name].double() - expected.double()).abs().max().item()
        assert distance <= 1e-8 * largest, f"{name}: off by {distance / largest:.1e} of its largest"


@pytest.mark.long
def test_what_goes_on_at_the_same_number_of_ranks_has_the_same_bits(one_rank_and_two):
    alone, together = one_rank_and_two
    for results in (alone, *together):
        assert runs.same(results["resumed"], results["state"])


def test_unreadable_images_are_told_of_and_left_out(data: Data, tmp_path: Path):
    data.train, data.test = DrawnObjects(8, unreadable=(2,)), DrawnObjects(4, unreadable=(0,), seed=1)
    result = _run(spec(steps=2, warmup_steps=0), runs.context(tmp_path))
    assert result["data"]["unreadable"] == {"train": 1, "test": 1}
    assert (result["data"]["test_images"], result["data"]["test_objects"]) == (3, 6)
    said = [event.data["message"] for event in runs.events(tmp_path, kind="warning")]
    assert any("2.png cannot be read" in message for message in said)
    assert any("1 of 4 images cannot be read" in message for message in said)
    assert "no image of class 'disc' can be read (testing): nothing is learned of or asked about it" in said
    assert not [message for message in said if "no image of" in message and "(training)" in message]


def test_a_class_of_whose_training_images_none_can_be_read_is_named(data: Data, tmp_path: Path):
    discs = np.flatnonzero(data.train.presence()[:, 1])
    data.train = DrawnObjects(10, unreadable=tuple(discs.tolist()))
    _run(spec(steps=1, warmup_steps=0, masks=False), runs.context(tmp_path))
    said = [event.data["message"] for event in runs.events(tmp_path, kind="warning")]
    assert "no image of class 'disc' can be read (training): nothing is learned of or asked about it" in said


def test_a_rate_that_is_too_high_ends_the_run(data: Data, tmp_path: Path):
    with pytest.raises(Diverged, match="lower learning_rate"):
        run_evaluation(spec(learning_rate=1e12, warmup_steps=0), runs.context(tmp_path))


def test_ranks_that_do_not_divide_the_batch_are_refused_with_batches_that_go(tmp_path: Path):
    context = runs.context(tmp_path, world_size=3)
    with pytest.raises(BadSpec, match="batch_size 4 is global and 3 ranks do not divide it; use 3 or 6"):
        running._open_batches(spec(batch_size=4), DrawnObjects(1), context)


def test_a_backbone_that_is_no_resnet_is_refused_with_those_that_work():
    """The spec refuses names; the backbone of another job is seen only here."""
    with pytest.raises(BadSpec, match=r"Tiny has no conv1.*resnet18.*tiny_resnet"):
        running.build_detector(spec(), build_backbone(BackboneSpec(name="tiny"), seed=0), classes=2)


def test_masks_of_a_data_set_without_are_refused(data: Data, tmp_path: Path):
    data.train = DrawnObjects(10, has_masks=False)
    with pytest.raises(BadSpec, match="set masks: false"):
        run_evaluation(spec(), runs.context(tmp_path))


def test_a_test_split_without_objects_is_refused(data: Data, tmp_path: Path):
    data.test = DrawnObjects(3, without=(0, 1, 2))
    with pytest.raises(DataError, match="no object to find"):
        run_evaluation(spec(), runs.context(tmp_path))


def test_a_test_split_whose_objects_cannot_be_read_is_refused(data: Data, tmp_path: Path):
    data.test = DrawnObjects(3, without=(1,), unreadable=(0, 2))
    with pytest.raises(DataError, match="none of the images of split 'test' that have objects can be read"):
        run_evaluation(spec(steps=2, warmup_steps=0), runs.context(tmp_path))


def test_warm_up_is_linear_from_its_factor():
    assert [warm_up(done, 4, 0.2) for done in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert warm_up(0, 0, 0.2) == 1.0


def test_normalisation_is_not_decayed_and_every_parameter_is_trained_once():
    fit = detection_ranks.fit(spec())
    decayed, kept = fit.descent._optimizer.param_groups
    assert decayed["weight_decay"] == 1e-4
    assert kept["weight_decay"] == 0.0
    assert all(parameter.ndim == 1 for parameter in kept["params"])
    every = [*decayed["params"], *kept["params"]]
    assert len(every) == len({id(p) for p in every}) == len(list(fit.detector.parameters()))
    assert sum(p.numel() for p in kept["params"]) == 2 * sum(
        module.num_features
        for module in fit.detector.modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
    )


@pytest.mark.long
@pytest.mark.timeout(900)  # 40 seconds of one core
def test_eight_images_are_learned_by_heart(data: Data, tmp_path: Path):
    """At an overlap of three quarters: one half is met by anchors alone, without boxes that are learned."""
    data.train = DrawnObjects(8)
    given = spec(
        steps=150, learning_rate=0.08, schedule={"shape": "cosine"}, warmup_steps=20, rois_per_image=32,
        train_sides=[64], test_side=64, anchor_sizes=[16, 24], test_split="train",
        run={"checkpoint": {"every_steps": 150}, "record": {"metrics_every_steps": 50}},
    )  # fmt: skip
    result = _run(given, runs.context(tmp_path))
    scores = {name: score["last"] for name, score in result["scores"].items()}
    assert np.minimum(scores["box_ap75"], scores["mask_ap75"]) >= 90, scores
