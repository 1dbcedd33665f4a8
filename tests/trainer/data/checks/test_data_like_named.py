"""Copies of images under the same names in other folders of a set without labels."""

import numpy as np
import pytest
from photographs import photo, shrunk, told
from PIL import Image, ImageDraw


def large(path, seed):
    photo(path, seed, 8)
    shrunk(path, path, (64, 48))


def small(one, other):
    shrunk(one, other, (32, 24))


def cropped(one, other):
    with Image.open(one) as image:
        image.crop((5, 0, 53, 48)).save(other)


def drawn_on(one, other):
    with Image.open(one) as image:
        ImageDraw.Draw(image).rectangle((8, 8, 30, 30), outline=(255, 0, 0), width=1)
        image.save(other, quality=95)


@pytest.mark.parametrize("made", [small, cropped, drawn_on])
@pytest.mark.parametrize(
    ("name", "of_it"),
    [
        ("images/{}.jpg", "images_128x96/{}.jpg"),
        ("images/a/{}.jpg", "other/a/{}.png"),
        ("frames/{}.jpg", "runs/detect/predict/{}.jpg"),
        ("{}.jpg", "made/{}.jpg"),
    ],
)
def test_copies_in_other_folders_are_told_by_equal_names_and_pixels(tmp_path, name, of_it, made):
    for number in range(6):
        one, other = (tmp_path / each.format(number) for each in (name, of_it))
        large(one, number)
        other.parent.mkdir(parents=True, exist_ok=True)
        made(one, other)
    (found,) = told(tmp_path, labelled=False)
    assert found.startswith(
        "6 of 12 images are called as others in another folder, and 6 of 6 of them that were looked at are the same "
    )
    assert name.format(0) in found
    assert of_it.format(0) in found


def test_of_films_whose_frames_are_numbered_alike_copies_alone_are_told(tmp_path):
    """Whatever folder of frames is looked at first."""
    for film in range(20):
        for number in range(4):
            one = tmp_path / f"film{film}/frames/{number}.png"
            large(one, 100 * film + number)
    assert told(tmp_path, labelled=False) == []
    for film in range(20):
        for number in range(4):
            (tmp_path / f"film{film}/quick").mkdir(exist_ok=True)
            small(tmp_path / f"film{film}/frames/{number}.png", tmp_path / f"film{film}/quick/{number}.png")
    (found,) = told(tmp_path, labelled=False)
    assert found.startswith("80 of 160 images are called as others in another folder, and 16 of 16 ")


def test_channels_of_a_microscope_and_classes_are_no_copies(tmp_path):
    """Of one place, dark but for cells that shine in both, though not as brightly."""
    for number in range(6):
        spots = np.kron(np.random.default_rng(number).random((16, 16)) > 0.7, np.ones((4, 4)))
        for channel, level in (("dapi", 200), ("gfp", 90)):
            path = tmp_path / f"train/{channel}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number + level).normal(8, 2, spots.shape)
            Image.fromarray(np.clip(spots * level + noise, 0, 255).astype(np.uint8)).save(path)
    assert told(tmp_path, labelled=False) == []
    for number in range(6):
        shrunk(tmp_path / f"train/dapi/{number}.png", tmp_path / f"train/gfp/{number}.png", (32, 32))
    assert told(tmp_path) == [], "of classes"
    assert len(told(tmp_path, labelled=False)) == 1
