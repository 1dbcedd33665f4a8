"""The learning rate as a pure function of the step.

With s finished steps, a warm-up of w, T steps in all and the final fraction f:

    rate / peak = s / w                                          while s < w
    rate / peak = c + (1 - c) f,   c = (1 + cos(pi (s - w) / (T - w))) / 2   from then on

and the peak is learning_rate x batch_size / reference_batch_size. Source: Barlow Twins (arXiv 2103.03230) 2.2, and
adjust_learning_rate of facebookresearch/barlowtwins, main.py: w = 10 epochs, f = 0.001, rates for 256 images. The
cosine is that of SGDR (arXiv 1608.03983, equation 5) without restarts. Tests: tests/trainer/optim/test_optim_lars.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from barlow_lab.specs import PretrainSpec


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up from 0, then a cosine to `final_fraction` of the peak at the last step."""

    warmup_steps: int
    total_steps: int
    final_fraction: float

    def fraction(self, done: int) -> float:
        """Rate / peak rate of the update that follows `done` finished ones (so the first one of a warm-up is 0)."""
        if done < self.warmup_steps:
            return done / self.warmup_steps
        turn = (done - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        cosine = (1 + math.cos(math.pi * turn)) / 2
        return cosine + (1 - cosine) * self.final_fraction


def schedule_of(spec: PretrainSpec, *, steps_per_epoch: int, total_steps: int) -> Schedule:
    """The schedule of a run. A warm-up that the spec leaves out is 10 epochs, or a tenth of the run if that is less."""
    if spec.optimizer.warmup_epochs is None:
        warmup = min(10.0 * steps_per_epoch, total_steps / 10)
    else:
        warmup = spec.optimizer.warmup_epochs * steps_per_epoch
    return Schedule(round(warmup), total_steps, spec.optimizer.final_fraction)


def rate_scale(spec: PretrainSpec) -> float:
    """What the spec's rates are multiplied by: batch_size / reference_batch_size, or 1 for absolute rates."""
    reference = spec.optimizer.reference_batch_size
    return spec.batch_size / reference if reference else 1.0
