"""Steps on one GPU: the reference's, ours, and the rungs between them, each on inputs that lie there already."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import measuring
import reference
import torch
from torch import Tensor

from barlow_lab.specs import PretrainSpec
from trainer.optim.schedules import Schedule
from trainer.runtime.precision import set_products
from trainer.train_state import TrainState


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    images: int = 4096
    processes: int = 16
    side: int = 224
    backbone: str = "resnet50"
    widths: tuple[int, ...] = (8192, 8192, 8192)
    batches: tuple[int, ...] = (1024, 256)
    largest_batch: int = 2048
    loader_batch: int = 256
    warm_up_steps: int = 4
    steps: int = 6
    rounds: int = 4
    seconds: float = 20.0
    copied_bytes: int = 2**33
    product_side: int = 8192
    curve_steps: int = 200


REHEARSAL = Sizes(
    images=48,
    processes=2,
    side=32,
    backbone="resnet18",
    widths=(32, 32, 32),
    batches=(8,),
    largest_batch=12,
    loader_batch=8,
    warm_up_steps=1,
    steps=1,
    rounds=2,
    seconds=1.0,
    copied_bytes=2**20,
    product_side=64,
    curve_steps=3,
)

RUNGS: dict[str, dict[str, Any]] = {
    "R0 reference": {},
    "O1 channels_last": {"channels_last": True},
    "O2 bf16, no scaler": {"channels_last": True, "precision": "bf16"},
    "O3 dual loss": {"channels_last": True, "precision": "bf16", "dual": True},
    "O4 foreach LARS": {"channels_last": True, "precision": "bf16", "dual": True, "foreach": True},
}
"""The reference's step, one thing after the other made ours."""
EAGER, COMPILED = "O5 ours, eager", "O6 ours, compiled"


def spec_of(sizes: Sizes, batch: int, **more: Any) -> PretrainSpec:
    """Our job of that size, with the rates of the reference on one rank."""
    optimizer = {
        "name": "lars",
        "learning_rate": 0.2,
        "bias_learning_rate": 0.0048,
        "weight_decay": reference.LARS["weight_decay"],
        "reference_batch_size": None,
    }
    return PretrainSpec.model_validate(
        {
            "data": "imagenet",
            "views": {"size": sizes.side, "engine": "batched"},
            "backbone": {"name": sizes.backbone},
            "projector": {"widths": list(sizes.widths)},
            "optimizer": optimizer,
            "batch_size": batch,
            "precision": "bf16",
            **more,
        }
    )


def constant_rate() -> Schedule:
    """No warm-up and no cosine: as the reference's step of the benchmark, which has none."""
    return Schedule(0, 1, 1.0)


def reference_step(sizes: Sizes, device: torch.device, **rung: Any) -> reference.Step:
    """A step of the reference, or of a rung; float16 needs a GPU, a rehearsal takes bfloat16 in its place."""
    torch.manual_seed(0)
    network = reference.Network(sizes.backbone, list(sizes.widths))
    if device.type == "cpu":
        rung = {"precision": "bf16", **rung}
    return reference.Step(network, device, **rung)


def our_state(spec: PretrainSpec, device: torch.device) -> TrainState:
    """Ours, untrained, with its network as it is written or compiled, as run.compile says."""
    set_products(spec.precision, device)
    state = TrainState(spec, constant_rate(), device)
    state.choose_network(ranks=1, tick=lambda: None)
    return state


def resident(sizes: Sizes, batch: int, device: torch.device) -> Tensor:
    """(2, batch, 3, S, S) uint8: two views of noise on the device."""
    return torch.randint(0, 256, (2, batch, 3, sizes.side, sizes.side), dtype=torch.uint8, device=device)


def timed(step: Callable[[], Any], sizes: Sizes, device: torch.device) -> Callable[[], float]:
    """Seconds of one step, from the mean over a block of them that the device has finished."""

    def block() -> float:
        def steps() -> None:
            _repeat(step, sizes.steps)
            synchronise(device)

        synchronise(device)
        return measuring.seconds_of(steps) / sizes.steps

    return block


def _repeat(step: Callable[[], Any], times: int) -> None:
    for _ in range(times):
        step()


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


@dataclass(slots=True)
class Variant:
    """One way to step, ready to be timed."""

    step: Callable[[], Any]
    first_seconds: float
    """Of its first steps: kernels chosen and, where it is compiled, compiled."""
    peak_bytes: int


def ready(build: Callable[[], Callable[[], Any]], sizes: Sizes, device: torch.device) -> Variant:
    """Build it and take its first steps.

    Raises:
        torch.OutOfMemoryError: it does not fit.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    step = build()
    _repeat(step, sizes.warm_up_steps)
    synchronise(device)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return Variant(step, time.perf_counter() - begun, peak)


def stepping_as_reference(
    sizes: Sizes, batch: int, device: torch.device, rung: dict[str, Any]
) -> Callable[[], Callable[[], Any]]:
    """Builds a rung and its float views."""

    def build() -> Callable[[], Any]:
        step = reference_step(sizes, device, **rung)
        views = resident(sizes, batch, device).float().div_(255).sub_(0.45).div_(0.225)
        return lambda: step(views[0], views[1])

    return build


def stepping_as_ours(
    sizes: Sizes, batch: int, device: torch.device, compiled: str, **more: Any
) -> Callable[[], Callable[[], Any]]:
    """Builds our step and its uint8 views; `compiled` is run.compile."""

    def build() -> Callable[[], Any]:
        state = our_state(spec_of(sizes, batch, run={"compile": compiled}, **more), device)
        views = resident(sizes, batch, device)
        return lambda: state.update(views[0], views[1], 1)

    return build


@contextmanager
def utilisation() -> Iterator[list[float]]:
    """Percent of the time in which the card did something, once a second; nothing where nvidia-smi is not there."""
    seen: list[float] = []
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop=1"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        yield seen
        return
    try:
        yield seen
    finally:
        process.terminate()
        lines = process.communicate()[0].splitlines()
        seen += [float(line) for line in lines if line.strip().isdigit()]
