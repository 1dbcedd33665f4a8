"""Views from JPEG files, by the reference's DataLoader or by ours: what the benchmarks feed a step with."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import measuring
import reference
import torch

from barlow_lab.specs import ViewsSpec
from barlow_lab.specs.data_sets import ImageFolderSource
from trainer.data.loading.training import TrainingBatches
from trainer.data.registry import open_data_set
from trainer.data.views.photometry import finish


class LoadingSizes(Protocol):
    """What of a benchmark's sizes loading needs."""

    @property
    def loader_batch(self) -> int: ...

    @property
    def side(self) -> int: ...


def loading(
    engine: str, folder: Path, sizes: LoadingSizes, workers: int, batches: int = 2**30, *, whole: bool = False
) -> Generator[Any]:
    """So many batches from FOLDER/train/CLASS/*.jpg; no work is begun for more of them.

    `reference`: ((view a, view b), labels), float32, from `workers` processes (0: this one). `pillow` and `batched`:
    our Batch, from `workers` threads; `whole` as a training on a CPU has it.
    """
    if engine == "reference":
        pinned = torch.cuda.is_available()
        source = reference.loader(
            folder / "train", batch_size=sizes.loader_batch, workers=workers, size=sizes.side, pin_memory=pinned
        )
        yield from itertools.islice(source, batches)
    else:
        ours = TrainingBatches(
            open_data_set("jpegs", "train", source=ImageFolderSource(format="image_folder", root=folder)),
            ViewsSpec.model_validate({"size": sizes.side, "engine": engine}),
            batch_size=sizes.loader_batch,
            seed=0,
            rank=0,
            world_size=1,
            threads=workers,
            pinned=torch.cuda.is_available(),
            whole=whole,
        )
        with closing(ours.iterate(0, batches)) as steps:
            yield from steps


def engines_agree(folder: Path, sizes: LoadingSizes, device: torch.device) -> dict[str, Any]:
    """The same draws by Pillow and by the batched engine, whose photometry is done on the device."""
    made = []
    for engine in ("pillow", "batched"):
        with closing(loading(engine, folder, sizes, 1)) as source:
            made.append(torch.stack([view.float().cpu() for view in finish(next(source), device)]))
    apart = float((made[0] - made[1]).abs().mean())
    return measuring.check(f"both engines, same draws, {sizes.loader_batch} images: mean levels apart", apart, 0.5)


def pairs_per_second(engine: str, folder: Path, sizes: LoadingSizes, workers: int, amount: int) -> float:
    """Pairs of views a second from the second batch on, for about `amount` of them."""
    with closing(loading(engine, folder, sizes, workers)) as source:
        next(source)
        begun = time.perf_counter()
        batches = max(1, amount // sizes.loader_batch)
        for _ in itertools.islice(source, batches):
            pass
        return batches * sizes.loader_batch / (time.perf_counter() - begun)
