"""Labelled batches: the reference's crops, drawn by key, the same for any ranks, threads and restarts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from barlow_lab.specs.augment import AugmentSpec
from barlow_lab.specs.views import ViewSpec
from trainer.data.datasets import ArrayDataSet
from trainer.data.errors import DataError, UnreadableImage
from trainer.data.keyed import Purpose, permutation
from trainer.data.loading.labelled import VIEW_ID, ChosenImages, LabelledBatches, cropped
from trainer.data.views.augmentation import Crop, random_resized_crop, sample

AUGMENT = AugmentSpec()


class Damaged(ArrayDataSet):
    """A data set some of whose images cannot be read."""

    def __init__(self, count, damaged=()):
        pixels = np.random.default_rng(0).integers(0, 256, (count, 12, 10, 3), np.uint8)
        super().__init__(pixels, np.arange(count) % 5, tuple("abcde"))
        self.damaged = set(damaged)

    def image(self, index):
        if index in self.damaged:
            raise UnreadableImage(f"{index:02d}.jpg", "it is damaged")
        return super().image(index)


def loader(data, *, batch_size=12, seed=0, rank=0, world_size=1, threads=1, augment=AUGMENT):
    return LabelledBatches(
        data, augment, size=8, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size, threads=threads
    )


def shown(loader, first, last):
    return [
        (batch.indices.copy(), batch.images.clone(), batch.labels.clone(), dict(batch.skipped))
        for batch in loader.iterate(first, last)
    ]


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        assert torch.equal(one[2], other[2])
        assert one[3] == other[3]


@settings(max_examples=8, deadline=None)
@given(cut=st.integers(0, 5), threads=st.integers(1, 4), seed=st.integers(0, 2**31 - 1))
def test_threads_and_restarts_change_nothing(cut, threads, seed):
    data = Damaged(30, damaged=(3, 4, 11))
    whole = shown(loader(data, seed=seed), 0, 5)
    parts = [shown(loader(data, seed=seed, threads=threads), *ends) for ends in ((0, cut), (cut, 5))]
    same(whole, parts[0] + parts[1])


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_the_ranks_share_the_batch_of_one_rank(world_size):
    data = Damaged(40, damaged=(0, 1, 20))
    whole = shown(loader(data), 0, 4)
    ranks = [shown(loader(data, rank=rank, world_size=world_size, threads=2), 0, 4) for rank in range(world_size)]
    for step, shares in zip(whole, zip(*ranks, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate([share[0] for share in shares]), step[0])
        assert torch.equal(torch.cat([share[1] for share in shares]), step[1])
        assert torch.equal(torch.cat([share[2] for share in shares]), step[2])
        assert {name: cause for share in shares for name, cause in share[3].items()} == step[3]


def test_an_epoch_is_the_permutation_of_its_key_less_the_last_partial_batch():
    data = Damaged(30)
    batches = loader(data, seed=7)
    assert batches.steps_per_epoch == 2
    steps = shown(batches, 0, 4)
    for epoch in (0, 1):
        order = permutation(Purpose.ORDER, 7, epoch, count=30)
        np.testing.assert_array_equal(np.concatenate([steps[2 * epoch][0], steps[2 * epoch + 1][0]]), order[:24])
    for indices, _, labels, _ in steps:
        np.testing.assert_array_equal(labels.numpy(), indices % 5)


def test_a_view_is_the_crop_and_flip_that_its_key_draws():
    data = Damaged(30)
    view = ViewSpec(crop_scale=AUGMENT.crop_scale, crop_ratio=AUGMENT.crop_ratio, flip=AUGMENT.flip)
    ((indices, images, _, _),) = shown(loader(data, seed=5), 3, 4)
    flips = 0
    for index, image in zip(indices.tolist(), images.numpy(), strict=True):
        drawn = sample(view, seed=5, epoch=1, index=index, view_id=VIEW_ID, height=12, width=10)
        np.testing.assert_array_equal(image, cropped(data.image(index), drawn.crop, 8, flip=drawn.flip))
        flips += drawn.flip
    assert 0 < flips < 12
    assert VIEW_ID not in (0, 1)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [8, 40])
def test_the_pixels_are_those_of_torchvisions_random_resized_crop(size, flip):
    generator = np.random.default_rng(1)
    image = generator.integers(0, 256, (50, 37, 3), np.uint8)
    for _ in range(20):
        crop = random_resized_crop(generator.random((10, 4)), ViewSpec(), 50, 37)
        box = (crop.top, crop.left, crop.height, crop.width)
        theirs = transforms.resized_crop(Image.fromarray(image), *box, [size, size], InterpolationMode.BILINEAR)
        theirs = transforms.hflip(theirs) if flip else theirs
        ours = cropped(image, crop, size, flip=flip)
        np.testing.assert_array_equal(ours, np.asarray(theirs).transpose(2, 0, 1))


def test_without_augmentation_the_image_comes_as_it_is():
    data = Damaged(12)
    still = AugmentSpec(crop_scale=(1.0, 1.0), crop_ratio=(10 / 12, 10 / 12), flip=0.0)
    ((indices, images, _, _),) = shown(loader(data, augment=still), 0, 1)
    for index, image in zip(indices.tolist(), images.numpy(), strict=True):
        np.testing.assert_array_equal(image, cropped(data.image(index), Crop(0, 0, 12, 10), 8, flip=False))


@pytest.mark.parametrize("threads", [1, 3])
def test_an_unreadable_image_is_replaced_by_the_next_with_that_ones_view_and_label(threads):
    order = permutation(Purpose.ORDER, 0, 0, count=40)[:12]
    bad = int(order[2])
    data = Damaged(40, damaged={bad, (bad + 1) % 40})
    ((indices, images, labels, skipped),) = shown(loader(data, threads=threads), 0, 1)
    sound = Damaged(40)
    put = (bad + 2) % 40
    assert indices[2] == put
    assert skipped.keys() == {f"{index:02d}.jpg" for index in (bad, (bad + 1) % 40)}
    assert labels[2] == put % 5
    drawn = sample(ViewSpec(), seed=0, epoch=0, index=put, view_id=VIEW_ID, height=12, width=10)
    np.testing.assert_array_equal(images[2].numpy(), cropped(sound.image(put), drawn.crop, 8, flip=drawn.flip))
    untouched = [row for row, index in enumerate(order.tolist()) if index not in data.damaged]
    np.testing.assert_array_equal(indices[untouched], order[untouched])


def test_images_none_of_which_can_be_read_end_the_run():
    with pytest.raises(DataError, match=r"nor can those after it; the last: .*jpg cannot be read: it is damaged"):
        next(loader(Damaged(12, damaged=range(12))).iterate(0, 1))


def test_chosen_images_are_those_with_their_names_and_labels():
    data = Damaged(30, damaged={4})
    some = ChosenImages(data, np.array([2, 4, 17]))
    assert len(some) == 3
    np.testing.assert_array_equal(some.image(2), data.image(17))
    assert (some.name(2), some.label(2), some.labels().tolist()) == (data.name(17), 2, [2, 4, 2])
    assert some.classes == data.classes
    with pytest.raises(UnreadableImage, match=r"04\.jpg"):
        some.image(1)
    others = {ChosenImages(data, np.array(each)).fingerprint for each in ([2, 4, 17], [2, 4, 18], [2, 4], [4, 2, 17])}
    assert len(others | {data.fingerprint}) == 5
