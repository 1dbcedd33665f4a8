"""Parameters of a view to test with: those that leave an image as it is, and a pipeline in which everything occurs."""

from __future__ import annotations

from barlow_lab.specs.views import ViewSpec
from trainer.data.views.augmentation import Crop, ViewParameters

EVERYTHING = ViewSpec.model_validate(
    {"channel_swap": 0.5, "invert": 0.5, "blur": {"probability": 0.5}, "solarize": {"probability": 0.5}}
)


def plain(size: int) -> ViewParameters:
    """The whole of a square image of `size` px, and nothing done to it."""
    return ViewParameters(
        crop=Crop(0, 0, size, size),
        flip=False,
        jitter=(),
        grayscale=False,
        channels=(0, 1, 2),
        invert=False,
        blur_radius=None,
        solarize_threshold=None,
    )
