"""The parts of the trainer's benchmark on a CPU that begin with JPEG files: the views alone, and whole training."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gpu_steps
import measuring
import reference
import torch
from gpu_steps import Sizes
from loading import engines_agree, loading
from torchvision import datasets

from trainer.data.batch import Batch
from trainer.data.views.photometry import finish
from trainer.train_state import TrainState

EVIDENCE_PAIRS_PER_SECOND = 147.0
"""Of the reference's own lines on one core of an AMD EPYC 9005 (Zen 5), Pillow 13: what our statement is held to."""

VIEWS = Sizes(loader_batch=32, side=224)
TOY = Sizes(side=64, backbone="resnet18", widths=(2048, 2048, 2048), batches=(64,), loader_batch=64)
CPU = torch.device("cpu")


def views(folder: Path, rounds: int, images: int) -> list[dict[str, Any]]:
    """Two 224 px views of every file: by Pillow as the reference makes them, and ours up to what the device does.

    By the clock of the processor: what one core does, whatever else runs on it.
    """
    theirs = datasets.ImageFolder(folder / "train", reference.TwoViews(VIEWS.side))

    def pillow() -> float:
        return measuring.seconds_of(lambda: [theirs[i] for i in range(images)], clock=time.process_time)

    def ours(finished: bool) -> float:
        def load() -> None:
            with closing(loading("batched", folder, VIEWS, 1, images // VIEWS.loader_batch)) as source:
                for batch in source:
                    if finished:
                        finish(batch, CPU)

        return measuring.seconds_of(load, clock=time.process_time)

    found = measuring.in_turn(
        {"reference": pillow, "crops": lambda: ours(False), "finished": lambda: ours(True)}, rounds
    )
    pairs = {name: measuring.rates(images, seconds) for name, seconds in found.items()}
    crops = measuring.compared(pairs["reference"], pairs["crops"], bar=4.0, more_is_better=True)
    whole = measuring.compared(pairs["reference"], pairs["finished"], bar=None, more_is_better=True)
    beside = crops["reference"]["median"] / EVIDENCE_PAIRS_PER_SECOND
    return [
        {
            "what": "two 224 px views from a JPEG, per core, as the loader hands them to a GPU",
            "unit": "pairs/s",
            **crops,
            "figures": {f"reference / {EVIDENCE_PAIRS_PER_SECOND:g} pairs/s of the evidence": f"{beside:.2f}"},
            "checks": [engines_agree(folder, VIEWS, CPU)],
        },
        {"what": "the same with the photometric part on this core, too", "unit": "pairs/s", **whole},
    ]


def toy(folder: Path, rounds: int, steps: int, workers: int) -> list[dict[str, Any]]:
    """Training from JPEG files: 64 px, ResNet-18, three layers of 2048, 64 images a batch."""
    precisions = ["fp32", *(["bf16"] if {"avx512_bf16", "amx_bf16"} & measuring.cpu_flags() else [])]
    step = gpu_steps.reference_step(TOY, CPU, precision="fp32")
    states = {p: gpu_steps.our_state(gpu_steps.spec_of(TOY, TOY.loader_batch, precision=p), CPU) for p in precisions}

    def feed(engine: str, take: Callable[[Any], Any]) -> Callable[[], float]:
        def run() -> float:
            with closing(loading(engine, folder, TOY, workers, whole=True)) as source:
                for batch in itertools.islice(source, 3):  # workers up, and ahead as far as they go
                    take(batch)
                begun = time.perf_counter()
                for batch in itertools.islice(source, steps):
                    take(batch)
                return time.perf_counter() - begun

        return run

    def ours(state: TrainState, batch: Batch) -> None:
        state.update(*finish(batch, CPU), 1)

    work = {"reference": feed("reference", lambda batch: step(*batch[0]))}
    work |= {precision: feed("batched", partial(ours, state)) for precision, state in states.items()}
    found = measuring.in_turn(work, rounds)
    pairs = {name: measuring.rates(steps * TOY.loader_batch, seconds) for name, seconds in found.items()}
    return [
        {
            "what": f"training from JPEG files, ours in {precision} (reference: fp32)",
            "unit": "pairs/s",
            **measuring.compared(
                pairs["reference"], pairs[precision], bar={"fp32": 1.15, "bf16": 1.5}[precision], more_is_better=True
            ),
        }
        for precision in precisions
    ]
