"""The bands of an image file: which of them are dropped, and which files have bands that cannot be read at all."""

from __future__ import annotations

from io import BytesIO

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

_WIDTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 256, 258, 259, 262, 277


def dropped_of(image: Image.Image) -> str | None:
    """What of an image, whose pixels are loaded, does not come through in grey or in red, green and blue, in words. A
    band of transparency that is opaque throughout says nothing, and is not told of."""
    bands = image.getbands()
    if isinstance(image, TiffImageFile):
        samples = image.tag_v2.get(_SAMPLES, 1)
        if isinstance(samples, int) and samples > len(bands):
            return f"of its {samples} bands {len(bands)} are read"
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")
    if not image.mode.upper().endswith("A"):
        return None
    low, high = image.getchannel(len(image.getbands()) - 1).getextrema()
    if low == 255:
        return None
    return f"its last band, of transparency or something else, has levels from {low} to {high} of 255"


def said_of_tiff(encoded: bytes) -> str | None:
    """What is special about a TIFF that Pillow knows no way to read; None: it is none, or is damaged."""
    if encoded[:4] not in (b"II*\0", b"MM\0*"):
        return None
    try:
        directory = ImageFileDirectory_v2(encoded[:8])
        file = BytesIO(encoded)
        file.seek(directory.next)
        directory.load(file)
        if _WIDTH not in directory:
            return None
        samples = int(directory.get(_SAMPLES, 1))
        bits = "/".join(str(each) for each in sorted(set(directory.get(_BITS, (1,)))))
        kind = f"compression {directory.get(_COMPRESSION, 1)}, photometric {directory.get(_PHOTOMETRIC)}"
    except Exception:  # as its readers do, this trips over damage in many ways
        return None
    which = f"a TIFF with {samples} {'band' if samples == 1 else 'bands'} of {bits} bits ({kind})"
    return f"it is {which}, which cannot be read: write it with 1 or 3 bands of 8 or 16 bits"
