"""What a job will need, computed from its spec and the catalogue of backbones. No torch, no database."""

from __future__ import annotations

from itertools import pairwise

from service.api.fleet import Fleet, NodeSize
from service.api.schemas import Fit, Memory, Parameters
from trainer.specs import BackboneSpec, PretrainSpec, Spec
from trainer.specs.catalogue import CATALOGUE_SIDE, Trunk, backbones
from trainer.specs.loss_form import choose_form, numbers_held

FORMULA = (
    "bytes on each slot. weights: parameters x b. gradients (pretrain): the same. optimizer (pretrain): parameters x 4 "
    "for each running average, one for lars and sgd, two for adamw. activations (pretrain): 2 views x micro_batch "
    "(else batch_size) / slots x (the catalogue's fp32 MB per 224 px view with this stem x (size / 224)^2 x b' / 4 "
    "+ b' x (2 x hidden widths + last width)), and with micro_batch the embeddings of the whole batch and their "
    "gradient; evaluations keep nothing for backward: one twentieth of one view. objective (pretrain): b x d^2 for a "
    "direct loss, that / 8 or the slots if more for a sharded one, b x ((batch / slots)^2 + 2 x batch x d with several "
    "slots) for a dual one. b: 8 for fp64, else 4; b' as b, but 2 for bf16 and fp16. Not in it: the CUDA context, the "
    "allocator's slack and the workspace of convolutions; leave about 2 GB."
)


def is_known(backbone: BackboneSpec) -> bool:
    """Whether its sizes are known here; those of a backbone of one's own are not."""
    return backbone.name in backbones()


def parameters(spec: Spec, backbone: BackboneSpec) -> Parameters:
    """Trainable parameters with those of BN, counted exactly, of a backbone of the catalogue."""
    entry, trunk = backbones()[backbone.name], _trunk(backbone).parameters
    projector = 0
    if isinstance(spec, PretrainSpec):
        widths = [entry.features, *spec.projector.widths]
        projector = sum(a * b for a, b in pairwise(widths)) + sum(2 * hidden for hidden in widths[1:-1])
    return Parameters(backbone=trunk, projector=projector, total=trunk + projector)


def memory(spec: Spec, backbone: BackboneSpec) -> Memory:
    """Estimated bytes on each slot with a backbone of the catalogue; FORMULA says how."""
    total = parameters(spec, backbone).total
    slots = spec.resources.slots
    precision = spec.precision if isinstance(spec, PretrainSpec) else "fp32"
    master = 8 if precision == "fp64" else 4
    stored = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}[precision]
    size = spec.views.size if isinstance(spec, PretrainSpec) else spec.images.size
    view = _trunk(backbone).activation_mb_per_view * 1e6 * (size / CATALOGUE_SIDE) ** 2 * stored / 4
    batch = -(-spec.batch_size // slots)
    gradients = optimizer = objective = 0
    activations = batch * view / 20
    if isinstance(spec, PretrainSpec):
        *hidden, last = spec.projector.widths
        gradients = total * master
        optimizer = total * 4 * (2 if spec.optimizer.name == "adamw" else 1)
        piece = (spec.micro_batch or spec.batch_size) / slots
        activations = 2 * piece * (view + stored * (2 * sum(hidden) + last))
        if spec.micro_batch is not None:
            activations += 2 * 2 * batch * last * master
        form = spec.objective.form
        if form == "auto":
            form = choose_form(spec.batch_size, last, slots)
        objective = master * numbers_held(form, spec.batch_size, last, slots)
    parts = {
        "weights": total * master,
        "gradients": gradients,
        "optimizer": optimizer,
        "activations": round(activations),
        "objective": objective,
    }
    return Memory(**parts, total=sum(parts.values()), formula=FORMULA)


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


def _trunk(backbone: BackboneSpec) -> Trunk:
    entry = backbones()[backbone.name]
    if backbone.stem == "imagenet":
        return entry
    assert entry.small_stem is not None, "a spec that asks for a stem that is not there is refused"
    return entry.small_stem
