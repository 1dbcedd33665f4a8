"""Which kinds of jobs a data set is for, by what is known of its images; no torch."""

from __future__ import annotations

from collections.abc import Sequence

from barlow_lab.specs.catalogue import Annotations

LEARNS_FROM: dict[str, tuple[Annotations, ...]] = {
    "knn": ("class",),
    "linear": ("class",),
    "semi_supervised": ("class",),
    "svm": ("class", "multi_label"),
    "detection": ("boxes",),
}
"""What a job of each kind learns from, one of these; pretraining learns from images alone."""

WORDS: dict[Annotations, str] = {
    "class": "one class an image",
    "multi_label": "the classes in each image",
    "boxes": "boxes",
    "masks": "masks",
}


def said_of(annotations: Sequence[Annotations]) -> str:
    """What is known of each image, in words."""
    return ", ".join(WORDS[each] for each in annotations) or "no labels"


def kinds_for(annotations: Sequence[Annotations]) -> list[str]:
    """Kinds of jobs that a data set with these annotations is for."""
    return ["pretrain", *(kind for kind, wanted in LEARNS_FROM.items() if set(wanted) & set(annotations))]
