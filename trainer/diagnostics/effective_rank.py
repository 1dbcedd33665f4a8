"""How many directions of the embedding space are in use."""

from __future__ import annotations

import torch
from torch import Tensor


def effective_rank(z_nd: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the embeddings (n, d): from 1 to min(n, d).

    Roy and Vetterli 2007; as RankMe (arXiv 2210.02885, equation 1) it predicts downstream accuracy without labels.
    Not centred, as there. In float32, or float64 for float64 input.
    """
    values = torch.linalg.svdvals(z_nd.to(torch.promote_types(z_nd.dtype, torch.float32)))
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return float(torch.special.entr(shares).sum().exp())
