"""Texture families on squares of any side; at 32 px they are bit for bit what `textures` has always been."""

import numpy as np
import pytest

from trainer.data.generated.texture_families import FAMILIES, Draws, draws_for, levels, painted, plain
from trainer.data.generated.textures import open_textures
from trainer.data.keyed import Purpose, uniforms

FINGERPRINTS = {
    "train": "f0a056316ffe2cb5b72217ff05a61b11a0e4a0c0bb9b328b354f79f7e03985a4",
    "test": "55e65b830e574a92a94c55570ef78d52908c70c54d93314abf65e15666526db7",
}


def draws(side, index=0):
    return Draws(uniforms(Purpose.TEXTURE, 1, index, count=draws_for(side)), side)


@pytest.mark.parametrize("split", ["train", "test"])
def test_all_textures_are_those_of_the_results_there_are(split):
    """A change of these makes all earlier results incomparable: it must be meant."""
    assert open_textures(split).fingerprint == FINGERPRINTS[split]


@pytest.mark.parametrize("side", [20, 33, 64])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_drawn_at_any_side(name, side):
    pattern = FAMILIES[name](draws(side))
    assert pattern.shape == (side, side)
    assert np.isfinite(pattern).all()
    assert pattern.std() > 0.05
    image = levels(painted(FAMILIES[name], draws(side)))
    assert image.shape == (side, side, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("name", ["horizontal stripes", "dots", "coarse noise"])
def test_a_larger_square_shows_more_of_a_pattern_not_a_larger_one(name):
    """Structure has its size in pixels: the mean difference of neighbours hardly depends on the side."""

    def roughness(side):
        patterns = [FAMILIES[name](draws(side, index)) for index in range(60)]
        return np.mean([np.abs(np.diff(each, axis=0)).mean() / each.std() for each in patterns])

    assert roughness(64) == pytest.approx(roughness(28), rel=0.25)


@pytest.mark.parametrize("side", [24, 32, 64])
def test_rings_are_around_a_point_near_the_middle_of_any_side(side):
    """Among all points of the square the pattern depends on the distance to one of the middle alone."""
    rows, columns = np.mgrid[:side, :side]

    def spread(pattern, y, x):
        """Variance that is left when the pattern is averaged over circles around a point."""
        circles = np.hypot(rows - y, columns - x).round().astype(int).ravel()
        count = np.bincount(circles)
        means = np.bincount(circles, weights=pattern.ravel()) / count.clip(1)
        return ((pattern.ravel() - means[circles]) ** 2).mean()

    for index in range(3):
        pattern = FAMILIES["rings"](draws(side, index))
        points = [(y, x) for y in range(side) for x in range(side)]
        y, x = min(points, key=lambda point: spread(pattern, *point))
        assert max(abs(y - side / 2), abs(x - side / 2)) <= 6 / 32 * side + 1
        assert spread(pattern, y, x) < 0.5 * pattern.var()


def test_a_plain_square_has_colour_shading_and_noise_alone():
    flat = painted(plain, draws(40))
    smooth = flat.reshape(8, 5, 8, 5, 3).mean(axis=(1, 3))
    textured = painted(FAMILIES["checks"], draws(40)).reshape(8, 5, 8, 5, 3).mean(axis=(1, 3))
    assert flat.std(axis=(0, 1)).max() < 0.12
    # What is left between neighbouring blocks is a slope: its second difference is noise.
    assert np.abs(np.diff(smooth, n=2, axis=0)).mean() < 0.03
    assert np.abs(np.diff(textured, n=2, axis=0)).mean() > 0.03
