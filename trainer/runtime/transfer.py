"""From the host to the device, without waiting."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """`array` on `device`; a GPU gets it in the order of its stream, and the host goes on."""
    on_host = torch.from_numpy(array)
    return on_host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else on_host
