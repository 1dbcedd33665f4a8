"""Average precision as PASCAL VOC counts it (Everingham et al., The PASCAL VOC Development Kit, 2007 and 2012).

Detections of a class are taken by falling score over all images. Each falls on the object of its class, in its image,
with which it overlaps most (intersection over union), be it difficult or found before. Where that overlap reaches the
threshold, it is right if the object is not difficult and nobody has found it yet, wrong if somebody has, and not
counted if the object is difficult; below the threshold it is wrong. Difficult objects are not asked for.

COCO's evaluator differs twice: it excuses a detection by the part of *itself* that lies within an ignored object, and
gives one whose best object is taken to the next best. So it cannot stand in for this where objects are difficult.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_RIGHT, _WRONG, _NOT_COUNTED = 1, 0, -1


@dataclass(slots=True)
class _Class:
    """What was found of one class so far."""

    asked: int = 0
    """Objects that are not difficult."""
    scores: list[NDArray[np.float32]] = field(default_factory=list)
    outcomes: list[NDArray[np.int8]] = field(default_factory=list)
    """(thresholds, k) each."""


class VocMatching:
    """Takes image after image; detections of equal score count in the order in which they came."""

    def __init__(self, overlaps: Sequence[float]) -> None:
        """`overlaps` are the thresholds."""
        self._overlaps = np.array(overlaps)[:, None]
        self._classes: dict[int, _Class] = {}

    def take(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        classes: NDArray[np.int64],
        there: NDArray[np.float32],
        classes_there: NDArray[np.int64],
        difficult: NDArray[np.bool_],
    ) -> None:
        """One image: detections (k, 4), (k,), (k,) and objects (m, 4), (m,), (m,); right and bottom are outside."""
        for label in np.union1d(classes, classes_there).tolist():
            kept = self._classes.setdefault(label, _Class())
            mine, objects = classes == label, classes_there == label
            kept.asked += int((~difficult[objects]).sum())
            order = np.argsort(-scores[mine], kind="stable")
            kept.scores.append(scores[mine][order])
            kept.outcomes.append(self._outcomes(boxes[mine][order], there[objects], difficult[objects]))

    def _outcomes(
        self, found: NDArray[np.float32], there: NDArray[np.float32], difficult: NDArray[np.bool_]
    ) -> NDArray[np.int8]:
        """(thresholds, k) of detections (k, 4), best score first, among the objects (m, 4) of their class."""
        outcomes = np.full((len(self._overlaps), len(found)), _WRONG, dtype=np.int8)
        if not len(there) or not len(found):
            return outcomes
        overlaps = intersections_over_unions(found, there)
        best = overlaps.argmax(axis=1)
        reached = overlaps.max(axis=1) >= self._overlaps
        outcomes[reached & difficult[best]] = _NOT_COUNTED
        for row, hits in zip(outcomes, reached & ~difficult[best], strict=True):
            places = np.flatnonzero(hits)
            _, first = np.unique(best[places], return_index=True)  # of each object its best detection
            row[places[first]] = _RIGHT
        return outcomes

    def average_precisions(self, recalls: Sequence[float]) -> NDArray[np.float64]:
        """(thresholds,), 0 to 1: over `recalls` the mean of the highest precision at this recall or a higher one, then
        the mean over the classes of which an object was asked for. NaN where there is none."""
        each = [self._of_class(kept, recalls) for kept in self._classes.values() if kept.asked]
        nothing = np.full(len(self._overlaps), np.nan)
        return np.mean(each, axis=0) if each else nothing

    def _of_class(self, kept: _Class, recalls: Sequence[float]) -> NDArray[np.float64]:
        order = np.argsort(-np.concatenate(kept.scores), kind="stable")
        out = np.zeros(len(self._overlaps))
        for place, outcomes in enumerate(np.concatenate(kept.outcomes, axis=1)[:, order]):
            counted = outcomes[outcomes != _NOT_COUNTED]
            right = np.cumsum(counted)
            precision = right / np.arange(1, len(counted) + 1)
            highest = np.maximum.accumulate(precision[::-1])[::-1]
            reached = np.searchsorted(right / kept.asked, recalls, side="left")
            out[place] = np.append(highest, 0.0)[reached].mean()
        return out


def intersections_over_unions(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float64]:
    """(k, 4), (m, 4) → (k, m); 0 where neither box has an area."""
    a, b = ours.astype(np.float64)[:, None], theirs.astype(np.float64)[None]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = sides.prod(axis=-1)
    either = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - shared
    overlaps: NDArray[np.float64] = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
    return overlaps
