"""Linear evaluation on augmented images: protocols `linear-paper`, `linear-places205`, `linear-inaturalist2018`.

Zbontar et al. 2021, B.1 and C.1: the backbone is frozen, in evaluation mode; a linear classifier is trained on its
features of a random crop of each image (resized to images.size, flipped at random) by SGD with momentum, cross-entropy,
weight decay on all its parameters. The test is on the centre crop of the resized image, after every epoch.

The rate follows trainer.evaluation.fitting.rate_at step by step; evaluate.py of the reference implementation moves it
once an epoch. Rates are for a batch of 256 images and are scaled with batch_size.
"""

from __future__ import annotations

from typing import Any

from barlow_lab.specs import LinearSpec
from trainer.evaluation.backbone import open_backbone
from trainer.evaluation.classifier import Classification
from trainer.evaluation.splits import open_splits
from trainer.runtime.context import Context
from trainer.training.loop import train


def run_linear(spec: LinearSpec, context: Context) -> dict[str, Any] | None:
    """Train and test the classifier, from the newest checkpoint if there is one; the result on every rank, or None if
    a stop was asked for. Metrics `linear_loss`, `linear_grad_norm`, `linear_learning_rate` by step, `linear_top1` and
    `linear_top5` (in percent) after every epoch.

    Raises:
        BadSpec: the backbone cannot be used, or the batch does not fit the ranks or the images.
        DataError: the data cannot be used.
        Diverged: the rate is too high.
    """
    backbone = open_backbone(spec, context)
    splits = open_splits(spec, context, pretrained_on=backbone.pretrained_on)
    fit = Classification(spec, splits, splits.train, backbone.module, backbone, context, backbone_rate=None)
    return fit.result() if train(fit) else None
