"""The two splits that an evaluation needs, and what its result says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, overload

from barlow_lab.specs import BackboneJudged
from trainer.data.checks.overlap import shared
from trainer.data.classes import different, uneven
from trainer.data.datasets import ImageDataSet, Images
from trainer.data.errors import DataError
from trainer.data.folder_names import at_odds
from trainer.data.hearing import nobody
from trainer.data.registry import open_data_set
from trainer.evaluation.seen_images import PretrainedOn, seen_of
from trainer.runtime import collectives
from trainer.runtime.context import Context
from trainer.runtime.data_facts import journal_data
from trainer.runtime.data_warnings import warn_of_data

D = TypeVar("D", bound=Images)

PHASE = "loading data"


@dataclass(frozen=True, slots=True)
class Splits(Generic[D]):
    """What is learned from, and what the score is measured on; `spec` names both."""

    spec: BackboneJudged
    train: D
    test: D
    test_pretrained_on: bool = False
    """Whether it is known that the backbone was pretrained on images of `test`."""

    @property
    def classes(self) -> int:
        """Number of classes, the same ones in both splits."""
        return len(self.train.classes)

    def facts(
        self, *, train_images: int, test_images: int, train_unreadable: int, test_unreadable: int
    ) -> dict[str, Any]:
        """`data` of a result, and `images` of one that judges a feature vector of each; the numbers are those of images
        that were learned from and judged."""
        spec = self.spec
        facts: dict[str, Any] = {
            "data": {
                "name": spec.data.name,
                "train_split": spec.data.split,
                "test_split": spec.test_split,
                "train_fingerprint": self.train.fingerprint,
                "test_fingerprint": self.test.fingerprint,
                "train_images": train_images,
                "test_images": test_images,
                "unreadable": {"train": train_unreadable, "test": test_unreadable},
                "classes": self.classes,
            }
        }
        if self.test_pretrained_on:
            facts["data"]["test_pretrained_on"] = True
        if spec.image_facts:
            facts["images"] = spec.image_facts
        return facts


@overload
def open_splits(
    spec: BackboneJudged, context: Context, *, pretrained_on: PretrainedOn | None
) -> Splits[ImageDataSet]: ...


@overload
def open_splits(
    spec: BackboneJudged, context: Context, opener: Callable[..., D], *, pretrained_on: PretrainedOn | None
) -> Splits[D]: ...


def open_splits(
    spec: BackboneJudged,
    context: Context,
    opener: Callable[..., Images] = open_data_set,
    *,
    pretrained_on: PretrainedOn | None,
) -> Splits[Any]:
    """Both splits of the spec's data set, the same on every rank. `data.limit` holds for the training split; the test
    split is always whole.

    `opener` is one of trainer.data.registry. `pretrained_on` are the images that the backbone was pretrained on, where
    that is known: whether those that are judged are among them is told, and where it is sure it stands in the result.

    Raises:
        DataError: a split cannot be used, they have different classes, or the ranks see different files.
    """
    context.progress(PHASE)
    name, splits = spec.data.name, (spec.data.split, spec.test_split)
    told: set[str] = set()

    def once(said: str) -> None:
        """What the readers say of both splits alike."""
        if said not in told:
            told.add(said)
            context.warn(said)

    opened = partial(
        opener,
        name,
        source=context.data_source(name),
        tick=partial(context.working, PHASE),
        warn=nobody if context.listener is nobody else once,
    )
    train, test = opened(spec.data.split, limit=spec.data.limit), opened(spec.test_split)
    opened_splits = {spec.data.split: train, spec.test_split: test}
    warn_of_data(name, context.data_source(name), opened_splits, context, PHASE)
    if said := different(name, splits, (train.classes, test.classes)):
        raise DataError(said)
    for said in [*uneven(splits, (train, test)), *at_odds(splits, (train, test))]:
        once(f"data set {name!r}: {said}")
    if context.journal is not None and (said := shared(splits, (train, test), partial(context.working, PHASE))):
        once(f"data set {name!r}: {said}")
    seen = None
    if context.journal is not None and pretrained_on is not None:
        seen = seen_of(spec, pretrained_on, (train, test), context, PHASE)
        if seen is not None:
            once(seen.said)
    if len(set(collectives.all_gather_texts([f"{train.fingerprint} {test.fingerprint}"], context.device))) > 1:
        raise DataError(f"the ranks do not see the same files of data set {name!r}; is it being written to?")
    journal_data(context, name, context.data_source(name), {"train": train, "test": test})
    return Splits(spec, train, test, seen is not None and seen.is_known)
