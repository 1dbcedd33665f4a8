"""Masks that are taken for images, and copies of images within a split: told in the survey and at a job's start."""

import shutil

import numpy as np
import pytest
from PIL import Image

from barlow_lab.specs.data_sets import parse_source
from trainer.data import copies
from trainer.data.looking import told_of
from trainer.data.registry import open_images
from trainer.survey import survey


def photo(path, seed, side=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


def mask(path, seed, side=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.zeros((side, side), dtype=np.uint8)
    levels[4 : 8 + seed % 8, 4:20] = 255
    Image.fromarray(levels).save(path)


def told(root, *, labelled=True):
    source = parse_source({"format": "image_folder" if labelled else "images", "root": str(root)})
    return told_of(open_images("own", "train", source=source), lambda: None)


@pytest.mark.parametrize(
    ("image", "of_it"),
    [
        ("benign/benign ({}).png", "benign/benign ({})_mask.png"),
        ("benign/benign ({}).png", "benign/benign ({})_mask_1.png"),
        ("images/{}.png", "masks/{}.png"),
        ("images/a/{}.png", "masks/a/{}.png"),
        ("train/{}.png", "train_labels/{}-seg.png"),
        ("c/image_{}.png", "c/mask_{}.png"),
        ("c/{}_sat.png", "c/{}_mask.png"),
        ("c/{}.png", "c/Annotations/{}.png"),
    ],
)
def test_masks_that_pair_with_images_are_told(tmp_path, image, of_it):
    for number in range(20):
        photo(tmp_path / "train" / image.format(number), number)
        mask(tmp_path / "train" / of_it.format(number), number)
    (found,) = told(tmp_path)  # and not that some masks are copies of others
    assert found.startswith("20 of 40 images look like masks of others by their names, and 16 of 16 of them ")
    assert f"first {of_it.format(0)}, of {image.format(0)}: " in found
    assert told(tmp_path, labelled=False)[0].startswith("20 of 40 images look like masks ")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hats/{}.png", "masks/{}.png"),  # classes whose files are numbered alike
        ("with_mask/{}.png", "without_mask/{}.png"),
        ("bottles/{}.png", "bottles/{}_label.png"),
        ("unmasked/{}.png", "signage/mask{}.png"),
    ],
)
def test_photographs_that_are_called_as_masks_are_none(tmp_path, one, other):
    for number in range(10):
        photo(tmp_path / "train" / one.format(number), number)
        photo(tmp_path / "train" / other.format(number), 100 + number)
    assert told(tmp_path) == []


def test_masks_without_their_images_are_images(tmp_path):
    for number in range(10):
        mask(tmp_path / f"train/masks/{number}.png", number)
        photo(tmp_path / f"train/cats/cat{number}.png", number)
    assert not any("masks of others" in said for said in told(tmp_path))


def test_copies_within_a_split_are_told_with_those_of_another_class(tmp_path):
    """An archive that was unpacked again in its folder, and images of one class in the folder of another."""
    for number in range(6):
        photo(tmp_path / f"train/cat/{number}.png", number)
        photo(tmp_path / f"train/dog/{number}.png", 100 + number)
    assert told(tmp_path) == []
    shutil.copytree(tmp_path / "train/cat", tmp_path / "cat")
    shutil.copytree(tmp_path / "cat", tmp_path / "train/cat/cat")
    (found,) = told(tmp_path)
    assert found.startswith(
        "6 images have name, size and content of another of the split, 0 of them with another class"
    )
    shutil.rmtree(tmp_path / "train/cat/cat")
    for number in range(3):
        shutil.copy(tmp_path / f"train/cat/{number}.png", tmp_path / f"train/dog/c{number}.png")
    entry = survey("own", parse_source({"format": "image_folder", "root": str(tmp_path)}), lambda said: None)
    (found,) = [note for note in entry.notes if "train" in note and "content" in note]
    assert "3 images have the content of another of the split, 3 of them with another class, first " in found
    assert "cat/0.png" in found
    assert "dog/c0.png" in found


def test_files_of_one_size_are_no_copies_and_few_of_many_are_read(tmp_path, monkeypatch):
    for number in range(40):
        photo(tmp_path / f"train/{'ab'[number % 2]}/{number // 2}.bmp", number)
    (tmp_path / "train/a/link.bmp").hardlink_to(tmp_path / "train/a/0.bmp")  # told where the split is opened
    opened = []
    real = copies.open_regular
    monkeypatch.setattr(copies, "open_regular", lambda path: opened.append(path) or real(path))
    monkeypatch.setattr(copies, "MOST_READ", 16)
    assert told(tmp_path) == []
    assert len(opened) == 32
    for number in range(20):
        shutil.copy(tmp_path / f"train/a/{number}.bmp", tmp_path / f"train/b/{number}.bmp")
    (found,) = told(tmp_path)
    assert " of 16 images that were compared, of 40 that may, have name, size and content of another" in found
