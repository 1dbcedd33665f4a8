"""What an image file may cost to decode, told from its bytes before anything is decoded.

A file of some kilobytes can keep a decoder busy for minutes: a JPEG is gone over once for every scan it has, metadata
in a million pieces are read piece by piece. A thread that decodes cannot be ended, and by a clock a slow machine would
skip other images than a fast one. So the work is bounded instead: what is counted here is the same everywhere. The
bounds are far above what cameras and encoders write; an image at one of them takes about five seconds (measured).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable

LARGE_PIXELS = 2**25
"""An image held by a thread has at most about this many: 100 MB."""
MAX_PIXELS = 2**28
"""An image is refused above this: about 2 GB while it is decoded. A photograph of 100 megapixels is far below."""
LEAST_SIDE = 16
"""Pixels that a side counts at least: Pillow keeps a pointer and a padded line for each row, in every copy of an image,
and Exif may turn columns to rows."""
MAX_SCANNED = 12 * MAX_PIXELS
"""Pixels times scans of a JPEG. A progressive one of libjpeg has 10 scans, so that the bound on pixels comes first."""
MAX_SLOW = 2**24
"""Values of the rare forms that Pillow decodes one by one in Python."""
MAX_PIECES = 2**16
"""Segments, blocks and chunks of a file, and one more for each 4,096 bytes of it."""
MAX_HEADER = 2**16
"""Bytes of a header in which nothing has to stand, and of JPEG's Exif twice as many: one segment holds no more."""
MAX_COMMENTS = 1000
MAX_TILES = 2**18
"""Strips or tiles of a TIFF, and numbers in one of its tags; each of them goes through Python."""
MAX_COVER = 8
"""How often the strips of a TIFF may cover it: one layer for each channel."""

_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_MARKER_OF_SCANS = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # restarts stand within a scan
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_BYTES_OF_TIFF = {1, 2, 6, 7}
_START_OF_SCAN, _END = 0xDA, 0xD9
_SHORTEST_SCAN = 10
"""Bytes of a scan's header."""


def refuse_costly(encoded: bytes) -> None:
    """Refuse an image file whose decoding is out of proportion.

    Raises:
        ValueError: says what there is too much of.
    """
    if encoded.startswith(b"\xff\xd8"):
        _jpeg(encoded)
    elif encoded.startswith(b"\x89PNG"):
        _png(encoded)
    elif encoded.startswith(b"GIF8"):
        _gif(encoded)
    elif encoded.startswith(b"BM"):
        _bmp(encoded)
    elif encoded.startswith(b"P"):
        _ppm(encoded)
    elif encoded.startswith((b"II", b"MM")):
        _tiff(encoded)


def refuse_tiles(tiles: Iterable[tuple[int, int, int, int] | None], pixels: int) -> None:
    """Refuse an image whose strips or tiles (left, top, right, bottom) lie over one another: they may be one and the
    same bytes of the file, decoded a thousand times.

    Raises:
        ValueError: they do.
    """
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in filter(None, tiles))
    if covered > MAX_COVER * pixels:
        raise ValueError(f"its strips or tiles hold {covered:,} pixels for the {pixels:,} that it has")


def refuse_scans(scans: float, pixels: int) -> None:
    """Refuse a JPEG, or JPEGs in a TIFF, of so many scans.

    Raises:
        ValueError: they are too many for so many pixels.
    """
    if scans * pixels > MAX_SCANNED:
        raise ValueError(f"{math.ceil(scans):,} or more scans over {pixels:,} pixels take too long to decode")


def refuse_exif(block: object) -> None:
    """Refuse an Exif block that is larger than any camera writes: its directory may name the same bytes many times.

    Raises:
        ValueError: it is.
    """
    if isinstance(block, bytes | str) and len(block) > 2 * MAX_HEADER:
        raise ValueError(f"its Exif block has {len(block):,} bytes, and the limit is {2 * MAX_HEADER:,}")


def _jpeg(encoded: bytes) -> None:
    """ITU-T T.81, annex B. Every scan begins with FF DA: there are no more than of these, which are sooner told."""
    place, pixels, exif, junk = 2, 0, 0, 0
    for _ in range(_most_pieces(encoded)):
        found = _MARKER.search(encoded, place)
        if found is None:
            return
        junk += found.start() - place
        if junk > MAX_HEADER:
            raise ValueError(f"more than {MAX_HEADER:,} bytes of its header are no part of it")
        marker, place = encoded[found.start() + 1], found.end()
        if marker == _START_OF_SCAN:
            scans = len(encoded) // _SHORTEST_SCAN  # of most images it is enough to know this
            if scans * pixels > MAX_SCANNED:
                scans = encoded.count(b"\xff\xda", found.start())
            if scans * pixels > MAX_SCANNED:
                scans = _scans(encoded, found.start(), pixels)
            refuse_scans(scans, pixels)
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:
            continue  # they stand alone
        length = int.from_bytes(encoded[place : place + 2])
        if marker in _FRAMES and length >= 8:
            height, width = struct.unpack(">HH", encoded[place + 3 : place + 7].ljust(4, b"\0"))
            pixels = max(pixels, height * width)
        elif marker == 0xE1 and encoded.startswith(b"Exif\0\0", place + 2):
            exif += length
            if exif > 2 * MAX_HEADER:
                raise ValueError(f"its Exif block has more than {2 * MAX_HEADER:,} bytes")
        place += length
    raise _too_many(encoded, "segments")


def _scans(encoded: bytes, place: int, pixels: int) -> int:
    """Scans from `place` on, as libjpeg meets them; counted no further than the limit."""
    scans = 0
    for _ in range(_most_pieces(encoded)):
        found = _MARKER_OF_SCANS.search(encoded, place)
        if found is None or (marker := encoded[found.start() + 1]) == _END:
            return scans
        scans += marker == _START_OF_SCAN
        if scans * pixels > MAX_SCANNED:
            return scans
        place = found.end()
        if marker != 0x01 and marker != 0xD8:
            place += int.from_bytes(encoded[place : place + 2])
    raise _too_many(encoded, "segments")


def _png(encoded: bytes) -> None:
    place, most = 8, _most_pieces(encoded)
    if len(encoded) < 12 * most:  # a chunk has 12 bytes at least
        return
    for _ in range(most):
        if place + 8 > len(encoded):
            return
        place += 12 + int.from_bytes(encoded[place : place + 4])
    raise _too_many(encoded, "chunks")


def _gif(encoded: bytes) -> None:
    """Up to the first image (GIF89a, appendix A); the bytes of other pieces are read one by one."""
    place = 13
    if len(encoded) > 10 and encoded[10] & 0x80:
        place += 6 << (encoded[10] & 7)
    in_extension = False
    for _ in range(MAX_PIECES):
        if place >= len(encoded):
            return
        first = encoded[place]
        if in_extension:
            place += 1 + first
            in_extension = first > 0
        elif first in b",;":
            return
        else:
            in_extension = first == ord("!")
            place += 2 if in_extension else 1
    raise _too_many(encoded, "blocks before its first image")


def _bmp(encoded: bytes) -> None:
    if len(encoded) < 34 or encoded[30:34] not in (b"\1\0\0\0", b"\2\0\0\0"):
        return
    width, height = struct.unpack_from("<ii", encoded, 18)
    _refuse_slow(abs(width * height), "run lengths")


def _ppm(encoded: bytes) -> None:
    """Netpbm: ASCII numbers, and binary ones that are scaled, are read one by one."""
    plain = encoded[1:2] in (b"1", b"2", b"3")
    if plain and encoded.count(b"#") > MAX_COMMENTS:
        raise ValueError(f"it has more than {MAX_COMMENTS:,} comments")
    magic, *words = re.sub(rb"#[^\r\n]*[\r\n]?", b"", encoded[:MAX_HEADER]).split(None, 4)
    needed = 2 if magic in (b"P1", b"P4") else 3
    if len(words) < needed and len(encoded) > MAX_HEADER:
        raise ValueError(f"its header does not end within {MAX_HEADER:,} bytes")
    numbers = [int(word) for word in words[:needed] if word.isdigit() and len(word) <= 10]
    raw = magic in (b"P4", b"Pf", b"PF") or numbers[2:] == [255] or (magic == b"P5" and numbers[2:] == [65535])
    if len(numbers) == needed and (plain or not raw):
        colours = 3 if magic in (b"P3", b"P6") else 1
        _refuse_slow(numbers[0] * numbers[1] * colours, "numbers that are read one by one")


def _tiff(encoded: bytes) -> None:
    """The first directory of a TIFF or BigTIFF (TIFF 6.0, section 2): how many numbers each of its tags has."""
    order = "<" if encoded.startswith(b"II") else ">"
    big = b"\x2b" in encoded[2:4]
    start, first, entry = (order + form for form in (("8xQ", "Q", "HHQ8x") if big else ("4xI", "H", "HHI4x")))
    try:
        (place,) = struct.unpack_from(start, encoded)
        (entries,) = struct.unpack_from(first, encoded, place)
        place += struct.calcsize(first)
        for number in range(min(entries, MAX_PIECES)):
            tag, kind, count = struct.unpack_from(entry, encoded, place + number * struct.calcsize(entry))
            if kind not in _BYTES_OF_TIFF and count > MAX_TILES:
                raise ValueError(f"its tag {tag} has {count:,} numbers, and the limit is {MAX_TILES:,}")
    except struct.error:
        return  # cut short: Pillow says so


def _refuse_slow(values: int, what: str) -> None:
    if values > MAX_SLOW:
        raise ValueError(f"it has {values:,} pixels and colours in {what}, and the limit is {MAX_SLOW:,}")


def _most_pieces(encoded: bytes) -> int:
    return MAX_PIECES + (len(encoded) >> 12)


def _too_many(encoded: bytes, what: str) -> ValueError:
    return ValueError(f"it has more than {MAX_PIECES:,} {what} for its {len(encoded):,} bytes")
