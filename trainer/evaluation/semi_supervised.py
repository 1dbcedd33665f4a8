"""Semi-supervised training: protocols `semi-supervised-paper` and `semi-supervised-cosine`.

Source: Zbontar et al. 2021, B.2.

Backbone and classifier are trained together on a small part of the labels, with a rate of its own for each, and
tested as in linear evaluation, after every epoch: by then the backbone tested is the trained one. The result names the
backbone that it began with.

Batch normalisation is in training mode, over the global batch, so the number of ranks does not matter. The reference
implementation normalises on each GPU over its own share of the batch: with its 8 GPUs that is 32 images.
"""

from __future__ import annotations

from typing import Any

from barlow_lab.specs import SemiSupervisedSpec
from trainer.data.loading.labelled import ChosenImages
from trainer.evaluation.backbone import open_backbone
from trainer.evaluation.classifier import Classification
from trainer.evaluation.label_lists import choose_labels
from trainer.evaluation.splits import open_splits
from trainer.failures import BadSpec
from trainer.runtime.batch_norm import synchronise_batch_norm
from trainer.runtime.context import Context
from trainer.training.loop import train


def run_semi_supervised(spec: SemiSupervisedSpec, context: Context) -> dict[str, Any] | None:
    """Train and test, from the newest checkpoint if there is one; the result on every rank, or None if a stop was
    asked for. Metrics `semi_supervised_loss`, `..._grad_norm`, `..._learning_rate` by step, `semi_supervised_top1` and
    `..._top5` (in percent) after every epoch.

    The result's `labels` holds `percent` and `seed`, or `list`; `digest` (label_lists); and the number of `images`.

    Raises:
        BadSpec: the backbone cannot be used, or the batch does not fit the ranks or the labelled images.
        DataError: the data or the list cannot be used.
        Diverged: a rate is too high.
    """
    backbone = open_backbone(spec, context)
    splits = open_splits(spec, context, pretrained_on=backbone.pretrained_on)
    data = spec.data
    source = context.data_source(data.name)
    chosen = choose_labels(spec.labels, data.name, splits.train, source, split=data.split, warn=context.warn)
    labelled = ChosenImages(splits.train, chosen.indices)
    try:
        module = synchronise_batch_norm(backbone.trainable_copy())
    except ValueError as error:
        raise BadSpec(f"the backbone cannot be trained here: {error}") from error
    fit = Classification(spec, splits, labelled, module, backbone, context, backbone_rate=spec.backbone_learning_rate)
    if not train(fit):
        return None
    named = spec.labels.model_dump(mode="json", exclude_none=True)
    if spec.labels.list is not None:
        named.pop("seed")
    labels = {**named, "digest": chosen.digest, "images": len(labelled)}
    return {**fit.result(), "labels": labels}
