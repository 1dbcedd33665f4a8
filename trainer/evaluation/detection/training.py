"""Training of a detector over all ranks.

The loss of a step is the sum of up to five means, each over all examples that were drawn for it in the global batch: of
the drawn anchors, whether each holds an object, and where; of the drawn regions, the class, and the box; of those of
them that are objects, the mask. A rank counts by the examples it holds, and batch normalisation by the values it holds,
so the gradient is that of the global batch however its images are dealt out. What still depends on the number of ranks
is the size to which the images of one rank are padded, and the last bits: a resumed run goes on to the bit at the same
number of ranks only.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from barlow_lab.specs import DetectionSpec
from trainer.data.loading.detection import DetectionBatch, DetectionBatches, DetectionImage
from trainer.data.loading.packed_masks import PackedMasks
from trainer.evaluation.backbone import FrozenBackbone
from trainer.evaluation.descent import Descent, Group
from trainer.evaluation.detection.testing import DetectorTest
from trainer.evaluation.fitting import TestedFit
from trainer.evaluation.lost_classes import MetClasses
from trainer.failures import BadSpec
from trainer.models.detectors.c4 import C4Detector
from trainer.models.detectors.regions import Target
from trainer.models.detectors.sampling import Key
from trainer.runtime import collectives
from trainer.runtime.batch_norm import SynchronisedBatchNorm, synchronise_batch_norm
from trainer.runtime.context import Context
from trainer.runtime.precision import PARAMETER_DTYPES, memory_format
from trainer.runtime.units import Units
from trainer.training.step_plan import StepPlan


def _unpacked(packed: PackedMasks, learned: NDArray[np.int64], places: Tensor) -> Tensor:
    """Masks (n, H, W) of the objects at `places` (n,) among those that are `learned`, on the device of `places`."""
    return torch.from_numpy(packed.unpacked(learned[places.cpu().numpy()].tolist())).to(places.device)


def warm_up(done: int, steps: int, factor: float) -> float:
    """What the rate is multiplied by after `done` steps: from `factor` linearly to 1 after `steps`."""
    return 1.0 if done >= steps else factor + (1.0 - factor) * done / steps


class DetectionFit(TestedFit[DetectionBatch]):
    """A detector, and how it is trained and tested."""

    def __init__(
        self,
        spec: DetectionSpec,
        detector: C4Detector,
        batches: DetectionBatches,
        test: DetectorTest,
        backbone: FrozenBackbone,
        context: Context,
    ) -> None:
        super().__init__(
            spec,
            StepPlan(spec.steps, batches.steps_per_epoch, spec),
            context,
            images_per_step=spec.batch_size,
            schedule=spec.schedule,
            headline="mask_ap" if spec.masks else "box_ap",
            test_every=spec.evaluate_every_steps or spec.steps,
        )
        self._spec = spec
        self._batches = batches
        self._detector_test = test
        self._backbone = backbone
        self._dtype = PARAMETER_DTYPES[spec.precision]
        self.fingerprint = f"{batches.fingerprint} {test.dataset.fingerprint}"
        self._met = MetClasses(batches.dataset, context)
        self.detector = detector.to(context.device, self._dtype).train()
        # A convolution takes the layout of its weights; nothing needs be said of the images.
        self.detector.to(memory_format=memory_format(spec.precision, context.device))
        synchronise_batch_norm(self.detector, uneven=True)
        # detectron2 decays biases as weights, and parameters of normalisation not at all.
        normalisations = [m for m in self.detector.modules() if isinstance(m, SynchronisedBatchNorm)]
        norms = {id(parameter) for module in normalisations for parameter in module.parameters()}
        every = list(self.detector.parameters())
        self.descent = Descent(
            self.detector,
            [
                Group([p for p in every if id(p) not in norms], spec.learning_rate, spec.weight_decay),
                Group([p for p in every if id(p) in norms], spec.learning_rate, 0.0),
            ],
            momentum=spec.momentum,
            precision=spec.precision,
            device=context.device,
        )

    def batches(self, done: int, steps: int) -> Generator[DetectionBatch]:
        return self._batches.iterate(done, steps)

    def descend(self, batch: DetectionBatch, step: int, rate: float) -> Mapping[str, Tensor | float]:
        """One step down the loss of the global batch: `loss` and its parts `rpn_class_loss`, `rpn_box_loss`,
        `class_loss`, `box_loss` and with masks `mask_loss`."""
        for image in batch.images:
            self._met.meet(image.annotation.classes)
        device = self.context.device
        self.descent.begin()
        keys = [Key(self._spec.seed, step, int(index)) for index in batch.indices]
        found = self.detector.losses(
            [image.pixels.to(device, non_blocking=True) for image in batch.images],
            [self._target(image) for image in batch.images],
            keys,
        )
        counts = torch.tensor([count for _, count in found.values()], dtype=self._dtype, device=device)
        # Only the masks may have no example on any rank.
        parts = counts / collectives.all_reduce_(counts.clone()).clamp(min=1)
        shares = torch.stack([mean for mean, _ in found.values()]) * parts
        warmed = rate * warm_up(step - 1, self._spec.warmup_steps, self._spec.warmup_factor)
        norm = self.descent.step(shares.sum(), step, warmed)
        means = collectives.all_reduce_(shares.detach().clone())
        by_name = {f"{name}_loss": mean for name, mean in zip(found, means.unbind(), strict=True)}
        return {"loss": means.sum(), **by_name, "grad_norm": norm}

    def _target(self, image: DetectionImage) -> Target:
        """Objects that are trained on: those that are not ignored and have an area."""
        there, (across, down) = image.annotation, image.scale
        learned = ~there.ignored & (there.boxes[:, 2] > there.boxes[:, 0]) & (there.boxes[:, 3] > there.boxes[:, 1])
        device = self.context.device
        scale = torch.tensor([across, down, across, down], dtype=self._dtype)
        masks = None
        if self._spec.masks:
            assert image.masks is not None
            masks = partial(_unpacked, image.masks, np.flatnonzero(learned))
        return Target(
            (torch.from_numpy(there.boxes[learned]).to(self._dtype) * scale).to(device),
            torch.from_numpy(there.classes[learned]).to(device),
            masks,
            image.scale,
        )

    def test(self, step: int, units: Units) -> dict[str, float]:
        """Average precisions by name (trainer.evaluation.detection.scoring).

        Raises:
            Stopped: a stop was asked for in the middle.
        """
        self.skipped.share()
        if not self._detector_test.counts and self.skipped.names:  # before the first test
            self._met.tell_of_lost()
        return self._detector_test.run(self.detector, step, units)

    def trained_state(self) -> dict[str, Any]:
        return {
            "detector": dict(self.detector.state_dict()),
            "backbone": self._backbone.digest,
            "unreadable": self.skipped.names,
            "test": self._detector_test.state_dict(),
        }

    def load_trained_state(self, state: dict[str, Any]) -> None:
        """Take over what `trained_state` gave.

        Raises:
            BadSpec: it was of another backbone.
        """
        if state["backbone"] != self._backbone.digest:
            raise BadSpec("the backbone is not the one that this job began with; put it back, or submit a new job")
        self.detector.load_state_dict(state["detector"])
        self.skipped.remember(state["unreadable"])
        self._detector_test.load_state_dict(state["test"])
