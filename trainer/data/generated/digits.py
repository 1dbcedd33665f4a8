"""`digits`: 1,797 handwritten digits, 8x8 pixels, as RGB images.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), DOI 10.24432/C50P49, CC BY 4.0:
its test part, which scikit-learn carries too. `digits.npz` holds `levels` (1797, 8, 8), 0..16, `labels`, and the
places of the images in each split, stratified by class and shuffled. It comes with the code because scikit-learn costs
every rank more than a second to import; a test compares the two.
"""

from __future__ import annotations

from importlib import resources

import numpy as np

from trainer.data.datasets import ArrayDataSet


def open_digits(split: str) -> ArrayDataSet:
    """Split `train` (1,437 images) or `test` (360)."""
    with resources.files("trainer.data.generated").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        chosen = arrays[split]
        levels = np.rint(arrays["levels"][chosen] * (255 / 16)).astype(np.uint8)
        labels = arrays["labels"][chosen].astype(np.int64)
    images = np.repeat(levels[..., None], 3, axis=3)
    return ArrayDataSet(images, labels, tuple(str(digit) for digit in range(10)))
