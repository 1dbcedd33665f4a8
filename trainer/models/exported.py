"""A backbone as it is published: `model.safetensors` and `config.json` in one folder, checked by digest."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from barlow_lab.disk import sync
from barlow_lab.given_files import checked, read_json
from barlow_lab.run_folder import BACKBONE_CONFIG, BACKBONE_WEIGHTS
from barlow_lab.specs.common import BackboneSpec
from trainer.data.pixels import PIXEL_MEAN, PIXEL_STD
from trainer.models.backbones import build_backbone
from trainer.models.foreign_files import MAX_BYTES

FORMAT_VERSION = 1
REMEDY = "export it again from its job's checkpoint"


def backbone_digest(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, dtypes, shapes and bytes of the tensors; their order does not matter."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_backbone(folder: Path, backbone: nn.Module, spec: BackboneSpec, *, details: dict[str, Any]) -> None:
    """Publish a backbone at `folder`, in float32 whatever it was trained in; an older one there is replaced.

    All is written and synced beside `folder` and renamed into place, so a kill leaves the folder whole or absent, and
    what a killed writer left beside it is cleared by the next one. `details` goes into config.json as it is: plain
    JSON values about where the backbone comes from.
    """
    weights = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().contiguous().clone()
        for name, tensor in backbone.state_dict().items()
    }
    config = {
        "format_version": FORMAT_VERSION,
        "backbone": spec.model_dump(mode="json"),
        "features": backbone.feature_width,
        "pixel_mean": PIXEL_MEAN,
        "pixel_std": PIXEL_STD,
        "sha256": backbone_digest(weights),
        "details": details,
    }
    partial = folder.with_name(f".{folder.name}.partial")
    replaced = folder.with_name(f".{folder.name}.replaced")
    for leftover in (partial, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(weights, partial / BACKBONE_WEIGHTS)
    (partial / BACKBONE_CONFIG).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", "utf-8")
    for path in (partial / BACKBONE_WEIGHTS, partial / BACKBONE_CONFIG, partial):
        sync(path)
    if folder.exists():
        folder.rename(replaced)
    partial.rename(folder)
    sync(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def load_backbone(folder: Path, root: Path | None = None) -> nn.Module:
    """The published backbone, float32 on the CPU, in evaluation mode. Nothing of the folder is executed, and with
    `root` none of its files lies outside of that.

    Raises:
        ValueError: the folder is not a whole published backbone, or its weights are not what was published.
    """
    spec, published = _read_config(folder, root)
    try:
        weights = load_file(checked(folder / BACKBONE_WEIGHTS, within=root, most=MAX_BYTES))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder.name}/{BACKBONE_WEIGHTS} cannot be read ({error}); {REMEDY}") from error
    found = backbone_digest(weights)
    if found != published:
        raise ValueError(f"{folder.name}/{BACKBONE_WEIGHTS} has digest {found}, published was {published}; {REMEDY}")
    backbone = build_backbone(spec, seed=0)
    try:
        backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{folder.name}/{BACKBONE_WEIGHTS} does not fit {spec.name}: {error}; {REMEDY}") from error
    return backbone.eval()


def read_architecture(folder: Path, root: Path | None = None) -> BackboneSpec:
    """The network that the published backbone in `folder` is; `root` as for `load_backbone`.

    Raises:
        ValueError: the folder does not describe one.
    """
    return _read_config(folder, root)[0]


def read_details(folder: Path, root: Path | None = None) -> dict[str, Any]:
    """What the published backbone in `folder` says of where it comes from, as `save_backbone` was told, or another
    version of it; `root` as for `load_backbone`.

    Raises:
        ValueError: what the folder says of itself cannot be read.
    """
    try:
        details = read_json(folder / BACKBONE_CONFIG, within=root)["details"]
    except (KeyError, TypeError):
        return {}
    except OSError as error:
        raise ValueError(f"{folder.name}/{BACKBONE_CONFIG} cannot be read ({error}); {REMEDY}") from error
    return details if isinstance(details, dict) else {}


def _read_config(folder: Path, root: Path | None) -> tuple[BackboneSpec, str]:
    """Architecture, and digest of the weights."""
    try:
        config = read_json(folder / BACKBONE_CONFIG, within=root)
        version = config["format_version"]
        spec = BackboneSpec.model_validate(config["backbone"])
        published = str(config["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder.name}/{BACKBONE_CONFIG} does not describe a backbone ({error}); {REMEDY}") from error
    if version != FORMAT_VERSION:
        raise ValueError(f"{folder.name} has format {version}, this version reads {FORMAT_VERSION}; {REMEDY}")
    return spec, published
