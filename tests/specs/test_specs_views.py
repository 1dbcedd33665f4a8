"""Views: a preset, what both change of it, and what one of them changes of that."""

from __future__ import annotations

import json
from typing import Any

from barlow_lab.specs import PretrainSpec, parse_spec


def pretrain(**fields: Any) -> dict[str, Any]:
    return {"kind": "pretrain", "data": "digits", **fields}


def views_of(**views: Any) -> Any:
    spec = parse_spec(pretrain(views=views))
    assert isinstance(spec, PretrainSpec)
    return spec.views


def test_presets_are_merged_preset_then_both_then_one_view() -> None:
    default = views_of()
    assert (default.a.blur.probability, default.b.blur.probability) == (1.0, 0.1)
    assert (default.a.solarize.probability, default.b.solarize.probability) == (0.0, 0.2)
    assert default.a.crop_scale == (0.08, 1.0)

    small = views_of(preset="small_images")
    assert small.a.blur.probability == small.b.blur.probability == 0.0
    assert small.b.solarize.probability == 0.2
    assert small.a.crop_scale == small.b.crop_scale == (0.2, 1.0)

    grey = views_of(preset="grayscale")
    for view, paper in ((grey.a, default.a), (grey.b, default.b)):
        assert (view.jitter.saturation, view.jitter.hue, view.grayscale) == (0.0, 0.0, 0.0)
        assert (view.blur, view.solarize, view.crop_scale) == (paper.blur, paper.solarize, paper.crop_scale)

    own = views_of(preset="own_images")
    for view, paper in ((own.a, default.a), (own.b, default.b)):
        assert view == paper.model_copy(update={"crop_scale": (0.2, 1.0)})
    assert own.size == 224

    merged = views_of(
        preset="small_images",
        both={"crop_scale": [0.35, 1.0], "blur": {"probability": 0.5, "radius": [0.1, 1.0]}, "grayscale": 0.3},
        b={"blur": {"probability": 0.7}, "grayscale": 0.4},
    )
    assert merged.a.crop_scale == merged.b.crop_scale == (0.35, 1.0)
    assert (merged.a.blur.probability, merged.b.blur.probability) == (0.5, 0.7)
    assert merged.b.blur.radius == (0.1, 1.0), "a change in one view keeps the rest of both"
    assert (merged.a.grayscale, merged.b.grayscale) == (0.3, 0.4)
    assert merged.b.solarize.probability == 0.2, "what nobody changes is the preset's"


def test_merging_does_not_change_the_preset_or_the_users_value() -> None:
    value = pretrain(views={"both": {"blur": {"probability": 0.9}}, "a": {"flip": 0.0}}, optimizer={"momentum": 0.5})
    before = json.dumps(value)
    parse_spec(value)
    assert json.dumps(value) == before
    assert views_of().b.blur.probability == 0.1
