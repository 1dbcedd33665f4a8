"""Images that Exif turns, and their boxes: of the image as it is turned, and told where nothing says so."""

import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from barlow_lab.specs.data_sets import CocoFiles, CocoSource, VocSource
from trainer.data.errors import UnreadableImage
from trainer.data.registry import open_annotated, open_images
from trainer.survey import survey

ORIENTATION = 0x0112
BOX = (4, 2, 9, 5)
"""Of the object, in the image as viewers show it."""


def photograph(path, size, orientation):
    """Of one bright object on a dark ground, stored so that it is at BOX when it is turned."""
    upright = Image.new("RGB", size, (70, 0, 0))
    upright.paste((250, 0, 0), BOX)
    exif = Image.Exif()
    exif[ORIENTATION] = {6: 8, 8: 6}.get(orientation, orientation)
    upright.getexif()[ORIENTATION] = exif[ORIENTATION]
    stored = ImageOps.exif_transpose(upright)
    exif[ORIENTATION] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    stored.save(path, exif=exif)


def coco(root, size, orientations, annotated=None):
    width, height = annotated or size
    left, top, right, bottom = BOX
    for number, orientation in enumerate(orientations):
        photograph(root / f"train/{number}.png", size, orientation)
    images = [
        {"id": number, "file_name": f"{number}.png", "width": width, "height": height}
        for number in range(len(orientations))
    ]
    outline = [[left, top, right, top, right, bottom, left, bottom]]
    one = {"category_id": 1, "bbox": [left, top, right - left, bottom - top], "segmentation": outline}
    objects = [{"id": number, "image_id": number, **one} for number in range(len(orientations))]
    value = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
    (root / "train.json").write_text(json.dumps(value))
    return CocoSource(format="coco", root=root, splits={"train": CocoFiles(images="train", annotations="train.json")})


def voc(root, size, orientations, annotated=None):
    width, height = annotated or size
    left, top, right, bottom = BOX
    box = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    for number, orientation in enumerate(orientations):
        photograph(root / f"mine/JPEGImages/{number}.jpg", size, orientation)
        (root / "mine/Annotations").mkdir(exist_ok=True)
        (root / f"mine/Annotations/{number}.xml").write_text(
            f"<annotation><size><width>{width}</width><height>{height}</height></size>"
            f"<object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
        )
    (root / "mine/ImageSets/Main").mkdir(parents=True, exist_ok=True)
    (root / "mine/ImageSets/Main/train.txt").write_text("\n".join(map(str, range(len(orientations)))))
    return VocSource(format="voc", root=root, splits={"train": ["mine/train"]})


@pytest.mark.parametrize("form", [coco, voc])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_and_masks_are_of_the_image_as_it_is_turned(tmp_path, form, orientation):
    data = open_annotated("mine", "train", source=form(tmp_path, (20, 10), [orientation]))
    left, top, right, bottom = data.annotation(0).boxes[0].astype(int)
    inside = np.zeros((10, 20), bool)
    inside[top:bottom, left:right] = True
    bright = data.image(0)[..., 0] > 160
    assert (bright & ~inside).sum() + (~bright & inside).sum() <= (0 if form is coco else 4)  # JPEG has soft edges
    if data.has_masks:
        np.testing.assert_array_equal(data.with_masks(lambda: None)[0].annotation(0).masks[0], inside)


@pytest.mark.parametrize("form", [coco, voc])
@pytest.mark.parametrize(("size", "orientations", "told"), [
    ((20, 10), (1, 3, 2, 4), "3 of 4 images read are turned by their Exif orientation, first {} (3), and their size"),
    ((12, 12), (1, 6, 5), "2 of 3 images read are turned by their Exif orientation, first {} (6), and their size"),
    ((20, 10), (1, 6, 8, 5), None),  # its size says that it is of the image as it is turned
])  # fmt: skip
def test_images_whose_size_does_not_say_of_what_their_boxes_are_are_told(tmp_path, form, size, orientations, told):
    source = form(tmp_path, size, orientations)
    heard = []
    data = open_annotated("mine", "train", source=source, warn=heard.append)
    for index in range(len(data)):
        data.image(index)
    notes = survey("mine", source, lambda said: None).notes
    if told is None:
        assert heard == notes == []
        return
    (note,) = notes
    told = told.format("1.png" if form is coco else "mine/JPEGImages/1.jpg")
    assert told in note
    assert told in heard[-1]
    assert "these are taken as of the image as viewers show it, turned." in note
    heard.clear()
    images = open_images("mine", "train", source=source, warn=heard.append)
    assert {images.image(index).shape for index in range(len(images))} == {(size[1], size[0], 3)}
    assert heard == [], "a pretraining has no use for boxes"


@pytest.mark.parametrize("form", [coco, voc])
def test_an_image_annotated_in_the_size_as_stored_is_refused_in_words_of_exif(tmp_path, form):
    data = open_annotated("mine", "train", source=form(tmp_path, (20, 10), [6, 1], annotated=(10, 20)))
    with pytest.raises(UnreadableImage) as turned:
        data.image(0)
    assert (
        "it has 20 x 10 pixels, and its annotation says 10 x 20, as it is stored: it is turned by its Exif orientation "
        "6, and boxes and masks are taken as of the image as viewers show it, turned. If they are, exchange width and "
        "height in the annotation, else take the orientation out of the file"
    ) in turned.value.cause
    with pytest.raises(UnreadableImage) as upright:
        data.image(1)
    assert upright.value.cause == "it has 20 x 10 pixels, and its annotation says 10 x 20"


def test_a_tiff_that_exif_turns_is_told_as_one(tmp_path):
    source = coco(tmp_path, (20, 10), [3])
    Image.new("L", (20, 10), 90).save(tmp_path / "train/0.png", "TIFF", tiffinfo={ORIENTATION: 3})
    heard = []
    open_annotated("mine", "train", source=source, warn=heard.append).image(0)
    assert "1 of 1 images read are turned by their Exif orientation, first 0.png (3)" in heard[0]
