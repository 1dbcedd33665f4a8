"""What a job will need, computed from its spec and the catalogue of backbones. No torch, no database."""

from __future__ import annotations

from dataclasses import asdict

from barlow_lab.specs import BackboneSpec, Spec
from barlow_lab.specs.slot_memory import BackboneSizes, sizes_of
from service.api.fleet import Fleet, NodeSize
from service.api.schemas import Memory, NodeFit, Parameters


def is_known(backbone: BackboneSpec) -> bool:
    """Whether its sizes are known here; those of a backbone of one's own are not."""
    return sizes_of(backbone) is not None


def parameters(spec: Spec, backbone: BackboneSpec, classes: int | None = None) -> Parameters:
    """Parameters with those of BN, counted exactly, of a backbone of the catalogue and what a job puts on it."""
    sizes = _sizes(backbone)
    on_top = spec.put_on_top(sizes.features, classes)
    total = sizes.parameters + on_top.total
    return Parameters(backbone=sizes.parameters, **asdict(on_top), total=total)


def memory(spec: Spec, backbone: BackboneSpec, classes: int | None = None, images: int | None = None) -> Memory:
    """Estimated bytes on each slot with a backbone of the catalogue. `classes` and `images` are those of the data set,
    where they are known."""
    need = spec.memory(_sizes(backbone), classes, images)
    return Memory(**asdict(need), total=need.total, formula=spec.memory_words)


def fits(spec: Spec, fleet: Fleet, need: Memory | None) -> list[NodeFit]:
    """Whether the slots of each node are enough and large enough."""
    return [
        NodeFit(node=node.name, fits=why is None, slots=node.slots, free=node.free, why=why)
        for node in fleet.nodes
        for why in [_why_not(spec, node, need)]
    ]


def _why_not(spec: Spec, node: NodeSize, need: Memory | None) -> str | None:
    if spec.resources.slots > node.slots:
        return f"needs {spec.resources.slots} slots, has {node.slots}"
    if need is not None and need.total > node.slot_memory_bytes:
        return f"needs about {need.total / 1e9:.1f} GB a slot, has {node.slot_memory_bytes / 1e9:.1f} GB"
    return None


def _sizes(backbone: BackboneSpec) -> BackboneSizes:
    sizes = sizes_of(backbone)
    assert sizes is not None, "only what is_known is asked for"
    return sizes
