"""What a diagnostic is: it looks at a pretraining as it goes on, records what it finds, and changes nothing.

Diagnostics stand in one list (trainer.diagnostics.listed), which the loop asks after a step, knowing none of them.

Shape suffixes: n images of this rank, N of the whole batch, d features of an embedding, f of the backbone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from barlow_lab.specs import PretrainSpec
from trainer.data.datasets import Images
from trainer.failures import BadSpec
from trainer.objectives.base import Objective, Terms
from trainer.runtime.context import Context
from trainer.runtime.resuming import counted_metrics
from trainer.training.step_plan import StepPlan


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """The run that diagnostics are made for, before its first step. `network` holds `backbone` and `projector`;
    `images` are those that it is trained on."""

    spec: PretrainSpec
    plan: StepPlan
    network: nn.ModuleDict
    objective: Objective
    images: Images
    context: Context


@dataclass(frozen=True, slots=True)
class NetworkSeen:
    """The network as `step` has left it, in training mode, on its device. Nobody changes it: who runs it does so within
    trainer.runtime.untouched."""

    step: int
    epoch: int
    network: nn.ModuleDict


@dataclass(frozen=True, slots=True)
class BatchSeen(NetworkSeen):
    """And the batch of `step`: both views of this rank's images, (n, 3, S, S) uint8 each; their embeddings, from before
    the update, of the batch of all ranks, (N, D) each; the features of the backbone that those came of, (N, F) each;
    the objective's terms. Nobody writes into a tensor."""

    views: tuple[Tensor, Tensor]
    z_a_nd: Tensor
    z_b_nd: Tensor
    features_a_nf: Tensor
    features_b_nf: Tensor
    terms: Terms


class Records:
    """Where a diagnostic puts what it has found at `step`. The journal takes it from here to the run database, MLflow
    and the API. Rank 0 writes; of the others the metrics alone count, for the checkpoint and the result."""

    def __init__(
        self,
        of: Diagnostic,
        context: Context,
        newest: dict[str, float],
        plan: StepPlan,
        step: int,
        *,
        resumed: bool,
    ) -> None:
        """`of` is the diagnostic that records; `newest` takes in each metric; `resumed`: the run goes on from `step`,
        of which an attempt since its checkpoint may have told already."""
        self._of = of
        self._context = context
        self._newest = newest
        self._plan = plan
        self._step = step
        self._resumed = resumed

    def at(self, step: int) -> Records:
        """The same for another step."""
        return Records(self._of, self._context, self._newest, self._plan, step, resumed=self._resumed)

    def metrics(self, values: Mapping[str, float]) -> None:
        """Record numbers under their names, which are among the `metric_names` of the diagnostic.

        Raises:
            BadSpec: one is not.
        """
        self._refuse_others("metric", "metric_names", values, self._of.metric_names)
        self._newest |= values
        journal = self._context.journal
        told = self._resumed and not values.keys().isdisjoint(counted_metrics(self._context, self._step))
        if values and journal is not None and not told:
            journal.metrics(self._step, self._plan.epoch(self._step), dict(values))

    def picture(self, key: str, draw: Callable[[Path], None]) -> None:
        """Have `draw` write a PNG to the path that it is given, and record it under `key`, which is among the
        `picture_keys` of the diagnostic.

        Raises:
            BadSpec: it is not.
        """
        self._refuse_others("picture", "picture_keys", (key,), self._of.picture_keys)
        if self._context.journal is not None:
            path = self.path(key, "png")
            draw(path)
            self._context.journal.append("image", step=self._step, key=key, file=f"{key}/{path.name}")

    def path(self, key: str, ending: str) -> Path:
        """KEY/step-00001200.ENDING in the attempt's folder, for what else is kept of `key`, such as arrays."""
        folder = self._context.attempt_folder / key
        folder.mkdir(exist_ok=True)
        return folder / f"step-{self._step:08d}.{ending}"

    def _refuse_others(self, what: str, field: str, names: Iterable[str], own: Sequence[str]) -> None:
        if others := [name for name in names if name not in own]:
            said = f"diagnostic {self._of.name!r} records {what} {others[0]!r}, which is not among its {field}"
            raise BadSpec(f"{said}; add it there")


class Diagnostic(ABC):
    """Looks at a run. Parameters, buffers, modes, gradients and generators are after it as before it."""

    name: ClassVar[str]
    """The phase by which its work is heard (Context.working)."""
    metric_names: ClassVar[tuple[str, ...]] = ()
    """Every metric that it may record, of a-z, 0-9 and _; no other diagnostic, no objective and not the loop has it."""
    picture_keys: ClassVar[tuple[str, ...]] = ()
    """Every series of pictures that it may record, of a-z and -; no other diagnostic has it."""
    every_rank: ClassVar[bool] = False
    """Whether every rank is to observe, as it must where there is a collective in it. Otherwise rank 0 alone does."""

    @classmethod
    @abstractmethod
    def of(cls, run: Diagnosed) -> Self | None:
        """The one for this run, or None where the run asks for none; every rank calls it.

        Raises:
            BadSpec, DataError: it cannot be made as it is asked for; a run ends by that before its first step.
        """

    @abstractmethod
    def due(self, step: int) -> bool:
        """Whether to observe after update `step`, counted from 1; the same on every rank. Waits for nothing."""

    @property
    def looked_at(self) -> Mapping[str, Images]:
        """The images that it looks at beside those that are trained on, by the role that the journal calls them by."""
        return {}

    @property
    def last_words(self) -> str | None:
        """What the outcome of the run adds: "trained for 40 steps; at the end ..."."""
        return None

    @property
    def result(self) -> Mapping[str, Any]:
        """What the result of the run adds, under keys that nobody else uses."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What the next look depends on, for the checkpoint, by keys that nobody else uses; the same on every rank."""
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:  # noqa: B027 - most have no state
        """Take over what `state_dict` gave, out of the whole checkpoint. One of before may have nothing of it."""


class BatchDiagnostic(Diagnostic):
    """Looks at the batch of a step, at once: it asks for no stop."""

    @abstractmethod
    def observe(self, seen: BatchSeen, records: Records) -> None:
        """Look at the step, and record what is found."""


class NetworkDiagnostic(Diagnostic):
    """Looks at the network alone, and may take its time. What a stop cuts short is done by the attempt that goes on."""

    observed_key: ClassVar[str]
    """The key in the checkpoint under which the newest step is that has been observed."""

    def __init__(self) -> None:
        self.observed = 0
        """The newest step that has been observed."""

    @abstractmethod
    def observe(self, seen: NetworkSeen, records: Records) -> None:
        """Look at the network, and record what is found when all of it is.

        Raises:
            Stopped: on every rank at the same place (trainer.runtime.units.UnitsWithinStep). Nothing is recorded.
        """

    def state_dict(self) -> dict[str, Any]:
        return {self.observed_key: self.observed}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.observed = saved.get(self.observed_key, 0)
