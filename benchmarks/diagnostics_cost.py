"""Which share of a pretraining's time its default diagnostics take, on one thread of a CPU, and at the paper's size.

    nice -n 10 python benchmarks/diagnostics_cost.py

Two sizes are measured whole: a look of every default diagnostic, with all that it writes, beside a step, with the
loading and augmentation of its images. At the paper's size (ResNet-50, 224 px, N 2,048, d 8,192) the look is measured,
of made-up embeddings, and the step is extrapolated: what one image more costs, between two small batches, without its
loading, times the batch. Seconds of the processor, so that others on the machine count little. docs/diagnostics.md
quotes it.

Shape suffixes: 2 views, n images, d features of the embedding, f of the backbone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from barlow_lab.journal import Journal
from barlow_lab.run_folder import CONTROL, JOURNAL
from barlow_lab.specs import PretrainSpec
from trainer.data.registry import open_images
from trainer.diagnostics.base import BatchDiagnostic, BatchSeen, Diagnosed, Records
from trainer.diagnostics.listed import DIAGNOSTICS
from trainer.objectives.base import Terms
from trainer.optim.schedules import Schedule
from trainer.pretraining import pretrain
from trainer.runtime.context import Context
from trainer.runtime.stopping import StopRequests
from trainer.train_state import TrainState
from trainer.training.step_plan import StepPlan

CPU = torch.device("cpu")
SGD = {"name": "sgd", "learning_rate": 0.01, "reference_batch_size": None}
DEMO: dict[str, Any] = {
    "data": "textures", "backbone": {"name": "tiny"}, "projector": {"widths": [128] * 3}, "batch_size": 128,
    "views": {"preset": "small_images", "size": 32}, "optimizer": SGD,
}  # fmt: skip
MIDDLE: dict[str, Any] = {
    "data": "textures", "backbone": {"name": "resnet18"}, "projector": {"widths": [2048] * 3}, "batch_size": 256,
    "views": {"preset": "small_images", "size": 64}, "optimizer": SGD,
}  # fmt: skip
PAPER: dict[str, Any] = {
    "data": "textures", "backbone": {"name": "resnet50"}, "projector": {"widths": [8192] * 3}, "batch_size": 4,
    "views": {"size": 224}, "optimizer": SGD,
}  # fmt: skip
MEASURED = (
    ("demo: tiny, N 128, d 128", DEMO, 2560 // 128, 10),
    ("ResNet-18, 64 px, N 256, d 2,048", MIDDLE, 50_000 // 256, 1),
)
"""A name, what is trained, the steps of an epoch (of the demo; of 50,000 images), and so many to measure by."""
IMAGENET, BATCH, WIDTH, FEATURES = 1_281_167, 2048, 8192, 2048


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        open_images("textures", "train")  # they are kept: made in the first run, they would be of its time
        for number, (name, spec, steps, few) in enumerate(MEASURED):
            own = Path(folder) / str(number)
            told(name, step_seconds(spec, few, own), steps, looked(spec, own / "look"))
        look_of_the_paper = look_at_made_up(Path(folder) / "paper")
    told(f"ResNet-50, 224 px, N {BATCH:,}, d {WIDTH:,}", of_the_paper(), IMAGENET // BATCH, look_of_the_paper)


def step_seconds(spec: dict[str, Any], few: int, folder: Path) -> float:
    """Those of a step of a run, by runs of two lengths: both look at the first and at the last step."""
    taken = {}
    for steps in (few, 3 * few):
        body = {**spec, "max_steps": steps, "epochs": 1000, "run": {"record": {"correlation_every_epochs": 1000}}}
        run = PretrainSpec.model_validate(body)
        context = context_in(folder / str(steps))
        taken[steps] = seconds(partial(pretrain, run, context))
    return (taken[3 * few] - taken[few]) / (2 * few)


def looked(spec: dict[str, Any], folder: Path) -> dict[str, float]:
    """The seconds of each diagnostic at a step of this size."""
    trained = PretrainSpec.model_validate(spec)
    state = TrainState(trained, Schedule(1, 1000, 0.0), CPU)
    views = made_up_views(trained.batch_size, trained.views.size)
    update = state.update(*views, 1)
    features_a_nf, features_b_nf = update.features_2nf
    seen = BatchSeen(2, 1, state.model, views, update.z_a_nd, update.z_b_nd, features_a_nf, features_b_nf, update.terms)
    return look(folder, trained, state, seen)


def of_the_paper() -> float:
    """Seconds of a step of the paper's size: what an image more costs, times the batch."""
    found = {}
    for batch in (4, 8):
        state = TrainState(PretrainSpec.model_validate({**PAPER, "batch_size": batch}), Schedule(1, 1000, 0.0), CPU)
        views = made_up_views(batch, 224)
        found[batch] = min(seconds(partial(state.update, *views, 1)) for _ in range(3))
    return (found[8] - found[4]) / 4 * BATCH


def made_up_views(images: int, side: int) -> tuple[Tensor, Tensor]:
    """Two views of noise that have something in common."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randint(0, 128, (2, images, 3, side, side), dtype=torch.uint8, generator=generator)
    return a, a + b


def look_at_made_up(folder: Path) -> dict[str, float]:
    """The seconds of each diagnostic at the paper's batch and widths."""
    generator = torch.Generator().manual_seed(0)

    def pair(features: int) -> tuple[Tensor, Tensor]:
        shared, *noise = torch.randn(3, BATCH, features, generator=generator)
        return shared + 0.5 * noise[0], shared + 0.5 * noise[1]

    spec = PretrainSpec.model_validate(DEMO)
    state = TrainState(spec, Schedule(1, 1000, 0.0), CPU)
    terms = Terms(torch.zeros(()), {})
    seen = BatchSeen(2, 1, state.model, made_up_views(BATCH, 224), *pair(WIDTH), *pair(FEATURES), terms)
    return look(folder, spec, state, seen)


def look(folder: Path, spec: PretrainSpec, state: TrainState, seen: BatchSeen) -> dict[str, float]:
    """The seconds of each diagnostic that a run has by default, the second time that it looks."""
    context = context_in(folder)
    plan = StepPlan(100, 1, spec)
    run = Diagnosed(spec, plan, state.model, state.objective, open_images("textures", "train", limit=8), context)
    found = {}
    for kind in DIAGNOSTICS:
        one = kind.of(run)
        if isinstance(one, BatchDiagnostic):
            records = Records(one, context, {}, plan, seen.step, resumed=False)
            if seen.z_a_nd.shape[1] < WIDTH:
                one.observe(seen, records)
            found[one.name] = seconds(partial(one.observe, seen, records))
    return found


def context_in(folder: Path) -> Context:
    """The only rank of an attempt."""
    attempt = folder / "attempts" / "0001"
    attempt.mkdir(parents=True)
    return Context(
        rank=0, world_size=1, device=CPU, threads=1, run_folder=folder, attempt_folder=attempt, attempt=1,
        inputs={"backbone": None, "data": {}}, journal=Journal(attempt / JOURNAL),
        stop=StopRequests(attempt / CONTROL, rank=0, device=CPU),
    )  # fmt: skip


def told(name: str, step: float, steps: int, looks: dict[str, float]) -> None:
    """Print a row."""
    look_seconds = sum(looks.values())
    share = look_seconds / (steps * step + look_seconds)
    parts = ", ".join(f"{one} {value:.3g}" for one, value in looks.items())
    print(f"{name}: {steps} steps of {step:.3g} s, a look {look_seconds:.3g} s: {share:.2%} ({parts})", flush=True)


def seconds(work: Callable[[], object]) -> float:
    """Of the processor."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
