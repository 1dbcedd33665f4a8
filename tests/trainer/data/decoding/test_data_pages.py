"""Pages of a TIFF, of which the first is read: its directories, and planes behind the only one."""

import io

import numpy as np
import pytest
from odd_tiffs import tiff
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from trainer.data.decoding.decoder import decode
from trainer.data.decoding.pages import Pages, directories_of_tiff
from trainer.data.decoding.reading import Losses


def pages(count, kinds=None, big=False):
    """A TIFF of pages with levels 10, 20 ...; `kinds` are the NewSubfileType of each."""
    first, *others = [Image.new("L", (5, 4), 10 * number) for number in range(1, count + 1)]
    for image, kind in zip((first, *others), kinds or [0] * count, strict=True):
        image.encoderinfo = {"tiffinfo": {254: kind}}
    file = io.BytesIO()
    first.save(file, "TIFF", save_all=True, append_images=others, big_tiff=big, **first.encoderinfo)
    return file.getvalue()


@pytest.mark.parametrize(("file", "count"), [
    (pages(1), 1), (pages(5), 5), (pages(3, big=True), 3), (pages(4, kinds=[0, 1, 4, 2]), 2),
    (pages(2, kinds=[1, 0]), 2), (tiff(np.zeros((4, 5), np.uint8), 8), 1),
])  # fmt: skip
def test_pages_of_a_tiff_are_counted_and_the_first_is_read(file, count):
    losses = Losses()
    found = decode(file, "x", losses=losses)
    assert losses == Losses(pages=Pages(count, count))
    np.testing.assert_array_equal(found, decode(file, "x"))
    with Image.open(io.BytesIO(file)) as image:
        np.testing.assert_array_equal(found[..., 0], np.asarray(image))


def stack(planes, described=None, tags=(), big=False, **saved):
    """A TIFF of one directory, of the first of the planes; the pixels of the others lie behind it."""
    directory, file = ImageFileDirectory_v2(), io.BytesIO()
    if described is not None:
        directory[270] = described
    for tag, kind, value in tags:
        directory.tagtype[tag] = kind
        directory[tag] = value
    Image.fromarray(planes[0]).save(file, "TIFF", tiffinfo=directory, big_tiff=big, **saved)
    return file.getvalue() + b"".join(plane.tobytes() for plane in planes[1:])


def ome(*pixels):
    inside = "".join(
        "<Image><Pixels DimensionOrder='XYZCT' "
        + " ".join(f'Size{axis}="{size}"' for axis, size in sizes.items())
        + "/></Image>"
        for sizes in pixels
    )
    return f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{inside}</OME>'


RNG = np.random.default_rng(0)
GREY = RNG.integers(100, 250, (7, 12, 16), np.uint8)
DEEP = RNG.integers(0, 65536, (4, 12, 16), np.uint16)
COLOURS = RNG.integers(100, 250, (4, 12, 16, 3), np.uint8)
OF_FILE = '><TiffData><UUID FileName="z0.ome.tif">urn:uuid:1</UUID></TiffData></Pixels>'
OF_IMAGEJ = "ImageJ=1.54f\nimages={}\nslices={}\nloop=false\n"


@pytest.mark.parametrize(("file", "here", "said"), [
    (stack(GREY, OF_IMAGEJ.format(7, 7)), 7, 7),
    (stack(GREY, OF_IMAGEJ.format(7, 7), big=True), 7, 7),
    (stack(GREY[:6], "ImageJ=1.11a\nchannels=2\nslices=1\nframes=3\nhyperstack=true\n"), 6, 6),
    (stack(DEEP, OF_IMAGEJ.format(4, 4)), 4, 4),
    (stack(COLOURS, OF_IMAGEJ.format(4, 4)), 4, 4),
    (stack(GREY, '{"shape": [7, 12, 16], "truncated": true}'), 7, 7),
    (stack(GREY, "shape=(7,12,16)"), 7, 7),
    (stack(COLOURS, '{"shape": [2, 2, 12, 16, 3]}'), 4, 4),
    (stack(GREY[:6], ome({"X": 16, "Y": 12, "Z": 3, "C": 2, "T": 1})), 6, 6),
    (stack(COLOURS, ome({"X": 16, "Y": 12, "Z": 4, "C": 3, "T": 1})), 4, 4),
    (stack(GREY, ome({"Z": 7}).replace("/></I", f"{OF_FILE}</I")), 7, 7),
    (stack(GREY, tags=[(33629, 5, (1.0,) * 7)]), 7, 7),
    (stack(GREY, tags=[(32997, 4, 7)]), 7, 7),
    # Fewer are there than are said, as of a file that is cut short, or of a page that was saved with its stack's words.
    (stack(GREY[:3], OF_IMAGEJ.format(7, 7)), 3, 7),
    (stack(GREY[:1], OF_IMAGEJ.format(7, 7)), 1, 7),
    (stack(GREY[:1], OF_IMAGEJ.format(7, 7), compression="tiff_lzw"), 1, 7),
    (stack(GREY[:1], ome({"Z": 1, "C": 1, "T": 1}, {"Z": 5, "C": 1, "T": 1})), 1, 6),
])  # fmt: skip
def test_planes_behind_the_only_directory_are_counted(file, here, said):
    found = decode(file, "x", losses=(losses := Losses()))
    assert losses.pages == Pages(here, said)
    np.testing.assert_array_equal(found, decode(file, "x"))


@pytest.mark.parametrize("file", [
    stack(GREY[:1], "ImageJ=1.54f\nmin=0.0\nmax=255.0\n"),
    stack(GREY[:1], OF_IMAGEJ.format(1, 1)),
    stack(GREY[:1], '{"shape": [12, 16]}'),
    stack(COLOURS[:1], '{"shape": [12, 16, 3]}'),
    stack(COLOURS[:1], ome({"Z": 1, "C": 3, "T": 1})),
    stack(GREY[:1], '{"shape": "7"}'),
    stack(GREY[:1], '{"shape": [7'),
    stack(GREY[:1], "[" * 5000),
    stack(GREY[:1], "{" + '"a": {' * 5000),
    stack(GREY[:1], "images=7, said somebody"),
    # Planes in files of their own, as OME-TIFF may have them.
    stack(GREY[:1], ome({"Z": 5}).replace("/></I", f"{OF_FILE}</I")),
    stack(GREY[:1], '<OME><BinaryOnly MetadataFile="all.companion.ome" UUID="urn:uuid:1"/></OME>'),
    # What lies behind a single image may be anything.
    stack(GREY),
    stack(GREY, "a photograph"),
])  # fmt: skip
def test_a_single_plane_is_no_stack(file):
    decode(file, "x", losses=(losses := Losses()))
    assert losses.pages == Pages()


def test_directories_in_a_circle_or_beyond_the_end_of_a_file_are_counted_once():
    file = bytearray(tiff(np.zeros((4, 5), np.uint8), 8))
    link = 8 + 2 + 12 * int.from_bytes(file[8:10], "little")
    for following in (8, 10**6, 2**32 - 1):
        file[link : link + 4] = following.to_bytes(4, "little")
        assert directories_of_tiff(bytes(file)) == 1
    assert directories_of_tiff(b"II\x2b\0\x08\0\0\0" + b"\xff" * 8) == 1
