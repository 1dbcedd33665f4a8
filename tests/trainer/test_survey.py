"""What a host's data sets hold, counted by the readers that jobs use."""

import json
import re

import pytest
from odd_trees import make_split

from barlow_lab.specs.catalogue import DataSetEntry
from barlow_lab.specs.data_sets import ImageFolderSource, ImagesSource
from trainer import survey


def of_folder(root, **more):
    said = []
    source = ImageFolderSource(format="image_folder", root=root, **more)
    return survey.survey("own", source, said.append), said


def test_counts_are_those_of_the_splits(tmp_path):
    make_split(tmp_path / "train", 24)
    make_split(tmp_path / "val", 10)
    (tmp_path / "few.txt").write_text("000.png\n")
    entry, said = of_folder(tmp_path, splits={"train": "train", "test": "val"}, lists={"few": tmp_path / "few.txt"})
    known = {"image_size": 8, "lists": ["few"], "format": "image_folder", "source": entry.source}
    assert entry == DataSetEntry(splits={"train": 24, "test": 10}, classes=3, **known)
    assert (entry.checked, said) == (True, [])


def test_of_a_tree_without_splits_those_folders_count_that_are_splits(tmp_path):
    make_split(tmp_path / "train", 6)
    (tmp_path / "devkit").mkdir()
    for unspeakable in (".cache", "of my own", "l\udce9"):
        make_split(tmp_path / unspeakable, 6)
    entry, said = of_folder(tmp_path)
    assert (entry.splits, entry.fault) == ({"train": 6}, None)
    unspoken, empty = said
    assert "images of no split, not used: 18 (.cache/class-0/000.png, " in unspoken
    assert "2 in .cache/class-0, 2 in .cache/class-1" in unspoken
    assert "devkit is empty" in empty
    assert "not counted as a split" in empty
    assert entry.notes == said


@pytest.mark.parametrize(("more", "fault"), [
    ({"splits": {"train": "train", "test": "val"}}, "no split 'val'"),
    ({"classes": 5}, "has 3 classes in .*, and 5 are expected"),
    ({"lists": {"few": "nowhere.txt"}}, "list 'few' of data set 'own' is not at nowhere.txt"),
])  # fmt: skip
def test_what_is_wrong_is_the_fault_of_the_set(tmp_path, more, fault):
    make_split(tmp_path / "train", 6)
    entry, _ = of_folder(tmp_path, **({"splits": {"train": "train"}} | more))
    assert (entry.splits, entry.checked) == ({}, True)
    assert re.search(fault, entry.fault)


def test_images_that_cannot_be_read_are_noted_and_a_split_of_such_alone_is_a_fault(tmp_path):
    make_split(tmp_path / "train", 6)
    files = sorted((tmp_path / "train").rglob("*.png"))
    files[1].write_bytes(files[1].read_bytes()[:50])
    files[2].write_bytes(b"")
    entry, _ = of_folder(tmp_path)
    (note,) = entry.notes
    assert "split 'train': 2 of 6 images looked at cannot be read, first class-" in note
    assert entry.fault is None
    for file in files:
        file.write_bytes(b"")
    entry, _ = of_folder(tmp_path)
    assert "split 'train': 6 of 6 images looked at cannot be read, first class-0/" in entry.fault
    assert entry.fault.endswith(": the file is empty")
    make_split(tmp_path / "more", 6)
    entry, _ = of_folder(tmp_path)
    assert (entry.fault, entry.splits) == (None, {"more": 6, "train": 6})
    assert "6 of 6 images looked at cannot be read" in entry.notes[0]
    entry, _ = of_folder(tmp_path, splits={"train": "train", "test": "more"})
    assert "split 'train': 6 of 6" in entry.fault


def test_a_class_none_of_whose_images_can_be_read_is_noted(tmp_path):
    make_split(tmp_path / "train", 90)
    for file in [*(tmp_path / "train/class-1").iterdir(), tmp_path / "train/class-0/000.png"]:
        file.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0" + file.name.encode())  # and no copies
    entry, _ = of_folder(tmp_path)
    lost, some = entry.notes
    assert "split 'train': no image of class 'class-1' can be read (up to 32 of each were tried): nothing is" in lost
    assert "but HEIC" in some


def test_thumbnails_of_a_nas_and_forks_of_a_mac_are_no_images_and_are_told_of(tmp_path):
    for split in ("train", "test"):
        make_split(tmp_path / split, 6)
        make_split(tmp_path / split / "class-0/@eaDir", 3)
        make_split(tmp_path / split / "__MACOSX", 3)
        (tmp_path / split / "lost+found").mkdir()
    entry, _ = of_folder(tmp_path)
    assert (entry.splits, entry.classes, entry.fault) == ({"train": 6, "test": 6}, 3, None)
    for split, note in zip(("test", "train"), entry.notes, strict=True):
        assert f"split {split!r}" in note
        assert "passed over: 1 x @eaDir, 1 x __MACOSX, 1 x lost+found" in note


def test_folders_of_photographs_beside_splits_are_one_note_by_their_first_images(tmp_path):
    for split in ("train", "test"):
        make_split(tmp_path / split, 6)
    for month in range(25):
        (tmp_path / f"2024-{month:02d}").mkdir()
        (tmp_path / f"2024-{month:02d}/1.png").touch()
    (tmp_path / "loose.png").touch()
    entry, said = of_folder(tmp_path)
    assert entry.splits == {"train": 6, "test": 6}
    unused, flat = entry.notes
    assert "images of no split, not used: 26 (2024-00/1.png, 2024-01/1.png, 2024-02/1.png, ...)" in unused
    assert (
        f"25 folders of {tmp_path} are not counted as splits, as no class folder is in them: 2024-00, 2024-01, "
        "2024-02, 2024-03, ...; images without labels are taken as `format: images`"
    ) in flat
    # A split that falls out says with how many images; of too many notes the first remain, and how many others.
    for month in range(25):
        make_split(tmp_path / f"2024-{month:02d}", 6)
        (tmp_path / f"2024-{month:02d}/9").mkdir()
    entry, said = of_folder(tmp_path)
    assert "images of no split, not used: 26 (" in entry.notes[0]
    assert "no image in class folder '9' of " in entry.notes[1]
    assert "2024-00, whose other class folders hold 6 images: put images there, or take " in entry.notes[1]
    assert entry.notes[1].endswith("it is not counted as a split")
    assert (len(entry.notes), entry.notes[19:]) == (20, ["and 7 notes more, in the worker's log"])
    assert len(said) == 26


def test_images_in_no_class_folder_or_no_split_are_counted_and_named(tmp_path):
    make_split(tmp_path / "train", 6)
    make_split(tmp_path / "more", 3)
    for number in range(242):
        (tmp_path / f"train/{number}.jpg").touch()
    entry, said = of_folder(tmp_path, splits={"train": "train"})
    assert entry.splits == {"train": 6}
    beside, loose = entry.notes
    assert "not used: 242 (0.jpg, 1.jpg, 10.jpg, ...)" in loose
    assert "not used: 3 (more/class-0/000.png, " in beside
    assert said == [loose, beside]
    assert sum(survey.survey("own", unlabelled(tmp_path), said.append).splits.values()) == 251


def unlabelled(root):
    return ImagesSource(format="images", root=root)


def test_a_folder_without_labels_has_images_and_no_classes(tmp_path):
    make_split(tmp_path / "deep/er", 5)
    entry = survey.survey("own", unlabelled(tmp_path), lambda said: None)
    assert (entry.splits, entry.classes, entry.annotations, entry.notes) == ({"train": 5}, None, [], [])
    assert (entry.unlabelled, entry.checked, entry.fault) == (["train"], True, None)


def test_images_in_a_root_without_splits_or_in_classes_below_it_are_told_of(tmp_path):
    make_split(tmp_path / "by-class", 6)
    entry, _ = of_folder(tmp_path / "by-class")
    assert "say `splits: {train: .}` for class folders right below the root" in entry.fault
    entry, _ = of_folder(tmp_path / "by-class", splits={"train": "."})
    assert (entry.splits, entry.classes, entry.notes) == ({"train": 6}, 3, [])
    for number in range(5):
        (tmp_path / f"{number}.png").touch()
    (tmp_path / "by-class").rename(tmp_path / "__MACOSX")
    entry, _ = of_folder(tmp_path)
    assert "its folders: none (images are looked for as ROOT/SPLIT/CLASS/IMAGE), where 5 images stand" in entry.fault
    assert "`format: images`" in entry.fault


def test_a_root_that_is_not_there_is_told_with_where_the_set_comes_from(tmp_path):
    source = ImageFolderSource(format="image_folder", root=tmp_path / "gone")
    entry = survey.survey("imagenet", source, lambda said: None)
    assert "has no folder" in entry.fault
    assert "image-net.org" in entry.fault


def test_the_command_prints_a_line_a_set_and_says_which_have_faults(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(survey.os, "nice", lambda by: 0)
    make_split(tmp_path / "tree/train", 6)
    tree = {"format": "image_folder", "root": "tree"}
    (tmp_path / "datasets.yaml").write_text(json.dumps({"good": tree, "bad": {**tree, "root": "elsewhere"}}))
    assert survey.main([str(tmp_path / "datasets.yaml")]) == 1
    good, bad = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (good["name"], good["entry"]["splits"]) == ("good", {"train": 6})
    assert (bad["name"], bad["entry"]["splits"]) == ("bad", {})
    assert survey.main([str(tmp_path / "datasets.yaml"), "good"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert survey.main([str(tmp_path / "datasets.yaml"), "god"]) == 2
    assert "has no god; it has good, bad" in capsys.readouterr().err
    (tmp_path / "datasets.yaml").write_text("good: {format: stl10}")
    assert survey.main([str(tmp_path / "datasets.yaml")]) == 2
    assert "/good/root" in capsys.readouterr().err
