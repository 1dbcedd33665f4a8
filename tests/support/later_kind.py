"""Kinds as a later version may have them, each from this file alone, added to the list for a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytest

from barlow_lab.specs import BackboneFrom, EvaluationSpec, PretrainSpec
from barlow_lab.specs.catalogue import Annotations
from barlow_lab.specs.kinds import KINDS
from barlow_lab.specs.kinds.base import Example
from barlow_lab.specs.kinds.evaluation import FROZEN_WORDS
from barlow_lab.specs.slot_memory import VIEW_WORDS, BackboneSizes, SlotMemory, formula


class ContinuedSpec(PretrainSpec):
    """A pretraining that goes on from the backbone of another job."""

    takes_backbone: ClassVar[bool] = True
    example: ClassVar[Example] = Example(
        "A pretraining from torchvision's weights",
        {
            **PretrainSpec.example.value,
            "kind": "continued",
            "backbone": {"name": "resnet18"},
            "backbone_from": {"torchvision": "ResNet18_Weights.IMAGENET1K_V1"},
        },
        name_in_experiment="continued",
    )

    kind: Literal["continued"] = "continued"  # type: ignore[assignment]
    backbone_from: BackboneFrom

    @property
    def backbone_from_elsewhere(self) -> BackboneFrom | None:
        return self.backbone_from


class NearestMeanSpec(EvaluationSpec):
    """Each image is of the class whose mean feature is nearest: written as docs/adding-an-evaluation.md says."""

    learns_from: ClassVar[tuple[Annotations, ...]] = ("class",)
    headlines: ClassVar[Mapping[str, str]] = {"nearest_mean_top1": "top-1"}
    example: ClassVar[Example] = Example(
        "The nearest mean of a class, by raw pixels",
        {"kind": "nearest_mean", "data": {"name": "textures"}, "backbone_from": {"pixels": True}},
        name_in_experiment="nearest-mean",
    )
    memory_formula: ClassVar[str] = formula(VIEW_WORDS, FROZEN_WORDS, "features: training images x feature width x 4.")

    kind: Literal["nearest_mean"] = "nearest_mean"

    @property
    def trains_network(self) -> bool:
        return False

    @property
    def judged_by(self) -> str:
        return "later_kind:run_nearest_mean"

    def memory(self, sizes: BackboneSizes, classes: int | None, images: int | None) -> SlotMemory:
        kept = 0 if images is None else min(images, self.data.limit or images)
        return self.frozen_memory(sizes, classes, features=kept * sizes.features * 4)


def run_nearest_mean(spec: NearestMeanSpec, context: Any) -> dict[str, Any] | None:
    """Judge the backbone; None if a stop was asked for."""
    import torch

    from trainer.data.registry import open_data_set
    from trainer.evaluation.features import labels_on
    from trainer.evaluation.frozen import frozen_features
    from trainer.evaluation.scoring import scores_of, true_class_places
    from trainer.runtime.started import journal_started
    from trainer.runtime.units import Stopped, Units

    journal_started(context, spec, resume_step=0)
    try:
        found = frozen_features(spec, open_data_set, context, Units(context))
    except Stopped:
        return None
    train, test = (one.gathered("means", context) for one in (found.train, found.test))
    of_train, of_test = (labels_on(context.device, one) for one in (found.splits.train, found.splits.test))
    classes, labels = found.splits.classes, of_train[train.indices]
    means = torch.stack([train.values[labels == each].mean(dim=0) for each in range(classes)])
    scores = scores_of(true_class_places(-torch.cdist(test.values, means), of_test[test.indices]), classes)
    if context.journal is not None:
        context.journal.metrics(0, 0, {f"nearest_mean_{name}": value for name, value in scores.items()})
    return {
        "headline": "top1",
        "scores": {name: {"last": value, "best": value} for name, value in scores.items()},
        **found.facts(),
    }


def add(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put them into the list of kinds."""
    monkeypatch.setitem(KINDS, "continued", ContinuedSpec)  # type: ignore[arg-type]
    monkeypatch.setitem(KINDS, "nearest_mean", NearestMeanSpec)  # type: ignore[arg-type]
