"""The end of a pretraining: its result, and the backbone as a file."""

from __future__ import annotations

import math
from typing import Any

from barlow_lab.outcome import Outcome
from barlow_lab.run_folder import BACKBONE
from barlow_lab.specs import PretrainSpec, digest
from trainer.data.datasets import Images, whole_of
from trainer.failures import Diverged
from trainer.models.exported import backbone_digest, save_backbone
from trainer.pretraining.fit import Pretraining


def export(fit: Pretraining, spec: PretrainSpec, dataset: Images) -> Outcome:
    """What a pretraining that is done ends with; every rank calls it, and rank 0 writes the backbone.

    Raises:
        Diverged: no step has moved anything.
    """
    state, plan, context = fit.state, fit.plan, fit.context
    if skipped_steps := state.skipped_steps():
        said = f"{skipped_steps} of {plan.steps} steps moved nothing: the gradient did not fit fp16 at the scale it had"
        if skipped_steps == plan.steps:
            raise Diverged(f"{said}. Use bf16 or fp32, or more steps", plan.steps)
        context.warn(f"{said}. The scale starts high and is found within some 20 steps; bf16 needs none")
    context.progress("exporting", step=plan.steps, steps=plan.steps)
    backbone = state.model["backbone"]
    sha256 = backbone_digest({k: v.float() if v.is_floating_point() else v for k, v in backbone.state_dict().items()})
    result: dict[str, Any] = {
        "steps": plan.steps,
        "epochs": plan.epochs,
        "images_seen": plan.steps * spec.batch_size,
        "unreadable_images": len(fit.skipped.names),
        "skipped_steps": skipped_steps,
        "data": {
            "name": spec.data.name,
            "split": spec.data.split,
            "fingerprint": dataset.fingerprint,
            "images": len(dataset),
        },
        # The last step may be one that fp16 skipped, whose gradient has no norm; JSON has no word for that.
        "metrics": {name: value for name, value in fit.newest.items() if math.isfinite(value)},
        "backbone": {
            "sha256": sha256,
            "features": backbone.feature_width,
            "parameters": sum(p.numel() for p in backbone.parameters()),
        },
        **fit.diagnostics.result,
    }
    if context.journal is not None:
        context.working("exporting")
        details = {
            "spec_digest": digest(spec),
            "step": plan.steps,
            "epoch": plan.epochs,
            "data": spec.data.name,
            "split": spec.data.split,
            "fingerprint": dataset.fingerprint,
            "split_fingerprint": whole_of(dataset).fingerprint,
            "image_size": spec.views.size,
        }
        save_backbone(context.attempt_folder / BACKBONE, backbone, spec.backbone.architecture, details=details)
        context.journal.append("checkpoint", step=plan.steps, epoch=plan.epochs, checkpoint="backbone", path=BACKBONE)
    message = "; at the end ".join([f"trained for {plan.steps} steps", *fit.diagnostics.last_words])
    return Outcome("ok", message, step=plan.steps, result=result, backbone=BACKBONE)
