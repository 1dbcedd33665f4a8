"""Whether a spec's numbers fit the number of images that its data set has."""

from __future__ import annotations

from typing import TypeGuard

from barlow_lab.specs import DetectionSpec, Fault, KnnSpec, LinearSpec, PretrainSpec, SemiSupervisedSpec, Spec


def faults_of_size(spec: Spec, images: int, classes: int | None) -> list[Fault]:
    """What the training split, of `images` images of `classes` classes (None: not known), is too small for."""
    split = f"the split {spec.data.split} of {spec.data.name} has {images:,} images"
    limit = spec.data.limit
    if limit is not None and limit > images:
        return [Fault("/data/limit", f"{limit:,} is more than there are: {split}; leave it out for all of them")]
    used = limit or images
    if isinstance(spec, KnnSpec):
        said = f"{spec.k:,} neighbours of {used:,} images: {split}; use fewer"
        return [Fault("/k", said)] if spec.k > used else []
    if isinstance(spec, SemiSupervisedSpec):
        return _faults_of_labels(spec, used, classes, split)
    if not trains_on_batches(spec) or spec.batch_size <= used:
        return []
    return [
        Fault(
            "/batch_size",
            f"{spec.batch_size:,} is more than one epoch has: {split}; the last partial batch is dropped, "
            f"so there would be no step at all; use at most {used:,}",
        )
    ]


def trains_on_batches(spec: Spec) -> TypeGuard[PretrainSpec | LinearSpec | SemiSupervisedSpec | DetectionSpec]:
    """Whether its training takes whole batches of images, and drops what is left of an epoch."""
    cached = isinstance(spec, LinearSpec) and spec.protocol == "cached-features"
    return isinstance(spec, PretrainSpec | LinearSpec | SemiSupervisedSpec | DetectionSpec) and not cached


def labelled_images(spec: SemiSupervisedSpec, images: int, classes: int | None) -> int | None:
    """Images that a semi-supervised evaluation trains on, of `images` in as many classes, as trainer.evaluation's lists
    of labels are drawn: as many of each class, which is all of them if no class is small. None where it is not known
    here: with a list of the server's, or before the number of classes is known."""
    percent = spec.labels.percent
    if percent is None or percent == 100:
        return None if percent is None else images
    return None if classes is None else classes * max(1, round(percent / 100 * images / classes))


def _faults_of_labels(spec: SemiSupervisedSpec, used: int, classes: int | None, split: str) -> list[Fault]:
    labelled = labelled_images(spec, used, classes)
    if labelled is None or spec.batch_size <= labelled:
        return []
    said = f"{spec.labels.percent:g} % of the labels are {labelled:,} images: {split}"
    return [
        Fault(
            "/batch_size",
            f"{spec.batch_size:,} is more than one epoch has: {said}; the last partial batch is dropped, so there "
            f"would be no step at all; use at most {labelled:,}, or more labels",
        )
    ]
