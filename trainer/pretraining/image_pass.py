"""The pass over un-augmented images that an objective asks for before an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from barlow_lab.specs import PretrainSpec
from barlow_lab.specs.kinds.evaluation import EvaluationImages
from trainer.data.datasets import Images
from trainer.evaluation.features import extract
from trainer.objectives.base import ImageEmbeddings, Pauses
from trainer.runtime.context import Context
from trainer.runtime.precision import PARAMETER_DTYPES, exact_products
from trainer.runtime.units import UnitsWithinStep
from trainer.runtime.untouched import untouched
from trainer.train_state import TrainState
from trainer.training.step_plan import StepPlan

PHASE = "objective, before the epoch"


class ImagePass:
    """Shows the objective the embeddings of all images of the run, and remembers when it last did.

    It is part of the step after which an epoch begins: a checkpoint of that step holds what the objective made of it.
    """

    def __init__(
        self, spec: PretrainSpec, plan: StepPlan, state: TrainState, dataset: Images, context: Context
    ) -> None:
        self._spec = spec
        self._plan = plan
        self._state = state
        self._dataset = dataset
        self._context = context
        self._last_step: int | None = None  # the newest one after which there was a pass

    def state_dict(self) -> dict[str, Any]:
        """Of a checkpoint: when there was the last pass; empty before the first."""
        return {} if self._last_step is None else {"image_pass": self._last_step}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._last_step = saved.get("image_pass")

    def due(self, step: int) -> bool:
        """Whether an epoch begins after `step` that the objective wants a pass before; not again where it was made."""
        epoch, within = divmod(step, self._plan.steps_per_epoch)
        begins = within == 0 and step < self._plan.steps and self._last_step != step
        return begins and self._state.objective.wants_images(epoch)

    def make(self, step: int) -> None:
        """Make the pass that is due after `step`; every rank calls it.

        Raises:
            BadSpec, DataError: an embedding is not finite, or no image can be read.
            Stopped: a stop was asked for; nothing has changed.
        """
        units = UnitsWithinStep(self._context)
        pauses = Pauses(partial(units.working, PHASE), units.finished)
        with exact_products(self._context.device):
            embeddings = self._embeddings(units)
            self._state.objective.before_epoch(step // self._plan.steps_per_epoch, embeddings, pauses)
        self._last_step = step

    def _embeddings(self, units: UnitsWithinStep) -> ImageEmbeddings:
        network = self._state.looked_at

        def embed(pixels: Tensor) -> Tensor:
            embeddings: Tensor = network["projector"](network["backbone"](pixels))
            return embeddings

        with untouched(network, self._context.device):
            found = extract(
                embed,
                self._dataset,
                EvaluationImages(size=self._spec.views.size),
                batch_size=self._spec.micro_batch or self._spec.batch_size,
                phase=PHASE,
                context=self._context,
                units=units,
                dtype=PARAMETER_DTYPES[self._spec.precision],
                warned=False,  # training tells of images that cannot be read
            ).gathered(PHASE, self._context)
        return ImageEmbeddings(found.values, found.indices, len(self._dataset))
