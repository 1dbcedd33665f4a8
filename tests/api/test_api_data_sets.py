"""What is known at submit of the data sets that nodes have: splits, labels, lists, faults; and the list of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_kit import KNN, PRETRAIN, faults_of

PIXELS = {"backbone_from": {"pixels": True}}
LABELLED: dict[str, Any] = {"splits": {"train": 5000, "test": 1000, "unlabeled": 9000}, "classes": 10, "checked": True}
SETS: dict[str, Any] = {
    "photos": LABELLED
    | {"format": "image_folder", "annotations": ["class"], "unlabelled": ["unlabeled"], "lists": ["1percent", "few"]},
    "voc": LABELLED | {"format": "voc", "annotations": ["boxes", "multi_label"], "classes": 20},
    "coco": LABELLED | {"annotations": ["boxes", "masks", "multi_label"], "classes": 80},
    "unsorted": {
        "splits": {"train": 242},
        "format": "images",
        "classes": None,
        "annotations": [],
        "unlabelled": ["train"],
        "notes": ["data set 'unsorted', split 'train': hidden images, not used: 1 (.x.png)"],
    },
    "fresh": {"splits": {}, "classes": None, "annotations": ["class"], "checked": False},
    "broken": {
        "splits": {},
        "classes": None,
        "checked": True,
        "fault": "it has no folder /x on this host",
    },
}
SEMI = {"kind": "semi_supervised", "backbone_from": {"random": 0}, "backbone": {"name": "tiny"}, "images": {"size": 32}}
DETECTION = {"kind": "detection", "backbone_from": {"random": 0}, "backbone": {"name": "resnet18"}}
PROBED = {**PRETRAIN, "run": {"record": {"probes": {}}}}


@pytest.fixture
def fleet(add_node: Callable[..., None]) -> None:
    add_node("host", 2, data_sets=SETS)


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(("spec", "pointer", "said"), [
    ({**KNN, **PIXELS, "data": "phots"}, "/data/name", "did you mean 'photos'"),
    ({**KNN, **PIXELS, "data": "phots"}, "/data/name", "To add one, .*datasets.yaml .*`barlow up --datasets FILE`"),
    ({**KNN, **PIXELS, "data": "unsorted"}, "/data/name",
     "knn learns from one class an image, and unsorted has no labels: it is for pretrain, closed_form"),
    ({**DETECTION, "data": "unsorted"}, "/data/name", "detection learns from boxes, and unsorted has no labels"),
    ({**PROBED, "data": "unsorted"}, "/run/record/probes", "the probes need one class an image, and unsorted has none"),
    ({**PRETRAIN, "data": "unsorted", "batch_size": 256}, "/batch_size", "has 242 images"),
    ({**PRETRAIN, "data": {"name": "unsorted", "format": "images"}, "batch_size": 256}, "/batch_size", "242 images"),
    ({**PRETRAIN, "data": {"name": "voc", "format": "images"}}, "/data/format", "voc is in format voc, .* leave `form"),
    ({**PRETRAIN, "data": {"name": "digits", "format": "images"}}, "/data/format", "digits is built in"),
    ({**PRETRAIN, "data": {"name": "broken", "format": "images"}}, "/data/name", "has no folder /x"),
    ({**KNN, **PIXELS, "data": {"name": "photos", "format": "images"}}, "/data/format", "unknown field"),
    ({**KNN, **PIXELS, "data": "broken"}, "/data/name", "has no folder /x on this host"),
    ({**PRETRAIN, "data": "broken"}, "/data/name", "has no folder /x"),
    ({**KNN, **PIXELS, "data": "voc"}, "/data/name", "knn learns from one class an image, and voc has "
     "boxes, the classes in each image: it is for pretrain, closed_form, svm, detection"),
    ({**DETECTION, "data": "photos"}, "/data/name", "detection learns from boxes, and photos has one class an image"),
    ({**DETECTION, "data": "voc", "masks": True}, "/masks", "voc has no masks; leave masks out"),
    ({**KNN, **PIXELS, "data": {"name": "photos", "split": "tran"}}, "/data/split",
     r"no split 'tran'; it has .*train \(5,000 images\)"),
    ({**KNN, **PIXELS, "data": "photos", "test_split": "val"}, "/test_split", "no split 'val'"),
    ({**KNN, **PIXELS, "data": {"name": "photos", "split": "unlabeled"}}, "/data/split",
     "has no labels: it is for pretraining"),
    ({**SEMI, "data": "photos", "labels": {"list": "2percent"}}, "/labels/list", "it has 1percent, few"),
    ({**SEMI, "data": "textures", "labels": {"list": "few"}}, "/labels/list", "textures has no list .* it has none"),
    ({**KNN, **PIXELS, "data": "photos", "k": 6000}, "/k", "6,000 neighbours of 5,000 images"),
    ({**PROBED, "data": "voc"}, "/run/record/probes", "the probes need one class an image, and voc has none"),
    ({**PROBED, "data": "photos", "run": {"record": {"probes": {"test_split": "val"}}}},
     "/run/record/probes/test_split", "no split 'val'"),
    ({**PROBED, "data": "photos", "run": {"record": {"probes": {"k": 5001}}}},
     "/run/record/probes/k", "split 'train' of photos has 5,000 images; use fewer"),
])  # fmt: skip
def test_what_a_data_set_does_not_have_is_told_at_submit(
    api: httpx.Client, spec: dict[str, Any], pointer: str, said: str
) -> None:
    faults = faults_of(api.post("/jobs?validate_only=true", json=spec))
    assert list(faults) == [pointer]
    assert re.search(said, faults[pointer]), faults


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize("spec", [
    {**PRETRAIN, "data": {"name": "photos", "split": "unlabeled"}},
    {**PRETRAIN, "data": "voc"},
    {**PRETRAIN, "data": "unsorted", "batch_size": 242},
    {**PRETRAIN, "data": {"name": "photos", "format": "images"}, "batch_size": 8192},
    {**PROBED, "data": "photos"},
    {**DETECTION, "data": "voc"},
    {**DETECTION, "data": "coco", "protocol": "coco-mask-rcnn-c4"},
    {**SEMI, "data": "photos", "labels": {"list": "few"}},
    {**KNN, **PIXELS, "data": "fresh"},
    {**KNN, **PIXELS, "kind": "svm", "data": "photos"},
    {**KNN, **PIXELS, "kind": "svm", "data": "voc"},
])  # fmt: skip
def test_what_fits_is_accepted_and_so_is_what_nobody_has_counted_yet(api: httpx.Client, spec: dict[str, Any]) -> None:
    response = api.post("/jobs?validate_only=true", json=spec)
    assert response.status_code == 200, response.text


@pytest.mark.usefixtures("fleet")
def test_the_list_says_what_each_is_for_and_what_is_wrong_where(
    api: httpx.Client, add_node: Callable[..., None]
) -> None:
    add_node("second", 1, data_sets={"photos": SETS["broken"], "fresh": SETS["photos"], "broken": SETS["broken"]})
    sets = {entry["name"]: entry for entry in api.get("/datasets").json()["items"]}
    assert sets["voc"]["kinds"] == ["pretrain", "closed_form", "svm", "detection"]
    photos = sets["photos"]
    assert (photos["nodes"], photos["checked"], photos["splits"]) == (["host", "second"], True, LABELLED["splits"])
    assert photos["faults"] == {"second": SETS["broken"]["fault"]}
    assert (sets["fresh"]["checked"], sets["fresh"]["classes"]) == (True, 10)  # one node has counted it
    assert (sets["unsorted"]["kinds"], sets["unsorted"]["classes"]) == (["pretrain", "closed_form"], None)
    assert sets["unsorted"]["notes"] == {"host": SETS["unsorted"]["notes"]}
    assert photos["notes"] == {}
    assert set(sets["broken"]["faults"]) == {"host", "second"}
    assert sets["scenes"]["annotations"] == ["boxes", "masks", "multi_label"]
    assert api.post("/jobs?validate_only=true", json={**PRETRAIN, "data": "photos"}).status_code == 200
