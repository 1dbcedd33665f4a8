"""Image files of every odd kind: pixels as they were meant, or an error that names the file and the cause."""

import contextlib
import io
import re
import struct
import sys
import threading
import zlib
from importlib.metadata import version

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainer.data.decoding import decoder, jpeg
from trainer.data.decoding.decoder import decode, decode_by_pillow
from trainer.data.decoding.jpeg import JpegDecoder, decode_plain_jpeg, is_plain_jpeg, jpeg_decoder
from trainer.data.errors import DataError, UnreadableImage

RNG = np.random.default_rng(0)
# Smooth in blocks, with a mark in one corner: JPEG keeps it recognisable, and no turn of it looks the same.
PHOTO = np.kron(RNG.integers(0, 256, (6, 9, 3), np.uint8), np.ones((8, 8, 1), np.uint8))[:45, :67]
PHOTO[:8, :8] = 255


def encoded(image, kind="JPEG", **options):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


PLAIN = {
    "baseline": encoded(PHOTO),
    "4:4:4": encoded(PHOTO, quality=95, subsampling=0),
    "4:2:2": encoded(PHOTO, subsampling=1),
    "progressive": encoded(PHOTO, progressive=True),
    "restart markers": encoded(PHOTO, restart_marker_rows=1),
    "grey": encoded(PHOTO[..., 0]),
    "upright Exif": encoded(PHOTO, exif=exif(1)),
    "Exif without orientation": encoded(PHOTO, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    "RGB": encoded(PHOTO, keep_rgb=True),
    "one pixel": encoded(PHOTO[:1, :1]),
    "a line": encoded(PHOTO[:1]),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLAIN)
def test_both_ways_agree_to_the_bit_on_plain_jpegs(kind):
    fast = decode_plain_jpeg(PLAIN[kind])
    assert fast is not None
    assert fast.flags.c_contiguous
    np.testing.assert_array_equal(fast, decode_by_pillow(PLAIN[kind], "x"))
    np.testing.assert_array_equal(fast, decode(PLAIN[kind], "x"))


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["baseline", "progressive", "grey", "upright Exif"]),
    place=st.floats(0, 1, exclude_max=True),
    what=st.sampled_from(["cut", "flip", "insert", "remove"]),
    byte=st.integers(0, 255),
)
def test_both_ways_agree_on_damaged_jpegs(kind, place, what, byte):
    """Whatever the fast way takes Pillow takes, too, with the same pixels: so its word is Pillow's."""
    whole = PLAIN[kind]
    at = int(place * len(whole))
    rest = {
        "cut": b"",
        "flip": bytes([byte]) + whole[at + 1 :],
        "insert": bytes([byte]) + whole[at:],
        "remove": whole[at + 1 :],
    }
    damaged = whole[:at] + rest[what]
    fast = decode_plain_jpeg(damaged)
    if fast is not None:
        np.testing.assert_array_equal(fast, decode_by_pillow(damaged, "x"))


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "restart markers"])
def test_a_jpeg_that_ends_too_early_is_refused_wherever_it_is_cut(kind):
    """Where the end marker alone is missing, and so no pixel, Pillow may let it pass."""
    whole = PLAIN[kind]
    for length in [*range(1, len(whole), 7), len(whole) - 3]:
        with pytest.raises(UnreadableImage, match=r"n01/a\.jpg cannot be read: "):
            decode(whole[: min(length, len(whole) - 3)], "n01/a.jpg")
    for length in (len(whole) - 2, len(whole) - 1):
        with contextlib.suppress(UnreadableImage):
            np.testing.assert_array_equal(decode(whole[:length], "x"), decode(whole, "x"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_photograph_taken_sideways_stands_upright(kind, orientation):
    """By the definition in the Exif standard: where row 0 and column 0 of the file belong in the picture."""
    lying = {
        1: PHOTO, 2: PHOTO[:, ::-1], 3: PHOTO[::-1, ::-1], 4: PHOTO[::-1], 5: PHOTO.swapaxes(0, 1),
        6: np.rot90(PHOTO), 7: np.rot90(PHOTO, 2).swapaxes(0, 1), 8: np.rot90(PHOTO, -1),
    }[orientation]  # fmt: skip
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    file = encoded(np.ascontiguousarray(lying), kind, exif=exif(orientation), **options)
    found = decode(file, "x")
    assert found.shape == PHOTO.shape
    assert np.abs(found.astype(int) - PHOTO).mean() < (4 if kind == "JPEG" else 0.01)
    assert is_plain_jpeg(file) == (kind == "JPEG" and orientation == 1)


def test_an_orientation_in_xmp_is_heard_and_a_damaged_exif_block_says_nothing():
    said = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    assert decode(encoded(PHOTO, xmp=said), "x").shape == (67, 45, 3)
    for damaged in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0nonsense"):
        assert decode(encoded(PHOTO, exif=damaged), "x").shape == PHOTO.shape


def test_cmyk_is_converted_and_adobe_s_inverted_files_are_not_negatives():
    inks = Image.fromarray(PHOTO).convert("CMYK")
    assert b"Adobe" in (file := encoded(inks, quality=95, subsampling=0))
    assert not is_plain_jpeg(file)
    assert np.abs(decode(file, "x").astype(int) - PHOTO).mean() < 4
    np.testing.assert_array_equal(decode(encoded(inks, "TIFF"), "x"), np.asarray(inks.convert("RGB")))


def png_of_16_bits(rows):
    """A PNG by hand, for Pillow writes none in colour: rows (H, W, channels) uint16."""
    height, width, channels = rows.shape

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_scaled_in_grey_as_in_colour(channels):
    levels = RNG.integers(0, 2**16, (5, 7, channels)).astype(np.uint16)
    high = (levels >> 8).astype(np.uint8)
    expected = np.repeat(high[..., :1], 3, axis=2) if channels < 3 else high[..., :3]
    np.testing.assert_array_equal(decode(png_of_16_bits(levels), "x"), expected)


def test_sixteen_bits_in_other_formats():
    levels = RNG.integers(0, 2**16, (5, 7)).astype(np.uint16)
    expected = np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode(encoded(levels, "TIFF"), "x"), expected)
    np.testing.assert_array_equal(decode(b"P5 7 5 65535\n" + levels.astype(">u2").tobytes(), "x"), expected)


def test_palettes_and_alpha():
    colours = Image.fromarray(PHOTO).quantize(16)
    expected = np.asarray(colours.convert("RGB"))
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        np.testing.assert_array_equal(decode(encoded(colours, kind), "x"), expected)
    for transparency in (3, bytes(range(0, 160, 10))):
        np.testing.assert_array_equal(decode(encoded(colours, "PNG", transparency=transparency), "x"), expected)
    alpha = np.dstack([PHOTO, PHOTO[..., 1]])
    np.testing.assert_array_equal(decode(encoded(alpha, "PNG"), "x"), PHOTO)
    np.testing.assert_array_equal(decode(encoded(alpha, "TIFF"), "x"), PHOTO)
    grey = Image.fromarray(PHOTO).convert("LA")
    np.testing.assert_array_equal(decode(encoded(grey, "PNG"), "x"), np.asarray(grey.convert("RGB")))
    lines = Image.fromarray(PHOTO).convert("1")
    np.testing.assert_array_equal(decode(encoded(lines, "PNG"), "x"), np.asarray(lines.convert("RGB")))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_one(kind):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    file = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(file)) as opened:
        assert opened.n_frames == 3
    np.testing.assert_array_equal(decode(file, "x"), np.full((4, 6, 3), [255, 0, 0], np.uint8))


def test_an_image_of_one_pixel():
    for kind in ("PNG", "GIF", "BMP", "PPM", "TIFF"):
        assert decode(encoded(PHOTO[:1, :1], kind), "x").tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize(("file", "cause"), [
    (b"", "the file is empty"),
    (b"<html>not found</html>", "it is no JPEG, PNG.* file, but a web page, perhaps a server's error: fetch"),
    (b"\0\0\0\x18ftypheic" + bytes(200), "it is no JPEG, .*, but HEIC, as phones save photographs: convert it to JPEG"),
    (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(99), "but AVIF: convert it to JPEG or PNG"),
    (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + bytes(99), "but a film, or a raw photograph"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "but a pointer of git-lfs: .* by git lfs pull"),
    (b"/annex/objects/SHA256E-s1--0.jpg\n", "but a pointer of git-annex"),
    (bytes(99), "but zeros alone"),
    (b"\xff\xd8\xff", "it is no JPEG, PNG"),
    (encoded(PHOTO, "PNG")[:-200], "truncated"),
    (encoded(PHOTO, "GIF")[:300], "truncated"),
    (encoded(PHOTO, "WEBP")[:100], "."),
    (encoded(PHOTO, "BMP")[:1000], "truncated"),
    (encoded(PHOTO, "TIFF")[:1000], "."),
    (encoded(PHOTO[..., 0].astype(np.float32), "TIFF"), "no defined white"),
    (encoded(PHOTO[..., 0].astype(np.int32), "TIFF"), "no defined white"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is no JPEG, PNG"),
])  # fmt: skip
def test_what_cannot_be_read_is_named_with_its_cause(file, cause):
    with pytest.raises(UnreadableImage, match=f"n01/a cannot be read: .*{cause}") as caught:
        decode(file, "n01/a")
    assert isinstance(caught.value, DataError)
    assert caught.value.name == "n01/a"
    assert "0x" not in caught.value.cause  # no address of an object: the same words each time


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_whatever_the_damage_it_is_an_image_or_an_unreadable_one(kind, changes):
    damaged = bytearray(encoded(PHOTO[:9, :9], kind))
    for place, byte in changes:
        damaged[int(place * len(damaged))] = byte
    try:
        found = decode(bytes(damaged), "x")
    except UnreadableImage:
        return
    assert found.dtype == np.uint8
    assert found.ndim == 3
    assert found.shape[2] == 3


def test_a_photograph_above_a_hundred_megapixels_is_reduced_above_the_limit_refused(monkeypatch):
    """By smaller limits; 100 megapixels are far within the real ones."""
    assert decoder.MAX_PIXELS > 200_000_000
    monkeypatch.setattr(decoder, "LARGE_PIXELS", 1000)
    monkeypatch.setattr(jpeg, "LARGE_PIXELS", 1000)
    monkeypatch.setattr(decoder, "MAX_PIXELS", 4000)
    assert PHOTO[:, :, 0].size == 3015
    for kind in ("PNG", "JPEG"):
        whole = encoded(PHOTO, kind)
        expected = np.asarray(Image.open(io.BytesIO(whole)).reduce(2))
        np.testing.assert_array_equal(decode(whole, "x"), expected)
        turned = encoded(PHOTO, kind, exif=exif(6))
        assert decode(turned, "x").shape == (34, 23, 3)
    monkeypatch.setattr(decoder, "MAX_PIXELS", 3014)
    with pytest.raises(UnreadableImage, match="3,015 pixels, and the limit is 3,014"):
        decode(PLAIN["baseline"], "x")


@pytest.mark.parametrize(
    "file", [PLAIN["baseline"], encoded(PHOTO[:, :1].repeat(2, 0), "PNG"), encoded(PHOTO[:1], "PNG")]
)
def test_large_images_are_decoded_one_at_a_time(monkeypatch, file):
    """And those whose rows or columns are many, which cost more than their pixels."""
    monkeypatch.setattr(decoder, "LARGE_PIXELS", 1000)
    monkeypatch.setattr(jpeg, "LARGE_PIXELS", 1000)
    at_once, most, lock, alone = 0, 0, threading.Lock(), []
    upright = decoder._upright_rgb

    def counted(*given, **more):
        nonlocal at_once, most
        alone.append(decoder._one_large.locked())
        with lock:
            at_once += 1
            most = max(most, at_once)
        found = upright(*given, **more)
        with lock:
            at_once -= 1
        return found

    monkeypatch.setattr(decoder, "_upright_rgb", counted)
    threads = [threading.Thread(target=decode, args=(file, "x")) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, alone) == (1, [True] * 16)


@pytest.mark.parametrize(("size", "said"), [
    ((60_000, 60_000), "3,600,000,000 pixels, and the limit is"),
    ((1, 2**25), "33,554,432 pixels (536,870,912 where a side counts 16 at least), and the limit is"),
    ((2**25, 1), "33,554,432 pixels (536,870,912 where a side counts 16 at least), and the limit is"),
])  # fmt: skip
def test_a_header_that_promises_too_many_pixels_or_rows_costs_nothing(size, said):
    file = bytearray(encoded(PHOTO, "PNG"))
    file[16:24] = struct.pack(">II", *size)
    file[29:33] = struct.pack(">I", zlib.crc32(file[12:29]))
    with pytest.raises(UnreadableImage, match=re.escape(said)):
        decode(bytes(file), "x")


def test_the_fast_decoder_is_torchcodec_s_and_without_it_pillow_gives_the_same(monkeypatch):
    expected = decode(PLAIN["baseline"], "x")
    assert jpeg_decoder().name == f"torchcodec {version('torchcodec')}"
    assert jpeg_decoder().lost is None
    monkeypatch.setattr(jpeg, "jpeg_decoder", lambda: JpegDecoder("pillow", None, "not there"))
    assert decode_plain_jpeg(PLAIN["baseline"]) is None
    np.testing.assert_array_equal(decode(PLAIN["baseline"], "x"), expected)


def test_a_fast_decoder_that_is_missing_or_has_other_pixels_is_not_taken(monkeypatch):
    by_pillow = f"pillow {version('pillow')}"
    monkeypatch.setattr("torchcodec.decoders.decode_jpeg", lambda encoded: torch.zeros(3, 37, 53, dtype=torch.uint8))
    other = jpeg_decoder.__wrapped__()
    assert (other.name, other.decode, other.lost) == (
        by_pillow,
        None,
        "torchcodec decodes to other pixels than Pillow does",
    )
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    gone = jpeg_decoder.__wrapped__()
    assert (gone.name, gone.decode) == (by_pillow, None)
    assert gone.lost.startswith("torchcodec cannot be used: ")


def test_running_out_of_memory_is_no_fault_of_the_image(monkeypatch):
    def full(*given):
        raise MemoryError

    monkeypatch.setattr(decoder, "_upright_rgb", full)
    with pytest.raises(MemoryError):
        decode_by_pillow(PLAIN["baseline"], "x")
