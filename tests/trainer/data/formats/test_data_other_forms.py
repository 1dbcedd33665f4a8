"""Data as other programs write it: percent, centres of small boxes, fields and names of other tools."""

import io
import re

import coco_trees
import numpy as np
import pytest
import voc_trees
from listed_images import of_list
from PIL import Image

from trainer.data.decoding.pages import pages_of_ppm
from trainer.data.errors import DataError
from trainer.data.formats.doubtful_boxes import OF_SIDES, Given, tell_of_boxes
from trainer.data.formats.other_fields import OtherFields
from trainer.data.image_files import PackedNames
from trainer.data.registry import open_images

RNG = np.random.default_rng(0)


def boxes_told(boxes, small=0):
    """Of boxes (k, 4) left, top, width, height in an image of 640 x 480, the first `small` in one of 160 x 120."""
    names, told = PackedNames(), []
    for name in (b"a.jpg", b"b.jpg"):
        names.append(name)
    corners = np.array(boxes, dtype=np.float32)
    corners[:, 2:] += corners[:, :2]
    none = np.zeros(len(corners), dtype=np.int64)
    sizes = np.array([[480, 640], [120, 160]], dtype=np.int32)
    of = (np.arange(len(corners)) < small).astype(np.int64)
    given = Given(corners, none, of, sizes, names, "a.json", "left, top, width, height", OF_SIDES)
    tell_of_boxes(given, told.append)
    return told


def small(count):
    """Boxes of 20 x 10 all over the image, the last three at its right edge."""
    lefts, tops = RNG.uniform(30, 590, count), RNG.uniform(30, 460, count)
    lefts[-3:] = 620
    return np.stack([lefts, tops, np.full(count, 20.0), np.full(count, 10.0)], axis=1)


def test_boxes_in_percent_are_told():
    (said,) = boxes_told(small(40) / [6.4, 4.8, 6.4, 4.8])
    assert said.startswith(
        "all 40 boxes of a.json lie between 0 and 100, and their images are larger: are they percent"
    )


@pytest.mark.parametrize("some", [1, 12])
def test_boxes_in_percent_are_told_whatever_some_images_measure(some):
    boxes = small(40) / [6.4, 4.8, 6.4, 4.8]
    (said,) = boxes_told(boxes, some)
    assert f" lie between 0 and 100, and the images of {40 - some} of them are larger: are they percent" in said
    assert not any("percent" in said for said in boxes_told(boxes, 30)), "most are of a small image"


def test_pixels_are_not_told_as_percent():
    assert boxes_told(small(40)) == []
    assert boxes_told(small(40)[:, [2, 3, 2, 3]] + np.arange(40)[:, None] / 8) == [], "small, in the corner"
    assert boxes_told(small(5) / [6.4, 4.8, 6.4, 4.8]) == [], "too few to know"


def test_small_boxes_written_by_their_centres_are_told_at_any_share():
    centres = small(100)
    centres[:, :2] += centres[:, 2:] / 2
    (said,) = boxes_told(centres)
    assert said.startswith(
        "3 of 100 boxes of a.json reach over the edge of their image, and all would lie within it as "
    )
    assert "as centre, width, height: are they written so?" in said


def test_boxes_over_any_edge_are_not_told_as_centres():
    for more in ([[-5, 50, 20, 10]], [[0, 50, 20, 10]]):
        centres = small(100)
        centres[:, :2] += centres[:, 2:] / 2
        assert boxes_told(np.concatenate((centres, more))) == []


def test_fields_that_would_change_boxes_are_counted(tmp_path):
    annotations = [
        coco_trees.instance(1, 7, 1, [0, 0, 9, 9], ignore=1),
        coco_trees.instance(2, 7, 1, [1, 0, 9, 9], ignore=1, iscrowd=1),
        coco_trees.instance(3, 42, 1, [0, 2, 9, 9], attributes={"rotation": 30.5, "occluded": False}),
        *(coco_trees.instance(n, 42, 1, [n, 5, 9, 9], ignore=0, attributes={"rotation": 0.0}) for n in range(4, 20)),
    ]
    told = []
    folder = coco_trees.put(tmp_path, annotations=annotations)
    coco_trees.opened(folder, warn=told.append)
    told = [one for one in told if "`" in one]
    assert len(told) == 2
    assert (
        "1 of 19 objects of instances_train2017.json have `ignore` set and `iscrowd` not: they count as any" in told[0]
    )
    assert (
        "1 of 19 objects of instances_train2017.json have a `rotation`, as CVAT writes it: it is passed ove" in told[1]
    )


def test_lvis_images_whose_classes_are_not_all_annotated_are_counted():
    others, told = OtherFields(), []
    for image in ({"neg_category_ids": [3]}, {"not_exhaustive_category_ids": [], "neg_category_ids": []}, {}):
        others.of_image(image)
    others.tell("a.json", told.append)
    (said,) = told
    assert said.startswith("1 of 3 images of a.json have `neg_category_ids` or `not_exhaustive_category_ids`, as LVIS")


def test_a_name_that_begins_with_a_slash_is_below_the_folder_if_the_file_is_there(tmp_path):
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "set/images" / name).parent.mkdir(parents=True)
        Image.new("RGB", (6, 4)).save(tmp_path / "set/images" / name)
    data = of_list(tmp_path, "/a/1.png 0", "/b/2.png 1")
    assert [data.name(0), data.name(1)] == ["a/1.png", "b/2.png"]
    assert data.fingerprint == of_list(tmp_path, "a/1.png 0", "b/2.png 1").fingerprint
    with pytest.raises(DataError, match=r"names /a/9.png, which is outside the folder of the images"):
        of_list(tmp_path, "/a/9.png 0")


def put_voc(root, names, objects=(voc_trees.DOG,)):
    for name in names:
        voc_trees.put(root, name, objects)
    voc_trees.put_list(root, "trainval", names)


def opened_voc(root):
    told = []
    splits = {"train": ["VOC2007/trainval"]}
    return voc_trees.opened(root, splits=splits, opener=open_images, warn=told.append), told


def test_images_of_voc_with_another_ending_are_named_with_the_remedy(tmp_path):
    put_voc(tmp_path, ["1"])
    images = tmp_path / "VOC2007/JPEGImages"
    (images / "1.jpg").rename(images / "1.png")
    with pytest.raises(DataError, match=r"1\.png is there; correct the name, or, as lists of VOC .* to \.jpg"):
        opened_voc(tmp_path)
    (images / "1.png").rename(images / "1.jpg")
    assert len(opened_voc(tmp_path)[0]) == 1


def test_names_of_voc_may_have_blanks(tmp_path):
    put_voc(tmp_path, ["a dog", "photo 1", "plain"])
    data, _ = opened_voc(tmp_path)
    assert data.name(1) == "VOC2007/JPEGImages/photo 1.jpg"


def test_a_second_box_of_an_object_and_a_split_of_voc_without_objects_are_told(tmp_path):
    put_voc(tmp_path, ["1"])
    assert opened_voc(tmp_path)[1] == []
    file = tmp_path / "VOC2007/Annotations/1.xml"
    text = file.read_text()
    end = "</bndbox><part>"
    more = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"
    file.write_text(text.replace(end, f"</bndbox>{more}<part>"))
    assert (
        "1 of 1 objects of split 'train' (VOC2007/trainval) have several <bndbox>, of wh" in opened_voc(tmp_path)[1][0]
    )
    put_voc(tmp_path, ["1"], [])
    (said,) = opened_voc(tmp_path)[1]
    assert "no image of split 'train' (VOC2007/trainval) has an object" in said


def test_annotations_of_voc_that_name_another_image_of_their_list_are_counted(tmp_path):
    put_voc(tmp_path, ["1", "2", "3"])
    texts = {}
    for name, file in (("1", "x/3.jpg"), ("2", "2.JPG"), ("3", "C:\\pics\\1.png")):
        path = tmp_path / f"VOC2007/Annotations/{name}.xml"
        texts[path] = path.read_text()
        named = re.sub("<filename>.*</filename>", "", texts[path])
        path.write_text(named.replace("<annotation>", f"<annotation><filename>{file}</filename>", 1))
    (said,) = [one for one in opened_voc(tmp_path)[1] if "<filename>" in one]
    assert (
        "2 of 3 annotations of split 'train' (VOC2007/trainval) name another image of it in their <filename>, first "
        "1.xml, 3: "
    ) in said
    for path in texts:  # as it was called before all were renamed
        path.write_text(re.sub("<filename>.*</filename>", "<filename>DSC1.jpg</filename>", path.read_text()))
    assert not any("<filename>" in one for one in opened_voc(tmp_path)[1])


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_images_behind_the_first_of_a_ppm_are_counted(mode):
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (7, 11, 3)).astype(np.uint8)).convert(mode).save(file, "PPM")
    one = file.getvalue()
    assert [pages_of_ppm(one * count).here for count in (1, 2, 3)] == [1, 2, 3]
    assert pages_of_ppm(one + b"\n").here == pages_of_ppm(one + b"P6 or other words").here == 1
    assert pages_of_ppm(b"P5\n# by hand\n3 2\n65535\n" + b"P5P5P5P5P5P5").here == 1
