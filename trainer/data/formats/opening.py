"""From an entry of datasets.yaml to its images, whatever the format."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import assert_never

from barlow_lab.foreign_text import shown
from barlow_lab.specs.data_sets import (
    CifarSource,
    CocoSource,
    DataSource,
    FileListSource,
    ImageFolderSource,
    ImagesSource,
    INaturalistSource,
    Stl10Source,
    VocSource,
    expected_classes,
)
from barlow_lab.specs.known_data_sets import where_from
from trainer.data.checks.overlap import again
from trainer.data.datasets import Images
from trainer.data.decoding.reading import Reading
from trainer.data.errors import DataError
from trainer.data.hearing import nobody
from trainer.data.image_files import FileImages

Tick = Callable[[], None]
"""Called for every unit of work, say an image: a hundred thousand times a second costs nothing that counts."""

Warn = Callable[[str], None]
"""Called with what a user should know of a data set that can be used nevertheless."""


def open_source(name: str, source: DataSource, split: str, *, tick: Tick, warn: Warn) -> Images:
    """Open one split of the data set that a host calls `name`.

    Raises:
        DataError: no such folder or split, or data that cannot be read.
    """
    if not source.root.is_dir():
        raise DataError(
            f"data set {name!r} has no folder {source.root} on this host; correct its path, or mount the disk. "
            f"{where_from(name)}".rstrip()
        )
    known = splits_of(source)
    if known is not None and split not in known:
        raise DataError(f"data set {name!r} has no split {split!r}; {_nearest(split, known)}")
    try:
        images = _open(name, source, split, tick, warn)
    except OSError as error:
        place = shown(os.fsdecode(error.filename)) if error.filename is not None else None
        raise DataError(f"data set {name!r} cannot be read: {error.strerror or error}: {place}") from error
    if isinstance(images, FileImages):
        whose = f"data set {name!r}, split {split!r}"
        if warn is not nobody and (said := again(images, images.identities)):
            warn(f"{whose}: {said}")
        images.read_as(Reading(source.value_range, whose=whose, count=len(images), warn=warn))
    return images


def splits_of(source: DataSource) -> list[str] | None:
    """Names of the splits; None: the folders below the root."""
    if isinstance(source, CifarSource):
        return ["train", "test"]
    if isinstance(source, Stl10Source):
        return ["train", "test", "unlabeled"]
    return list(source.splits) or None


def record_files(source: DataSource) -> frozenset[str]:
    """Names of the files of a data set whose images are records, of all of its splits; none of another."""
    if isinstance(source, CifarSource):
        from trainer.data.formats.cifar import FILES as of_cifar

        return frozenset(name for names in of_cifar[source.format].values() for name in names)
    if isinstance(source, Stl10Source):
        from trainer.data.formats.stl10 import FILES as of_stl10

        return frozenset(name for names in of_stl10.values() for name in names)
    return frozenset()


def files_of(source: DataSource, split: str, images: Images | None, tick: Tick) -> Iterator[bytes]:
    """Paths of the files that a split's list or annotations name: of `images` if it is open, else what they say.

    Raises:
        DataError, OSError: they cannot be read.
    """
    if isinstance(images, FileImages):
        yield from map(images.file, range(len(images)))
    elif isinstance(source, FileListSource):
        from trainer.data.formats.file_list import files_of_list

        yield from files_of_list(source, split, tick)
    elif isinstance(source, VocSource):
        from trainer.data.formats.voc import files_of_split

        yield from files_of_split(source, split)
    elif isinstance(source, INaturalistSource):
        from trainer.data.formats.json_annotations import named_in_json

        yield from named_in_json(source.root / source.splits[split], source.root, tick)
    elif isinstance(source, CocoSource):
        from trainer.data.formats.json_annotations import named_in_json

        files = source.splits[split]
        yield from named_in_json(source.root / files.annotations, source.root / files.images, tick)


def folders_of(source: DataSource) -> list[str]:
    """Folders that an entry names for images, which may lie outside of the root or behind links: below it, or
    absolute."""
    if isinstance(source, FileListSource):
        return [source.images] if source.images else []
    if isinstance(source, CocoSource):
        return sorted({files.images for files in source.splits.values()})
    return []


def _open(name: str, source: DataSource, split: str, tick: Tick, warn: Warn) -> Images:
    # Late: a run needs one of the readers, and json, XML or pycocotools with it.
    if isinstance(source, ImageFolderSource):
        from trainer.data.formats.image_folder import open_image_folder

        return open_image_folder(name, source, split, tick=tick, warn=warn)
    if isinstance(source, ImagesSource):
        from trainer.data.formats.unlabelled_folder import open_unlabelled_folder

        return open_unlabelled_folder(name, source, split, tick=tick, warn=warn)
    if isinstance(source, FileListSource):
        from trainer.data.formats.file_list import open_file_list

        return open_file_list(source, split, expected_classes(name, source), tick=tick, warn=_of(name, warn))
    if isinstance(source, INaturalistSource):
        from trainer.data.formats.inaturalist import open_inaturalist

        return open_inaturalist(source, split, tick=tick, warn=_of(name, warn))
    if isinstance(source, CifarSource):
        from trainer.data.formats.cifar import open_cifar

        return open_cifar(source, split, tick=tick, warn=_of(name, warn))
    if isinstance(source, Stl10Source):
        from trainer.data.formats.stl10 import open_stl10

        return open_stl10(source, split, tick=tick, warn=_of(name, warn))
    if isinstance(source, VocSource):
        from trainer.data.formats.voc import open_voc

        return open_voc(source, split, tick=tick, warn=_of(name, warn))
    if isinstance(source, CocoSource):
        from trainer.data.formats.coco import open_coco

        return open_coco(source, split, tick=tick, warn=_of(name, warn))
    assert_never(source)


def _of(name: str, warn: Warn) -> Warn:
    return warn if warn is nobody else lambda said: warn(f"data set {name!r}: {said}")


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known := list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"its splits: {', '.join(known)}"
