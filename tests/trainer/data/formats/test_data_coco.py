"""Instances in COCO's JSON: categories with gaps, polygons and run lengths as pycocotools has them, and damage."""

import json
import os
import re

import numpy as np
import pytest
from coco_trees import CATEGORIES, CROWD, HEIGHT, TRIANGLE, WIDTH, instance, opened, put
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as reference
from pycocotools.coco import COCO

from trainer.data.datasets import MaskFaults
from trainer.data.errors import DataError, UnreadableImage
from trainer.data.formats import coco
from trainer.data.formats.coco import _shows, mask_of
from trainer.data.loading.detection import DetectionBatches, judged_images
from trainer.data.registry import open_data_set


def masked(data):
    """The data set with masks, all of which can be read."""
    with_masks, faults = data.with_masks(lambda: None)
    assert faults == MaskFaults()
    return with_masks


def test_images_come_by_their_ids_and_categories_close_their_gaps(tmp_path):
    data = opened(put(tmp_path))
    assert [data.name(i) for i in range(3)] == ["007.jpg", "042.jpg", "100.jpg"]
    assert data.classes == ("person", "stop sign", "toothbrush")
    assert (data.size(1), data.has_masks, data.ignored_are_difficult) == ((HEIGHT, WIDTH), True, False)
    found = data.annotation(1)
    np.testing.assert_allclose(found.boxes, [[2.5, 3.25, 20.1, 17.3], [2, 10, 11, 20], [10, 10, 10, 13]], rtol=1e-6)
    assert found.classes.tolist() == [2, 1, 0]
    assert found.ignored.tolist() == [False, True, False]  # a crowd; a box that nothing is in is missed
    assert found.masks is None, "nobody asked for them"
    np.testing.assert_array_equal(data.annotation(0).boxes, np.array([[0, 0, 29.996, 20]], np.float32))
    assert masked(data).annotation(2).masks.shape == (0, HEIGHT, WIDTH)
    assert data.presence().tolist() == [[1, 0, 0], [-1, -1, 1], [0, 0, 0]]


def test_masks_are_those_of_pycocotools(tmp_path):
    data = masked(opened(put(tmp_path)))
    coco = COCO(str(tmp_path / "annotations/instances_train2017.json"))
    for index, image in enumerate((7, 42, 100)):
        masks = data.annotation(index).masks
        assert masks.dtype == np.bool_
        expected = [coco.annToMask(coco.anns[number]) for number in coco.getAnnIds(imgIds=image)]
        np.testing.assert_array_equal(masks, np.array(expected, bool).reshape(-1, HEIGHT, WIDTH))


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_written_by_pycocotools_are_read_as_it_reads_them(seed):
    rng = np.random.default_rng(seed)
    mask = np.asfortranarray(rng.random((rng.integers(1, 60), rng.integers(1, 60))) < rng.choice([0.0, 0.02, 0.5, 1.0]))
    encoded = reference.encode(mask.astype(np.uint8))
    height, width = mask.shape
    found = mask_of({"size": [height, width], "counts": encoded["counts"].decode()}, height, width)
    np.testing.assert_array_equal(found, mask)
    np.testing.assert_array_equal(found, reference.decode(encoded))


def test_masks_stand_where_they_are_however_little_of_the_image_they_cover(tmp_path):
    masks = np.zeros((7, HEIGHT, WIDTH), bool)
    for mask, where in zip(masks, [
        np.s_[:0], np.s_[:], np.s_[0, 0], np.s_[-1, -1], np.s_[3:7, 5:20:3], np.s_[[2, 9], [25, 4]], np.s_[:, 29],
    ], strict=True):  # fmt: skip
        mask[where] = True
    runs = [reference.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode() for mask in masks]
    annotations = [
        instance(number, 7, 1, [0, 0, 9, 9], {"size": [HEIGHT, WIDTH], "counts": counts})
        for number, counts in enumerate(runs)
    ]
    data, _ = opened(put(tmp_path, annotations=annotations)).with_masks(lambda: None)
    np.testing.assert_array_equal(data.annotation(0).masks, masks)


def test_a_large_blank_image_needs_runs_of_several_characters():
    mask = np.zeros((700, 900), bool, order="F")
    mask[100:600, 300:333] = True
    encoded = reference.encode(mask.astype(np.uint8))
    assert mask_of({"size": [700, 900], "counts": encoded["counts"].decode()}, 700, 900).sum() == 500 * 33
    np.testing.assert_array_equal(mask_of({"size": [700, 900], "counts": encoded["counts"].decode()}, 700, 900), mask)


@pytest.mark.parametrize(("segmentation", "message"), [
    ([], "neither polygons nor run lengths of 20 x 30 pixels"),
    (None, "neither polygons"),
    ([[1, 2, 3, 4]], "three points or more"),
    ([[1, 2, 3, 4, 5]], "three points or more"),
    ([[1, 2, 3, 4, 5, 1e300]], "a polygon is a list"),
    ([[1, 2, 3, 4, 5, "6"]], "a polygon is a list"),
    ({"size": [30, 20], "counts": [600]}, "neither polygons nor run lengths of 20 x 30"),
    ({"size": [20, 30], "counts": [599]}, "run lengths of 599 pixels for 20 x 30"),
    ({"size": [20, 30], "counts": [-1, 601]}, "run lengths are numbers"),
    ({"size": [20, 30], "counts": ""}, "run lengths of 0 pixels"),
    ({"size": [20, 30], "counts": "zzzz"}, "other characters"),
    ({"size": [20, 30], "counts": "PPP"}, "end within a number"),
    # What took pycocotools' memory and with it the process, and what was read in the square of its length.
    ([[x for turn in range(1000) for x in (65536 * (turn % 2), turn)]], "outline of more than 4,194,304 pixels"),
    ({"size": [20, 30], "counts": "o" * 2_000_000}, "a number that is too large"),
])  # fmt: skip
def test_a_mask_that_is_none_costs_its_object_only_where_masks_are_asked_for(tmp_path, segmentation, message):
    annotations = [
        instance(1, 7, 1, [0, 0, 2, 2]),
        instance(2, 42, 13, [0, 0, 2, 2], segmentation),
        instance(3, 42, 1, [5, 5, 9, 9]),
        instance(4, 100, 90, [0, 0, 3, 3]),
    ]
    data = opened(put(tmp_path, annotations=annotations))
    whole = data.annotation(1)
    assert (whole.boxes.tolist(), whole.masks) == ([[0, 0, 2, 2], [5, 5, 14, 14]], None)
    with_masks, faults = data.with_masks(lambda: None)
    assert (faults.objects, faults.polygons) == (1, 0)
    assert re.search(f"^042.jpg: .*{message}", faults.first)
    there = with_masks.annotation(1)
    assert (there.boxes.tolist(), there.classes.tolist()) == ([[5, 5, 14, 14]], [0])
    np.testing.assert_array_equal(there.masks, [mask_of(TRIANGLE, HEIGHT, WIDTH)])
    assert [with_masks.annotation(index).masks.any() for index in (0, 2)] == [True, True]
    assert with_masks.presence().tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert data.presence()[1].tolist() == [1, 1, 0]
    (first, _), none = opened(tmp_path, limit=1).with_masks(lambda: None), MaskFaults()
    assert (len(first), first.annotation(0).masks.any()) == (1, True)
    assert opened(tmp_path, limit=1).with_masks(lambda: None)[1] == none, "the others were not looked at"


@pytest.mark.parametrize("bad", [[5, 5, 6, 6], [], [1, 2, 3, 4, 5], "abc", [1, 2, 3, 4, 5, None], 7])
@pytest.mark.parametrize("first", [True, False])
def test_a_polygon_that_is_none_is_left_out_of_a_mask_that_has_others(tmp_path, bad, first):
    """As detectron2 reads it; pycocotools would take all of them for boxes where the first has two points."""
    segmentation = [bad, *TRIANGLE] if first else [*TRIANGLE, bad]
    data = opened(put(tmp_path, annotations=[instance(1, 7, 1, [0, 0, 2, 2], segmentation)]))
    with_masks, faults = data.with_masks(lambda: None)
    assert (faults.objects, faults.polygons) == (0, 1)
    assert "007.jpg: 1 of its polygons left out" in faults.first
    np.testing.assert_array_equal(with_masks.annotation(0).masks, [mask_of(TRIANGLE, HEIGHT, WIDTH)])


def test_many_polygons_are_those_of_pycocotools_and_too_many_cost_their_object(monkeypatch):
    rng = np.random.default_rng(0)
    many = (rng.random((40, 1, 2)) * [WIDTH, HEIGHT] + rng.normal(size=(40, 3, 2)) * 3).reshape(40, 6).tolist()
    expected = reference.decode(reference.merge(reference.frPyObjects(many, HEIGHT, WIDTH)))
    np.testing.assert_array_equal(mask_of(many, HEIGHT, WIDTH), expected)
    monkeypatch.setattr(coco, "MAX_OUTLINE", 39 * 64)
    assert not mask_of([[1, 1, 2, 2, 3, 1]] * 39, HEIGHT, WIDTH).any()
    with pytest.raises(ValueError, match="outline of more than 2,496 pixels, 64 at least for each"):
        mask_of([[1, 1, 2, 2, 3, 1]] * 40, HEIGHT, WIDTH)


def test_an_image_of_more_masks_than_memory_is_unreadable_before_they_are_laid_out(tmp_path):
    image = {"id": 7, "file_name": "007.jpg", "height": 1 << 16, "width": 1 << 16}
    annotations = [instance(number, 7, 1, [0, 0, 2, 2]) for number in range(400)]
    data = masked(opened(put(tmp_path, images=[image], annotations=annotations)))
    said = (
        "007.jpg cannot be read: its masks: 400 of 65,536 x 65,536 pixels, and all of an image may have 1,610,612,736"
    )
    with pytest.raises(UnreadableImage, match=said):
        data.annotation(0)


@pytest.mark.parametrize(("bound", "most", "cause"), [
    ("MAX_PIXELS_OF_MASKS", 2 * HEIGHT * WIDTH, "3 of 30 x 20 pixels, and all of an image may have 1,200 together"),
    ("MAX_OUTLINE_OF_IMAGE", 128, "polygons with an outline of more than 128 pixels together"),
])  # fmt: skip
def test_an_image_of_too_costly_masks_is_replaced_left_out_by_name_and_counted(
    tmp_path, monkeypatch, bound, most, cause
):
    annotations = [instance(number, (42, 42, 42, 7, 100)[number], 1, [0, 0, 9, 9]) for number in range(5)]
    data = masked(opened(put(tmp_path, annotations=annotations)))
    monkeypatch.setattr(coco, bound, most)
    batches = DetectionBatches(data, sides=(8,), longest=20, batch_size=3, seed=0, rank=0, world_size=1, threads=1)
    (batch,) = batches.iterate(0, 1)
    assert batch.skipped == {"042.jpg": f"its masks: {cause}"}
    assert sorted(batch.indices.tolist()) == [0, 2, 2]
    judged = list(judged_images(data, range(3), short=8, longest=20, threads=1))
    assert [str(one.unreadable) for one in judged if one.image is None] == [
        f"042.jpg cannot be read: its masks: {cause}"
    ]


SLIVER = [4.1, 4.1, 4.3, 4.1, 4.2, 9.3]
EMPTY = "a mask of no pixel, or of the first one alone; points are pixels, no fractions"


@pytest.mark.parametrize(("segmentation", "empty"), [
    ([SLIVER], True), ([[-9, -9, -4, -9, -4, -2]], True), ([[0.1, 0.2, 0.9, 0.2, 0.9, 0.9, 0.1, 0.9]], True),
    ([[0, 0, 1, 0, 1, 1, 0, 1]], True), ({"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}, True),
    ([SLIVER, *TRIANGLE], False), ([[2, 2, 6, 2, 6, 6, 2, 6]], False), (CROWD, False),
])  # fmt: skip
def test_a_mask_that_shows_nothing_is_counted_and_its_object_kept(tmp_path, segmentation, empty):
    data = opened(put(tmp_path, annotations=[instance(1, 7, 1, [0, 0, 2, 2], segmentation)]))
    with_masks, faults = data.with_masks(lambda: None)
    assert faults == MaskFaults(empty=int(empty), first=f"007.jpg: {EMPTY}" if empty else "")
    found = with_masks.annotation(0)
    assert (len(found.boxes), bool(found.masks.sum() > 1)) == (1, not empty)


@settings(max_examples=300, deadline=None)
@given(points=st.lists(st.floats(-3, 33), min_size=6, max_size=10).filter(lambda all_: len(all_) % 2 == 0))
def test_what_shows_nothing_is_what_pycocotools_fills_no_pixel_of(tmp_path_factory, points):
    points[0] += 2 if max(points) <= 1.01 else 0
    encoded = reference.frPyObjects([points], HEIGHT, WIDTH)
    assert _shows(points, HEIGHT, WIDTH) == bool(reference.area(encoded)[0])


@pytest.mark.parametrize("whole", [True, False])
def test_boxes_that_are_fractions_of_their_image_are_told(tmp_path, whole):
    said = []
    boxes = [[0.1, 0.2, 0.5, 0.3], [0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0], [0, 0, 9, 1]]
    annotations = [instance(number, 7, 1, box, None) for number, box in enumerate(boxes[-2:] if whole else boxes)]
    opened(put(tmp_path, annotations=annotations), warn=said.append)
    assert said == ([] if whole else [
        "data set 'mine': 3 of 5 boxes of instances_train2017.json lie between 0 and 1: are they fractions of the "
        "image's sides? Boxes are read as pixels; multiply these by width and height"
    ])  # fmt: skip


def as_floats(value):
    if isinstance(value, dict):
        return {name: as_floats(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_floats(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def test_numbers_written_as_floats_are_read(tmp_path):
    plain, floats = opened(put(tmp_path / "plain")), opened(put_floats(tmp_path / "floats"))
    assert "7.0" in (tmp_path / "floats/annotations/instances_train2017.json").read_text()
    for index in range(3):
        ours, theirs = masked(plain).annotation(index), masked(floats).annotation(index)
        assert plain.size(index) == floats.size(index)
        for part in ("boxes", "classes", "ignored", "masks"):
            np.testing.assert_array_equal(getattr(ours, part), getattr(theirs, part))


def put_floats(root):
    file = put(root) / "annotations/instances_train2017.json"
    file.write_text(json.dumps(as_floats(json.loads(file.read_text()))))
    return root


def test_instances_without_masks_are_boxes(tmp_path):
    boxes = [{key: value for key, value in instance(1, 7, 1, [0, 0, 2, 2]).items() if key != "segmentation"}]
    data = opened(put(tmp_path, annotations=boxes))
    assert (data.has_masks, data.annotation(0).masks) == (False, None)


@pytest.mark.parametrize(("changed", "message"), [
    ({"annotations": [instance(1, 8, 1, [0, 0, 1, 1])]}, "an annotation names image 8, which the file does not have"),
    ({"annotations": [instance(1, 7, 2, [0, 0, 1, 1])]}, "an annotation names category 2"),
    ({"annotations": [instance(1, 7, 1, [0, 0, 1, 1])] * 2}, "several annotations with the id 1"),
    ({"annotations": [instance(1, 7, 1, [0, 0, 1])]}, "bbox of annotation 1 is no list of 4 numbers"),
    ({"annotations": [instance(1, 7, 1, [0, 0, 1, None])]}, "bbox of annotation 1"),
    ({"annotations": [instance(1, 7, 1, [0, 0, 1, 10**400])]}, "bbox of annotation 1"),
    ({"annotations": [instance(1, 7, 1, [0, 0, 1, float("nan")])]}, "bbox of annotation 1"),
    ({"images": [{"id": 7, "file_name": "\ud800", "height": 9, "width": 9}], "annotations": []}, "1 of the 1 images"),
    ({"images": [{"id": 7, "file_name": "\0.jpg", "height": 9, "width": 9}], "annotations": []}, "embedded null"),
    ({"images": [{"id": 7, "file_name": "007.jpg", "height": 20, "width": 30}] * 2}, "several entries of image 7"),
    ({"images": [{"id": 7, "file_name": "007.jpg", "height": 0, "width": 30}]}, "image 7 has a height of 0 pixels"),
    ({"images": [], "annotations": []}, "instances_train2017.json names no image"),
    ({"annotations": [instance(1, 7, 1, [0, 0, 1, 1], iscrowd="0")]}, "iscrowd of annotation 1 is '0'; 0 or 1"),
    ({"annotations": [instance(1, 7, 1.5, [0, 0, 1, 1])]}, "'category_id' of entry 1 of 'annotations' is 1.5; an int"),
    ({"categories": CATEGORIES * 2}, "several entries of category 90"),
])  # fmt: skip
def test_what_does_not_fit_together_is_refused(tmp_path, changed, message):
    root = put(tmp_path)
    file = root / "annotations/instances_train2017.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    with pytest.raises(DataError, match=message):
        opened(root)


def test_a_missing_image_a_file_cut_short_and_another_number_of_classes_are_refused(tmp_path):
    file = put(tmp_path) / "annotations/instances_train2017.json"
    with pytest.raises(DataError, match=r"'coco' has 3 classes in .*, and 80 are expected"):
        opened(tmp_path, name="coco")
    wrong = "'mine' is for pretrain, closed_form, svm, detection: it has boxes, masks, the classes"
    with pytest.raises(DataError, match=wrong):
        opened(tmp_path, open_data_set)
    (tmp_path / "train2017/042.jpg").rename(tmp_path / "away.jpg")
    with pytest.raises(DataError, match=r"1 of the 3 images that instances_train2017.json names .*first 042.jpg"):
        opened(tmp_path)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match="is the file whole"):
        opened(tmp_path)


@pytest.mark.parametrize(("box", "seen", "cut"), [
    ([25, 0, 7, 3], [25, 0, 30, 3], 1),
    ([-3, 0, 5, 5], [0, 0, 2, 5], 1),
    ([3, 3, 1e20, 2], [3, 3, 30, 5], 1),
    ([40, 3, 5, 5], [30, 3, 30, 8], 1),  # nothing is left of it
    ([3, 3, -2, 2], [3, 3, 3, 5], 0),
    ([3, 3, 2, 2], [3, 3, 5, 5], 0),
])  # fmt: skip
def test_a_box_is_cut_off_at_the_edges_of_its_image(tmp_path, box, seen, cut):
    data = opened(put(tmp_path, annotations=[instance(1, 7, 1, box)]))
    found = data.annotation(0)
    assert (found.boxes.tolist(), found.cut, found.ignored.tolist()) == ([seen], cut, [False])
    assert data.presence()[0].tolist() == [-1 if seen[0] == seen[2] else 1, 0, 0]


def test_the_fingerprint_is_of_the_annotations_and_of_the_sizes_of_images(tmp_path):
    before = opened(put(tmp_path)).fingerprint
    os.utime(tmp_path / "train2017/007.jpg", (0, 0))
    assert opened(tmp_path).fingerprint == before
    with (tmp_path / "train2017/007.jpg").open("ab") as file:
        file.write(b"\0")
    assert opened(tmp_path).fingerprint != before
    assert opened(put(tmp_path, info={"year": 2018})).fingerprint != before


def test_the_first_images_keep_their_masks(tmp_path):
    first = opened(put(tmp_path), limit=1)
    assert (len(first), first.has_masks, masked(first).annotation(0).masks.shape) == (1, True, (1, HEIGHT, WIDTH))
