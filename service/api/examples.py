"""One example per kind of spec, for the OpenAPI document; a test submits each of them."""

from __future__ import annotations

from typing import Any

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
}

_EVALUATION = {
    "data": {"name": "textures"},
    "backbone_from": {"job": "pretrain"},
    "images": {"size": 32, "resize": 32},
}

EXPERIMENT: dict[str, Any] = {
    "name": "first-experiment",
    "jobs": {
        "pretrain": {key: value for key, value in JOBS["pretrain"]["value"].items() if key != "name"},
        "knn": {"kind": "knn", **_EVALUATION},
        "linear": {"kind": "linear", **_EVALUATION},
    },
}
