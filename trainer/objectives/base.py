"""What an objective is to the loop that minimises it."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from barlow_lab.specs import Fault, SpecError
from barlow_lab.specs.objectives import ObjectiveBase
from barlow_lab.specs.objectives.own import refusal, said_of


@dataclass(frozen=True, slots=True)
class Terms:
    """The loss, and what of it is worth watching, by the name of its metric; the same on every rank.

    `loss` is a scalar, and alone carries a gradient. `parts` are scalars on the device, `known` numbers that need none.
    """

    loss: Tensor
    parts: Mapping[str, Tensor]
    known: Mapping[str, float] = field(default_factory=dict)


class Objective(ABC):
    """A function of all embeddings of the global batch, made from its spec.

    The gradient of the loss is the true one of the global batch, by the convention of trainer.runtime.collectives. It
    depends on nothing but the embeddings, so a batch may go through the network in pieces (`micro_batch`).
    """

    off_diagonal_weight: float | None = None
    """By what the loss weighs the squared correlations of different features, where it does: so the record of the
    correlation matrix can tell how much of the loss they are."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec

    @abstractmethod
    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        """The terms for this rank's embeddings of the two views, (n, d), the same n on every rank.

        Computed in float32 outside autocast, in float64 for float64 input. The host waits for nothing.

        Raises:
            ValueError: the two shapes differ, or the global batch has a single sample.
        """


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
            [Fault("/objective/name", refusal(name, place, f"cannot be made ({said_of(error)})"))]
        ) from error
    if not isinstance(made, Objective):
        said = f"gives a {type(made).__name__} when called, not a trainer.objectives.base.Objective"
        raise SpecError([Fault("/objective/name", refusal(name, place, said))])
    return made
