"""Average precision of a ranked list, in the two ways of the PASCAL VOC development kit.

A list ranked by score is cut after some number of items; of the n positives there are, it holds tp, among m items:

    recall = tp / n,  precision = tp / m,  p(r) = max { precision of a cut : its recall >= r }, 0 where there is none.

- eleven_point (VOC2007): the mean of p over r = 0, 0.1, ..., 1.
- all_points (since VOC2010): the area under p between r = 0 and 1.

p falls, so the one bounds the other: with e = eleven_point,
(11 e - p(0)) / 10 <= all_points <= (11 e - p(1)) / 10. Average precision without interpolation, as scikit-learn has it,
takes the precision of a cut where this takes p, and is at most all_points.

The kit cuts after every item. Items of one score have no order among them, so here a cut is between two scores: the
result is the kit's where all scores differ, and never depends on the order in which the items are given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Cuts:
    """Every cut of a ranked list, the shortest first. Whole numbers: a recall of 3 / 10 is 0.3 and no less."""

    found: NDArray[np.int64]
    """(c,) positives among the items before each cut, rising."""
    items: NDArray[np.int64]
    """(c,) items before each cut, rising."""
    positives: int
    """All there are, at least 1; more than are ever found where some have no score."""

    def __post_init__(self) -> None:
        assert self.positives > 0, "average precision is not defined without a positive"

    def envelope(self) -> NDArray[np.float64]:
        """(c,) p at the recall of each cut."""
        precision = self.found / np.maximum(self.items, 1)
        return np.maximum.accumulate(precision[::-1])[::-1]


def cuts(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> Cuts | None:
    """The cuts of the list of items with `scores` (n,), highest first; None without a positive: nothing is defined."""
    if not positive.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    return Cuts(np.cumsum(positive[order], dtype=np.int64)[ends], ends + 1, int(positive.sum()))


def eleven_point(cuts: Cuts) -> float:
    """Mean of p over the recalls 0, 0.1, ..., 1 (Everingham et al. 2010, section 4.2)."""
    envelope = cuts.envelope()
    # The first cut whose recall is at least t / 10, exactly.
    first = np.searchsorted(10 * cuts.found, np.arange(11) * cuts.positives)
    return float(np.append(envelope, 0.0)[first].sum() / 11)


def all_points(cuts: Cuts) -> float:
    """Area under p: each positive that is found adds p at its recall."""
    gained = np.diff(cuts.found, prepend=0)
    return float((gained * cuts.envelope()).sum() / cuts.positives)
