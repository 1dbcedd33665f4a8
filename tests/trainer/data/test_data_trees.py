"""Generated data sets as files in the formats of real ones: read back, they are what they were."""

import json
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO
from pydantic import TypeAdapter

from barlow_lab.specs.data_sets import DataSource
from trainer.data import trees
from trainer.data.datasets import Annotation, MaskFaults
from trainer.data.errors import DataError
from trainer.data.formats.outlines import polygons
from trainer.data.generated.writing import coco_annotations, voc_annotation
from trainer.data.registry import open_annotated, open_data_set
from trainer.data.trees import main, write_tree

LIMIT = 30
SOURCE = TypeAdapter(DataSource)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The source of each tree that can be written."""
    sources = {}
    for name, form in [("textures", "image_folder"), ("scenes", "voc"), ("scenes", "coco")]:
        folder = tmp_path_factory.mktemp("trees") / form
        sources[form] = SOURCE.validate_python(write_tree(name, form, folder, limit=LIMIT))
    return sources


@pytest.mark.parametrize("split", ["train", "test"])
def test_textures_come_back_from_an_image_folder(written, split):
    original = open_data_set("textures", split, limit=LIMIT)
    read = open_data_set("tree", split, source=written["image_folder"])
    assert sorted(read.classes) == sorted(original.classes)
    assert len(read) == LIMIT
    # A folder is read class by class: by their pixels the images find each other.
    classes = {original.image(index).tobytes(): original.classes[original.label(index)] for index in range(LIMIT)}
    assert len(classes) == LIMIT
    assert {read.image(index).tobytes(): read.classes[read.label(index)] for index in range(LIMIT)} == classes


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("form", ["voc", "coco"])
def test_scenes_come_back_from_voc_and_coco(written, form, split):
    original = open_annotated("scenes", split, limit=LIMIT)
    read = open_annotated("tree", split, source=written[form])
    assert sorted(read.classes) == sorted(original.classes)
    assert len(read) == LIMIT
    assert read.has_masks == (form == "coco")
    if read.has_masks:
        read, faults = read.with_masks(lambda: None)
        assert faults == MaskFaults()
    columns = [read.classes.index(name) for name in original.classes]
    np.testing.assert_array_equal(read.presence()[:, columns], original.presence())
    for index in range(LIMIT):
        drawn, found = original.annotation(index), read.annotation(index)
        np.testing.assert_array_equal(found.boxes, drawn.boxes)
        assert [read.classes[kind] for kind in found.classes] == [original.classes[kind] for kind in drawn.classes]
        np.testing.assert_array_equal(found.ignored, drawn.ignored)
        assert read.size(index) == original.size(index)
        if form == "coco":
            np.testing.assert_array_equal(found.masks, drawn.masks)
            np.testing.assert_array_equal(read.image(index), original.image(index))
        else:
            assert found.masks is None
            errors = read.image(index).astype(float) - original.image(index)
            assert 0 < np.sqrt(np.square(errors).mean()) < 8  # levels of 255: JPEG of quality 95


def test_coco_s_own_reader_finds_polygons_and_runs(written, capsys):
    source = written["coco"]
    original = open_annotated("scenes", "test", limit=LIMIT)
    file = source.root / source.splits["test"].annotations
    coco = COCO(str(file))
    kinds = set()
    for image_id in coco.getImgIds():
        annotation = original.annotation(image_id - 1)
        objects = coco.loadAnns(coco.getAnnIds(image_id))
        for place, each in enumerate(objects):
            np.testing.assert_array_equal(coco.annToMask(each), annotation.masks[place])
            assert each["area"] == annotation.masks[place].sum()
            assert coco.loadCats(each["category_id"])[0]["name"] == original.classes[annotation.classes[place]]
            kinds.add(type(each["segmentation"]))
    assert kinds == {list, dict}
    assert len({each["id"] for each in json.loads(file.read_text())["annotations"]}) == len(coco.anns)


def test_voc_counts_pixels_from_one_and_names_the_ignored_difficult():
    annotation = Annotation(
        np.array([[0, 0, 1, 1], [3, 5, 10, 20]], np.float32), np.array([1, 0]), np.array([False, True]), None
    )
    top = voc_annotation("one.jpg", (30, 40), annotation, ("a cat", "dog"))
    assert [int(top.find("size").findtext(tag)) for tag in ("height", "width", "depth")] == [30, 40, 3]
    first, second = top.findall("object")
    edges = ("xmin", "ymin", "xmax", "ymax")
    assert [int(first.find("bndbox").findtext(edge)) for edge in edges] == [1, 1, 1, 1]
    assert [int(second.find("bndbox").findtext(edge)) for edge in edges] == [4, 6, 10, 20]
    assert [each.findtext("name") for each in (first, second)] == ["dog", "a cat"]
    assert [each.findtext("difficult") for each in (first, second)] == ["0", "1"]
    assert "dog" in ElementTree.tostring(top, "unicode")


def test_a_crowd_is_written_in_runs_whatever_its_number():
    mask = np.zeros((2, 8, 8), bool)
    mask[:, 2:4, 1:7] = True
    boxes = np.array([[1, 2, 7, 4]] * 2, np.float32)
    of = Annotation(boxes, np.array([0, 0]), np.array([False, True]), mask)
    for first_id in (1, 2):
        single, crowd = coco_annotations(of, first_id=first_id)
        assert (single["iscrowd"], crowd["iscrowd"]) == (0, 1)
        assert isinstance(crowd["segmentation"], dict)
        assert single["bbox"] == [1.0, 2.0, 6.0, 2.0]
        assert isinstance(single["segmentation"], list) == (first_id == 2)


def test_outlines():
    mask = np.zeros((6, 7), bool)
    mask[1:3, 2:5] = True
    assert [sorted(zip(each[::2], each[1::2], strict=True)) for each in polygons(mask)] == [
        [(2, 1), (2, 3), (5, 1), (5, 3)]
    ]
    mask[3, 5] = True  # touches at a corner: a polygon of its own
    assert len(polygons(mask)) == 2
    whole = np.ones((6, 7), bool)
    assert len(polygons(whole)) == 1
    whole[2, 2] = False  # a hole
    assert polygons(whole) is None


@pytest.mark.parametrize("seed", range(5))
def test_outlines_of_any_mask_are_exact_or_none(seed):
    """Checked against pycocotools within `polygons`; here: masks without holes all have outlines."""
    heights = np.random.default_rng(seed).integers(1, 12, 20)
    skyline = np.arange(12)[::-1, None] < heights
    assert polygons(skyline) is not None
    assert polygons(~skyline) is not None or not (~skyline).any()


def test_the_command_writes_shows_how_far_it_is_and_prints_the_entry(tmp_path, capsys):
    folder = tmp_path / "some where" / "tree"
    assert main(["scenes", "--format", "voc", str(folder), "--limit", "20"]) == 0
    printed = capsys.readouterr()
    [(name, entry)] = yaml.safe_load(printed.out).items()
    assert name == "scenes-voc"
    source = SOURCE.validate_python(entry)
    assert len(open_annotated(name, "test", source=source)) == 20
    assert printed.err.splitlines()[1:] == [f"{done} of 40 images" for done in range(4, 41, 4)]
    assert [each.name for each in folder.parent.iterdir()] == ["tree"]


def test_on_a_terminal_one_line_fills(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["textures", "--format", "image_folder", str(tmp_path / "tree"), "--limit", "30"]) == 0
    _, *states = capsys.readouterr().err.split("\r")
    assert states == ["#" * 33 + "." * 7 + " 50 of 60 images", "#" * 40 + " 60 of 60 images\n"]


@pytest.mark.parametrize(("arguments", "said"), [
    (["textures", "--format", "voc"], "textures cannot be written as voc; write it as image_folder"),
    (["scenes", "--format", "image_folder"], "write it as voc or coco"),
    (["scenes", "--format", "coco", "--limit", "0"], "use at least 1"),
])  # fmt: skip
def test_what_cannot_be_written_is_refused_with_the_remedy(tmp_path, capsys, arguments, said):
    assert main([*arguments, str(tmp_path / "tree")]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="name a folder that is new or empty"):
        write_tree("textures", "image_folder", tmp_path, limit=1)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(DataError, match="holds something already"):
        write_tree("textures", "image_folder", tmp_path / "mine.txt", limit=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    write_tree("textures", "image_folder", empty, limit=1)
    assert (empty / "train").is_dir()


def test_half_a_tree_is_never_left(tmp_path):
    def stop(done, total):
        assert total == 20
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tree("textures", "image_folder", tmp_path / "tree", limit=10, progress=stop)
    assert not list(tmp_path.iterdir())


def test_help_names_every_format(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    assert all(form in printed for form in trees.FORMATS)
    assert "datasets.yaml" in printed
