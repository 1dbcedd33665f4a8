"""VOC's own rule of what a detection falls on: cases worked by hand, and the rule written down a second time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer.data.datasets import Annotation
from trainer.evaluation.detection.scoring import OVERLAPS, VOC_RECALLS, ImageDetections, average_precisions, evaluator

OBJECT, FAR = [0.0, 0, 20, 20], [60.0, 60, 90, 90]


def judged(there, difficult, found, scores, classes_there=None, classes=None) -> ImageDetections:
    """One image; boxes are left, top, right, bottom."""
    truth = Annotation(
        np.array(there, np.float32).reshape(-1, 4),
        np.array(classes_there or [0] * len(there), np.int64),
        np.array(difficult, bool),
        None,
    )
    return ImageDetections(
        torch.tensor(found, dtype=torch.float32).view(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(classes or [0] * len(scores), dtype=torch.int64),
        None,
        truth,
    )


def scores_of(*images: ImageDetections, difficult: bool = True) -> dict[str, float]:
    return average_precisions(images, masks=False, difficult=difficult, tick=lambda: None)


def test_a_small_detection_within_a_difficult_object_is_wrong():
    """Its overlap with the difficult object is 100 of 1,600 pixels: below one half, so it is the first, wrong one of
    two. By COCO's rule for crowds, all of it lies within, it would not count."""
    images = [
        judged([[0, 0, 40, 40]], [True], [[5, 5, 15, 15]], [0.9]),
        judged([OBJECT], [False], [OBJECT], [0.8]),
    ]
    scores = scores_of(*images)
    assert scores == pytest.approx(dict.fromkeys(scores, 50.0))
    assert scores_of(*images, difficult=False)["box_ap50"] == 100.0


def test_a_detection_on_a_difficult_object_does_not_count_however_often():
    on_difficult = judged([[0, 0, 40, 40]], [True], [[0, 0, 40, 30], [0, 0, 40, 38], [0, 0, 40, 40]], [0.9, 0.8, 0.7])
    scores = scores_of(on_difficult, judged([OBJECT], [False], [OBJECT], [0.5]))
    assert scores["box_ap50"] == 100.0
    assert scores["box_ap75"] == 100.0, "0.75 is reached"
    assert scores["box_ap"] < 100.0, "at .80 and above the first is wrong"


def test_a_detection_whose_best_object_is_taken_is_wrong_though_another_is_free():
    """Objects a and b overlap; both detections lie nearer to a. COCO gives the second one b."""
    a, b = [0.0, 0, 20, 20], [6.0, 0, 26, 20]
    near_a = [1.0, 0, 21, 20]
    image = judged([a, b], [False, False], [a, near_a], [0.9, 0.8])
    assert scores_of(image)["box_ap50_11_point"] == pytest.approx(100 * 6 / 11)  # recalls 0 to .5
    assert scores_of(image, difficult=False)["box_ap50_11_point"] == pytest.approx(100.0)


def test_a_class_of_which_only_difficult_objects_are_there_is_no_class():
    image = judged([OBJECT, FAR], [False, True], [OBJECT, FAR], [0.9, 0.8], [0, 1], [0, 1])
    assert scores_of(image)["box_ap"] == 100.0
    assert evaluator(difficult=True) == {"matching": "PASCAL VOC"}
    assert evaluator(difficult=False).keys() == {"matching", "torchmetrics", "pycocotools"}


def written_down_again(images: list[ImageDetections], label: int, threshold: float) -> tuple[list[bool], int]:
    """The kit's loop over the detections of a class, box by box: whether each that counts is right, and how many
    objects there are to find."""
    every = []
    for number, image in enumerate(images):
        for box, score, of in zip(image.boxes.tolist(), image.scores.tolist(), image.classes.tolist(), strict=True):
            if of == label:
                every.append((-score, number, box))
    every.sort(key=lambda one: one[0])  # stable
    found_before: set[tuple[int, int]] = set()
    right = []
    for _, number, (x, y, right_edge, bottom) in every:
        truth = images[number].truth
        best, chosen = -1.0, -1
        for place, (of, (left, top, r, b)) in enumerate(zip(truth.classes.tolist(), truth.boxes.tolist(), strict=True)):
            across = min(right_edge, r) - max(x, left)
            down = min(bottom, b) - max(y, top)
            if of != label or across <= 0 or down <= 0:
                continue
            both = (right_edge - x) * (bottom - y) + (r - left) * (b - top) - across * down
            if across * down / both > best:
                best, chosen = across * down / both, place
        if best < threshold:
            right.append(False)
        elif not truth.ignored[chosen]:
            right.append((number, chosen) not in found_before)
            found_before.add((number, chosen))
    asked = sum(int(((i.truth.classes == label) & ~i.truth.ignored).sum()) for i in images)
    return right, asked


def at_eleven_points(right: list[bool], asked: int) -> float:
    points = []
    for recall in VOC_RECALLS:
        reached = [sum(right[: k + 1]) / (k + 1) for k in range(len(right)) if sum(right[: k + 1]) / asked >= recall]
        points.append(max(reached, default=0.0))
    return sum(points) / 11


@pytest.mark.parametrize("seed", range(12))
def test_crowded_images_are_judged_as_by_the_rule_written_down_again(seed: int):
    """Objects that overlap, a quarter of them difficult, several detections of each, equal scores among them."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(10):
        count = int(rng.integers(0, 7))
        corner = rng.integers(0, 40, (count, 2))
        there = np.concatenate([corner, corner + rng.integers(4, 30, (count, 2))], axis=1)
        which = rng.integers(0, max(count, 1), int(rng.integers(0, 3 * count + 1)) if count else 0)
        found = there[which] + rng.integers(-3, 4, (len(which), 4))
        elsewhere = np.tile(rng.integers(0, 20, (2, 2)), 2) + np.array([0, 0, 9, 9])
        found = np.concatenate([found, elsewhere])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        scores = (rng.integers(1, 12, len(found)) / 12).tolist()
        of = np.append(np.arange(count) % 2, 0)
        classes = np.concatenate([of[which], rng.integers(0, 2, 2)]).astype(int).tolist()
        difficult = (rng.random(count) < 0.25).tolist()
        images.append(judged(there, difficult, found, scores, (np.arange(count) % 2).tolist(), classes))
    expected = {}
    for threshold in OVERLAPS:
        by_class = [written_down_again(images, label, threshold) for label in (0, 1)]
        expected[threshold] = 100 * np.mean([at_eleven_points(*one) for one in by_class if one[1]])
    scores = scores_of(*images)
    assert 1 < expected[OVERLAPS[0]] < 99
    assert scores["box_ap50_11_point"] == pytest.approx(expected[OVERLAPS[0]], abs=1e-9)
    assert scores["box_ap75_11_point"] == pytest.approx(expected[OVERLAPS[5]], abs=1e-9)
    assert scores["box_ap_11_point"] == pytest.approx(np.mean(list(expected.values())), abs=1e-9)


def test_without_crowds_and_doubles_both_rules_are_one():
    """101 points of VOC's matching against pycocotools' own, where they have nothing to disagree on."""
    rng = np.random.default_rng(5)
    images = []
    for _ in range(8):
        there = np.array([[0, 0, 30, 30], [50, 50, 90, 80]]) + rng.integers(0, 9, (2, 4))
        found = there + rng.integers(-4, 5, (2, 4))
        images.append(judged(there, [False, False], found, rng.permutation(20)[:2] / 20, [0, 1], [0, 1]))
    ours, coco = scores_of(*images), scores_of(*images, difficult=False)
    assert 5 < ours["box_ap"] < 95
    assert ours == pytest.approx(coco, abs=1e-4)
