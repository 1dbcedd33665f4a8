"""What an objective is to the loop that minimises it.

Shape suffixes: n images of this rank, d features.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from barlow_lab.specs import Fault, SpecError
from barlow_lab.specs.objectives import ObjectiveBase
from barlow_lab.specs.objectives.own import error_in_words, refusal


@dataclass(frozen=True, slots=True)
class Terms:
    """The loss, and what of it is worth watching, by the name of its metric; the same on every rank.

    `loss` is a scalar, and alone carries a gradient. `parts` are scalars on the device, `known` numbers that need none.
    """

    loss: Tensor
    parts: Mapping[str, Tensor]
    known: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """What an objective is told of its run before the first step; `batch_size` is global, `width` that of the
    embeddings, `dtype` that of the parameters."""

    batch_size: int
    width: int
    epochs: int
    seed: int
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class ImageEmbeddings:
    """The embeddings of a run's images, un-augmented, from the network in evaluation mode: of its momentum copy where
    there is one. The same on every rank."""

    values_nd: Tensor
    """(n, d) float32, a row for each image that can be read."""
    indices_n: Tensor
    """(n,) int64: the place of each row's image in the data set, ascending."""
    images: int
    """How many images the data set has."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long work between two steps is heard, and stopped."""

    working: Callable[[], None]
    """To be called after a second or less of work; by any rank."""
    finished: Callable[[], None]
    """To be called after some seconds of work, by every rank at the same places; raises where a stop is asked for."""


class Objective(ABC):
    """A function of all embeddings of the global batch, made from its spec.

    The gradient of the loss is the true one of the global batch, by the convention of trainer.runtime.collectives.
    What depends on nothing but the embeddings needs none of the hooks, and its batch may go through the network in
    pieces (`micro_batch`). The loop calls them, for every objective alike, in this order: `begin` once, then for each
    epoch `before_epoch` if `wants_images` says so, and for each step `before_step`, the objective itself, `after_step`.

    It may have `parts` that are trained with the network, a predictor for one. They see the embeddings of the whole
    batch in one call, also where that goes through the network in pieces: so they take nothing from `micro_batch`.
    """

    momentum: float | None = None
    """With it view b is embedded by a copy of the network, whose parameters follow after each step, p' ← momentum p' +
    (1 - momentum) p, without a gradient."""
    needs_indices = False
    """Whether `before_step` is to be called."""
    off_diagonal_weight: float | None = None
    """By what the loss weighs the squared correlations of different features, where it does: so the record of the
    correlation matrix can tell how much of the loss they are."""
    parts: nn.ModuleDict | None = None
    """Modules that `begin` makes, on the CPU, from the run's seed (trainer.models.seeding), and `__call__` calls. The
    loop moves them to device and dtype, puts them into optimiser and checkpoint beside backbone and projector, and sums
    each rank's share of their gradient. Each call of a batch normalisation in them is by the rows of that call on all
    ranks, so a view at a time has statistics of its own."""
    constant_rate = False
    """Whether `parts` keep the peak learning rate for the whole run, without warm-up and cosine."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec

    @abstractmethod
    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        """The terms for this rank's embeddings of the two views, (n, d), the same n on every rank.

        Computed in float32 outside autocast, in float64 for float64 input. The host waits for nothing.

        Raises:
            ValueError: the two shapes differ, or the global batch has a single sample.
        """

    def begin(self, run: Run) -> None:  # noqa: B027 - a hook
        """Take note of the run, and make the state that it begins with, and the `parts`."""

    def wants_images(self, epoch: int) -> bool:
        """Whether `before_epoch` is to be called; epochs count from 0."""
        return False

    def before_epoch(self, epoch: int, embeddings: ImageEmbeddings, pauses: Pauses) -> None:  # noqa: B027 - a hook
        """Look at all images of the run. Nothing of the state changes before the last call of `pauses.finished`: where
        that raises, the next attempt begins the pass anew."""

    def before_step(self, step: int, indices_n: Tensor) -> None:  # noqa: B027 - a hook
        """Take note of the step, counted from 1, and of the place in the data set of each row's image."""

    def after_step(self, good: Tensor) -> None:  # noqa: B027 - a hook
        """Change the state by the step; not where the boolean scalar `good` is false, as then nothing has moved. The
        host waits for nothing."""

    def concern(self, values: Mapping[str, float]) -> str | None:
        """What a user is to be told, once, where its metrics as they were recorded say that something is wrong, with
        the remedy; always in the same words, which name the metric. None: nothing."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on beside the embeddings, the same on every rank: tensors, numbers, texts and
        containers of them. It is in the checkpoint; empty where there is none."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - a hook
        """Take over what `state_dict` gave."""


def build_objective(spec: ObjectiveBase) -> Objective:
    """The objective that a spec describes.

    Raises:
        SpecError: it is one of one's own, and cannot be imported, or made, or is no Objective.
    """
    name, place = spec.name, spec.implementation
    module, _, attribute = place.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)(spec)
    except Exception as error:  # code of others may raise anything
        raise SpecError(
            [Fault("/objective/name", refusal(name, place, f"cannot be made ({error_in_words(error)})"))]
        ) from error
    if not isinstance(made, Objective):
        said = f"gives a {type(made).__name__} when called, not a trainer.objectives.base.Objective"
        raise SpecError([Fault("/objective/name", refusal(name, place, said))])
    return made
