"""Writes trainer/specs/catalogue.json: what specs, API and planner know of backbones and data sets without torch.

`python -m trainer.models.catalogue`, after a change of a backbone or of a built-in data set.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.data.registry import open_data_set, registered
from trainer.models.backbones import NAMES, empty_backbone
from trainer.specs.catalogue import BackboneEntry, DataSetEntry
from trainer.specs.common import BackboneSpec

_SIDE = 224


def backbone_entry(name: str) -> BackboneEntry:
    """Counts of the backbone with its default stem, on the meta device: nothing is computed."""
    backbone = empty_backbone(BackboneSpec.model_construct(name=name, stem="imagenet", zero_init_residual=True))
    # Two batch sizes: the difference leaves out what is kept once per batch, such as BN's statistics.
    per_view = _saved_bytes(backbone, 2) - _saved_bytes(backbone, 1)
    return BackboneEntry(
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        features=backbone.features,
        activation_mb_per_view=round(per_view / 1e6, 1),
    )


def data_set_entry(name: str) -> DataSetEntry:
    """Counts of a registered data set that needs no files."""
    known = registered()[name]
    splits = {split: open_data_set(name, split) for split in known.splits}
    sides = {data.image(index).shape[:2] for data in splits.values() for index in range(len(data))}
    height, width = next(iter(sides))
    return DataSetEntry(
        splits={split: len(data) for split, data in splits.items()},
        classes=len(next(iter(splits.values())).classes),
        image_size=height if len(sides) == 1 and height == width else None,
        description=known.description,
    )


def render() -> str:
    """The text of catalogue.json: one entry a line."""
    backbones = {name: backbone_entry(name).model_dump() for name in NAMES}
    data_sets = {name: data_set_entry(name).model_dump() for name in registered()}
    return f'{{"backbones": {_lines(backbones)},\n"data_sets": {_lines(data_sets)}}}\n'


def _lines(entries: dict[str, dict[str, object]]) -> str:
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items()) + "\n}"


def _saved_bytes(backbone: nn.Module, views: int) -> int:
    """Bytes that a training forward of float32 views keeps for backward, each storage once, without the parameters."""
    parameters = {parameter.untyped_storage()._cdata for parameter in backbone.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # The tensor itself is held, so that no later storage can take its address.
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = backbone.train()(torch.empty(views, 3, _SIDE, _SIDE, device="meta"))
    assert output.requires_grad
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in parameters)


def main() -> None:
    """Write the file in place."""
    path = Path(str(resources.files("trainer.specs").joinpath("catalogue.json")))
    path.write_text(render(), "utf-8")


if __name__ == "__main__":
    main()
