"""What a training image of a classifier goes through."""

from __future__ import annotations

from pydantic import Field, model_validator

from barlow_lab.specs.common import SpecModel, refuse
from barlow_lab.specs.views import PositiveRange, Probability

USUAL_AUGMENT = {"crop_scale": (0.08, 1.0), "crop_ratio": (3 / 4, 4 / 3), "flip": 0.5}
"""As a protocol writes it."""


class AugmentSpec(SpecModel):
    """What a training image goes through: a random crop, resized (bilinear) to images.size, and a flip."""

    crop_scale: PositiveRange = Field((0.08, 1.0), description="Area of the random crop, as a fraction of the image")
    crop_ratio: PositiveRange = Field((3 / 4, 4 / 3), description="Width / height of the random crop")
    flip: Probability = Field(0.5, description="Horizontal flip")

    @model_validator(mode="after")
    def _ranges(self) -> AugmentSpec:
        faults: dict[tuple[str, ...], str] = {}
        for place, (low, high) in (("crop_scale", self.crop_scale), ("crop_ratio", self.crop_ratio)):
            if low > high:
                faults[place,] = f"the lower end {low} is above the upper end {high}; swap them"
        if max(self.crop_scale) > 1:
            faults["crop_scale",] = f"a crop cannot cover {max(self.crop_scale)} of the image; use at most 1"
        refuse(faults)
        return self
