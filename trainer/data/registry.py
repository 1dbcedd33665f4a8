"""Data sets by name: the only way a spec reaches data.

A name is either registered here, and its images come with the code, or datasets.yaml of this host says where it is and
in which format (barlow_lab.specs.data_sets).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from barlow_lab.specs.catalogue import Annotations
from barlow_lab.specs.data_set_uses import annotations_in_words, kinds_for
from barlow_lab.specs.data_sets import DataSource, annotations_of, expected_classes
from trainer.data.datasets import (
    AnnotatedDataSet,
    FirstAnnotatedImages,
    FirstImages,
    FirstLabelledImages,
    ImageDataSet,
    Images,
    whole_of,
)
from trainer.data.errors import DataError
from trainer.data.formats.annotated_files import AnnotatedFiles
from trainer.data.formats.opening import Tick, Warn, open_source
from trainer.data.formats.unlabelled_folder import UnlabelledFolder
from trainer.data.generated.digits import open_digits
from trainer.data.generated.textures import open_textures
from trainer.data.hearing import nobody

Opener = Callable[[str, Tick], Images]
"""Opens one split, given its name."""


@dataclass(frozen=True, slots=True)
class Registration:
    """One data set that needs no folder."""

    opener: Opener
    splits: tuple[str, ...]
    description: str
    annotations: tuple[Annotations, ...] = ("class",)


_registered: dict[str, Registration] = {}


def register(
    name: str,
    opener: Opener,
    *,
    splits: tuple[str, ...],
    description: str,
    annotations: tuple[Annotations, ...] = ("class",),
) -> None:
    """Make a data set known under a name.

    Raises:
        ValueError: the name is taken.
    """
    if name in _registered:
        raise ValueError(f"data set {name!r} is registered twice; give one of them another name")
    _registered[name] = Registration(opener, splits, description, annotations)


def registered_data_sets() -> dict[str, Registration]:
    """All registered data sets, by name."""
    return dict(_registered)


def known_annotations(name: str, source: DataSource | None = None) -> tuple[Annotations, ...]:
    """What is known of each image of a data set, without opening it.

    Raises:
        DataError: unknown name.
    """
    if name in _registered:
        return _registered[name].annotations
    return annotations_of(_given(name, source))


def open_images(
    name: str,
    split: str,
    *,
    source: DataSource | None = None,
    limit: int | None = None,
    tick: Tick = lambda: None,
    warn: Warn = nobody,
) -> Images:
    """Open one split of any data set; `tick` hears of every unit of work. `limit` keeps its first images only, or, of a
    folder without labels, where these would be those of its first folders, some of all that are drawn by their paths.

    `source` is this host's entry of a data set that is not registered.

    Raises:
        DataError: unknown name or split, naming the known ones, or data that cannot be read or are not what they
            should be.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit {limit} leaves no image; use at least 1, or leave it out")
    entry = _registered.get(name)
    if entry is not None:
        if split not in entry.splits:
            raise DataError(f"data set {name!r} has no split {split!r}; {_nearest(split, entry.splits)}")
        whole = entry.opener(split, tick)
    else:
        source = _given(name, source)
        whole = open_source(name, source, split, tick=tick, warn=warn)
        expected = expected_classes(name, source)
        if expected is not None and len(whole.classes) != expected:
            raise DataError(
                f"data set {name!r} has {len(whole.classes):,} classes in {source.root}, and {expected:,} are "
                "expected: complete it, or say `classes: N` in datasets.yaml if it is meant to be another"
            )
    return whole if limit is None or limit >= len(whole) else _first(whole, limit)


def open_data_set(
    name: str,
    split: str,
    *,
    source: DataSource | None = None,
    limit: int | None = None,
    tick: Tick = lambda: None,
    warn: Warn = nobody,
) -> ImageDataSet:
    """Open one split whose images have one class each; the arguments are those of `open_images`.

    Raises:
        DataError: as `open_images`, or the images have no single class; says what they have.
    """
    images = open_images(name, split, source=source, limit=limit, tick=tick, warn=warn)
    if isinstance(images, ImageDataSet):
        return images
    if isinstance(images, AnnotatedDataSet):
        raise DataError(f"{_said(name, source)} and no single class an image, which this job learns from")
    if not known_annotations(name, source):
        raise DataError(f"{_said(name, source)}, and this job learns from one class an image")
    raise DataError(f"split {split!r} of data set {name!r} has no labels: it is for pretraining alone; use another")


def open_annotated(
    name: str,
    split: str,
    *,
    source: DataSource | None = None,
    limit: int | None = None,
    tick: Tick = lambda: None,
    warn: Warn = nobody,
) -> AnnotatedDataSet:
    """Open one split whose images have objects in boxes; the arguments are those of `open_images`.

    Raises:
        DataError: as `open_images`, or the data set has no boxes; says what it has.
    """
    images = open_images(name, split, source=source, limit=limit, tick=tick, warn=warn)
    if isinstance(images, AnnotatedDataSet):
        _refuse_without_objects(name, split, images)
        if isinstance(whole := whole_of(images), AnnotatedFiles):
            whole.tell_of_turns()
        return images
    raise DataError(f"{_said(name, source)} and no boxes, which this job learns from")


def open_multi_label(
    name: str,
    split: str,
    *,
    source: DataSource | None = None,
    limit: int | None = None,
    tick: Tick = lambda: None,
    warn: Warn = nobody,
) -> ImageDataSet | AnnotatedDataSet:
    """Open one split whose images have a class each, or objects of any; the arguments are those of `open_images`.

    Raises:
        DataError: as `open_images`, or the split has no labels.
    """
    images = open_images(name, split, source=source, limit=limit, tick=tick, warn=warn)
    if isinstance(images, AnnotatedDataSet):
        _refuse_without_objects(name, split, images)
        return images
    if isinstance(images, ImageDataSet):
        return images
    raise DataError(f"data set {name!r} has no labels in this split: it is for pretraining alone; use another")


def _refuse_without_objects(name: str, split: str, images: AnnotatedDataSet) -> None:
    whole = whole_of(images)
    assert isinstance(whole, AnnotatedDataSet)
    if not whole.presence().any():
        raise DataError(
            f"split {split!r} of data set {name!r} has no object in any of its {len(whole):,} images, and this job "
            "learns from objects or is judged on them; name the file of its annotations, or use another split"
        )


def _given(name: str, source: DataSource | None) -> DataSource:
    if source is None:
        raise DataError(
            f"unknown data set {name!r}; {_nearest(name, tuple(_registered))} "
            f"(by hand: --data {name}=DIR for a tree of class folders, --data {name}=images:DIR for images without "
            "labels, or --datasets FILE)"
        )
    return source


def _first(whole: Images, count: int) -> Images:
    if isinstance(whole, UnlabelledFolder):
        whole.draw()
    if isinstance(whole, ImageDataSet):
        return FirstLabelledImages(whole, count)
    if isinstance(whole, AnnotatedDataSet):
        return FirstAnnotatedImages(whole, count)
    return FirstImages(whole, count)


def _said(name: str, source: DataSource | None) -> str:
    has = known_annotations(name, source)
    return f"data set {name!r} is for {', '.join(kinds_for(has))}: it has {annotations_in_words(has)}"


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def _scenes(split: str, tick: Tick) -> Images:
    from trainer.data.generated.scenes import open_scenes  # late: few runs draw scenes

    return open_scenes(split, tick=tick)


register(
    "digits",
    lambda split, tick: open_digits(split),
    splits=("train", "test"),
    description="1,797 handwritten digits of scikit-learn, 8x8 grey levels as RGB",
)
register(
    "textures",
    lambda split, tick: open_textures(split, tick=tick),
    splits=("train", "test"),
    description="Generated textures: the class is the family; colours, phase, frequency, shading, noise are nuisance",
)
register(
    "scenes",
    _scenes,
    splits=("train", "test"),
    description="Generated scenes: textured objects on textured grounds, with boxes and masks",
    annotations=("boxes", "masks", "multi_label"),
)
