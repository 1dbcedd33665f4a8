"""Which checkpoints of a run are kept, and as what. The trainer by hand and the worker both delete by this alone."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple

from barlow_lab.specs.common import CheckpointSpec

Kept = Literal["last", "best", "milestone"]


class CheckpointPlace(NamedTuple):
    """Where a checkpoint stands in a run. Places are ordered as the run went: an attempt goes on from earlier ones."""

    attempt: int
    step: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """A checkpoint that counts. `score` is the value of `best_by` at its step, None if there was none."""

    place: CheckpointPlace
    milestone: bool
    score: float | None


def retained(recorded: Collection[Recorded], policy: CheckpointSpec) -> dict[CheckpointPlace, Kept]:
    """The checkpoints to keep, each with the strongest reason: milestone, then best, then one of the last `keep_last`.

    A checkpoint without a finite score is never the best; of equal ones the earliest is. Deleting what is not kept
    changes none of the later answers.
    """
    newest = sorted(recorded, key=lambda one: one.place)[-policy.keep_last :]
    kept: dict[CheckpointPlace, Kept] = {one.place: "last" for one in newest}
    sign = 1.0 if policy.best_by == "loss" else -1.0  # of the losses the lowest, of the effective ranks the highest
    scored = [one for one in recorded if one.score is not None and math.isfinite(one.score)]
    if policy.best_by is not None and scored:
        kept[min(scored, key=lambda one: (sign * (one.score or 0.0), one.place)).place] = "best"
    return kept | {one.place: "milestone" for one in recorded if one.milestone}


def superfluous(unrecorded: Collection[CheckpointPlace], recorded: Collection[Recorded]) -> list[CheckpointPlace]:
    """Checkpoints on the disk that never counted, or do not any more, less the one a resume would begin with.

    A trainer that was killed before the journal line leaves such a one, and so does an attempt whose successor
    passed it over. It may be the newest whole one, so it stays until there is a newer.
    """
    newest = max([*unrecorded, *(one.place for one in recorded)], default=None)
    return sorted(place for place in unrecorded if place != newest)
