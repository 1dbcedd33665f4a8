"""Views: the draws of one view as plain values, and their application to an image by Pillow.

The two halves are apart on purpose: `sample` says what happens (keyed), `apply` does it with the arithmetic
of the reference implementation (torchvision transforms on PIL images; Barlow Twins paper 2.2). The other engine does it
for a whole batch: trainer.data.views.crops, then trainer.data.views.photometry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from barlow_lab.specs.views import ViewSpec
from trainer.data.keyed import Purpose, uniforms

CROP_TRIES = 10

# Where each draw stands in the uniform numbers of a view. Every number has its own place and is drawn whether it is
# used or not: turning one operation on or off leaves all the others as they were.
_CROP = slice(0, 4 * CROP_TRIES)
_FLIP, _JITTER, _GRAYSCALE, _SWAP, _INVERT, _BLUR, _RADIUS, _SOLARIZE = range(_CROP.stop, _CROP.stop + 8)
_FACTORS = slice(_SOLARIZE + 1, _SOLARIZE + 5)
_ORDER = slice(_FACTORS.stop, _FACTORS.stop + 4)
_CHANNELS = slice(_ORDER.stop, _ORDER.stop + 3)
_COUNT = _CHANNELS.stop

JITTERS = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle in pixels of the source image."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class ViewParameters:
    """All that happens to one image to make one view, in the order of the fields."""

    crop: Crop
    flip: bool
    jitter: tuple[tuple[str, float], ...]
    """(operation, factor) in the order they are applied; empty: none. Hue in turns, the others 1 = unchanged."""
    grayscale: bool
    channels: tuple[int, int, int]
    """Source channel of R, G and B; (0, 1, 2) leaves the colours."""
    invert: bool
    blur_radius: float | None
    """Standard deviation in pixels of the view, as Pillow's GaussianBlur takes it."""
    solarize_threshold: int | None


def sample(
    view: ViewSpec,
    *,
    seed: int,
    epoch: int,
    index: int,
    view_id: int,
    height: int,
    width: int,
    purpose: Purpose = Purpose.VIEW,
) -> ViewParameters:
    """Draw one view of image `index`, whose size is (height, width) pixels.

    A pure function of its arguments: the same view in any thread, on any rank, after any restart.
    """
    u = uniforms(purpose, seed, epoch, index, view_id, count=_COUNT)
    jitter: tuple[tuple[str, float], ...] = ()
    if u[_JITTER] < view.jitter.probability:
        factors = _jitter_factors(view, u[_FACTORS])
        # A hue turned by nothing is not the same: it has been to 8-bit HSV and back. torchvision leaves it out, too.
        jitter = tuple((JITTERS[n], factors[n]) for n in np.argsort(u[_ORDER]) if getattr(view.jitter, JITTERS[n]) > 0)
    channels = (0, 1, 2)
    if u[_SWAP] < view.channel_swap:
        red, green, blue = np.argsort(u[_CHANNELS]).tolist()
        channels = (red, green, blue)
    return ViewParameters(
        crop=random_resized_crop(u[_CROP].reshape(CROP_TRIES, 4), view, height, width),
        flip=bool(u[_FLIP] < view.flip),
        jitter=jitter,
        grayscale=bool(u[_GRAYSCALE] < view.grayscale),
        channels=channels,
        invert=bool(u[_INVERT] < view.invert),
        blur_radius=_between(u[_RADIUS], *view.blur.radius) if u[_BLUR] < view.blur.probability else None,
        solarize_threshold=view.solarize.threshold if u[_SOLARIZE] < view.solarize.probability else None,
    )


def random_resized_crop(draws: np.ndarray, view: ViewSpec, height: int, width: int) -> Crop:
    """torchvision's RandomResizedCrop rule from uniform numbers (tries, 4): area, log ratio, top, left.

    The first try that fits the image stands; when none does, the largest central crop of a legal ratio.
    """
    low, high = (math.log(ratio) for ratio in view.crop_ratio)
    for area_draw, ratio_draw, top_draw, left_draw in draws:
        area = height * width * _between(area_draw, *view.crop_scale)
        ratio = math.exp(_between(ratio_draw, low, high))
        w = round(math.sqrt(area * ratio))
        h = round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Crop(int(top_draw * (height - h + 1)), int(left_draw * (width - w + 1)), h, w)
    h, w = height, width
    if width / height < view.crop_ratio[0]:
        h = max(1, round(width / view.crop_ratio[0]))
    elif width / height > view.crop_ratio[1]:
        w = max(1, round(height * view.crop_ratio[1]))
    return Crop((height - h) // 2, (width - w) // 2, h, w)


def apply(image: np.ndarray, parameters: ViewParameters, size: int) -> np.ndarray:
    """Make the view: image (H, W, 3) uint8 → (3, size, size) uint8, contiguous."""
    crop = parameters.crop
    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    view = Image.fromarray(image).crop(box).resize((size, size), Image.Resampling.BICUBIC)
    if parameters.flip:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for operation, factor in parameters.jitter:
        view = _JITTER_OPERATIONS[operation](view, factor)
    if parameters.grayscale:
        view = view.convert("L").convert("RGB")
    if parameters.channels != (0, 1, 2):
        bands = view.split()
        view = Image.merge("RGB", [bands[channel] for channel in parameters.channels])
    if parameters.invert:
        view = ImageOps.invert(view)
    if parameters.blur_radius is not None:
        view = view.filter(ImageFilter.GaussianBlur(parameters.blur_radius))
    if parameters.solarize_threshold is not None:
        view = ImageOps.solarize(view, parameters.solarize_threshold)
    return np.ascontiguousarray(np.asarray(view).transpose(2, 0, 1))


def _jitter_factors(view: ViewSpec, draws: np.ndarray) -> list[float]:
    """Factors in the order of JITTERS; a factor never falls below 0 (torchvision's ColorJitter)."""
    reach = (view.jitter.brightness, view.jitter.contrast, view.jitter.saturation)
    factors = [_between(u, max(0.0, 1.0 - x), 1.0 + x) for u, x in zip(draws[:3], reach, strict=True)]
    return [*factors, _between(draws[3], -view.jitter.hue, view.jitter.hue)]


def hue_levels(turns: float) -> int:
    """The shift of an 8-bit hue, truncated towards zero as torchvision does."""
    return int(turns * 255)


def _shift_hue(image: Image.Image, turns: float) -> Image.Image:
    """Turn the hue circle, whose 256 levels wrap around."""
    hue, saturation, value = image.convert("HSV").split()
    shift = hue_levels(turns)
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


_JITTER_OPERATIONS = {
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "saturation": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "hue": _shift_hue,
}


def _between(u: float, low: float, high: float) -> float:
    return float(low + (high - low) * u)
