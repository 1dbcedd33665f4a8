"""Support vector machines on frozen features, one for each class: protocol `svm-voc07/1`.

After Goyal et al. 2019 (arXiv 1905.01235), section 3.1 of its appendix, as VISSL runs it:

1. Features of the un-augmented images, brought to unit length.
2. For each class, a linear machine with squared hinge loss, ||w||^2 / 2 + C sum of the losses, where a positive counts
   twice; scikit-learn's LinearSVC (liblinear, dual coordinate descent).
3. C is the one of `costs` with the highest average precision (scikit-learn's) on the held-out part, the mean over
   `folds` stratified folds of the training split; of equal ones the lowest. The machine is then trained on all of it.
4. Average precision on the test split, over VOC's 11 recall levels and over all points; the score is their mean over
   the classes.

An image of which nothing is known for a class (only objects that VOC marks as difficult are in it) is neither trained
on nor judged for that class. A class with fewer positives or negatives than folds gets as many folds as it has; with a
single one there is nothing to hold out, and C is the lowest. A class without a positive or without a negative in
training, or without a positive to find in the test, is left out of the mean, with a warning.

The classes are shared out over the ranks, each of which holds the features of both splits, in float64; every draw is
keyed by seed and class, so the result is the same for any number of ranks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import average_precision_score
from sklearn.svm import LinearSVC
from torch.nn import functional as F

from barlow_lab.specs import SvmSpec
from trainer.data.datasets import AnnotatedDataSet, ImageDataSet
from trainer.data.errors import DataError
from trainer.data.ignored import told_of
from trainer.data.keyed import Purpose, bits, permutation
from trainer.data.registry import open_multi_label
from trainer.evaluation.average_precision import all_points, cuts, eleven_point
from trainer.evaluation.features import Features
from trainer.evaluation.frozen import frozen_features
from trainer.evaluation.splits import Splits
from trainer.runtime.context import Context
from trainer.runtime.started import journal_started
from trainer.runtime.units import Stopped, Units, rounds, share

PHASE = "support vector machines"
POSITIVE_WEIGHT = 2.0
MOST_ITERATIONS = 2000
TOLERANCE = 1e-4
"""These three as VISSL and PCL have them."""
TELL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What came of one class."""

    cost: float
    """The chosen C; NaN for a class that cannot be learned."""
    eleven_point: float
    all_points: float
    """Average precision on the test split, 0 to 1; NaN where it is not defined."""
    unfinished: int
    """Trainings that MOST_ITERATIONS ended before they had converged to TOLERANCE."""


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """Images as the machines see them."""

    values: NDArray[np.float64]
    """(n, d), rows of unit length."""
    presence: NDArray[np.int8]
    """(n, classes): 1 the class is in the image, 0 it is not, -1 it does not count."""


def run_svm(spec: SvmSpec, context: Context) -> dict[str, Any] | None:
    """Train and test a machine for each class; None if a stop was asked for. Metrics `svm_map_11_point` and
    `svm_map_all_points` in percent, at step 0.

    Raises:
        BadSpec: the backbone cannot be used.
        DataError: the data cannot be used, or no class can be judged.
    """
    journal_started(context, spec, resume_step=0)
    units = Units(context)
    try:
        found = frozen_features(spec, open_multi_label, context, units)
        splits = found.splits
        presences = presence_of(splits.train), presence_of(splits.test)
        train = judged(found.train, presences[0], "features train", context)
        test = judged(found.test, presences[1], "features test", context)
        machines = train_machines(spec, train, test, context, units)
    except Stopped:
        return None
    names = splits.train.classes
    known = {name: machine for name, machine in zip(names, machines, strict=True) if math.isfinite(machine.all_points)}
    _warn_of(names, machines, context)
    if not known:
        raise DataError(
            f"no class of {spec.data.name!r} has a positive and a negative in split {spec.data.split!r} and a positive "
            f"in {spec.test_split!r}; use other splits, or a higher data.limit{_told_of_ignored(splits)}"
        )
    scores = {
        "map_11_point": 100.0 * math.fsum(machine.eleven_point for machine in known.values()) / len(known),
        "map_all_points": 100.0 * math.fsum(machine.all_points for machine in known.values()) / len(known),
    }
    if context.journal is not None:
        context.journal.metrics(0, 0, {f"svm_{name}": value for name, value in scores.items()})
    return {
        "headline": "map_11_point",
        "scores": {name: {"last": value, "best": value} for name, value in scores.items()},
        "average_precision": {
            name: {"11_point": 100.0 * machine.eleven_point, "all_points": 100.0 * machine.all_points}
            for name, machine in known.items()
        },
        "costs": {name: machine.cost for name, machine in known.items()},
        "left_out": [name for name in names if name not in known],
        "folds": spec.folds,
        **found.facts(),
    }


def _told_of_ignored(splits: Splits[ImageDataSet | AnnotatedDataSet]) -> str:
    """Why there may be too few positives."""
    of = ((splits.spec.data.split, splits.train), (splits.spec.test_split, splits.test))
    every = (told_of(images, f"split {split!r}") for split, images in of if isinstance(images, AnnotatedDataSet))
    return next((f"; {said}" for said in every if said), "")


def presence_of(images: ImageDataSet | AnnotatedDataSet) -> NDArray[np.int8]:
    """Which classes are in each image, (n, classes) int8; of single labels every other class is not."""
    if isinstance(images, AnnotatedDataSet):
        return images.presence()
    presence: NDArray[np.int8] = (images.labels()[:, None] == np.arange(len(images.classes))).astype(np.int8)
    return presence


def judged(features: Features, presence: NDArray[np.int8], phase: str, context: Context) -> LabelledFeatures:
    """All ranks' features on every rank, with the rows of `presence` for them."""
    whole = features.gathered(phase, context)
    values = F.normalize(whole.values.cpu().double(), dim=1).numpy()
    return LabelledFeatures(values, presence[whole.indices.cpu().numpy()])


def train_machines(
    spec: SvmSpec, train: LabelledFeatures, test: LabelledFeatures, context: Context, units: Units
) -> list[Machine]:
    """The machines of all classes in order, the same on every rank. A unit of work is one cost of one class.

    Raises:
        Stopped: a stop was asked for.
    """
    classes = train.presence.shape[1]
    mine = share(classes, context)
    most, each = rounds(classes, context, 1), len(spec.costs)
    found: list[list[float]] = []
    for turn in range(most):
        one = None if turn >= len(mine) else _OneClass(spec, train, mine[turn], units)
        for place, cost in enumerate(spec.costs):
            if one is not None:
                one.try_out(cost)
                if place == each - 1:
                    machine = one.machine(test)
                    found.append([machine.cost, machine.eleven_point, machine.all_points, machine.unfinished])
            units.progress(PHASE, step=turn * each + place + 1, steps=most * each)
            units.finished()
    rows = torch.tensor(found, dtype=torch.float64, device=context.device).view(-1, 4)
    every = context.all_gather_rows(rows).tolist()
    return [Machine(cost, eleven, area, int(unfinished)) for cost, eleven, area, unfinished in every]


class _OneClass:
    """The training images of one class, and what each cost comes to on them."""

    def __init__(self, spec: SvmSpec, train: LabelledFeatures, number: int, units: Units) -> None:
        self._number = number
        self._units = units
        known = train.presence[:, number] >= 0
        self._values, self._positive = train.values[known], train.presence[known, number] == 1
        self._folds = folds_of(self._positive, spec.folds, seed=spec.seed, number=number)
        self._random = int(bits(Purpose.SVM, spec.seed, number).random_raw() % 2**31)
        self._tried: dict[float, float] = {}
        self._unfinished = 0

    @property
    def _learnable(self) -> bool:
        return bool(self._positive.any() and not self._positive.all())

    def try_out(self, cost: float) -> None:
        """Mean average precision of the held-out folds at this cost; 0 where nothing can be held out."""
        held_out = range(int(self._folds.max()) + 1) if self._learnable else range(0)
        precisions = []
        for fold in held_out if len(held_out) > 1 else range(0):
            rest, out = self._folds != fold, self._folds == fold
            scores = self._fitted(cost, rest).decision_function(self._values[out])
            precisions.append(average_precision_score(self._positive[out], scores))
            self._units.working(PHASE)
        self._tried[cost] = float(np.mean(precisions)) if precisions else 0.0

    def machine(self, test: LabelledFeatures) -> Machine:
        """Train with the best cost on all images, and judge."""
        known = test.presence[:, self._number] >= 0
        positive = test.presence[known, self._number] == 1
        if not self._learnable or not positive.any():
            return Machine(math.nan, math.nan, math.nan, self._unfinished)
        cost = max(self._tried, key=lambda cost: (self._tried[cost], -cost))
        fitted = self._fitted(cost, np.ones_like(self._positive))
        ranked = cuts(fitted.decision_function(test.values[known]), positive)
        assert ranked is not None, "there is a positive"
        return Machine(cost, eleven_point(ranked), all_points(ranked), self._unfinished)

    def _fitted(self, cost: float, rows: NDArray[np.bool_]) -> Any:
        machine = LinearSVC(
            C=cost,
            loss="squared_hinge",
            penalty="l2",
            dual=True,
            class_weight={1: POSITIVE_WEIGHT, 0: 1.0},
            tol=TOLERANCE,
            max_iter=MOST_ITERATIONS,
            random_state=self._random,
        )
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ConvergenceWarning)
            self._telling(partial(machine.fit, self._values[rows], self._positive[rows].astype(np.int64)))
        self._unfinished += any(issubclass(warning.category, ConvergenceWarning) for warning in said)
        return machine

    def _telling(self, work: Callable[[], object]) -> None:
        """Do `work`, which says nothing of itself, and say every TELL_SECONDS that it is being done: it may take
        minutes at a high cost, and ends after MOST_ITERATIONS."""
        with ThreadPoolExecutor(1) as pool:
            doing = pool.submit(work)
            while not wait([doing], timeout=TELL_SECONDS).done:
                self._units.working(PHASE)
        doing.result()


def folds_of(positive: NDArray[np.bool_], folds: int, *, seed: int, number: int) -> NDArray[np.int64]:
    """The fold of each image, (n,) int64 from 0: positives and negatives are dealt out one by one, each in an order
    drawn by `seed` and the class's `number`. Fewer folds where there are fewer positives or negatives than that."""
    few = min(int(positive.sum()), int((~positive).sum()))
    count = max(1, min(folds, few))
    out = np.zeros(len(positive), dtype=np.int64)
    for kind in (False, True):
        rows = np.flatnonzero(positive == kind)
        order = permutation(Purpose.SVM_FOLDS, seed, number, int(kind), count=len(rows))
        out[rows[order]] = np.arange(len(rows)) % count
    return out


def _warn_of(names: tuple[str, ...], machines: list[Machine], context: Context) -> None:
    """Classes without a score, and machines that did not converge."""
    left_out = [name for name, machine in zip(names, machines, strict=True) if math.isnan(machine.all_points)]
    if left_out:
        context.warn(
            f"{len(left_out)} of {len(names)} classes are left out of the mean, without a positive and a negative to "
            f"learn from or a positive to find: {', '.join(left_out[:20])}",
            classes=left_out,
        )
    if unfinished := sum(machine.unfinished for machine in machines):
        context.warn(
            f"{unfinished} trainings of support vector machines did not converge within {MOST_ITERATIONS} iterations, "
            "which the protocol allows; most are of high costs",
            trainings=unfinished,
        )
