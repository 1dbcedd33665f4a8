"""The part of a view that needs the whole image: crop, resize and flip, on the CPU, one image at a time."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from trainer.data.views.augmentation import Crop


def resized_crop(image: np.ndarray, crop: Crop, size: int, *, flip: bool) -> np.ndarray:
    """Crop and resize (bicubic, antialiased): image (H, W, 3) uint8 → (3, size, size) uint8.

    torch's kernel for 8-bit images, the one of torchvision's tensor transforms: several times faster than Pillow's,
    from which 5 % of the levels differ by 1, for both weigh in fixed point, with other roundings.
    """
    cropped = image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    resized: np.ndarray
    if cropped.shape[:2] == (size, size):
        resized = cropped.transpose(2, 0, 1)
    else:
        pixels = torch.from_numpy(np.array(cropped)).permute(2, 0, 1)[None]
        resized = F.interpolate(pixels, (size, size), mode="bicubic", align_corners=False, antialias=True)[0].numpy()
    return resized[:, :, ::-1] if flip else resized
