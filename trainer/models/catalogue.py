"""Writes barlow_lab/specs/catalogue.json: what specs, API and planner know of backbones and data sets without torch.

`python -m trainer.models.catalogue`, after a change of a backbone or of a built-in data set, takes about two minutes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from barlow_lab.specs.catalogue import CATALOGUE_SIDE, BackboneEntry, DataSetEntry, Trunk
from barlow_lab.specs.common import BackboneSpec
from trainer.data.registry import open_images, registered_data_sets
from trainer.models.backbones import empty_backbone
from trainer.models.classifiers import CLASSIFIERS, is_resnet
from trainer.models.torchvision_weights import known_weights, torchvision_weights

NAMES = (*CLASSIFIERS, "tiny", "tiny_resnet")

SIDES = range(8, 129)
"""Sides in pixels among which the smallest is looked for: from the smallest that a spec allows."""


def backbone_entry(name: str) -> BackboneEntry:
    """What is known of one backbone. Nothing is computed: its tensors have a shape and no memory."""
    spec = BackboneSpec.model_construct(name=name, stem="imagenet", zero_init_residual=True)
    backbone = empty_backbone(spec)
    family = name == "tiny_resnet" or (name in CLASSIFIERS and is_resnet(name))
    small = spec.model_copy(update={"stem": "small"})
    any_size = takes(backbone, SIDES[-1])
    return BackboneEntry(
        **trunk(backbone).model_dump(),
        features=backbone.feature_width,
        image_size=None if any_size else CATALOGUE_SIDE,
        smallest_image=next(side for side in SIDES if takes(backbone, side)) if any_size else CATALOGUE_SIDE,
        zero_init_residual=family,
        small_stem=trunk(empty_backbone(small)) if family or name == "tiny" else None,
    )


def trunk(backbone: nn.Module) -> Trunk:
    """Counts of a backbone on the meta device."""
    # Two batch sizes: the difference leaves out what is kept once per batch, such as BN's statistics.
    per_view = saved_bytes(backbone, 2) - saved_bytes(backbone, 1)
    return Trunk(
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        activation_mb_per_view=round(per_view / 1e6, 1),
    )


def takes(backbone: nn.Module, side: int) -> bool:
    """Whether a backbone on the meta device gives features of images of `side` px."""
    try:
        backbone(torch.empty(2, 3, side, side, device="meta"))
    except (RuntimeError, AssertionError):
        return False
    return True


def saved_bytes(backbone: nn.Module, views: int) -> int:
    """Bytes that a training forward of float32 views keeps for backward, each storage once, without the parameters.

    The backbone is on the meta device. It is run with pretended CPU tensors instead: those of the meta device would
    take the attention that keeps its scores, which no real device does.
    """
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # The tensor itself is held, so that no later storage can take its address.
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        pretended = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", requires_grad=tensor.requires_grad)
            for name, tensor in chain(backbone.named_parameters(), backbone.named_buffers())
        }
        images = torch.empty(views, 3, CATALOGUE_SIDE, CATALOGUE_SIDE, device="cpu")
        output = torch.func.functional_call(backbone.train(), pretended, (images,))
    assert output.requires_grad
    own = {tensor.untyped_storage()._cdata for tensor in pretended.values() if tensor.requires_grad}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)


def data_set_entry(name: str) -> DataSetEntry:
    """Counts of a registered data set that needs no files."""
    known = registered_data_sets()[name]
    splits = {split: open_images(name, split) for split in known.splits}
    sides = {data.image(index).shape[:2] for data in splits.values() for index in range(len(data))}
    height, width = next(iter(sides))
    return DataSetEntry(
        splits={split: len(data) for split, data in splits.items()},
        classes=len(next(iter(splits.values())).classes),
        image_size=height if len(sides) == 1 and height == width else None,
        description=known.description,
        annotations=list(known.annotations),
    )


_COUNTED = {"splits", "classes", "image_size", "description", "annotations"}
"""Of a data set that comes with the code; the rest of an entry is what a node says of its own."""


def render() -> str:
    """The text of catalogue.json: one entry a line."""
    backbones = {name: backbone_entry(name).model_dump() for name in NAMES}
    data_sets = {name: data_set_entry(name).model_dump(include=_COUNTED) for name in registered_data_sets()}
    files = _lines(files_of_torchvision())
    return f'{{"backbones": {_lines(backbones)},\n"data_sets": {_lines(data_sets)},\n"torchvision_files": {files}}}\n'


def files_of_torchvision() -> dict[str, str]:
    """The file of each of torchvision's weights that an evaluation may name."""
    return {name: torchvision_weights(name).file for name in known_weights()}


def _lines(entries: Mapping[str, object]) -> str:
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items()) + "\n}"


def main() -> None:
    """Write the file in place."""
    path = Path(str(resources.files("barlow_lab.specs").joinpath("catalogue.json")))
    path.write_text(render(), "utf-8")


if __name__ == "__main__":
    main()
