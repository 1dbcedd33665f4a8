"""What a pretraining run changes step by step: backbone, projector, parts of the objective, optimiser; and the step
itself.

Shape suffixes: 2 views, n images of this rank, m of them in a piece, d features of the embedding, f of the backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barlow_lab.specs import PretrainSpec
from trainer.data.pixels import normalise
from trainer.failures import Diverged
from trainer.models.backbones import build_backbone
from trainer.models.projector import build_projector
from trainer.objectives.base import Run, Terms, build_objective
from trainer.optim.build import build_optimizer, load_optimizer, set_rates
from trainer.optim.groups import ParameterGroups, parameter_groups
from trainer.optim.schedules import Schedule
from trainer.runtime.batch_norm import RunningStatistics, synchronise_batch_norm
from trainer.runtime.compiling import CompileChoice, Form, Network, choose
from trainer.runtime.gradients import Gradients
from trainer.runtime.momentum_network import MomentumNetwork
from trainer.runtime.precision import PARAMETER_DTYPES, StepGuard, autocast, memory_format
from trainer.runtime.transfer import on_device

DIVERGED_REMEDY = (
    "the parameters were left as they were before it. Lower optimizer.learning_rate, lengthen the warm-up, or use fp32"
)

LATER_STATE = {"lars": 1, "sgd": 0, "adamw": 2}
"""Tensors of each parameter's size that an optimiser makes in its first update; SGD's momentum is there before."""


@dataclass(frozen=True, slots=True)
class Update:
    """What one step leaves to look at: tensors on the device.

    `z_a_nd`, `z_b_nd` are this rank's embeddings of the views, as the objective has seen them, and `features_2nf` the
    backbone's features that they came of; `skipped_steps` counts those of the run that a scale in fp16 has cost, None
    elsewhere; `first_bad_step` is the step at which the run was
    over for gradients that are not finite, 0 so far.
    """

    terms: Terms
    gradient_norm: Tensor
    learning_rate: float
    z_a_nd: Tensor
    z_b_nd: Tensor
    features_2nf: Tensor
    first_bad_step: Tensor
    skipped_steps: Tensor | None


Differentiated = tuple[Terms, Tensor, Tensor]
"""Terms of the loss, embeddings (2, n, d), features (2, n, f)."""


class TrainState:
    """Everything that a checkpoint holds, the same on every rank."""

    def __init__(self, spec: PretrainSpec, schedule: Schedule, device: torch.device) -> None:
        self._spec = spec
        self._schedule = schedule
        self._device = device
        self._dtype = PARAMETER_DTYPES[spec.precision]
        self.objective = build_objective(spec.objective)
        self._pieces = spec.batch_size // (spec.micro_batch or spec.batch_size)
        backbone = build_backbone(spec.backbone, seed=spec.seed, side=spec.views.size)
        self.features = int(backbone.feature_width)  # type: ignore[arg-type]
        """Width of the backbone's features."""
        projector = build_projector(
            self.features, spec.projector.widths, seed=spec.seed, batch_norm=spec.projector.batch_norm
        )
        self.model = nn.ModuleDict({"backbone": backbone, "projector": projector})
        views = 2 if self.objective.momentum is None else 1
        synchronise_batch_norm(self.model, views=views).to(device, self._dtype).train()
        if spec.backbone.frozen:
            # A forward pass makes no graph where no parameter asks for a gradient, and keeps nothing for backward.
            self.model["backbone"].requires_grad_(False).train(not spec.backbone.keeps_statistics)
        self._memory_format = memory_format(spec.precision, device)
        for parameter in self.model.parameters():
            if parameter.ndim == 4:  # of other ranks an own backbone may have some, for which there is no such format
                parameter.data = parameter.data.contiguous(memory_format=self._memory_format)
        self.momentum_network: MomentumNetwork | None = None
        if self.objective.momentum is not None:
            self.momentum_network = MomentumNetwork(self.model, self.objective.momentum)
        width = spec.embedding_width(self.features)
        assert width is not None
        self.objective.begin(Run(spec.batch_size, width, spec.epochs, spec.seed, device, self._dtype))
        parts = self.objective.parts
        self.groups: ParameterGroups = parameter_groups(self.model)
        if parts is not None:
            synchronise_batch_norm(parts).to(device, self._dtype).train()
            of_parts = parameter_groups(parts)
            self.groups = self.groups.beside(of_parts, constant=self.objective.constant_rate)
            self.model["objective"] = parts
        self._network: Network = self._written
        self.choice = CompileChoice(False)
        """In which form the network runs."""
        self._statistics = RunningStatistics(self.model)
        self._gradients = Gradients(self._trained())
        self._optimizer = build_optimizer(spec, self.groups)
        self._guard = StepGuard(spec.precision, device)

    def _trained(self) -> Iterator[nn.Parameter]:
        return (parameter for parameter in self.model.parameters() if parameter.requires_grad)

    @property
    def looked_at(self) -> nn.ModuleDict:
        """The network whose embeddings of un-augmented images an objective asks for."""
        return self.model if self.momentum_network is None else self.momentum_network.module

    def update(self, view_a: Tensor, view_b: Tensor, step: int, indices: np.ndarray | None = None) -> Update:
        """The optimiser step number `step`, from this rank's rows of two views, (n, 3, S, S) uint8, and the places of
        their images in the data set, which an objective may need.

        With `micro_batch` the rows are this rank's share of every piece, piece after piece. A gradient that is not
        finite moves nothing, neither parameters nor momentum nor running statistics, and where it is the end of the run
        (StepGuard) no later step does. The host waits for nothing.
        """
        rate = set_rates(self._optimizer, self._schedule, done=step - 1)
        if self.objective.needs_indices:
            assert indices is not None
            self.objective.before_step(step, on_device(indices, self._device))
        statistics_before = self._statistics.flat.clone()
        scale = self._guard.scale
        self._gradients.clear()
        views = view_a.to(self._device, non_blocking=True), view_b.to(self._device, non_blocking=True)
        terms, z_2nd, features_2nf = self._differentiate(*views, scale)
        norm = self._gradients.reduce(scale)

        good = self._guard.admit(norm, step)
        self._optimizer.found_inf = (~good).float()  # type: ignore[attr-defined]
        self._optimizer.step()
        self._statistics.restore_unless(good, statistics_before)
        if self.momentum_network is not None:
            self.momentum_network.follow(good)
        self.objective.after_step(good)
        z_a_nd, z_b_nd = z_2nd.detach()
        skipped = None if scale is None else self._guard.skipped_steps
        return Update(terms, norm, rate, z_a_nd, z_b_nd, features_2nf, self._guard.diverged_at, skipped)

    def _differentiate(self, view_a: Tensor, view_b: Tensor, scale: Tensor | None) -> Differentiated:
        if self.momentum_network is not None:
            return self._from_one_side(self.momentum_network, view_a, view_b, scale)
        differentiate = self._at_once if self._pieces == 1 else self._piece_by_piece
        return differentiate(view_a, view_b, scale)

    def _at_once(self, view_a: Tensor, view_b: Tensor, scale: Tensor | None) -> Differentiated:
        """The terms, the embeddings (2, n, d), and the features (2, n, f); this rank's share of the gradient is in
        place."""
        z_2nd, features_2nf = self._embed(view_a, view_b)
        terms = self.objective(*z_2nd.unbind())
        torch.autograd.backward(terms.loss, scale)
        return terms, z_2nd, features_2nf

    def _from_one_side(
        self, momentum_network: MomentumNetwork, view_a: Tensor, view_b: Tensor, scale: Tensor | None
    ) -> Differentiated:
        """The same where the momentum copy embeds view b: it comes first, so that none of its activations lie beside
        those that are kept for backward."""
        with torch.no_grad():
            z_b_nd, features_b_nf = self._through(momentum_network, view_b)
        z_a_nd, features_a_nf = self._through(self._network, view_a)
        terms = self.objective(z_a_nd, z_b_nd)
        torch.autograd.backward(terms.loss, scale)
        return terms, torch.stack([z_a_nd.detach(), z_b_nd]), torch.stack([features_a_nf, features_b_nf])

    def _piece_by_piece(self, view_a: Tensor, view_b: Tensor, scale: Tensor | None) -> Differentiated:
        """The same in the memory of one piece, with batch statistics of a piece: first
        all embeddings without a graph and the gradient of the loss with respect to them, then every piece again, with
        its rows of that gradient."""
        pieces = list(zip(view_a.chunk(self._pieces), view_b.chunk(self._pieces), strict=True))
        with torch.no_grad():
            # A view would keep all that the backbone has made of a piece: of a transformer, every token.
            seen = [(z_2nd, features_2nf.clone()) for z_2nd, features_2nf in (self._embed(*piece) for piece in pieces)]
        z_2nd, features_2nf = (torch.cat(parts, 1) for parts in zip(*seen, strict=True))
        del seen
        terms = self.objective(*z_2nd.requires_grad_().unbind())
        torch.autograd.backward(terms.loss, scale)  # into the objective's own parts, too
        assert z_2nd.grad is not None
        with self._statistics.held():
            for piece, gradient_2md in zip(pieces, z_2nd.grad.chunk(self._pieces, 1), strict=True):
                torch.autograd.backward(self._embed(*piece)[0], gradient_2md)
        return terms, z_2nd, features_2nf

    def _embed(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, Tensor]:
        """Both views in one forward pass, (n, 3, S, S) uint8 each -> embeddings (2, n, d), features (2, n, f)."""
        z_nd, features_nf = self._through(self._network, torch.cat([view_a, view_b]))
        return z_nd.view(2, len(view_a), -1), features_nf.view(2, len(view_a), -1)

    def _through(self, network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = normalise(images, self._dtype)
        with autocast(self._spec.precision, self._device):
            return network(pixels.contiguous(memory_format=self._memory_format))

    def _written(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features: Tensor = self.model["backbone"](pixels)
        embeddings: Tensor = self.model["projector"](features)
        return embeddings, features.detach()

    def choose_network(self, ranks: int, tick: Callable[[], None], former: Form | None = None) -> CompileChoice:
        """Compile the network if the spec wishes it, or if a trial with random images finds that it pays; every one of
        `ranks` ranks calls it, before the first step. The trial changes nothing that a step depends on; `tick` is
        called for each of its passes. `former`: the form it had in the run that is resumed."""
        rows, size = self._spec.batch_size // ranks, self._spec.views.size
        tried = nn.ModuleList([self.model] if self.momentum_network is None else [self.model, self.looked_at])
        before = {name: buffer.clone() for name, buffer in tried.named_buffers()}
        # What the first update will add, so that a form that fits now fits then.
        state: list[Tensor] = []
        copies = LATER_STATE[self._spec.optimizer.name]

        def try_out(network: Network) -> None:
            tick()
            if not state:
                state.extend(torch.empty_like(p) for p in self._trained() for _ in range(copies))
            self._network = network
            view = torch.randint(0, 256, (rows, 3, size, size), dtype=torch.uint8, device=self._device)
            self._differentiate(view, view.flip(3), self._guard.scale)

        self._network, self.choice = choose(self._spec.run.compile, self._written, try_out, self._device, former)
        state.clear()
        for name, buffer in tried.named_buffers():
            if name in before:  # a backbone of one's own may make some in its first pass
                buffer.copy_(before[name])
        return self.choice

    def skipped_steps(self) -> int:
        """Steps of the run so far that moved nothing; waits for the device."""
        return int(self._guard.skipped_steps)

    def raise_if_diverged(self, bad_step: int | None = None) -> None:
        """Look at `bad_step`, an Update's first_bad_step on the host; without it wait for the device.

        Raises:
            Diverged: the run was over at that step. The parameters are those before it, on every rank.
        """
        bad_step = int(self._guard.diverged_at) if bad_step is None else bad_step
        if bad_step:
            raise Diverged(f"{self._guard.said(bad_step)}; {DIVERGED_REMEDY}", bad_step)

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts only; the tensors are its own, which the next step changes."""
        state = {"model": dict(self.model.state_dict()), "optimizer": self._optimizer.state_dict()}
        if self.momentum_network is not None:
            state["momentum_network"] = dict(self.momentum_network.module.state_dict())
        beside = {"guard": self._guard.state_dict(), "objective": self.objective.state_dict()}
        return state | {part: its for part, its in beside.items() if its}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        load_optimizer(self._optimizer, state["optimizer"])
        self._guard.load_state_dict(state.get("guard", {}))
        if self.momentum_network is not None:
            self.momentum_network.module.load_state_dict(state["momentum_network"])
        self.objective.load_state_dict(state.get("objective", {}))
