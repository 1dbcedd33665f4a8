"""One example per kind of spec, for the OpenAPI document; a test submits each of them."""

from __future__ import annotations

from typing import Any

# The protocol's schedule is for images of 800 px and eight GPUs.
_SMALL_DETECTOR: dict[str, Any] = {
    "steps": 200,
    "warmup_steps": 20,
    "train_sides": [128],
    "test_side": 128,
    "anchor_sizes": [32, 64],
}

JOBS: dict[str, dict[str, Any]] = {
    "pretrain": {
        "summary": "Pretrain a backbone; what is left out is the paper's value",
        "value": {
            "kind": "pretrain",
            "name": "textures-tiny",
            "data": {"name": "textures"},
            "views": {"preset": "small_images", "size": 32},
            "backbone": {"name": "tiny"},
            "projector": {"widths": [128, 128, 128]},
            "objective": {"name": "barlow_twins", "lambda": 0.01},
            "optimizer": {"name": "adamw", "learning_rate": 0.003, "reference_batch_size": None},
            "epochs": 30,
            "batch_size": 128,
        },
    },
    "linear": {
        "summary": "A linear classifier on the frozen features of an untrained backbone",
        "value": {
            "kind": "linear",
            "name": "untrained-linear",
            "data": {"name": "textures"},
            "backbone_from": {"random": 0},
            "backbone": {"name": "tiny"},
            "images": {"size": 32, "resize": 32},
        },
    },
    "semi_supervised": {
        "summary": "Backbone and classifier trained together on ten percent of the labels",
        "value": {
            "kind": "semi_supervised",
            "name": "untrained-ten-percent",
            "data": {"name": "textures"},
            "labels": {"percent": 10},
            "backbone_from": {"random": 0},
            "backbone": {"name": "tiny"},
            "images": {"size": 32, "resize": 32},
            "batch_size": 64,
        },
    },
    "knn": {
        "summary": "Nearest neighbours on raw pixels: the floor",
        "value": {
            "kind": "knn",
            "name": "pixels-knn",
            "data": {"name": "textures"},
            "backbone_from": {"pixels": True},
            "images": {"size": 32, "resize": 32},
        },
    },
    "svm": {
        "summary": "Support vector machines, one a class, on the frozen features of an untrained backbone",
        "value": {
            "kind": "svm",
            "name": "untrained-svm",
            "data": {"name": "textures"},
            "backbone_from": {"random": 0},
            "backbone": {"name": "tiny"},
            "images": {"size": 32, "resize": 32},
        },
    },
    "detection": {
        "summary": "A detector with masks that starts from an untrained ResNet, on images of a few objects each",
        "value": {
            "kind": "detection",
            "name": "untrained-detector",
            "data": {"name": "scenes"},
            "backbone_from": {"random": 0},
            "backbone": {"name": "tiny_resnet", "stem": "small"},
            "protocol": "coco-mask-rcnn-c4",
            **_SMALL_DETECTOR,
        },
    },
}

_EVALUATION = {
    "data": {"name": "textures"},
    "backbone_from": {"job": "pretrain"},
    "images": {"size": 32, "resize": 32},
}

EXPERIMENT: dict[str, Any] = {
    "name": "first-experiment",
    "jobs": {
        "pretrain": {
            **{key: value for key, value in JOBS["pretrain"]["value"].items() if key != "name"},
            "backbone": {"name": "tiny_resnet", "stem": "small"},
        },
        "knn": {"kind": "knn", **_EVALUATION},
        "linear": {"kind": "linear", **_EVALUATION},
        "ten-percent": {"kind": "semi_supervised", **_EVALUATION, "labels": {"percent": 10}, "batch_size": 64},
        "svm": {"kind": "svm", **_EVALUATION},
        "masks": {
            "kind": "detection",
            "data": {"name": "scenes"},
            "backbone_from": {"job": "pretrain"},
            "protocol": "coco-mask-rcnn-c4",
            **_SMALL_DETECTOR,
        },
    },
}
