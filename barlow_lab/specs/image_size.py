"""The image size of an evaluation that names none: that of what it judges, or of what it is judged on. No torch.

It is settled once, when a job is submitted or a run by hand begins, and stands in the stored spec from then on. A spec
that was stored without one keeps the default of the field, 224, and so its digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from barlow_lab.specs.catalogue import backbones, built_in_data_sets, network_of
from barlow_lab.specs.kinds import EvaluationSpec, Spec
from barlow_lab.specs.kinds.evaluation import EvaluationImages

SMALLEST = 8
"""Pixels of the smallest side that a spec may ask for."""
USUAL: int = EvaluationImages.model_fields["size"].default
"""The size where nothing else is known, and the most that the sides of a data set's images ask for by themselves."""

S = TypeVar("S")


def names_no_size(spec: object) -> bool:
    """Whether `spec` is an evaluation of image features that leaves its image size open. With `resize` alone it does
    not: pixels before the crop are meant for the usual crop."""
    return isinstance(spec, EvaluationSpec) and not spec.images.model_fields_set & {"size", "resize"}


def with_size(spec: S, *, trained_at: int | None, data_side: int | None, network: str | None = None) -> S:
    """`spec` with its image size written out; as it is where it names one, or needs none.

    Args:
        trained_at: side of the views that the judged backbone was trained on; None: not known.
        data_side: side of the data set's images; None: they vary, or it is not known. The second choice, and not for
            torchvision's weights, which were trained at the usual size.
        network: the architecture where the spec does not say it itself; the size is one that it takes.
    """
    if not isinstance(spec, EvaluationSpec) or not names_no_size(spec):
        return spec
    weights = spec.backbone_from.torchvision
    size = trained_at
    if size is None:
        size = USUAL if data_side is None or weights is not None else max(SMALLEST, min(data_side, USUAL))
    if weights is not None:
        network = network_of(weights)
    elif spec.backbone is not None:
        network = spec.backbone.name
    if (entry := backbones().get(network or "")) is not None:
        size = max(size, entry.smallest_image) if entry.image_size is None else entry.image_size
    return spec.model_copy(update={"images": spec.images.model_copy(update={"size": size})})


def size_by_data(asked: Spec, settled: Spec, *, trained_at: int | None) -> int | None:
    """The image size of `settled`, which is `asked` by `with_size`, where the images of the data set settled it; None
    where they did not."""
    if not isinstance(settled, EvaluationSpec) or not names_no_size(asked):
        return None
    by_data = trained_at is None and settled.backbone_from.torchvision is None
    return settled.images.size if by_data else None


def sized_offline(spec: Spec, siblings: Mapping[str, Spec]) -> tuple[Spec, bool]:
    """`spec` as a submit together with `siblings` would settle its image size, and whether that is known without a
    service: from a source job among them, or else a data set that is built in."""
    if not isinstance(spec, EvaluationSpec) or not names_no_size(spec):
        return spec, True
    source = siblings.get(spec.backbone_from.job or "")
    if source is not None and (made := source.backbone_made) is not None:
        return with_size(spec, trained_at=made.trained_at, data_side=None, network=made.backbone.name), True
    if spec.backbone_from.torchvision is not None:
        return with_size(spec, trained_at=None, data_side=None), True
    built_in = built_in_data_sets().get(spec.data.name)
    if built_in is None or spec.backbone_from.job is not None:
        return spec, False
    return with_size(spec, trained_at=None, data_side=built_in.image_size), True
