"""From the bytes of an image file to its pixels.

Two ways, equal to the last bit where both apply (tested): libjpeg-turbo through torchcodec for plain JPEGs
(trainer.data.decoding.jpeg), and Pillow for all else. What the first cannot read the second judges, so an image is
readable or not by Pillow's word alone: a file that ends before its last pixel is refused, while damage within the data
that libjpeg itself bridges is seen by neither.

What becomes of the odd ones, all told by their content, never by the ending of their name:

- Exif orientation: turned upright. The reference pipeline (torchvision's ImageFolder) leaves such photographs lying.
- alpha, transparent palette entries and further bands: dropped, the colours below them stay, as in the reference's
  convert("RGB").
- more than 8 bits a channel: as the data set's `value_range` says (trainer.data.decoding.levels), by default the high
  byte of 16, in grey as in colour; Pillow's own conversion of grey would clip at 255. Of colours it is the high byte
  always.
- CMYK: by Pillow's arithmetic without a colour profile; Adobe's inverted files included.
- several frames or pages: the first one; that there are more is told.
- more than LARGE_PIXELS: reduced by a whole factor (box mean) to about that, one such image at a time in a rank.
- more work than its size is worth (trainer.data.decoding.cost), such as a JPEG of hundreds of scans: refused.
- zeros in the place of its end (trainer.data.decoding.unfinished): refused where the file says where its image ends.
- planes of 16 bits that are not compressed, signed values of 8 bits, palettes of 8 bits, all in TIFFs: refused.
- more than MAX_PIXELS (a side counts LEAST_SIDE at least), or values for which no level is white: refused.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from barlow_lab.specs.data_sets import ValueRange
from trainer.data.decoding.bands import (
    dropped_of,
    is_animation,
    refuse_misread,
    said_of_pixels,
    said_of_tiff,
)
from trainer.data.decoding.cost import (
    LARGE_PIXELS,
    LEAST_SIDE,
    MAX_PIXELS,
    refuse_costly,
    refuse_exif,
    refuse_scans,
    refuse_tiles,
)
from trainer.data.decoding.foreign import said_of_foreign
from trainer.data.decoding.jpeg import ORIENTATION, decode_plain_jpeg
from trainer.data.decoding.levels import (
    bits_of,
    is_deep,
    is_negative,
    levels_of,
    may_merge,
    merges,
    not_finite_of,
    spread,
)
from trainer.data.decoding.pages import pages_of, pages_of_ppm
from trainer.data.decoding.reading import Losses
from trainer.data.decoding.unfinished import ends_within_a_row, refuse_unfinished, stored_zeros
from trainer.data.errors import UnreadableImage

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats by Pillow's names. Named, because Pillow runs an outside program for some of the others; and because the
search through all of them misses formats that another thread is just loading."""

# Pillow would warn of 90 megapixels and refuse 180; the limit here is looked at before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

LONGEST_SECONDS = 300.0
"""Seconds of a processor for one image. They decide no image: who asks (trainer.data.loading.pool) ends the attempt."""

_one_large = threading.Lock()


@dataclass(slots=True)
class _AtWork:
    """The image that a thread decodes, and the clock of its processor time; what that said when it was first seen."""

    name: str
    clock: int
    seen: float | None = None


_at_work: dict[int, _AtWork] = {}
"""What is being decoded, by thread."""

STRIP_OFFSETS, TILE_OFFSETS = 273, 324
"""Tags of TIFF: each strip or tile is a JPEG of its own."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image of this Exif orientation upright (Exif 2.3, 4.6.4 A)."""


def decode(
    encoded: bytes, name: str, value_range: ValueRange = "dtype", losses: Losses | None = None
) -> NDArray[np.uint8]:
    """The image in a file's bytes, (H, W, 3) uint8 RGB; `name` is what an error calls it, `losses` takes in what is
    lost of it.

    Raises:
        UnreadableImage: there is no such image in them; names the cause.
    """
    if not encoded:
        raise UnreadableImage(name, "the file is empty")
    try:
        refuse_costly(encoded)
        refuse_unfinished(encoded)
    except ValueError as error:
        raise UnreadableImage(name, str(error)) from error
    me = threading.get_ident()
    _at_work[me] = _AtWork(name, time.pthread_getcpuclockid(me))
    try:
        pixels = decode_plain_jpeg(encoded)
        if pixels is None:
            return decode_by_pillow(encoded, name, value_range, losses)
        return spread(pixels) if value_range == "percentile" else pixels
    finally:
        del _at_work[me]


def overdue() -> str | None:
    """The name of an image on whose decoding a thread has spent more than LONGEST_SECONDS of its processor since the
    first call that saw it, if there is one: a decoder that does not end, for what images may cost is bounded before."""
    for at in list(_at_work.values()):
        with suppress(OSError):  # the thread is gone
            now = time.clock_gettime(at.clock)
            at.seen = now if at.seen is None else at.seen
            if now - at.seen > LONGEST_SECONDS:
                return at.name
    return None


def decode_by_pillow(
    encoded: bytes, name: str, value_range: ValueRange = "dtype", losses: Losses | None = None
) -> NDArray[np.uint8]:
    """What `decode` returns, by Pillow alone.

    Raises:
        UnreadableImage: Pillow cannot read it, or it has more than MAX_PIXELS.
    """
    try:
        with Image.open(BytesIO(encoded), formats=FORMATS) as image:
            count = image.width * image.height
            held = max(image.size) * max(min(image.size), LEAST_SIDE)
            if held > MAX_PIXELS:
                narrow = f" ({held:,} where a side counts {LEAST_SIDE} at least)" if held > count else ""
                raise ValueError(f"it has {count:,} pixels{narrow}, and the limit is {MAX_PIXELS:,}")
            refuse_tiles((tile.extents for tile in image.tile), count)
            if isinstance(image, TiffImageFile):
                _look_at_tiff(image, encoded, losses)
            elif losses is not None:
                losses.animation = is_animation(image, encoded)
                losses.pages = pages_of_ppm(encoded) if image.format == "PPM" else losses.pages
            if held <= LARGE_PIXELS:
                levels = _upright_rgb(image, value_range, losses)
                if losses is not None and (zeros := stored_zeros(encoded)):
                    as_stored = levels[::-1] if image.format == "BMP" else levels
                    losses.zeros = zeros if ends_within_a_row(as_stored) else 0
                return levels
            with _one_large:
                return _upright_rgb(image, value_range, losses, factor=math.ceil(math.sqrt(count / LARGE_PIXELS)))
    except MemoryError:
        raise  # of the process, not of the image
    except UnidentifiedImageError as error:
        why, what = f"it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file", said_of_foreign(encoded)
        raise UnreadableImage(name, said_of_tiff(encoded) or (f"{why}, but {what}" if what else why)) from error
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them trip over
        raise UnreadableImage(name, str(error) or type(error).__name__) from error


def _look_at_tiff(image: TiffImageFile, encoded: bytes, losses: Losses | None) -> None:
    """Before its pixels are loaded.

    Raises:
        ValueError: they cannot be, for their cost or because Pillow would read others.
    """
    if image.info.get("compression") == "jpeg":
        offsets = image.tag_v2.get(STRIP_OFFSETS) or image.tag_v2.get(TILE_OFFSETS) or ()
        refuse_scans(encoded.count(b"\xff\xda") / max(1, np.size(offsets)), image.width * image.height)
    refuse_misread(image)
    if losses is not None:
        losses.pages = pages_of(image, encoded)


def _upright_rgb(
    image: ImageFile, value_range: ValueRange, losses: Losses | None, factor: int = 1
) -> NDArray[np.uint8]:
    refuse_exif(image.info.get("exif", image.info.get("Raw profile type exif")))
    raw = next((str(tile.args) for tile in image.tile), "")
    turned = image.tag_v2.get(ORIENTATION) if isinstance(image, TiffImageFile) else None  # by Pillow, while it loads
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(image, TiffImageFile):
            raise ValueError(said_of_pixels(image, error)) from error
        raise
    refuse_exif(image.info.get("exif", image.info.get("Raw profile type exif")))  # a PNG may have it behind its pixels
    orientation = _orientation_of(image)
    if losses is not None:
        losses.orientation = turned if turned in _TURNS else orientation
        if value_range == "dtype":
            losses.bits, losses.negative = bits_of(image), is_negative(image)
        losses.dropped = dropped_of(image, raw)
        losses.sixteen = ";16" in raw or is_deep(image)
        losses.high_byte_alone = losses.sixteen and not is_deep(image)
        losses.not_a_number, losses.infinite = not_finite_of(image)
    rgb = _rgb(image, value_range, losses)
    if factor > 1:
        rgb = rgb.reduce(factor)
    if orientation != 1:
        rgb = rgb.transpose(_TURNS[orientation])
    levels = np.asarray(rgb)
    if losses is not None and losses.high_byte_alone:
        losses.merged = may_merge(levels)
    return spread(levels) if value_range == "percentile" and not is_deep(image) else levels


def _orientation_of(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # a damaged Exif block says nothing; the image may be whole
        return 1
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def _rgb(image: Image.Image, value_range: ValueRange, losses: Losses | None) -> Image.Image:
    """In 8-bit RGB.

    Raises:
        ValueError: no level of its pixels is white by definition, or Pillow knows no way.
    """
    if is_deep(image):
        levels = levels_of(image, value_range)
        if losses is not None:
            losses.merged = merges(image, levels)
        return Image.fromarray(levels).convert("RGB")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # first, or Pillow warns of transparent palette entries
    return image.convert("RGB")
