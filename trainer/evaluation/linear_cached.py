"""A linear classifier on cached features: protocol `linear-cached-features/1`.

1. Features of the un-augmented training images are computed once.
2. The training mean is taken off, and everything is divided by one number so that the mean squared norm of a training
   feature is 16; test features likewise, by the same numbers. The result then depends neither on the scale of the
   features nor on a rotation of them, and the default rate is stable for any features: the curvature of the softmax
   loss is at most half the mean squared norm (17 with the bias), and SGD with momentum m needs
   rate < 2 (1 + m) / curvature = 0.447 at m = 0.9.
3. From zero weights: SGD with momentum, the rate falling from learning_rate x batch / 256 by the protocol's schedule (a
   cosine to 0 over all steps), weight decay on the weights alone, images reshuffled every epoch, the last partial batch
   dropped.
4. Top-1 on the test split after every epoch. `last` is the last epoch's and is the one to quote; `best` is the epoch
   with the highest top-1 on the test split itself, so it is chosen by what it reports.

Every rank trains the same classifier on all features, which it holds twice, as they are and centred (of ImageNet's 1.28
million images at 2,048 numbers 21 GB): a step costs less than an all-reduce would, and the result is the same for any
number of ranks. There is no checkpoint: a restart does the same work again, to the same result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from barlow_lab.specs import LinearSpec
from barlow_lab.specs.protocols import ScheduleSpec
from trainer.data.keyed import Purpose, permutation
from trainer.data.registry import open_data_set
from trainer.evaluation.features import Features, labels_on
from trainer.evaluation.fitting import Scores, rate_at
from trainer.evaluation.frozen import frozen_features
from trainer.evaluation.scoring import scores_of, true_class_places
from trainer.failures import Diverged
from trainer.optim.eager import Sgd
from trainer.runtime.context import Context
from trainer.runtime.started import journal_started
from trainer.runtime.units import Stopped, Units

PHASE = "classifier"
REFERENCE_BATCH = 256
MEAN_SQUARED_NORM = 16.0
TEST_ROWS = 4096
SUMMED_ROWS = 4096
SMALL_STEP = 2**25
"""Multiplications of a step that one CPU thread does in about a millisecond."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Features of a whole split, with the class of each row."""

    values: Tensor
    """(n, d) float32."""
    labels: Tensor
    """(n,) int64."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Training:
    """How the classifier is trained; `learning_rate` is the peak one for a batch of 256."""

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule: ScheduleSpec
    seed: int

    @classmethod
    def of(cls, spec: LinearSpec) -> Training:
        """What a job asks for."""
        return cls(**{field.name: getattr(spec, field.name) for field in fields(cls)})

    @classmethod
    def of_protocol(cls, *, epochs: int, seed: int) -> Training:
        """The protocol's, for so many epochs."""
        values = {**LinearSpec.PROTOCOLS["cached-features"].values, "epochs": epochs, "seed": seed}
        del values["augment"]
        return cls(**{**values, "schedule": ScheduleSpec.model_validate(values["schedule"])})


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch has come to: the mean loss of its steps, and the scores after it in percent."""

    number: int
    loss: float
    scores: dict[str, float]


def run_linear_cached(spec: LinearSpec, context: Context) -> dict[str, Any] | None:
    """Train and test the classifier; None if a stop was asked for. Metrics `linear_loss`, and `linear_top1` and
    `linear_top5` in percent, step = epoch.

    Raises:
        BadSpec: the backbone cannot be used.
        DataError: the data cannot be used.
        Diverged: the loss is not finite; only a rate far above the default does that.
    """
    journal_started(context, spec, resume_step=0)
    units = Units(context)
    scores = Scores("top1")
    try:
        found = frozen_features(spec, open_data_set, context, units)
        train, test = (
            labelled(features, labels_on(context.device, images), f"features {name}", context)
            for name, features, images in (
                ("train", found.train, found.splits.train),
                ("test", found.test, found.splits.test),
            )
        )
        for epoch in classify(Training.of(spec), train, test, classes=found.splits.classes, phase=PHASE, units=units):
            scores.take(epoch.number, epoch.scores)
            context.step = epoch.number
            if context.journal is not None:
                values = {"linear_loss": epoch.loss} | {f"linear_{k}": v for k, v in epoch.scores.items()}
                context.journal.metrics(epoch.number, epoch.number, values)
            units.progress(
                PHASE, step=epoch.number, steps=spec.epochs, epoch=epoch.number, epochs=spec.epochs, loss=epoch.loss
            )
            units.finished()
    except Stopped:
        return None
    return {**scores.result(), "epochs": spec.epochs, **found.facts()}


def labelled(features: Features, labels: Tensor, phase: str, context: Context) -> Labelled:
    """All ranks' features on every rank, each with its class; `labels` are those of the whole split."""
    whole = features.gathered(phase, context)
    return Labelled(whole.values, labels[whole.indices])


def classify(
    training: Training, train: Labelled, test: Labelled, *, classes: int, phase: str, units: Units
) -> Iterator[Epoch]:
    """Train the classifier and test it after every epoch. Draws nothing from torch's generators.

    Raises:
        Diverged: the loss is not finite.
    """
    train, test = comparable(train, test)
    weight, bias = (
        train.values.new_zeros(shape).requires_grad_() for shape in ((classes, train.values.shape[1]), (classes,))
    )
    groups: list[dict[str, Any]] = [
        {"params": [weight], "weight_decay": training.weight_decay},
        {"params": [bias], "weight_decay": 0.0},
    ]
    optimizer = Sgd(groups, lr=0.0, momentum=training.momentum)
    for epoch in range(1, training.epochs + 1):
        with _threads_for(training.batch_size * weight.numel()):
            loss = _train_epoch(training, weight, bias, optimizer, train, epoch, phase, units)
        if not math.isfinite(loss):
            raise Diverged(f"the classifier's loss in epoch {epoch} is {loss}; lower learning_rate", epoch)
        scores = scores_of(_test(weight, bias, test), classes)
        units.working(phase)
        yield Epoch(epoch, loss, scores)


def comparable(train: Labelled, test: Labelled) -> tuple[Labelled, Labelled]:
    """Both splits less the training mean, divided by one number: mean squared norm 16 on the training split."""
    # Block by block: torch would make a copy of all features in float64.
    totals = [rows.sum(dim=0, dtype=torch.float64) for rows in torch.split(train.values, SUMMED_ROWS)]
    mean = (torch.stack(totals).sum(dim=0) / len(train)).float()
    centred, centred_test = train.values - mean, test.values - mean
    norms = [torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64) for rows in torch.split(centred, SUMMED_ROWS)]
    squared_norm = float(torch.cat(norms).square().mean())
    scale = math.sqrt(MEAN_SQUARED_NORM / squared_norm) if squared_norm > 0 else 1.0
    return Labelled(centred.mul_(scale), train.labels), Labelled(centred_test.mul_(scale), test.labels)


@contextmanager
def _threads_for(products: int) -> Iterator[None]:
    """One thread for a small step: on a busy CPU waiting for a second one costs many times the step itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if products < SMALL_STEP else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train_epoch(
    training: Training,
    weight: Tensor,
    bias: Tensor,
    optimizer: torch.optim.Optimizer,
    train: Labelled,
    epoch: int,
    phase: str,
    units: Units,
) -> float:
    """One pass over the training features; the mean loss of its steps."""
    batch = min(training.batch_size, len(train))
    steps = len(train) // batch
    peak = training.learning_rate * batch / REFERENCE_BATCH
    order = torch.from_numpy(permutation(Purpose.ORDER, training.seed, epoch, count=len(train))).to(weight.device)
    total = train.values.new_zeros(())
    for step in range(steps):
        rate = rate_at(training.schedule, (epoch - 1) * steps + step, training.epochs * steps)
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        rows = order[step * batch : (step + 1) * batch]
        loss = F.cross_entropy(F.linear(train.values[rows], weight, bias), train.labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach()
        units.working(phase)
    return float(total) / steps


@torch.no_grad()
def _test(weight: Tensor, bias: Tensor, test: Labelled) -> Tensor:
    blocks = zip(torch.split(test.values, TEST_ROWS), torch.split(test.labels, TEST_ROWS), strict=True)
    return torch.cat([true_class_places(F.linear(values, weight, bias), labels) for values, labels in blocks])
