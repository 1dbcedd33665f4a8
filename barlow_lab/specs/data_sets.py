"""datasets.yaml: where a host has its data sets, and in which format. Read by the worker and by hand; no torch.

    imagenet:
      format: image_folder
      root: /data/imagenet
      splits: {train: train, test: val}
      lists: {1percent: /data/imagenet/1percent.txt}
    voc0712:
      format: voc
      root: /data/VOCdevkit
      splits: {train: [VOC2007/trainval, VOC2012/trainval], test: [VOC2007/test]}
    photos: {format: images, root: /data/photos}

Nothing is ever downloaded. A relative root is below the folder of datasets.yaml, a relative list below the root.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from barlow_lab.specs.catalogue import Annotations, DataSetEntry, built_in_data_sets
from barlow_lab.specs.common import NAME_PATTERN, NAME_RULE, SET_PATTERN, Name, SpecModel, Text
from barlow_lab.specs.faults import Fault
from barlow_lab.specs.files import load_spec_file
from barlow_lab.specs.known_data_sets import KNOWN
from barlow_lab.specs.parsing import SpecError, faults
from barlow_lab.spelling import nearest, one_reading

ValueRange = Literal["dtype", "file", "percentile"]
"""Which value of an image file is white: the largest of its type, the one that the file names, or each image's own."""


class _Source(SpecModel):
    root: Path = Field(description="Folder of the data set on this host")
    classes: int | None = Field(None, ge=1, description="Expected number of classes; another number is refused")
    lists: dict[Name, Path] = Field(
        default_factory=dict, description="Lists of labelled images by name, for semi-supervised training"
    )
    description: Text = Field("", max_length=500, description="A line about it, for lists of data sets")
    value_range: ValueRange = Field(
        "dtype",
        description="Which value of an image file is white: the largest of its type, the one that the `file` names "
        "(12-bit TIFF), or by `percentile` each image's own",
    )


class _RecordsSource(_Source):
    """Images that are levels of 8 bits in records, not files of their own."""

    @model_validator(mode="after")
    def _no_value_range(self) -> Self:
        if self.value_range != "dtype":
            raise ValueError("`value_range` is of image files, and this format has none; leave it out")
        return self


class ImageFolderSource(_Source):
    """A tree ROOT/SPLIT/CLASS/IMAGE: ImageNet, Places205, or one's own."""

    format: Literal["image_folder"] = Field(description="How its files are laid out")
    splits: dict[Name, str] = Field(
        default_factory=dict, description="Folder of each split below root; left out: every folder, by its own name"
    )


class ImagesSource(_Source):
    """A folder of images without labels, flat or nested in any way, for pretraining."""

    format: Literal["images"] = Field(description="How its files are laid out")
    splits: dict[Name, str] = Field(
        default_factory=lambda: {"train": "."},
        min_length=1,
        description="Folder of each split below root; left out: all of root is `train`",
    )

    @model_validator(mode="after")
    def _no_labels(self) -> Self:
        if self.classes is not None or self.lists:
            said = "`classes` and `lists` are of labelled images, and those of `format: images` have no labels"
            raise ValueError(f"{said}; leave them out, or take image_folder or file_list")
        return self


class FileListSource(_Source):
    """Text files of lines `PATH CLASS_NUMBER`, as Places205 is published."""

    format: Literal["file_list"] = Field(description="How its files are laid out")
    splits: dict[Name, str] = Field(min_length=1, description="List of each split, below root")
    images: str = Field("", description="Folder of the images below root")


class INaturalistSource(_Source):
    """The competition's JSON files, as train2018.json, and the images they name."""

    format: Literal["inaturalist"] = Field(description="How its files are laid out")
    splits: dict[Name, str] = Field(
        default_factory=lambda: {"train": "train2018.json", "test": "val2018.json"},
        description="JSON file of each split, below root",
    )


class CifarSource(_RecordsSource):
    """The binary version of CIFAR: data_batch_1.bin ... test_batch.bin, or train.bin and test.bin."""

    format: Literal["cifar10", "cifar100"] = Field(description="How its files are laid out")


class Stl10Source(_RecordsSource):
    """The binary files of STL-10; splits train, test, and unlabeled for pretraining."""

    format: Literal["stl10"] = Field(description="How its files are laid out")


class VocSource(_Source):
    """VOCdevkit: FOLDER/JPEGImages, FOLDER/Annotations, FOLDER/ImageSets/Main/SET.txt; a split joins FOLDER/SETs."""

    format: Literal["voc"] = Field(description="How its files are laid out")
    splits: dict[Name, list[Annotated[str, Field(pattern=SET_PATTERN)]]] = Field(
        min_length=1, description="[VOC2007/trainval, ...] of each split"
    )


class CocoFiles(SpecModel):
    """One split of COCO."""

    images: str = Field(description="Folder below root, as train2017")
    annotations: str = Field(description="File below root, as annotations/instances_train2017.json")


class CocoSource(_Source):
    """Images and instances in JSON, with polygons or run-length masks."""

    format: Literal["coco"] = Field(description="How its files are laid out")
    splits: dict[Name, CocoFiles] = Field(min_length=1, description="Files of each split")


DataSource = Annotated[
    ImageFolderSource
    | ImagesSource
    | FileListSource
    | INaturalistSource
    | CifarSource
    | Stl10Source
    | VocSource
    | CocoSource,
    Field(discriminator="format"),
]

_BY_FORMAT: dict[str, type[_Source]] = {
    name: model
    for model in get_args(get_args(DataSource)[0])
    for name in get_args(model.model_fields["format"].annotation)
}
_READ: TypeAdapter[DataSource] = TypeAdapter(DataSource)

_ANNOTATIONS: dict[str, tuple[Annotations, ...]] = {
    "images": (),
    "voc": ("boxes", "multi_label"),
    "coco": ("boxes", "masks", "multi_label"),
}


def annotations_of(source: DataSource) -> tuple[Annotations, ...]:
    """What is known of each image of a set in this format; of `unlabeled` of STL-10 nothing is."""
    return _ANNOTATIONS.get(source.format, ("class",))


_SIDES = {"cifar10": 32, "cifar100": 32, "stl10": 96}


def has_image_files(source: DataSource) -> bool:
    """Whether its images are files of their own, which have to be decoded."""
    return not isinstance(source, _RecordsSource)


def unchecked(source: DataSource) -> DataSetEntry:
    """What a node says of a set that it has not looked at yet: what datasets.yaml tells."""
    return DataSetEntry(
        splits={},
        classes=None,
        image_size=_SIDES.get(source.format),
        description=source.description,
        annotations=list(annotations_of(source)),
        lists=sorted(source.lists),
        format=source.format,
        checked=False,
        source=hashlib.sha256(source.model_dump_json().encode()).hexdigest(),
    )


def expected_classes(name: str, source: DataSource) -> int | None:
    """How many classes the set must have: as datasets.yaml says, or as the set of this name is published with."""
    if isinstance(source, ImagesSource):
        return None
    return source.classes if source.classes is not None else (KNOWN[name].classes if name in KNOWN else None)


def without_labels(name: str, source: DataSource | None, split: str) -> ImagesSource:
    """The data set `name` as a spec with `format: images` reads it. Of a tree of class folders that names no splits a
    split is the folder of its name, and `train` all of the root where there is none.

    Raises:
        ValueError: its images are not simply those in a folder.
    """
    if isinstance(source, ImagesSource):
        return source
    if not isinstance(source, ImageFolderSource):
        raise ValueError(no_folder_of_images(name, None if source is None else source.format))
    splits = source.splits or {split: split if split != "train" or (source.root / split).is_dir() else "."}
    shared = ImagesSource.model_fields.keys() - {"format", "splits", "classes", "lists"}
    return ImagesSource(format="images", splits=splits, **{field: getattr(source, field) for field in shared})


def no_folder_of_images(name: str, format_: str | None) -> str:
    """Why a data set of this format, none for a built-in one, cannot be read as `format: images`."""
    what = (
        "is built in" if format_ is None else f"is in format {format_}, in which lists or files say what its images are"
    )
    return f"{name} {what}: pretraining looks at no labels anyway, so leave `format` out"


def parse_source(value: object) -> DataSource:
    """A source from its JSON, as inputs.json holds it.

    Raises:
        ValueError: it is none.
    """
    return _READ.validate_python(value)


def load_data_sets(path: Path) -> dict[str, DataSource]:
    """The data sets of a datasets.yaml by name, with absolute paths. Whether they are there is not looked at.

    Raises:
        SpecError: with all faults, each with its pointer.
        OSError: the file cannot be read.
    """
    sources, found = read_data_sets(path)
    if found:
        raise SpecError(found)
    return sources


def read_data_sets(path: Path) -> tuple[dict[str, DataSource], list[Fault]]:
    """The data sets of a datasets.yaml that can be read, as `load_data_sets` gives them, and the faults of the others.

    Raises:
        SpecError: the file as a whole is no datasets.yaml.
        OSError: the file cannot be read.
    """
    value = load_spec_file(path)
    if value is None:
        return {}, []
    if not isinstance(value, Mapping):
        raise SpecError([Fault("", f"{path.name} holds data sets by name, as imagenet: {{format: ...}}")])
    with one_reading():
        return _read_entries(value, path.parent.resolve())


def _read_entries(value: Mapping[Any, Any], base: Path) -> tuple[dict[str, DataSource], list[Fault]]:
    found: list[Fault] = []
    sources: dict[str, DataSource] = {}
    for name, entry in value.items():
        faults_there = _faults_of_name(name)
        source: DataSource | None = None
        try:
            source = _source(entry, base)
        except SpecError as error:
            faults_there += error.faults
        place = str(name).replace("~", "~0").replace("/", "~1")
        found += [Fault(f"/{place}{fault.pointer}", fault.message) for fault in faults_there]
        if source is not None and not faults_there:
            sources[name] = source
    return sources, found


def _faults_of_name(name: object) -> list[Fault]:
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
        return [Fault("", f"{NAME_RULE}; a number goes in quotes")]
    if name in built_in_data_sets():
        return [Fault("", f"{name} is built in and needs no folder; give yours another name")]
    return []


def _source(entry: object, base: Path) -> DataSource:
    """One entry, its paths absolute.

    Raises:
        SpecError: with pointers below the entry.
    """
    if not isinstance(entry, Mapping):
        raise SpecError([Fault("", "a data set is an object with a format and a root")])
    choice = f"use one of {', '.join(_BY_FORMAT)}"
    format_ = entry.get("format")
    if not isinstance(format_, str) or format_ not in _BY_FORMAT:
        near = nearest(str(format_), _BY_FORMAT)
        said = f"unknown format {str(format_)[:100]!r}" if "format" in entry else "format is missing"
        raise SpecError([Fault("/format", f"{said}; {f'did you mean {near!r}?' if near else choice}")])
    model = _BY_FORMAT[format_]
    try:
        source: Any = model.model_validate(entry)
    except ValidationError as error:
        raise SpecError(faults(error, model)) from None
    root = base / source.root.expanduser()
    lists = {name: root / file for name, file in source.lists.items()}
    absolute: DataSource = source.model_copy(update={"root": root, "lists": lists})
    return absolute
