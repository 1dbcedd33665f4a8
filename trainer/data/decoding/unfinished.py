"""Files whose end was never written, or never arrived: a long run of zeros stands in its place.

A download that claims its room first, a crash and some network disks leave such files: of their full size, with a
beginning that is right. Decoders make something of the zeros without a word. Of JPEG, PNG and WebP the file itself says
where its image ends, so that padding behind that is told from an end that is missing; of formats that store pixels as
they are it cannot be said for certain, for black is zero there.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096
"""Zeros in a row that are long in a file of any size: what file systems give out at once,"""
PART = 0.01
"""or this part of the file, LEAST at least: encoders and cameras fill up to some bytes."""
LEAST = 16
PART_OF_WEBP = 0.125
"""The same of the data of a WebP: lossy ones of one colour end in zeros, a twentieth of them."""
NOT_BLACK = 0.99
"""The part of a row of pixels that is not black where the zeros below it are none of the picture's."""

_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
"""A marker of a JPEG after the beginning of a scan: no stuffed byte and no restart."""
_STORED = (b"BM", b"II*\0", b"MM\0*", b"P4", b"P5", b"P6")


def refuse_unfinished(encoded: bytes) -> None:
    """Look whether a JPEG, PNG or WebP ends in zeros before its image does.

    Raises:
        ValueError: it does; says how many they are.
    """
    zeros = _zeros(encoded)
    if not zeros:
        return
    start = len(encoded) - zeros
    if encoded[:2] == b"\xff\xd8":
        missing = not _has_end_of_jpeg(encoded, start)
    elif encoded[:8] == b"\x89PNG\r\n\x1a\n":
        missing = not _has_end_of_png(encoded, start)
    else:
        missing = encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP" and _misses_of_webp(encoded, start)
    if missing:
        raise ValueError(
            f"the last {zeros:,} of its {len(encoded):,} bytes are zeros, and its image goes on there: an unfinished "
            "download or copy; fetch the file again"
        )


def stored_zeros(encoded: bytes) -> int:
    """The zeros at the end of a BMP, TIFF or PPM, if they are many; else 0."""
    return _zeros(encoded) if encoded.startswith(_STORED) else 0


def ends_within_a_row(levels: NDArray[np.uint8]) -> bool:
    """Whether an image, (H, W, 3) from the row that its file begins with, turns black for good within a row, and was
    hardly so before: as by zeros that are no part of the picture. Bars and dark grounds begin otherwise."""
    lit: NDArray[np.bool_] = np.asarray(levels.any(axis=2))
    width = lit.shape[1]
    seen = np.flatnonzero(lit.any(axis=1))
    if not len(seen) or seen[-1] == 0:
        return False
    last = int(seen[-1])
    column = int(np.flatnonzero(lit[last])[-1])
    before = np.concatenate((lit[last - 1, column + 1 :], lit[last, : column + 1]))
    return column < width - 1 and bool(before.mean() >= NOT_BLACK and lit[last - 1].mean() >= NOT_BLACK)


def _zeros(encoded: bytes) -> int:
    """How many zeros a file ends in, if these are many; else 0."""
    if not encoded or encoded[-1]:
        return 0
    zeros = len(encoded) - len(encoded.rstrip(b"\0"))
    return zeros if zeros >= min(BLOCK, max(LEAST, PART * len(encoded))) else 0


def _has_end_of_jpeg(encoded: bytes, start: int) -> bool:
    """Whether the first image ends before `start`: another one, or a film, may follow it."""
    at = 2
    while at + 4 <= start and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker == 0xD9:
            return True
        if marker == 0xFF:
            at += 1
            continue
        at += 2 + int.from_bytes(encoded[at + 2 : at + 4])
        if marker == 0xDA:
            found = _MARKER.search(encoded, at, start)
            if found is None:
                return False
            at = found.end() - 2
    return encoded.find(b"\xff\xd9", at, start) >= 0


def _has_end_of_png(encoded: bytes, start: int) -> bool:
    at = 8
    while at + 8 <= start:
        if encoded[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(encoded[at : at + 4])
    return False


def _misses_of_webp(encoded: bytes, start: int) -> bool:
    """Whether many zeros belong to the data of the first frame, or begin before it."""
    at = 12
    while at + 8 <= start:
        length = int.from_bytes(encoded[at + 4 : at + 8], "little")
        end = at + 8 + length
        if encoded[at : at + 4] in (b"VP8 ", b"VP8L", b"ANMF"):
            return min(end, len(encoded)) - start >= max(LEAST, PART_OF_WEBP * length)
        at = end + length % 2
    return True
