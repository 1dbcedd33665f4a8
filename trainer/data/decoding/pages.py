"""How many pages a TIFF has, of which the first is read: its directories, and planes behind the only one.

Programs of microscopes write a stack of planes of one size without a directory for each: ImageJ above 4 GB, tifffile
with `truncate`, MetaMorph always. The first plane has a directory, the others lie behind it, and how many there are
stands in the description or in a tag of the program.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from PIL.TiffImagePlugin import TiffImageFile

MOST_PAGES = 10_000
"""Pages of a file are counted up to here."""

_NEW_SUBFILE_TYPE, _SUBFILE_TYPE = 254, 255
_SMALLER_OR_MASK, _SMALLER = 0b101, 2
_SHORT = 3
_BITS, _COMPRESSION, _DESCRIPTION, _SAMPLES, _PLANES_OF_METAMORPH, _DEPTH = 258, 259, 270, 277, 33629, 32997
_STRIPS, _TILES, _BYTES_OF_TILES = 273, 324, 325
_UNCOMPRESSED = 1
_OF_IMAGEJ = re.compile(r"^(images|channels|slices|frames)=([0-9]{1,9})\s*$", re.MULTILINE)
_OF_FORMER_TIFFFILE = re.compile(r"shape=\(([0-9, ]*[0-9]),?\s*\)")
_MOST_AXES = 16
_PIXELS_OF_OME = re.compile(r"<(?:\w+:)?Pixels\b([^<>]*)>")
_SIZES_OF_OME = re.compile(r"\bSize([ZCT])\s*=\s*[\"']([0-9]{1,9})[\"']")
_IN_OTHER_FILES = re.compile(r"<(?:\w+:)?BinaryOnly\b|<(?:\w+:)?UUID\s+FileName\s*=")
"""A sign in OME-XML that planes are in other files, or may be."""


_BETWEEN = rb"(?:\s|#[^\n]*\n)+"
_OF_BITS = re.compile(rb"\s*P(4)" + 2 * (_BETWEEN + rb"([0-9]{1,9})") + rb"\s")
_OF_LEVELS = re.compile(rb"\s*P([56])" + 3 * (_BETWEEN + rb"([0-9]{1,9})") + rb"\s")


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages of a file."""

    here: int = 1
    """Those that it has,"""
    said: int = 1
    """and those of the stack that it says it is, if these are more, and not of several files."""


def pages_of_ppm(encoded: bytes) -> Pages:
    """The images of a PBM, PGM or PPM of bytes, one behind the other, as Netpbm's programs write several."""
    at = count = 0
    while count < MOST_PAGES and (header := _OF_BITS.match(encoded, at) or _OF_LEVELS.match(encoded, at)):
        kind, width, height = header[1], int(header[2]), int(header[3])
        row = (
            -(-width // 8) if kind == b"4" else width * (3 if kind == b"6" else 1) * (2 if int(header[4]) > 255 else 1)
        )
        at = header.end() + height * row
        count += 1
        if at <= header.end() or at > len(encoded):
            break
    return Pages(here=max(1, count))


def pages_of(image: TiffImageFile, encoded: bytes) -> Pages:
    """The pages of a TIFF or BigTIFF, whose file is `encoded`."""
    directories = directories_of_tiff(encoded)
    description = _description(image)
    said = min(_planes(image, description), MOST_PAGES)
    behind = _planes_behind(image, len(encoded)) if directories == 1 < said else 1
    here = max(directories, min(_number(image, _DEPTH), MOST_PAGES), min(said, behind))
    return Pages(here, here if _IN_OTHER_FILES.search(description) else max(here, said))


def directories_of_tiff(encoded: bytes) -> int:
    """How many directories a TIFF or BigTIFF has (TIFF 6.0, section 2), without those that are a smaller copy or a mask
    of another by NewSubfileType or SubfileType. Of a damaged file those before the damage."""
    order = "<" if encoded.startswith(b"II") else ">"
    big = b"\x2b" in encoded[2:4]
    start, first, entry, link = (
        order + form for form in (("8xQ", "Q", "HH8xHH4x", "Q") if big else ("4xI", "H", "HH4xHH", "I"))
    )
    seen: set[int] = set()
    pages = 0
    try:
        (place,) = struct.unpack_from(start, encoded)
        while place and place not in seen and len(seen) < MOST_PAGES:
            (entries,) = struct.unpack_from(first, encoded, place)
            tags = place + struct.calcsize(first)
            (following,) = struct.unpack_from(link, encoded, tags + entries * struct.calcsize(entry))
            copy = False
            for number in range(min(entries, 2)):  # tags ascend, so that these two come before all others
                tag, kind, one, other = struct.unpack_from(entry, encoded, tags + number * struct.calcsize(entry))
                value = one if kind == _SHORT else one | other
                copy |= (tag == _NEW_SUBFILE_TYPE and value & _SMALLER_OR_MASK > 0) or (
                    tag == _SUBFILE_TYPE and value == _SMALLER
                )
            pages += not seen or not copy
            seen.add(place)
            place = following
    except (struct.error, OverflowError):  # cut short, or a place beyond all files
        pass
    return max(1, pages)


def _description(image: TiffImageFile) -> str:
    description = image.tag_v2.get(_DESCRIPTION)
    if isinstance(description, bytes):
        description = description.decode("utf-8", "replace")
    return description.lstrip("\ufeff \t\r\n") if isinstance(description, str) else ""


def _planes(image: TiffImageFile, description: str) -> int:
    """How many planes a file says that it has, or is one of, each as large as the first."""
    of_metamorph = image.tag_v2.get(_PLANES_OF_METAMORPH)
    if isinstance(of_metamorph, tuple):
        return len(of_metamorph)
    for begins, planes in _DESCRIPTIONS:
        if description.startswith(begins):
            return max(1, planes(description, image.width * image.height, _number(image, _SAMPLES)))
    return 1


def _planes_of_imagej(description: str, pixels: int, samples: int) -> int:
    said = {name: int(number) for name, number in _OF_IMAGEJ.findall(description)}
    together = math.prod(said.get(name, 1) for name in ("channels", "slices", "frames"))
    return said.get("images", together)


def _planes_of_tifffile(description: str, pixels: int, samples: int) -> int:
    former = _OF_FORMER_TIFFFILE.match(description)
    try:
        shape = json.loads(f"[{former[1]}]" if former else description)
        shape = shape["shape"] if isinstance(shape, dict) else shape
    except (ValueError, LookupError, RecursionError):
        return 1
    if not isinstance(shape, list) or not all(type(side) is int and 0 < side < 2**31 for side in shape[:_MOST_AXES]):
        return 1
    return math.prod(shape[:_MOST_AXES]) // (pixels * samples)


def _planes_of_ome(description: str, pixels: int, samples: int) -> int:
    """The number of planes by OME-XML, where a channel of colours counts as three."""
    planes = 0
    for attributes in _PIXELS_OF_OME.findall(description):
        sizes = {axis: int(number) for axis, number in _SIZES_OF_OME.findall(attributes)}
        channels = sizes.get("C", 1)
        channels = channels // samples if channels % samples == 0 else channels
        planes += sizes.get("Z", 1) * sizes.get("T", 1) * channels
    return planes


_DESCRIPTIONS: tuple[tuple[tuple[str, ...], Callable[[str, int, int], int]], ...] = (
    (("ImageJ=", "SCIFIO="), _planes_of_imagej),
    (("{", "shape=("), _planes_of_tifffile),
    (("<?xml", "<OME", "<ome:OME", "<!--"), _planes_of_ome),
)
"""What a description begins with, and what it says: of itself, of an image of so many pixels and samples each."""


def _planes_behind(image: TiffImageFile, size: int) -> int:
    """How many planes a file of `size` bytes has room for from its first one on, if they are not compressed."""
    if _number(image, _COMPRESSION) != _UNCOMPRESSED:
        return 1
    strips, tiles = _numbers(image, _STRIPS), _numbers(image, _TILES)
    bits = image.width * _number(image, _SAMPLES) * _number(image, _BITS)
    plane = -(-bits // 8) * image.height if strips else sum(_numbers(image, _BYTES_OF_TILES))
    return max(1, (size - min(strips or tiles or (size,))) // max(1, plane))


def _number(image: TiffImageFile, tag: int) -> int:
    return max(1, max(_numbers(image, tag), default=1))


def _numbers(image: TiffImageFile, tag: int) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, ())
    return tuple(one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, int))
