"""How many classes beat the true one: the one place where top-1 and top-5 are decided."""

from __future__ import annotations

import torch
from torch import Tensor


def true_class_places(scores: Tensor, labels: Tensor) -> Tensor:
    """(n, classes), (n,) → (n,) int64: the place of the true class among the scores, 0 is first.

    Of classes with the same score the lower number stands first, so a tie never counts as right by luck of order. A
    score that is not a number stands last.
    """
    scores = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    truth = scores.gather(1, labels[:, None])
    before = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    return ((scores > truth) | ((scores == truth) & before)).sum(dim=1)


def top(places: Tensor, k: int) -> float:
    """Percent of samples whose true class is among the first k."""
    return 100.0 * int((places < k).sum()) / len(places)


def top5(places: Tensor, classes: int) -> float | None:
    """Top-5 in percent; None below 5 classes, where it says nothing."""
    return top(places, 5) if classes >= 5 else None


def scores_of(places: Tensor, classes: int) -> dict[str, float]:
    """Scores by name: top1, and top5 where it says something."""
    top_5 = top5(places, classes)
    return {"top1": top(places, 1)} | ({} if top_5 is None else {"top5": top_5})
