"""Whether a spec asks of its data set what no node has: splits, labels, lists."""

from __future__ import annotations

from collections.abc import Iterable

from barlow_lab.specs import DetectionSpec, Fault, PretrainSpec, SemiSupervisedSpec, Spec
from barlow_lab.specs.catalogue import DataSetEntry, built_in_data_sets
from barlow_lab.specs.data_set_uses import LEARNS_FROM, WORDS, kinds_for, said_of
from barlow_lab.specs.data_sets import no_folder_of_images


def best(entries: Iterable[DataSetEntry]) -> DataSetEntry:
    """Of what several nodes say of a data set, oldest first: what can be used before what has a fault, what was
    checked before what was not, the newest of these."""
    return max(reversed(list(entries)), key=lambda entry: (entry.fault is None, entry.checked))


def counted_for(spec: Spec, entry: DataSetEntry) -> bool:
    """Whether what a node has counted are the images that this spec asks for: of a tree of class folders that is read
    as `format: images` nobody has counted what lies beside them."""
    return not (isinstance(spec, PretrainSpec) and spec.data.format == "images") or entry.format == "images"


def faults_of_kind(spec: Spec, entry: DataSetEntry) -> list[Fault]:
    """What holds whatever the other fields of the spec say: the data set, its splits, and what its images know."""
    name = spec.data.name
    if entry.fault is not None:
        return [Fault("/data/name", entry.fault)]
    wanted = LEARNS_FROM.get(spec.kind)
    if wanted is not None and not set(wanted) & set(entry.annotations):  # whatever splits it has
        asked = " or ".join(WORDS[each] for each in wanted)
        has, kinds = said_of(entry.annotations), ", ".join(kinds_for(entry.annotations))
        return [Fault("/data/name", f"{spec.kind} learns from {asked}, and {name} has {has}: it is for {kinds}")]
    return _missing(spec, name, entry)


def faults_of_labels(spec: Spec, entry: DataSetEntry) -> list[Fault]:
    """What other fields ask of the labels: masks, a list, splits for online probes."""
    name = spec.data.name
    if entry.fault is not None:
        return []
    if isinstance(spec, DetectionSpec) and spec.masks and "masks" not in entry.annotations:
        return [Fault("/masks", f"{name} has no masks; leave masks out, or take a data set in COCO's format")]
    if isinstance(spec, SemiSupervisedSpec) and spec.labels.list not in (None, *entry.lists):
        known = f"it has {', '.join(entry.lists)}" if entry.lists else "it has none"
        said = f"{name} has no list of labelled images {spec.labels.list!r}; {known}, see `lists` in docs/data-sets.md"
        return [Fault("/labels/list", said)]
    if isinstance(spec, PretrainSpec) and (probes := spec.run.record.probes) is not None:
        if "class" not in entry.annotations:
            return [
                Fault("/run/record/probes", f"the probes need one class an image, and {name} has none; leave them out")
            ]
        splits = {"split": probes.split, "test_split": probes.test_split}
        faults = [
            f for field, split in splits.items() for f in _of_split(f"/run/record/probes/{field}", name, split, entry)
        ]
        images = entry.splits.get(probes.split)
        if images is not None and probes.k > images:
            said = f"{probes.k:,} neighbours, and split {probes.split!r} of {name} has {images:,} images; use fewer"
            faults.append(Fault("/run/record/probes/k", said))
        return faults
    return []


def _missing(spec: Spec, name: str, entry: DataSetEntry) -> list[Fault]:
    if isinstance(spec, PretrainSpec) and not counted_for(spec, entry):
        built_in = name in built_in_data_sets()
        if built_in or entry.format not in (None, "image_folder"):
            return [Fault("/data/format", no_folder_of_images(name, entry.format))]
        return []
    if isinstance(spec, PretrainSpec):
        return _of_split("/data/split", name, spec.data.split, entry, labelled=False)
    return [
        *_of_split("/data/split", name, spec.data.split, entry),
        *_of_split("/test_split", name, spec.test_split, entry),
    ]


def _of_split(pointer: str, name: str, split: str, entry: DataSetEntry, *, labelled: bool = True) -> list[Fault]:
    if not entry.checked:
        return []
    splits = ", ".join(f"{name} ({count:,} images)" for name, count in entry.splits.items())
    if split not in entry.splits:
        return [Fault(pointer, f"{name} has no split {split!r}; it has {splits}")]
    if labelled and split in entry.unlabelled:
        return [
            Fault(pointer, f"split {split!r} of {name} has no labels: it is for pretraining alone; it has {splits}")
        ]
    return []
