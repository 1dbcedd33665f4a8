"""Judged images that a backbone of ours was pretrained on: told, for they are no new ones to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from barlow_lab.specs import BackboneJudged
from trainer.data.checks.overlap import PRETRAINED_ON, shared
from trainer.data.datasets import Images, whole_of
from trainer.data.errors import DataError
from trainer.data.registry import open_images
from trainer.runtime.context import Context


@dataclass(frozen=True, slots=True)
class PretrainedOn:
    """The images that a backbone of ours was pretrained on."""

    data: str
    split: str
    fingerprints: frozenset[str]
    """Of these images, and of the whole split where they are a part of it."""


@dataclass(frozen=True, slots=True)
class SeenImages:
    """What to say of judged images that a backbone was, or may have been, pretrained on."""

    said: str
    is_known: bool


def seen_of(
    spec: BackboneJudged, on: PretrainedOn, splits: tuple[Images, Images], context: Context, phase: str
) -> SeenImages | None:
    """Of the images of `splits`, which are those that `spec` learns from and judges, the judged ones that are among
    those that its backbone was pretrained `on`; None: none is.

    A fingerprint alone tells names and sizes of files: images of one size that are numbered alike in every split have
    the same one. So another split of the same data set is opened, and its images are compared.
    """
    (train, test), name = splits, spec.data.name
    source, tick = context.data_source(name), partial(context.working, phase)
    is_alike = test.fingerprint in on.fingerprints
    if (on.data, on.split) == (name, spec.test_split):
        if is_alike or source is None or spec.backbone_from.job is not None:
            where = f"split {on.split!r} of data set {on.data!r}"
            return SeenImages(
                f"the backbone was pretrained on the images that are judged, {where}: {PRETRAINED_ON}", True
            )
        return _perhaps(on, "the same by name, and not by its files, labels or number of images")
    if not is_alike:
        return None
    if on.data == name:
        try:
            pretrained = (
                whole_of(train)
                if on.split == spec.data.split
                else open_images(name, on.split, source=source, tick=tick)
            )
        except DataError:  # it is not here
            pass
        else:
            names, both = (on.split, spec.test_split), (pretrained, test)
            said = shared(names, both, tick, learned_from="pretrained on", remedy=PRETRAINED_ON)
            return None if said is None else SeenImages(f"data set {name!r}: {said}", True)
    return _perhaps(on, "whose files have the names and sizes of the images that are judged")


def _perhaps(on: PretrainedOn, why: str) -> SeenImages:
    where = f"split {on.split!r} of data set {on.data!r}"
    return SeenImages(
        f"the backbone may have been pretrained on the images that are judged: it was on {where}, {why}; in that case "
        f"{PRETRAINED_ON}",
        False,
    )
