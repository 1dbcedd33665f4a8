"""Features of both splits by a frozen backbone: what the protocols that train no network begin with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from barlow_lab.specs import EvaluationSpec
from trainer.evaluation.backbone import FrozenBackbone, open_backbone
from trainer.evaluation.features import Features, extract
from trainer.evaluation.splits import D, Splits, open_splits
from trainer.runtime.context import Context
from trainer.runtime.units import Units


@dataclass(frozen=True, slots=True)
class FrozenFeatures(Generic[D]):
    """This rank's shares of the features, and what they are of."""

    splits: Splits[D]
    backbone: FrozenBackbone
    train: Features
    test: Features

    def facts(self) -> dict[str, Any]:
        """`data`, `images` and `backbone` of a result."""
        return {
            **self.splits.facts(
                train_images=self.train.total,
                test_images=self.test.total,
                train_unreadable=self.train.unreadable,
                test_unreadable=self.test.unreadable,
            ),
            "backbone": {
                "source": self.backbone.source,
                "digest": self.backbone.digest,
                "features": self.train.values.shape[1],
            },
        }


def frozen_features(
    spec: EvaluationSpec, opener: Callable[..., D], context: Context, units: Units
) -> FrozenFeatures[D]:
    """Open backbone and data, and compute the features of both splits; `opener` is one of trainer.data.registry.

    Raises:
        BadSpec: the backbone cannot be used.
        DataError: the data cannot be used.
        Stopped: a stop was asked for.
    """
    backbone = open_backbone(spec, context)  # first: data sets take minutes to list, and a wrong name is told at once
    splits = open_splits(spec, context, opener, pretrained_on=backbone.pretrained_on)
    train, test = (
        extract(
            backbone.module,
            images,
            spec.images,
            batch_size=spec.batch_size,
            phase=f"features {name}",
            context=context,
            units=units,
        )
        for name, images in (("train", splits.train), ("test", splits.test))
    )
    backbone.check_frozen()
    return FrozenFeatures(splits, backbone, train, test)
