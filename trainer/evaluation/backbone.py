"""The frozen backbone that an evaluation judges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer.models.backbones import build_backbone
from trainer.models.exported import backbone_digest, load_backbone
from trainer.outcome import BadSpec
from trainer.runtime import checkpoints
from trainer.runtime.context import Context
from trainer.specs import BackboneSpec, EvaluationSpec

PHASE = "opening the backbone"


@dataclass(frozen=True, slots=True)
class FrozenBackbone:
    """Images in, features out, in evaluation mode. `digest` is None where nothing is learned: raw pixels."""

    module: nn.Module
    source: dict[str, Any]
    digest: str | None

    def check_frozen(self) -> None:
        """Assert that no parameter and no buffer has changed by a bit since the backbone was opened."""
        assert self.digest == _digest(self.module), "the evaluation changed its backbone"


def open_backbone(spec: EvaluationSpec, context: Context) -> FrozenBackbone:
    """The backbone that the spec names, on the rank's device.

    `inputs["backbone"]` is what the worker resolved `backbone_from.job` to: {"path": a published folder} or
    {"checkpoint": a checkpoint folder of a pretraining}, with the sha256 that each names itself by.

    Raises:
        BadSpec: there is no such backbone, or it is not what was written, or it takes no images of that size.
    """
    context.progress(PHASE)
    source = spec.backbone_from.model_dump(exclude_none=True)
    if spec.backbone_from.job is not None:
        module = _of_job(context.inputs.get("backbone") or {}, context)
    else:
        source.pop("select")
        if spec.backbone_from.pixels:
            module = nn.Flatten()
        else:
            assert spec.backbone is not None, "the spec requires it"
            assert spec.backbone_from.random is not None, "the spec requires one source"
            source["name"] = spec.backbone.name
            module = build_backbone(spec.backbone, seed=spec.backbone_from.random)
    context.working(PHASE)
    module = module.float().to(context.device).eval().requires_grad_(False)
    if not spec.backbone_from.pixels:
        _try(module, spec.images.size, context.device)
    return FrozenBackbone(module, source, _digest(module))


def _try(module: nn.Module, side: int, device: torch.device) -> None:
    try:
        with torch.no_grad():
            module(torch.zeros(1, 3, side, side, device=device))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BadSpec(
            f"the backbone takes no image of {side} px ({error}); set images.size to the views.size it was trained with"
        ) from error


def _of_job(resolved: dict[str, str], context: Context) -> nn.Module:
    try:
        if "path" in resolved:
            return _published(Path(resolved["path"]), resolved.get("sha256"))
        if "checkpoint" in resolved:
            return _of_checkpoint(Path(resolved["checkpoint"]), resolved.get("sha256"), context)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise BadSpec(f"the backbone cannot be read: {error}") from error
    raise BadSpec(
        "backbone_from.job is not resolved to a folder: submit the spec to the service, or give --backbone FOLDER"
    )


def _published(folder: Path, sha256: str | None) -> nn.Module:
    module = load_backbone(folder)
    if sha256 not in (None, _digest(module)):
        raise ValueError(f"{folder.name} was published anew after this job was placed; retry the job")
    return module


def _of_checkpoint(folder: Path, sha256: str | None, context: Context) -> nn.Module:
    manifest = checkpoints.read_manifest(folder)
    found = checkpoints.sha256_of(folder / checkpoints.STATE_FILE, partial(context.working, PHASE))
    if found != manifest.sha256 or sha256 not in (None, found):
        raise ValueError(f"{folder.name}/{checkpoints.STATE_FILE} is not the file that was written; use another step")
    module = build_backbone(BackboneSpec.model_validate(manifest.spec["backbone"]), seed=0)
    trained = checkpoints.read_state(folder, torch.device("cpu"))["model"]
    prefix = "backbone."
    module.load_state_dict({name.removeprefix(prefix): v for name, v in trained.items() if name.startswith(prefix)})
    return module


def _digest(module: nn.Module) -> str | None:
    state = module.state_dict()
    return backbone_digest(state) if state else None
