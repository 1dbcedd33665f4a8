"""datasets.yaml: what it may say, where relative paths are, and every fault at once with its place."""

from pathlib import Path
from typing import Any

import pytest

from barlow_lab.specs import SpecError
from barlow_lab.specs.data_set_uses import kinds_for
from barlow_lab.specs.data_sets import (
    annotations_of,
    expected_classes,
    load_data_sets,
    parse_source,
    unchecked,
    without_labels,
)
from barlow_lab.specs.kinds import KINDS
from barlow_lab.specs.known_data_sets import KNOWN, where_from

EVERY_FORMAT = """
imagenet:
  format: image_folder
  root: /data/imagenet
  splits: {train: train, test: val}
  lists: {1percent: /lists/1percent.txt, 10percent: semi/10percent.txt}
photos: {format: images, root: photos}
places205: {format: file_list, root: places, splits: {train: train.csv, test: val.csv}, images: images}
inaturalist2018: {format: inaturalist, root: inat}
cifar10: {format: cifar10, root: ../cifar-10-batches-bin, description: "small images"}
mine-100: {format: cifar100, root: c}
stl10: {format: stl10, root: s}
voc0712:
  format: voc
  root: VOCdevkit
  splits: {train: [VOC2007/trainval, VOC2012/trainval], test: [VOC2007/test]}
coco:
  format: coco
  root: coco
  classes: 3
  splits:
    train: {images: train2017, annotations: annotations/instances_train2017.json}
"""


def load(folder: Path, text: str) -> dict[str, Any]:
    (folder / "datasets.yaml").write_text(text)
    return load_data_sets(folder / "datasets.yaml")


def faults_of(folder: Path, text: str) -> dict[str, str]:
    with pytest.raises(SpecError) as raised:
        load(folder, text)
    return {fault.pointer: fault.message for fault in raised.value.faults}


def test_every_format_is_read_and_relative_paths_are_below_the_file(tmp_path: Path) -> None:
    sources = load(tmp_path, EVERY_FORMAT)
    assert sources["imagenet"].root == Path("/data/imagenet")
    assert sources["imagenet"].lists == {
        "1percent": Path("/lists/1percent.txt"),
        "10percent": Path("/data/imagenet/semi/10percent.txt"),
    }
    assert sources["photos"].splits == {"train": "."}
    assert sources["places205"].root == tmp_path / "places"
    assert sources["inaturalist2018"].splits == {"train": "train2018.json", "test": "val2018.json"}
    assert sources["voc0712"].splits["train"] == ["VOC2007/trainval", "VOC2012/trainval"]
    assert all(source.root.is_absolute() for source in sources.values())
    for source in sources.values():
        assert parse_source(source.model_dump(mode="json")) == source


def test_what_a_set_is_for_is_known_from_its_format(tmp_path: Path) -> None:
    sources = load(tmp_path, EVERY_FORMAT)
    assert annotations_of(sources["imagenet"]) == annotations_of(sources["stl10"]) == ("class",)
    assert annotations_of(sources["voc0712"]) == ("boxes", "multi_label")
    assert "masks" in annotations_of(sources["coco"])
    assert annotations_of(sources["photos"]) == ()
    assert kinds_for([]) == ["pretrain", "closed_form"]
    assert kinds_for(["class"]) == ["pretrain", "closed_form", "invariance", "knn", "linear", "semi_supervised", "svm"]
    assert kinds_for(["boxes", "multi_label"]) == ["pretrain", "closed_form", "svm", "detection"]
    assert {kind for found in (["class"], ["boxes"]) for kind in kinds_for(found)} == set(KINDS)
    entry = unchecked(sources["imagenet"])
    assert (entry.checked, entry.splits, entry.classes, entry.lists) == (False, {}, None, ["10percent", "1percent"])


def test_known_names_bring_their_number_of_classes_and_their_source(tmp_path: Path) -> None:
    sources = load(tmp_path, EVERY_FORMAT)
    assert {name: expected_classes(name, sources[name]) for name in sources} == {
        "imagenet": 1000, "photos": None,
        "places205": 205, "inaturalist2018": 8142, "cifar10": 10, "mine-100": None, "stl10": 10,
        "voc0712": 20, "coco": 3,
    }  # fmt: skip
    assert {name: KNOWN[name].classes for name in ("cifar100", "voc07", "voc12", "coco")} == {
        "cifar100": 100, "voc07": 20, "voc12": 20, "coco": 80,
    }  # fmt: skip
    assert "gate the download" in where_from("imagenet")
    assert where_from("mine-100") == ""


def test_a_spec_may_ask_for_the_images_of_a_tree_without_labels(tmp_path: Path) -> None:
    sources = load(tmp_path, EVERY_FORMAT)
    assert without_labels("photos", sources["photos"], "train") is sources["photos"]
    imagenet = without_labels("imagenet", sources["imagenet"], "train")
    assert (imagenet.format, imagenet.root, imagenet.splits) == (
        "images", Path("/data/imagenet"), {"train": "train", "test": "val"},
    )  # fmt: skip
    tree = sources["imagenet"].model_copy(update={"root": tmp_path, "splits": {}, "description": "mine"})
    assert without_labels("own", tree, "train").splits == {"train": "."}
    (tmp_path / "train").mkdir()
    assert without_labels("own", tree, "train").splits == {"train": "train"}
    assert without_labels("own", tree, "more").splits == {"more": "more"}
    assert without_labels("own", tree, "more").description == "mine"
    with pytest.raises(ValueError, match=r"coco is in format coco, in which .*: pretraining looks at no labels anyway"):
        without_labels("coco", sources["coco"], "train")
    with pytest.raises(ValueError, match="digits is built in"):
        without_labels("digits", None, "train")


def test_all_faults_are_told_at_once_each_at_its_place(tmp_path: Path) -> None:
    found = faults_of(tmp_path, """
digits: {format: stl10, root: x}
"a/b": {format: stl10, root: x}
7: {format: stl10, root: x}
no-format: {root: x}
mistyped: {format: cifar11, root: x}
no-root: {format: stl10}
unknown: {format: image_folder, root: x, split: {train: t}}
part: {format: voc, root: x, splits: {train: [trainval]}}
images: {format: coco, root: x, splits: {train: {images: i}}}
none: {format: file_list, root: x, splits: {}}
text: nothing
wrong: {format: image_folder, root: x, classes: 0}
labelled: {format: images, root: x, classes: 3}
""")  # fmt: skip
    assert set(found) == {
        "/digits", "/a~1b", "/7", "/no-format/format", "/mistyped/format", "/no-root/root", "/unknown/split",
        "/part/splits/train/0", "/images/splits/train/annotations", "/none/splits", "/text", "/wrong/classes",
        "/labelled",
    }  # fmt: skip
    assert "built in" in found["/digits"]
    assert "did you mean 'cifar10'" in found["/mistyped/format"]
    assert "did you mean 'splits'?" in found["/unknown/split"]
    assert "format is missing; use one of image_folder" in found["/no-format/format"]
    assert "in quotes" in found["/7"]
    assert "have no labels; leave them out, or take image_folder or file_list" in found["/labelled"]


NO_NUMBER = "a text is expected here, not a number: put it in quotes"


@pytest.mark.parametrize(("entry", "pointer", "said"), [
    ("format: images, root: x, splits: {train: 2024}", "splits/train", NO_NUMBER),
    ("format: images, root: x, splits: {2024: y}", "splits/2024", NO_NUMBER),
    ("format: images, root: x, description: true", "description", "not true or false: put it in quotes"),
    ("format: images, root: 7", "root", NO_NUMBER),
    ("format: images, root: x, splits: {train: [y]}", "splits/train", "a text is expected here, not a list"),
    ("format: images, root: ", "root", "a text is expected here, not null"),
    ("format: voc, root: x, splits: {train: 2007/train}", "splits/train",
     "a list is expected here, not a text: put [ and ] around it"),
])  # fmt: skip
def test_a_value_of_another_type_is_refused_with_the_remedy(
    tmp_path: Path, entry: str, pointer: str, said: str
) -> None:
    assert faults_of(tmp_path, f"a: {{{entry}}}\n")[f"/a/{pointer}"].endswith(said)


def test_an_entry_may_take_in_another_one(tmp_path: Path) -> None:
    sources = load(tmp_path, "base: &b {format: images, root: /x, description: a}\nmore: {<<: *b, description: b}\n")
    assert sources["more"] == sources["base"].model_copy(update={"description": "b"})


@pytest.mark.parametrize(("text", "message"), [
    ("- a\n- b", "holds data sets by name"),
    ("a: {format: stl10, root: x}\na: {format: stl10, root: y}", "line 2: the key 'a' stands twice"),
    ("a: [", "datasets.yaml cannot be read"),
])  # fmt: skip
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in faults_of(tmp_path, text)[""]


def test_an_empty_file_has_no_data_sets_and_one_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    assert load(tmp_path, "# none yet\n") == {}
    with pytest.raises(FileNotFoundError):
        load_data_sets(tmp_path / "datasets.yml")
