"""Stop requests: all ranks stop at the same step, agreed about once a second of steps."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import torch

from barlow_lab.stop import REASONS, StopReason, read_request
from trainer.runtime import collectives, signals

AGREE_SECONDS = 1.0
MOST_STEPS_BETWEEN = 1000


class StopRequests:
    """Agrees on stop requests without a collective in the other steps.

    Rank 0 reads `control_file` (barlow_lab.stop); any rank may get a signal. A file that
    says nothing of the kind, as a full disk may leave it, asks for nothing: one line in the log. At the step of an
    agreement the ranks take the maximum of (reason, steps to the next agreement); only rank 0, which has
    the clock, gives the second, so every rank knows the step of the next one.
    """

    def __init__(self, control_file: Path, *, rank: int, device: torch.device) -> None:
        self._control_file = control_file
        self._rank = rank
        self._device = device
        self._agreed = 0
        self._next_step: int | None = None
        self._last: tuple[int, float] | None = None
        self._complaint: str | None = None

    @property
    def reason(self) -> StopReason | None:
        """The agreed reason, None while nobody asked."""
        return REASONS[self._agreed - 1] if self._agreed else None

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`; every rank calls it with the same rising steps and gets the same answer."""
        if self._agreed or (self._next_step is not None and step < self._next_step):
            return self._agreed > 0
        self._next_step = step + self._agree(self._steps_to_next(step))
        return self._agreed > 0

    def requested_now(self) -> bool:
        """Whether to stop, agreed about by this very call: between two steps, where a piece of work takes as long as
        many of them. Every rank calls it at the same place and gets the same answer."""
        if not self._agreed:
            self._agree(0)
        return self._agreed > 0

    def _agree(self, value: int) -> int:
        """Agree on the reason; the maximum of `value` over the ranks."""
        wish = torch.tensor([self._wish(), value], dtype=torch.int64, device=self._device)
        self._agreed, largest = (int(v) for v in collectives.all_reduce_max_(wish).tolist())
        return largest

    def _steps_to_next(self, step: int) -> int:
        if self._rank != 0:
            return 0
        now, last = time.monotonic(), self._last
        self._last = (step, now)
        if last is None or now <= last[1]:
            return 1
        steps_per_second = (step - last[0]) / (now - last[1])
        return max(1, min(MOST_STEPS_BETWEEN, round(steps_per_second * AGREE_SECONDS)))

    def _wish(self) -> int:
        reason = self._read() if self._rank == 0 else None
        return REASONS.index(reason) + 1 if reason else int(signals.stop_heard())

    def _read(self) -> StopReason | None:
        try:
            return read_request(self._control_file)
        except (OSError, ValueError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                with contextlib.suppress(OSError):  # a terminal that is gone
                    print(f"{self._control_file.name} is passed over: {error}", file=sys.stderr, flush=True)
            return None
