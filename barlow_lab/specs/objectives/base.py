"""What every objective's spec tells by itself, so that parser, planner and loop ask and know none by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from barlow_lab.specs.common import SpecModel


def epsilon_fault(spec: ObjectiveBase, variance: float) -> dict[str, str]:
    """What is wrong with an `epsilon` beside a hinge on standard deviations of no weight."""
    if variance or spec.model_dump(include={"epsilon"}, exclude_defaults=True) == {}:
        return {}
    return {
        "epsilon": "epsilon is of the hinge on standard deviations, whose weight, variance, is 0; leave it out, or "
        "give variance a weight"
    }


class ObjectiveBase(SpecModel, ABC):
    """Base of the specs of objectives; each has a `name`, its parameters with their defaults, and their source."""

    implementation: ClassVar[str]
    """MODULE:CLASS of its trainer.objectives.base.Objective, which the trainer alone imports."""

    name: str

    memory_words: ClassVar[str]
    """How `numbers_held` counts, in words: b is the size of a number, batch the global one, d the last width."""
    momentum_copy: ClassVar[bool] = False
    """Whether a momentum copy of the network embeds view b, and the gradient goes through view a alone."""
    holds_all_images: ClassVar[bool] = False
    """Whether a rank holds the embeddings of all images of the run at once, before epochs."""
    whole_batches: ClassVar[str | None] = None
    """Why a batch cannot go through the network in pieces; None: it can, the loss being a function of all embeddings of
    the batch and of nothing else."""

    def faults(self, *, batch_size: int, width: int) -> dict[str, str]:
        """Field → what is wrong with it beside a global batch of `batch_size` images and embeddings of `width`."""
        return {}

    def faults_of_run(self, *, batch_size: int, epochs: int, images: int | None) -> dict[str, str]:
        """The same beside `epochs` epochs, those that `max_steps` lets begin, of `images` images. Where their number is
        not known yet it is None, and the run asks again when it has opened its data."""
        return {}

    def trained_numbers(self, features: int) -> int:
        """Parameters that it trains itself, beside backbone and projector, at embeddings of width `features`."""
        return 0

    def as_written_out(self, width: int | None) -> ObjectiveBase:
        """With what is only another way to write the same science as if it was left out; for the digest. `width` is
        that of the embeddings, None where it is known to the trainer alone."""
        return self

    @abstractmethod
    def numbers_held(self, *, samples: int, features: int, ranks: int) -> int:
        """Most numbers that a rank holds at once for it beside its embeddings and their gradient: N = `samples` of all
        `ranks` ranks, d = `features`."""
