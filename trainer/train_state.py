"""What a pretraining run changes step by step: backbone, projector, optimiser; and the step itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainer.data.pixels import normalise
from trainer.models.backbones import build_backbone
from trainer.models.projector import build_projector
from trainer.objectives.barlow_twins import BarlowTwinsTerms, barlow_twins
from trainer.optim.build import build_optimizer, set_rates
from trainer.optim.groups import ParameterGroups, parameter_groups
from trainer.optim.schedules import Schedule
from trainer.outcome import Diverged
from trainer.runtime.batch_norm import RunningStatistics, synchronise_batch_norm
from trainer.runtime.gradients import Gradients
from trainer.runtime.precision import PARAMETER_DTYPES, autocast
from trainer.specs import PretrainSpec


@dataclass(frozen=True, slots=True)
class Update:
    """What one step leaves to look at: tensors on the device.

    `z_a_nd`, `z_b_nd` are this rank's embeddings of the views; `first_bad_step` is the step whose gradient was not
    finite, 0 so far.
    """

    terms: BarlowTwinsTerms
    gradient_norm: Tensor
    learning_rate: float
    z_a_nd: Tensor
    z_b_nd: Tensor
    first_bad_step: Tensor


class TrainState:
    """Everything that a checkpoint holds, the same on every rank."""

    def __init__(self, spec: PretrainSpec, schedule: Schedule, device: torch.device) -> None:
        self._spec = spec
        self._schedule = schedule
        self._device = device
        self._dtype = PARAMETER_DTYPES[spec.precision]
        backbone = build_backbone(spec.backbone, seed=spec.seed)
        projector = build_projector(int(backbone.feature_width), spec.projector.widths, seed=spec.seed)  # type: ignore[arg-type]
        self.model = nn.ModuleDict({"backbone": backbone, "projector": projector})
        synchronise_batch_norm(self.model).to(device, self._dtype).train()
        self.groups: ParameterGroups = parameter_groups(self.model)
        self._statistics = RunningStatistics(self.model)
        self._gradients = Gradients(self.model.parameters())
        self._optimizer = build_optimizer(spec, self.groups)
        # The step whose gradient was not finite, 0 while there is none; it stays on the device.
        self._first_bad_step = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, view_a: Tensor, view_b: Tensor, step: int) -> Update:
        """The optimiser step number `step`, from this rank's rows of two views, (n, 3, S, S) uint8.

        A gradient that is not finite moves nothing, neither parameters nor momentum nor running statistics, and no
        later step does (DESIGN 7.8). The host waits for nothing.
        """
        rate = set_rates(self._optimizer, self._schedule, done=step - 1)
        statistics_before = self._statistics.flat.clone()
        self._gradients.clear()
        with autocast(self._spec.precision, self._device):
            # Two passes: each view has its own batch statistics.
            z_a_nd, z_b_nd = self._embed(view_a), self._embed(view_b)
        terms = barlow_twins(z_a_nd, z_b_nd, self._spec.objective.lambda_, self._spec.objective.form)
        torch.autograd.backward(terms.loss)
        norm = self._gradients.reduce()

        bad_before = self._first_bad_step
        self._first_bad_step = torch.where((bad_before == 0) & ~norm.isfinite(), step, bad_before)
        good = self._first_bad_step == 0
        self._optimizer.found_inf = (~good).float()  # type: ignore[attr-defined]
        self._optimizer.step()
        self._statistics.restore_unless(good, statistics_before)
        return Update(terms, norm, rate, z_a_nd.detach(), z_b_nd.detach(), self._first_bad_step)

    def _embed(self, images: Tensor) -> Tensor:
        pixels = normalise(images.to(self._device, non_blocking=True), self._dtype)
        embeddings: Tensor = self.model["projector"](self.model["backbone"](pixels))
        return embeddings

    def raise_if_diverged(self, bad_step: int | None = None) -> None:
        """Look at `bad_step`, an Update's first_bad_step on the host; without it wait for the device.

        Raises:
            Diverged: some step's gradient was not finite. The parameters are those before that step, on every rank.
        """
        bad_step = int(self._first_bad_step) if bad_step is None else bad_step
        if bad_step:
            raise Diverged(
                f"the gradient of step {bad_step} is not finite; the parameters were left as they were before it. "
                "Lower optimizer.learning_rate, lengthen the warm-up, or use fp32",
                bad_step,
            )

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts only; the tensors are its own, which the next step changes."""
        return {"model": dict(self.model.state_dict()), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
