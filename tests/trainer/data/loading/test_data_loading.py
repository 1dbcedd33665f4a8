"""Batches by step: the same for any number of threads, ranks and restarts, and no thread left behind."""

import threading
import time

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode

from barlow_lab.specs.kinds.evaluation import EvaluationImages
from barlow_lab.specs.views import ViewsSpec
from trainer.data.datasets import ArrayDataSet
from trainer.data.errors import DataError
from trainer.data.loading.evaluation import LONGEST, centre_crop, evaluation_batches
from trainer.data.loading.pool import BATCHES_AHEAD
from trainer.data.loading.training import TrainingBatches
from trainer.data.pixels import normalise
from trainer.data.registry import open_data_set
from trainer.data.views.augmentation import apply, sample

SMALL = ViewsSpec.model_validate({"preset": "small_images", "size": 16})


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return ArrayDataSet(rng.integers(0, 256, (50, 12, 10, 3), np.uint8), np.arange(50) % 5, tuple("abcde"))


class Watched(ArrayDataSet):
    """Counts what is loaded, and can be slow or fail at one image."""

    def __init__(self, count, *, fails_at=None, slow=0.0):
        super().__init__(np.zeros((count, 8, 8, 3), np.uint8), np.zeros(count, np.int64), ("only",))
        self.loaded = []
        self.fails_at = fails_at
        self.slow = slow

    def image(self, index):
        self.loaded.append(index)
        time.sleep(self.slow)
        if index == self.fails_at:
            raise OSError("truncated file")
        return super().image(index)


def batches(data, first, last, *, batch_size=8, seed=0, rank=0, world_size=1, threads=1):
    loader = TrainingBatches(
        data, SMALL, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size, threads=threads
    )
    return list(loader.iterate(first, last))


def same(ours, theirs):
    assert [b.step for b in ours] == [b.step for b in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.epoch == other.epoch
        np.testing.assert_array_equal(one.indices, other.indices)
        assert torch.equal(one.view_a, other.view_a)
        assert torch.equal(one.view_b, other.view_b)


def loading_threads():
    return [t for t in threading.enumerate() if t.name.startswith("loading")]


def test_a_batch_holds_the_two_views_of_its_images(images):
    for batch in batches(images, 3, 9, seed=4):
        assert batch.view_a.shape == batch.view_b.shape == (8, 3, 16, 16)
        assert batch.view_a.dtype == torch.uint8
        assert batch.load_seconds >= 0
        for row, index in enumerate(batch.indices.tolist()):
            for view_id, (spec, view) in enumerate(((SMALL.a, batch.view_a), (SMALL.b, batch.view_b))):
                drawn = sample(
                    spec, seed=4, epoch=batch.epoch, index=index, view_id=view_id, height=12, width=10
                )  # fmt: skip
                np.testing.assert_array_equal(view[row].numpy(), apply(images.image(index), drawn, 16))


def test_steps_and_epochs(images):
    loader = TrainingBatches(images, SMALL, batch_size=8, seed=0, rank=0, world_size=1, threads=2)
    assert loader.steps_per_epoch == 6  # 50 images: two of them left out
    ours = list(loader.iterate(0, 13))
    assert [b.step for b in ours] == list(range(1, 14))
    assert [b.epoch for b in ours] == [0] * 6 + [1] * 6 + [2]
    first, second = (np.concatenate([b.indices for b in ours if b.epoch == epoch]) for epoch in (0, 1))
    assert len(set(first.tolist())) == len(set(second.tolist())) == 48
    assert first.tolist() != second.tolist()
    assert not torch.equal(ours[0].view_a, ours[6].view_a)


def test_every_image_has_its_turn_over_the_epochs(images):
    seen = np.bincount(np.concatenate([b.indices for b in batches(images, 0, 60, batch_size=48)]), minlength=50)
    assert seen.min() > 50
    assert seen.sum() == 60 * 48


@settings(max_examples=8, deadline=None)
@given(cut=st.integers(0, 14), threads=st.integers(1, 5), seed=st.integers(0, 2**31 - 1))
def test_threads_and_restarts_change_nothing(images, cut, threads, seed):
    whole = batches(images, 0, 14, seed=seed)
    same(whole, batches(images, 0, cut, seed=seed, threads=threads) + batches(images, cut, 14, seed=seed, threads=3))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_global_batch(images, world_size):
    whole = batches(images, 0, 7)
    parts = [batches(images, 0, 7, rank=rank, world_size=world_size, threads=2) for rank in range(world_size)]
    for step, shares in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(step.indices, np.concatenate([s.indices for s in shares]))
        assert torch.equal(step.view_a, torch.cat([s.view_a for s in shares]))
        assert torch.equal(step.view_b, torch.cat([s.view_b for s in shares]))


def test_the_order_is_pinned(images):
    """A change of these numbers changes every run: it must be meant."""
    assert batches(images, 0, 1, seed=0)[0].indices.tolist() == PINNED_ORDER


def test_a_batch_above_the_data_set_is_refused(images):
    with pytest.raises(DataError, match="use at most 50"):
        batches(images, 0, 1, batch_size=51)


def test_ranks_that_do_not_divide_the_batch_are_refused(images):
    with pytest.raises(ValueError, match="do not divide"):
        batches(images, 0, 1, batch_size=9, world_size=2)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_image_is_named_and_the_batches_before_it_arrive(threads):
    order = [b.indices for b in batches(Watched(40), 0, 5)]
    bad = int(order[3][5])
    loader = TrainingBatches(
        Watched(40, fails_at=bad), SMALL, batch_size=8, seed=0, rank=0, world_size=1, threads=threads
    )
    steps = []
    with pytest.raises(DataError, match=f"image {bad} cannot be loaded: truncated file") as caught:
        steps.extend(batch.step for batch in loader.iterate(0, 5))
    assert isinstance(caught.value.__cause__, OSError)
    assert not loading_threads()


def test_loading_runs_ahead_but_not_far():
    data = Watched(80)
    iterator = TrainingBatches(data, SMALL, batch_size=8, seed=0, rank=0, world_size=1, threads=2).iterate(0, 10)
    next(iterator)
    deadline = time.monotonic() + 20
    while len(data.loaded) < 8 * (1 + BATCHES_AHEAD) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(data.loaded) == 8 * (1 + BATCHES_AHEAD)
    iterator.close()


@pytest.mark.parametrize("way", ["close", "exception", "collected", "end"])
def test_no_thread_outlives_its_consumer(way):
    data = Watched(400, slow=0.001)
    iterator = TrainingBatches(data, SMALL, batch_size=40, seed=0, rank=0, world_size=1, threads=3).iterate(0, 10)
    if way == "end":
        assert len(list(iterator)) == 10
    else:
        next(iterator)
        assert loading_threads()
    if way == "close":
        iterator.close()
    elif way == "exception":
        with pytest.raises(KeyboardInterrupt):
            iterator.throw(KeyboardInterrupt)
    del iterator
    assert not loading_threads()
    if way != "end":
        assert len(data.loaded) < 300


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), world_size=st.integers(1, 5), threads=st.integers(1, 3))
def test_evaluation_shows_every_image_exactly_once(count, batch_size, world_size, threads):
    rng = np.random.default_rng(count)
    data = ArrayDataSet(rng.integers(0, 256, (count, 9, 9, 3), np.uint8), np.arange(count) % 3, tuple("abc"))
    size = EvaluationImages(size=8)
    seen = []
    for rank in range(world_size):
        shown = list(
            evaluation_batches(data, size, batch_size=batch_size, rank=rank, world_size=world_size, threads=threads)
        )
        for batch in shown:
            assert 1 <= len(batch.indices) <= -(-batch_size // world_size)
            assert batch.images.shape == (len(batch.indices), 3, 8, 8)
            for row, index in enumerate(batch.indices.tolist()):
                np.testing.assert_array_equal(batch.images[row].numpy(), centre_crop(data.image(index), size))
            seen += batch.indices.tolist()
    assert seen == list(range(count))


def test_a_bad_image_is_named_in_evaluation():
    with pytest.raises(DataError, match="image 7 cannot be loaded: truncated file"):
        list(
            evaluation_batches(
                Watched(9, fails_at=7), EvaluationImages(size=8), batch_size=4, rank=0, world_size=1, threads=2
            )
        )


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (37, 37), (8, 8), (301, 32), (2, 900)])
@pytest.mark.parametrize(("size", "resize"), [(32, None), (33, 40), (24, 24)])
@pytest.mark.parametrize("resize_to", ["short_side", "square"])
def test_the_centre_crop_equals_torchvisions(height, width, size, resize, resize_to):
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    spec = EvaluationImages(size=size, resize=resize, resize_to=resize_to)
    assert spec.resized == (resize or 37)  # 32 * 8 / 7
    if resize_to == "short_side" and width > LONGEST * height:
        image = image[:, (width - LONGEST * height) // 2 :][:, : LONGEST * height]
    sides = [spec.resized] * (2 if resize_to == "square" else 1)
    resized = F.resize(Image.fromarray(image), sides, InterpolationMode.BILINEAR)
    expected = np.asarray(F.center_crop(resized, [size, size])).transpose(2, 0, 1)
    np.testing.assert_array_equal(centre_crop(image, spec), expected)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14), (torch.bfloat16, 1e-2)]
)
def test_normalise(dtype, tolerance):
    pixels = torch.arange(256, dtype=torch.uint8).repeat(2, 3, 1).reshape(2, 3, 16, 16)
    out = normalise(pixels, dtype)
    assert out.dtype == dtype
    levels = np.arange(256).reshape(16, 16) / 255
    for channel, (mean, std) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        np.testing.assert_allclose(
            out[1, channel].double().numpy(), (levels - mean) / std, rtol=tolerance, atol=tolerance
        )
    assert pixels[0, 0, 0, 1] == 1  # the batch itself is left alone


def test_textures_through_the_loader():
    data = open_data_set("textures", "test", limit=64)
    (batch,) = batches(data, 0, 1, batch_size=64, threads=2)
    assert sorted(batch.indices.tolist()) == list(range(64))
    assert 20 < batch.view_a.float().std() < 120


PINNED_ORDER = [17, 34, 31, 22, 39, 16, 42, 38]


def test_a_piece_at_work_ends_with_its_image_and_every_image_is_told_of():
    told: list[int] = []
    data = Watched(400, slow=0.02)
    loader = TrainingBatches(
        data, SMALL, batch_size=100, seed=0, rank=0, world_size=1, threads=2, tick=lambda: told.append(1)
    )
    iterator = loader.iterate(0, 4)
    next(iterator)
    iterator.close()
    assert 100 <= len(data.loaded) < 150, "a piece of 50 images did not end early"
    assert len(told) == len(data.loaded)
