"""A tree of VOC's layout: boxes that count from 1, difficult objects, classes, order, annotations that are wrong."""

import hashlib
import os

import numpy as np
import pytest
from voc_trees import CAT, DOG, opened, put, put_list

from trainer.data.errors import DataError, UnreadableImage
from trainer.data.formats.named_files import named_files
from trainer.data.formats.voc import CLASSES
from trainer.data.image_files import PackedNames
from trainer.data.registry import open_data_set, open_images


@pytest.fixture
def tree(tmp_path):
    put(tmp_path, "0002", [DOG, CAT])
    put(tmp_path, "0001", [])
    put(tmp_path, "0003", [("cat", (8, 6, 8, 6), 0), ("cat", (1, 1, 2, 2), 1), ("person", (1.4, 1, 2.5, 2), 0)])
    put(tmp_path, "2012_1", [("tvmonitor", (1, 1, 2, 2), 0)], folder="VOC2012")
    put_list(tmp_path, "trainval", ["0002", "0001"])
    put_list(tmp_path, "test", ["0003"])
    put_list(tmp_path, "trainval", ["2012_1", ""], "VOC2012")
    return tmp_path


def test_boxes_lose_the_one_that_voc_counts_from_and_difficult_objects_are_ignored(tree):
    data = opened(tree)
    assert [data.name(i) for i in range(3)] == [
        "VOC2007/JPEGImages/0002.jpg", "VOC2007/JPEGImages/0001.jpg", "VOC2012/JPEGImages/2012_1.jpg",
    ]  # fmt: skip
    found = data.annotation(0)
    np.testing.assert_array_equal(found.boxes, np.array([[0, 0, 8, 6], [1, 2, 4, 5]], np.float32))
    assert found.boxes.dtype == np.float32
    assert [CLASSES[label] for label in found.classes] == ["dog", "cat"]
    assert found.ignored.tolist() == [False, True]
    assert (found.masks, data.has_masks, data.ignored_are_difficult) == (None, False, True)
    assert (data.size(0), data.image(0).shape) == ((6, 8), (6, 8, 3))
    assert data.annotation(1).boxes.shape == (0, 4)
    assert CLASSES[data.annotation(2).classes[0]] == "tvmonitor"
    last = opened(tree, "test").annotation(0)
    np.testing.assert_allclose(last.boxes, [[7, 5, 8, 6], [0, 0, 2, 2], [0.4, 0, 2.5, 2]], rtol=1e-6)


def test_boxes_that_are_fractions_of_their_image_are_told(tree):
    put(tree, "0002", [DOG, ("cat", (0.25, 0.1, 0.75, 1), 0), ("cat", (1, 1, 2, 2), 0)])
    said = []
    opened(tree, warn=said.append)
    (told,) = said
    assert "data set 'mine': 1 of " in told
    assert "lie between 0 and 1: are they fractions of the image's sides? Boxes are read as pixels; mul" in told


def test_boxes_that_begin_at_pixel_0_are_told(tree):
    said = []
    put(tree, "0002", [DOG])
    opened(tree, warn=said.append)
    assert said == []
    put(tree, "0002", [("dog", (0, 0, 7, 5), 0), ("cat", (3, 0, 7, 5), 0), ("cat", (1, 1, 7, 5), 0)])
    opened(tree, warn=said.append)
    (told,) = said
    assert (
        "2 of 4 boxes of split 'train' (VOC2007/trainval, VOC2012/trainval) begin at pixel 0; VOC counts from 1" in told
    )
    assert "does the file count from 0? Then all of its boxes are read one pixel too far left and up: add 1 to" in told


def test_presence_says_what_is_there_what_is_not_and_what_is_only_difficult(tree):
    there = opened(tree).presence()
    assert (there.shape, there.dtype) == ((3, 20), np.int8)
    expected = {(0, "dog"): 1, (0, "cat"): -1, (2, "tvmonitor"): 1}
    for (image, label), value in np.ndenumerate(there):
        assert value == expected.get((image, CLASSES[label]), 0)
    in_test = opened(tree, "test").presence()[0]
    assert (in_test[CLASSES.index("cat")], in_test[CLASSES.index("person")]) == (1, 1)


def test_an_object_in_an_empty_box_is_there_and_nothing_is_known_of_its_class(tree):
    put(tree, "0001", [("dog", (3, 3, 2, 5), 0), ("person", (9, 1, 9, 6), 0), ("cat", (1, 1, 2, 2), 0)])
    data = opened(tree)
    assert data.annotation(1).ignored.tolist() == [False, False, False]
    of = data.presence()[1]
    assert [of[CLASSES.index(name)] for name in ("dog", "person", "cat")] == [-1, -1, 1]


def test_boxes_without_an_area_and_boxes_that_are_cut_are_counted_by_image(tree):
    put(tree, "0002", [DOG, ("cat", (5, 5, 2, 2), 1), ("cat", (6, 6, 2, 2), 0)])
    put(tree, "0001", [("dog", (100, 1, 120, 6), 0)])
    for data, images in ((opened(tree), 3), (opened(tree, limit=2), 2)):
        found = data.box_counts()
        assert found.objects.tolist() == [3, 1, 1][:images], "difficult ones are learned"
        assert found.without_area.tolist() == [2, 1, 0][:images]
        assert found.cut.tolist() == [0, 1, 0][:images]


def test_classes_are_voc_s_or_those_found_over_all_splits(tree):
    assert opened(tree).classes == opened(tree, "test").classes == CLASSES
    put(tree, "0003", [("zebra", (1, 1, 2, 2), 0)])
    for split in ("train", "test"):
        assert opened(tree, split).classes == ("cat", "dog", "tvmonitor", "zebra")
    assert opened(tree, "test").annotation(0).classes.tolist() == [3]
    with pytest.raises(DataError, match=r"'voc07' has 4 classes in .*, and 20 are expected"):
        opened(tree, name="voc07")


def test_the_first_images_keep_their_annotations(tree):
    first = opened(tree, limit=2)
    assert (len(first), first.presence().shape, first.has_masks, first.size(1)) == (2, (2, 20), False, (6, 8))
    assert len(first.annotation(0).boxes) == 2
    assert first.name(1) == "VOC2007/JPEGImages/0001.jpg"
    with pytest.raises(IndexError):
        first.annotation(2)
    assert len(opened(tree, opener=open_images, limit=2)) == 2
    with pytest.raises(
        DataError,
        match="is for pretrain, closed_form, svm, detection: it has boxes, the classes in each image and no single",
    ):
        opened(tree, opener=open_data_set)


def test_the_fingerprint_is_of_lists_annotations_and_sizes(tree):
    before = opened(tree).fingerprint
    assert opened(tree).fingerprint == before
    assert opened(tree, "test").fingerprint != before
    put(tree, "0002", [DOG, ("cat", (2, 3, 4, 6), 1)])
    changed = opened(tree).fingerprint
    assert changed != before
    put_list(tree, "trainval", ["0001", "0002"])
    assert opened(tree).fingerprint not in (before, changed)


ENTITY = '<!DOCTYPE annotation [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'


@pytest.mark.parametrize(("change", "message"), [
    (lambda root: put(root, "0002", [DOG], extra=ENTITY), "document type .annotation., and with it perhaps entities"),
    (lambda root: put(root, "0002", [DOG], side=(0, 6)), r"0002.xml .*a size of 0 x 6 pixels"),
    (lambda root: put(root, "0002", [("", (1, 1, 2, 2), 0)]), "an object without a name"),
    (lambda root: put(root, "0002", [("dog", (1, "x", 2, 2), 0)]), "ymin is 'x'; a number is expected"),
    (lambda root: put(root, "0002", [("dog", (1, "nan", 2, 2), 0)]), "ymin is 'nan'"),
    (lambda root: (root / "VOC2007/Annotations/0002.xml").write_text("<annotation>"), "0002.xml cannot be read as XML"),
    (lambda root: (root / "VOC2007/Annotations/0003.xml").unlink(), "annotation .*0003.xml cannot be read: No such"),
    (lambda root: (root / "VOC2007/JPEGImages/0001.jpg").unlink(), "1 of the 3 images .*JPEGImages/0001.jpg"),
    (lambda root: put_list(root, "trainval", ["0002", "\0"]), "trainval.txt cannot be read: it is no text in UTF-8"),
    (lambda root: put(root, "0002", [], extra='<?xml version="1.0" encoding="gbk"?>'), "0002.xml' cannot be read"),
    (lambda root: put_list(root, "trainval", ["0002", "0001", "0002"]), "names '0002' of VOC2007 twice"),
    (lambda root: put_list(root, "trainval", ["0002 -1", "0001 1"]), "trainval.txt, line 1: a list of one class"),
    (lambda root: (root / "VOC2012/ImageSets/Main/trainval.txt").unlink(), "No such file .*trainval.txt"),
])  # fmt: skip
def test_what_is_wrong_is_named(tree, change, message):
    change(tree)
    with pytest.raises(DataError, match=message):
        opened(tree)


@pytest.mark.parametrize(
    ("box", "seen", "cut"),
    [
        ((0, 1, 10.5, 2), [0, 0, 8, 2], 1),
        ((-2, 1, 2, 2), [0, 0, 2, 2], 1),
        ((5, 1, 2, 2), [4, 0, 4, 2], 0),
        ((1, 1, 2, 99), [0, 0, 2, 6], 1),
        ((20, 1, 30, 2), [8, 0, 8, 2], 1),
    ],
)
def test_a_box_is_cut_off_at_the_edges_of_its_image(tree, box, seen, cut):
    put(tree, "0002", [DOG, ("cat", box, 0)])
    found = opened(tree).annotation(0)
    assert (found.boxes.tolist(), found.cut) == ([[0, 0, 8, 6], seen], cut)


@pytest.mark.parametrize(
    ("said", "difficult"),
    [("0", False), ("1", True), ("1.0", True), ("0.0", False), ("True", True), ("Unspecified", False), ("", False)],
)
def test_difficult_is_read_however_it_is_written(tree, said, difficult):
    put(tree, "0002", [("cat", (1, 1, 2, 2), said)])
    assert opened(tree).annotation(0).ignored.tolist() == [difficult]
    put(tree, "0002", [("cat", (1, 1, 2, 2), "perhaps")])
    with pytest.raises(DataError, match=r"0002\.xml .*difficult is 'perhaps'; a number is expected"):
        opened(tree)


def test_a_difficult_not_heeded_before_changes_its_fingerprint_and_no_other(tree):
    def keeps(said):
        put(tree, "0002", [("cat", (1, 1, 2, 2), said)])
        data, names, annotations = opened(tree), PackedNames(), hashlib.sha256()
        for index in range(len(data)):
            names.append(data.name(index).encode())
            xml = data.name(index).replace("JPEGImages", "Annotations").replace(".jpg", ".xml")
            annotations.update(hashlib.sha256((tree / xml).read_bytes()).digest())
        files = named_files("x", os.fsencode(tree), names, lambda: None).digest.hex()
        before = repr((data.classes, files, annotations.hexdigest()))
        return data.fingerprint == hashlib.sha256(before.encode()).hexdigest()

    assert [keeps(said) for said in ("0", "1", " 1 ", "", "0.0", "Unspecified")] == [True] * 6
    assert [keeps(said) for said in ("1.0", "True", "01")] == [False] * 3


def test_an_image_of_another_size_than_annotated_is_unreadable(tree):
    put(tree, "0002", [DOG], side=(9, 6))
    with pytest.raises(UnreadableImage, match="it has 8 x 6 pixels, and its annotation says 9 x 6"):
        opened(tree).image(0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0001.jpg", r"annotation .*0001.jpg.xml cannot be read: No such file or directory; lists of VOC name images "
                     "without folder and ending: '0001', not '0001.jpg'"),
        ("JPEGImages\\0001.JPG", "without folder and ending: '0001', not "),
        ("0004.2", r"0004.2.xml cannot be read: No such file or directory$"),
        ("0001\n".encode("utf-16"), r"trainval.txt cannot be read: it is no text in UTF-8; save it as that"),
    ],
)  # fmt: skip
def test_a_list_that_names_images_in_another_form_is_told_of_its_own(tree, line, words):
    path = tree / "VOC2007/ImageSets/Main/trainval.txt"
    path.write_bytes(line if isinstance(line, bytes) else line.encode())
    with pytest.raises(DataError, match=words):
        opened(tree)
