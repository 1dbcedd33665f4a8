"""Plain JPEGs by libjpeg-turbo through torchcodec, which lets other threads run meanwhile and spares a copy.

Its pixels are Pillow's to the last bit, of damaged files as well (tested; a trial at the first use compares a small
one, so that another build of the library cannot change what a run sees). Where it is not there Pillow decodes all.

Shape suffixes: 3 channels, h pixels high, w wide.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from trainer.data.decoding.cost import LARGE_PIXELS

ORIENTATION = 0x0112
"""Tag of Exif."""


@dataclass(frozen=True, slots=True)
class JpegDecoder:
    """What decodes plain JPEGs here."""

    name: str
    """With its version, as `torchcodec 0.17.0`."""
    decode: Callable[[torch.Tensor], torch.Tensor] | None
    """Bytes -> (3, H, W) uint8 RGB; None: Pillow does."""
    lost: str | None = None
    """Why it is not the fast one."""


@cache
def jpeg_decoder() -> JpegDecoder:
    """The decoder of this process; it is the same to its end."""
    pillow = f"pillow {version('pillow')}"
    try:
        # Late: images that are no JPEG files need none of it.
        from torchcodec.decoders import decode_jpeg

        encoded, expected = _trial()
        if not np.array_equal(decode_jpeg(_as_tensor(encoded)).permute(1, 2, 0).numpy(), expected):
            return JpegDecoder(pillow, None, "torchcodec decodes to other pixels than Pillow does")
    except (ImportError, OSError, RuntimeError) as error:
        return JpegDecoder(
            pillow, None, f"torchcodec cannot be used: {(str(error) or type(error).__name__).splitlines()[0]}"
        )
    return JpegDecoder(f"torchcodec {version('torchcodec')}", decode_jpeg)


def decode_plain_jpeg(encoded: bytes) -> NDArray[np.uint8] | None:
    """(H, W, 3) uint8 RGB of an upright JPEG of 8 bits in grey or three colours; None: this is none, or is damaged, or
    there is no fast decoder."""
    if not is_plain_jpeg(encoded) or (decode := jpeg_decoder().decode) is None:
        return None
    try:
        pixels_3hw = decode(_as_tensor(encoded))
    except RuntimeError:
        return None
    pixels: NDArray[np.uint8] = np.ascontiguousarray(pixels_3hw.permute(1, 2, 0).numpy())
    return pixels


def _as_tensor(encoded: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(encoded), dtype=torch.uint8)


def _trial() -> tuple[bytes, NDArray[np.uint8]]:
    """A small JPEG with halved colours, and Pillow's pixels of it."""
    rows, columns = np.mgrid[:37, :53]
    levels = np.stack([rows * 6, columns * 4, (rows * columns) % 256], axis=2).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=85)
    with Image.open(BytesIO(file.getvalue()), formats=("JPEG",)) as image:
        return file.getvalue(), np.asarray(image.convert("RGB"))


def is_plain_jpeg(encoded: bytes) -> bool:
    """Whether the header is that of a baseline or progressive JPEG of 8 bits, grey or of three colours, not large, with
    nothing in it that may ask for a turn. Of anything unusual it says no (ITU-T T.81, annex B)."""
    if encoded[:2] != b"\xff\xd8":
        return False
    place, frame_is_plain, exif_seen = 2, False, False
    while place + 4 <= len(encoded):
        prefix, marker, length = struct.unpack_from(">BBH", encoded, place)
        if prefix != 0xFF or marker <= 0x01 or 0xD0 <= marker <= 0xD9 or marker == 0xFF:
            return False
        if marker == 0xDA:  # the scan begins
            return frame_is_plain
        segment = encoded[place + 4 : place + 2 + length]
        if marker in (0xC0, 0xC1, 0xC2) and len(segment) >= 6:
            precision, height, width, components = struct.unpack_from(">BHHB", segment)
            frame_is_plain = precision == 8 and components in (1, 3) and 0 < height * width <= LARGE_PIXELS
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            if exif_seen or _may_be_turned(segment[6:]):
                return False
            exif_seen = True
        elif marker == 0xE1 and b"Orientation" in segment:  # in XMP, which Pillow asks where Exif says nothing
            return False
        place += 2 + length
    return False


def _may_be_turned(tiff: bytes) -> bool:
    """Whether an Exif block (a TIFF header and its first directory) has an orientation other than upright."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return True
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(entries):
            tag, kind, count, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * entry)
            if tag == ORIENTATION and (kind, count, value) != (3, 1, 1):  # one 16-bit number
                return True
    except struct.error:
        return True
    return False
