"""What the epsilon does that other implementations have in their normalisation and this objective has not.

    python benchmarks/epsilon.py [--epochs 20]

Trains the network of recipes/suite.yaml and prints, as it goes on, the standard deviations of the embeddings and what a
batch normalisation with an epsilon of 1e-5 in the last place, as in facebookresearch/barlowtwins, would do to loss and
gradient there. docs/objective.md quotes it.

Shape suffixes: 2 views, n samples, d features.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from barlow_lab.specs import PretrainSpec, parse_spec
from trainer import train_state
from trainer.objectives.barlow_twins import BarlowTwinsTerms, barlow_twins
from trainer.objectives.correlation import noise_floor
from trainer.pretraining import pretrain
from trainer.runtime.context import Context
from trainer.runtime.stopping import StopRequests

EPSILON = 1e-5
ROOT = Path(__file__).resolve().parents[1]


def with_epsilon(z_a_nd: Tensor, z_b_nd: Tensor, lambda_: float, form: str = "direct") -> BarlowTwinsTerms:
    """The terms with variances to which EPSILON is added, from the whole matrix, on one rank."""
    a_nd, b_nd = (F.batch_norm(z, None, None, training=True, eps=EPSILON) for z in (z_a_nd, z_b_nd))
    c_dd = a_nd.T @ b_nd / len(a_nd)
    diagonal_d, features = c_dd.diagonal(), c_dd.shape[0]
    on = (1 - diagonal_d).square().sum()
    off = c_dd.square().sum() - diagonal_d.square().sum()
    floor = noise_floor(features, len(a_nd))
    rms = (off / (features * (features - 1))).clamp(min=0).sqrt()
    return BarlowTwinsTerms(on + lambda_ * off, on, off, lambda_ * (off - floor), diagonal_d.mean(), rms, floor)


def told(z_a_nd: Tensor, z_b_nd: Tensor, lambda_: float) -> str:
    """One line: standard deviations, and what the epsilon does to loss and gradient at these embeddings."""
    z_2nd = torch.stack([z_a_nd, z_b_nd]).detach()
    deviations = z_2nd.std(dim=1).flatten()
    found = []
    for objective in (barlow_twins, with_epsilon):
        leaf = z_2nd.clone().requires_grad_()
        loss = objective(leaf[0], leaf[1], lambda_).loss
        (gradient,) = torch.autograd.grad(loss, leaf)
        found.append((loss.item(), gradient.flatten()))
    (ours, g_ours), (theirs, g_theirs) = found
    apart = (g_theirs - g_ours).norm() / g_ours.norm()
    return (
        f"std {deviations.min():.3g} to {deviations.max():.3g}, median {deviations.median():.3g}; loss {ours:.4f}, "
        f"with epsilon {theirs:.4f} ({(theirs - ours) / ours:+.1e}); gradient apart by {apart:.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = yaml.safe_load((ROOT / "recipes/suite.yaml").read_text())["jobs"]["pretrain"]
    spec = parse_spec({**recipe, "epochs": arguments.epochs})
    assert isinstance(spec, PretrainSpec)
    steps = 0

    def watched(z_a_nd: Tensor, z_b_nd: Tensor, lambda_: float, form: Any) -> BarlowTwinsTerms:
        nonlocal steps
        steps += 1
        if steps in (1, 5, 20) or steps % 40 == 0:
            print(f"step {steps:4}: {told(z_a_nd, z_b_nd, lambda_)}", file=sys.__stdout__, flush=True)
        return barlow_twins(z_a_nd, z_b_nd, lambda_, form)

    vars(train_state)["barlow_twins"] = watched
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        stop = StopRequests(folder / "control.json", rank=0, device=device)
        context = Context(0, 1, device, 1, folder, folder, 1, {"backbone": None, "data": {}}, None, stop)
        with open(folder / "trainer.log", "w") as log, contextlib.redirect_stdout(log):
            pretrain(spec, context)


if __name__ == "__main__":
    main()
