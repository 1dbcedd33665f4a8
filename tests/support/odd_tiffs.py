"""TIFF files by hand, for tests: Pillow writes none of 12 bits, and none with a fourth band that is no transparency."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

_TYPES = {(8, 1): "<u1", (8, 2): "<i1", (16, 1): "<u2", (32, 1): "<u4", (16, 2): "<i2", (32, 2): "<i4", (32, 3): "<f4"}
_FORMS = {3: "H", 4: "I", 11: "f"}


def tiff(
    levels: NDArray[np.generic],
    bits: int = 16,
    *,
    extra: Sequence[int] | None = None,
    photometric: int | None = None,
    sample_format: int = 1,
    separate: bool = False,
    deflate: bool = False,
    tags: Mapping[int, tuple[int, list[float]]] | None = None,
) -> bytes:
    """Of levels (H, W) or (H, W, bands), in one strip, or in one for each band where they are `separate`.

    `extra` is ExtraSamples, `tags` are others: type, values.
    """
    height, width = levels.shape[:2]
    bands = levels.shape[2] if levels.ndim == 3 else 1
    if bits == 12:
        lines = ["".join(f"{int(value):012b}" for value in row) for row in levels.reshape(height, -1)]
        padded = [line + "0" * (-len(line) % 8) for line in lines]
        data = b"".join(int(line, 2).to_bytes(len(line) // 8, "big") for line in padded)
    else:
        data = levels.astype(_TYPES[bits, sample_format]).tobytes()
    strips = [data]
    if separate:
        strips = [levels[..., band].astype(_TYPES[bits, sample_format]).tobytes() for band in range(bands)]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    entries: dict[int, tuple[int, list[float]]] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * bands), 259: (3, [8 if deflate else 1]),
        262: (3, [(2 if bands >= 3 else 1) if photometric is None else photometric]), 273: (4, [0] * len(strips)),
        277: (3, [bands]), 278: (4, [height]), 279: (4, [len(strip) for strip in strips]),
        284: (3, [2 if separate else 1]), 339: (3, [sample_format] * bands), **(tags or {}),
    }  # fmt: skip
    if extra is not None:
        entries[338] = 3, list(extra)
    start = 8 + 2 + 12 * len(entries) + 4
    beside = sum(size for kind, values in entries.values() if (size := struct.calcsize(_FORMS[kind]) * len(values)) > 4)
    before = accumulate((len(strip) for strip in strips[:-1]), initial=start + beside)
    entries[273] = 4, list(before)
    directory, blob = struct.pack("<H", len(entries)), b""
    for tag, (kind, values) in sorted(entries.items()):
        form = _FORMS[kind]
        raw = struct.pack(f"<{len(values)}{form}", *(value if form == "f" else int(value) for value in values))
        where = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", start + len(blob))
        blob += raw if len(raw) > 4 else b""
        directory += struct.pack("<HHI", tag, kind, len(values)) + where
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0) + blob + b"".join(strips)
