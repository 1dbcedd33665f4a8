"""Batch normalisation over the global batch, view by view, on any device (nn.SyncBatchNorm refuses the CPU)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.runtime import collectives


class _SynchronisedNormalisation(torch.autograd.Function):
    """x (V, n, C, ...), rows of V views -> each view normalised by the mean and variance of its rows on all ranks, of
    which every one holds the same n.

    Also returns mean and biased variance (V, C) for the running statistics; they carry no gradient. One collective
    each way, for all views: forward gathers (mean, sum of squared deviations) per rank and joins them without
    cancellation (Chan, Golub, LeVeque 1979); backward sums the two reductions of the gradient, since every rank used
    the statistics for its own rows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        wide = x.to(weight.dtype)
        dims, local = _reduced(wide)
        mean = wide.mean(dims)
        squares = (wide - _along(mean, wide)).square().sum(dims)
        means, all_squares = collectives.all_gather(torch.stack([mean, squares])).unbind(1)
        mean = means.mean(0)
        count = local * collectives.world_size()
        variance = (all_squares.sum(0) + local * (means - mean).square().sum(0)) / count
        inverse_std = (variance + eps).rsqrt()
        out = (wide - _along(mean, wide)) * _along(inverse_std * weight, wide) + _along(bias[None], wide)
        # x is kept, in the dtype of the network, and its normalised values are made again.
        ctx.save_for_backward(x, weight, mean, inverse_std)
        ctx.mark_non_differentiable(mean, variance)
        return out.to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight, mean, inverse_std = ctx.saved_tensors
        gradient = gradients[0].to(weight.dtype)
        dims, local = _reduced(gradient)
        normal = (x.to(weight.dtype) - _along(mean, gradient)) * _along(inverse_std, gradient)
        shares = torch.stack([gradient.sum(dims), (gradient * normal).sum(dims)])
        count = local * collectives.world_size()
        mean_gradient, mean_projection = (collectives.all_reduce_(shares.clone()) / count).unbind()
        inner = gradient - _along(mean_gradient, gradient) - normal * _along(mean_projection, gradient)
        bias_share, weight_share = shares.sum(1).unbind()
        return (inner * _along(weight * inverse_std, gradient)).to(x.dtype), weight_share, bias_share, None


class _UnevenNormalisation(torch.autograd.Function):
    """The same of a batch of which ranks hold different numbers of rows, or one of them none.

    The number of values goes with the statistics of each rank, in the same collective, and weighs them; it stays on
    the device. Also returns it, summed over ranks, (V, C).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x.to(weight.dtype)
        dims, local = _reduced(wide)
        mean = wide.sum(dims) / max(local, 1)
        squares = (wide - _along(mean, wide)).square().sum(dims)
        local_count = torch.full_like(mean, local)
        means, all_squares, counts = collectives.all_gather(torch.stack([mean, squares, local_count])).unbind(1)
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        variance = (all_squares.sum(0) + (counts * (means - mean).square()).sum(0)) / count
        inverse_std = (variance + eps).rsqrt()
        out = (wide - _along(mean, wide)) * _along(inverse_std * weight, wide) + _along(bias[None], wide)
        ctx.save_for_backward(x, weight, mean, inverse_std, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return out.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight, mean, inverse_std, count = ctx.saved_tensors
        gradient = gradients[0].to(weight.dtype)
        dims, _ = _reduced(gradient)
        normal = (x.to(weight.dtype) - _along(mean, gradient)) * _along(inverse_std, gradient)
        shares = torch.stack([gradient.sum(dims), (gradient * normal).sum(dims)])
        mean_gradient, mean_projection = (collectives.all_reduce_(shares.clone()) / count).unbind()
        inner = gradient - _along(mean_gradient, gradient) - normal * _along(mean_projection, gradient)
        bias_share, weight_share = shares.sum(1).unbind()
        return (inner * _along(weight * inverse_std, gradient)).to(x.dtype), weight_share, bias_share, None


def _reduced(x: Tensor) -> tuple[list[int], int]:
    """The dimensions of (V, n, C, ...) that statistics go over, and the values of one view and channel in them."""
    dims = [d for d in range(x.ndim) if d not in (0, 2)]
    return dims, x.numel() // (x.shape[0] * x.shape[2])


def _along(per_channel: Tensor, like: Tensor) -> Tensor:
    """(V, C) -> (V, 1, C, 1, ...), to broadcast against `like` (V, n, C, ...)."""
    return per_channel.view(*per_channel.shape, *[1] * (like.ndim - 2)).movedim(1, 2)


class SynchronisedBatchNorm(_BatchNorm):
    """nn.BatchNorm*d whose training statistics are those of the batch of all ranks, view by view.

    In training mode the input holds the rows of `views` views, one view after the other, each with its own statistics;
    the running statistics take them in this order, as they would from a forward pass for each view, and on one rank
    the bits are those of such passes through nn.BatchNorm*d. Every rank must hold the same number of values a channel,
    unless `uneven`: then each counts by what it holds, the regions of a detector's images for one.
    `tracking` False leaves the running statistics as they are. In evaluation mode neither matters. Parameters, buffers
    and state_dict are nn.BatchNorm*d's.
    """

    views: int = 1
    uneven: bool = False
    tracking: bool = True

    def forward(self, input: Tensor) -> Tensor:
        """(V n, C, ...) -> the same shape; (n, C, ...) of running statistics in eval mode."""
        if not self.training:
            plain: Tensor = super().forward(input)
            return plain
        assert input.shape[0] % self.views == 0, (input.shape, self.views)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        if self.tracking:
            self.num_batches_tracked.add_(self.views)
        if collectives.world_size() == 1:
            return self._alone(input)
        return self._together(input, self.running_mean, self.running_var, self.momentum)

    def _alone(self, input: Tensor) -> Tensor:
        running = (self.running_mean, self.running_var) if self.tracking else (None, None)
        parts = [
            nn.functional.batch_norm(
                rows, *running, self.weight, self.bias, training=True, momentum=self.momentum or 0.0, eps=self.eps
            )
            for rows in input.chunk(self.views)
        ]
        return torch.cat(parts) if self.views > 1 else parts[0]

    def _together(self, input: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float) -> Tensor:
        by_view = input.view(self.views, input.shape[0] // self.views, *input.shape[1:])
        count: Any
        if self.uneven:
            out, means, variances, counts = _UnevenNormalisation.apply(by_view, self.weight, self.bias, self.eps)
            count = counts[0]
        else:
            out, means, variances = _SynchronisedNormalisation.apply(by_view, self.weight, self.bias, self.eps)
            count = input.numel() // (self.views * input.shape[1]) * collectives.world_size()
        if self.tracking:
            with torch.no_grad():
                for mean, variance in zip(means.unbind(), variances.unbind(), strict=True):
                    running_mean.lerp_(mean, momentum)
                    running_var.lerp_(variance * (count / (count - 1)), momentum)
        normalised: Tensor = out.flatten(0, 1)
        return normalised

    def _check_input_dim(self, input: Tensor) -> None:
        """Any (n, C, ...) will do."""


def synchronise_batch_norm(module: nn.Module, *, views: int = 1, uneven: bool = False) -> nn.Module:
    """Put a SynchronisedBatchNorm of `views` views in the place of every batch normalisation in `module`; returns
    `module` or the one in its place. `uneven`: ranks may hold different numbers of rows, or rows of other sizes.
    Parameters and buffers are taken over, not copied; one that stands in several places stays one.

    Raises:
        ValueError: one of them has no affine parameters or no running average.
    """
    replaced: dict[nn.Module, nn.Module] = {
        m: _synchronised(m, views, uneven) for m in module.modules() if isinstance(m, _BatchNorm)
    }
    for parent in list(module.modules()):
        for name, child in parent._modules.items():  # named_children() leaves a second name of one child out
            if isinstance(child, _BatchNorm):
                setattr(parent, name, replaced[child])
    return replaced.get(module, module)


def _synchronised(module: _BatchNorm, views: int, uneven: bool) -> SynchronisedBatchNorm:
    if not module.affine or not module.track_running_stats or module.momentum is None:
        raise ValueError("only batch normalisation with affine parameters and a running average is supported")
    out = SynchronisedBatchNorm(module.num_features, eps=module.eps, momentum=module.momentum)
    out.views, out.uneven = views, uneven
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
        self._norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        buffers = [(norm, name) for norm in self._norms for name in ("running_mean", "running_var")]
        tensors = [getattr(norm, name) for norm, name in buffers]
        self.flat = torch.cat(tensors) if tensors else torch.zeros(0, device=next(model.parameters()).device)
        for (norm, name), view in zip(buffers, torch.split(self.flat, [len(t) for t in tensors]), strict=True):
            setattr(norm, name, view)

    def restore_unless(self, keep: Tensor, before: Tensor) -> None:
        """Go back to `before`, a clone of `flat`, where the boolean scalar `keep` is false; no host sync."""
        self.flat.copy_(torch.where(keep, self.flat, before.to(self.flat.device)))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it forward passes leave the running statistics as they are."""
        synchronised = [norm for norm in self._norms if isinstance(norm, SynchronisedBatchNorm)]
        for norm in synchronised:
            norm.tracking = False
        try:
            yield
        finally:
            for norm in synchronised:
                norm.tracking = True
