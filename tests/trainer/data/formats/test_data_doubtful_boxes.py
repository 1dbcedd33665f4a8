"""Boxes that are there twice or in another form: what is told of each, and that what is right is told of nothing."""

import coco_trees
import numpy as np
import pytest
import voc_trees
from pycocotools import mask as reference

from trainer.data.errors import DataError
from trainer.data.formats import mask_extents
from trainer.data.formats.mask_extents import Extents
from trainer.data.registry import open_annotated, open_images, open_multi_label

WIDTH, HEIGHT = coco_trees.WIDTH, coco_trees.HEIGHT
CORNERS = [(x, y, x + 9, y + 7) for x, y in ((1, 2), (14, 3), (20, 12), (9, 10), (3, 11), (18, 1))]


def polygon(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(left, top, right, bottom):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    return {"size": [HEIGHT, WIDTH], "counts": reference.encode(mask)["counts"].decode()}


def sides(left, top, right, bottom):
    return [left, top, right - left, bottom - top]


def told(root, objects, **changed):
    """What a reader says of COCO's objects, (bbox, segmentation) each or with a category as well."""
    annotations = [
        coco_trees.instance(number, (7, 42, 100)[number % 3], *(more or [1]), box, segmentation)
        for number, (box, segmentation, *more) in enumerate(objects)
    ]
    said = []
    coco_trees.opened(coco_trees.put(root, annotations=annotations, **changed), open_images, warn=said.append)
    return [each.removeprefix("data set 'mine': ") for each in said]


FORMS = {
    "left, top, right, bottom": list,
    "centre, width, height": lambda c: [(c[0] + c[2]) / 2, (c[1] + c[3]) / 2, c[2] - c[0], c[3] - c[1]],
    "top, left, height, width": lambda c: [c[1], c[0], c[3] - c[1], c[2] - c[0]],
    "top, left, bottom, right": lambda c: [c[1], c[0], c[3], c[2]],
}


@pytest.mark.parametrize("mask", [polygon, runs])
@pytest.mark.parametrize("form", FORMS)
def test_boxes_in_another_form_than_their_masks_are_told_with_the_form_that_fits(tmp_path, form, mask):
    (said,) = told(tmp_path, [(FORMS[form](corners), mask(*corners)) for corners in CORNERS])
    assert " of 6 boxes of instances_train2017.json are elsewhere than their polygons or run lengths (first in " in said
    assert said.endswith(f"; most of these would fit as {form}: write them as left, top, width, height")


def test_boxes_elsewhere_than_lists_of_run_lengths_ask_whether_these_go_row_by_row(tmp_path):
    def lengths(corners, order):
        left, top, right, bottom = corners
        mask = np.zeros((HEIGHT, WIDTH), np.int8)
        mask[top:bottom, left:right] = 1
        ends = np.flatnonzero(np.diff(mask.ravel(order), prepend=0, append=-1))
        return {"size": [HEIGHT, WIDTH], "counts": np.diff(ends, prepend=0).tolist()}

    (said,) = told(tmp_path, [(sides(*corners), lengths(corners, "C")) for corners in CORNERS])
    assert said.endswith(", or are the run lengths row by row, where COCO's go column by column?")
    assert told(tmp_path, [(sides(*corners), lengths(corners, "F")) for corners in CORNERS]) == []


def test_boxes_that_are_about_where_their_masks_are_are_not_told(tmp_path):
    objects = [(sides(*corners), mask(*corners)) for corners in CORNERS for mask in (polygon, runs)]
    apart = [(sides(1, 2, 25, 18), [*polygon(1, 2, 3, 18)[:1], *polygon(20, 5, 25, 9)])]
    over = [([-5, 3, 12, 9], polygon(-5, 3, 7, 12)), ([25, 3, 5, 9], polygon(25, 3, 40, 12))]
    drawn = [([12, 4, 11, 9], polygon(13, 5, 22, 14))]
    assert told(tmp_path, [*objects[::2], *apart, *over, *drawn]) == []


def test_one_box_elsewhere_is_told_without_a_form(tmp_path):
    (said,) = told(tmp_path, [*((sides(*c), polygon(*c)) for c in CORNERS), ([0, 0, 4, 4], polygon(20, 10, 29, 19))])
    assert said == (
        "1 of 7 boxes of instances_train2017.json are elsewhere than their polygons or run lengths (first in 007.jpg); "
        "are they left, top, width, height, in pixels of the image as it is?"
    )


def test_corners_without_masks_are_told_as_they_reach_over_their_images(tmp_path):
    (said,) = told(tmp_path, [(list(corners), None) for corners in CORNERS])
    assert "5 of 6 boxes of instances_train2017.json reach over the edge of their image or have no area, and" in said
    assert "almost all would lie within it as left, top, right, bottom: are they written so? They are read as " in said
    large = [([6 * x for x in sides(*corners)], None) for corners in CORNERS[1:]]
    (said,) = told(tmp_path, large)
    assert said.endswith("are they left, top, width, height, in pixels of the image as it is, and not of another size?")


def test_voc_s_boxes_written_as_sides_are_told(tmp_path):
    for name, boxes in {"1": [(3, 2, 2, 3), (5, 4, 3, 2)], "2": [(2, 1, 6, 4), (6, 4, 2, 2), (4, 3, 3, 1)]}.items():
        voc_trees.put(tmp_path, name, [("dog", box, 0) for box in boxes])
    voc_trees.put_list(tmp_path, "trainval", ["1", "2"])
    said = []
    voc_trees.opened(tmp_path, splits={"train": ["VOC2007/trainval"]}, warn=said.append)
    (only,) = said
    assert "4 of 5 boxes of split 'train' (VOC2007/trainval) reach over the edge" in only
    assert "as left, top, width, height: are they written so? They are read as xmin, ymin, xmax, ymax" in only


def test_objects_that_are_there_twice_are_told_with_those_of_another_class(tmp_path):
    one, two = ((sides(*corners), polygon(*corners)) for corners in CORNERS[:2])
    objects = [(*one, 1), (*two, 1), (*two, 1), (*one, 13), (*one, 1), (*two, 1), (*one, 1), ([0, 0, 0, 0], None, 1),
               ([0, 0, 0, 0], None, 1), ([0, 0, 0, 0], None, 1), ([0, 0, 0, 0], None, 1)]  # fmt: skip
    same = [coco_trees.instance(number, 7, category, box, mask) for number, (box, mask, category) in enumerate(objects)]
    said = []
    coco_trees.opened(coco_trees.put(tmp_path, annotations=same), open_images, warn=said.append)
    assert said == [
        "data set 'mine': 4 of 11 objects of instances_train2017.json have image, class and box of another one: they "
        "are learned twice, and a detection finds one of two such alone; leave out all but one; 1 more have image and "
        "box of one of another class (first in 007.jpg)"
    ]
    said.clear()
    coco_trees.opened(coco_trees.put(tmp_path, annotations=[same[0], same[3]]), open_images, warn=said.append)
    assert "1 objects of 2 of instances_train2017.json have image and box of one of another class" in said[0]


def test_voc_s_objects_that_are_there_twice_are_told(tmp_path):
    voc_trees.put(tmp_path, "1", [("dog", (1, 1, 8, 6), 0), ("cat", (2, 2, 5, 5), 0), ("dog", (1, 1, 8, 6), 1)])
    voc_trees.put_list(tmp_path, "trainval", ["1"])
    said = []
    voc_trees.opened(tmp_path, splits={"train": ["VOC2007/trainval"]}, warn=said.append)
    assert "1 of 3 objects of split 'train' (VOC2007/trainval) have image, class and box of another one" in said[0]
    assert len(said) == 1


@pytest.mark.parametrize("segmentation", [
    None, [], "abc", 7, [7], [None], ["abcdef"], [[1, 2]], [{}], [[1, 2, 3, 4, 5, "6"]], [[1, 2, 3, 4, 5, 10**400]],
    [[0, 0, 1e9, 0, 5, 5]], [[float("nan")] * 6], {}, {"size": [0, 3], "counts": [0, 3]},
    {"size": [3, 3], "counts": "P"},
    {"size": [3, 3], "counts": [-1, 3]}, {"size": [3, 3], "counts": [9]}, {"size": [3, 3], "counts": [0, 10**30]},
    {"size": "33", "counts": None}, {"size": [3, 3], "counts": 5},
])  # fmt: skip
def test_what_is_no_mask_has_no_extent(segmentation):
    found = Extents()
    found.add(segmentation)
    found.add(polygon(1, 2, 3, 4))
    assert np.isnan(found.boxes()[0]).all()
    assert found.boxes()[1].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("box", [(3, 4, 9, 11), (3, 0, 9, HEIGHT), (0, HEIGHT - 1, 1, HEIGHT), (5, 5, 6, 6)])
def test_the_extent_of_run_lengths_is_that_of_pycocotools(box, monkeypatch):
    found = Extents()
    found.add(runs(*box))
    assert found.boxes().tolist() == [list(box)]
    monkeypatch.setattr(mask_extents, "MOST_RUNS", 3)
    few = Extents()
    few.add(runs(*box))
    assert np.isnan(few.boxes()).all(), "run lengths are looked at as far as that is quick"


@pytest.mark.parametrize("listed", ["no list", "an empty list"])
def test_coco_without_annotations_is_told_and_refused_where_objects_are_asked_for(tmp_path, listed):
    file = coco_trees.put(tmp_path, annotations=[]) / "annotations/instances_train2017.json"
    if listed == "no list":
        file.write_text(file.read_text().replace('"annotations": [], ', ""))
    said = []
    assert len(coco_trees.opened(tmp_path, open_images, warn=said.append)) == 3
    assert said == [
        f"data set 'mine': split 'train': instances_train2017.json has {listed} `annotations`, so that no image of it "
        "has an object: they are for pretraining alone. Name the file of their instances, as instances_val2017.json"
    ]
    for opener in (open_annotated, open_multi_label):
        with pytest.raises(DataError, match=r"split 'train' of data set 'mine' has no object in any of its 3 images"):
            coco_trees.opened(tmp_path, opener, limit=1)


@pytest.mark.parametrize("mask", [polygon, runs])
def test_masks_that_are_boxes_once_more_are_told(tmp_path, mask):
    many = [(x, y, x + 4, y + 3) for x in range(0, 25, 5) for y in range(0, 20, 4)]
    (said,) = told(tmp_path / "all", [(sides(*each), mask(*each)) for each in many])
    assert said.startswith(
        "25 of 25 masks of instances_train2017.json are upright rectangles: were they made of boxes?"
    )
    others = [(sides(x, y, r, b), [[x, y, r, y, r, b - 1, x, b]]) for x, y, r, b in many]
    assert told(tmp_path / "none", others) == []
    assert told(tmp_path / "few", [(sides(*each), mask(*each)) for each in many[:19]]) == []
    outlined = [(sides(*each), mask(*each)) for each in many[:22]] + others[22:]
    assert told(tmp_path / "some", outlined) == []


@pytest.mark.parametrize(
    ("points", "is_one"),
    [
        ([1, 2, 5, 2, 5, 6, 1, 6], True),
        ([5, 6, 1, 6, 1, 2, 5, 2, 5, 6], True),
        ([1, 2, 5, 6, 5, 2, 1, 6], False),
        ([1, 2, 5, 2, 5, 6], False),
        ([1, 2, 5, 2, 5, 6, 1, 5], False),
        ([1, 2, 3, 2, 5, 2, 5, 6, 1, 6], False),
    ],
)
def test_upright_rectangles_are_four_corners_in_order(points, is_one):
    extents = Extents()
    extents.add([points])
    assert list(extents.are_rectangles) == [is_one]
