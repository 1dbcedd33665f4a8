"""The parts of the benchmark on one GPU, in the order of the protocol; each returns what goes into the result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gpu_steps
import jpegs
import measuring
import reference
import torch
from gpu_steps import COMPILED, EAGER, RUNGS, Sizes
from loading import engines_agree, loading, pairs_per_second
from torch import Tensor

from trainer.data.views.photometry import finish
from trainer.train_state import TrainState

BEST_PUBLISHED = 3990.0
"""Pairs/s: the best published ResNet-50 training rate on an H200 (MLPerf Training 4.0: 7,980 images/s), halved."""
SHARE_BAR = 0.55
FUSED_BYTES_PER_PAIR = 2 * 331e6
"""What a step must move for two views where pointwise operations are fused into one pass."""


def ceilings(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """What the card does at best: bytes copied and bf16 products of random numbers."""
    source = torch.empty(sizes.copied_bytes, dtype=torch.uint8, device=device).random_(0, 256)
    target = torch.empty_like(source)
    a, b = torch.randn(2, sizes.product_side, sizes.product_side, device=device, dtype=torch.bfloat16).unbind()
    copy = measuring.in_turn({"copy": gpu_steps.timed(lambda: target.copy_(source), sizes, device)}, sizes.rounds)
    product = measuring.in_turn({"product": gpu_steps.timed(lambda: a @ b, sizes, device)}, sizes.rounds)
    figures = {
        "copy, TB/s": measuring.rounded(2e-12 * sizes.copied_bytes / statistics.median(copy["copy"])),
        "bf16 product, TFLOP/s": measuring.rounded(
            2e-12 * sizes.product_side**3 / statistics.median(product["product"])
        ),
    }
    return {"what": "ceilings", "figures": figures, "predicted": {"copy, TB/s": 4.3, "bf16 product, TFLOP/s": 788}}


def data_set(sizes: Sizes, folder: Path, device: torch.device) -> dict[str, Any]:
    """The JPEG files, and how many a second the loading of either side brings on all cores and on one."""
    begun = time.perf_counter()
    total = jpegs.write_folder(folder / "train", sizes.images, processes=sizes.processes)
    figures: dict[str, float] = {
        "seconds to make them": measuring.rounded(time.perf_counter() - begun),
        "KB a file": measuring.rounded(total / sizes.images / 1e3),
    }
    for workers in (1, sizes.processes):
        amount = max(sizes.loader_batch, sizes.images * workers // (2 * sizes.processes))
        for engine in ("reference", "pillow", "batched"):
            rate = pairs_per_second(engine, folder, sizes, workers, amount)
            figures[f"{engine}, {workers} workers, pairs/s"] = measuring.rounded(rate)
    return {
        "what": "loading from JPEG files, without a network",
        "figures": figures,
        "checks": [engines_agree(folder, sizes, device)],
        "predicted": {"reference, 1 workers, pairs/s": "50 to 147", "batched, 1 workers, pairs/s": "290 to 840"},
    }


def steps(sizes: Sizes, batch: int, device: torch.device, *, rungs: bool) -> Iterator[dict[str, Any]]:
    """Steps in turn on inputs that lie on the device: the reference, perhaps the rungs, ours eager and compiled."""
    chosen = RUNGS if rungs else {name: RUNGS[name] for name in list(RUNGS)[:1]}
    builders = {
        name: gpu_steps.stepping_as_reference(sizes, batch, device, changes) for name, changes in chosen.items()
    }
    builders[EAGER] = gpu_steps.stepping_as_ours(sizes, batch, device, "off")
    builders[COMPILED] = gpu_steps.stepping_as_ours(sizes, batch, device, "on")
    variants: dict[str, gpu_steps.Variant] = {}
    figures: dict[str, Any] = {}
    for name, build in builders.items():
        try:
            variants[name] = gpu_steps.ready(build, sizes, device)
        except torch.OutOfMemoryError:
            figures[name] = "does not fit"
    found = measuring.in_turn(
        {name: gpu_steps.timed(variant.step, sizes, device) for name, variant in variants.items()}, sizes.rounds
    )
    pairs = {name: measuring.rates(batch, seconds) for name, seconds in found.items()}
    for name, variant in variants.items():
        rate = statistics.median(pairs[name])
        figures[name] = (
            f"{rate:,.0f} pairs/s ({rate / BEST_PUBLISHED:.0%} of {BEST_PUBLISHED:,.0f}; "
            f"{rate * FUSED_BYTES_PER_PAIR / 1e12:.2f} TB/s in the fused model; "
            f"first steps {variant.first_seconds:.0f} s, peak {variant.peak_bytes / 2**30:.1f} GiB)"
        )
    first = next(iter(chosen))
    ours = max((name for name in (EAGER, COMPILED) if name in pairs), key=lambda n: statistics.median(pairs[n]))
    part: dict[str, Any] = {
        "what": f"step on the GPU alone, N {batch}, {ours}",
        "unit": "pairs/s",
        "figures": figures,
        "predicted": {"ratio": "1.5 to 2.1", "reference, pairs/s": "1,400 to 1,550 on an H200"},
    }
    if first in pairs:
        bar = 1.5 if batch >= 1024 else 1.6
        part |= measuring.compared(pairs[first], pairs[ours], bar=bar, more_is_better=True)
    yield part
    share = statistics.median(pairs[ours]) / BEST_PUBLISHED
    entry: dict[str, Any] = {
        "what": f"share of the best published rate on an H200, N {batch}",
        "figures": {"share": f"{share:.0%}", "bar, on an H200": f"{SHARE_BAR:.0%}"},
        "predicted": {"share": "55% to 75%"},
    }
    if device.type == "cuda" and "H200" in torch.cuda.get_device_name(device):
        entry["met"] = share >= SHARE_BAR
    yield entry


def largest(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Whether the largest batch fits one card: the reference's step and ours, compiled with an activation budget."""
    batch, figures = sizes.largest_batch, {}
    for name, build in (
        ("R0 reference", gpu_steps.stepping_as_reference(sizes, batch, device, {})),
        (COMPILED, gpu_steps.stepping_as_ours(sizes, batch, device, "on")),
    ):
        try:
            variant = gpu_steps.ready(build, sizes, device)
        except torch.OutOfMemoryError:
            figures[name] = "does not fit"
            continue
        rate = batch / gpu_steps.timed(variant.step, sizes, device)()
        figures[name] = f"{rate:,.0f} pairs/s, peak {variant.peak_bytes / 2**30:.1f} GiB"
        del variant
    return {
        "what": f"batch {batch} with d {sizes.widths[-1]} on one card",
        "figures": figures,
        "predicted": {"R0 reference": "does not fit 139 GiB", COMPILED: "95 GB of activations"},
        "met": figures[COMPILED] != "does not fit",
    }


def end_to_end(sizes: Sizes, folder: Path, device: torch.device, compiled: str) -> dict[str, Any]:
    """Training from JPEG files, ours and the reference in turn: loading, copies and steps."""
    batch = sizes.loader_batch
    reference_step = gpu_steps.reference_step(sizes, device)
    state = gpu_steps.our_state(gpu_steps.spec_of(sizes, batch, run={"compile": compiled}), device)

    def feed(engine: str) -> Callable[[], float]:
        def consume(batch_of: Any) -> None:
            if engine == "reference":
                reference_step(*batch_of[0])
            else:
                state.update(*finish(batch_of, device), 1)

        def run() -> float:
            with closing(loading(engine, folder, sizes, sizes.processes)) as source:
                for _ in range(sizes.processes + 2):  # every worker's first batch comes at once
                    consume(next(source))
                gpu_steps.synchronise(device)
                begun, taken = time.perf_counter(), 0
                while time.perf_counter() - begun < sizes.seconds:
                    consume(next(source))
                    taken += 1
                gpu_steps.synchronise(device)
                return (time.perf_counter() - begun) / (taken * batch)

        return run

    found: dict[str, list[float]] = {"reference": [], "batched": []}
    busy: dict[str, list[float]] = {"reference": [], "batched": []}
    for engine in ("reference", "batched", "batched", "reference"):
        with gpu_steps.utilisation() as seen:
            found[engine].append(1 / feed(engine)())
        busy[engine] += seen
    return {
        "what": f"end to end from JPEG files, N {batch}",
        "unit": "pairs/s",
        **measuring.compared(found["reference"], found["batched"], bar=1.8, more_is_better=True),
        "figures": {f"GPU busy, {name}": f"{statistics.mean(seen):.0f}%" for name, seen in busy.items() if seen},
        "predicted": {"ratio": "1.5 to 4, by the speed of the cores"},
    }


def _fresh_pair(
    sizes: Sizes, batch: int, device: torch.device, precision: str, theirs: str = "fp32"
) -> tuple[reference.Step, TrainState]:
    """The reference and ours with the same weights; the reference's last BN without its 1e-5, which ours has not."""
    step = gpu_steps.reference_step(sizes, device, precision=theirs)
    step.network.standardise.eps = 1e-12
    state = gpu_steps.our_state(gpu_steps.spec_of(sizes, batch, precision=precision, run={"compile": "off"}), device)
    weights = {name: v.clone() for name, v in step.network.state_dict().items() if not name.startswith("standardise")}
    state.model.load_state_dict(weights)
    return step, state


def equality(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """The same weights and the same views: loss and gradient of both, in fp32 and in 16 bits."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    batch, half = min(sizes.batches), "fp16" if device.type == "cuda" else "bf16"
    views = gpu_steps.resident(sizes, batch, device)
    views[1] = (views[0].float() * 0.8 + views[1].float() * 0.2).to(torch.uint8)
    floats = [_as_floats(view) for view in views]
    losses: list[Tensor] = []
    gradients: list[Tensor] = []
    for theirs, mine in (("fp32", "fp32"), (half, "bf16")):
        step, state = _fresh_pair(sizes, batch, device, mine, theirs)
        loss = step.loss(*floats)
        torch.autograd.backward(loss)  # without the scaler: nothing is near the ends of float16 here
        losses += [loss.detach().double(), state.update(views[0], views[1], 1).terms.loss.detach().double()]
        gradients += [_gradient(step.network), _gradient(state.model)]
        del step, state
    exact, in_fp32, their_half, our_half = gradients
    apart = [float(1 - torch.nn.functional.cosine_similarity(g, exact, dim=0)) for g in (their_half, our_half)]
    checks = [
        measuring.check("loss in fp32, relative", float((losses[1] / losses[0] - 1).abs()), 1e-6),
        measuring.check("gradient in fp32, relative", float((in_fp32 - exact).norm() / exact.norm()), 1e-4),
        measuring.check(
            f"gradient in bf16, 1 - cosine to that in fp32; the limit is 4 times the reference's in {half}",
            apart[1],
            measuring.rounded(4 * apart[0]),
        ),
    ]
    if device.type == "cuda":
        checks.append(measuring.check("gradient in bf16, 1 - cosine to that in fp32", apart[1], 1e-3))
    return {"what": f"equality with {sizes.backbone} at N {batch}", "checks": checks}


def curves(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Both trained from one seed on the same views, in float32: how far their losses come apart."""
    small = Sizes(side=32, backbone="resnet18", widths=(256, 256, 256))
    step, state = _fresh_pair(small, 64, device, "fp32")
    views = gpu_steps.resident(small, 64, device)
    views[1] = (views[0].float() * 0.8 + views[1].float() * 0.2).to(torch.uint8)
    floats = [_as_floats(view) for view in views]
    apart = 0.0
    for number in range(1, sizes.curve_steps + 1):
        theirs = float(step(*floats))
        ours = float(state.update(views[0], views[1], number).terms.loss.detach())
        apart = max(apart, abs(ours / theirs - 1))
    return {
        "what": "training curves",
        "checks": [measuring.check(f"loss over {sizes.curve_steps} steps in fp32, relative", apart, 1e-3)],
    }


def _as_floats(view: Tensor) -> Tensor:
    mean = torch.tensor((0.485, 0.456, 0.406), device=view.device).view(3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225), device=view.device).view(3, 1, 1)
    return (view.float() / 255 - mean) / std


def _gradient(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
