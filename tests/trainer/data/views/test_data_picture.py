"""The picture of views: the first batch of the run, as the chosen engine makes it."""

import numpy as np
import pytest
import torch
from PIL import Image

from barlow_lab.specs.views import ViewsSpec
from trainer.data.loading.training import TrainingBatches
from trainer.data.registry import open_data_set
from trainer.data.views.photometry import finish
from trainer.data.views.picture import PICTURE_IMAGES, write_views_picture


@pytest.mark.parametrize("engine", ["pillow", "batched"])
def test_each_image_stands_over_the_views_that_are_trained_on(tmp_path, engine):
    data = open_data_set("digits", "train", limit=40)
    spec = ViewsSpec.model_validate({"preset": "small_images", "size": 48, "engine": engine})
    batches = TrainingBatches(data, spec, batch_size=20, seed=3, rank=0, world_size=1, threads=1)
    write_views_picture(tmp_path / "views.png", data, batches.first_rows(PICTURE_IMAGES))
    with Image.open(tmp_path / "views.png") as picture:
        assert (picture.mode, *picture.size) == ("RGB", 6 * 96, 6 * 96)
        grid = np.asarray(picture).reshape(2, 3, 96, 6, 96, 3).transpose(1, 0, 3, 2, 4, 5)[:, :, :, ::2, ::2]
        cells = grid.reshape(3, PICTURE_IMAGES, 48, 48, 3)
    batch = next(batches.iterate(0, 1))
    views = finish(batch, torch.device("cpu"))
    for row, index in enumerate(batch.indices[:PICTURE_IMAGES].tolist()):
        whole = Image.fromarray(data.image(index)).resize((48, 48), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(cells[0, row], np.asarray(whole))
        for place, view in enumerate(views, start=1):
            np.testing.assert_array_equal(cells[place, row], view[row].numpy().transpose(1, 2, 0))


def test_the_picture_of_a_small_batch(tmp_path):
    data = open_data_set("digits", "train", limit=5)
    spec = ViewsSpec.model_validate({"size": 200})
    batches = TrainingBatches(data, spec, batch_size=2, seed=0, rank=0, world_size=1, threads=3)
    write_views_picture(tmp_path / "views.png", data, batches.first_rows(PICTURE_IMAGES))
    with Image.open(tmp_path / "views.png") as picture:
        assert picture.size == (600, 600)
        assert (np.asarray(picture)[:, 400:] == 255).all(), "white where nothing is"
