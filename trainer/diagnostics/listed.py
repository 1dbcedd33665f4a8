"""The diagnostics there are, and those of one run, which the loop asks together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainer.data.datasets import Images
from trainer.diagnostics.base import (
    BatchDiagnostic,
    BatchSeen,
    Diagnosed,
    Diagnostic,
    NetworkDiagnostic,
    NetworkSeen,
    Records,
)
from trainer.diagnostics.correlation_record import CorrelationRecord
from trainer.diagnostics.effective_rank import EffectiveRank
from trainer.diagnostics.health import Health
from trainer.diagnostics.information_plane import InformationPlane
from trainer.diagnostics.nothing_to_learn import LearnsNothing
from trainer.diagnostics.population import Population
from trainer.diagnostics.probes import Probes
from trainer.diagnostics.recorded_names import taken_by_diagnostics

DIAGNOSTICS: list[type[Diagnostic]] = [
    LearnsNothing, EffectiveRank, CorrelationRecord, InformationPlane, Health, Population, Probes
]  # fmt: skip
"""In the order in which they look: health, which may end the run, when the others have looked at its batch."""


class Diagnostics:
    """Those that a run asks for. What looks at the batch comes first: it is gone by the next step, while a look at the
    network can be taken by the next attempt."""

    def __init__(self, run: Diagnosed) -> None:
        """Raises:
        BadSpec, DataError: one cannot be made as the run asks for it, or records under a name that cannot be.
        """
        found = [made for kind in DIAGNOSTICS if (made := kind.of(run)) is not None]
        self._context = run.context
        self._plan = run.plan
        self._of_batch = [one for one in found if isinstance(one, BatchDiagnostic)]
        self._of_network = [one for one in found if isinstance(one, NetworkDiagnostic)]
        self._all: list[Diagnostic] = [*self._of_batch, *self._of_network]
        self.state_dict()  # two under one key would be found at the first checkpoint
        self.metrics_taken = taken_by_diagnostics(DIAGNOSTICS)
        """The metrics of the loop and of every diagnostic there is, and whose they are: no objective's can be called
        so."""

    @property
    def looked_at(self) -> dict[str, Images]:
        """All images that they look at, by role."""
        return {role: images for one in self._all for role, images in one.looked_at.items()}

    @property
    def last_words(self) -> list[str]:
        """What the outcome of the run adds."""
        return [said for one in self._all if (said := one.last_words) is not None]

    @property
    def result(self) -> dict[str, Any]:
        """What the result of the run adds."""
        return {key: value for one in self._all for key, value in one.result.items()}

    def state_dict(self) -> dict[str, Any]:
        """All of their states, for the checkpoint."""
        states = [one.state_dict() for one in self._all]
        keys = [key for state in states for key in state]
        assert len(set(keys)) == len(keys), f"two diagnostics keep something under one key of {keys}"
        return {key: value for state in states for key, value in state.items()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, out of the whole checkpoint."""
        for one in self._all:
            one.load_state_dict(saved)

    def network_due(self, step: int) -> bool:
        """Whether one is to look at the network as `step` left it."""
        return bool(self._network_due(step))

    def observe_batch(self, step: int, see: Callable[[], BatchSeen], newest: dict[str, float]) -> None:
        """Have those look that are due after `step` at its batch, which `see` gives; every rank calls it."""
        if due := [one for one in self._of_batch if one.due(step)]:
            seen = see()
            for one in due:
                if self._takes_part(one):
                    one.observe(seen, Records(one, self._context, newest, self._plan, step, resumed=False))

    def observe_network(self, seen: NetworkSeen, newest: dict[str, float], *, resumed: bool = False) -> None:
        """Have those look that are due at the network after its step; every rank calls it. `newest` takes in the
        metrics. `resumed`: the run goes on from that step.

        Raises:
            Stopped: a stop was asked for; what was not observed is still due.
        """
        for one in self._network_due(seen.step):
            if self._takes_part(one):
                one.observe(seen, Records(one, self._context, newest, self._plan, seen.step, resumed=resumed))
            one.observed = seen.step

    def _network_due(self, step: int) -> list[NetworkDiagnostic]:
        return [one for one in self._of_network if one.observed < step and one.due(step)]

    def _takes_part(self, one: Diagnostic) -> bool:
        return one.every_rank or self._context.rank == 0
