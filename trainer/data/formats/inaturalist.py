"""iNaturalist from the competition's JSON files: {"images": [...], "annotations": [...], "categories": [...]}."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import numpy as np

from barlow_lab.specs.data_sets import INaturalistSource
from trainer.data.classes import in_words
from trainer.data.errors import DataError
from trainer.data.formats.json_annotations import Categories, field, places_of
from trainer.data.formats.json_stream import JsonLists
from trainer.data.formats.labelled_files import LabelledFiles
from trainer.data.image_files import PackedNames


def open_inaturalist(
    source: INaturalistSource, split: str, *, tick: Callable[[], None], warn: Callable[[str], None]
) -> LabelledFiles:
    """Open a split: images are those that have an annotation, classes the categories in the order of their ids, without
    those that no image of any split is of, which `warn` is told.

    Raises:
        DataError: the file is not what it should be, or images are not there.
        OSError: it is not there.
    """
    file = JsonLists(source.root / source.splits[split], tick)
    where = file.path.name
    names, ids = PackedNames(), array("q")
    of_image, of_category = array("q"), array("q")
    categories = Categories(where)
    for item in file.items("images", "annotations", "categories"):
        if item.list == "images":
            ids.append(field(item, "id", int, where))
            names.append(field(item, "file_name", str, where).encode("utf-8", "surrogatepass"))
        elif item.list == "annotations":
            of_image.append(field(item, "image_id", int, where))
            of_category.append(field(item, "category_id", int, where))
        else:
            categories.add(item)
    images = places_of(np.array(of_image, dtype=np.int64), np.array(ids, dtype=np.int64), "image", where)
    labels = np.full(len(names), -1, dtype=np.int64)
    if len(np.unique(images)) < len(images):
        raise DataError(f"{where} has several annotations of one image; here each has one class")
    labels[images] = categories.labels_of(np.array(of_category, dtype=np.int64))
    if (labels < 0).any():
        raise DataError(f"{where} has no annotation for {(labels < 0).sum():,} of its {len(labels):,} images")
    there = np.bincount(labels, minlength=len(categories.names)) > 0
    if not there.all():
        there |= np.isin(categories.ids, _used_elsewhere(source, split, tick))
    classes = categories.names
    if not there.all():
        empty = [classes[label] for label in np.flatnonzero(~there)]
        warn(f"no image of any split is of {in_words(empty)}; {int(there.sum()):,} categories count")
    kept = tuple(classes[label] for label in np.flatnonzero(there))
    return LabelledFiles(where, source.root, names, (np.cumsum(there) - 1)[labels], kept, tick)


def _used_elsewhere(source: INaturalistSource, split: str, tick: Callable[[], None]) -> list[int]:
    """Ids of the categories that images of other splits are of, as far as these are there."""
    used: set[int] = set()
    for file in sorted(set(source.splits.values()) - {source.splits[split]}):
        path = source.root / file
        if path.exists():
            used.update(field(item, "category_id", int, file) for item in JsonLists(path, tick).items("annotations"))
    return sorted(used)
