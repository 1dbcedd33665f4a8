"""Both views of images, made by threads of the rank: decoders, Pillow and torch release the GIL."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from barlow_lab.specs.views import ViewsSpec
from trainer.data.batch import FIELDS, Batch, batch_memory
from trainer.data.datasets import Images
from trainer.data.keyed import Purpose
from trainer.data.loading.pool import Task, pieces
from trainer.data.loading.replacing import readable_from
from trainer.data.views import augmentation
from trainer.data.views.crops import resized_crop
from trainer.data.views.photometry import apply_batched, fill_row


class PairLoading:
    """The two views of every image, drawn by (purpose, seed, epoch, image).

    An image that cannot be read is replaced by the next one of the data set that can, with the views that are that
    one's in this epoch.
    """

    def __init__(
        self,
        dataset: Images,
        views_spec: ViewsSpec,
        *,
        seed: int,
        threads: int,
        purpose: Purpose = Purpose.VIEW,
        pinned: bool = False,
        whole: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """`pinned`: in page-locked memory, from which a GPU copies while the host goes on. `whole`: nothing is left for
        `finish` to do, the threads here do it all; for a step on the same cores, of which it would use one.
        `tick` is called for every image, by the thread that loaded it."""
        self._dataset = dataset
        self._views = views_spec
        self._seed = seed
        self._threads = threads
        self._purpose = purpose
        self._pinned = pinned
        self._whole = whole
        self._tick = tick

    def task(self, step: int, epoch: int, indices: np.ndarray) -> Task[Batch]:
        """A batch of the images at these places, which it may write over, for threads to fill."""
        size, batched = self._views.size, self._views.engine == "batched"
        memory = batch_memory(len(indices), size, tables=batched and not self._whole, pinned=self._pinned)
        batch = Batch(step, epoch, indices, size, memory)
        crops = batch.pixels(memory)
        pixels = crops.numpy()
        photometry = torch.empty(2, len(indices), FIELDS) if batched and self._whole else batch.photometry
        tables = None if photometry is None else photometry.numpy()

        def load(row: int) -> None:
            batch.indices[row], image = readable_from(self._dataset, int(batch.indices[row]), batch.skipped)
            for view_id, spec in enumerate((self._views.a, self._views.b)):
                drawn = augmentation.sample(
                    spec,
                    seed=self._seed,
                    epoch=epoch,
                    index=int(indices[row]),
                    view_id=view_id,
                    height=image.shape[0],
                    width=image.shape[1],
                    purpose=self._purpose,
                )
                if tables is None:
                    pixels[view_id, row] = augmentation.apply(image, drawn, size)
                else:
                    pixels[view_id, row] = resized_crop(image, drawn.crop, size, flip=drawn.flip)
                    fill_row(tables[view_id, row], drawn)

        def end(rows: slice) -> None:
            if photometry is not None and self._whole:
                for view, table in zip(crops[:, rows], photometry[:, rows], strict=True):
                    view.copy_(apply_batched(view, table, table))

        return Task(batch, pieces(load, indices, self._threads, self._tick, end))
