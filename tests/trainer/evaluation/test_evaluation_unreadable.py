"""Images that cannot be read are left out of an evaluation with their labels, counted and named, on any ranks."""

import json

import numpy as np
import pytest
import torch
from evaluations_of_digits import context_in, spec_of
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_trees import CLASSES, colour, make_split
from torch import nn

from barlow_lab.journal import read_events
from barlow_lab.specs.data_sets import ImageFolderSource
from barlow_lab.specs.kinds.evaluation import EvaluationImages
from trainer.data.datasets import ArrayDataSet
from trainer.data.errors import DataError, UnreadableImage
from trainer.data.loading.evaluation import LONGEST, centre_crop, evaluation_batches
from trainer.data.pixels import normalise
from trainer.data.registry import open_data_set
from trainer.evaluation import run_evaluation
from trainer.evaluation.features import extract, labels_on
from trainer.runtime.units import Units

EIGHT = EvaluationImages(size=8, resize=8)


class Damaged(ArrayDataSet):
    """Images whose level is their place in the data set; some cannot be read."""

    def __init__(self, count, unreadable):
        images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 8, 8, 3))
        super().__init__(images, np.arange(count) % 5, tuple("abcde"))
        self.unreadable = unreadable

    def image(self, index):
        if index in self.unreadable:
            raise UnreadableImage(f"{index}.jpg", "it is damaged")
        return super().image(index)


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    count=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    world_size=st.integers(1, 5),
    threads=st.integers(1, 3),
)
def test_every_image_is_shown_once_or_named_once_with_its_own_label(data, count, batch_size, world_size, threads):
    unreadable = data.draw(st.sets(st.integers(0, count - 1)))
    images = Damaged(count, unreadable)
    shown, named = [], []
    for rank in range(world_size):
        for batch in evaluation_batches(
            images, EIGHT, batch_size=batch_size, rank=rank, world_size=world_size, threads=threads
        ):
            assert batch.images.shape == (len(batch.indices), 3, 8, 8)
            assert (batch.images[:, 0, 0, 0].numpy() == batch.indices).all()
            shown += batch.indices.tolist()
            named += [int(error.name.removesuffix(".jpg")) for error in batch.unreadable]
    assert shown == sorted(set(range(count)) - unreadable)
    assert named == sorted(unreadable)


def test_running_out_of_memory_is_the_rank_s_fault_not_that_of_its_data():
    class Hungry(Damaged):
        def image(self, index):
            raise MemoryError

    with pytest.raises(MemoryError):
        list(evaluation_batches(Hungry(3, set()), EIGHT, batch_size=3, rank=0, world_size=1, threads=2))


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_features_and_labels_stay_together(tmp_path, batch_size):
    unreadable = {0, 4, 5, 6, 7, 22}
    make_split(tmp_path / "train", 23, unreadable)
    context = context_in(tmp_path / "run")
    tree = ImageFolderSource(format="image_folder", root=tmp_path)
    own = open_data_set("own", "train", source=tree)
    found = extract(
        nn.Flatten(), own, EIGHT,
        batch_size=batch_size, phase="features train", context=context, units=Units(context),
    )  # fmt: skip
    kept = [number for number in range(23) if number not in unreadable]
    images = torch.tensor([colour(number) for number in kept], dtype=torch.uint8)[:, :, None, None].expand(-1, 3, 8, 8)
    assert torch.equal(found.values, normalise(images, torch.float32).flatten(1))
    assert (found.indices.tolist(), found.total, found.unreadable) == (kept, 17, 6)
    assert labels_on(context.device, own)[found.indices].tolist() == [number % CLASSES for number in kept]
    (warning,) = [e for e in read_events(tmp_path / "run/journal.jsonl") if e.kind == "warning"]
    assert warning.data["unreadable"] == 6
    assert len(warning.data["images"]) == 6
    assert warning.data["message"].startswith("6 of 23 images cannot be read and are left out (features train)")
    assert "class-0/000.png cannot be read: " in warning.data["message"]


def test_the_result_says_how_many_and_the_rest_is_judged(tmp_path):
    make_split(tmp_path / "train", 40, {3, 39})
    make_split(tmp_path / "test", 20, {0, 1, 2})
    inputs = {"data": {"own": {"format": "image_folder", "root": str(tmp_path)}}}
    spec = spec_of(data={"name": "own"}, backbone_from={"pixels": True}, backbone=None, k=1)
    result = run_evaluation(spec, context_in(tmp_path / "run", inputs=inputs))
    assert result is not None
    data = result["data"]
    assert (data["train_images"], data["test_images"]) == (38, 17)
    assert data["unreadable"] == {"train": 2, "test": 3}
    # The nearest image of the same class has the same red: a label one row off would make this zero.
    assert result["scores"]["top1"]["last"] == 100
    json.dumps(result, allow_nan=False)
    everything = spec_of(data={"name": "own"}, backbone_from={"pixels": True}, backbone=None, k=39)
    with pytest.raises(ValueError, match="k 39 is above the 38 training images"):
        run_evaluation(everything, context_in(tmp_path / "more", inputs=inputs))


def test_a_split_of_which_nothing_can_be_read_is_bad_data(tmp_path):
    make_split(tmp_path / "train", 5, range(5))
    make_split(tmp_path / "test", 5)
    spec = spec_of(data={"name": "own"}, backbone_from={"pixels": True}, backbone=None, k=1)
    inputs = {"data": {"own": {"format": "image_folder", "root": str(tmp_path)}}}
    with pytest.raises(DataError, match=r"none of the 5 images can be read \(features train\); the first: class-0/000"):
        run_evaluation(spec, context_in(tmp_path / "run", inputs=inputs))


def test_a_feature_that_is_not_finite_is_named_by_its_image_not_by_its_row(tmp_path):
    class Diverged(nn.Module):
        def forward(self, images):
            features = images.flatten(1)
            return torch.where(features[:, :1] == features[:, :1].max(), torch.nan, features)

    context = context_in(tmp_path / "run")
    with pytest.raises(ValueError, match=r"the features of image 9 \(features train\) are not finite"):
        extract(
            Diverged(), Damaged(10, {0, 4}), EIGHT,
            batch_size=20, phase="features train", context=context, units=Units(context),
        )  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (3, 200)])
def test_an_image_that_is_a_line_is_cropped_without_gigabytes(monkeypatch, shape):
    rows = np.linspace(0, 255, shape[0] * shape[1]).astype(np.uint8).reshape(*shape, 1).repeat(3, axis=2)
    cropped = centre_crop(rows, EIGHT)
    assert cropped.shape == (3, 8, 8)
    assert abs(int(cropped.mean()) - int(rows.mean())) < 20
    monkeypatch.setattr("trainer.data.loading.evaluation.LONGEST", 10**9)
    assert np.abs(cropped.astype(int) - centre_crop(rows, EIGHT)).max() <= (
        255 * LONGEST / max(shape) if max(shape) > 1 else 0
    )
