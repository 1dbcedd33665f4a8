"""Whether a spec asks of its data set what no node has: splits, labels, lists."""

from __future__ import annotations

from collections.abc import Iterable

from barlow_lab.specs import Fault, Spec
from barlow_lab.specs.catalogue import DataSetEntry, built_in_data_sets
from barlow_lab.specs.data_set_uses import WORDS, annotations_in_words, kinds_for
from barlow_lab.specs.data_sets import no_folder_of_images


def best(entries: Iterable[DataSetEntry]) -> DataSetEntry:
    """Of what several nodes say of a data set, oldest first: what can be used before what has a fault, what was
    checked before what was not, the newest of these."""
    return max(reversed(list(entries)), key=lambda entry: (entry.fault is None, entry.checked))


def counted_for(spec: Spec, entry: DataSetEntry) -> bool:
    """Whether what a node has counted are the images that this spec asks for: of a tree of class folders that is read
    as `format: images` nobody has counted what lies beside them."""
    return not spec.reads_folder_whole or entry.format == "images"


def faults_of_kind(spec: Spec, entry: DataSetEntry) -> list[Fault]:
    """What holds whatever the other fields of the spec say: the data set, its splits, and what its images know."""
    name = spec.data.name
    if entry.fault is not None:
        return [Fault("/data/name", entry.fault)]
    wanted = spec.learns_from
    if wanted and not set(wanted) & set(entry.annotations):  # whatever splits it has
        asked = " or ".join(WORDS[each] for each in wanted)
        has, kinds = annotations_in_words(entry.annotations), ", ".join(kinds_for(entry.annotations))
        return [Fault("/data/name", f"{spec.kind} learns from {asked}, and {name} has {has}: it is for {kinds}")]
    if not counted_for(spec, entry):
        built_in = name in built_in_data_sets()
        if built_in or entry.format not in (None, "image_folder"):
            return [Fault("/data/format", no_folder_of_images(name, entry.format))]
        return []
    return [fault for use in spec.splits for fault in use.faults(name, entry)]


def faults_of_labels(spec: Spec, entry: DataSetEntry) -> list[Fault]:
    """What other fields ask of the labels: masks, a list, splits for online probes."""
    return [] if entry.fault is not None else spec.faults_of_annotations(entry)
