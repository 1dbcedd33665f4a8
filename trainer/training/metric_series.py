"""The metrics of a run, read from the device one interval late, so that recording never makes a step wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.data.batch import Batch
from trainer.runtime.context import Context

Concern = Callable[[Mapping[str, float]], str | None]
"""What a user is to be told of the values of a step, if anything."""


@dataclass(slots=True)
class _Pending:
    step: int
    epoch: int
    names: list[str]
    host: Tensor
    copied: torch.cuda.Event | None
    known: dict[str, float]


class MetricSeries:
    """One point per metric at each recorded step, and with it the first step whose gradient was not finite.

    The values are those of the step itself, not means over a window, so that a resumed run records the same ones.
    Only the times (images_per_second, step_seconds, data_seconds) are means since the last recorded step. What
    `concern` says of the values of a step is warned of once.
    """

    def __init__(self, context: Context, batch_size: int, concern: Concern = lambda values: None) -> None:
        self.last: dict[str, float] = {}
        """The newest value of each metric."""
        self.first_bad_step = 0
        self._context = context
        self._concern = concern
        self._told: set[str] = set()
        self._batch_size = batch_size
        self._pending: _Pending | None = None
        self._steps, self._data_seconds, self._since = 0, 0.0, time.perf_counter()

    def count(self, batch: Batch) -> None:
        """Take note of one more step."""
        self._steps += 1
        self._data_seconds += batch.load_seconds

    def take(
        self, step: int, epoch: int, values: dict[str, Tensor], known: dict[str, float], first_bad_step: Tensor
    ) -> None:
        """Begin to copy the scalars `values` and `first_bad_step` to the host (`known` are there), and journal those
        taken before."""
        self.flush()
        host = torch.stack([v.to(torch.float64) for v in (*values.values(), first_bad_step)])
        copied = None
        if host.is_cuda:
            host = host.to("cpu", non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        self._pending = _Pending(step, epoch, list(values), host, copied, known | self._clocked())

    @contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Within it no time goes by for the metrics of the clock: what is done is no part of a step."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - begun

    def flush(self) -> None:
        """Journal what was taken and not yet journalled."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.copied is not None:
            pending.copied.synchronize()
        *values, first_bad_step = pending.host.tolist()
        self.first_bad_step = int(first_bad_step)
        taken = {**dict(zip(pending.names, values, strict=True)), **pending.known}
        self.last |= taken
        if self._context.journal is not None:
            self._context.journal.metrics(pending.step, pending.epoch, taken)
            if (said := self._concern(taken)) is not None and said not in self._told:
                self._told.add(said)
                self._context.warn(said)

    def _clocked(self) -> dict[str, float]:
        now = time.perf_counter()
        seconds, steps = max(now - self._since, 1e-9), max(self._steps, 1)
        out = {
            "images_per_second": steps * self._batch_size / seconds,
            "data_seconds": self._data_seconds / steps,
            "step_seconds": seconds / steps,
        }
        self._steps, self._data_seconds, self._since = 0, 0.0, now
        return out
