"""Images that would cost far more than their size: skipped by what stands in their bytes, on every machine alike."""

import re
import struct
import threading
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from trainer.data.decoding import decoder
from trainer.data.decoding.cost import MAX_PIECES, refuse_costly
from trainer.data.decoding.decoder import decode, decode_by_pillow
from trainer.data.errors import DataError, UnreadableImage
from trainer.data.loading import pool
from trainer.data.loading.pool import Task, ahead, pieces

GREY = Image.fromarray(np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4, np.ones((16, 16), np.uint8)))


def encoded(image=GREY, kind="JPEG", **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_scans(count, side=None):
    """A progressive JPEG whose last scan comes again until there are `count`; its header says `side` for its size."""
    whole = encoded(progressive=True)
    starts = [found.start() for found in re.finditer(b"\xff\xda", whole)]
    last = whole[starts[-1] : -2]
    if side is not None:
        at = whole.index(b"\xff\xc2") + 5
        whole = whole[:at] + struct.pack(">HH", side, side) + whole[at + 4 :]
    return whole[:-2] + last * (count - len(starts)) + whole[-2:]


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunks(count):
    whole = encoded(kind="PNG")
    return whole[:33] + chunk(b"tEXt", b"a\0b") * count + whole[33:]


def with_blocks(count):
    whole = encoded(kind="GIF")
    at = 13 + (6 << (whole[10] & 7))
    return whole[:at] + b"!\xfe" + b"\1a" * count + b"\0" + whole[at:]


def bitmap(side):
    """A BMP of run lengths that are all zero."""
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 4, 0, 0, 2, 0)
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 62) + header + bytes(8) + b"\0\0\0\1"


def with_strips(count):
    """A TIFF of 64 x 64 pixels of one bit in two strips, of which the same two come again until there are `count`."""
    tags = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 1), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, count, None)]
    tags += [(277, 3, 1, 1), (278, 4, 1, 32), (279, 4, count, None)]
    at = 8 + 2 + 12 * len(tags) + 4
    lists = {273: at + 512, 279: at + 512 + 4 * count}
    directory = b"".join(struct.pack("<HHII", tag, form, n, lists.get(tag, value)) for tag, form, n, value in tags)
    strips = struct.pack(f"<{count}I", *(at + 256 * (number % 2) for number in range(count)))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    return head + directory + bytes(4) + bytes(512) + strips + struct.pack("<I", 256) * count


EXIF = b"\xff\xe1\xff\xff" + b"Exif\0\0".ljust(65533, b"a")

COSTLY = {
    "scans": (with_scans(300, side=8000), "51 or more scans over 64,000,000 pixels take too long to decode"),
    "segments": (encoded()[:2] + b"\xff\xfe\0\2" * 100_000 + encoded()[2:], "more than 65,536 segments"),
    "padding": (encoded()[:2] + bytes(100_000) + encoded()[2:], "more than 65,536 bytes of its header are no part"),
    "Exif": (encoded()[:2] + EXIF * 3 + encoded()[2:], "its Exif block has more than"),
    "Exif of a PNG": (
        encoded(kind="PNG", exif=b"Exif\0\0II*\0\x08\0\0\0" + bytes(200_000)),
        "its Exif block has 200,0",
    ),
    "chunks": (with_chunks(MAX_PIECES + 1000), "more than 65,536 chunks"),
    "blocks": (with_blocks(MAX_PIECES + 1000), "more than 65,536 blocks before its first image"),
    "run lengths": (bitmap(5000), "it has 25,000,000 pixels and colours in run lengths"),
    "numbers": (b"P3 3000 3000 255 0", "it has 27,000,000 pixels and colours in numbers that are read one by one"),
    "scaled": (b"P5 5000 5000 254 0", "it has 25,000,000 pixels and colours in numbers that are read one by one"),
    "comments": (b"P2 9 9 255 " + b"#\n" * 100_000, "it has more than 1,000 comments"),
    "strips": (with_strips(1000), "its strips or tiles hold 2,048,000 pixels for the 4,096 that it has"),
    "numbers of a tag": (with_strips(300_000)[:100_000], "its tag 273 has 300,000 numbers, and the limit is 262,144"),
    "header": (b"P6 #" + b"a" * 100_000 + b"\n9 9 255\n" + bytes(243), "its header does not end within 65,536 bytes"),
}


@pytest.mark.parametrize("kind", COSTLY)
def test_what_costs_more_than_its_size_is_unreadable_before_it_is_decoded(kind):
    raw, said = COSTLY[kind]
    assert len(raw) < 2_000_000
    with pytest.raises(UnreadableImage, match=f"^x cannot be read: .*{re.escape(said)}"):
        decode(raw, "x")


GOOD = {
    "baseline": encoded(),
    "progressive": encoded(progressive=True),
    "progressive, large": encoded(Image.new("RGB", (3000, 2000), "red"), progressive=True),
    "300 scans of little": with_scans(300),
    "restarts": encoded(restart_marker_rows=1),
    "a film behind its end": encoded(Image.new("L", (6000, 6000))) + b"\xff\xda\0\2" * 1000,
    "padding": encoded()[:2] + b"\xff" * 1000 + encoded()[2:],
    "profile": encoded(icc_profile=bytes(1_000_000)),
    "png": encoded(kind="PNG"),
    "png of many chunks": with_chunks(1000),
    "gif": encoded(kind="GIF"),
    "gif with words": with_blocks(1000),
    "bmp": encoded(kind="BMP"),
    "ppm": encoded(GREY.convert("RGB"), kind="PPM"),
    "pgm": b"P2\n# two\n2 1\n255\n0 255\n",
    "scaled": b"P5 2 1 100 \0\x64",
    "bits of blanks": b"P4 8000 100 " + b" " * 100_000,
    "webp": encoded(kind="WEBP"),
    "tiff": encoded(kind="TIFF"),
    "tiff of jpegs": encoded(Image.new("RGB", (6000, 6000)), kind="TIFF", compression="jpeg"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_what_encoders_write_is_decoded_as_ever(kind):
    np.testing.assert_array_equal(decode(GOOD[kind], "x"), decode_by_pillow(GOOD[kind], "x"))


def test_scans_are_counted_to_the_end_of_the_image_and_not_in_what_is_beside_it():
    thumbnails = b"\xff\xe1\xff\xff" + (b"\xff\xda" * 40_000)[:65_533]
    large = with_scans(40, side=8000)
    refuse_costly(large)
    refuse_costly(large[:2] + thumbnails * 3 + large[2:] + b"\xff\xda\0\2" * 1000)
    with pytest.raises(ValueError, match="51 or more scans"):
        refuse_costly(with_scans(60, side=8000))


def test_a_decoder_that_does_not_end_ends_the_run_and_is_named(monkeypatch):
    monkeypatch.setattr(decoder, "LONGEST_SECONDS", 0.2)
    monkeypatch.setattr(pool, "LOOK_SECONDS", 0.1)
    ended = threading.Event()

    def endless(_):
        while not ended.is_set():
            pass
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(decoder, "decode_plain_jpeg", endless)
    work = pieces(lambda row: decode(encoded(), f"endless-{row}.jpg"), np.arange(2), 2, lambda: None)
    try:
        with pytest.raises(DataError, match=r"^endless-\d.jpg has taken .* its decoding does not end: take the"):
            list(ahead([Task(None, work)], 2))
    finally:
        ended.set()


def test_an_image_that_waits_is_not_one_that_is_decoded_without_end(monkeypatch):
    monkeypatch.setattr(decoder, "LONGEST_SECONDS", 0.3)
    monkeypatch.setattr(pool, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(decoder, "decode_plain_jpeg", lambda _: threading.Event().wait(1.0) and None)
    work = pieces(lambda row: decode(encoded(), "x"), np.arange(1), 1, lambda: None)
    assert list(ahead([Task("done", work)], 1)) == ["done"]
