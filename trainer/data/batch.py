"""One rank's share of a step, in one piece of memory: threads fill it, one copy brings it to the device."""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

FIELDS = 16
"""Parameters of a sample's photometry (trainer.data.views.photometry)."""


@dataclass(slots=True)
class Batch:
    """One rank's rows of the global batch of one optimiser step.

    From the engine `pillow` the views are whole; from `batched` they are crops, and `photometry` says what is still to
    be done to them, unless the loading threads have done it (training on a CPU).
    `trainer.data.views.photometry.finish` gives the views on a device either way.
    """

    step: int
    """The step this batch is for, counted from 1 over the whole run."""
    epoch: int
    """The epoch it belongs to, counted from 0."""
    indices: np.ndarray
    """(n,) int64, places in the data set of the images that are in it."""
    size: int
    """Side of a view in pixels."""
    memory: Tensor
    """All that the device needs, bytes: the photometry, then the pixels of view a, then those of view b."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Images that could not be read, whose rows hold the next ones: name → cause, ordered by name."""
    load_seconds: float = 0.0
    """How long the consumer waited for it."""

    @property
    def view_a(self) -> Tensor:
        """(n, 3, S, S) uint8, channels R, G, B."""
        return self.pixels(self.memory)[0]

    @property
    def view_b(self) -> Tensor:
        """(n, 3, S, S) uint8; row for row the other view of the same images."""
        return self.pixels(self.memory)[1]

    @property
    def photometry(self) -> Tensor | None:
        """(2, n, FIELDS) float32: the parameters of both views' samples."""
        return self.tables(self.memory)

    def pixels(self, memory: Tensor) -> Tensor:
        """(2, n, 3, S, S) uint8, in `memory` or in a copy of it."""
        return memory[-_pixel_bytes(len(self.indices), self.size) :].view(2, len(self.indices), 3, self.size, self.size)

    def tables(self, memory: Tensor) -> Tensor | None:
        """(2, n, FIELDS) float32, in `memory` or in a copy of it; None if the views are whole."""
        head = memory[: -_pixel_bytes(len(self.indices), self.size)]
        return head.view(torch.float32).view(2, len(self.indices), FIELDS) if len(head) else None


def batch_memory(count: int, size: int, *, tables: bool, pinned: bool) -> Tensor:
    """Memory of a batch of `count` pairs, not yet set; it was another batch's before, whose tensors are all gone.

    Pinned memory comes from torch's own pool, which also waits for the asynchronous copies from it. Other memory is
    kept here: fresh from the system it costs more than the crops that are written to it (0.15 ms against 0.01 ms an
    image), for every page of it is cleared first.
    """
    table_bytes = 2 * count * FIELDS * 4 if tables else 0
    needed = table_bytes + _pixel_bytes(count, size)
    if pinned:
        return torch.empty(needed, dtype=torch.uint8, pin_memory=True)
    try:
        block = _free_blocks.pop()
    except IndexError:
        block = np.empty(0, dtype=np.uint8)
    if len(block) != needed:
        block = np.empty(needed, dtype=np.uint8)
    # The tensor, and every view of it, holds this array: it goes when the last of them does.
    lent = block.view()
    weakref.finalize(lent, _free_blocks.append, block).atexit = False
    return torch.from_numpy(lent)


_free_blocks: deque[np.ndarray] = deque(maxlen=8)
"""Some more than there are batches ahead; when there are too many the oldest goes."""


def _pixel_bytes(count: int, size: int) -> int:
    return 2 * count * 3 * size * size
