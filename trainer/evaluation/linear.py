"""A linear classifier on cached features: protocol `linear-cached-features/1`.

1. Features of the un-augmented training images are computed once.
2. The training mean is taken off, and everything is divided by one number so that the mean squared norm of a training
   feature is 16; test features likewise, by the same numbers. The result then depends neither on the scale of the
   features nor on a rotation of them, and the default rate is stable for any features: the curvature of the softmax
   loss is at most half the mean squared norm (17 with the bias), and SGD with momentum m needs
   rate < 2 (1 + m) / curvature = 0.447 at m = 0.9.
3. From zero weights: SGD with momentum, the rate falling by a cosine from learning_rate x batch / 256 to 0 over all
   steps, weight decay on the weights alone, images reshuffled every epoch, the last partial batch dropped.
4. Top-1 on the test split after every epoch. `last` is the last epoch's and is the one to quote; `best` is the epoch
   with the highest top-1 on the test split itself, so it is chosen by what it reports.

Every rank trains the same classifier on all features: a step costs less than an all-reduce would, and the result is
the same for any number of ranks. There is no checkpoint: a restart does the same work again, to the same result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.data.keyed import Purpose, permutation
from trainer.evaluation.features import Features
from trainer.evaluation.scoring import top, top5, true_class_places
from trainer.evaluation.units import Units
from trainer.outcome import Diverged
from trainer.runtime.context import Context
from trainer.specs import LinearSpec

PROTOCOL = "linear-cached-features/1"
PHASE = "classifier"
MEAN_SQUARED_NORM = 16.0
TEST_ROWS = 4096
SMALL_STEP = 2**25
"""Multiplications of a step that one CPU thread does in about a millisecond."""


@dataclass(frozen=True, slots=True)
class _Score:
    epoch: int
    top1: float
    top5: float | None


def run_linear(
    spec: LinearSpec, train: Features, test: Features, *, classes: int, context: Context, units: Units
) -> dict[str, Any]:
    """Train and test the classifier; metrics `linear_loss`, `linear_top1`, `linear_top5` in percent, step = epoch.

    Raises:
        Diverged: the loss is not finite; only a rate far above the default does that.
        Stopped: a stop was asked for.
    """
    train, test = comparable(train, test)
    head = nn.Linear(train.values.shape[1], classes, device=context.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    groups: list[dict[str, Any]] = [
        {"params": [head.weight], "weight_decay": spec.weight_decay},
        {"params": [head.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=spec.momentum)
    best = last = _Score(0, -1.0, None)
    for epoch in range(1, spec.epochs + 1):
        with _threads_for(spec.head_batch_size * head.weight.numel()):
            loss = _train_epoch(spec, head, optimizer, train, epoch, context)
        if not math.isfinite(loss):
            raise Diverged(f"the classifier's loss in epoch {epoch} is {loss}; lower learning_rate", epoch)
        places = _test(head, test)
        context.working(PHASE)
        last = _Score(epoch, top(places, 1), top5(places, classes))
        best = last if last.top1 > best.top1 else best
        context.step = epoch
        if context.journal is not None:
            values = {"linear_loss": loss, "linear_top1": last.top1}
            context.journal.metrics(epoch, epoch, values | ({} if last.top5 is None else {"linear_top5": last.top5}))
        context.progress(PHASE, step=epoch, steps=spec.epochs, epoch=epoch, epochs=spec.epochs, loss=loss)
        units.finished()
    return {
        "protocol": PROTOCOL,
        "top1": {"last": last.top1, "best": best.top1},
        "top5": None if last.top5 is None else {"last": last.top5, "best": best.top5},
        "epochs": spec.epochs,
        "best_epoch": best.epoch,
        "learning_rate": spec.learning_rate,
        "momentum": spec.momentum,
        "weight_decay": spec.weight_decay,
        "head_batch_size": spec.head_batch_size,
    }


def comparable(train: Features, test: Features) -> tuple[Features, Features]:
    """Both splits less the training mean, divided by one number: mean squared norm 16 on the training split."""
    mean = train.values.double().mean(dim=0).float()
    centred = train.values - mean
    squared_norm = float(centred.square().sum(dim=1).double().mean())
    scale = math.sqrt(MEAN_SQUARED_NORM / squared_norm) if squared_norm > 0 else 1.0
    return Features(centred * scale, train.labels), Features((test.values - mean) * scale, test.labels)


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
    spec: LinearSpec,
    head: nn.Linear,
    optimizer: torch.optim.Optimizer,
    train: Features,
    epoch: int,
    context: Context,
) -> float:
    """One pass over the training features; the mean loss of its steps."""
    batch = min(spec.head_batch_size, len(train))
    steps = len(train) // batch
    peak = spec.learning_rate * batch / 256
    order = torch.from_numpy(permutation(Purpose.ORDER, spec.seed, epoch, count=len(train))).to(train.labels.device)
    total = train.values.new_zeros(())
    for step in range(steps):
        done = ((epoch - 1) * steps + step) / (spec.epochs * steps)
        for group in optimizer.param_groups:
            group["lr"] = peak * 0.5 * (1 + math.cos(math.pi * done))
        rows = order[step * batch : (step + 1) * batch]
        loss = F.cross_entropy(head(train.values[rows]), train.labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach()
        context.working(PHASE)
    return float(total) / steps


@torch.no_grad()
def _test(head: nn.Linear, test: Features) -> Tensor:
    blocks = zip(torch.split(test.values, TEST_ROWS), torch.split(test.labels, TEST_ROWS), strict=True)
    return torch.cat([true_class_places(head(values), labels) for values, labels in blocks])
