"""The predictor: what an objective puts on the embeddings of one view, so that the two views are not treated alike."""

from __future__ import annotations

from torch import nn

from trainer.models.seeding import drawn_from


def build_predictor(width: int, hidden: int, *, bias: bool, seed: int) -> nn.Module:
    """Linear-BN-ReLU-Linear: (n, width) → (n, width), as in SimSiam and BYOL (Grill et al. 2020, arXiv 2006.07733).

    `bias` is that of the last layer; the first has none, as its batch normalisation would take it out. Initialised from
    `seed` alone; torch's generators are left as they were.
    """
    with drawn_from(seed, "predictor"):
        return nn.Sequential(
            nn.Linear(width, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, width, bias=bias),
        )
