"""Writes data sets as trees of files: ImageFolder, VOC, COCO.

Each writer takes an empty folder and the splits by name, calls `tick` for every image, and returns what an entry of
datasets.yaml says of the tree, without its root.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from trainer.data.datasets import AnnotatedDataSet, Annotation, ImageDataSet
from trainer.data.formats.outlines import polygons, run_lengths

Tick = Callable[[], None]

VOC_FOLDER = "Scenes"
"""What VOC2007 is in a VOCdevkit."""

JPEG_QUALITY = 95


def write_image_folder(folder: Path, splits: Mapping[str, ImageDataSet], tick: Tick) -> dict[str, Any]:
    """SPLIT/CLASS/NUMBER.png."""
    for split, data in splits.items():
        for name in data.classes:
            (folder / split / name).mkdir(parents=True)
        for index in range(len(data)):
            png = Image.fromarray(data.image(index))
            png.save(folder / split / data.classes[data.label(index)] / f"{index:06d}.png")
            tick()
    return {"format": "image_folder"}


def write_voc(folder: Path, splits: Mapping[str, AnnotatedDataSet], tick: Tick) -> dict[str, Any]:
    """JPEGImages, Annotations and ImageSets/Main below one folder, as VOC2007 is. VOC's images are JPEG: not exact."""
    images, annotations, sets = (folder / VOC_FOLDER / part for part in ("JPEGImages", "Annotations", "ImageSets/Main"))
    for made in (images, annotations, sets):
        made.mkdir(parents=True)
    for split, data in splits.items():
        names = [f"{split}_{index:06d}" for index in range(len(data))]
        for index, name in enumerate(names):
            jpeg = Image.fromarray(data.image(index))
            jpeg.save(images / f"{name}.jpg", quality=JPEG_QUALITY, subsampling=0)
            described = voc_annotation(f"{name}.jpg", data.size(index), data.annotation(index), data.classes)
            ElementTree.indent(described, "\t")
            ElementTree.ElementTree(described).write(annotations / f"{name}.xml", "utf-8")
            tick()
        (sets / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), "ascii")
    return {"format": "voc", "splits": {split: [f"{VOC_FOLDER}/{split}"] for split in splits}}


def voc_annotation(
    file_name: str, size: tuple[int, int], annotation: Annotation, classes: tuple[str, ...]
) -> ElementTree.Element:
    """An image's annotation as VOC has it: its pixels are counted from 1, and a box holds its last ones."""
    top = ElementTree.Element("annotation")
    _texts(top, folder=VOC_FOLDER, filename=file_name)
    _texts(ElementTree.SubElement(top, "size"), width=size[1], height=size[0], depth=3)
    _texts(top, segmented=0)
    boxes = annotation.boxes.round().astype(np.int64).tolist()
    objects = zip(boxes, annotation.classes.tolist(), annotation.ignored.tolist(), strict=True)
    for (left, upper, right, lower), kind, ignored in objects:
        described = ElementTree.SubElement(top, "object")
        _texts(described, name=classes[kind], pose="Unspecified", truncated=0, difficult=int(ignored))
        _texts(ElementTree.SubElement(described, "bndbox"), xmin=left + 1, ymin=upper + 1, xmax=right, ymax=lower)
    return top


def _texts(parent: ElementTree.Element, **values: str | int) -> None:
    for tag, value in values.items():
        ElementTree.SubElement(parent, tag).text = str(value)


def write_coco(folder: Path, splits: Mapping[str, AnnotatedDataSet], tick: Tick) -> dict[str, Any]:
    """SPLIT/NUMBER.png and annotations/instances_SPLIT.json, as COCO's instances are.

    Every second mask is in polygons where they say exactly what it is, the others in compressed runs; COCO has both.
    """
    (folder / "annotations").mkdir()
    for split, data in splits.items():
        (folder / split).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(len(data)):
            name = f"{index:06d}.png"
            Image.fromarray(data.image(index)).save(folder / split / name)
            height, width = data.size(index)
            images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
            for each in coco_annotations(data.annotation(index), first_id=len(annotations) + 1):
                annotations.append({**each, "image_id": index + 1})
            tick()
        categories = [{"id": place + 1, "name": name} for place, name in enumerate(data.classes)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), "utf-8")
    of_splits = {split: {"images": split, "annotations": f"annotations/instances_{split}.json"} for split in splits}
    return {"format": "coco", "splits": of_splits}


def coco_annotations(annotation: Annotation, *, first_id: int) -> list[dict[str, Any]]:
    """The objects of an image as COCO has them: a box is left, top, width and height; an ignored object a crowd."""
    assert annotation.masks is not None, "COCO's instances have masks"
    left, top, right, bottom = annotation.boxes.astype(float).T
    boxes = np.stack([left, top, right - left, bottom - top], axis=1).tolist()
    objects = []
    for place, (box, mask) in enumerate(zip(boxes, annotation.masks, strict=True)):
        crowd = bool(annotation.ignored[place])
        outlined = None if crowd or (first_id + place) % 2 else polygons(mask)
        objects.append({
            "id": first_id + place,
            "category_id": int(annotation.classes[place]) + 1,
            "bbox": box,
            "area": int(mask.sum()),
            "iscrowd": int(crowd),
            "segmentation": run_lengths(mask) if outlined is None else outlined,
        })  # fmt: skip
    return objects
