"""`format: images`: every image below a folder, flat or nested, without labels."""

import hashlib

import pytest
from grey_images import levels, put

from barlow_lab.specs.data_sets import ImagesSource, expected_classes
from trainer.data.errors import DataError
from trainer.data.registry import open_data_set, open_images

FLAT = ["b.png", "a.jpg", "C.gif", "c.bmp"]
NESTED = [
    "x.png",
    "2024/06/one.jpg",
    "2024/06/@eaDir/one.jpg/SYNOPHOTO_THUMB_M.jpg",
    "2024/zwei.png",
    "@Recycle/old.png",
    "trashbox/2024/old.png",
]


def opened(root, split="train", **more):
    splits = {"splits": more.pop("splits")} if "splits" in more else {}
    return open_images("photos", split, source=ImagesSource(format="images", root=root, **splits), **more)


@pytest.fixture
def nested(tmp_path):
    for level, name in enumerate(NESTED):
        put(tmp_path / "nas" / name, level)
    return tmp_path / "nas"


def test_a_flat_folder_is_its_images_in_the_order_of_their_bytes(tmp_path):
    for level, name in enumerate(FLAT):
        put(tmp_path / name, level)
    data = opened(tmp_path)
    assert levels(data) == [2, 1, 0, 3]
    assert [data.name(index) for index in range(4)] == ["C.gif", "a.jpg", "b.png", "c.bmp"]
    assert data.classes == ()
    assert opened(tmp_path, limit=4).fingerprint == data.fingerprint


def test_a_limit_draws_among_all_folders_always_the_same_images(tmp_path):
    for place in range(60):
        put(tmp_path / f"{place // 20}/{place:02}.png", place)
    whole, half, few = opened(tmp_path), opened(tmp_path, limit=30), opened(tmp_path, limit=15)
    names = [half.name(index) for index in range(30)]
    assert [sum(name.startswith(folder) for name in names) for folder in "012"] == [8, 10, 12]
    assert sorted(levels(half)) == sorted(int(name[2:4]) for name in names)
    assert levels(few) == levels(half)[:15]
    assert (
        names
        == sorted((whole.name(index) for index in range(60)), key=lambda name: hashlib.sha256(name.encode()).digest())[
            :30
        ]
    )
    assert whole.name(-1) == "2/59.png"
    first = hashlib.sha256(f"{whole.fingerprint} first 30".encode()).hexdigest()
    assert half.fingerprint not in (whole.fingerprint, first), "as the first ones of before, which a paused run holds"


def test_a_nested_one_holds_what_lies_at_any_depth_and_nothing_of_the_system_s(nested):
    told = []
    data = opened(nested, warn=told.append)
    assert levels(data) == [1, 3, 0]
    assert "passed over: 1 x @Recycle, 1 x @eaDir" in told[0]
    put(nested / "2024/more.png", 9)
    assert opened(nested).fingerprint != data.fingerprint


def test_folders_behind_links_are_taken_at_the_top_once_and_only_from_outside(nested, tmp_path):
    for number in range(2):
        put(tmp_path / f"elsewhere/{number}.png", 50 + number)
    (nested / "z-link").symlink_to(tmp_path / "elsewhere")
    (nested / "z-twice").symlink_to(tmp_path / "elsewhere")
    (nested / "loop").symlink_to(tmp_path)
    (nested / "alias").symlink_to(nested / "2024")
    (nested / "2024/deep").symlink_to(tmp_path / "elsewhere")
    told = []
    assert levels(opened(nested, warn=told.append)) == [1, 3, 0, 50, 51]
    assert "links to folders, not followed: 4 (2024/deep, alias, loop, ...)" in told[0]


def test_splits_are_folders_and_one_that_holds_another_s_is_told_of(nested):
    assert levels(opened(nested, "june", splits={"june": "2024/06"})) == [1]
    told = []
    put(nested / "Val/1.png")
    assert len(opened(nested, splits={"train": ".", "june": "2024/06"}, warn=told.append)) == 4
    assert "holds 1 images of its folder '2024/06', which is split 'june'" in told[1]
    assert "holds 1 images of its folder 'Val', which is by its name images of a test" in told[2]
    with pytest.raises(DataError, match=r"no split 'val'; its splits: train"):
        opened(nested, "val")


def test_it_has_no_labels_whatever_it_is_called(nested):
    source = ImagesSource(format="images", root=nested)
    assert expected_classes("imagenet", source) is None
    assert len(open_images("imagenet", "train", source=source)) == 3
    with pytest.raises(
        DataError, match=r"'photos' is for pretrain, closed_form: it has no labels, and this job learns from one class"
    ):
        open_data_set("photos", "train", source=source)


def test_a_folder_without_images_is_told_with_what_is_in_it(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.heic").touch()
    with pytest.raises(DataError, match=r"no image is below .*1 x \.heic.*put images there"):
        opened(tmp_path)
    with pytest.raises(DataError, match=r"has no folder .*/nowhere"):
        opened(tmp_path, splits={"train": "nowhere"})
