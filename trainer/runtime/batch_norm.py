"""Batch normalisation over the global batch, on any device (nn.SyncBatchNorm refuses the CPU)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.runtime import collectives


class _SynchronisedNormalisation(torch.autograd.Function):
    """x (n, C, ...) -> normalised by the mean and variance of all ranks' x; every rank holds the same n.

    Also returns mean and biased variance (C,) for the running statistics; they carry no gradient. One collective
    each way: forward gathers (mean, sum of squared deviations) per rank and joins them without cancellation (Chan,
    Golub, LeVeque 1979); backward sums the two reductions of the gradient, since every rank used the statistics for
    its own rows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        dims = [d for d in range(x.ndim) if d != 1]
        local = x.numel() // x.shape[1]
        count = local * collectives.world_size()
        x32 = x.to(weight.dtype)
        mean = x32.mean(dims)
        squares = (x32 - _wide(mean, x)).square().sum(dims)
        means, all_squares = collectives.all_gather(torch.stack([mean, squares])).unbind(1)
        mean = means.mean(0)
        variance = (all_squares.sum(0) + local * (means - mean).square().sum(0)) / count
        inverse_std = (variance + eps).rsqrt()
        normal = (x32 - _wide(mean, x)) * _wide(inverse_std, x)
        ctx.save_for_backward(normal, weight, inverse_std)
        ctx.mark_non_differentiable(mean, variance)
        return (normal * _wide(weight, x) + _wide(bias, x)).to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        normal, weight, inverse_std = ctx.saved_tensors
        gradient = gradients[0].to(weight.dtype)
        dims = [d for d in range(gradient.ndim) if d != 1]
        bias_share = gradient.sum(dims)
        weight_share = (gradient * normal).sum(dims)
        total = collectives.all_reduce_(torch.stack([bias_share, weight_share]))
        count = gradient.numel() // gradient.shape[1] * collectives.world_size()
        mean_gradient, mean_projection = (total / count).unbind()
        inner = gradient - _wide(mean_gradient, gradient) - normal * _wide(mean_projection, gradient)
        return (
            (inner * _wide(weight * inverse_std, gradient)).to(gradients[0].dtype),
            weight_share,
            bias_share,
            None,
        )


def _wide(per_channel: Tensor, like: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), to broadcast against `like`."""
    return per_channel.view(1, -1, *[1] * (like.ndim - 2))


class SynchronisedBatchNorm(_BatchNorm):
    """nn.BatchNorm*d whose training statistics are those of the batch of all ranks.

    Every rank must hold the same number of rows. Parameters, buffers and state_dict are nn.BatchNorm*d's.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(n, C, ...) -> the same shape; (n, C, ...) of running statistics in eval mode."""
        if not self.training or collectives.world_size() == 1:
            plain: Tensor = super().forward(input)
            return plain
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        out, mean, variance = _SynchronisedNormalisation.apply(input, self.weight, self.bias, self.eps)
        with torch.no_grad():
            count = input.numel() // input.shape[1] * collectives.world_size()
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        normalised: Tensor = out
        return normalised

    def _check_input_dim(self, input: Tensor) -> None:
        """Any (n, C, ...) will do."""


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """Put a SynchronisedBatchNorm in the place of every batch normalisation in `module`; returns `module` or the one
    in its place. Parameters and buffers are taken over, not copied.

    Raises:
        ValueError: one of them has no affine parameters or no running average.
    """
    for name, child in module.named_children():
        setattr(module, name, synchronise_batch_norm(child))
    if not isinstance(module, _BatchNorm):
        return module
    if not module.affine or not module.track_running_stats or module.momentum is None:
        raise ValueError("only batch normalisation with affine parameters and a running average is supported")
    out = SynchronisedBatchNorm(module.num_features, eps=module.eps, momentum=module.momentum)
    out.weight, out.bias = module.weight, module.bias
    out.running_mean, out.running_var = module.running_mean, module.running_var
    out.num_batches_tracked = module.num_batches_tracked
    out.train(module.training)
    return out


class RunningStatistics:
    """The running statistics of all batch normalisations of a model in one tensor, to take a forward pass back.

    Build it when the model is on its device: from then on the buffers are views of `flat`.
    """

    def __init__(self, model: nn.Module) -> None:
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        buffers = [(norm, name) for norm in norms for name in ("running_mean", "running_var")]
        tensors = [getattr(norm, name) for norm, name in buffers]
        self.flat = torch.cat(tensors) if tensors else torch.zeros(0)
        for (norm, name), view in zip(buffers, torch.split(self.flat, [len(t) for t in tensors]), strict=True):
            setattr(norm, name, view)

    def restore_unless(self, keep: Tensor, before: Tensor) -> None:
        """Go back to `before`, a clone of `flat`, where the boolean scalar `keep` is false; no host sync."""
        self.flat.copy_(torch.where(keep, self.flat, before.to(self.flat.device)))
