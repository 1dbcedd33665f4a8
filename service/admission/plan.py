"""What a job will need, computed from its spec and the catalogue of backbones. No torch, no database."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from barlow_lab.specs import BackboneSpec, Spec
from barlow_lab.specs.slot_memory import BackboneSizes, SlotMemory, sizes_of
from service.admission.fleet import Fleet, NodeSize


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters with those of BN, counted exactly: of the backbone, and of what a job puts on it (`OnTop`)."""

    backbone: int
    projector: int
    head: int | None
    objective: int
    total: int


@dataclass(frozen=True, slots=True)
class NodeFit:
    """Whether one node can run the job when its slots are free, of which it has `free` now; `why` it cannot."""

    node: str
    fits: bool
    slots: int
    free: int
    why: str | None


@dataclass(frozen=True, slots=True)
class Needs:
    """What a job will need. Parameters and memory are None where the sizes of its backbone are not known; `images` and
    steps where nobody has counted the data set."""

    parameters: Parameters | None
    memory: SlotMemory | None
    formula: str
    """How the memory was counted."""
    images: int | None
    steps_per_epoch: int | None
    steps: int | None
    fits: list[NodeFit]


def needs_of(spec: Spec, backbone: BackboneSpec | None, fleet: Fleet) -> Needs:
    """What a job needs with this backbone, None for one without or with one that only a node knows."""
    sized = backbone is not None and sizes_of(backbone) is not None
    images, classes = fleet.images(spec), fleet.classes(spec.data.name)
    need = memory(spec, backbone, classes, images) if backbone and sized else None
    steps_per_epoch, steps = spec.planned_steps(images, classes)
    return Needs(
        parameters=parameters(spec, backbone, classes) if backbone and sized else None,
        memory=need,
        formula=spec.memory_words,
        images=None if images is None else min(images, spec.data.limit or images),
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        fits=_fits(spec, fleet, need),
    )


def parameters(spec: Spec, backbone: BackboneSpec, classes: int | None = None) -> Parameters:
    """Those of a backbone of the catalogue and of what a job puts on it."""
    sizes = _sizes(backbone)
    on_top = spec.put_on_top(sizes.features, classes)
    return Parameters(backbone=sizes.parameters, **asdict(on_top), total=sizes.parameters + on_top.total)


def memory(spec: Spec, backbone: BackboneSpec, classes: int | None = None, images: int | None = None) -> SlotMemory:
    """Estimated bytes on each slot with a backbone of the catalogue. `classes` and `images` are those of the data set,
    where they are known."""
    return spec.memory(_sizes(backbone), classes, images)


def _fits(spec: Spec, fleet: Fleet, need: SlotMemory | None) -> list[NodeFit]:
    return [
        NodeFit(node=node.name, fits=why is None, slots=node.slots, free=node.free, why=why)
        for node in fleet.nodes
        for why in [_why_not(spec, node, need)]
    ]


def _why_not(spec: Spec, node: NodeSize, need: SlotMemory | None) -> str | None:
    if spec.resources.slots > node.slots:
        return f"needs {spec.resources.slots} slots, has {node.slots}"
    if need is not None and need.total > node.slot_memory_bytes:
        return f"needs about {need.total / 1e9:.1f} GB a slot, has {node.slot_memory_bytes / 1e9:.1f} GB"
    return None


def _sizes(backbone: BackboneSpec) -> BackboneSizes:
    sizes = sizes_of(backbone)
    assert sizes is not None, "only what the catalogue has is asked for"
    return sizes
