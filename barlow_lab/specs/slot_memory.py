"""Memory that a job needs on each slot, in bytes: its parts, and the words that say how each kind counts them.

b is the size of a parameter and of its gradient, b' that of an activation. The sizes of backbones are the catalogue's.
"""

from __future__ import annotations

from dataclasses import dataclass

from barlow_lab.specs.catalogue import CATALOGUE_SIDE, backbones
from barlow_lab.specs.common import BackboneSpec, Precision


@dataclass(frozen=True, slots=True)
class BackboneSizes:
    """A backbone of the catalogue, with one of its stems."""

    features: int
    parameters: int
    bytes_of_224: float
    """What one fp32 view of 224 px keeps for backward,"""
    bytes_of_224_imagenet: float
    """and with the ImageNet stem."""

    def view_bytes(self, pixels: float) -> float:
        """What one fp32 view of so many pixels keeps for backward."""
        return self.bytes_of_224 * pixels / CATALOGUE_SIDE**2


@dataclass(frozen=True, slots=True)
class OnTop:
    """Parameters of what a job puts on its backbone; `head` is None where that takes a number of classes not known,
    `objective` are those that an objective trains itself."""

    projector: int = 0
    head: int | None = 0
    objective: int = 0

    @property
    def total(self) -> int:
        """The parameters of all parts, as far as they are known."""
        return self.projector + (self.head or 0) + self.objective


@dataclass(frozen=True, slots=True)
class SlotMemory:
    """Estimated bytes on each slot."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    features: int = 0
    """Features of the training images, where they are computed once and kept."""
    objective: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.features + self.objective


def sizes_of(backbone: BackboneSpec) -> BackboneSizes | None:
    """The catalogue's; None for a backbone of one's own, whose sizes are not known here."""
    entry = backbones().get(backbone.name)
    if entry is None:
        return None
    trunk = entry if backbone.stem == "imagenet" else entry.small_stem
    assert trunk is not None, "a spec that asks for a stem that is not there is refused"
    kept, usual = trunk.activation_mb_per_view * 1e6, entry.activation_mb_per_view * 1e6
    return BackboneSizes(entry.features, trunk.parameters, kept, usual)


def parameter_bytes(precision: Precision) -> int:
    """b."""
    return 8 if precision == "fp64" else 4


def activation_bytes(precision: Precision) -> int:
    """b'."""
    return {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}[precision]


def formula(*parts: str) -> str:
    """How a kind counts, of the words for its `parts`."""
    return " ".join(["bytes on each slot. weights: parameters x b.", *parts, _REST])


FROZEN = 20
"""A pass without a gradient keeps so much less than one with."""
VIEW_WORDS = "A view's activations: the catalogue's fp32 MB per 224 px view with this stem x (size / 224)^2 x b' / 4."
SGD_WORDS = "optimizer: trained parameters x b, the running average of sgd."
_REST = (
    "b: 8 for fp64, else 4; b' as b, but 2 for bf16 and fp16. Not in it: the CUDA context, the allocator's slack and "
    "the workspace of convolutions; leave about 2 GB."
)
