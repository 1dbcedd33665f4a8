"""The bands of an image file: what of them is dropped, and which files have bands that cannot be read at all."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

_WIDTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 256, 258, 259, 262, 277
_PLANAR, _COLOUR_MAP, _SAMPLE_FORMAT = 284, 320, 339
_SEPARATE, _SIGNED = 2, 2


def is_animation(image: Image.Image, encoded: bytes) -> bool:
    """Whether an image of another format than TIFF has several frames, of which the first is read; `encoded` is its
    file. What a JPEG of several pictures (MPO) has behind its first is that one's gain map, depth or other eye."""
    if image.format == "MPO":
        return False
    if image.format != "GIF":
        return bool(getattr(image, "is_animated", False))
    try:  # opened anew: a look for a second frame moves to it
        with Image.open(BytesIO(encoded), formats=("GIF",)) as again:
            return bool(getattr(again, "is_animated", False))
    except Exception:  # damaged behind its first frame, in any way
        return False


def refuse_misread(image: TiffImageFile) -> None:
    """Refuse what Pillow reads as something else, without a word: planes of more than 8 bits that are not compressed,
    whose bytes it takes for levels, signed values of 8 bits, which it takes for unsigned ones, and palettes of 8 bits,
    of which it takes the high byte of 16.

    Raises:
        ValueError: it is one of these; names the remedy.
    """
    bits = max(_numbers(image, _BITS), default=1)
    if bits > 8 and _SEPARATE in _numbers(image, _PLANAR) and image.info.get("compression") == "raw":
        raise ValueError(
            f"its bands of {bits} bits are stored one after the other and not compressed, which cannot be read here; "
            "store the bands of each pixel together (PlanarConfiguration 1), or compressed"
        )
    if bits == 8 and _SIGNED in _numbers(image, _SAMPLE_FORMAT):
        raise ValueError("signed values of 8 bits cannot be read here; store them as unsigned ones, or with 16 bits")
    if image.mode in ("P", "PA") and 0 < max(_numbers(image, _COLOUR_MAP), default=0) < 256:
        raise ValueError(
            "its palette has values of 8 bits where a TIFF has 16, so that every colour would be black; store it as "
            "red, green and blue, or with the palette's values times 257"
        )


def _numbers(image: TiffImageFile, tag: int) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, ())
    return tuple(one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, int))


def dropped_of(image: Image.Image, raw: str) -> str | None:
    """What of an image, whose pixels are loaded, does not come through in grey or in red, green and blue, in words;
    `raw` is Pillow's word for how they were stored. A band of transparency that is opaque throughout says nothing, and
    is not told of, and so does one that is 0 throughout, an unused byte beside colours that are meant to be seen, and a
    colour of a PNG that none of its pixels has."""
    bands = image.getbands()
    if isinstance(image, TiffImageFile):
        samples = image.tag_v2.get(_SAMPLES, 1)
        if isinstance(samples, int) and samples > len(bands):
            return f"of its {samples} bands {len(bands)} are read"
    if "transparency" in image.info:  # of a PNG in grey or RGB one colour, in the bits that are stored
        colour = image.info["transparency"]
        if image.mode == "I;16":
            count = int(np.count_nonzero(np.asarray(image) == colour))
            return f"its level {colour} of 65,535 is transparent, and {count:,} pixels have it" if count else None
        if image.mode == "RGB" and ";16" in raw:  # Pillow keeps the high byte
            image.info["transparency"] = tuple(value >> 8 for value in colour)
        elif image.mode == "L" and (bits := {"L;2": 2, "L;4": 4}.get(raw)):
            image.info["transparency"] = colour * 255 // (2**bits - 1)
        if image.mode in ("1", "L", "RGB", "P", "PA"):
            image = image.convert("RGBA")
    if not image.mode.upper().endswith("A"):
        return None
    low, high = image.getchannel(len(image.getbands()) - 1).getextrema()
    if low == 255 or high == 0:
        return None
    return f"its last band, of transparency or something else, has levels from {low} to {high} of 255"


def said_of_tiff(encoded: bytes) -> str | None:
    """What is special about a TIFF or BigTIFF that Pillow knows no way to read; None: it is none, or is damaged."""
    if encoded[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    try:
        directory = ImageFileDirectory_v2(encoded[: 16 if b"+" in encoded[:4] else 8])
        file = BytesIO(encoded)
        file.seek(directory.next)
        directory.load(file)
        if _WIDTH not in directory:
            return None
        which = _kind_of_tiff(directory)
    except Exception:  # as its readers do, this trips over damage in many ways
        return None
    return f"it is {which}, which cannot be read: write it with 1 or 3 bands of 8 or 16 bits"


def said_of_pixels(image: TiffImageFile, error: Exception) -> str:
    """What to say of a TIFF whose pixels end in `error`, which is in Pillow's words."""
    try:
        which = _kind_of_tiff(image.tag_v2)
    except Exception:
        which = "a TIFF"
    return (
        f"the pixels of {which} cannot be decoded ({str(error) or type(error).__name__}): the file is damaged or cut "
        "short, or its form is unknown here. Write it again, uncompressed or with LZW or Deflate"
    )


def _kind_of_tiff(directory: ImageFileDirectory_v2) -> str:
    """What a TIFF's bands are, in words; raises anything where the tags are damaged."""
    samples = int(directory.get(_SAMPLES, 1))
    bits = "/".join(str(each) for each in sorted(set(directory.get(_BITS, (1,)))))
    kind = f"compression {directory.get(_COMPRESSION, 1)}, photometric {directory.get(_PHOTOMETRIC)}"
    return f"a TIFF with {samples} {'band' if samples == 1 else 'bands'} of {bits} bits ({kind})"
