"""Images of a detector: which, in what order, how large, and what flipping does to their objects."""

import numpy as np
import pytest
from drawn_objects import DrawnObjects

from trainer.data.datasets import Annotation, BoxCounts
from trainer.data.errors import DataError
from trainer.data.loading.detection import DetectionBatches, flipped, judged_images, prepared, resized
from trainer.data.loading.packed_masks import PackedMasks


def _batches(dataset: DrawnObjects, **changes: object) -> DetectionBatches:
    settings = {
        "sides": (40, 48, 56),
        "longest": 96,
        "batch_size": 4,
        "seed": 0,
        "rank": 0,
        "world_size": 1,
        "threads": 2,
    }
    return DetectionBatches(dataset, **{**settings, **changes})


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        ((375, 500), 600, 1000, (600, 800)),
        ((375, 1000), 600, 1000, (375, 1000)),
        ((500, 333), 480, 1333, (721, 480)),  # 720.72
        ((1, 5000), 800, 1333, (1, 1333)),
    ],
)
def test_short_side_is_reached_unless_the_long_one_would_be_too_long(size, short, longest, expected):
    assert resized(size, short, longest) == expected


def test_a_flip_mirrors_boxes_and_masks_and_twice_is_none():
    dataset = DrawnObjects(1, odd=True)
    image, there = dataset.image(0), dataset.annotation(0)
    mirrored = flipped(there, image.shape[1])
    for (left, top, right, bottom), mask in zip(mirrored.boxes.astype(int), mirrored.masks, strict=True):
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)
    again = flipped(mirrored, image.shape[1])
    assert np.array_equal(again.boxes, there.boxes)
    assert np.array_equal(again.masks, there.masks)
    found = prepared(image, there, *_own(image), flip=True)
    assert found.annotation.masks is None
    assert np.array_equal(found.masks.unpacked([0]), mirrored.masks[:1])
    pixels = found.pixels.numpy()
    assert np.array_equal(pixels[:, :, ::-1].transpose(1, 2, 0), image)


def test_masks_wait_for_their_step_as_bits_of_what_they_cover():
    masks = np.zeros((5, 40, 70), bool)
    masks[1, 3:20, 5:31] = np.random.default_rng(0).random((17, 26)) > 0.3
    masks[2] = True
    masks[3, 39, 69] = True
    masks[4, [0, 39], [69, 0]] = True
    packed = PackedMasks(masks)
    np.testing.assert_array_equal(packed.unpacked([3, 0, 1, 2, 4, 1]), masks[[3, 0, 1, 2, 4, 1]])
    assert packed.unpacked([]).shape == (0, 40, 70)
    assert PackedMasks(masks[:2]).nbytes == 17 * 4
    assert packed.nbytes <= masks.nbytes / 4


def _own(image: np.ndarray) -> tuple[int, int]:
    """Sides at which the image stays as it is."""
    return min(image.shape[:2]), max(image.shape[:2])


def test_a_flip_of_no_objects_is_no_objects():
    none = Annotation(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool), None)
    assert flipped(none, 30).boxes.shape == (0, 4)


def test_an_epoch_shows_every_image_with_objects_once_and_the_others_never():
    batches = _batches(DrawnObjects(14, without=(3, 5)))
    assert batches.steps_per_epoch == 3
    for epoch in range(2):
        seen = [index for batch in batches.iterate(3 * epoch, 3 * epoch + 3) for index in batch.indices.tolist()]
        assert sorted(seen) == [index for index in range(14) if index not in (3, 5)]


def test_images_of_which_no_object_can_be_learned_are_not_learned_from(monkeypatch):
    dataset = DrawnObjects(4)
    objects, without, none = np.array([1, 2, 0, 2]), np.array([0, 2, 0, 1]), np.zeros(4, np.int64)
    monkeypatch.setattr(dataset, "box_counts", lambda: BoxCounts(objects, without, none, none))
    assert _batches(dataset, batch_size=2).with_objects.tolist() == [0, 3]
    without[:] = objects
    with pytest.raises(
        DataError, match=r"none of the 5 boxes of the training split has an area .* exchanged, .*Correct"
    ):
        _batches(dataset, batch_size=2)
    objects[:] = without[:] = 0
    with pytest.raises(
        DataError, match="no image of the training split has an object to learn from; use another split"
    ):
        _batches(dataset, batch_size=2)


def test_what_an_image_is_shown_as_depends_on_seed_epoch_and_image_alone():
    dataset = DrawnObjects(8)
    whole = [(b.step, b.indices.tolist(), [i.pixels for i in b.images]) for b in _batches(dataset).iterate(0, 4)]
    for step in range(4):
        shares = [
            next(_batches(dataset, rank=rank, world_size=2, threads=1).iterate(step, step + 1)) for rank in range(2)
        ]
        assert [index for share in shares for index in share.indices.tolist()] == whole[step][1]
        pixels = [image.pixels for share in shares for image in share.images]
        assert all(a.equal(b) for a, b in zip(pixels, whole[step][2], strict=True))
    sizes = {image.shape[1] for _, _, pixels in whole for image in pixels}
    assert sizes == {40, 48, 56}


def test_flips_and_sides_come_about_equally_often():
    dataset = DrawnObjects(40)
    flips, sides = 0, {40: 0, 48: 0, 56: 0}
    for batch in _batches(dataset).iterate(0, 60):
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
            flips += not np.array_equal(image.annotation.boxes, dataset.annotation(index).boxes)
            sides[image.pixels.shape[1]] += 1
    assert 80 < flips < 160  # 240 draws of one half: five standard deviations
    assert all(44 < count < 116 for count in sides.values())


@pytest.mark.parametrize("ignored_are_difficult", [True, False])
def test_difficult_objects_are_trained_on_and_crowds_are_not(ignored_are_difficult):
    dataset = DrawnObjects(8, ignored=True, ignored_are_difficult=ignored_are_difficult)
    marked = [int(dataset.annotation(index).ignored.sum()) for index in range(8)]
    assert sum(marked) > 0
    (batch,) = _batches(dataset).iterate(0, 1)
    there = [int(image.annotation.ignored.sum()) for image in batch.images]
    assert there == [0 if ignored_are_difficult else marked[index] for index in batch.indices.tolist()]
    shown = judged_images(dataset, range(8), short=50, longest=90, threads=1)
    assert [int(one.image.annotation.ignored.sum()) for one in shown] == marked, "a test counts neither"


def test_fewer_images_with_objects_than_a_batch_is_said():
    with pytest.raises(DataError, match="above the 3 images with objects"):
        _batches(DrawnObjects(5, without=(0, 1)))


@pytest.mark.parametrize(
    ("fault", "cause"), [({"unreadable": (2,)}, "truncated"), ({"damaged": (2,)}, "a box is not in the image")]
)
def test_an_unreadable_training_image_is_replaced_and_named(fault, cause):
    batches = _batches(DrawnObjects(4, **fault))
    (batch,) = batches.iterate(0, 1)
    assert sorted(batch.indices.tolist()) == [0, 1, 3, 3]
    assert batch.skipped == {"2.png": cause}


def test_the_test_shows_every_image_of_the_share_in_order_and_names_the_unreadable():
    dataset = DrawnObjects(6, odd=True, unreadable=(3,))
    shown = list(judged_images(dataset, range(1, 6), short=50, longest=90, threads=2))
    assert [one.index for one in shown] == [1, 2, 3, 4, 5]
    assert [one.image is None for one in shown] == [False, False, True, False, False]
    assert "3.png" in str(shown[2].unreadable)
    for one in shown:
        if one.image is not None:
            assert one.image.size == dataset.size(one.index)
            assert min(one.image.pixels.shape[1:]) == 50
            across, down = one.image.scale
            assert across == pytest.approx(down, rel=0.03)
