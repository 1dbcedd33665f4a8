"""Classes none of whose images can be read: nothing is learned of them or asked about them, which is told."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.checks.inspection import unreadable_classes
from trainer.data.classes import none_readable, present
from trainer.data.datasets import Images
from trainer.runtime import collectives
from trainer.runtime.context import Context


def tell_of_lost_classes(dataset: Images, rows: Tensor, phase: str, context: Context) -> None:
    """Warn of classes that have images, of which none could be read; `rows` are those that this rank has read."""
    there, read = present(dataset), present(dataset, rows.cpu().numpy())
    if there is None or read is None:
        return
    _tell(dataset, np.flatnonzero(there & ~_on_any_rank(read, context)), phase, context)


class MetClasses:
    """The classes of images that a training has met: those of this attempt, on this rank."""

    def __init__(self, images: Images, context: Context) -> None:
        self._images = images
        self._context = context
        self._met = np.zeros(len(images.classes), dtype=np.bool_)

    def meet(self, labels: NDArray[np.int64]) -> None:
        """Take in the classes of images that were read."""
        self._met[labels] = True

    def tell_of_lost(self) -> None:
        """Warn of classes none of whose images can be read; every rank calls it. Those not met are looked into for an
        image that can: the end of an epoch is dropped, and a resumed one is seen in part."""
        met, there = _on_any_rank(self._met, self._context), present(self._images)
        if self._context.journal is None or there is None:
            return
        tick = partial(self._context.working, "looking at images")
        lost = unreadable_classes(self._images, np.flatnonzero(there & ~met), tick)
        _tell(self._images, lost, "training", self._context)


def _on_any_rank(which: NDArray[np.bool_], context: Context) -> NDArray[np.bool_]:
    every = collectives.all_reduce_(torch.from_numpy(which).to(context.device, torch.int64))
    return np.asarray(every.cpu().numpy() > 0)


def _tell(images: Images, lost: NDArray[np.int64], where: str, context: Context) -> None:
    if len(lost):
        context.warn(none_readable(images.classes, lost, where), classes=[images.classes[label] for label in lost])
