"""The parts of the trainer's benchmark on a CPU: each compares one thing with the reference, and checks it is equal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import measuring
import numpy as np
import reference
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from trainer.data.batch import Batch, batch_memory
from trainer.data.loading.pool import Task, ahead, pieces
from trainer.objectives.barlow_twins import barlow_twins
from trainer.optim.groups import parameter_groups
from trainer.optim.lars import Lars

LOSS_SAMPLES, LOSS_FEATURES = 128, 4096
HAND_OVER_BATCH = 128
VIEW = 224


def loss(rounds: int) -> dict[str, Any]:
    """Forward and backward from two embeddings: the whole matrix as the reference forms it, and ours."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, LOSS_SAMPLES, LOSS_FEATURES, generator=generator)
    z[1] = 0.7 * z[0] + 0.3 * z[1]

    def whole(z_a: Tensor, z_b: Tensor) -> Tensor:
        x, y = (nn.functional.batch_norm(v, None, None, training=True, eps=1e-12) for v in (z_a, z_b))
        return reference.direct_loss(x, y)

    def ours(z_a: Tensor, z_b: Tensor) -> Tensor:
        return barlow_twins(z_a, z_b, reference.LAMBDA).loss

    def run(form: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        views = z.to(dtype).requires_grad_()
        value = form(*views.unbind())
        return value.detach().double(), torch.autograd.grad(value, views)[0].double()

    found = measuring.in_turn(
        {name: partial(measuring.seconds_of, partial(run, form)) for name, form in (("whole", whole), ("ours", ours))},
        rounds,
    )
    exact, exact_gradient = run(whole, torch.float64)
    value, gradient = run(ours)
    return {
        "what": f"loss and its gradient at N {LOSS_SAMPLES}, d {LOSS_FEATURES}",
        "unit": "s",
        **measuring.compared(found["whole"], found["ours"], bar=10.0, more_is_better=False),
        "checks": [
            measuring.check("loss in float32, relative", float((value / exact - 1).abs()), 1e-5),
            measuring.check("its gradient, relative", _relative(gradient, exact_gradient), 1e-5),
        ],
    }


def lars(rounds: int, repeat: int = 20) -> dict[str, Any]:
    """One update of as many tensors as ResNet-50 and three layers have, each tiny: what remains is the dispatch."""

    class Tensors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(
                [nn.Linear(4, 4, bias=False) for _ in range(56)] + [nn.LayerNorm(16) for _ in range(55)]
            )

    def built(ours: bool) -> tuple[Tensors, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = Tensors()
        split = parameter_groups(model)
        adapted, others = {"params": split.matrices, "lr": 0.2}, {"params": split.others, "lr": 0.0048}
        if not ours:
            return model, reference.LoopLars([adapted, others])
        optimizer = Lars([adapted, {**others, "adapted": False, "weight_decay": 0.0}], lr=0.0, **reference.LARS)
        optimizer.found_inf = torch.zeros(())  # as every step of the trainer sets it
        return model, optimizer

    def gradients(model: nn.Module) -> None:
        generator = torch.Generator().manual_seed(1)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)

    models: dict[str, Tensors] = {}
    work: dict[str, Callable[[], float]] = {}
    for name in ("loop", "ours"):
        models[name], optimizer = built(name == "ours")
        gradients(models[name])
        work[name] = partial(measuring.seconds_of, optimizer.step, repeat)
    found = measuring.in_turn(work, rounds)
    pairs = zip(models["loop"].parameters(), models["ours"].parameters(), strict=True)
    furthest = max(float((a - b).detach().abs().max()) for a, b in pairs)
    return {
        "what": "LARS, dispatch of 166 tiny tensors",
        "unit": "s",
        **measuring.compared(found["loop"], found["ours"], bar=1.7, more_is_better=False),
        "checks": [measuring.check(f"parameters after {(rounds + 1) * repeat} updates, difference", furthest, 0.0)],
    }


class _TwoFloatViews(Dataset[tuple[tuple[Tensor, Tensor], int]]):
    """Views that are there already: what is left is handing them over."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._views = (torch.zeros(3, VIEW, VIEW), torch.ones(3, VIEW, VIEW))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, Tensor], int]:
        return self._views, index


def hand_over(rounds: int, batches: int = 12) -> dict[str, Any]:
    """From one loading worker to the training loop: float32 views through a DataLoader process, crops in place."""
    images = batches * HAND_OVER_BATCH

    def through_a_process() -> float:
        # Its start is not the hand-over: the clock runs from the first batch on.
        source = iter(DataLoader(_TwoFloatViews(images + HAND_OVER_BATCH), HAND_OVER_BATCH, num_workers=1))
        return _seconds_after_the_first(source)

    crops = torch.zeros(2, 3, VIEW, VIEW, dtype=torch.uint8).numpy()

    def jobs() -> Iterator[Task[Batch]]:
        indices = np.arange(HAND_OVER_BATCH)
        for step in range(1, batches + 2):
            memory = batch_memory(HAND_OVER_BATCH, VIEW, tables=True, pinned=False)
            batch = Batch(step, 0, indices, VIEW, memory)
            pixels = batch.pixels(memory).numpy()

            def load(row: int, pixels: np.ndarray = pixels) -> None:
                pixels[:, row] = crops

            yield Task(batch, pieces(load, indices, 1, lambda: None))

    def in_place() -> float:
        with closing(ahead(jobs(), 1)) as source:
            return _seconds_after_the_first(source)

    found = measuring.in_turn({"process": through_a_process, "ours": in_place}, rounds)
    return {
        "what": "hand-over of an image's two views to the training loop",
        "unit": "images/s",
        **measuring.compared(
            measuring.rates(images, found["process"]),
            measuring.rates(images, found["ours"]),
            bar=10.0,
            more_is_better=True,
        ),
        "checks": [],
    }


def _seconds_after_the_first(source: Iterator[Any]) -> float:
    next(source)
    begun = time.perf_counter()
    for _ in source:
        pass
    return time.perf_counter() - begun


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())
