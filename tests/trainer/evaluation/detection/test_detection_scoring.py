"""Average precision: cases worked by hand, and the evaluator of COCO itself."""

import contextlib
import io

import numpy as np
import pytest
import torch
from drawn_objects import DrawnObjects
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainer.data.datasets import Annotation
from trainer.evaluation.detection.scoring import ImageDetections, average_precisions

SIZE = 100


def _truth(boxes: list[list[float]], classes: list[int] | None = None, ignored: list[bool] | None = None) -> Annotation:
    count = len(boxes)
    masks = np.zeros((count, SIZE, SIZE), dtype=bool)
    for mask, (left, top, right, bottom) in zip(masks, np.array(boxes, dtype=int).reshape(-1, 4), strict=True):
        mask[top:bottom, left:right] = True
    return Annotation(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(classes or [0] * count, dtype=np.int64),
        np.array(ignored or [False] * count, dtype=bool),
        masks,
    )


def _judged(
    truth: Annotation, boxes: list[list[float]], scores: list[float], classes: list[int] | None = None
) -> ImageDetections:
    found = _truth(boxes)
    return ImageDetections(
        torch.from_numpy(found.boxes),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(classes or [0] * len(boxes), dtype=torch.int64),
        torch.from_numpy(found.masks.astype(np.uint8)),
        truth,
    )


def _scores(*judged: ImageDetections, masks: bool = False, difficult: bool = False) -> dict[str, float]:
    return average_precisions(judged, masks=masks, difficult=difficult, tick=lambda: None)


A, B, C = [10.0, 10, 30, 40], [50.0, 50, 90, 80], [5.0, 60, 25, 95]
NAMES = ("ap", "ap50", "ap75", "ap_11_point", "ap50_11_point", "ap75_11_point")


def test_what_is_there_is_100_percent_and_nothing_is_none():
    truths = [_truth([A, B], [0, 1]), _truth([]), _truth([C], [1])]
    whole = [_judged(t, t.boxes.tolist(), [0.9] * len(t.boxes), t.classes.tolist()) for t in truths]
    assert _scores(*whole, masks=True) == {f"{kind}_{n}": 100.0 for kind in ("box", "mask") for n in NAMES}
    nothing = [_judged(t, [], []) for t in truths]
    assert _scores(*nothing, masks=True) == {f"{kind}_{n}": 0.0 for kind in ("box", "mask") for n in NAMES}
    assert set(_scores(*whole)) == {f"box_{n}" for n in NAMES}


def test_a_box_of_the_other_class_is_wrong():
    assert _scores(_judged(_truth([A], [0]), [A], [0.9], [1]))["box_ap"] == 0.0


def test_a_case_worked_by_hand():
    """Four objects. By score: found, wrong, found, wrong, found; one is never found. Precision after each of the found:
    1, 2/3, 3/5 at recalls 1/4, 2/4, 3/4."""
    truth = _truth([A, B, C, [60.0, 5, 80, 25]])
    wrong, also_wrong = [30.0, 80, 45, 95], [40.0, 5, 55, 20]
    scores = _scores(_judged(truth, [A, wrong, B, also_wrong, C], [0.9, 0.8, 0.7, 0.6, 0.5]))
    # Of the recalls 0, .01 to 1, 26 are at most 1/4, the next 25 at most 2/4, the next 25 at most 3/4.
    assert scores["box_ap50"] == pytest.approx(100 * (26 * 1 + 25 * 2 / 3 + 25 * 3 / 5) / 101, abs=1e-4)
    assert scores["box_ap50"] == pytest.approx(scores["box_ap"])
    # Of 0, .1 to 1: 0, .1, .2; .3, .4, .5; .6, .7.
    assert scores["box_ap50_11_point"] == pytest.approx(100 * (3 * 1 + 3 * 2 / 3 + 2 * 3 / 5) / 11, abs=1e-4)


def test_a_recall_of_three_tenths_reaches_the_point_at_three_tenths():
    boxes = [[10.0 * k, 0, 10 * k + 9, 9] for k in range(10)]
    scores = _scores(_judged(_truth(boxes), boxes[:3], [0.9, 0.8, 0.7]))
    assert scores["box_ap50_11_point"] == pytest.approx(100 * 4 / 11, abs=1e-4)  # 0, .1, .2, .3


def test_overlap_is_that_of_boxes_whose_right_and_bottom_are_outside():
    """Half the box: overlap 0.5 to the pixel counts at 0.50 and at no higher threshold."""
    scores = _scores(_judged(_truth([[10.0, 10, 30, 30]]), [[10.0, 10, 30, 20]], [0.9]))
    assert scores["box_ap50"] == 100.0
    assert scores["box_ap"] == pytest.approx(10.0)
    assert scores["box_ap75"] == 0.0


def test_masks_are_judged_by_masks():
    truth = _truth([[10.0, 10, 30, 30]])
    judged = _judged(truth, [[10.0, 10, 30, 30]], [0.9])
    judged.masks[0, 20:] = 0  # the lower half is missed
    scores = _scores(judged, masks=True)
    assert scores["box_ap"] == 100.0
    assert scores["mask_ap"] == pytest.approx(10.0)


def test_an_ignored_object_is_neither_missed_nor_found_nor_a_mistake():
    truth = _truth([A, B], ignored=[False, True])
    assert _scores(_judged(truth, [A], [0.5]), masks=True)["mask_ap"] == 100.0
    assert _scores(_judged(truth, [B, A], [0.9, 0.5]), masks=True)["box_ap"] == 100.0
    assert _scores(_judged(_truth([A]), [B, A], [0.9, 0.5]))["box_ap"] == pytest.approx(50.0)


def test_a_second_detection_of_an_object_is_a_mistake():
    truth = _truth([A, B])
    once = _scores(_judged(truth, [A, B], [0.9, 0.8]))["box_ap50"]
    twice = _scores(_judged(truth, [A, A, B], [0.9, 0.85, 0.8]))["box_ap50"]
    assert once == 100.0
    assert twice == pytest.approx(100 * (51 + 50 * 2 / 3) / 101, abs=1e-4)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_numbers_are_pycocotools_own(kind: str):
    """Noisy detections of drawn objects, some ignored, judged through COCO's files and its evaluator directly."""
    dataset = DrawnObjects(12, ignored=True)
    rng = np.random.default_rng(0)
    judged, images, annotations, results = [], [], [], []
    for index in range(len(dataset)):
        height, width = dataset.size(index)
        there = dataset.annotation(index)
        images.append({"id": index, "height": height, "width": width})
        for box, of, ignored, mask in zip(there.boxes, there.classes, there.ignored, there.masks, strict=True):
            annotations.append(_coco(index, box, of, mask, id=len(annotations) + 1, iscrowd=int(ignored)))
        order = rng.permutation(len(there.boxes))[: rng.integers(0, 3)].repeat(2)
        boxes = (there.boxes[order] + rng.normal(0, 1.5, (len(order), 4))).clip(0, 64).astype(np.float32)
        masks = np.stack(
            [np.roll(there.masks[k], rng.integers(-2, 3), axis=1) for k in order] or [np.zeros((height, width), bool)]
        )
        masks = masks[: len(order)]
        classes = np.where(rng.random(len(order)) < 0.8, there.classes[order], 1 - there.classes[order])
        scores = rng.random(len(order)).astype(np.float32)
        for box, of, mask, score in zip(boxes, classes, masks, scores, strict=True):
            results.append(_coco(index, box, of, mask, score=float(score)))
        found = (torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(classes))
        judged.append(ImageDetections(*found, torch.from_numpy(masks.astype(np.uint8)), there))
    if kind == "box":
        for one in [*annotations, *results]:
            one.pop("segmentation")
    else:
        for one in results:
            one.pop("bbox")  # else COCO's reader takes them for boxes
    evaluator = _by_pycocotools(images, annotations, results, "bbox" if kind == "box" else "segm")
    scores = _scores(*judged, masks=True)
    expected = 100 * evaluator.stats[:3]
    assert 5 < expected[0] < 95
    assert [scores[f"{kind}_{name}"] for name in NAMES[:3]] == pytest.approx(expected.tolist(), abs=1e-4)
    precision = evaluator.eval["precision"][..., 0, 2]  # (overlaps, recalls, classes), every size, 100 detections
    # Both recall grids share .0, .1 to 1 but for rounding, which can only move a point to the next lower precision.
    assert scores[f"{kind}_ap_11_point"] == pytest.approx(100 * precision[:, ::10].mean(), abs=3)


def test_an_object_without_an_area_is_missed_as_pycocotools_counts_it():
    """Two of three objects can be found; the third is a line, or was cut off at the edge to nothing."""
    line = [20.0, 5, 20, 60]
    truth = _truth([A, B, line])
    judged = _judged(truth, [A, B, line], [0.9, 0.8, 0.7])
    annotations = [
        {"id": 1 + k, "image_id": 0, "category_id": 0, "bbox": [x, y, right - x, bottom - y], "iscrowd": 0,
         "area": (right - x) * (bottom - y)}
        for k, (x, y, right, bottom) in enumerate(truth.boxes.tolist())
    ]  # fmt: skip
    results = [
        {"image_id": 0, "category_id": 0, "bbox": one["bbox"], "score": score}
        for one, score in zip(annotations, judged.scores.tolist(), strict=True)
    ]
    found = _by_pycocotools([{"id": 0, "height": SIZE, "width": SIZE}], annotations, results, "bbox")
    scores = _scores(judged)
    assert [scores[f"box_{name}"] for name in NAMES[:3]] == pytest.approx((100 * found.stats[:3]).tolist(), abs=1e-4)
    assert scores["box_ap50"] == pytest.approx(100 * 67 / 101, abs=1e-4)  # recalls up to 2/3
    assert _scores(judged, difficult=True)["box_ap50"] == pytest.approx(100 * 67 / 101, abs=1e-4)


def _by_pycocotools(images: list[dict], annotations: list[dict], results: list[dict], kind: str) -> COCOeval:
    """COCO's evaluator on what would stand in its files."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 0}, {"id": 1}]}
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def _coco(image: int, box: np.ndarray, of: int, mask: np.ndarray, **more: object) -> dict:
    left, top, right, bottom = (float(side) for side in box)
    runs = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "image_id": image,
        "category_id": int(of),
        "bbox": [left, top, right - left, bottom - top],
        "area": float(coco_masks.area(runs)),
        "segmentation": runs,
        **more,
    }
