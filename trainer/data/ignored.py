"""Objects that count neither as found nor as missed, COCO's crowds and VOC's difficult ones: what is said of them where
there are more than a set has that means them."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.data.datasets import AnnotatedDataSet


@dataclass(frozen=True, slots=True)
class Ignored:
    """What such objects are called, what becomes of them, and which part of all objects may be such."""

    called: str
    so: str
    remedy: str
    most: float


CROWDS = Ignored(
    "crowds (iscrowd 1)",
    "which are neither learned nor asked for in a test",
    "does a tool such as CVAT write that for every mask? Write iscrowd 0 for single objects",
    0.1,  # of COCO's train2017 one in a hundred is
)
DIFFICULT = Ignored(
    "difficult (<difficult> 1)",
    "which a detector learns, no support vector machine learns of and no test asks for",
    "does a tool write that for every object? Write <difficult> 0 for those that are to count",
    0.4,  # of VOC2007 one in five is
)


def ignored_as(*, difficult: bool) -> Ignored:
    """What the ignored objects of a set are: VOC's difficult ones, or COCO's crowds."""
    return DIFFICULT if difficult else CROWDS


def told_of(images: AnnotatedDataSet, whose: str) -> str | None:
    """How many objects of a split are ignored, for an error that too little is left of it; None: none are."""
    boxes, difficult = images.box_counts(), images.ignored_are_difficult
    count = int(boxes.ignored.sum())
    every = int(boxes.objects.sum()) + (0 if difficult else count)
    return told(count, every, whose, ignored_as(difficult=difficult)) if count else None


def told(count: int, every: int, whose: str, kind: Ignored, *, among: str = "") -> str:
    """The words that `count` of `every` objects are ignored; `among` says which."""
    share = f"all {every:,}" if count == every else f"{count:,} of {every:,}"
    return f"{share} objects of {whose} are {kind.called}{among}, {kind.so}; {kind.remedy}"
