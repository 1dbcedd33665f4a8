"""Masks that are taken for images, and copies of images within a split: told in the survey and at a job's start."""

import shutil

import numpy as np
import pytest
from photographs import photo, shrunk, told
from PIL import Image

from barlow_lab.specs.data_sets import parse_source
from trainer.data.checks import copies
from trainer.survey import survey


def mask(path, seed, side=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.zeros((side, side), dtype=np.uint8)
    levels[4 : 8 + seed % 8, 4:20] = 255
    Image.fromarray(levels).save(path)


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
        ("img/{}.png", "masks_machine/{}.png"),
        ("input/{}.png", "target/{}.png"),
    ],
)
def test_masks_that_pair_with_images_are_told(tmp_path, image, of_it):
    for number in range(20):
        photo(tmp_path / "train" / image.format(number), number)
        mask(tmp_path / "train" / of_it.format(number), number)
    (found,) = told(tmp_path)  # and not that some masks are copies of others
    assert found.startswith("20 of 40 images look like masks of others by their names, and 16 of 16 of them ")
    assert f"first {of_it.format(0)}, of {image.format(0)}: " in found
    (found,) = told(tmp_path, labelled=False)
    assert found.startswith("20 of 40 images look like masks ")


@pytest.mark.parametrize(
    ("image", "of_it"),
    [
        ("c/{}.jpg", "c/{}.png"),
        ("a/{}.jpg", "b/{}.png"),
        ("c/{}.png", "c/Mask of {}.png"),
        ("c/{}_img.png", "c/{}_cp_masks.png"),
        ("c/{}.png", "c/{}_cp_masks.png"),
        ("c/{}.png", "c/{}-labelled.png"),
        ("c/Image_{}L.jpg", "c/Image_{}L_1stHO.png"),
        ("images/{}_training.tif", "1st_manual/{}_manual1.gif"),
        ("c/{}_training.tif", "c/{}_manual1.gif"),
        ("c/{}.png", "c/{}_bin_mask.png"),
        ("c/{}.png", "c/{} (mask).png"),
        ("c/{}.jpg", "c/{}.jpg.png"),
        ("c/IMG_{}.jpg", "c/IMG_{}_GT.bmp"),
        ("c/town_{}_leftImg8bit.png", "c/town_{}_gtFine_labelIds.png"),
        ("c/apple_1_{}_crop.png", "c/apple_1_{}_maskcrop.png"),
        ("c/{}_cam.png", "c/{}_handmasked.png"),
    ],
)
def test_masks_by_any_name_are_told(tmp_path, image, of_it):
    """Of an image folder without labels; classes may be numbered alike."""
    for number in range(10):
        photo(tmp_path / "train" / image.format(100 + number), number)
        mask(tmp_path / "train" / of_it.format(100 + number), number)
    for labelled in (True, False):
        found = [said for said in told(tmp_path, labelled=labelled) if "masks" in said]
        if labelled and image.startswith("a/"):
            assert found == []
        else:
            assert [said.startswith("10 of 20 images ") for said in found] == [True]
            assert f"{of_it.format(100)}" in found[0]


def test_masks_in_folders_of_their_own_are_told_whatever_they_are_called(tmp_path):
    """The nuclei of the Data Science Bowl: several masks an image, named by nothing of it."""
    for number in range(5):
        photo(tmp_path / f"train/a{number}/images/a{number}.png", number)
        for other in range(6):
            mask(tmp_path / f"train/a{number}/masks/{97 * number + other:x}f.png", other)
    for labelled in (True, False):
        (found,) = told(tmp_path, labelled=labelled)
        assert found.startswith("30 of 35 images lie in folders that are called as those of masks are, and look like ")
        assert ", as 16 of 16 that were looked at do, first " in found


def test_masks_in_colours_that_a_lossy_format_has_blurred_are_told(tmp_path):
    draw = np.random.default_rng(0)
    for number in range(8):
        photo(tmp_path / f"train/c/{number}.jpg", number, 256)
        levels = np.zeros((256, 256, 3), dtype=np.uint8)
        for top, left in draw.integers(0, 170, (3, 2)):
            levels[top : top + 80, left : left + 80] = draw.integers(0, 256, 3)
        Image.fromarray(levels).save(tmp_path / f"train/c/{number}_L.jpg")
    (found,) = told(tmp_path)
    assert found.startswith(
        "8 of 16 images that were looked at, of 16 in all, look like masks of others by their pixels"
    )


def cells(seed, side=128, objects=100):
    """An image of many cells, (side, side) uint8, and the numbers of them as a mask has them."""
    draw = np.random.default_rng(seed)
    seeds = draw.integers(0, side, (objects, 2))
    distances = ((np.indices((side, side))[..., None] - seeds.T[:, None, None]) ** 2).sum(0)
    numbers = np.where(distances.min(-1) < 50, distances.argmin(-1) + 1, 0)
    levels = np.concatenate([[20], draw.integers(80, 220, objects)])[numbers] + draw.normal(0, 6, (side, side))
    return np.clip(levels, 0, 255).astype(np.uint8), numbers


COLOURS = np.random.default_rng(9).integers(0, 256, (256, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "of_it", "bits", "as_mask"),
    [
        ("{}_img.png", "{}_masks.png", 8, lambda numbers: numbers.astype(np.uint8)),
        ("{}.png", "{}_cp_masks.png", 8, lambda numbers: numbers.astype(np.uint8)),
        ("{}.png", "{}_superpixels.png", 8, lambda numbers: COLOURS[numbers]),
        ("tissue images/{}.png", "label masks/{}.png", 8, lambda numbers: COLOURS[numbers]),
        ("{}.tif", "{}_labels.tif", 12, lambda numbers: numbers.astype(np.uint16)),
        ("{}.tif", "{}_labels.tif", 12, lambda numbers: (numbers * 397).astype(np.uint16)),
    ],
)
def test_masks_of_many_objects_are_told(tmp_path, image, of_it, bits, as_mask):
    for number in range(5):
        levels, numbers = cells(number)
        if bits == 12:  # as of a microscope: of 16 bits the high byte has few levels
            levels = levels.astype(np.uint16) * 16
        for name, pixels in ((image, levels), (of_it, as_mask(numbers))):
            path = tmp_path / name.format(100 + number)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (found,) = told(tmp_path, labelled=False)
    assert found.startswith("5 of 10 images ")
    assert f"first {of_it.format(100)}, of {image.format(100)}: " in found


def test_images_of_many_cells_that_are_called_as_masks_are_none(tmp_path):
    for number in range(6):
        for name in ("{}.png", "{}_mask.png", "{}_labels.png"):
            path = tmp_path / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(cells(number + 10 * len(name))[0]).save(path)
    assert told(tmp_path, labelled=False) == []


def cut_out(path, seed, side=48):
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.full((side, side, 3), 255, dtype=np.uint8)
    levels[10:24, 10:24] = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    Image.fromarray(levels).save(path)


def drawing(path, seed, side=24):
    """A line on white, as digits that were made of two colours, sketches and icons are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.full((side, side, 3), 255, dtype=np.uint8)
    levels[4 + seed % 8, 4:20] = np.random.default_rng(seed).integers(0, 200, 3)
    Image.fromarray(levels).save(path)


@pytest.mark.parametrize(
    ("one", "other", "draw"),
    [
        ("c/{}.jpg", "c/{}_flip.jpg", photo),
        ("c/{}.jpg", "c/{}.png", photo),
        ("c/{}.jpg", "c/{}_thumb.png", lambda path, seed: photo(path, seed, 8)),
        ("c/{}.jpg", "c/{}_tiny.png", lambda path, seed: photo(path, seed, 4)),
        ("c/{}.png", "c/{}_cutout.png", cut_out),
        ("c/{}.png", "masks/{}.png", cut_out),
        ("photo/{}.png", "sketch/{}.png", drawing),
        ("cats/{}.png", "logos/{}.png", drawing),
        ("cats/cat{}.png", "logos/logo{}.png", drawing),
    ],
)
def test_what_is_made_of_photographs_or_drawn_is_no_mask(tmp_path, one, other, draw):
    for number in range(20):
        photo(tmp_path / "train" / one.format(number), number, 48 if draw is cut_out else 24)
        draw(tmp_path / "train" / other.format(number), 100 + number)
    for labelled in (True, False):
        assert [said for said in told(tmp_path, labelled=labelled) if "masks" in said] == []


def page(path, seed):
    """Of a scanned document: as grey levels, or as black and white of that."""
    levels = np.full((128, 96), 235.0)
    for top in range(8, 120, 8):
        levels[top : top + 4, 8:88] = np.where(np.random.default_rng(seed % 100 + top).random(80) < 0.6, 40, 235)
    levels += np.random.default_rng(seed).normal(0, 8, levels.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
    (grey if path.suffix == ".jpg" else grey.point(lambda level: 255 * (level > 128)).convert("1")).save(path)


def test_a_page_in_black_and_white_beside_its_scan_is_no_mask(tmp_path):
    for number in range(8):
        for ending in (".jpg", ".tif"):
            page(tmp_path / f"train/c/page_{number}{ending}", number)
    for labelled in (True, False):
        assert told(tmp_path, labelled=labelled) == []


def test_drawn_labels_of_a_class_are_no_masks(tmp_path):
    for number in range(20):
        photo(tmp_path / f"train/photo/item_{number}.png", number)
        drawing(tmp_path / f"train/labels/label_{number}.png", number)
    assert told(tmp_path) == []


def test_among_drawings_no_folder_is_one_of_masks(tmp_path):
    for number in range(20):
        for name in ("labels", "icons"):
            drawing(tmp_path / f"train/{name}/{name}{number}.png", number)
            drawing(tmp_path / f"train/{name}/{name}{number}_2.png", 7 * number)
    for labelled in (True, False):
        assert [said for said in told(tmp_path, labelled=labelled) if "masks" in said] == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hats/{}.png", "masks/{}.png"),  # classes whose files are numbered alike
        ("with_mask/{}.png", "without_mask/{}.png"),
        ("bottles/{}.png", "bottles/{}_label.png"),
        ("unmasked/{}.png", "signage/mask{}.png"),
        ("c/{}_crop.png", "c/{}_maskcrop.png"),
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


def test_a_folder_of_thumbnails_is_told_and_a_class_of_thumbs_is_none(tmp_path):
    for number in range(6):
        photo(tmp_path / f"train/cat/{number}.png", number)
        photo(tmp_path / f"train/thumbs/up{number}.png", 50 + number)
    assert told(tmp_path) == []
    for number in range(6):
        photo(tmp_path / f"train/cat/thumbnails/{number}.png", 100 + number, 8)
    for labelled in (True, False):
        (found,) = told(tmp_path, labelled=labelled)
        assert "of 18 images lie in folders that are called as those of thumbnails are" in found


UNIQUE = ("46C9B2CD-9A3F-4E0C-8B11-20D5A9C3F7E4", "6EFE77C6-B96D-412A-9FD1-710DBDA32821")


@pytest.mark.parametrize(
    ("name", "of_it"),
    [
        ("photo{}.png", "photo{}-32x24.png"),
        ("photo{}.png", "photo{}-scaled.png"),
        ("{}_w1.tif", "{}_w1_thumb.tif"),
        ("{}.png", "{}.th.png"),
        ("{}.png", "{}_small.png"),
        ("{}.png", "{} (Small).png"),
        ("{}.png", "{} (Telefon).png"),
        ("{}.png", "{} (32x24).png"),
        ("{}.png", "{} - small.png"),
        ("{}.png", "{}_resized.png"),
        ("{}.png", "{}-min.png"),
        ("{}.png", "{}_web.png"),
        ("IMG_{}.png", "small_IMG_{}.png"),
        ("IMG_{}.png", "tn_IMG_{}.png"),
        ("IMG_{}.png", "s_IMG_{}.png"),
        (f"A_s{{}}_w1{UNIQUE[0]}.tif", f"A_s{{}}_w1_thumb{UNIQUE[1]}.tif"),
        (f"A_s{{}}_w1_{UNIQUE[0]}.tif", f"A_s{{}}_w1_thumb_{UNIQUE[1]}.tif"),
        ("{}@2x.png", "{}.png"),
        ("originals/A{}.jpeg", "resources/derivatives/A{}_1_105_c.jpeg"),
    ],
)
def test_smaller_copies_are_told_by_their_names_and_pixels(tmp_path, name, of_it):
    for number in range(6):
        large, small = (tmp_path / "train/c" / each.format(number) for each in (name, of_it))
        photo(large, number, 8)
        shrunk(large, large, (64, 48))
        shrunk(large, small, (32, 24))
    for labelled in (True, False):
        (found,) = told(tmp_path, labelled=labelled)
        assert found.startswith(
            "6 of 12 images look like smaller copies of others by their names, and 6 of 6 of them that were looked at "
        )
        assert f"{of_it.format(0)}, of " in found


@pytest.mark.parametrize(
    "name", ["{}_small.png", "{}-16x16.png", "{}_thumb.png", "{} (copy).png", "{} (Small).png", "s_{}.png", "tn_{}.png"]
)
@pytest.mark.parametrize("side", [12, 24])
def test_other_images_by_such_names_are_no_smaller_copies(tmp_path, name, side):
    for number in range(6):
        photo(tmp_path / f"train/c/{number}.png", number)
        photo(tmp_path / "train/c" / name.format(number), 100 + number, side)
    assert told(tmp_path) == []
