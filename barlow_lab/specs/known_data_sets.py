"""Published data sets: how many classes they have, and where they come from. docs/data-sets.md says more of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class KnownDataSet:
    """A data set that goes by this name everywhere."""

    classes: int
    come_from: str
    """Where one gets it, and whether a licence stands in between."""
    label_lists: Mapping[float, tuple[str, int]] = field(default_factory=dict)
    """File name and length of the list of labelled images that published numbers use, by the percentage."""


_VOC = "public at host.robots.ox.ac.uk/pascal/VOC; the images are from Flickr"

KNOWN = {
    "imagenet": KnownDataSet(
        1000,
        "on request at image-net.org (ILSVRC2012), for non-commercial research only: its terms gate the download",
        {1: ("1percent.txt", 12_811), 10: ("10percent.txt", 128_116)},  # lists of SimCLR's authors
    ),
    "places205": KnownDataSet(205, "to be had at places.csail.mit.edu, under the terms of that site"),
    "inaturalist2018": KnownDataSet(
        8142,
        "public at github.com/visipedia/inat_comp (2018), for non-commercial research; each image has its own licence",
    ),
    "cifar10": KnownDataSet(
        10, "public at cs.toronto.edu/~kriz/cifar.html: the binary version, cifar-10-binary.tar.gz"
    ),
    "cifar100": KnownDataSet(
        100, "public at cs.toronto.edu/~kriz/cifar.html: the binary version, cifar-100-binary.tar.gz"
    ),
    "stl10": KnownDataSet(
        10, "public at cs.stanford.edu/~acoates/stl10: stl10_binary.tar.gz; its images are from ImageNet"
    ),
    "voc07": KnownDataSet(20, _VOC),
    "voc12": KnownDataSet(20, _VOC),
    "voc0712": KnownDataSet(20, _VOC),
    "coco": KnownDataSet(
        80, "public at cocodataset.org; the annotations are CC BY 4.0, the images are Flickr's and under its terms"
    ),
}
"""Data sets by name; a host's datasets.yaml may say another number of classes for its own copy."""


def where_from(name: str) -> str:
    """A sentence that says where the data set of this name comes from; empty for one that is not known."""
    if name not in KNOWN:
        return ""
    return f"Nothing is downloaded by itself: {name} is {KNOWN[name].come_from}; see docs/data-sets.md"
