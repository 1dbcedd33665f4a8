"""Which images a step is trained on: the same for any number of ranks, threads and restarts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainer.data.keyed import Purpose, permutation


def order_of(seed: int, epoch: int, count: int) -> np.ndarray:
    """The places of all `count` images in the order of an epoch, (count,) int64."""
    return permutation(Purpose.ORDER, seed, epoch, count=count)


def global_batches(
    count: int, batch_size: int, seed: int, first_step: int, last_step: int
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(step, epoch, places (batch_size,) int64) of the steps first_step + 1 .. last_step; epochs count from 0.

    A batch is a contiguous slice of its epoch's order, and the last partial one of an epoch is dropped.
    """
    per_epoch = count // batch_size
    order, ordered = np.empty(0, dtype=np.int64), None
    for step in range(first_step + 1, last_step + 1):
        epoch, place = divmod(step - 1, per_epoch)
        if ordered != epoch:
            order, ordered = order_of(seed, epoch, count), epoch
        yield step, epoch, order[place * batch_size : (place + 1) * batch_size]
