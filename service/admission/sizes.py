"""Whether a spec's numbers fit the number of images that its data set has."""

from __future__ import annotations

from barlow_lab.specs import Fault, Spec


def faults_of_size(spec: Spec, images: int, classes: int | None) -> list[Fault]:
    """What the training split, of `images` images of `classes` classes (None: not known), is too small for."""
    split = f"the split {spec.data.split} of {spec.data.name} has {images:,} images"
    limit = spec.data.limit
    if limit is not None and limit > images:
        return [Fault("/data/limit", f"{limit:,} is more than there are: {split}; leave it out for all of them")]
    return spec.faults_of_size(limit or images, classes, split)
