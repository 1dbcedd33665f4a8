"""PASCAL VOC: a VOCdevkit tree of JPEGImages, Annotations in XML, and ImageSets/Main with a list of each set.

Pixels of VOC count from 1 and a box holds its last one: left and top lose 1 here, right and bottom stay (Everingham et
al., The PASCAL VOC Development Kit, 2007 and 2012). Objects marked difficult are ignored in a test, and trained on.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from barlow_lab.foreign_text import shown
from barlow_lab.given_files import read_bytes, read_text
from barlow_lab.specs.data_sets import VocSource
from trainer.data.errors import DataError
from trainer.data.formats.annotated_files import AnnotatedFiles, Objects
from trainer.data.formats.doubtful_boxes import MOST_OF_FRACTIONS, OF_CORNERS, Given, tell_of_boxes
from trainer.data.formats.ignored_objects import tell_of_ignored
from trainer.data.formats.passed_over import ENDINGS
from trainer.data.ignored import DIFFICULT
from trainer.data.image_files import NO_UTF_8, PackedNames

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""VOC's own, in its order."""
_OF_ONE_CLASS = re.compile(r"\s(-1|0|1)$")
"""A line that says whether an image has objects of the class, by name; other names with blanks are names."""
MAX_ANNOTATION_BYTES = 1 << 24
"""Most bytes of the annotation of one image: VOC's have some kilobytes."""


@dataclass(frozen=True, slots=True)
class _Object:
    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    said_anew: bool
    """It is difficult in other words than `1`, which the versions before took for not difficult."""


@dataclass(frozen=True, slots=True)
class _Image:
    """What an XML file says. `digest` is that of the file, and of how it is read where that is not as it was before."""

    height: int
    width: int
    objects: list[_Object]
    digest: bytes
    more_boxes: int
    """Objects that have several."""
    of: str
    """The image that it says it is of, without folder and ending; it is not looked up by that."""


def open_voc(source: VocSource, split: str, *, tick: Callable[[], None], warn: Callable[[str], None]) -> AnnotatedFiles:
    """Open a split: the images of its sets one after the other, in the order of their lists. `warn` is told of boxes
    that are doubtful, or look as if they counted from 0, and of many difficult objects.

    The classes are VOC's 20 where no annotation of any split names another, else the names found there, sorted: every
    split has the same.

    Raises:
        DataError: a list or an annotation is not what it should be, or images are not there.
        OSError: a list is not there.
    """
    listed = list(_listed(source, split))
    images: list[_Image] = []
    found: set[str] = set()
    for folder, name in listed:
        tick()
        images.append(_read(_annotation(source, folder, name), name))
        found.update(each.name for each in images[-1].objects)
    for folder, name in sorted({pair for other in source.splits for pair in _listed(source, other)} - set(listed)):
        tick()
        found.update(each.name for each in _read(_annotation(source, folder, name), name).objects)
    classes = CLASSES if found <= set(CLASSES) else tuple(sorted(found))
    label_of = {name: label for label, name in enumerate(classes)}
    names, objects, digest = PackedNames(), Objects(), hashlib.sha256()
    for (folder, name), image in zip(listed, images, strict=True):
        names.append(_file(folder, name))
        digest.update(image.digest)
        for each in image.objects:
            objects.add(each.box, label_of[each.name], ignored=each.difficult)
        objects.end_image()
    sizes = np.array([(image.height, image.width) for image in images], dtype=np.int32).reshape(-1, 2)
    whose = f"split {split!r} ({', '.join(source.splits[split])})"
    boxes = np.array(objects.boxes, dtype=np.float32).reshape(-1, 4)
    given = Given(
        boxes=boxes,
        classes=np.array(objects.classes, dtype=np.int64),
        images=np.repeat(np.arange(len(images)), [len(image.objects) for image in images]),
        sizes=sizes,
        names=names,
        whose=whose,
        form="xmin, ymin, xmax, ymax",
        others=OF_CORNERS,
    )
    tell_of_boxes(given, warn)
    tell_of_ignored(objects, classes, whose, DIFFICULT, warn)
    _tell_of_zeros(boxes, whose, warn)
    if more := sum(image.more_boxes for image in images):
        warn(f"{more:,} of {len(boxes):,} objects of {whose} have several <bndbox>, of which the first is read")
    _tell_of_exchanged(listed, images, whose, warn)
    if images and not len(boxes):
        warn(
            f"no image of {whose} has an object: they are for pretraining alone. Is the export unfinished, complete it"
        )
    return AnnotatedFiles(
        whose, source.root, names, sizes, objects, classes, digest.hexdigest(), tick, ignored_are_difficult=True
    )


def _tell_of_zeros(boxes: NDArray[np.float32], whose: str, warn: Callable[[str], None]) -> None:
    """Warn of boxes (k, 4), fractions apart, that begin at pixel 0 of the file, which is -1 here."""
    from_zero = (boxes[:, :2] == -1).any(axis=1) & (boxes[:, 2:] > MOST_OF_FRACTIONS).any(axis=1)
    if count := int(from_zero.sum()):
        warn(
            f"{count:,} of {len(boxes):,} boxes of {whose} begin at pixel 0; VOC counts from 1: does the file count "
            "from 0? Then all of its boxes are read one pixel too far left and up: add 1 to xmin, ymin, xmax and ymax "
            "(where xmax and ymax are the first pixel outside, to xmin and ymin alone)"
        )


def _tell_of_exchanged(
    listed: list[tuple[str, str]], images: list[_Image], whose: str, warn: Callable[[str], None]
) -> None:
    """Warn of annotations whose `<filename>` is that of another image of the split."""
    there = set(listed)
    others = [
        (name, image.of)
        for (folder, name), image in zip(listed, images, strict=True)
        if image.of != name and (folder, image.of) in there
    ]
    if others:
        name, other = others[0]
        warn(
            f"{len(others):,} of {len(images):,} annotations of {whose} name another image of it in their <filename>, "
            f"first {name}.xml, {shown(other)}: were images renamed and their annotations not? They are read for the "
            "image of their own name"
        )


def files_of_split(source: VocSource, split: str) -> Iterator[bytes]:
    """Paths of the files of a split's images.

    Raises:
        DataError, OSError: its lists cannot be read.
    """
    return (os.path.join(os.fsencode(source.root), _file(*pair)) for pair in _listed(source, split))


def _file(folder: str, name: str) -> bytes:
    return f"{folder}/JPEGImages/{name}.jpg".encode("utf-8", "surrogateescape")


def _listed(source: VocSource, split: str) -> Iterator[tuple[str, str]]:
    """Folder and name of each image of a split."""
    seen = set()
    for part in source.splits[split]:
        folder, _, name = part.rpartition("/")
        path = source.root / folder / "ImageSets" / "Main" / f"{name}.txt"
        text = read_text(path, encoding="utf-8-sig", errors="surrogateescape")
        if "\0" in text:
            raise DataError(f"{path} cannot be read: {NO_UTF_8}")
        for number, line in enumerate(text.splitlines(), start=1):
            image = line.strip()
            if not image:
                continue
            if _OF_ONE_CLASS.search(image) and not os.path.lexists(_annotation(source, folder, image)):
                raise DataError(f"{path}, line {number}: a list of one class; take that of the whole set, as trainval")
            if (folder, image) in seen:
                raise DataError(f"split {split!r} names {image!r} of {folder} twice; do its sets overlap?")
            seen.add((folder, image))
            yield folder, image


def _annotation(source: VocSource, folder: str, name: str) -> Path:
    return source.root / folder / "Annotations" / f"{name}.xml"


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Annotations have none, and one may define entities that blow up, or name other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DataError(f"it has a document type ({name}), and with it perhaps entities; annotations have none")


def _bare(file: str) -> str:
    """A file's name without its ending, if that is one of images."""
    stem, ending = os.path.splitext(file)
    return stem if ending[1:].lower().encode("utf-8", "surrogateescape") in ENDINGS else file


def _hint(name: str) -> str:
    """What to say where the annotation of this name is not there, and the name is none as lists have them."""
    last = re.split(r"[/\\]", name)[-1]
    bare = _bare(last)
    return "" if bare == name else f"; lists of VOC name images without folder and ending: {bare!r}, not {name!r}"


def _read(path: Path, name: str) -> _Image:
    """What the annotation of the image `name` says.

    Raises:
        DataError: it is not there, no XML, or not VOC's.
    """
    try:
        content = read_bytes(path, most=MAX_ANNOTATION_BYTES)
        root = ElementTree.fromstring(content, ElementTree.XMLParser(target=_WithoutDoctype()))
        size = root.find("size")
        height, width = (_number(size, side) for side in ("height", "width"))
        if not (1 <= height < 2**31 and 1 <= width < 2**31):
            raise DataError(f"a size of {width:g} x {height:g} pixels")
        objects = [_object(element) for element in root.iter("object")]
    except ElementTree.ParseError as error:
        raise DataError(f"{path} cannot be read as XML: {error}") from error
    except DataError as error:
        raise DataError(f"{path} cannot be read as an annotation of VOC: {error}") from error
    except OSError as error:
        raise DataError(f"annotation {path} cannot be read: {error.strerror}{_hint(name)}") from error
    except ValueError as error:  # an encoding of several bytes, as GBK, which expat does not read
        raise DataError(f"annotation {str(path)!r} cannot be read: {error}") from error
    digest = hashlib.sha256(content)
    if any(each.said_anew for each in objects):  # other scores of the same bytes: another data set
        digest.update(b"\0difficult in words")
    more = sum(len(element.findall("bndbox")) > 1 for element in root.iter("object"))
    file = re.split(r"[/\\]", (root.findtext("filename") or "").strip())[-1]
    return _Image(int(height), int(width), objects, digest.digest(), more, of=_bare(file))


def _object(element: Any) -> _Object:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError("an object without a name")
    box = element.find("bndbox")
    left, top, right, bottom = (_number(box, side) for side in ("xmin", "ymin", "xmax", "ymax"))
    text = (element.findtext("difficult") or "").strip()
    difficult = _is_difficult(element, text)
    return _Object(name, (left - 1, top - 1, right, bottom), difficult, said_anew=difficult and text != "1")


def _is_difficult(element: Any, text: str) -> bool:
    if text.lower() in ("", "unspecified", "false", "true"):
        return text.lower() == "true"
    number = _number(element, "difficult")
    if number not in (0, 1):
        raise DataError(f"difficult is {text!r}; 0 or 1 is expected")
    return number == 1


def _number(element: Any, name: str) -> float:
    text = None if element is None else element.findtext(name)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{name} is {text!r}; a number is expected")
    return value
