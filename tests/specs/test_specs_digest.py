"""The same science has the same digest; parse -> resolved -> parse is a fixed point."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barlow_lab.specs import canonical_json, digest, parse_spec

_FINITE = st.floats(1e-6, 0.9)
_PROBABILITY = st.floats(0, 1)
_VIEW = st.fixed_dictionaries(
    {},
    optional={
        "flip": _PROBABILITY,
        "grayscale": _PROBABILITY,
        "blur": st.fixed_dictionaries({}, optional={"probability": _PROBABILITY}),
        "jitter": st.fixed_dictionaries({}, optional={"hue": st.floats(0, 0.5)}),
        "crop_scale": st.tuples(st.floats(0.01, 0.4), st.floats(0.5, 1)).map(list),
    },
)
_PRETRAIN = st.fixed_dictionaries(
    {"kind": st.just("pretrain"), "data": st.just("digits") | st.just({"name": "textures", "limit": 4096})},
    optional={
        "name": st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True),
        "seed": st.integers(0, 2**31 - 1),
        "views": st.fixed_dictionaries(
            {},
            optional={
                "preset": st.sampled_from(["barlow_twins", "small_images", "grayscale", "own_images"]),
                "size": st.integers(8, 64),
                "both": _VIEW,
                "a": _VIEW,
                "b": _VIEW,
            },
        ),
        "backbone": st.sampled_from([{"name": "tiny"}, {"stem": "small"}, {}]),
        "projector": st.lists(st.integers(2, 512), min_size=1, max_size=4).map(lambda w: {"widths": w}),
        "objective": _FINITE.map(lambda x: {"lambda": x}),
        "optimizer": st.one_of(
            st.fixed_dictionaries({"name": st.just("sgd")}, optional={"nesterov": st.booleans()}),
            st.fixed_dictionaries({"name": st.just("adamw")}, optional={"betas": st.tuples(_FINITE, _FINITE)}),
            st.fixed_dictionaries({}, optional={"learning_rate": _FINITE, "reference_batch_size": st.none()}),
        ),
        "epochs": st.integers(1, 100),
        "run": st.fixed_dictionaries({}, optional={"priority": st.integers(-9, 9), "labels": st.just({"a": "é"})}),
    },
)
_EVALUATION = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["knn", "linear"]),
        "data": st.just("digits"),
        "backbone_from": st.sampled_from([{"job": "p", "select": "step 7"}, {"job": "p"}, {"pixels": True}]),
    },
    optional={"batch_size": st.integers(1, 512), "images": st.just({"size": 32, "resize": 32})},
)


@settings(max_examples=60, deadline=None)
@given(st.one_of(_PRETRAIN, _EVALUATION))
def test_resolved_is_a_fixed_point_that_keeps_the_digest(value: dict[str, Any]) -> None:
    spec = parse_spec(value)
    resolved = json.loads(canonical_json(spec.resolved()))
    again = parse_spec(resolved)
    assert again == spec
    assert again.resolved() == spec.resolved()
    assert digest(again) == digest(spec), "a default written out is the same science"


BASE: dict[str, Any] = {"kind": "pretrain", "data": "digits"}
KNN: dict[str, Any] = {"kind": "knn", "data": "digits", "backbone_from": {"random": 0}, "backbone": {"name": "tiny"}}


def of(base: dict[str, Any], **fields: Any) -> str:
    return digest(parse_spec({**base, **fields}))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "other"},
        {"run": {"priority": 5, "labels": {"a": "b"}, "after": ["x"], "max_restarts": 0}},
        {"run": {"checkpoint": {"every_epochs": 7}, "record": {"metrics_every_steps": 1}}},
        {"run": {"compile": "off"}}, {"micro_batch": None},
        {"resources": {"slots": 4}},
        {"spec_version": 1},
        {"data": {"name": "digits", "split": "train"}},
        {"epochs": 1000, "batch_size": 2048, "seed": 0},
        {"optimizer": {"name": "lars", "learning_rate": 0.2}},
        {"objective": {"name": "barlow_twins", "lambda": 0.0051}},
        {"views": {"preset": "barlow_twins", "b": {"blur": {"probability": 0.1}}}},
        {"views": {"engine": "pillow"}},
        {"views": {"preset": "small_images", "both": {"crop_scale": [0.08, 1.0]},
                   "a": {"blur": {"probability": 1.0}}, "b": {"blur": {"probability": 0.1}}}},
    ],
)  # fmt: skip
def test_the_same_science_has_the_same_digest(fields: dict[str, Any]) -> None:
    assert of(BASE, **fields) == of(BASE)


@pytest.mark.parametrize(
    ("base", "fields"),
    [
        (KNN, {"images": {"size": 224, "resize": 256}}),
        (KNN, {"run": {"published": {"source": "A table", "scores": {"top1": 1.0}}}}),
        ({**KNN, "kind": "linear"}, {"protocol": "document", "epochs": 100, "schedule": {"shape": "cosine"}}),
        (
            {**KNN, "kind": "linear", "protocol": "places205"},
            {"epochs": 14, "weight_decay": 5e-4, "schedule": {"shape": "steps", "after": [1 / 3, 2 / 3]}},
        ),
        ({**KNN, "kind": "svm"}, {"costs": [0.01, 0.1, 1, 2, 5, 10, 15, 20, 50, 100, 1000]}),
        (
            {**KNN, "kind": "semi_supervised", "labels": {"percent": 1}},
            {"schedule": {"shape": "steps", "after": [0.6, 0.8], "factor": 0.2}, "weight_decay": 0},
        ),
        (
            {**KNN, "kind": "detection", "backbone": {"name": "resnet50"}, "protocol": "coco-mask-rcnn-c4"},
            {"masks": True, "steps": 90_000, "train_sides": [640, 672, 704, 736, 768, 800]},
        ),
    ],
)
def test_a_protocol_s_values_written_out_are_the_same_science(base: dict[str, Any], fields: dict[str, Any]) -> None:
    assert of(base, **fields) == of(base)


def test_every_change_of_the_science_changes_the_digest() -> None:
    changes: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"epochs": 999}, {"batch_size": 1024}, {"max_steps": 5}, {"precision": "fp64"},
        {"precision": "fp16"}, {"micro_batch": 256},
        {"data": "textures"}, {"data": {"name": "digits", "split": "test"}},
        {"data": {"name": "digits", "limit": 4000}},
        {"views": {"size": 32}}, {"views": {"engine": "batched"}}, {"views": {"preset": "small_images"}},
        {"views": {"preset": "grayscale"}}, {"views": {"preset": "own_images"}}, {"views": {"a": {"flip": 0.1}}},
        {"views": {"b": {"flip": 0.1}}}, {"views": {"both": {"flip": 0.1}}}, {"backbone": {"name": "tiny"}},
        {"backbone": {"stem": "small"}}, {"projector": {"widths": [8192, 8192]}}, {"objective": {"lambda": 0.005}},
        {"objective": {"name": "vicreg"}}, {"objective": {"name": "vicreg", "covariance": 2.0}},
        {"objective": {"name": "pcl"}},
        {"optimizer": {"name": "sgd"}}, {"optimizer": {"name": "adamw"}}, {"optimizer": {"momentum": 0.8}},
        {"optimizer": {"name": "sgd", "learning_rate": 0.2}}, {"optimizer": {"reference_batch_size": None}},
    ]  # fmt: skip
    digests = [of(BASE, **change) for change in changes]
    digests += [of(KNN), of(KNN, kind="linear"), of(KNN, k=5), of(KNN, backbone_from={"random": 1})]
    digests += [of(KNN, backbone={"name": "resnet50"}), of(KNN, test_split="train"), of(KNN, images={"size": 32})]
    assert len(set(digests)) == len(digests)


def test_digests_of_published_specs_do_not_move() -> None:
    """A changed digest would cut every stored result off from its science: change one only with spec_version."""
    assert of(BASE) == "4ff7b9c384b56273e13ed253209c56f7eb67e96bf81bb3e2a62f4db6af50a017"
    assert of(KNN, k=5) == "418d8805791eeb124a3a9ce6c81e8c03f7a8914373170638cb025e2e290e1ab1"


def test_canonical_json_is_one_text_for_one_value() -> None:
    assert canonical_json({"b": [1, 2.5, None, True], "a": "é"}) == '{"a":"é","b":[1,2.5,null,true]}'
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": float("nan")})
