"""No format leaves images of its tree unmentioned: what no split has is counted and named."""

import json
import os
from types import SimpleNamespace

import pytest
from grey_images import put

from barlow_lab.specs.data_sets import parse_source
from trainer.data.errors import DataError
from trainer.data.formats import beginnings, json_stream
from trainer.data.formats.unused import unused_images
from trainer.data.registry import open_images

XML = (
    "<annotation><size><height>4</height><width>6</width></size><object><name>dog</name><bndbox><xmin>1</xmin>"
    "<ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></object></annotation>"
)


def told(source, *opened):
    source = parse_source(source)
    splits = {split: open_images("own", split, source=source) for split in opened}
    return unused_images(source, splits, tick=lambda: None)


def instances(*names):
    return json.dumps({
        "images": [{"id": i, "file_name": name, "height": 4, "width": 6} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 2, 2]} for i in range(len(names))],
        "categories": [{"id": 1, "name": "dog"}],
    })  # fmt: skip


@pytest.fixture
def coco(tmp_path):
    for name in ("train/1.png", "train/2.png", "train/sub/3.png", "val/1.png", "unlabeled/7.png", "unlabeled/8.png"):
        put(tmp_path / name)
    (tmp_path / "train.json").write_text(instances("1.png", "./sub/3.png"))
    (tmp_path / "val.json").write_text(instances("1.png"))
    splits = {split: {"images": split, "annotations": f"{split}.json"} for split in ("train", "val")}
    return {"format": "coco", "root": str(tmp_path), "splits": splits}


@pytest.mark.parametrize("opened", [(), ("train",), ("train", "val")])
def test_of_coco_what_no_annotations_name(coco, opened):
    assert told(coco, *opened) == [
        "images of no split, not used: 3 (train/2.png, unlabeled/7.png, unlabeled/8.png), 2 in unlabeled, 1 in train"
    ]


def test_a_folder_behind_a_link_or_outside_of_the_root_is_the_sets_own(coco, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    for name in ("val/1.png", "val/2.png", "elsewhere/9.png"):
        put(outside / name)
    coco["splits"]["val"]["images"] = str(outside / "val")
    root = outside / "root"
    root.mkdir()
    for name in ("train", "train.json", "val.json"):
        (root / name).symlink_to(f"{coco['root']}/{name}")
    (root / "other").symlink_to(outside / "elsewhere")
    found = told(coco | {"root": str(root)}, "train")
    assert found[0].startswith(f"images of no split, not used: 2 ({outside}/val/2.png, train/2.png), ")
    assert "links to folders, not followed: 1 (other)" in found[1]


def test_a_split_whose_list_cannot_be_read_is_no_fault_of_the_job(coco, tmp_path):
    (tmp_path / "val.json").write_text("{")
    count, reason = told(coco, "train")
    assert "not used: 4 (" in count
    assert "split 'val' cannot be read" in reason


@pytest.mark.parametrize("opened", [(), ("train",)])
def test_annotations_are_read_one_at_a_time_where_only_image_names_are_wanted(coco, tmp_path, monkeypatch, opened):
    monkeypatch.setattr(json_stream, "PIECE", 64)
    monkeypatch.setattr(json_stream, "MAX_VALUE", 1000)
    text = instances("1.png", *(f"{number}.png" for number in range(2, 200)))
    assert len(json.dumps(json.loads(text)["annotations"])) > 5000
    (tmp_path / "val.json").write_text(text)
    count, *others = told(coco, *opened)
    assert count.startswith("images of no split, not used: 3 (train/2.png, unlabeled/7.png, unlabeled/8.png)")
    assert others == []


def test_a_name_that_is_no_path_in_a_list_not_opened_is_no_fault_of_the_job(coco, tmp_path):
    (tmp_path / "val.json").write_text(instances("1.png", "a\0b/x.jpg"))
    count, reason = told(coco, "train")
    assert "images of no split, not used: " in count
    assert "split 'val' cannot be read (" in reason
    assert "null" in reason


def test_of_lists_voc_and_inaturalist_what_they_do_not_name(tmp_path):
    for name in ("list/a/1.png", "list/a/2.png", "inat/a/1.png", "inat/b.jpg", "inat/._b.jpg", "inat/c.heic"):
        put(tmp_path / name)
    put(tmp_path / "list/.hidden/3.png")  # which a list may name all the same
    (tmp_path / "list/train.txt").write_text("a/1.png 0\n.hidden/3.png 1\n")
    lists = {"format": "file_list", "root": str(tmp_path / "list"), "splits": {"train": "train.txt"}}
    assert told(lists, "train") == told(lists) == ["images of no split, not used: 1 (a/2.png), 1 in a"]
    made = json.loads(instances("a/1.png"))
    made["annotations"] = [{"id": 0, "image_id": 0, "category_id": 1}]
    (tmp_path / "inat/t.json").write_text(json.dumps(made))
    found = told({"format": "inaturalist", "root": str(tmp_path / "inat"), "splits": {"train": "t.json"}}, "train")
    assert found[0] == "images of no split, not used: 1 (b.jpg), 1 in the root itself"
    assert "passed over: 1 x ._* (macOS)" in found[1]
    assert "1 x .heic" in found[2]
    for name in ("1", "2", "3"):
        put(tmp_path / f"voc/V/JPEGImages/{name}.jpg", kind="JPEG")
        (tmp_path / "voc/V/Annotations").mkdir(exist_ok=True)
        (tmp_path / f"voc/V/Annotations/{name}.xml").write_text(XML)
    (tmp_path / "voc/V/ImageSets/Main").mkdir(parents=True)
    for split, name in (("train", "1"), ("test", "2")):
        (tmp_path / f"voc/V/ImageSets/Main/{split}.txt").write_text(name)
    voc = {"format": "voc", "root": str(tmp_path / "voc"), "splits": {"train": ["V/train"], "test": ["V/test"]}}
    assert told(voc, "train") == told(voc) == [
        "images of no split, not used: 1 (V/JPEGImages/3.jpg), 1 in V/JPEGImages"
    ]  # fmt: skip


def test_of_class_folders_what_is_beside_splits_and_loose_in_those_not_open(tmp_path):
    for name in ("train/a/1.png", "test/a/1.png", "test/2.png", "extra/a/1.png", "0.png", "@eaDir/0.png/t.jpg"):
        put(tmp_path / name)
    tree = {"format": "image_folder", "root": str(tmp_path), "splits": {"train": "train", "test": "test"}}
    count, system = told(tree, "train")
    assert count == (
        "images of no split, not used: 3 (0.png, extra/a/1.png, test/2.png), 1 in the root itself, 1 in extra/a, "
        "1 in test"
    )
    assert system == "system folders and files, passed over: 1 x @eaDir"
    # Each folder of class folders is a split; one without any is not.
    put(tmp_path / "flat/1.png")
    found = told({"format": "image_folder", "root": str(tmp_path)}, "train")
    assert "not used: 3 (0.png, flat/1.png, test/2.png)" in found[0]


def test_of_a_part_of_a_folder_the_rest_and_of_binary_files_every_image(tmp_path):
    for name in ("a/1.png", "b/1.png", "b/c/1.png", "1.png"):
        put(tmp_path / name)
    folder = {"format": "images", "root": str(tmp_path), "splits": {"train": "b"}}
    assert told(folder, "train")[0].startswith("images of no split, not used: 2 (1.png, a/1.png)")
    assert told({"format": "images", "root": str(tmp_path)}) == []
    assert told({"format": "cifar10", "root": str(tmp_path)})[0].startswith("images of no split, not used: 4 (")
    assert "and more in" not in told({"format": "cifar10", "root": str(tmp_path)})[0]


def test_a_root_that_has_no_end_is_not_walked_to_it(tmp_path, monkeypatch):
    for number in range(30):
        put(tmp_path / f"{number}/1.png")
    monkeypatch.setattr("trainer.data.formats.unused.MOST", 10)
    cifar = {"format": "cifar10", "root": str(tmp_path)}
    assert told(cifar) == ["images of no split: none among 10 files and folders, and there are more"]
    for number in range(30):
        put(tmp_path / f"in one/{number}.png")
    assert "not used: at least 10 (" in told(cifar | {"root": str(tmp_path / "in one")})[0]


def test_a_walk_ends_when_its_time_is_over(tmp_path, monkeypatch):
    """The other ranks of a job wait for the one that walks."""
    for number in range(30):
        put(tmp_path / f"{number}.png")
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("trainer.data.formats.unused.time", clock)

    def later() -> None:
        clock.now += 10.0

    source = parse_source({"format": "cifar10", "root": str(tmp_path)})
    (said,) = unused_images(source, {}, tick=later)
    assert "not used: at least 6 (" in said
    clock.now = 1000.0
    (said,) = unused_images(source, {}, tick=lambda: None)
    assert "not used: 30 (" in said


def test_images_without_an_ending_are_known_by_first_bytes_and_used_if_listed(tmp_path, monkeypatch):
    kinds = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
    for name in ("a/1", "a/2", "a/3.", "a/4.png", *kinds):
        put(tmp_path / name, kind=name if name in kinds else "PNG")
    for name, text in (("README", "Python reads this."), ("BMW", "BMW, and others"), ("empty", "")):
        (tmp_path / name).write_text(text)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "train").write_text("a/1 0\na/4.png 1\n")
    lists = {"format": "file_list", "root": str(tmp_path), "splits": {"train": "train"}}
    assert told(lists, "train") == told(lists) == [
        "images by their first bytes whose names have no image's ending, of no split, not used: 9 (BMP, GIF, JPEG, "
        "...); give them the endings of their formats"
    ]  # fmt: skip
    for number in range(10):
        put(tmp_path / f"b/{number}")
    monkeypatch.setattr("trainer.data.formats.beginnings.MOST_OPENED", 5)
    put(tmp_path / "b/5.png")
    count, without, others = told({"format": "images", "root": str(tmp_path / "b"), "splits": {"train": "c"}})
    assert count.startswith("images of no split, not used: 1 (5.png), ")
    assert "not used: at least 5 (" in without
    assert "not looked into: 5 x no ending, for 5 such files were" in others


def test_images_with_other_endings_are_known_by_their_first_bytes(tmp_path):
    """As wget, exiftool and scanners name them; a link to one, as a cache keeps them, is the one that a list names."""
    names = ("1.2.840.7", "1.2.840.8", "a.jpg.1", "a.jpg_original")
    for name in (*names, "blobs/f3.0"):
        put(tmp_path / f"more/{name}", kind="JPEG")
    (tmp_path / "a.png").symlink_to("more/blobs/f3.0")
    (tmp_path / "more/notes.txt").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "more/b.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "train").write_text("a.png 0\n")
    (found,) = told({"format": "file_list", "root": str(tmp_path), "splits": {"train": "train"}})
    assert "not used: 4 (more/1.2.840.7, more/1.2.840.8, more/a.jpg.1, ...)" in found
    put(tmp_path / "split/1.png")
    for name in names:
        put(tmp_path / f"split/{name}", kind="JPEG")
    notes = []
    source = parse_source({"format": "images", "root": str(tmp_path / "split")})
    open_images("own", "train", source=source, warn=notes.append)
    assert "files passed over: 3 x .<number>, 1 x .jpg_original; endings of images are" in notes[0]


def test_of_many_files_that_are_no_images_a_sample_is_looked_into(tmp_path, monkeypatch):
    opened = []
    real = beginnings.open_regular
    monkeypatch.setattr(beginnings, "open_regular", lambda path: opened.append(path) or real(path))
    for folder in range(8):
        (tmp_path / f"{folder}").mkdir()
        for number in range(100):
            (tmp_path / f"{folder}/{number}.npy").touch()
    put(tmp_path / "7/1.jpg_original")
    found, others = told({"format": "cifar10", "root": str(tmp_path)})
    assert "not used: 1 (7/1.jpg_original)" in found
    assert f"not looked into: {800 - len(opened) + 1} x .npy" in others
    assert len(opened) <= beginnings.ENOUGH + 1


LEFTOVERS = [
    ".IMG_1.jpg.icloud", ".x.jpg.AbC123", "x.jpg.part", "y.JPG.crdownload", ".~lock.x.jpg#", "x.jpg~", "z.png.tmp",
    "a.heic.partial", ".syncthing.b.png.tmp", "c.jpg.nextcloud", "d.jpeg.bak2", ".e.jpg.swp",
]  # fmt: skip


def test_what_is_left_of_copies_or_lies_in_a_cloud_is_told_by_every_format(tmp_path):
    for split in ("train", "val"):
        put(tmp_path / split / "c/1.png")
        for name in LEFTOVERS:
            (tmp_path / split / "c" / name).write_bytes(b"bplist00")
    (tmp_path / "train/.cache").mkdir()
    (tmp_path / "train/.cache/f.jpg.part").touch()
    (tmp_path / "train/c/.g.heic").touch()
    (tmp_path / "train.txt").write_text("train/c/1.png 0\n")
    words = "files that stand for images and are none by their names"
    for form in ("image_folder", "images"):
        heard = []
        source = parse_source({"format": form, "root": str(tmp_path), "splits": {"train": "train"}})
        open_images("own", "train", source=source, warn=heard.append)
        assert f"{words}, as what is left" in heard[0]
        assert "not used: 13 (" in heard[0]
        assert "hidden images, not used: 1 (" in heard[0]
        unused = unused_images(source, {"train": open_images("own", "train", source=source)}, tick=lambda: None)
        assert any(words in said and "not used: 12 (val/c/" in said for said in unused)
    lists = {"format": "file_list", "root": str(tmp_path), "splits": {"train": "train.txt"}}
    assert any(words in said and "not used: 25 (" in said for said in told(lists, "train"))


def test_files_beside_images_that_describe_them_are_none_that_stand_for_them(tmp_path):
    put(tmp_path / "train/c/1.png")
    put(tmp_path / "train/c/part.jpg.png")
    for name in ("1.png.json", "1.png.xmp", "1.jpg.txt", "old.tmp", ".hidden.txt", ".jpgs"):
        (tmp_path / "train/c" / name).touch()
    heard = []
    source = parse_source({"format": "image_folder", "root": str(tmp_path)})
    assert len(open_images("own", "train", source=source, warn=heard.append)) == 2
    assert not any("stand for images" in said for said in heard)


def test_a_split_of_arrays_says_what_is_not_read(tmp_path):
    (tmp_path / "train").mkdir()
    for number in range(3):
        (tmp_path / f"train/{number}.npy").touch()
    for form in ("image_folder", "images"):
        source = parse_source({"format": form, "root": str(tmp_path)})
        with pytest.raises(DataError, match=r"files passed over: 3 x \.npy; .*arrays are not read: write each image"):
            open_images("own", "train", source=source)
