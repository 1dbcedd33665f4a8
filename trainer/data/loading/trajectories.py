"""Images taken through transformations, each by the same steps: what invariance is measured along.

A trajectory is a grid of the transformation's range and no draw: equal steps where one number is varied (rotation,
blur, scale), and where several are (crop, colour) the first points of Halton's sequence, which fill a cube evenly. So
every image is taken through the same ones, and two runs see the same pixels.

Windows and enlargements are cut out of the image itself, within what the evaluation shows of it; turns, colours and
blur are made of what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from barlow_lab.specs.kinds.evaluation import EvaluationImages
from barlow_lab.specs.kinds.invariance import (
    BlurRange,
    ColourRange,
    CropRange,
    RotationRange,
    ScaleRange,
    TransformationRanges,
)
from trainer.data.datasets import Images
from trainer.data.errors import UnreadableImage
from trainer.data.loading.evaluation import centre_crop, shown_part
from trainer.data.loading.pool import Task, ahead, pieces

Trajectory = Callable[[np.ndarray], list[Image.Image]]
"""From an image (H, W, 3) uint8 to its transformed ones, each of `images.size`."""

_PRIMES = (2, 3, 5, 7)
_BILINEAR = InterpolationMode.BILINEAR


@dataclass(slots=True)
class TrajectoryBatch:
    """Trajectories of some images; those that cannot be read are not among them."""

    indices: np.ndarray
    """(n,) int64, places in the data set, ascending."""
    images: Tensor
    """(n, steps, 3, S, S) uint8, channels R, G, B."""
    unreadable: list[UnreadableImage]


@dataclass(slots=True)
class _Loading:
    """A batch while threads fill it; `unreadable` by row."""

    indices: np.ndarray
    images: Tensor
    unreadable: dict[int, UnreadableImage] = field(default_factory=dict)

    def load(self, dataset: Images, trajectory: Trajectory, row: int) -> None:
        try:
            image = dataset.image(int(self.indices[row]))
        except UnreadableImage as error:
            self.unreadable[row] = error
            return
        rows = self.images[row].numpy()
        for step, shown in enumerate(trajectory(image)):
            rows[step] = np.asarray(shown).transpose(2, 0, 1)

    def readable(self) -> TrajectoryBatch:
        rows = np.array([row for row in range(len(self.indices)) if row not in self.unreadable], dtype=np.int64)
        left_out = [self.unreadable[row] for row in sorted(self.unreadable)]
        return TrajectoryBatch(self.indices[rows], self.images[torch.from_numpy(rows)], left_out)


def trajectory_batches(
    dataset: Images,
    chosen: np.ndarray,
    trajectory: Trajectory,
    images: EvaluationImages,
    *,
    steps: int,
    rows: int,
    threads: int,
    tick: Callable[[], None] = lambda: None,
) -> Generator[TrajectoryBatch]:
    """The images of the data set at the places `chosen`, `rows` at a time, each along its trajectory of so many steps.

    Raises:
        DataError: an image could not be loaded for another reason than that it is unreadable; names its index.
        OSError: the disk does not give it.
    """

    def tasks() -> Iterator[Task[_Loading]]:
        for start in range(0, len(chosen), rows):
            indices = chosen[start : start + rows]
            empty = torch.empty((len(indices), steps, 3, images.size, images.size), dtype=torch.uint8)
            loading = _Loading(indices, empty)
            yield Task(loading, pieces(partial(loading.load, dataset, trajectory), indices, threads, tick))

    with closing(ahead(tasks(), threads)) as loaded:
        for loading in loaded:
            yield loading.readable()


def trajectories(ranges: TransformationRanges, images: EvaluationImages, steps: int) -> dict[str, Trajectory]:
    """The trajectory of each transformation that is not left out, by its name."""
    along: dict[str, Trajectory] = {}
    if ranges.crop is not None:
        along["crop"] = _crop(ranges.crop, images, steps)
    if ranges.colour is not None:
        along["colour"] = _colour(ranges.colour, images, steps)
    if ranges.blur is not None:
        along["blur"] = _blur(ranges.blur, images, steps)
    if ranges.rotation is not None:
        along["rotation"] = _rotation(ranges.rotation, images, steps)
    if ranges.scale is not None:
        along["scale"] = _scale(ranges.scale, images, steps)
    return along


def halton(count: int, dimensions: int) -> np.ndarray:
    """The first points of Halton's sequence but for the one at 0, (count, dimensions) float64 in (0, 1)."""
    return np.array([[_mirrored(place, _PRIMES[d]) for d in range(dimensions)] for place in range(1, count + 1)])


def _mirrored(number: int, base: int) -> float:
    """The digits of a number in this base, mirrored at the point: 6 = 110 in base 2 becomes 0.011 = 3/8."""
    numerator, denominator = 0, 1
    while number:
        number, digit = divmod(number, base)
        numerator, denominator = numerator * base + digit, denominator * base
    return numerator / denominator


def _crop(of: CropRange, images: EvaluationImages, steps: int) -> Trajectory:
    windows = [
        (math.sqrt(of.area + (1.0 - of.area) * area), down, right) for area, down, right in halton(steps, 3).tolist()
    ]
    return partial(_windows, images=images, windows=windows)


def _scale(of: ScaleRange, images: EvaluationImages, steps: int) -> Trajectory:
    windows = [(of.factor ** (-step / (steps - 1)), 0.5, 0.5) for step in range(steps)]
    return partial(_windows, images=images, windows=windows)


def _windows(
    image: np.ndarray, images: EvaluationImages, windows: Sequence[tuple[float, float, float]]
) -> list[Image.Image]:
    """Windows of what the evaluation shows of an image, in parts of it: side, and how far down and to the right of
    where they may be."""
    part = Image.fromarray(shown_part(image, images))
    found = []
    for side, down, right in windows:
        height, width = (max(1, round(side * whole)) for whole in (part.height, part.width))
        top, left = round(down * (part.height - height)), round(right * (part.width - width))
        size = [images.size, images.size]
        found.append(transforms.resized_crop(part, top, left, height, width, size, _BILINEAR))
    return found


def _colour(of: ColourRange, images: EvaluationImages, steps: int) -> Trajectory:
    strengths = (of.brightness, of.contrast, of.saturation, of.hue)
    offsets = (halton(steps, 4) * 2.0 - 1.0) * strengths

    def along(image: np.ndarray) -> list[Image.Image]:
        shown = _shown(image, images)
        return [_coloured(shown, *by) for by in offsets.tolist()]

    return along


def _coloured(shown: Image.Image, brightness: float, contrast: float, saturation: float, hue: float) -> Image.Image:
    shown = transforms.adjust_brightness(shown, 1.0 + brightness)
    shown = transforms.adjust_contrast(shown, 1.0 + contrast)
    shown = transforms.adjust_saturation(shown, 1.0 + saturation)
    turned: Image.Image = transforms.adjust_hue(shown, hue)
    return turned


def _blur(of: BlurRange, images: EvaluationImages, steps: int) -> Trajectory:
    sigmas = [of.sigma * images.size * step / (steps - 1) for step in range(1, steps)]

    def along(image: np.ndarray) -> list[Image.Image]:
        shown = _shown(image, images)
        # Weights further away than three standard deviations are a quarter of a hundredth, all together.
        return [shown, *(transforms.gaussian_blur(shown, 2 * math.ceil(3 * sigma) + 1, sigma) for sigma in sigmas)]

    return along


def _rotation(of: RotationRange, images: EvaluationImages, steps: int) -> Trajectory:
    angles = np.linspace(-of.degrees, of.degrees, steps).tolist()
    # How far the corners reach beyond the sides.
    margin = math.ceil((math.sqrt(2) - 1) / 2 * images.size) + 1

    def along(image: np.ndarray) -> list[Image.Image]:
        wide = transforms.pad(_shown(image, images), margin, padding_mode="reflect")
        size = [images.size, images.size]
        return [transforms.center_crop(transforms.rotate(wide, angle, _BILINEAR), size) for angle in angles]

    return along


def _shown(image: np.ndarray, images: EvaluationImages) -> Image.Image:
    """An image as the evaluation shows it."""
    return Image.fromarray(np.ascontiguousarray(centre_crop(image, images).transpose(1, 2, 0)))
