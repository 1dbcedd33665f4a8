"""What happens to the levels of a view after its crop, for a whole batch on any device, by Pillow's arithmetic.

Pillow works on 8-bit levels and cuts or rounds after every operation, so this does, too: on whole numbers in float32,
small enough for every intermediate to be exact where Pillow's is. Each sample has its own parameters, and what a sample
does not ask for leaves its levels as they are. Nothing waits for the device.

Shape suffixes: n samples, 3 channels, s pixels of a side, f fields of a sample's draws.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from trainer.data.batch import Batch
from trainer.data.views.augmentation import ViewParameters, hue_levels
from trainer.data.views.blur import gaussian_blur

# Columns of a table of parameters.
_BLENDS = slice(0, 3)  # which blend comes first, second, third; 0: none
_FACTORS = slice(3, 6)
_BEFORE_HUE = 6  # how many of the blends come before the hue
_HUE = 7  # whether the hue is turned at all: a turn by nothing loses something, too
_SHIFT = 8  # of the hue, in levels
_GRAYSCALE = 9
_CHANNELS = slice(10, 13)  # source channel of R, G and B
_INVERT = 13
_SIGMA = 14  # of the blur, in pixels; 0: none
_THRESHOLD = 15  # of solarisation; 256: none

_BRIGHTNESS, _CONTRAST, _SATURATION = 1.0, 2.0, 3.0
_KINDS = {"brightness": _BRIGHTNESS, "contrast": _CONTRAST, "saturation": _SATURATION}

# Levels worked on at once: few enough for a core's cache, or for a small part of a device's memory.
_LEVELS_AT_ONCE = {"cpu": 2**18, "cuda": 2**25}


def fill_row(row: np.ndarray, parameters: ViewParameters) -> None:
    """Write the parameters of one sample into its row of a table, (FIELDS,) float32."""
    blends = [(_KINDS[name], factor) for name, factor in parameters.jitter if name != "hue"]
    names = [name for name, _ in parameters.jitter]
    row[_BLENDS] = 0.0
    row[_FACTORS] = 1.0
    for slot, (kind, factor) in enumerate(blends):
        row[_BLENDS][slot], row[_FACTORS][slot] = kind, factor
    row[_HUE] = "hue" in names
    row[_BEFORE_HUE] = names.index("hue") if "hue" in names else len(blends)
    row[_SHIFT] = hue_levels(dict(parameters.jitter).get("hue", 0.0))
    row[_GRAYSCALE] = parameters.grayscale
    row[_CHANNELS] = parameters.channels
    row[_INVERT] = parameters.invert
    row[_SIGMA] = parameters.blur_radius or 0.0
    row[_THRESHOLD] = 256.0 if parameters.solarize_threshold is None else parameters.solarize_threshold


def finish(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """The views of a batch on the device, (n, 3, S, S) uint8 each: one copy, and what was not done on the CPU."""
    memory = _copied(batch.memory, device)
    view_a, view_b = batch.pixels(memory)
    host, tables = batch.photometry, batch.tables(memory)
    if host is None or tables is None:
        return view_a, view_b
    return apply_batched(view_a, tables[0], host[0]), apply_batched(view_b, tables[1], host[1])


def _copied(memory: Tensor, device: torch.device) -> Tensor:
    """The bytes on the device, without waiting for them; from pinned memory beside what the device is working on."""
    if device.type != "cuda":
        return memory.to(device)
    beside, current = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(beside):
        copied = memory.to(device, non_blocking=True)
    current.wait_stream(beside)
    copied.record_stream(current)  # or its memory could be given to the next copy while it is still read
    return copied


@lru_cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def apply_batched(crops_n3ss: Tensor, table_nf: Tensor, host_nf: Tensor) -> Tensor:
    """Finish the views of a batch: crops (n, 3, S, S) uint8 → (n, 3, S, S) uint8, on the crops' device.

    `table_nf` holds the samples' parameters on that device, (n, FIELDS) float32 (fill_row), `host_nf` the same numbers
    on the host, which so knows what no sample asks for.
    """
    size = crops_n3ss.shape[-1]
    at_once = max(1, _LEVELS_AT_ONCE.get(crops_n3ss.device.type, 2**25) // (3 * size * size))
    done = torch.empty_like(crops_n3ss)
    for start in range(0, len(crops_n3ss), at_once):
        part = slice(start, start + at_once)
        done[part] = _finished(crops_n3ss[part].float(), table_nf[part], host_nf[part])
    return done


def _finished(x: Tensor, table: Tensor, host: Tensor) -> Tensor:
    """Whole levels (n, 3, S, S) float32 in and out; the given ones may be written over."""
    x = _blend_all(x, table, host, before_hue=True)
    x = _where_asked(x, table, host, lambda t: t[:, _HUE] > 0, lambda x, t: _turn_hue(x, _each(t, _SHIFT)[:, 0]))
    x = _blend_all(x, table, host, before_hue=False)
    x = _where_asked(x, table, host, lambda t: t[:, _GRAYSCALE] > 0, lambda x, t: _luma(x).repeat(1, 3, 1, 1))
    x = _where_asked(x, table, host, _asks_for_channels, _swap_channels)
    x = _where_asked(x, table, host, lambda t: t[:, _INVERT] > 0, lambda x, t: 255 - x)
    largest = float(host[:, _SIGMA].max())
    x = _where_asked(x, table, host, lambda t: t[:, _SIGMA] > 0, lambda x, t: gaussian_blur(x, t[:, _SIGMA], largest))
    return _where_asked(x, table, host, lambda t: t[:, _THRESHOLD] < 256, _solarize)


def _where_asked(
    x: Tensor,
    table: Tensor,
    host: Tensor,
    asks: Callable[[Tensor], Tensor],
    operation: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """`operation` (levels, table) for the samples whose parameters ask for it; the others' levels stay.

    On a GPU it is done to all and then selected: shapes that change from batch to batch cost more there.
    """
    asked = asks(host)
    if not asked.any():
        return x
    if asked.all():
        return operation(x, table)
    if x.device.type != "cpu":
        return torch.where(asks(table)[:, None, None, None], operation(x, table), x)
    rows = asked.nonzero()[:, 0]
    return x.index_copy_(0, rows, operation(x[rows], table[rows]))


def _each(table: Tensor, field: int) -> Tensor:
    """A field of each sample, (n, 1, 1, 1)."""
    return table[:, field, None, None, None]


def _blend_all(x: Tensor, table: Tensor, host: Tensor, *, before_hue: bool) -> Tensor:
    """The blends of each sample that come before the hue, or those that come after it, in the sample's order.

    So the hue, which costs more than all the others, is turned once and not once for every place in the order.
    """
    for slot in range(_BLENDS.stop):

        def asks(t: Tensor, slot: int = slot) -> Tensor:
            return (t[:, _BLENDS.start + slot] > 0) & ((t[:, _BEFORE_HUE] > slot) == before_hue)

        kinds = set(host[asks(host), _BLENDS.start + slot].tolist())
        x = _where_asked(x, table, host, asks, partial(_blend, slot=slot, kinds=kinds))
    return x


def _blend(x: Tensor, table: Tensor, slot: int, kinds: set[float]) -> Tensor:
    """degenerate + factor × (x - degenerate), cut to whole levels (Pillow's Image.blend and ImageEnhance).

    The degenerate is black, the mean grey or the grey image. `kinds` are all there are among those who ask.
    """
    kind, factor = _each(table, _BLENDS.start + slot), _each(table, _FACTORS.start + slot)
    if kinds == {_BRIGHTNESS}:
        return (x * factor).clamp_(0, 255).floor_()
    grey = _luma(x)
    degenerate = grey.masked_fill(kind != _SATURATION, 0.0)
    if _CONTRAST in kinds:
        # The sums of a row are exact in float32 and so are those of the rows in float64.
        mean = grey.sum(dim=-1).double().sum(dim=-1) / grey[0].numel()
        mean = (mean + 0.5).floor().float()[..., None, None]
        degenerate = torch.where(kind == _CONTRAST, mean, degenerate)
    return (x - degenerate).mul_(factor).add_(degenerate).clamp_(0, 255).floor_()


def _asks_for_channels(table: Tensor) -> Tensor:
    return (table[:, _CHANNELS.start] != 0) | (table[:, _CHANNELS.start + 1] != 1)


def _swap_channels(x: Tensor, table: Tensor) -> Tensor:
    return x.gather(1, table[:, _CHANNELS, None, None].long().expand_as(x))


def _solarize(x: Tensor, table: Tensor) -> Tensor:
    return torch.where(x >= _each(table, _THRESHOLD), 255 - x, x)


def _luma(x: Tensor) -> Tensor:
    """Grey levels (n, 1, S, S): ITU-R 601 in 16 bits, as Pillow's conversion to L. Exact: below 2^24."""
    red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:]
    grey = (red * 19595).add_(green * 38470).add_(blue * 7471)
    return grey.add_(32768).mul_(2.0**-16).floor_()


def _turn_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the 8-bit hue by `shift` (n, 1, 1) levels: RGB to HSV, whose levels are cut, and back, as Pillow does.

    In whole numbers below 2^24. Pillow's own fractions fall short of a whole hue now and then, for one colour in 300:
    there the hue is one level apart.
    """
    red, green, blue = x.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    some = chroma.clamp(min=1)
    # Hue in sixths of a turn, times chroma.
    sixths = torch.where(
        red == value,
        green - blue,
        torch.where(green == value, 2 * chroma + blue - red, 4 * chroma + red - green),
    )
    sixths = torch.where(sixths < 0, sixths + 6 * chroma, sixths)
    hue = sixths.mul_(85).div_(some.mul_(2)).floor_()
    saturation = chroma.mul_(255).div_(value.clamp(min=1)).floor_()

    # Back: each channel is the value, less a share of it that rises and falls along the hue circle of 6 × 255.
    hue = hue.add_(shift)
    hue = hue.sub_((hue * 2.0**-8).floor_().mul_(256)).mul_(6)  # remainder_ takes many times as long
    offsets = torch.arange(5, 0, -2, dtype=x.dtype, device=x.device).mul_(255)[:, None, None]
    along = hue[:, None] + offsets
    along = torch.where(along >= 6 * 255, along - 6 * 255, along)
    share = along.sub_(2 * 255).abs_().neg_().add_(2 * 255).clamp_(0, 255)
    share.mul_(saturation[:, None]).neg_().add_(255 * 255).mul_(value[:, None])
    return share.div_(255 * 255).add_(0.5).floor_()
