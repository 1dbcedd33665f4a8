"""The reference's training step on real ranks, in float64, and ours from the recipe that its numbers convert to.

Run by test_recipes_reference.py: as a script, `python reference_steps.py FOLDER`, on RANKS ranks, and `ours` in the
test's own process for one rank.

Shape suffixes: n images, d features.
"""

import math
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rank_laws import share
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from barlow_lab.specs import BackboneSpec, PretrainSpec
from trainer.data.pixels import PIXEL_MEAN, PIXEL_STD
from trainer.models.backbones import build_backbone
from trainer.models.projector import build_projector
from trainer.optim.schedules import Schedule
from trainer.runtime import process_group
from trainer.runtime.batch_norm import synchronise_batch_norm
from trainer.runtime.rank_exit import end_process
from trainer.train_state import TrainState

RANKS = 4
BATCH = 16
STEPS, WARMUP, TOTAL = 5, 2, 8
PUBLISHED = {"weights": 4.0, "biases": 0.16, "weight_decay": 1e-3, "lambda": 0.0051, "loss_scale": 0.5}
"""As a run of RANKS ranks would be published, with a loss scale as the code of March 2021 had it. Large enough that
five steps move a small network visibly."""
WIDTHS = [24, 16]


def views(step: int) -> Tensor:
    """(2, BATCH, 3, 16, 16) uint8: two related views, other images at every step."""
    generator = torch.Generator().manual_seed(100 + step)
    both = torch.randint(0, 256, (2, BATCH, 3, 16, 16), generator=generator, dtype=torch.uint8)
    both[1] = (both[0].float() * 0.8 + both[1].float() * 0.2).to(torch.uint8)
    return both


class Reference(nn.Module):
    """Forward to the loss as facebookresearch/barlowtwins computes it, with synchronised BN that runs on a CPU.

    One thing is left out: the 1e-5 that its last normalisation adds to the variance of an embedding.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_backbone(BackboneSpec(name="tiny"), seed=0)
        self.projector = build_projector(128, WIDTHS, seed=0)

    def forward(self, view_a: Tensor, view_b: Tensor) -> Tensor:
        x_nd, y_nd = (self._standardised(self.projector(self.backbone(view))) for view in (view_a, view_b))
        correlation = x_nd.T @ y_nd / BATCH
        dist.all_reduce(correlation)  # in place: autograd goes on as if nothing had been added
        diagonal = correlation.diagonal()
        off_diagonal = correlation.square().sum() - diagonal.square().sum()
        return PUBLISHED["loss_scale"] * ((1 - diagonal).square().sum() + PUBLISHED["lambda"] * off_diagonal)

    @staticmethod
    def _standardised(z_nd: Tensor) -> Tensor:
        """By mean and variance of all ranks' rows; the gradient through them is summed over the ranks."""
        mean = _SummedOverRanks.apply(z_nd.sum(0)) / BATCH
        variance = _SummedOverRanks.apply((z_nd - mean).square().sum(0)) / BATCH
        return (z_nd - mean) / variance.sqrt()


class _SummedOverRanks(torch.autograd.Function):
    """As nn.SyncBatchNorm sums its statistics: over ranks forward, and their gradient over ranks backward."""

    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        total = share.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def reference(rank: int) -> dict[str, Tensor]:
    """All parameters after STEPS steps on RANKS ranks: DDP's mean of the gradients, LARS tensor by tensor."""
    model = synchronise_batch_norm(Reference()).double().train()
    parallel = DistributedDataParallel(model)
    momentum = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for step in range(STEPS):
        model.zero_grad()
        mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
        pixels = [(share(view, rank, RANKS).double() / 255 - mean) / std for view in views(step)]
        parallel(*pixels).backward()
        rate = _rate(step)
        with torch.no_grad():
            for name, p in model.named_parameters():
                assert p.grad is not None
                update = p.grad
                if p.ndim != 1:
                    update = update + PUBLISHED["weight_decay"] * p
                    update = update * (0.001 * p.norm() / update.norm())
                momentum[name] = 0.9 * momentum[name] + update
                p -= rate * PUBLISHED["biases" if p.ndim == 1 else "weights"] * momentum[name]
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _rate(step: int) -> float:
    """The fraction of the peak: a line to it over WARMUP steps, then a cosine to a thousandth."""
    if step < WARMUP:
        return step / WARMUP
    cosine = 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (TOTAL - WARMUP)))
    return cosine + 0.001 * (1 - cosine)


def converted() -> dict[str, float]:
    """The published numbers in true-gradient units, by the arithmetic of the recipe files."""
    scale = PUBLISHED["loss_scale"]
    return {
        "learning_rate": PUBLISHED["weights"],
        "bias_learning_rate": PUBLISHED["biases"] * scale / RANKS,
        "weight_decay": PUBLISHED["weight_decay"] * RANKS / scale,
    }


def ours(rates: dict[str, float], rank: int, ranks: int) -> dict[str, Tensor]:
    """All parameters after STEPS steps of our trainer."""
    spec = PretrainSpec.model_validate(
        {
            "data": "digits",
            "backbone": {"name": "tiny"},
            "projector": {"widths": WIDTHS},
            "objective": {"lambda": PUBLISHED["lambda"]},
            "optimizer": {"name": "lars", "reference_batch_size": None, **rates},
            "batch_size": BATCH,
            "precision": "fp64",
        }
    )
    state = TrainState(spec, Schedule(WARMUP, TOTAL, 0.001), torch.device("cpu"))
    for step in range(STEPS):
        state.update(*(share(view, rank, ranks) for view in views(step)), step + 1)
    state.raise_if_diverged()
    return {name: p.detach().clone() for name, p in state.model.named_parameters()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = process_group.join()
    results = {"reference": reference(place.rank), "ours": ours(converted(), place.rank, RANKS)}
    torch.save(results, Path(sys.argv[1]) / f"{place.rank}.pt")
    process_group.leave()
    end_process(0)
