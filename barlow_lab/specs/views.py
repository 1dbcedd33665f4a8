"""The two view pipelines as data: probabilities and ranges, no code. Applied by trainer.data.views.augmentation.

Values of the `barlow_twins` preset: Barlow Twins paper (arXiv 2103.03230) 2.2 and its reference configuration,
two pipelines that differ in blur (1.0 / 0.1) and solarisation (0.0 / 0.2).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from barlow_lab.specs.common import SpecModel, refuse

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveRange = tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]]

LARGEST_FACTOR, LARGEST_RADIUS = 100.0, 256.0
"""Beyond them an image is one colour, and far beyond them the arithmetic has no numbers."""
Radius = Annotated[float, Field(gt=0.0, le=LARGEST_RADIUS)]


class JitterSpec(SpecModel):
    """Colour jitter: each factor is drawn from [1 - x, 1 + x], hue from [-hue, hue] (in turns), in random order.

    What has a reach of 0 is left out.
    """

    probability: Probability = Field(0.8, description="How often it is applied")
    brightness: float = Field(0.4, ge=0.0, le=LARGEST_FACTOR, description="Reach of the factor to each side of 1")
    contrast: float = Field(0.4, ge=0.0, le=LARGEST_FACTOR, description="Reach of the factor to each side of 1")
    saturation: float = Field(0.2, ge=0.0, le=LARGEST_FACTOR, description="Reach of the factor to each side of 1")
    hue: float = Field(0.1, ge=0.0, le=0.5, description="Reach of the turn to each side, in whole turns")


class BlurSpec(SpecModel):
    """Gaussian blur with a radius (standard deviation, pixels) drawn uniformly from the range."""

    probability: Probability = Field(1.0, description="How often it is applied")
    radius: tuple[Radius, Radius] = Field((0.1, 2.0), description="Least and greatest standard deviation, in pixels")


class SolarizeSpec(SpecModel):
    """Invert every 8-bit level at or above the threshold."""

    probability: Probability = Field(0.0, description="How often it is applied")
    threshold: int = Field(128, ge=0, le=255, description="Lowest level that is inverted, of 0 to 255; Pillow's")


class ViewSpec(SpecModel):
    """One view pipeline, applied in the order of the fields."""

    crop_scale: PositiveRange = Field((0.08, 1.0), description="Area of the random crop, as a fraction of the image")
    crop_ratio: PositiveRange = Field((3 / 4, 4 / 3), description="Width / height of the random crop")
    flip: Probability = Field(0.5, description="Horizontal flip")
    jitter: JitterSpec = Field(default_factory=JitterSpec, description="Colour jitter")
    grayscale: Probability = Field(0.2, description="Grey levels in place of colours")
    channel_swap: Probability = Field(0.0, description="Random permutation of the colour channels")
    invert: Probability = Field(0.0, description="Negative of the image")
    blur: BlurSpec = Field(default_factory=BlurSpec, description="Gaussian blur")
    solarize: SolarizeSpec = Field(default_factory=SolarizeSpec, description="Solarisation")

    @model_validator(mode="after")
    def _ranges(self) -> ViewSpec:
        faults: dict[tuple[str, ...], str] = {}
        ranges: dict[tuple[str, ...], tuple[float, float]] = {
            ("crop_scale",): self.crop_scale,
            ("crop_ratio",): self.crop_ratio,
            ("blur", "radius"): self.blur.radius,
        }
        for place, (low, high) in ranges.items():
            if low > high:
                faults[place] = f"the lower end {low} is above the upper end {high}; swap them"
        if max(self.crop_scale) > 1:
            faults["crop_scale",] = f"a crop cannot cover {max(self.crop_scale)} of the image; use at most 1"
        refuse(faults)
        return self


_NO_BLUR = {"probability": 0.0}
_GREY_JITTER = {"saturation": 0.0, "hue": 0.0}
PRESETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "barlow_twins": (
        {"blur": {"probability": 1.0}, "solarize": {"probability": 0.0}},
        {"blur": {"probability": 0.1}, "solarize": {"probability": 0.2}},
    ),
    # 32 px images lose their content under the paper's blur; the CIFAR recipes of the field leave it out.
    "small_images": (
        {"crop_scale": (0.2, 1.0), "blur": _NO_BLUR, "solarize": {"probability": 0.0}},
        {"crop_scale": (0.2, 1.0), "blur": _NO_BLUR, "solarize": {"probability": 0.2}},
    ),
    # Images that are grey already, as RGB: the paper's pipelines without what does nothing to grey levels. No pixel
    # differs from the paper's, and Pillow is spared its most expensive operation, the hue.
    "grayscale": (
        {"jitter": _GREY_JITTER, "grayscale": 0.0},
        {"jitter": _GREY_JITTER, "grayscale": 0.0, "blur": {"probability": 0.1}, "solarize": {"probability": 0.2}},
    ),
    # Photographs of one's own at 224 px: the paper's pipelines with crops of at least a fifth of the image, as MoCo
    # (arXiv 1911.05722) and PCL (arXiv 2005.04966) take them in their code. Crops down to 8 % suit ImageNet, whose
    # object fills the picture; where it does not, two such crops have nothing in common.
    "own_images": (
        {"crop_scale": (0.2, 1.0)},
        {"crop_scale": (0.2, 1.0), "blur": {"probability": 0.1}, "solarize": {"probability": 0.2}},
    ),
}


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in changes.items():
        inner = out.get(key)
        out[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return out


class ViewsSpec(SpecModel):
    """Both view pipelines: a preset, with changes for both views, for view a, for view b, in that order."""

    preset: Literal["barlow_twins", "small_images", "grayscale", "own_images"] = Field(
        "barlow_twins",
        description="What `a` and `b` begin with: barlow_twins is the paper's, for 224 px; small_images for about "
        "32 px; grayscale for images without colour; own_images for photographs that no single object fills",
    )
    size: int = Field(224, ge=8, le=1024, description="Side of a view in pixels")
    engine: Literal["pillow", "batched"] = Field(
        "pillow",
        description="pillow: each view by Pillow, the reference's arithmetic. batched: crops on the CPU and all else "
        "for the whole batch on the device, from the same draws: less than half a level of 256 apart in the mean, and "
        "several times as many images a second from each core",
    )
    a: ViewSpec = Field(description="The pipeline of one view: what it has other than the preset")
    b: ViewSpec = Field(description="That of the other view; `both` changes both, before `a` and `b` do")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        preset = value.get("preset", "barlow_twins")
        if not isinstance(preset, str) or preset not in PRESETS:
            preset = "barlow_twins"  # the field's own check names the presets
        both = value.pop("both", {})
        if not isinstance(both, dict):
            refuse({("both",): "changes for both views are an object, for example {flip: 0.0}"})
        for view, base in zip("ab", PRESETS[preset], strict=True):
            given = value.get(view, {})
            if isinstance(given, dict):
                value[view] = _merged(_merged(base, both), given)
        return value
