"""Which steps a training has, and what is due after which."""

from __future__ import annotations

from dataclasses import dataclass

from barlow_lab.specs import JobSpec


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Which steps there are, and what is due after which. Epochs count from 1 here and in the journal."""

    steps: int
    steps_per_epoch: int
    spec: JobSpec

    @property
    def epochs(self) -> int:
        """Epochs begun by the end of the run."""
        return -(-self.steps // self.steps_per_epoch)

    def epoch(self, step: int) -> int:
        """The epoch that `step` belongs to."""
        return (step - 1) // self.steps_per_epoch + 1

    def ends_epoch(self, step: int, every: int = 1) -> bool:
        """Whether `step` is the last one of an epoch divisible by `every`, or of the run."""
        return step == self.steps or step % (every * self.steps_per_epoch) == 0

    def metrics_due(self, step: int) -> bool:
        """Every metrics_every_steps, and at the end."""
        return step == self.steps or step % self.spec.run.record.metrics_every_steps == 0

    def correlations_due(self, step: int) -> list[int]:
        """The steps of the correlation records that are due with update `step`: itself every correlation_every_epochs
        and at the end, and with the first update 0, as its embeddings are those of the untrained network."""
        due = [0] if step == 1 else []
        return [*due, step] if self.ends_epoch(step, self.spec.run.record.correlation_every_epochs) else due

    def checkpoint_due(self, step: int) -> bool:
        """Every every_epochs, every every_steps, at milestones, and at the end."""
        every_steps = self.spec.run.checkpoint.every_steps
        return (
            self.ends_epoch(step, self.spec.run.checkpoint.every_epochs)
            or (every_steps is not None and step % every_steps == 0)
            or self.milestone(step)
        )

    def milestone(self, step: int) -> bool:
        """Whether `step` ends an epoch whose checkpoint is kept for ever."""
        every = self.spec.run.checkpoint.milestone_every_epochs
        return every is not None and step % (every * self.steps_per_epoch) == 0
