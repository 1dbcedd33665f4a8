"""Paths in lists and annotations: absolute ones, links and other spellings, of which each image has one in the end."""

import json

import pytest
from listed_images import of_list
from PIL import Image

from barlow_lab.specs.data_sets import CocoFiles, CocoSource, INaturalistSource
from trainer.data.errors import DataError
from trainer.data.registry import open_images


@pytest.fixture
def root(tmp_path):
    """A folder of images, to which `alias` leads as well; in it `linked` leads to one outside of it."""
    for level, path in enumerate(("set/images/a/1.png", "set/images/b/2.png", "elsewhere/3.png", "set/4.png")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (10 * level, 0, 0)).save(tmp_path / path)
    (tmp_path / "alias").symlink_to("set/images")
    (tmp_path / "b").symlink_to("set/images/b")
    (tmp_path / "set/images/linked").symlink_to(tmp_path / "elsewhere")
    return tmp_path


@pytest.mark.parametrize("images", ["set/images", "alias", "alias/../images", "./set//images"])
def test_absolute_paths_that_lead_below_the_folder_are_those_below_it(root, images):
    lines = [f"{root}/set/images/a/1.png", f"{root}/alias/b/2.png", f"{root}/alias//./linked/3.png"]
    data = of_list(root, *(f"{line} {label}" for label, line in enumerate(lines)), images=images)
    assert [data.name(place) for place in range(3)] == ["a/1.png", "b/2.png", "linked/3.png"]
    assert [int(data.image(place)[0, 0, 0]) for place in range(3)] == [0, 10, 20]
    short = of_list(root, "a/1.png 0", "b/2.png 1", "linked/3.png 2", images=images)
    assert data.fingerprint == short.fingerprint


@pytest.mark.parametrize("spelling", [
    "./b/2.png", "b//2.png", "b/./2.png", "a/../b/2.png", "linked/../set/images/b/2.png", "../images/b/2.png",
    "{root}/set/images/b/2.png", "{root}/alias/b/2.png", "{root}/b/2.png", "//{root}/alias/b/../b/2.png",
])  # fmt: skip
def test_an_image_has_one_key_however_it_is_spelt(root, spelling):
    heard = []
    data = of_list(root, "b/2.png 0", f"{spelling.format(root=root)} 0", warn=heard.append)
    assert [data.name(0), data.name(1)] == ["b/2.png", "b/2.png"]
    (told,) = heard
    assert "1 image is there more than once, 0 of them with different classes, first b/2.png (2 times;" in told


@pytest.mark.parametrize("line", [
    "{root}/set/4.png", "{root}/elsewhere/3.png", "../4.png", "{root}/set/imagesque/1.png", "linked/../1.png",
])  # fmt: skip
def test_what_leads_elsewhere_is_refused_by_name(root, line):
    line = line.format(root=root)
    with pytest.raises(DataError, match=r"which is outside the folder of the images, .*/set/images; ") as refused:
        of_list(root, f"{line} 0")
    assert f"names {line}, which" in str(refused.value)


@pytest.mark.parametrize("form", ["coco", "inaturalist"])
def test_absolute_paths_in_annotations_are_read_and_others_refused(root, form):
    def opened(name):
        image = {"id": 1, "file_name": name, "width": 6, "height": 4}
        kind = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}
        value = {"images": [image], "annotations": [kind], "categories": [{"id": 1, "name": "cat"}]}
        (root / "set/images/train.json").write_text(json.dumps(value))
        coco = CocoFiles(images="images", annotations="images/train.json")
        source = {
            "coco": CocoSource(format="coco", root=root / "set", splits={"train": coco}),
            "inaturalist": INaturalistSource(
                format="inaturalist", root=root / "set/images", splits={"train": "train.json"}
            ),
        }[form]
        return open_images("mine", "train", source=source)

    assert opened(f"{root}/alias/b/2.png").name(0) == "b/2.png"
    with pytest.raises(DataError, match=r"train.json names /.*/set/4.png, which is outside the folder of the images"):
        opened(f"{root}/set/4.png")
    with pytest.raises(DataError, match=r"train.json names http://example.org/2.png, an address"):
        opened("http://example.org/2.png")
