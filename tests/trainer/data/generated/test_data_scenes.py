"""`scenes`: what is drawn, and that boxes, masks and classes say exactly that."""

import time

import numpy as np
import pytest

from trainer.data.datasets import AnnotatedDataSet
from trainer.data.generated import scenes
from trainer.data.generated.scenes import CLASSES, OBJECTS, SIDE, SIZES, SPLITS, VISIBLE, Scenes, open_scenes, scene

FINGERPRINTS = {
    "train": "90e15a87f5052bf3fb2089ee959ed03b237ad0ef3470523f6757d5de6300475d",
    "test": "39a56fdb91cf74b5cfd94c6bd90896b474da7ace5fd3a3fb88ce0462dac8326b",
}


@pytest.fixture(scope="module")
def test_split():
    return open_scenes("test")


@pytest.fixture(scope="module")
def annotations(test_split):
    return [test_split.annotation(index) for index in range(len(test_split))]


@pytest.mark.parametrize("split", SPLITS)
def test_the_scenes_are_pinned(split):
    """A change of these makes all earlier results incomparable: it must be meant."""
    assert open_scenes(split).fingerprint == FINGERPRINTS[split]


def test_a_scene_depends_on_seed_and_index_alone(test_split):
    first = SPLITS["train"]
    for place in (499, 7, 0):
        again = scene(0, first + place)
        np.testing.assert_array_equal(again.image, test_split.image(place))
        np.testing.assert_array_equal(again.classes, test_split.annotation(place).classes)
    assert not np.array_equal(scene(1, first).image, test_split.image(0))


def test_it_is_an_annotated_data_set(test_split):
    assert isinstance(test_split, AnnotatedDataSet)
    assert len(test_split) == SPLITS["test"]
    assert test_split.has_masks
    assert test_split.image(3).shape == (SIDE, SIDE, 3)
    assert test_split.image(3).dtype == np.uint8
    assert test_split.size(3) == (SIDE, SIDE)
    assert test_split.name(3) == "3"
    assert test_split.name(-1) == "499"


def test_annotations_have_the_stated_form(annotations):
    for each in annotations:
        count = len(each.classes)
        assert 1 <= count <= OBJECTS
        assert each.boxes.shape == (count, 4)
        assert each.boxes.dtype == np.float32
        assert each.classes.dtype == np.int64
        assert 0 <= each.classes.min() <= each.classes.max() < len(CLASSES)
        assert each.masks.shape == (count, SIDE, SIDE)
        assert each.masks.dtype == bool
        assert not each.ignored.any()
        assert each.ignored.shape == (count,)


def test_boxes_are_tight_around_what_is_seen_of_each_object(annotations):
    for each in annotations:
        assert (each.masks.sum(axis=0) <= 1).all()  # a pixel shows one object
        for box, mask in zip(each.boxes.astype(int), each.masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert (box[2:] - box[:2]).max() <= SIZES[1]


def test_numbers_and_classes_of_objects_are_spread_evenly(annotations):
    counts = np.bincount([len(each.classes) for each in annotations], minlength=OBJECTS + 1)[1:]
    assert counts.min() > 0.6 * len(annotations) / OBJECTS
    classes = np.bincount(np.concatenate([each.classes for each in annotations]), minlength=len(CLASSES))
    assert classes.min() > 0.8 * classes.mean()


def test_an_object_keeps_most_of_its_pixels(monkeypatch):
    """Against the same scenes where every object is let through whole, since none comes after it."""
    uniforms, hidden = scenes.uniforms, 0
    for index in range(60):
        whole = scene(3, index)
        for wanted in range(1, OBJECTS):

            def fewer(*key, count, wanted=wanted):
                numbers = uniforms(*key, count=count)
                if key[3] == 0:  # the layout, whose first number says how many objects are to be placed
                    numbers[0] = min(numbers[0], (wanted - 0.5) / OBJECTS)
                return numbers

            with monkeypatch.context() as patched:
                patched.setattr(scenes, "uniforms", fewer)
                part = scene(3, index)
            last = len(part.classes)
            full, seen = ((each.instances == last).sum() for each in (part, whole))
            assert VISIBLE * full <= seen <= full
            hidden += seen < full
            same = (whole.instances == last) & (part.instances == last)
            np.testing.assert_array_equal(whole.image[same], part.image[same])
    assert hidden > 10


def test_presence_is_what_the_annotations_say(test_split, annotations):
    presence = test_split.presence()
    assert presence.dtype == np.int8
    for row, each in zip(presence, annotations, strict=True):
        assert np.flatnonzero(row == 1).tolist() == sorted(set(each.classes.tolist()))
    assert set(np.unique(presence)) == {0, 1}


def test_colours_say_nothing_of_the_class(test_split, annotations):
    """Nearest class mean of an object's mean colour and spread per channel stays near the chance of 1/5."""
    features, truth = [], []
    for index, each in enumerate(annotations):
        for mask, kind in zip(each.masks, each.classes, strict=True):
            pixels = test_split.image(index)[mask].astype(float)
            features.append([*pixels.mean(axis=0), *pixels.std(axis=0)])
            truth.append(kind)
    features, truth = np.array(features), np.array(truth)
    half = len(truth) // 2
    centres = np.stack([features[:half][truth[:half] == kind].mean(axis=0) for kind in range(len(CLASSES))])
    found = ((features[half:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (found == truth[half:]).mean() < 0.35


def test_structure_tells_the_classes_apart(test_split, annotations):
    """Differences of neighbours within an object: along a stripe little, across it much, of fine noise the most."""

    def differences(kind):
        ratios = []
        for index, each in enumerate(annotations):
            image = test_split.image(index).astype(float)
            for mask in each.masks[each.classes == kind]:
                channel = image[..., image[mask].var(axis=0).argmax()]
                across = np.diff(channel, axis=1)[mask[:, 1:] & mask[:, :-1]].var()
                down = np.diff(channel, axis=0)[mask[1:] & mask[:-1]].var()
                ratios.append((across / down, (across + down) / channel[mask].var()))
        return np.median(ratios, axis=0)

    horizontal, vertical, checks, rings, noise = (differences(kind) for kind in range(len(CLASSES)))
    assert vertical[0] > 2 > 0.5 > horizontal[0]
    assert all(0.6 < each[0] < 1.6 for each in (checks, rings, noise))
    assert noise[1] > 1.3 * max(checks[1], rings[1])


def test_fingerprint_is_of_images_masks_and_classes():
    four = [scene(0, index) for index in range(4)]
    base = Scenes(four).fingerprint
    assert Scenes([scene(0, index) for index in range(4)]).fingerprint == base
    assert Scenes(four[:3]).fingerprint != base
    for part in ("image", "instances", "classes"):
        changed = scene(0, 3)
        getattr(changed, part).flat[0] ^= 1
        assert Scenes([*four[:3], changed]).fingerprint != base


def test_two_thousand_scenes_take_seconds():
    start = time.process_time()
    for index in range(200):
        scene(5, index)
    assert time.process_time() - start < 1.0


def test_every_scene_is_ticked():
    ticks = []
    assert len(open_scenes("test", seed=9, tick=lambda: ticks.append(None))) == len(ticks) == SPLITS["test"]
    assert open_scenes("test", seed=9) is open_scenes("test", seed=9)
