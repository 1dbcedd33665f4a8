"""An experiment: named jobs and their edges, what of it varies written out; from YAML or JSON, all faults at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from barlow_lab.specs.edges import named_in, order
from barlow_lab.specs.expansion import Unrepeated, expand
from barlow_lab.specs.kinds import Spec
from barlow_lab.specs.parsing import MAX_FAULTS, SpecError, parse_spec
from barlow_lab.spelling import one_reading

MOST_JOBS = 10_000
"""Jobs of an experiment that is read here; how many are submitted in one body, a server says."""


@dataclass(frozen=True, slots=True)
class ExperimentSpec:
    """Jobs by name, in the order of the body."""

    name: str
    jobs: Mapping[str, Spec]

    @property
    def edges(self) -> dict[str, list[str]]:
        """The jobs of it that each waits for."""
        return {
            name: list(dict.fromkeys(other for _, other in named_in(spec) if other in self.jobs))
            for name, spec in self.jobs.items()
        }


def parse_experiment(value: Any, *, most_jobs: int = MOST_JOBS) -> ExperimentSpec:
    """Validate an experiment `{name, jobs: {name: spec}}` with, of it or of a job, `seeds`, `grid` and `zip`.

    Raises:
        SpecError: with all faults, each with its pointer; of more than MAX_FAULTS the first, and how many there are.
    """
    found, new = expand(value, most_jobs), Unrepeated()
    faults, left_out = new.of(found.faults), 0
    specs: dict[str, Spec] = {}
    with one_reading():
        for name, variant in found.variants.items():
            faults += new.of(variant.faults)
            try:
                specs[name] = parse_spec(variant.value)
            except SpecError as error:
                faults += new.of(variant.placed(error.faults))
                left_out = max(left_out, error.left_out)
    _, circle = order(specs)
    if circle is not None:
        faults += found.variants[circle[0]].placed([circle[1]])
    if faults:
        raise SpecError(faults[:MAX_FAULTS], left_out + max(0, len(faults) - MAX_FAULTS))
    return ExperimentSpec(found.name, specs)
