"""Which value of an image file is white: by its type, by what the file says, or by its own values."""

import io
import struct
import zlib

import numpy as np
import pytest
from odd_tiffs import tiff
from PIL import Image

from trainer.data.decoding.decoder import decode, decode_by_pillow
from trainer.data.decoding.jpeg import ORIENTATION
from trainer.data.decoding.reading import Losses
from trainer.data.errors import UnreadableImage

RNG = np.random.default_rng(0)
RAMP = np.linspace(0, 4095, 60).round().astype(np.uint16).reshape(6, 10)
"""Of 12 bits, from black to white."""


def grey(file, value_range="dtype", losses=None):
    """The levels of an image whose bands are one another's copies."""
    found = decode(file, "x", value_range, losses)
    np.testing.assert_array_equal(found[..., 0], found[..., 1])
    np.testing.assert_array_equal(found[..., 0], found[..., 2])
    return found[..., 0]


def encoded(image, kind, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def test_twelve_bits_that_the_file_tells():
    file, losses = tiff(RAMP, 12), Losses()
    np.testing.assert_array_equal(grey(file, "dtype", losses), RAMP >> 8)
    assert (losses.bits, grey(file).max()) == (12, 15)
    losses = Losses()
    np.testing.assert_array_equal(grey(file, "file", losses), np.round(RAMP * (255 / 4095)).astype(np.uint8))
    assert losses == Losses(sixteen=True)


@pytest.mark.parametrize("tags", [
    {280: (3, [0]), 281: (3, [4095])}, {281: (3, [4095])}, {340: (11, [0.0]), 341: (11, [4095.0])},
    {340: (11, [0.0]), 341: (11, [4095.0]), 281: (3, [9])}, {341: (3, [4095])},
])  # fmt: skip
def test_a_range_that_the_file_tells(tags):
    file = tiff(RAMP, 16, tags=tags)
    np.testing.assert_array_equal(grey(file), RAMP >> 8)
    np.testing.assert_array_equal(grey(file, "file"), np.round(RAMP * (255 / 4095)).astype(np.uint8))


@pytest.mark.parametrize("tags", [{}, {281: (3, [0])}, {280: (3, [9]), 281: (3, [9])}, {341: (11, [float("nan")])}])
def test_a_file_that_tells_nothing_is_read_by_its_type(tags):
    levels = RNG.integers(0, 2**16, (5, 7)).astype(np.uint16)
    file = tiff(levels, 16, tags=tags)
    np.testing.assert_array_equal(grey(file, "file"), levels >> 8)
    png = encoded(levels, "PNG")
    np.testing.assert_array_equal(grey(png, "file"), levels >> 8)
    photo = encoded(RNG.integers(0, 256, (8, 8, 3), np.uint8), "JPEG")
    np.testing.assert_array_equal(decode(photo, "x", "file"), decode(photo, "x"))


def test_the_largest_value_of_netpbm_holds_in_any_case():
    file = b"P5 10 6 4095\n" + RAMP.astype(">u2").tobytes()
    for value_range in ("dtype", "file"):
        assert np.abs(grey(file, value_range).astype(int) - RAMP * (255 / 4095)).max() <= 1


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_percentile_spreads_a_narrow_range_and_a_hot_pixel_does_not_matter(kind):
    levels = RNG.integers(1000, 2001, (50, 50)).astype(np.uint16)
    levels.flat[:2] = 65535, 0
    found = grey(encoded(levels, kind), "percentile")
    assert (found.flat[0], found.flat[1]) == (255, 0)
    inside = levels.flat[2:].astype(float)
    assert np.abs(found.flat[2:] - (inside - 1000) / 1000 * 255).max() < 2
    assert grey(encoded(levels, kind)).flat[2:].max() == 2000 >> 8


def test_percentile_of_eight_bits_keeps_the_hue_and_reads_plain_jpegs_alike():
    narrow = RNG.integers(40, 61, (40, 40, 3), np.uint8)
    narrow[..., 2] = 40
    found = decode(encoded(narrow, "PNG"), "x", "percentile")
    assert (found.min(), found.max()) == (0, 255)
    assert found[..., 2].max() == 0, "bands are not spread each by itself"
    photo = encoded(np.kron(narrow, np.ones((4, 4, 1), np.uint8)), "JPEG", quality=95)
    plain = decode(photo, "x", "percentile")
    np.testing.assert_array_equal(plain, decode(encoded(decode(photo, "x"), "PNG"), "x", "percentile"))
    assert plain.max() == 255


@pytest.mark.parametrize("levels", [np.full((6, 6), 700, np.uint16), np.full((6, 6), 0, np.uint16)])
def test_an_image_of_one_value_has_nothing_to_spread(levels):
    np.testing.assert_array_equal(grey(encoded(levels, "TIFF"), "percentile"), levels >> 8)
    assert (decode(encoded(np.full((6, 6, 3), 70, np.uint8), "PNG"), "x", "percentile") == 70).all()


def test_fewer_values_than_those_outside_are_what_there_is_to_see():
    levels = np.full((100, 100), 500, np.uint16)
    levels[0, 0] = 900
    found = grey(encoded(levels, "TIFF"), "percentile")
    assert (found[0, 0], found[0, 1]) == (255, 0)


@pytest.mark.parametrize(("bits", "sample_format", "values"), [
    (16, 2, RNG.integers(-1000, 3000, (20, 20))), (32, 2, RNG.integers(-1000, 3000, (20, 20))),
    (32, 1, RNG.integers(0, 3000, (20, 20))), (32, 3, RNG.normal(size=(20, 20))),
    (32, 3, np.where(np.eye(20) > 0, np.nan, RNG.normal(size=(20, 20)))),
], ids=["signed 16", "signed 32", "32", "float", "with NaN"])  # fmt: skip
def test_values_without_a_white_are_refused_with_the_remedy_and_read_by_percentile(bits, sample_format, values):
    file = tiff(values, bits, sample_format=sample_format)
    for value_range in ("dtype", "file"):
        with pytest.raises(UnreadableImage, match=r"no defined white; .*value_range: percentile"):
            decode(file, "x", value_range)
    found, order = grey(file, "percentile"), np.argsort(values, axis=None)
    assert (found.min(), found.max()) == (0, 255)
    ranked = found.flat[order[np.isfinite(values.flat[order])]]
    assert (np.diff(ranked.astype(int)) >= 0).all()
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    kind = 11 if sample_format != 1 else 4
    told = grey(tiff(values, bits, sample_format=sample_format, tags={340: (kind, [low]), 341: (kind, [high])}), "file")
    np.testing.assert_array_equal(told, found)


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_bands_one_after_the_other_are_read_rightly_or_refused(bits, bands):
    """Pillow takes the bytes of 16 bits for levels, where they are not compressed."""
    levels = RNG.integers(0, 2**bits, (6, 10, bands)).astype(np.uint16)
    extra = [2] if bands == 4 else None
    together = tiff(levels, bits, extra=extra)
    compressed = tiff(levels, bits, extra=extra, separate=True, deflate=True)
    plain = tiff(levels, bits, extra=extra, separate=True)
    for value_range in ("dtype", "file", "percentile"):
        right = decode(together, "x", value_range)
        np.testing.assert_array_equal(decode(compressed, "x", value_range), right)
        if bits == 8:
            np.testing.assert_array_equal(decode(plain, "x", value_range), right)
        else:
            with pytest.raises(UnreadableImage, match="store the bands of each pixel together"):
                decode(plain, "x", value_range)


@pytest.mark.parametrize("value_range", ["dtype", "file", "percentile"])
def test_signed_values_of_eight_bits_are_refused(value_range):
    with pytest.raises(UnreadableImage, match=r"signed values of 8 bits .* store them as unsigned"):
        decode(tiff(RNG.integers(-100, 100, (20, 20)), 8, sample_format=2), "x", value_range)


@pytest.mark.parametrize("times", [256, 257])
def test_a_tiff_s_palette_is_of_sixteen_bits_and_one_of_eight_is_refused(times):
    colours, places = RNG.integers(1, 256, (256, 3)), RNG.integers(0, 256, (20, 20))

    def file(times):
        return tiff(places, 8, photometric=3, tags={320: (3, (colours.T.reshape(-1) * times).tolist())})

    np.testing.assert_array_equal(decode(file(times), "x"), colours[places])
    for value_range in ("dtype", "file", "percentile"):
        with pytest.raises(UnreadableImage, match=r"palette has values of 8 bits .* store it as red, green and blue"):
            decode(file(1), "x", value_range)


def png(levels, bits, transparent):
    """A PNG by hand, of levels (H, W) or (H, W, 3), of which one is transparent."""
    height, width = levels.shape[:2]
    lines = ["".join(f"{int(value):0{bits}b}" for value in row) for row in levels.reshape(height, -1)]
    padded = [line + "0" * (-len(line) % 8) for line in lines]
    data = b"".join(b"\0" + int(line, 2).to_bytes(len(line) // 8, "big") for line in padded)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2 if levels.ndim == 3 else 0, 0, 0, 0)),
        (b"tRNS", np.array(transparent, ">u2").tobytes()),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    ]
    chunks = (struct.pack(">I", len(of)) + kind + of + struct.pack(">I", zlib.crc32(kind + of)) for kind, of in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("value_range", ["dtype", "percentile"])
@pytest.mark.parametrize(("bits", "bands"), [(1, 1), (2, 1), (4, 1), (8, 1), (8, 3), (16, 1), (16, 3)])
def test_a_transparent_level_of_a_png_is_told_where_pixels_have_it_and_changes_none(bits, bands, value_range):
    most = 2**bits - 1
    levels = RNG.integers(0, max(1, most // 2), (12, 12, bands) if bands > 1 else (12, 12))
    levels[:3] = most
    for transparent, told in ((most, True), (3 * most // 4, most == 1)):
        losses = Losses()
        found = decode(png(levels, bits, [transparent] * bands), "x", value_range, losses)
        assert (losses.dropped is not None) is told
        np.testing.assert_array_equal(found, decode(png(levels, bits, [transparent] * bands), "x", value_range))
        if value_range == "dtype":
            right = levels >> 8 if bits == 16 else levels * 255 // most
            np.testing.assert_array_equal(found, np.broadcast_to(right.reshape(12, 12, -1), found.shape))


def test_white_that_is_zero_is_told_by_default_and_heeded_otherwise():
    file, losses = tiff(RAMP, 16, photometric=0), Losses()
    np.testing.assert_array_equal(grey(file, "dtype", losses), RAMP >> 8)
    assert losses == Losses(negative=True, sixteen=True, merged=True)
    np.testing.assert_array_equal(grey(file, "file"), 255 - (RAMP >> 8))
    told = {281: (3, [4095])}
    np.testing.assert_array_equal(
        grey(tiff(RAMP, 16, photometric=0, tags=told), "file"), 255 - grey(tiff(RAMP, 16, tags=told), "file")
    )
    np.testing.assert_array_equal(grey(file, "percentile"), 255 - grey(tiff(RAMP, 16), "percentile"))
    losses = Losses()
    found = decode(tiff(np.array([[0, 255]], np.uint8), 8, photometric=0), "x", losses=losses)
    assert found.tolist() == [[[255] * 3, [0] * 3]]
    assert losses == Losses()


BANDS = RNG.integers(0, 256, (5, 8, 6)).astype(np.uint8)


@pytest.mark.parametrize(("file", "said"), [
    (tiff(BANDS[..., :4], 8, extra=[0]), "of its 4 bands 3 are read"),
    (tiff(BANDS[..., :4].astype(np.uint16) * 257, 16, extra=[0]), "of its 4 bands 3 are read"),
    (tiff(BANDS[..., :5], 8, extra=[0, 0]), "of its 5 bands 3 are read"),
    (tiff(BANDS[..., :2], 8, extra=[0]), "of its 2 bands 1 are read"),
    (tiff(BANDS[..., :4], 8), "its last band, of transparency or something else, has levels from "),
    (encoded(BANDS[..., :4], "PNG"), "its last band, of transparency or something else, has levels from "),
    (encoded(BANDS[..., :2], "PNG"), "its last band, of transparency or something else, has levels from "),
    (encoded(BANDS[..., 0], "PNG", transparency=int(BANDS[0, 0, 0])), "its last band, of transparency or something "),
    (encoded(BANDS[..., :3], "PNG", transparency=tuple(BANDS[0, 0, :3].tolist())), "its last band, of transparency "),
])  # fmt: skip
def test_a_band_that_is_dropped_is_told(file, said):
    losses = Losses()
    found = decode(file, "x", losses=losses)
    assert losses.dropped is not None
    assert losses.dropped.startswith(said)
    if said.startswith("of its") and " 3 " in said:
        np.testing.assert_array_equal(found, BANDS[..., :3])


@pytest.mark.parametrize("photometric", [None, 1])
def test_values_of_32_bits_without_a_sign_go_beyond_those_with_one(photometric):
    """Pillow's integers have a sign: the brightest half of the values were darker than the darkest."""
    values = np.linspace(0, 2**32 - 1, 400, dtype=np.uint32).reshape(20, 20)
    file = tiff(values, 32, photometric=photometric)
    assert (np.diff(grey(file, "percentile").ravel().astype(int)) >= 0).all()
    told = tiff(values, 32, photometric=photometric, tags={341: (4, [2**32 - 1])})
    np.testing.assert_array_equal(grey(told, "file"), (values / (2**32 - 1) * 255 + 0.5).astype(np.uint8))


def animated(form, count):
    first, *others = [Image.new("RGB", (8, 8), (90 + 9 * number, 0, 0)) for number in range(count)]
    file = io.BytesIO()
    first.save(file, form, save_all=True, append_images=others, lossless=True)
    return file.getvalue()


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_told_and_its_first_frame_is_read(form):
    alone = decode(animated(form, 1), "x", losses=(losses := Losses()))
    assert losses == Losses()
    found = decode(animated(form, 3), "x", losses=(losses := Losses()))
    assert losses == Losses(animation=True)
    np.testing.assert_array_equal(found, alone)
    np.testing.assert_array_equal(found, decode(animated(form, 3), "x"))


@pytest.mark.parametrize("orientation", [1, 6])
def test_what_a_jpeg_has_behind_its_picture_is_no_frame(orientation):
    photo, file, exif = Image.new("RGB", (8, 4), (90, 0, 0)), io.BytesIO(), Image.Exif()
    exif[ORIENTATION] = orientation
    photo.save(file, "MPO", save_all=True, append_images=[Image.new("L", (4, 2))], exif=exif)
    with Image.open(file) as image:
        assert (image.format, image.is_animated) == ("MPO", True)
    found = decode_by_pillow(file.getvalue(), "x", losses=(losses := Losses()))
    assert (losses, found.shape) == (Losses(orientation=orientation), (4, 8, 3) if orientation == 1 else (8, 4, 3))


def bmp(alpha):
    """Of 32 bits, of which the header says that the last 8 are transparency (BITMAPV4HEADER)."""
    pixels = RNG.integers(0, 256, (*alpha.shape, 4)).astype(np.uint8)
    pixels[..., 3] = alpha
    high, wide = alpha.shape
    header = struct.pack("<IiiHHIIiiII", 108, wide, high, 1, 32, 3, pixels.nbytes, 2835, 2835, 0, 0)
    header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    return b"BM" + struct.pack("<IHHI", 14 + 108 + pixels.nbytes, 0, 0, 14 + 108) + header + pixels.tobytes()


@pytest.mark.parametrize(
    ("first", "others", "told"), [(0, 0, None), (255, 255, None), (0, 255, "0 to 255"), (9, 9, "9 to 9")]
)
def test_transparency_that_says_nothing_is_not_told(first, others, told):
    alpha = np.full((4, 4), others)
    alpha[0, 0] = first
    colours = RNG.integers(0, 256, (4, 4, 3), np.uint8)
    png = encoded(np.dstack([colours, alpha.astype(np.uint8)]), "PNG")
    for file in (bmp(alpha), png):
        decode(file, "x", losses=(losses := Losses()))
        assert losses.dropped == (
            told and f"its last band, of transparency or something else, has levels from {told} of 255"
        )


@pytest.mark.parametrize(("file", "cause"), [
    (tiff(RAMP, 16, tags={259: (3, [5])}), "decoder error -2"),
    (tiff(RAMP, 16)[:-40], "truncated"),
    (tiff(np.zeros((6, 6, 3), np.uint8), 8, photometric=6, separate=True), "unknown raw mode"),
])  # fmt: skip
def test_pixels_of_a_tiff_that_cannot_be_decoded_are_told_in_our_words(file, cause):
    told = (
        rf"the pixels of a TIFF with \d bands? of \d+ bits .* cannot be decoded \(.*{cause}.*\).* Write it again, unc"
    )
    with pytest.raises(UnreadableImage, match=told):
        decode(file, "x")


def test_what_says_nothing_is_not_told():
    opaque = BANDS[..., :4].copy()
    opaque[..., 3] = 255
    palette = Image.fromarray(BANDS[..., :3]).quantize(8)
    file = io.BytesIO()
    palette.save(file, "PNG")
    for each in (encoded(opaque, "PNG"), tiff(opaque, 8, extra=[2]), encoded(BANDS[..., :3], "TIFF"),
                 encoded(BANDS[..., 0], "PNG"), file.getvalue()):  # fmt: skip
        losses = Losses()
        decode(each, "x", losses=losses)
        assert losses == Losses()
    palette.save(file := io.BytesIO(), "PNG", transparency=3)
    decode(file.getvalue(), "x", losses=(losses := Losses()))
    assert losses.dropped is not None


def of_24_bits():
    """A BigTIFF that says so."""
    written = io.BytesIO()
    Image.new("L", (5, 4)).save(written, "TIFF", big_tiff=True)
    file = written.getvalue()
    entry = struct.pack("<HHQ", 258, 3, 1)
    at = file.index(entry) + len(entry)
    return file[:at] + struct.pack("<H", 24) + file[at + 2 :]


@pytest.mark.parametrize(("file", "said"), [
    (of_24_bits(), "a TIFF with 1 band of 24 bits"),
    (tiff(np.zeros((5, 8, 3), np.uint16), 12), "a TIFF with 3 bands of 12 bits (compression 1, photometric 2)"),
    (tiff(BANDS[..., :5], 8, extra=[0] * 4, photometric=1), "a TIFF with 5 bands of 8 bits"),
])  # fmt: skip
def test_a_tiff_that_cannot_be_read_is_called_what_it_is(file, said):
    with pytest.raises(UnreadableImage) as caught:
        decode(file, "x")
    assert said in caught.value.cause
    assert "write it with 1 or 3 bands" in caught.value.cause
    with pytest.raises(UnreadableImage, match="it is no JPEG"):
        decode(b"II*\0" + struct.pack("<I", 1000), "x")
