"""Data sets that a list or a JSON file describes, one class an image: Places205's lists, iNaturalist's annotations."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from barlow_lab.specs.data_sets import FileListSource, INaturalistSource
from trainer.data.errors import DataError, UnreadableImage
from trainer.data.registry import open_annotated, open_data_set


def put(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (level, 0, 0)).save(path, "PNG")


def levels(data):
    return [int(data.image(index)[0, 0, 0]) for index in range(len(data))]


@pytest.fixture
def lists(tmp_path):
    lines = ["a/abbey/one.jpg 0", "a/abbey/two words.jpg 0", "", "b/bar/x.jpg 1", "b/bar/y.jpg 1", "c/cave/z.jpg 2"]
    for level, line in enumerate(line for line in lines if line):
        put(tmp_path / "images" / line.rsplit(" ", 1)[0], 10 * level)
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "val.csv").write_text("b/bar/x.jpg 1\r\n")
    return tmp_path


def of_list(root, split="train", name="places", **more):
    splits = {"train": "train.csv", "test": "val.csv"}
    return open_data_set(
        name, split, source=FileListSource(format="file_list", root=root, splits=splits, images="images"), **more
    )


def test_a_list_s_images_come_one_of_each_class_in_turn_in_the_order_of_the_list(lists):
    data = of_list(lists)
    assert data.labels().tolist() == [0, 1, 2, 0, 1]
    assert levels(data) == [0, 20, 40, 10, 30]
    assert [data.name(i) for i in range(5)] == [
        "a/abbey/one.jpg", "b/bar/x.jpg", "c/cave/z.jpg", "a/abbey/two words.jpg", "b/bar/y.jpg",
    ]  # fmt: skip
    first = of_list(lists, limit=3)
    assert (levels(first), first.labels().tolist(), first.name(2)) == ([0, 20, 40], [0, 1, 2], "c/cave/z.jpg")


def test_every_split_has_the_classes_of_all_lists(lists):
    test = of_list(lists, "test")
    assert test.classes == of_list(lists).classes == ("0", "1", "2")
    assert (len(test), test.label(0)) == (1, 1)


def test_the_fingerprint_of_a_list_is_of_names_sizes_and_classes(lists):
    before = of_list(lists).fingerprint
    os.utime(lists / "images/b/bar/x.jpg", (0, 0))
    assert of_list(lists).fingerprint == before
    (lists / "train.csv").write_text((lists / "train.csv").read_text().replace("y.jpg 1", "y.jpg 2"))
    relabelled = of_list(lists).fingerprint
    assert relabelled != before
    with (lists / "images/b/bar/x.jpg").open("ab") as file:
        file.write(b"\0")
    assert of_list(lists).fingerprint not in (before, relabelled)


@pytest.mark.parametrize(("line", "message"), [
    ("a/abbey/one.jpg", r"train.csv, line 1: 'a/abbey/one.jpg' is no image; a line is the path"),
    ("a/abbey/one.jpg -1", "line 1: .* is no image"),
    ("file,class\na/abbey/one.jpg,0", "line 1: 'file,class' is no image; .* without a heading, commas or quotes$"),
    ("a/abbey/one.jpg,0", "line 1: .* is no image; .* without a heading, commas or quotes$"),
    ("a/abbey/one.jpg 12345678901234567890", "line 1: .* is no image"),
    ("../one.jpg 0", "names ../one.jpg, which is outside the folder of the images, .*/images; put it there, or name a"),
    ("/etc/one.jpg 0", "names /etc/one.jpg, which is outside the folder of the images"),
    ("/a/abbey/none.jpg 0", "names /a/abbey/none.jpg, which is outside the folder of the images"),
    ("a/../../train.csv 0", "outside the folder of the images"),
    ("file:///data/a/abbey/one.jpg 0", "names file:///data/a/abbey/one.jpg, an address; write the path of"),
    ("https://example.org/one.jpg 0", "an address; write the path"),
    ("C:/data/one.jpg 0", "first C:/data/one.jpg: it is a path of Windows; write the one below"),
    ("C:\\data\\one.jpg 0", "it is a path of Windows"),
    ("a/abbey 0", "names a/abbey, which is no file"),
    ("a/abbey/one.jpg 0\na/nowhere.jpg 0\na/b.jpg 0", r"2 of the 3 images that .*train.csv names .*first a/nowhere"),
    ("", "the list train.csv names no image"),
    ("a\\abbey\\one.jpg 0", r"images that .* first a\\abbey\\one.jpg: write / between folders in place"),
    ("a/abbey/one.jpg 0\rb/bar/x.jpg 1\r", r"train.csv, line 1 has carriage returns in it; end lines with line feeds"),
    ("a/abbey/one.jpg 0\n".encode("utf-16"), r"train.csv cannot be read: it is no text in UTF-8; save it as that"),
])  # fmt: skip
def test_a_list_that_is_wrong_is_refused_with_its_line(lists, line, message):
    (lists / "train.csv").write_bytes(line if isinstance(line, bytes) else line.encode())
    with pytest.raises(DataError, match=message):
        of_list(lists)


def test_a_class_beyond_those_expected_and_a_number_of_classes_that_is_not_expected(lists):
    (lists / "train.csv").write_text("a/abbey/one.jpg 0\nb/bar/x.jpg 205\n")
    with pytest.raises(DataError, match="line 2: class 205 of 205; classes count from 0"):
        of_list(lists, name="places205")
    (lists / "train.csv").write_text("a/abbey/one.jpg 0\nb/bar/x.jpg 203\n")
    with pytest.raises(
        DataError, match=r"no image is of classes 2, 3, 4, 5, 6 and 196 more, .* 205 classes are expected"
    ):
        of_list(lists, name="places205")


def of_numbers(lists, numbers, **more):
    """A list of images of these classes, in files with them, as they stand there."""
    lines = [f"{place}.jpg {number}" for place, number in enumerate(numbers)]
    for place in range(len(numbers)):
        put(lists / "images" / f"{place}.jpg", place)
    (lists / "train.csv").write_text("\n".join(lines))
    (lists / "val.csv").write_text(lines[-1])
    heard = []
    source = FileListSource(
        format="file_list", root=lists, splits={"train": "train.csv", "test": "val.csv"}, images="images", **more
    )
    return open_data_set("mine", "train", source=source, warn=heard.append), heard


def test_a_class_that_no_image_is_of_is_named_and_not_counted(lists):
    data, heard = of_numbers(lists, [1, 2, 3, 4, 1])
    assert (data.classes, data.labels().tolist()) == (("1", "2", "3", "4"), [0, 1, 2, 3, 0])
    assert heard == [
        "data set 'mine': in its lists "
        "no image is of class 0, which is not counted: 4 classes have images; do the numbers count from 1?"
    ]
    data, heard = of_numbers(lists, [0, 7, 2, 999_999_999])
    assert (data.classes, data.labels().tolist()) == (("0", "2", "7", "999999999"), [0, 1, 2, 3])
    assert heard == [
        "data set 'mine': in its lists "
        "no image is of classes 1, 3, 4, 5, 6 and 999,999,991 more, which are not counted: 4 classes have "
        "images"
    ]
    data, heard = of_numbers(lists, [0, 1, 2])
    assert (data.classes, heard) == (("0", "1", "2"), [])
    assert of_numbers(lists, ["0", "1.0", "2."])[0].fingerprint == data.fingerprint, "numbers written as floats"


def test_images_that_a_list_names_again_are_told(lists):
    def told(*lines):
        (lists / "train.csv").write_text("\n".join(lines))
        heard = []
        source = FileListSource(format="file_list", root=lists, splits={"train": "train.csv"}, images="images")
        return len(open_data_set("mine", "train", source=source, warn=heard.append)), heard

    one, x, y = "a/abbey/one.jpg", "b/bar/x.jpg", "b/bar/y.jpg"
    begun = "data set 'mine', split 'train':"
    counts = "each time counts as an image; take out those that are not meant"
    assert told(f"{one} 0", f"{x} 1") == (2, [])
    assert told(f"{y} 0", f"{y} 0", f"{one} 0", f"{x} 0", f"{one} 1", f"./{one} 0", "a//abbey/one.jpg 1") == (7, [
        f"{begun} 2 images are there more than once, 1 of them with different classes, first {one} (4 times; of '0', "
        f"'1'): {counts}"
    ])  # fmt: skip
    assert told(f"{x} 1", f"{x} 1", f"{one} 0") == (3, [
        f"{begun} 1 image is there more than once, 0 of them with different classes, first {x} (2 times; of '1'): "
        f"{counts}"
    ])  # fmt: skip


def test_numbers_from_one_have_as_many_classes_as_are_expected(lists):
    data, heard = of_numbers(lists, [1, 2, 3], classes=3)
    assert (data.classes, len(heard)) == (("1", "2", "3"), 1)
    with pytest.raises(
        DataError, match=r"class 0, .*; do the numbers count from 1.*\. 4 classes are expected: .*classes: 3"
    ):
        of_numbers(lists, [1, 2, 3], classes=4)
    for wrong, line in (([0, 1, 3], 3), ([1, 2, 4], 3)):
        with pytest.raises(DataError, match=f"train.csv, line {line}: class {wrong[-1]} of 3; classes count from 0"):
            of_numbers(lists, wrong, classes=3)


def test_an_image_taken_away_is_unreadable_and_a_missing_root_tells_its_origin(lists):
    data = of_list(lists)
    (lists / "images/a/abbey/one.jpg").unlink()
    with pytest.raises(UnreadableImage, match=r"a/abbey/one.jpg cannot be read: No such file"):
        data.image(0)
    with pytest.raises(
        DataError, match=r"no folder .*gone.*Nothing is downloaded.*places.csail.mit.edu, under the terms of that site"
    ):
        of_list(lists / "gone", name="places205")
    (lists / "val.csv").unlink()
    with pytest.raises(DataError, match=r"'places' cannot be read: No such file or directory: .*val.csv"):
        of_list(lists, "test")


def annotations(tmp_path, **changed):
    """iNaturalist's JSON of 4 images of the categories 7 and 3; changed parts stand for the whole of it."""
    images = [{"id": 10 + i, "file_name": f"train_val2018/Birds/{i}.jpg", "width": 6, "height": 4} for i in range(4)]
    kinds = [{"id": 7, "name": "Späth's bird"}, {"id": 3, "name": "moss"}]
    of = [{"id": i, "image_id": 13 - i, "category_id": [3, 7, 7, 7][i]} for i in range(4)]
    for level, image in enumerate(images):
        put(tmp_path / image["file_name"], 10 * level)
    value = {"info": {"year": [2018]}, "annotations": of, "images": images, "categories": kinds, **changed}
    (tmp_path / "train2018.json").write_text(json.dumps(value, ensure_ascii=False), "utf-8")
    return tmp_path


def of_inaturalist(root, split="train", **more):
    return open_data_set("birds", split, source=INaturalistSource(format="inaturalist", root=root), **more)


def test_categories_that_no_image_of_any_split_is_of_are_named_and_not_counted(tmp_path):
    kinds = [{"id": number, "name": f"kind {number}"} for number in (0, 3, 5, 7)]
    annotations(tmp_path, categories=kinds)
    heard = []
    assert of_inaturalist(tmp_path, warn=heard.append).classes == ("kind 3", "kind 7")
    assert heard == ["data set 'birds': no image of any split is of 'kind 0', 'kind 5'; 2 categories count"]
    other = json.loads((tmp_path / "train2018.json").read_text())
    other["annotations"] = [{**each, "category_id": 5} for each in other["annotations"]]
    (tmp_path / "val2018.json").write_text(json.dumps(other))
    for split, labels in (("train", [0, 2, 2, 2]), ("test", [1, 1, 1, 1])):
        data = of_inaturalist(tmp_path, split)
        assert (data.classes, data.labels().tolist()) == (("kind 3", "kind 5", "kind 7"), labels)


def test_classes_of_inaturalist_are_its_categories_by_id(tmp_path):
    data = of_inaturalist(annotations(tmp_path))
    assert data.classes == ("moss", "Späth's bird")
    assert data.labels().tolist() == [0, 1, 1, 1]  # image 13, then 10, 11, 12: one of each class in turn
    assert levels(data) == [30, 0, 10, 20]
    assert data.name(0) == "train_val2018/Birds/3.jpg"
    assert data.labels().dtype == np.int64
    with pytest.raises(
        DataError,
        match="is for pretrain, closed_form, invariance, knn, linear, semi_supervised, svm: it has one class an image",
    ):
        open_annotated("birds", "train", source=INaturalistSource(format="inaturalist", root=tmp_path))


@pytest.mark.parametrize(("changed", "message"), [
    ({"annotations": [{"id": 0, "image_id": 99, "category_id": 3}]}, "an annotation names image 99"),
    ({"annotations": [{"id": 0, "image_id": 10, "category_id": 9}]}, "an annotation names category 9"),
    ({"annotations": [{"id": 0, "image_id": 10, "category_id": 3}]}, "no annotation for 3 of its 4 images"),
    ({"annotations": [{"id": i, "image_id": 10, "category_id": 3} for i in (0, 1)]}, "several annotations of one"),
    ({"annotations": [{"id": 0, "category_id": 3}]}, "'image_id' of entry 0 of 'annotations' is None; an integer"),
    ({"annotations": {}}, "'annotations' is not a list"),
    ({"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, "several entries of image 1"),
    ({"images": [{"id": 1, "file_name": 5}]}, "'file_name' of entry 1 of 'images' is 5; a text is expected"),
    ({"images": [{"id": True, "file_name": "a"}]}, "'id' of .* is True"),
    ({"images": []}, "no image at all"),
    ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "several entries of category 3"),
])  # fmt: skip
def test_annotations_that_do_not_fit_together_are_refused(tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        of_inaturalist(annotations(tmp_path, **changed))


def test_an_image_of_the_json_that_is_not_there_is_named(tmp_path):
    (annotations(tmp_path) / "train_val2018/Birds/2.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of the 4 images that train2018.json names .*first train_val2018/Birds/2"):
        of_inaturalist(tmp_path)
