"""The image size of an evaluation that names none: that of what it judges, or of what it is judged on. No torch.

It is settled once, when a job is submitted or a run by hand begins, and stands in the stored spec from then on. A spec
that was stored without one keeps the default of the field, 224, and so its digest.
"""

from __future__ import annotations

from collections.abc import Mapping

from barlow_lab.specs.catalogue import backbones, built_in_data_sets, network_of
from barlow_lab.specs.kinds import Spec
from barlow_lab.specs.kinds.evaluation import EvaluationImages

SMALLEST = 8
"""Pixels of the smallest side that a spec may ask for."""
USUAL: int = EvaluationImages.model_fields["size"].default
"""The size where nothing else is known, and the most that the sides of a data set's images ask for by themselves."""


def with_size(spec: Spec, *, trained_at: int | None, data_side: int | None, network: str | None = None) -> Spec:
    """`spec` with its image size written out; as it is where it names one, or needs none.

    Args:
        trained_at: side of the views that the judged backbone was trained on; None: not known.
        data_side: side of the data set's images; None: they vary, or it is not known. The second choice, and not for
            torchvision's weights, which were trained at the usual size.
        network: the architecture where the spec does not say it itself; the size is one that it takes.
    """
    source = spec.backbone_from_elsewhere
    if source is None or not spec.leaves_image_size_open:
        return spec
    weights = source.torchvision
    size = trained_at
    if size is None:
        size = USUAL if data_side is None or weights is not None else max(SMALLEST, min(data_side, USUAL))
    if weights is not None:
        network = network_of(weights)
    elif spec.backbone is not None:
        network = spec.backbone.name
    if (entry := backbones().get(network or "")) is not None:
        size = max(size, entry.smallest_image) if entry.image_size is None else entry.image_size
    return spec.at_image_size(size)


def size_by_data(asked: Spec, settled: Spec, *, trained_at: int | None) -> int | None:
    """The image size of `settled`, which is `asked` by `with_size`, where the images of the data set settled it; None
    where they did not."""
    source = asked.backbone_from_elsewhere
    if source is None or not asked.leaves_image_size_open:
        return None
    return settled.image_size if trained_at is None and source.torchvision is None else None


def sized_offline(spec: Spec, siblings: Mapping[str, Spec]) -> tuple[Spec, bool]:
    """`spec` as a submit together with `siblings` would settle its image size, and whether that is known without a
    service: from a source job among them, or else a data set that is built in."""
    taken = spec.backbone_from_elsewhere
    if taken is None or not spec.leaves_image_size_open:
        return spec, True
    source = siblings.get(taken.job or "")
    if source is not None and (made := source.backbone_made) is not None:
        return with_size(spec, trained_at=made.trained_at, data_side=None, network=made.backbone.name), True
    if taken.torchvision is not None:
        return with_size(spec, trained_at=None, data_side=None), True
    built_in = built_in_data_sets().get(spec.data.name)
    if built_in is None or taken.job is not None:
        return spec, False
    return with_size(spec, trained_at=None, data_side=built_in.image_size), True
