"""Files that end in zeros: an unfinished one is refused or told, and padding behind an image harms nothing."""

import io

import numpy as np
import pytest
from PIL import Image

from trainer.data.decoding.decoder import decode
from trainer.data.decoding.reading import Losses, Reading
from trainer.data.errors import UnreadableImage

WAVES = np.add.outer(np.sin(np.arange(120) / 7), np.cos(np.arange(160) / 9))
PHOTO = (140 + 50 * WAVES[..., None] + np.random.default_rng(0).normal(0, 8, (120, 160, 3))).clip(1, 255)
PHOTO = PHOTO.astype(np.uint8)

REFUSED = {
    "jpeg": ("JPEG", {"quality": 95}),
    "progressive": ("JPEG", {"quality": 90, "progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 80}),
}


def encoded(kind, image=PHOTO, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def cut(content, part):
    kept = int(len(content) * part)
    return content[:kept] + b"\0" * (len(content) - kept)


@pytest.mark.parametrize("part", [0.4, 0.7])
@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_whose_end_is_zeros_is_refused_with_the_cause(kind, part):
    name, options = REFUSED[kind]
    content = cut(encoded(name, **options), part)
    with pytest.raises(UnreadableImage) as refused:
        decode(content, "a")
    zeros = len(content) - len(content.rstrip(b"\0"))
    assert f"the last {zeros:,} of its {len(content):,} bytes are zeros" in refused.value.cause
    assert refused.value.cause.endswith("an unfinished download or copy; fetch the file again")


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_the_last_three_percent_are_enough(name):
    with pytest.raises(UnreadableImage, match="are zeros"):
        decode(cut(encoded(name), 0.97), "a")


@pytest.mark.parametrize("kind", REFUSED)
def test_zeros_behind_the_end_of_an_image_are_padding(kind):
    name, options = REFUSED[kind]
    content = encoded(name, **options)
    for more in (b"\0" * 9000, b"a film behind it" + b"\0" * 9000):
        assert np.array_equal(decode(content + more, "a"), decode(content, "a"))


@pytest.mark.parametrize("colour", [0, 128, 255])
@pytest.mark.parametrize("kind", REFUSED)
def test_images_of_one_colour_are_whole(kind, colour):
    name, options = REFUSED[kind]
    plain = np.full((400, 900, 3), colour, np.uint8)
    assert decode(encoded(name, plain, **options), "a").shape == plain.shape


def said(content):
    told = []
    losses = Losses()
    Reading(whose="x", count=1, warn=told.append).take(0, "a", decode(content, "a", losses=losses), losses)
    return [each for each in told if "zeros" in each]


@pytest.mark.parametrize("name", ["BMP", "TIFF", "PPM"])
def test_pixels_as_they_are_that_turn_black_within_a_row_are_told_and_read(name):
    (told,) = said(cut(encoded(name), 0.503))
    assert "1 of 1 images read end in zeros and turn black within a row, first a: the last " in told


@pytest.mark.parametrize("name", ["BMP", "TIFF", "PPM"])
def test_bars_and_dark_grounds_are_not_told(name):
    bars, disc = PHOTO.copy(), PHOTO.copy()
    bars[:20] = bars[100:] = 0
    rows, columns = np.mgrid[:120, :160]
    disc[(rows - 50) ** 2 + (columns - 80) ** 2 > 40**2] = 0
    for image in (bars, disc, PHOTO, np.zeros_like(PHOTO)):
        assert said(encoded(name, image)) == []
