"""From the values of an image file to 256 levels, where a file has more than these or uses fewer of them.

What is white is the data set's to say (`value_range` in datasets.yaml):

- `dtype`, the default: the largest value of the type that the values are stored in, 65,535 of 16 bits, whatever the
  file says of its bits, or of the smallest value being white. Of 32 bits, signed and floating-point values none is
  white by definition: refused.
- `file`: what the file says of itself, in a TIFF the tags SMinSampleValue and SMaxSampleValue, or MinSampleValue and
  MaxSampleValue, or BitsPerSample of 9 to 15 (TIFF 6.0, sections 8 and 19), and WhiteIsZero; where it says nothing, as
  `dtype`. Netpbm's formats have a largest value as well, and Pillow heeds it in any case.
- `percentile`: each image by itself, so that 0.1 % of its values are black and 0.1 % white, all bands alike.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from barlow_lab.specs.data_sets import ValueRange

OUTSIDE = 0.1
"""Per cent of the values that are black, and white, by `percentile`."""
NO_WHITE = (
    "values of 32 bits, with a sign or floating-point have no defined white; store it with 8 or 16 bits a channel, or "
    "say `value_range: percentile` for the data set in datasets.yaml"
)

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_UNSIGNED = 1
_RANGES = (340, 341), (280, 281)
"""Tags of TIFF: the smallest and the largest value of a sample."""
_WHITE_IS_ZERO = 0


def is_deep(image: Image.Image) -> bool:
    """Whether Pillow gives values beyond 8 bits of it: of grey images alone, of colours it keeps the high byte."""
    return image.mode.startswith("I") or image.mode == "F"


def bits_of(image: Image.Image) -> int | None:
    """The bits of a sample, where a TIFF says that they are 9 to 15."""
    bits = _first(image, _BITS)
    return int(bits) if bits is not None and 9 <= bits <= 15 else None


def is_negative(image: Image.Image) -> bool:
    """Whether the smallest value of a grey image is white (WhiteIsZero of a TIFF). Of 8 bits Pillow sees to it."""
    return is_deep(image) and _first(image, _PHOTOMETRIC) == _WHITE_IS_ZERO


def not_finite_of(image: Image.Image) -> tuple[int, int]:
    """How many values of a floating-point image are NaN, and how many infinite."""
    if image.mode != "F":
        return 0, 0
    values = np.asarray(image)
    return int(np.isnan(values).sum()), int(np.isinf(values).sum())


def levels_of(image: Image.Image, value_range: ValueRange) -> NDArray[np.uint8]:
    """The levels (H, W) of a grey image with values beyond 8 bits.

    Raises:
        ValueError: none of its values is white by definition.
    """
    values = _values(image)
    high_byte = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    found = _spread(values) if value_range == "percentile" else _declared(image) if value_range == "file" else None
    if found is not None:
        levels = _scaled(values, *found)
    elif high_byte:
        levels = (values >> 8).astype(np.uint8)
    elif value_range == "percentile":  # of one value: there is nothing to spread
        levels = np.zeros(values.shape, np.uint8)
    else:
        raise ValueError(NO_WHITE)
    return 255 - levels if value_range != "dtype" and is_negative(image) else levels


def merges(image: Image.Image, levels: NDArray[np.uint8]) -> bool:
    """Whether several values of a grey image with values beyond 8 bits came to one of its `levels`."""
    values = _values(image)
    one_of_each = np.zeros(256, values.dtype)
    one_of_each[levels] = values
    return not np.array_equal(one_of_each[levels], values)


def may_merge(levels: NDArray[np.uint8]) -> bool:
    """Whether the high bytes of an image, as `levels`, may stand for several values each: some are neighbours. Those of
    masks and drawings are not."""
    return 1 in np.diff(np.flatnonzero(np.bincount(levels.reshape(-1), minlength=256)))


def _values(image: Image.Image) -> NDArray[Any]:
    values = np.asarray(image)
    # Pillow gives 32 bits with a sign, also those that have none.
    unsigned = isinstance(image, TiffImageFile) and _first(image, _SAMPLE_FORMAT) in (None, _UNSIGNED)
    return values.view(np.uint32) if image.mode == "I" and unsigned else values


def spread(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same image of 8 bits, (H, W, 3), as `percentile` reads it."""
    found = _spread(levels)
    return levels if found is None else _scaled(levels, *found)


def _spread(values: NDArray[Any]) -> tuple[float, float] | None:
    """What is black and white by `percentile`; None: all finite values are one, or there is none."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values.reshape(-1)
    if not finite.size:
        return None
    low, high = np.percentile(finite, (OUTSIDE, 100 - OUTSIDE), method="inverted_cdf").tolist()
    if high <= low:  # fewer than those outside differ from the others: they are what there is to see
        low, high = finite.min().item(), finite.max().item()
    return None if high <= low else (low, high)


def _declared(image: Image.Image) -> tuple[float, float] | None:
    for low_tag, high_tag in _RANGES:
        low, high = _first(image, low_tag) or 0.0, _first(image, high_tag)
        if high is not None and math.isfinite(low) and math.isfinite(high) and low < high:
            return low, high
    bits = bits_of(image)
    return None if bits is None else (0.0, 2.0**bits - 1)


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    parts = (values.astype(np.float64) - low) / (high - low)
    levels: NDArray[np.uint8] = (np.clip(np.nan_to_num(parts), 0, 1) * 255 + 0.5).astype(np.uint8)
    return levels


def _first(image: Image.Image, tag: int) -> float | None:
    """The number of a tag of TIFF, the first where there is one for each band."""
    if not isinstance(image, TiffImageFile):
        return None
    value = image.tag_v2.get(tag)
    if isinstance(value, tuple):
        value = value[0] if value else None
    return None if value is None or isinstance(value, str | bytes) else float(value)
