"""Collectives over the default process group; with one process every one of them is the identity.

The gradient convention of the whole trainer, stated here and nowhere else
--------------------------------------------------------------------------
There is one global loss L. Every rank computes its value, and on every rank the gradient of an activation is the
true derivative of L with respect to that rank's activation. A parameter is replicated, so each rank's gradient of it
is that rank's *share* of dL/dp, and the true gradient is the SUM of the shares (`all_reduce_`), never their mean.

With it the backward of a sum over ranks, S = sum_r s_r, depends on who uses S:

- every rank computes the same thing from S (the correlation matrix, and L from it): each holds the whole dL/dS
  already and dS/ds_r = 1, so the backward is the identity. Reducing again would count L W times. Objectives
  do so in their own backward (trainer.objectives.barlow_twins), or by `sum_over_ranks`.
- each rank uses S for its own rows (batch statistics): each holds a share of dL/dS, so the backward sums the shares.
  Synchronised batch normalisation does that in its own backward.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's place among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def all_reduce_(tensor: Tensor) -> Tensor:
    """Sum over ranks in place, outside autograd. The bits are the same on every rank."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def sum_over_ranks(share: Tensor) -> Tensor:
    """The sum over ranks, from which every rank computes the same: the backward is the identity."""
    total: Tensor = _SumOverRanks.apply(share)
    return total


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        return all_reduce_(share.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


def all_reduce_max_(tensor: Tensor) -> Tensor:
    """Maximum over ranks in place, outside autograd."""
    if world_size() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor


def all_gather(tensor: Tensor) -> Tensor:
    """(...) of the same shape on every rank -> (W, ...), outside autograd."""
    out = tensor.new_empty((world_size(), *tensor.shape))
    if world_size() == 1:
        out[0] = tensor
    else:
        dist.all_gather(list(out.unbind()), tensor.contiguous())
    return out


def all_gather_rows(rows: Tensor) -> Tensor:
    """(n_r, ...) -> (sum of n_r, ...) in rank order, outside autograd; ranks may hold different numbers of rows."""
    if world_size() == 1:
        return rows.detach()
    counts = all_gather(torch.tensor(rows.shape[0], device=rows.device)).tolist()
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: rows.shape[0]] = rows.detach()
    gathered = all_gather(padded)
    return torch.cat([gathered[rank, :count] for rank, count in enumerate(counts)])


def all_gather_texts(texts: Iterable[str], device: torch.device) -> list[str]:
    """The texts of all ranks, in rank order. They travel as JSON: torch would pickle objects."""
    lines = bytearray("".join(f"{json.dumps(text)}\n" for text in texts), "ascii")
    mine = torch.frombuffer(lines, dtype=torch.uint8) if lines else torch.empty(0, dtype=torch.uint8)
    every = all_gather_rows(mine.to(device))
    return [json.loads(line) for line in every.cpu().numpy().tobytes().splitlines()]
