"""`digits`: the 1,797 handwritten digits that scikit-learn carries, 8x8 pixels, as RGB images."""

from __future__ import annotations

import numpy as np

from trainer.data.datasets import ArrayDataSet

TEST_IMAGES = 360


def open_digits(split: str) -> ArrayDataSet:
    """Split `train` (1,437 images) or `test` (360): stratified by class, shuffled, always the same.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), its test part.
    """
    # Imported here: scikit-learn costs every rank a second that no other data set needs.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    levels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 17 grey levels, 0..16
    train, test = train_test_split(
        np.arange(len(levels)), test_size=TEST_IMAGES, random_state=0, stratify=digits.target
    )
    chosen = train if split == "train" else test
    images = np.repeat(levels[chosen][..., None], 3, axis=3)
    return ArrayDataSet(images, digits.target[chosen].astype(np.int64), tuple(str(n) for n in digits.target_names))
