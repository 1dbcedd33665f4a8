"""Stochastic gradient descent of an evaluation that trains: momentum, rates by group, the true gradient of all ranks.

With gradient g summed over ranks (trainer.runtime.collectives), rate lr, weight decay d and momentum m:

    v = m v + g + d p;   p = p - lr v

A step whose gradient is not finite moves nothing, and the run is over. The gradient of a classifier may
stay finite while a rate that is far too high takes the parameters beyond what their dtype can hold; that is the end as
well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from barlow_lab.specs.kinds.evaluation import EvaluationPrecision
from trainer.failures import Diverged
from trainer.optim.build import load_optimizer
from trainer.optim.eager import Sgd
from trainer.runtime.batch_norm import RunningStatistics
from trainer.runtime.gradients import Gradients
from trainer.runtime.precision import StepGuard


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters with one peak rate and one weight decay."""

    parameters: Sequence[nn.Parameter]
    peak_rate: float
    weight_decay: float


class Descent:
    """SGD with momentum over `groups`; every parameter requires a gradient, has one dtype and lies on the device."""

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[Group],
        *,
        momentum: float,
        precision: EvaluationPrecision,
        device: torch.device,
        remedy: str = "lower learning_rate",
    ) -> None:
        """`module` holds all that a forward pass changes: a step that is not taken gives back its statistics. `remedy`
        is said of a run that diverges."""
        self._statistics = RunningStatistics(module)
        self._before = self._statistics.flat.clone()
        parameters = [parameter for group in groups for parameter in group.parameters]
        self._parameters = parameters
        self._remedy = remedy
        self._gradients = Gradients(parameters)
        self._guard = StepGuard(precision, device)
        split: list[dict[str, Any]] = [
            {"params": list(g.parameters), "peak_rate": g.peak_rate, "weight_decay": g.weight_decay} for g in groups
        ]
        self._optimizer = Sgd(split, lr=0.0, momentum=momentum, fused=True)
        if momentum:
            for parameter in parameters:  # a first step that is not taken would leave uninitialised memory
                self._optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def begin(self) -> None:
        """Prepare a forward pass: keep the running statistics as they are before it, clear the gradients."""
        self._before.copy_(self._statistics.flat)
        self._gradients.clear()

    def step(self, loss: Tensor, step: int, rate: float) -> Tensor:
        """Go down the gradient of `loss`, this rank's share of the global loss, with `rate` times each peak rate;
        returns the norm of the gradient (scalar on the device). The host waits for nothing."""
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self._gradients.reduce(None)
        good = self._guard.admit(norm, step)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_rate"] * rate
        self._optimizer.found_inf = (~good).float()  # type: ignore[attr-defined]
        self._optimizer.step()
        self._statistics.restore_unless(good, self._before)
        return norm

    @property
    def rate(self) -> float:
        """The rate of the last step, the highest of all groups."""
        return max(float(group["lr"]) for group in self._optimizer.param_groups)

    def raise_if_diverged(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Look at what the steps up to `step` have left, and at the `metrics` of this one; waits for the device.

        Raises:
            Diverged: a step's gradient was not finite, or a parameter or a metric is not; the same on every rank.
        """
        if bad_step := int(self._guard.diverged_at):
            said = f"{self._guard.said(bad_step)}; the parameters were left as they were before it"
            raise Diverged(f"{said}. To mend it, {self._remedy}", bad_step)
        # The largest magnitude of all: the device is waited for once, not once a parameter.
        if not bool(nn.utils.get_total_norm(self._parameters, math.inf).isfinite()):
            raise Diverged(f"after step {step} the parameters are not finite; {self._remedy}", step)
        for name, value in (metrics or {}).items():
            if not math.isfinite(value):
                raise Diverged(f"{name} of step {step} is {value}; {self._remedy}", step)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state; the parameters are the module's own."""
        return {"optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        load_optimizer(self._optimizer, state["optimizer"])
