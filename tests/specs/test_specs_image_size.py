"""The image size of an evaluation that names none."""

from __future__ import annotations

from typing import Any

import pytest

from barlow_lab.specs import EvaluationSpec, digest, parse_spec
from barlow_lab.specs.catalogue import backbones, image_size_fault
from barlow_lab.specs.image_size import sized_offline, with_size

UNTRAINED: dict[str, Any] = {"backbone_from": {"random": 0}, "backbone": {"name": "tiny"}}


def knn(data: str = "digits", **fields: Any) -> EvaluationSpec:
    spec = parse_spec(
        {"kind": "knn", "data": {"name": data}, **({} if "backbone_from" in fields else UNTRAINED), **fields}
    )
    assert isinstance(spec, EvaluationSpec)
    return spec


@pytest.mark.parametrize(
    ("images", "open_"),
    [(None, True), ({}, True), ({"resize_to": "square"}, True), ({"size": 224}, False), ({"resize": 256}, False),
     ({"size": 32, "resize": 32}, False)],
)  # fmt: skip
def test_a_size_is_left_out_only_where_neither_it_nor_the_resize_is_said(images: Any, open_: bool) -> None:
    spec = knn(**({} if images is None else {"images": images}))
    assert spec.leaves_image_size_open is open_
    sized = with_size(spec, trained_at=48, data_side=8)
    assert sized.images.size == (48 if open_ else spec.images.size)
    assert sized.images.resize_to == spec.images.resize_to
    assert not sized.leaves_image_size_open


def test_of_a_kind_that_judges_no_feature_vectors_there_is_none_to_settle() -> None:
    detection = parse_spec({"kind": "detection", "data": "scenes", "backbone_from": {"job": "x"}})
    for spec in (detection, parse_spec({"kind": "pretrain", "data": "digits"})):
        assert (spec.image_size, spec.leaves_image_size_open) == (None, False)
        assert with_size(spec, trained_at=32, data_side=8) == spec == spec.at_image_size(32)


def test_the_source_s_views_come_before_images_which_never_raise_the_usual_size() -> None:
    assert with_size(knn(), trained_at=None, data_side=8).images.resized == 9
    for side, size in ((None, 224), (4, 8), (96, 96), (1024, 224)):
        assert with_size(knn(), trained_at=None, data_side=side).images.size == size
    assert with_size(knn(), trained_at=384, data_side=8).images.size == 384
    weights = knn(backbone_from={"torchvision": "ResNet18_Weights.IMAGENET1K_V1"})
    assert with_size(weights, trained_at=None, data_side=8).images.size == 224


@pytest.mark.parametrize("network", ["vit_b_16", "inception_v3", "vgg11", "resnet18", "of_ones_own"])
def test_what_is_settled_is_a_size_that_the_network_takes(network: str) -> None:
    size = with_size(knn(backbone_from={"job": "x"}), trained_at=None, data_side=8, network=network).images.size
    entry = backbones().get(network)
    assert image_size_fault(network, size) is None
    assert size == (8 if entry is None else entry.image_size or entry.smallest_image)


def test_the_size_is_counted_in_the_digest_and_a_stored_spec_keeps_its_own() -> None:
    """Digests of the version before this one, of specs as it stored them and as a user writes them."""
    before = "7bcbdb47bde66e7240598f5de676df071068feb26d88d510d29a2704fce6c314"
    spec = knn()
    assert digest(spec) == before
    stored = parse_spec(spec.resolved())
    assert not stored.leaves_image_size_open
    assert digest(stored) == before
    assert with_size(stored, trained_at=16, data_side=8) == stored
    assert digest(with_size(spec, trained_at=None, data_side=8)) == digest(knn(images={"size": 8})) != before
    assert digest(with_size(spec, trained_at=None, data_side=None)) == before


def test_without_a_service_the_size_is_known_of_siblings_and_of_built_in_data_sets() -> None:
    pretrain = parse_spec({"kind": "pretrain", "data": {"name": "textures"}, "views": {"size": 48}})
    of_job = knn(backbone_from={"job": "pretrain"})
    sized, known = sized_offline(of_job, {"pretrain": pretrain})
    assert known
    assert sized.images.size == 48  # type: ignore[union-attr]
    assert sized_offline(of_job, {}) == (of_job, False)
    sized, known = sized_offline(knn(), {})
    assert known
    assert sized.images.size == 8  # type: ignore[union-attr]
    assert sized_offline(knn("elsewhere"), {})[1] is False
    assert sized_offline(pretrain, {}) == (pretrain, True)
