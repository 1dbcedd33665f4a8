"""From stored pixels to what a network reads."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

# Mean and standard deviation of ImageNet's R, G and B in [0, 1]: what every torchvision weight was trained with.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor, dtype: torch.dtype) -> Tensor:
    """(x / 255 - mean) / std per channel: images (n, 3, H, W) uint8, channels R, G, B → (n, 3, H, W) of `dtype`.

    The arithmetic runs in float32, or in float64 when that is asked for.
    """
    assert images.dtype == torch.uint8, images.dtype
    working = torch.float64 if dtype == torch.float64 else torch.float32
    mean, std = _per_channel(working, images.device)
    return images.to(working).div_(255).sub_(mean).div_(std).to(dtype)


@cache
def _per_channel(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (3, 1, 1); kept, since the host waits where a GPU is given numbers."""
    mean, std = (torch.tensor(values, dtype=dtype, device=device).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return mean, std


def empty_images(count: int, size: int) -> Tensor:
    """(count, 3, size, size) uint8 whose pixels are not yet set."""
    return torch.empty((count, 3, size, size), dtype=torch.uint8)
