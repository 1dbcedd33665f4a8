"""An evaluation from its spec to its result."""

from __future__ import annotations

from functools import partial
from typing import Any

from trainer.data.datasets import ImageDataSet
from trainer.data.errors import DataError
from trainer.data.registry import open_data_set
from trainer.evaluation.backbone import open_backbone
from trainer.evaluation.features import Features, extract
from trainer.evaluation.knn import run_knn
from trainer.evaluation.linear import run_linear
from trainer.evaluation.units import Stopped, Units
from trainer.runtime.context import Context
from trainer.specs import KnnSpec, LinearSpec


def run_evaluation(spec: KnnSpec | LinearSpec, context: Context) -> dict[str, Any] | None:
    """Judge the backbone that `spec` names; the result on every rank, or None if a stop was asked for.

    An evaluation keeps no state: run again, it starts over and comes to the same result. `data.limit` holds for
    the training split; the test split is always whole. Results and metrics are in percent.

    Raises:
        BadSpec: the backbone cannot be used, or the spec does not fit the data.
        DataError: the data cannot be used.
        Diverged: the classifier's rate is too high.
    """
    context.progress("loading data")
    tick = partial(context.working, "loading data")
    root = context.data_root(spec.data.name)
    opened = partial(open_data_set, spec.data.name, root=root, tick=tick, warn=context.warn)
    train_set = opened(spec.data.split, limit=spec.data.limit)
    test_set = opened(spec.test_split)
    if train_set.classes != test_set.classes:
        raise DataError(f"splits {spec.data.split} and {spec.test_split} of {spec.data.name} have different classes")
    backbone = open_backbone(spec, context)
    units = Units(context)

    def features(dataset: ImageDataSet, phase: str) -> Features:
        return extract(
            backbone.module,
            dataset,
            spec.images,
            batch_size=spec.batch_size,
            phase=phase,
            context=context,
            units=units,
        )

    try:
        train, test = features(train_set, "features train"), features(test_set, "features test")
        backbone.check_frozen()
        classes = len(train_set.classes)
        if isinstance(spec, KnnSpec):
            judged = run_knn(spec, train, test, classes=classes, context=context, units=units)
        else:
            judged = run_linear(spec, train, test, classes=classes, context=context, units=units)
    except Stopped:
        return None
    return {
        **judged,
        "data": {
            "name": spec.data.name,
            "train_split": spec.data.split,
            "test_split": spec.test_split,
            "train_fingerprint": train_set.fingerprint,
            "test_fingerprint": test_set.fingerprint,
            "train_images": len(train),
            "test_images": len(test),
            "unreadable": {"train": train.unreadable, "test": test.unreadable},
            "classes": classes,
        },
        "backbone": {"source": backbone.source, "digest": backbone.digest, "features": train.values.shape[1]},
        "images": {"size": spec.images.size, "short_side": spec.images.short_side},
    }
