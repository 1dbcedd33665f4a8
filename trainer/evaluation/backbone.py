"""The backbone that an evaluation judges, from any source."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from barlow_lab.disk import sha256_of
from barlow_lab.given_files import checked
from barlow_lab.run_folder import CHECKPOINT_STATE
from barlow_lab.specs import BackboneJudged, BackboneSpec
from barlow_lab.specs.network import TrainedBackboneSpec
from trainer.evaluation.seen_images import PretrainedOn
from trainer.failures import BadSpec
from trainer.models.backbones import build_backbone
from trainer.models.exported import backbone_digest, load_backbone, read_architecture, read_details
from trainer.models.foreign import architecture_of, described, load_foreign
from trainer.runtime import checkpoints
from trainer.runtime.context import Context

PHASE = "opening the backbone"
NAMED = 20
"""Tensors left out that a warning and the result name."""


@dataclass(frozen=True, slots=True)
class FrozenBackbone:
    """Images in, features out, in evaluation mode, float32 on the rank's device.

    `source` says where it is from, in the words of the spec. `digest` and `architecture` are None where nothing is
    learned: raw pixels. `pretrained_on` is None where it is not known, as of exports of before.
    """

    module: nn.Module
    source: dict[str, Any]
    digest: str | None
    architecture: BackboneSpec | None = None
    pretrained_on: PretrainedOn | None = None

    def check_frozen(self) -> None:
        """Assert that no parameter and no buffer has changed by a bit since the backbone was opened."""
        assert self.digest == _digest(self.module), "the evaluation changed its backbone"

    def trainable_copy(self) -> nn.Module:
        """The same network, its own and free to be trained: in training mode, every parameter with a gradient."""
        return copy.deepcopy(self.module).train().requires_grad_(True)


@dataclass(frozen=True, slots=True)
class _Opened:
    module: nn.Module
    architecture: BackboneSpec | None
    said: dict[str, Any]
    """What the source is found to be, beside what the spec says."""
    pretrained_on: PretrainedOn | None = None


def open_backbone(spec: BackboneJudged, context: Context) -> FrozenBackbone:
    """The backbone that the spec names, on the rank's device; tried on an image of its `image_size`, if it has one.

    `inputs["backbone"]` is what the worker resolved `backbone_from` to: {"path": a published folder} or {"checkpoint":
    a checkpoint folder of a pretraining}, with the sha256 that each names itself by; {"file": weights}; or
    {"folder": where torchvision's files are}. No file lies outside of the "root" that stands beside it.

    Raises:
        BadSpec: there is no such backbone, or it is not what was written, or it takes no images of that size.
    """
    context.progress(PHASE)
    opened = _open(spec, context)
    context.working(PHASE)
    module = opened.module.float().to(context.device).eval().requires_grad_(False)
    if spec.image_size is not None and not spec.backbone_from.pixels:
        _try(module, spec.image_size, spec.image_size_field, context.device)
    source = spec.backbone_from.model_dump(exclude_none=True)
    if spec.backbone_from.job is None:
        source.pop("select")
    return FrozenBackbone(module, source | opened.said, _digest(module), opened.architecture, opened.pretrained_on)


def _try(module: nn.Module, side: int, field: str, device: torch.device) -> None:
    try:
        with torch.no_grad():
            module(torch.zeros(1, 3, side, side, device=device))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BadSpec(
            f"the backbone takes no image of {side} px ({error}); set {field} to the views.size it was trained with"
        ) from error


def _open(spec: BackboneJudged, context: Context) -> _Opened:
    source = spec.backbone_from
    if source.pixels:
        return _Opened(nn.Flatten(), None, {})
    if source.random is not None:
        assert spec.backbone is not None, "the spec requires it"
        module = build_backbone(spec.backbone, seed=source.random)
        return _Opened(module, spec.backbone, {"name": spec.backbone.name})
    resolved = context.inputs.get("backbone") or {}
    root = Path(resolved["root"]) if "root" in resolved else None
    try:
        if source.torchvision is not None:
            return _of_torchvision(source.torchvision, resolved, context)
        if "path" in resolved:
            folder = Path(resolved["path"])
            return _brings_its_own(_published(folder, resolved.get("sha256"), root), folder, spec, context)
        if "checkpoint" in resolved:
            folder = Path(resolved["checkpoint"])
            opened = _of_checkpoint(folder, resolved.get("sha256"), root, context)
            return _brings_its_own(opened, folder, spec, context)
        if source.file is not None and "file" in resolved:
            return _of_file(checked(Path(resolved["file"]), within=root), spec.backbone, context)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise BadSpec(f"the backbone cannot be read: {error}") from error
    if source.job is not None:
        raise BadSpec(
            "backbone_from.job is not resolved to a folder: submit the spec to the service, or give --backbone PATH"
        )
    raise BadSpec("backbone_from.file is not resolved: submit the spec to the service, or give --backbone PATH")


def _brings_its_own(opened: _Opened, folder: Path, spec: BackboneJudged, context: Context) -> _Opened:
    """Refuse an architecture in the spec, or a step, that is not the one the folder names."""
    assert opened.architecture is not None
    if spec.backbone not in (None, opened.architecture):
        raise ValueError(f"it is {described(opened.architecture)} and says so itself; leave backbone out")
    step, source = opened.said.get("step"), spec.backbone_from
    if source.select == "last":
        if source.job is not None and "checkpoint" in context.inputs["backbone"]:  # by hand alone
            context.warn(
                "backbone_from.select is `last`, the published backbone, and what is judged is the checkpoint "
                f"{folder.name}; say select: step {step}"
            )
    elif step is None or int(source.select.removeprefix("step ")) != step:
        found = "does not say of which step it is" if step is None else f"is of step {step}"
        remedy = "" if step is None else f", or say select: step {step}"
        raise ValueError(
            f"backbone_from.select is `{source.select}`, and {folder.name} {found}; give the checkpoint folder of that "
            f"step{remedy}"
        )
    if source.file is None:
        return opened
    return replace(opened, said={**opened.said, "read": folder.name})  # by hand another than the spec names


def _published(folder: Path, sha256: str | None, root: Path | None) -> _Opened:
    module = load_backbone(folder, root)
    if sha256 not in (None, _digest(module)):
        raise ValueError(f"{folder.name} was published anew after this job was placed; retry the job")
    details = read_details(folder, root)
    step = details.get("step")
    known = isinstance(step, int) and not isinstance(step, bool)
    on = [details.get(key) for key in ("data", "split", "fingerprint", "split_fingerprint")]
    return _Opened(module, read_architecture(folder, root), {"step": step} if known else {}, _pretrained_on(*on))


def _pretrained_on(data: object, split: object, *fingerprints: object) -> PretrainedOn | None:
    if not (isinstance(data, str) and isinstance(split, str)):
        return None
    return PretrainedOn(data, split, frozenset(each for each in fingerprints if isinstance(each, str)))


def _of_checkpoint(folder: Path, sha256: str | None, root: Path | None, context: Context) -> _Opened:
    manifest = checkpoints.read_manifest(folder, root)
    found = sha256_of(folder / CHECKPOINT_STATE, partial(context.working, PHASE), root)
    if found != manifest.sha256 or sha256 not in (None, found):
        raise ValueError(f"{folder.name}/{CHECKPOINT_STATE} is not the file that was written; use another step")
    architecture = TrainedBackboneSpec.model_validate(manifest.spec["backbone"]).architecture
    module = build_backbone(architecture, seed=0)
    state = checkpoints.read_state(folder, torch.device("cpu"), root)
    trained, prefix = state["model"], "backbone."
    module.load_state_dict({name.removeprefix(prefix): v for name, v in trained.items() if name.startswith(prefix)})
    data = manifest.spec["data"]
    on = _pretrained_on(data["name"], data["split"], state.get("data"))
    return _Opened(module, architecture, {"step": manifest.step}, on)


def _of_file(path: Path, architecture: BackboneSpec | None, context: Context) -> _Opened:
    tick = partial(context.working, PHASE)
    if architecture is None:
        fits = architecture_of(path, tick)
        example = f"they fit {described(fits)}" if fits is not None else "for example backbone: {name: resnet50}"
        raise ValueError(f"{path.name} holds weights alone: add the architecture as `backbone` ({example})")
    return _foreign(path, architecture, sha256_of(path, tick), context)


def _of_torchvision(name: str, resolved: dict[str, str], context: Context) -> _Opened:
    # Late: only this source asks torchvision for its weights.
    from trainer.models.torchvision_weights import find_in, torchvision_weights

    weights = torchvision_weights(name)
    if "file" in resolved:
        path = checked(Path(resolved["file"]))
    elif "folder" in resolved:
        path = find_in(Path(resolved["folder"]), weights)
    else:
        raise ValueError(
            f"{name} is the file {weights.file}, published at {weights.address}: give it as --backbone PATH"
        )
    sha256 = sha256_of(path, partial(context.working, PHASE))
    weights.check(sha256)
    return _foreign(path, weights.architecture, sha256, context)


def _foreign(path: Path, architecture: BackboneSpec, sha256: str, context: Context) -> _Opened:
    loaded = load_foreign(path, architecture, partial(context.working, PHASE))
    # The file that was read: by hand another may be given than the spec names.
    said: dict[str, Any] = {"name": architecture.name, "read": path.name, "sha256": sha256}
    if loaded.dropped:
        count, names = len(loaded.dropped), loaded.dropped[:NAMED]
        said["left_out"] = {"tensors": count, "names": names}
        context.warn(
            f"{count} tensors of {path.name} are no part of {described(architecture)} and are left out: "
            + ", ".join(names)
            + (", ..." if count > len(names) else ""),
            tensors=count,
            names=names,
        )
    if loaded.others:
        others = dict(islice(loaded.others.items(), NAMED))
        said["under"], said["left_out"]["others"] = loaded.under, others
        context.warn(
            f"{path.name} holds more weights than those under {loaded.under}, which are judged; left out are "
            + ", ".join(f"{tensors} tensors under {where}" for where, tensors in others.items())
            + f". For one of these {loaded.remedy}, and judge that file",
            under=loaded.under,
            others=others,
        )
    return _Opened(loaded.module, architecture, said)


def _digest(module: nn.Module) -> str | None:
    state = module.state_dict()
    return backbone_digest(state) if state else None
