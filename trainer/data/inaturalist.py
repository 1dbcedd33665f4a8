"""iNaturalist from the competition's JSON files: {"images": [...], "annotations": [...], "categories": [...]}."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import numpy as np

from trainer.data.errors import DataError
from trainer.data.image_files import Names
from trainer.data.json_stream import JsonLists
from trainer.data.labelled_files import LabelledFiles
from trainer.data.records import Categories, field, places_of
from trainer.specs.data_sets import INaturalistSource


def open_inaturalist(source: INaturalistSource, split: str, *, tick: Callable[[], None]) -> LabelledFiles:
    """Open a split: classes are the categories in the order of their ids, images those that have an annotation.

    Raises:
        DataError: the file is not what it should be, or images are not there.
        OSError: it is not there.
    """
    file = JsonLists(source.root / source.splits[split], tick)
    where = file.path.name
    names, ids = Names(), array("q")
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
    return LabelledFiles(where, source.root, names, labels, categories.names, tick)
