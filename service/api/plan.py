"""What a job will need, computed from its spec and the catalogue of backbones. No torch, no database."""

from __future__ import annotations

from itertools import pairwise

from barlow_lab.specs import (
    BackboneSpec,
    DetectionSpec,
    KnnSpec,
    LinearSpec,
    PretrainSpec,
    SemiSupervisedSpec,
    Spec,
    SvmSpec,
)
from barlow_lab.specs.catalogue import CATALOGUE_SIDE, Trunk, backbones
from service.api.fleet import Fleet, NodeSize
from service.api.schemas import Fit, Memory, Parameters
from service.api.sizes import labelled_images, trains_on_batches

FORMULA = (
    "bytes on each slot. weights: parameters x b. gradients: those of what is trained (pretrain, semi_supervised, "
    "detection: all; linear: the head) x b. optimizer: trained parameters x 4 (fp64: 8) for each running average, one "
    "for lars and sgd, two for adamw; evaluations train by sgd. A view's activations: the catalogue's fp32 MB per 224 "
    "px view with this stem x (size / 224)^2 x b' / 4. activations, pretrain: 2 views x micro_batch (else batch_size) "
    "/ slots x (a view's + b' x (2 x hidden widths + last width)), 1 view where the objective has a momentum copy "
    "embed the other, and with micro_batch the embeddings of the whole batch and their gradient; semi_supervised: "
    "batch_size / slots x a view's; detection, an estimate: batch_size / slots x (a view's, with largest train_side x "
    "longest_side in place of size^2, + rois_per_image x 1/18 of a 224 px view's, which is about what layer 4 keeps "
    "of one region); evaluations of frozen features keep nothing for backward: one twentieth of a view's. features, "
    "of evaluations that compute them once: training images x feature width x 4, for svm x 8, for knn / slots; of "
    "objectives that cluster all images: images x d x 4. objective (pretrain): b x d^2 for a direct loss, that / 8 or "
    "the slots if more for a sharded one, b x ((batch / slots)^2 + 2 x batch x d with several slots) for a dual one, "
    "and b x parameters for a momentum copy. b: 8 for fp64, else 4; b' as b, but 2 for bf16 and fp16. Not in it: the "
    "CUDA context, the allocator's slack and the workspace of convolutions; leave about 2 GB."
)

LAYER_4 = 1 / 18
"""Of the activations of a 224 px view, with the ImageNet stem: those of layer 4, which sees 14 x 14 cells there, as
many as a region of a detector has."""
MASK_WIDTH = 256
"""Channels of a mask head (trainer.models.detectors)."""


def is_known(backbone: BackboneSpec) -> bool:
    """Whether its sizes are known here; those of a backbone of one's own are not."""
    return backbone.name in backbones()


def parameters(spec: Spec, backbone: BackboneSpec, classes: int | None = None) -> Parameters:
    """Parameters with those of BN, counted exactly, of a backbone of the catalogue and what a job puts on it."""
    entry, trunk = backbones()[backbone.name], _trunk(backbone).parameters
    projector, head = 0, _head(spec, entry.features, classes)
    if isinstance(spec, PretrainSpec):
        widths = [entry.features, *spec.projector.widths]
        projector = sum(a * b for a, b in pairwise(widths)) + sum(2 * hidden for hidden in widths[1:-1])
    return Parameters(backbone=trunk, projector=projector, head=head, total=trunk + projector + (head or 0))


def memory(spec: Spec, backbone: BackboneSpec, classes: int | None = None, images: int | None = None) -> Memory:
    """Estimated bytes on each slot with a backbone of the catalogue; FORMULA says how. `classes` and `images` are those
    of the data set, where they are known."""
    counted = parameters(spec, backbone, classes)
    slots = spec.resources.slots
    precision = spec.precision if trains_on_batches(spec) else "fp32"
    master = 8 if precision == "fp64" else 4
    stored = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}[precision]
    view = _view(spec, backbone) * stored / 4
    batch = -(-spec.batch_size // slots)
    trained, averages, features, objective = counted.total, 1, 0, 0
    if isinstance(spec, PretrainSpec):
        *hidden, last = spec.projector.widths
        averages = 2 if spec.optimizer.name == "adamw" else 1
        piece = (spec.micro_batch or spec.batch_size) / slots
        views = 1 if spec.objective.momentum_copy else 2
        activations = views * piece * (view + stored * (2 * sum(hidden) + last))
        if spec.micro_batch is not None:
            activations += 2 * 2 * batch * last * master
        held = spec.objective.numbers_held(samples=spec.batch_size, features=last, ranks=slots)
        objective = master * (held + (counted.total if spec.objective.momentum_copy else 0))
        if spec.objective.holds_all_images and images is not None:
            features = 4 * last * min(images, spec.data.limit or images)
    elif isinstance(spec, SemiSupervisedSpec | DetectionSpec):
        activations = batch * view
    else:
        trained = (counted.head or 0) if isinstance(spec, LinearSpec) else 0
        activations = batch * view / 20
        if not trains_on_batches(spec) and images is not None:
            each = backbones()[backbone.name].features * (8 if isinstance(spec, SvmSpec) else 4)
            features = each * -(-min(images, spec.data.limit or images) // (slots if isinstance(spec, KnnSpec) else 1))
    parts = {
        "weights": counted.total * master,
        "gradients": trained * master,
        "optimizer": trained * averages * (4 if isinstance(spec, PretrainSpec) else master),
        "activations": round(activations),
        "features": features,
        "objective": objective,
    }
    return Memory(**parts, total=sum(parts.values()), formula=FORMULA)


def steps(spec: Spec, images: int | None, classes: int | None = None) -> tuple[int | None, int | None]:
    """Optimiser steps of an epoch and of the whole job, of a training split of `images` images in as many classes; None
    where there are none, or where the number of images is not known here."""
    if isinstance(spec, PretrainSpec) and images is not None:
        return spec.steps_per_epoch(images), spec.total_steps(images)
    used = None if images is None else min(images, spec.data.limit or images)
    if isinstance(spec, DetectionSpec):
        return None if used is None else used // spec.batch_size, spec.steps
    if used is None or not trains_on_batches(spec) or not isinstance(spec, LinearSpec | SemiSupervisedSpec):
        return None, None
    labelled = labelled_images(spec, used, classes) if isinstance(spec, SemiSupervisedSpec) else used
    per_epoch = None if labelled is None else labelled // spec.batch_size
    return per_epoch, None if per_epoch is None else per_epoch * spec.epochs


def fits(spec: Spec, fleet: Fleet, need: Memory | None) -> list[Fit]:
    """For each node, whether its slots are enough and large enough."""
    return [
        Fit(node=node.name, fits=why is None, slots=node.slots, free=node.free, why=why)
        for node in fleet.nodes
        for why in [_why_not(spec, node, need)]
    ]


def _why_not(spec: Spec, node: NodeSize, need: Memory | None) -> str | None:
    if spec.resources.slots > node.slots:
        return f"needs {spec.resources.slots} slots, has {node.slots}"
    if need is not None and need.total > node.slot_memory_bytes:
        return f"needs about {need.total / 1e9:.1f} GB a slot, has {node.slot_memory_bytes / 1e9:.1f} GB"
    return None


def _head(spec: Spec, features: int, classes: int | None) -> int | None:
    """Parameters of what an evaluation puts on the backbone; None if that takes a number of classes not known here."""
    if not isinstance(spec, LinearSpec | SemiSupervisedSpec | DetectionSpec):
        return 0
    if classes is None:
        return None
    if not isinstance(spec, DetectionSpec):
        return features * classes + classes
    # trainer.models.detectors: proposals on the maps of layer 3, half as wide as layer 4 throughout the ResNet family;
    # a batch normalisation after layer 4; classes and boxes of a region; masks.
    narrow, sorts, anchors = features // 2, classes + 1, len(spec.anchor_sizes) * len(spec.anchor_ratios)
    proposals = 9 * narrow * narrow + narrow + 5 * anchors * (narrow + 1)
    regions = 2 * features + 5 * sorts * (features + 1)
    masks = 4 * features * MASK_WIDTH + MASK_WIDTH + sorts * (MASK_WIDTH + 1) if spec.masks else 0
    return proposals + regions + masks


def _view(spec: Spec, backbone: BackboneSpec) -> float:
    """fp32 bytes that one view keeps for backward; of a detector one image, with its regions."""
    of_224 = _trunk(backbone).activation_mb_per_view * 1e6
    if isinstance(spec, DetectionSpec):
        area = max(spec.train_sides) * spec.longest_side
        regions = spec.rois_per_image * LAYER_4 * backbones()[backbone.name].activation_mb_per_view * 1e6
        return of_224 * area / CATALOGUE_SIDE**2 + regions
    size = spec.views.size if isinstance(spec, PretrainSpec) else spec.images.size
    return of_224 * (size / CATALOGUE_SIDE) ** 2


def _trunk(backbone: BackboneSpec) -> Trunk:
    entry = backbones()[backbone.name]
    if backbone.stem == "imagenet":
        return entry
    assert entry.small_stem is not None, "a spec that asks for a stem that is not there is refused"
    return entry.small_stem
