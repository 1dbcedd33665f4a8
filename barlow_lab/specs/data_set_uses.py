"""Which kinds of jobs a data set is for, by what is known of its images; no torch."""

from __future__ import annotations

from collections.abc import Sequence

from barlow_lab.specs.catalogue import Annotations
from barlow_lab.specs.kinds import KINDS

WORDS: dict[Annotations, str] = {
    "class": "one class an image",
    "multi_label": "the classes in each image",
    "boxes": "boxes",
    "masks": "masks",
}


def annotations_in_words(annotations: Sequence[Annotations]) -> str:
    """What is known of each image, in words."""
    return ", ".join(WORDS[each] for each in annotations) or "no labels"


def kinds_in_order() -> list[str]:
    """All kinds, by what they learn from, from nothing but images to what takes most to draw; of those that learn from
    the same what makes a backbone comes first, and then they go by name."""
    order = list(WORDS)

    def place(kind: str) -> tuple[list[int], bool, str]:
        model = KINDS[kind]
        return [order.index(each) for each in model.learns_from[:1]], not model.makes_backbone, kind

    return sorted(KINDS, key=place)


def kinds_for(annotations: Sequence[Annotations]) -> list[str]:
    """Kinds of jobs that a data set with these annotations is for."""
    wanted = {kind: KINDS[kind].learns_from for kind in kinds_in_order()}
    return [kind for kind, learns_from in wanted.items() if not learns_from or set(learns_from) & set(annotations)]
