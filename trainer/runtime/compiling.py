"""Whether the network runs as it is written or compiled: by wish, or by a trial on this machine.

torch.compile fuses what lies between the products; on ResNets it was measured from 0.7 to 1.4 times as fast,
so that only a trial can tell. What it compiles it keeps on the disk by itself: TORCHINDUCTOR_CACHE_DIR says where.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch._functorch.config
from torch import Tensor

from trainer.runtime import collectives

Network = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Pixels (n, 3, S, S) to embeddings (n, d), and to the features (n, F) that those come of, which have no graph."""

BACKEND = "inductor"
WARM_UP, TIMED = 3, 5
BUDGETS = (1.0, 0.75)
"""Shares of the activations that the compiled network keeps for backward: all of them, or what the trial fits into
memory. At 0.75 a ResNet-50 keeps 57 % of the bytes and repeats no convolution."""


AS_BEFORE = "as in the run that is resumed"


class Form(Protocol):
    """What form of the network a checkpoint comes from."""

    @property
    def compiled(self) -> bool: ...

    @property
    def activation_budget(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class CompileChoice:
    """What the run does, and the seconds of a forward and backward pass that the trial has found (None: not tried,
    or too large for the memory)."""

    compiled: bool
    eager_seconds: float | None = None
    compiled_seconds: float | None = None
    activation_budget: float | None = None
    why: str = ""

    def said(self) -> str:
        """One line of it."""
        measured = {"as written": self.eager_seconds, "compiled": self.compiled_seconds}
        times = [f"{name} {seconds * 1000:.1f} ms a pass" for name, seconds in measured.items() if seconds is not None]
        return "; ".join([f"network {'compiled' if self.compiled else 'as written'} ({self.why})", *times])


def choose(
    wish: Literal["auto", "off", "on"],
    network: Network,
    try_out: Callable[[Network], None],
    device: torch.device,
    former: Form | None = None,
) -> tuple[Network, CompileChoice]:
    """The network to use, and why. `try_out` does a step without its update; every rank calls this.

    `auto` compiles nothing on a CPU, where it gains nothing. On a GPU it takes the
    form that the resumed run had (`former`), whose bits are those of the steps before, and where there is none, or it
    does not run here, what is faster on the slowest rank. With one rank it takes the network as it is written where
    compiling fails; with several a failure ends the attempt, as the others wait for this rank in a collective.

    Raises:
        torch.OutOfMemoryError: the network fits in no form; with several ranks, not in the form on trial.
    """
    if wish == "off" or (wish == "auto" and device.type != "cuda"):
        return network, CompileChoice(False, why=f"run.compile {wish}")
    was_compiled = wish == "auto" and former is not None and former.compiled
    eager = math.inf if wish == "on" or was_compiled else _seconds(try_out, network, device)
    if wish == "auto" and former is not None and not was_compiled and math.isfinite(eager):
        return network, CompileChoice(False, eager, why=AS_BEFORE)
    first = former.activation_budget if former is not None else None
    try:
        compiled, seconds, budget = _compiled(network, try_out, device, first)
    except Exception as error:
        if was_compiled and collectives.world_size() == 1:
            eager = _seconds(try_out, network, device)
        if wish == "on" or math.isinf(eager) or collectives.world_size() > 1:
            error.add_note("run.compile: off runs the network as it is written, without a trial")
            raise
        return network, CompileChoice(False, eager, why=f"compiling failed: {type(error).__name__}: {error}"[:500])
    faster = seconds < eager
    choice = CompileChoice(
        faster,
        eager if math.isfinite(eager) else None,
        seconds,
        budget if faster else None,
        AS_BEFORE if was_compiled else f"run.compile {wish}",
    )
    return compiled if faster else network, choice


def _compiled(
    network: Network, try_out: Callable[[Network], None], device: torch.device, first: float | None
) -> tuple[Network, float, float]:
    """The compiled network, its seconds, and the activation budget: `first`, or the largest of BUDGETS that fits."""
    for budget in sorted(BUDGETS, key=lambda one: (one != first, -one)):
        torch._dynamo.reset()
        torch._functorch.config.activation_memory_budget = budget
        compiled: Network = torch.compile(network, dynamic=False, backend=BACKEND)
        seconds = _seconds(try_out, compiled, device)
        if math.isfinite(seconds):
            return compiled, seconds, budget
    raise torch.OutOfMemoryError("the compiled network does not fit either; lower batch_size or set micro_batch")


def _seconds(try_out: Callable[[Network], None], network: Network, device: torch.device) -> float:
    """Median time of a pass on the slowest rank; infinite where the memory of one rank alone does not suffice."""
    durations = []
    try:
        for _ in range(WARM_UP + TIMED):
            begun = time.perf_counter()
            try_out(network)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            durations.append(time.perf_counter() - begun)
        seconds = statistics.median(durations[WARM_UP:])
    except torch.OutOfMemoryError as error:
        if collectives.world_size() > 1:
            error.add_note("run.compile: off runs the network as it is written, without a trial")
            raise
        seconds = math.inf
    if math.isinf(seconds) and device.type == "cuda":
        torch.cuda.empty_cache()  # outside the handler, whose traceback holds the activations
    return float(collectives.all_reduce_max_(torch.tensor(seconds, dtype=torch.float64, device=device)))
