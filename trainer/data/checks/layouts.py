"""Records whose pixels seem to stand in another order than that in which their format is read.

A file of any order has the right length, and gives stripes, or pictures that lie on their side, without an error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainer.data.binary_files import BinaryImages

LOOKED_AT = 512
"""Records, evenly spaced."""
LEAST = 64
"""Records from which on it is said on which side pictures lie."""
SMOOTHER = 0.6
"""Neighbours differ as much by the other order, as a share of what they differ by that of the format, or less: in noise
they differ alike, and in pictures of the right order less than by any other."""
MOST_OF_THEM = 0.75
"""Records in which they differ less."""
SURE = 6.0
"""Standard errors by which the left half of the images is brighter on average, as of photographs the upper half is."""


def told_of_order(images: BinaryImages, tick: Callable[[], None]) -> list[str]:
    """What to say of the order of a split's pixels; `tick` is called for each record that is looked at.

    Raises:
        OSError: the disk does not give them.
    """
    differences, sides = [], []
    for place in np.unique(np.linspace(0, len(images) - 1, LOOKED_AT, dtype=np.int64)).tolist():
        tick()
        image = images.image(place).astype(np.float64)
        if image.std() > 0:
            differences.append((_roughness(image), _roughness(images.interleaved(place).astype(np.float64))))
            sides.append(_brighter(image.mean(axis=2)))
    if not differences:
        return []
    ours, others = np.array(differences).T
    if others.sum() <= SMOOTHER * ours.sum() and (others < ours).mean() >= MOST_OF_THEM:
        return [
            "the pixels seem to be written red, green, blue one after the other (height, width, channel), and are read "
            f"as a plane of each colour, which gives stripes: so neighbours differ by {ours.mean():.3g} levels on "
            f"average, and by {others.mean():.3g} in that order, in {len(ours):,} images looked at. Write the file "
            "again in planes (docs/data-sets.md, What a set is for)"
        ]
    above, left = _standard_errors(np.array(sides))
    if len(sides) >= LEAST and left >= SURE and abs(above) <= left / 3:
        return [
            f"the images seem to lie on their side: in {len(sides):,} looked at the left half is brighter on average, "
            "as the upper half of photographs is. If they are photographs, rows and columns were exchanged where the "
            "file was written (docs/data-sets.md, What a set is for)"
        ]
    return []


def _roughness(image: NDArray[np.float64]) -> float:
    """How much neighbours of an image, (H, W, 3), differ on average."""
    return float(np.abs(np.diff(image, axis=0)).mean() + np.abs(np.diff(image, axis=1)).mean()) / 2


def _brighter(grey: NDArray[np.float64]) -> tuple[float, float]:
    """How much the upper half of an image, (H, W), is brighter than the lower, and the left than the right."""
    upper, lower = np.array_split(grey, 2)
    left, right = np.array_split(grey, 2, axis=1)
    return float(upper.mean() - lower.mean()), float(left.mean() - right.mean())


def _standard_errors(values: NDArray[np.float64]) -> tuple[float, float]:
    """The mean of each of two columns, (n, 2), by its standard error."""
    above, left = values.mean(axis=0) / (values.std(axis=0) / np.sqrt(len(values)) + 1e-9)
    return float(above), float(left)
