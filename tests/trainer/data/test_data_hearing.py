"""Looks at data that only serve to tell are left out where nobody hears: on every rank but the first."""

import dataclasses

import coco_trees
import pytest
import runs
from grey_images import put

from barlow_lab.specs.data_sets import parse_source
from trainer.data.formats import doubtful_boxes, images_of_tests, opening
from trainer.data.formats.mask_extents import Extents
from trainer.data.hearing import nobody
from trainer.data.registry import open_images
from trainer.runtime import data_warnings
from trainer.runtime.data_warnings import warn_of_data


@pytest.fixture
def looks(monkeypatch):
    """Those that were made."""
    made = []

    def watch(where, name):
        real = getattr(where, name)
        monkeypatch.setattr(where, name, lambda *given, **more: made.append(name) or real(*given, **more))

    for where, name in (
        (opening, "again"),
        (doubtful_boxes, "_tell_of_twice"),
        (images_of_tests, "said"),
        (Extents, "add"),
        (data_warnings, "unused_images"),
        (data_warnings, "told_of"),
    ):
        watch(where, name)
    return made


def test_only_the_first_rank_looks_for_what_is_doubtful(tmp_path, looks):
    first = runs.context(tmp_path / "run")
    assert first.listener == first.warn
    other = dataclasses.replace(first, journal=None)
    assert other.listener is nobody
    put(tmp_path / "images/train/c/test/1.png")
    folder = parse_source({"format": "image_folder", "root": str(tmp_path / "images")})
    boxes = [coco_trees.instance(0, 7, 1, [1, 2, 8, 5], [[1, 2, 9, 2, 9, 7]])]
    coco = coco_trees.put(tmp_path / "coco", annotations=boxes)
    for context in (other, first):
        images = open_images("own", "train", source=folder, warn=context.listener)
        coco_trees.opened(coco, open_images, warn=context.listener)
        warn_of_data("own", folder, {"train": images}, context, "loading data")
        if context is other:
            assert looks == []
    assert set(looks) == {"again", "_tell_of_twice", "said", "add", "unused_images", "told_of"}
