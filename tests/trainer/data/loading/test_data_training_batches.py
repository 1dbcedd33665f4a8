"""Training batches of both engines: pieces, unreadable images, and views that are the same however they are loaded."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barlow_lab.specs.views import ViewsSpec
from trainer.data.batch import FIELDS
from trainer.data.datasets import ArrayDataSet
from trainer.data.errors import DataError, UnreadableImage
from trainer.data.loading import replacing
from trainer.data.loading.training import TrainingBatches
from trainer.data.views.augmentation import apply, sample
from trainer.data.views.photometry import finish

CPU = torch.device("cpu")
SMALL = ViewsSpec.model_validate({"size": 16})
BATCHED = ViewsSpec.model_validate({"size": 16, "engine": "batched"})


class Damaged(ArrayDataSet):
    """A data set some of whose images cannot be read."""

    def __init__(self, count, damaged=()):
        pixels = np.random.default_rng(0).integers(0, 256, (count, 12, 10, 3), np.uint8)
        super().__init__(pixels, np.zeros(count, np.int64), ("only",))
        self.damaged = set(damaged)

    def image(self, index):
        if index in self.damaged:
            raise UnreadableImage(f"{index:02d}.jpg", "it is damaged")
        return super().image(index)


def loader(data, spec=SMALL, *, batch_size=12, seed=0, rank=0, world_size=1, threads=1, **more):
    return TrainingBatches(
        data,
        spec,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        threads=threads,
        **more,
    )


def shown(loader, first, last):
    """(indices, view a, view b, skipped) of each step, as the model would get them."""
    return [
        (batch.indices.copy(), *(view.clone() for view in finish(batch, CPU)), batch.skipped)
        for batch in loader.iterate(first, last)
    ]


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        assert torch.equal(one[2], other[2])
        assert list(one[3].items()) == list(other[3].items())


@settings(max_examples=8, deadline=None)
@given(cut=st.integers(0, 5), threads=st.integers(1, 5), seed=st.integers(0, 2**31 - 1))
def test_threads_and_restarts_change_nothing(cut, threads, seed):
    data = Damaged(30, damaged=(3, 4, 11))
    for spec in (SMALL, BATCHED):
        whole = shown(loader(data, spec, seed=seed), 0, 5)
        parts = [shown(loader(data, spec, seed=seed, threads=threads), *ends) for ends in ((0, cut), (cut, 5))]
        same(whole, parts[0] + parts[1])


@pytest.mark.parametrize("spec", [SMALL, BATCHED], ids=["pillow", "batched"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("micro_batch", [None, 6, 12])
def test_the_pieces_of_a_batch_are_the_same_images_for_any_number_of_ranks(spec, world_size, micro_batch):
    data = Damaged(40, damaged=(0, 1, 20))
    whole = shown(loader(data, spec), 0, 4)
    ranks = [
        shown(loader(data, spec, rank=rank, world_size=world_size, micro_batch=micro_batch, threads=2), 0, 4)
        for rank in range(world_size)
    ]
    rows = (micro_batch or 12) // world_size
    for step, shares in zip(whole, zip(*ranks, strict=True), strict=True):
        for part in range(3):
            pieces = [
                share[part][start : start + rows] for start in range(0, 12 // world_size, rows) for share in shares
            ]
            np.testing.assert_array_equal(np.concatenate(pieces), step[part])
        assert step[3] == {name: cause for share in shares for name, cause in share[3].items()}


def test_pieces_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="micro_batch 5 does not divide the batch of 12"):
        loader(Damaged(30), micro_batch=5)
    with pytest.raises(ValueError, match="micro_batch 6 is global and 4 ranks do not divide it"):
        loader(Damaged(30), micro_batch=6, world_size=4)


def test_the_engines_make_the_same_views_from_the_same_draws():
    data = Damaged(30)
    for ours, theirs in zip(shown(loader(data, BATCHED), 0, 2), shown(loader(data), 0, 2), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        for view in (1, 2):
            assert (ours[view].float() - theirs[view].float()).abs().mean() <= 0.5
    batch, whole = (next(loader(data, spec).iterate(0, 1)) for spec in (BATCHED, SMALL))
    assert batch.photometry.shape == (2, 12, FIELDS)
    assert whole.photometry is None
    assert torch.equal(finish(whole, CPU)[0], whole.view_a)
    assert not torch.equal(finish(batch, CPU)[0], batch.view_a), "crops are not yet views"


@pytest.mark.parametrize("threads", [1, 3])
def test_views_that_the_threads_finish_have_the_bits_of_those_that_a_device_does(threads):
    data = Damaged(30, damaged={4})
    whole = loader(data, BATCHED, threads=threads, whole=True)
    assert next(whole.iterate(0, 1)).photometry is None
    for ours, theirs in zip(shown(whole, 0, 2), shown(loader(data, BATCHED), 0, 2), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert all(torch.equal(ours[view], theirs[view]) for view in (1, 2))


@pytest.mark.parametrize("threads", [1, 3])
def test_an_unreadable_image_is_replaced_by_the_next_with_that_ones_own_views(threads):
    sound = loader(Damaged(40))
    order = next(sound.iterate(0, 1)).indices
    first, second = int(order[2]), int(order[7])
    data = Damaged(40, damaged={first, (first + 1) % 40, second})
    (batch,) = loader(data, threads=threads).iterate(0, 1)
    expected = order.copy()
    for row, index in enumerate(order.tolist()):
        while index in data.damaged:
            index = (index + 1) % 40
        expected[row] = index
    np.testing.assert_array_equal(batch.indices, expected)
    for row, index in enumerate(expected.tolist()):
        drawn = sample(SMALL.a, seed=0, epoch=0, index=index, view_id=0, height=12, width=10)
        np.testing.assert_array_equal(batch.view_a[row].numpy(), apply(data.image(index), drawn, 16))
    tried = {first, second, *([(first + 1) % 40])}
    assert list(batch.skipped.items()) == [(f"{index:02d}.jpg", "it is damaged") for index in sorted(tried)]
    np.testing.assert_array_equal(order, next(sound.iterate(0, 1)).indices)


def test_the_last_image_is_followed_by_the_first():
    (batch,) = loader(Damaged(12, damaged={11})).iterate(0, 1)
    assert sorted(batch.indices.tolist()) == [0, *range(11)]


def test_too_many_unreadable_images_end_the_run(monkeypatch):
    monkeypatch.setattr(replacing, "REPLACEMENTS", 3)
    data = Damaged(12, damaged={5, 6, 7})
    assert len(next(loader(data).iterate(0, 1)).skipped) == 3
    data.damaged.add(8)
    with pytest.raises(DataError, match=r"image 5 cannot be loaded: nor can .* the last: 08\.jpg cannot be read: it"):
        next(loader(data).iterate(0, 1))
    with pytest.raises(DataError, match="Check the files"):
        next(loader(Damaged(12, damaged=range(12))).iterate(0, 1))


def test_the_first_rows_are_those_of_the_first_batch():
    (batch,) = loader(Damaged(30, damaged={2}), BATCHED).iterate(0, 1)
    few = loader(Damaged(30, damaged={2}), BATCHED, rank=1, world_size=2).first_rows(5)
    np.testing.assert_array_equal(few.indices, batch.indices[:5])
    for ours, theirs in zip(finish(few, CPU), finish(batch, CPU), strict=True):
        assert torch.equal(ours, theirs[:5])
