"""The `started` event: under which conditions an attempt runs."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from barlow_lab.specs import digest
from barlow_lab.specs.data_sets import has_image_files
from barlow_lab.specs.kinds import KindSpec
from trainer.data.decoding.jpeg import jpeg_decoder
from trainer.runtime import checkpoints, collectives
from trainer.runtime.context import Context


def journal_started(context: Context, spec: KindSpec, *, resume_step: int, **facts: Any) -> None:
    """Journal versions, devices and the ranks' processes; every rank calls it.

    `ranks` names each process by pid and start time (clock ticks since boot, /proc/<pid>/stat): a pid alone may be
    another process tomorrow. `resume_step`: the steps before it are in earlier attempts' journals. Of image files
    there are `jpeg_decoder`, with a warning where it is not the fast one, and the `value_range` they are read by.
    """
    mine = torch.tensor([os.getpid(), _start_ticks()], dtype=torch.int64, device=context.device)
    everyone = collectives.all_gather(mine).tolist()
    if context.journal is None:
        return
    source = context.data_source(spec.data.name)
    if source is not None and has_image_files(source):
        decoder = jpeg_decoder()
        facts = {**facts, "jpeg_decoder": decoder.name, "value_range": source.value_range}
        if decoder.lost is not None:
            said = "JPEGs are decoded by Pillow, to the same pixels and more slowly"
            context.warn(
                f"{said}: {decoder.lost}. Install what the extra `trainer` names, or see the versions of torch"
            )
    device = torch.cuda.get_device_name(context.device) if context.device.type == "cuda" else platform.machine()
    context.journal.append(
        "started",
        step=resume_step,
        resume_step=resume_step,
        attempt=context.attempt,
        spec_digest=digest(spec),
        versions=checkpoints.versions(),
        host=platform.node(),
        device=device,
        device_type=context.device.type,
        world_size=context.world_size,
        threads=context.threads,
        ranks=[{"rank": rank, "pid": pid, "start_ticks": ticks} for rank, (pid, ticks) in enumerate(everyone)],
        **facts,
    )


def _start_ticks() -> int:
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2]
    except FileNotFoundError:
        return 0
    return int(after_name.split()[19])
