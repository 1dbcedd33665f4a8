"""Readers tell of a split in which so many objects are to be ignored that it is hardly meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.data.classes import in_words
from trainer.data.formats.annotated_files import Objects
from trainer.data.ignored import Ignored, told

MOST_OF_CLASS = 0.5
"""The part of a class's objects. Of VOC2007's chairs 45 % are difficult."""


def tell_of_ignored(
    objects: Objects, classes: Sequence[str], whose: str, kind: Ignored, warn: Callable[[str], None]
) -> None:
    """Warn where more than the usual part of all objects is ignored, or most of those of a class."""
    ignored, labels = np.array(objects.ignored, dtype=np.bool_), np.array(objects.classes, dtype=np.int64)
    count = int(ignored.sum())
    there, lost = (np.bincount(labels[which], minlength=len(classes)) for which in (slice(None), ignored))
    every = np.flatnonzero((lost > 0) & (lost == there))
    most = np.flatnonzero((lost > MOST_OF_CLASS * there) & (lost < there))
    if not (len(every) or len(most) or count > kind.most * len(ignored)):
        return

    def named(which: NDArray[np.int64]) -> str:
        return in_words([classes[label] for label in which])

    parts = [f"{share} of {named(which)}" for share, which in (("all", every), ("most", most)) if len(which)]
    among = f", among them {' and '.join(parts)}" if parts and count < len(ignored) else ""
    warn(told(count, len(ignored), whose, kind, among=among))
