"""A linear classifier on a backbone, trained on labelled images: what linear and semi-supervised evaluation share."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from barlow_lab.specs import LinearSpec, SemiSupervisedSpec
from barlow_lab.specs.augment import AugmentSpec
from barlow_lab.specs.common import ranks_fault
from trainer.data.datasets import ImageDataSet
from trainer.data.loading.labelled import LabelledBatch, LabelledBatches
from trainer.data.pixels import normalise
from trainer.evaluation.backbone import FrozenBackbone
from trainer.evaluation.descent import Descent, Group
from trainer.evaluation.fitting import TestedFit
from trainer.evaluation.lost_classes import MetClasses
from trainer.evaluation.splits import Splits
from trainer.evaluation.testing import Tested, tested
from trainer.failures import BadSpec
from trainer.models.exported import backbone_digest
from trainer.models.seeding import drawn_from
from trainer.runtime import collectives
from trainer.runtime.context import LOADING_SECONDS, Context
from trainer.runtime.precision import PARAMETER_DTYPES, autocast, memory_format
from trainer.runtime.units import Units
from trainer.training.step_plan import StepPlan

REFERENCE_BATCH = 256
"""The rates of the protocols are for so many images."""


def linear_classifier(width: int, classes: int, *, seed: int) -> nn.Linear:
    """Weights from a normal distribution of standard deviation 0.01, biases 0: evaluate.py of the reference
    implementation (facebookresearch/barlowtwins). A function of the seed alone."""
    classifier = nn.Linear(width, classes)
    with drawn_from(seed, "classifier"):
        nn.init.normal_(classifier.weight, mean=0.0, std=0.01)
    nn.init.zeros_(classifier.bias)
    return classifier


class Classification(TestedFit[LabelledBatch]):
    """Backbone and classifier, and how they are trained and tested.

    With `backbone_rate` the backbone is trained with the classifier, in training mode; `None`: it is frozen, in
    evaluation mode, and every test begins by asserting that no bit of it has changed.
    """

    def __init__(
        self,
        spec: LinearSpec | SemiSupervisedSpec,
        splits: Splits[ImageDataSet],
        labelled: ImageDataSet,
        backbone: nn.Module,
        opened: FrozenBackbone,
        context: Context,
        *,
        backbone_rate: float | None,
    ) -> None:
        """`labelled` are the images that it is trained on, of splits.train or all of it; `backbone` is the network of
        `opened`, as it is to be used. `backbone_rate` is for REFERENCE_BATCH images.

        Raises:
            BadSpec: the ranks do not divide the batch, or the images are fewer than one batch.
        """
        assert spec.augment is not None, "cached features are another protocol"
        self._batches = _open_batches(spec, spec.augment, labelled, context)
        per_epoch = self._batches.steps_per_epoch
        super().__init__(
            spec,
            StepPlan(spec.epochs * per_epoch, per_epoch, spec),
            context,
            images_per_step=spec.batch_size,
            schedule=spec.schedule,
            headline="top1",
            test_every=per_epoch,
        )
        self._spec = spec
        self._splits = splits
        self._labelled = labelled
        self._source, self._source_digest = opened.source, opened.digest
        self._trains_backbone = backbone_rate is not None
        self.fingerprint = f"{labelled.fingerprint} {splits.test.fingerprint}"
        self.tested: Tested | None = None
        """The newest test."""
        self._met = MetClasses(labelled, context)
        dtype, size = PARAMETER_DTYPES[spec.precision], spec.images.size
        with torch.no_grad():
            self.features = opened.module(torch.zeros(1, 3, size, size, device=context.device)).shape[1]
        self._memory_format = memory_format(spec.precision, context.device)
        classifier = linear_classifier(self.features, splits.classes, seed=spec.seed)
        self.model = nn.ModuleDict({"backbone": backbone, "classifier": classifier}).to(context.device, dtype)
        for parameter in backbone.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=self._memory_format)
        self._frozen_digest = None if self._trains_backbone else backbone_digest(backbone.state_dict())
        scale = spec.batch_size / REFERENCE_BATCH
        groups = [Group([*classifier.parameters()], spec.learning_rate * scale, spec.weight_decay)]
        remedy = "lower learning_rate"
        if backbone_rate is not None:
            groups.append(Group([*backbone.parameters()], backbone_rate * scale, spec.weight_decay))
            remedy = "lower learning_rate or backbone_learning_rate"
        self._trained = self.model if self._trains_backbone else classifier
        self.descent = Descent(
            self._trained,
            groups,
            momentum=spec.momentum,
            precision=spec.precision,
            device=context.device,
            remedy=remedy,
        )
        self._seen_features = False

    def batches(self, done: int, steps: int) -> Generator[LabelledBatch]:
        return self._batches.iterate(done, steps)

    def descend(self, batch: LabelledBatch, step: int, rate: float) -> Mapping[str, Tensor | float]:
        """One step down the cross-entropy of the global batch."""
        self._met.meet(batch.labels.numpy())
        if self._trains_backbone:
            self.model.train()
        device = self.context.device
        self.descent.begin()
        scores = self._scores(batch.images.to(device, non_blocking=True), first=not self._seen_features)
        self._seen_features = True
        labels = batch.labels.to(device, non_blocking=True)
        share = F.cross_entropy(scores, labels, reduction="sum") / self._spec.batch_size
        norm = self.descent.step(share, step, rate)
        return {"loss": collectives.all_reduce_(share.detach().clone()), "grad_norm": norm}

    def test(self, step: int, units: Units) -> dict[str, float]:
        """Top-1 and top-5 on the whole test split, in percent.

        Raises:
            Stopped: a stop was asked for in the middle.
        """
        self.skipped.share()
        if self.tested is None and self.skipped.names:
            self._met.tell_of_lost()
        if not self._trains_backbone:
            digest = backbone_digest(self.model["backbone"].state_dict())
            assert digest == self._frozen_digest, "the evaluation changed its backbone"
        self.model.eval()
        self.tested = tested(
            self._scores,
            self._splits.test,
            self._spec.images,
            batch_size=self._spec.batch_size,
            context=self.context,
            units=units,
            warn=self.tested is None,
        )
        return self.tested.scores

    def _scores(self, images: Tensor, *, first: bool = False) -> Tensor:
        """(n, 3, S, S) uint8 → (n, classes), in the dtype of the parameters."""
        precision, device = self._spec.precision, self.context.device
        pixels = normalise(images, PARAMETER_DTYPES[precision]).contiguous(memory_format=self._memory_format)
        learns = self._trains_backbone and torch.is_grad_enabled()
        with autocast(precision, device), torch.set_grad_enabled(learns):
            features = self.model["backbone"](pixels)
        if first and not features.isfinite().all():
            raise BadSpec(
                "the backbone's features are not finite: it has diverged; choose a checkpoint of an earlier step"
            )
        # Not in 16 bits: they would give many images the same score for two classes.
        scores: Tensor = self.model["classifier"](features.to(PARAMETER_DTYPES[precision]))
        return scores

    def trained_state(self) -> dict[str, Any]:
        return {
            "model": dict(self._trained.state_dict()),
            "backbone": self._source_digest,
            "unreadable": self.skipped.names,
            "tested": None if self.tested is None else asdict(self.tested),
        }

    def load_trained_state(self, state: dict[str, Any]) -> None:
        """Take over what `trained_state` gave.

        Raises:
            BadSpec: it was of another backbone.
        """
        if state["backbone"] != self._source_digest:
            raise BadSpec("the backbone is not the one that this job began with; put it back, or submit a new job")
        self._trained.load_state_dict(state["model"])
        self.skipped.remember(state["unreadable"])
        self.tested = None if state["tested"] is None else Tested(**state["tested"])

    def result(self) -> dict[str, Any]:
        """What the result of the job says."""
        assert self.tested is not None, "the last step is followed by a test"
        unreadable = len(self.skipped.names)
        return {
            **self.scores.result(),
            "epochs": self._spec.epochs,
            **self._splits.facts(
                train_images=len(self._labelled) - unreadable,
                test_images=self.tested.images,
                train_unreadable=unreadable,
                test_unreadable=self.tested.unreadable,
            ),
            "backbone": {"source": self._source, "digest": self._source_digest, "features": self.features},
        }


def _open_batches(
    spec: LinearSpec | SemiSupervisedSpec, augment: AugmentSpec, labelled: ImageDataSet, context: Context
) -> LabelledBatches:
    if said := ranks_fault(spec.batch_size, context.world_size):
        raise BadSpec(said)
    if spec.batch_size > len(labelled):
        raise BadSpec(
            f"batch_size {spec.batch_size} is above the {len(labelled)} labelled images: the last partial batch is "
            f"dropped, so there would be no step at all; use at most {len(labelled)}"
        )
    return LabelledBatches(
        labelled,
        augment,
        size=spec.images.size,
        batch_size=spec.batch_size,
        seed=spec.seed,
        rank=context.rank,
        world_size=context.world_size,
        threads=context.threads,
        pinned=context.device.type == "cuda",
        tick=partial(context.working, "loading images", quiet_seconds=LOADING_SECONDS),
    )
