"""Generated JPEG files that cost a decoder what ImageNet's cost: 500 x 375, 4:2:0, 110 KB on average.

Noise whose amplitude falls as 1/f, as that of photographs does, and a few hard edges. File number n is the same bytes
on every machine with the same Pillow.
"""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 500, 375
QUALITY = 92
FOLDERS = 4
EDGES = 12


def write_folder(folder: Path, count: int, *, processes: int, width: int = WIDTH, height: int = HEIGHT) -> int:
    """Write files 0 .. count - 1 as `folder`/class-K/NNNNNN.jpg, an ImageFolder; returns their bytes together."""
    for number in range(FOLDERS):
        (folder / f"class-{number}").mkdir(parents=True, exist_ok=True)
    write = partial(_write, folder, width=width, height=height)
    if processes == 1:
        return sum(map(write, range(count)))
    with ProcessPoolExecutor(processes) as pool:
        return sum(pool.map(write, range(count), chunksize=max(1, count // (8 * processes))))


def _write(folder: Path, number: int, *, width: int, height: int) -> int:
    return (folder / f"class-{number % FOLDERS}" / f"{number:06d}.jpg").write_bytes(jpeg(number, width, height))


def jpeg(number: int, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """The bytes of file `number`."""
    file = io.BytesIO()
    Image.fromarray(picture(number, width, height)).save(file, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return file.getvalue()


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(height, width, 3) uint8."""
    draw = np.random.Generator(np.random.Philox(key=number))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    planes = []
    liveliness = draw.uniform(0.6, 1.3)  # some are 90 KB, some 130
    for contrast in (38.0 * liveliness, 12.0, 12.0):  # light varies more than the two colour differences
        noise = np.fft.irfft2(np.fft.rfft2(draw.standard_normal((height, width))) / frequency, (height, width))
        planes.append(contrast * noise / noise.std())
    light, first, second = planes
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(EDGES):
        angle, offset = draw.uniform(0, 2 * np.pi), draw.uniform(0.1, 0.5)
        beyond = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5) > offset
        light = light + beyond * draw.normal(0, 30)
        first = first + beyond * draw.normal(0, 15)
    colours = np.stack([light + first, light - 0.5 * first + 0.5 * second, light - second], axis=2)
    levels: np.ndarray = np.clip(colours + 120, 0, 255).astype(np.uint8)
    return levels
