"""From a body to specs and their faults: all that can be known of a submission without the run database.

It takes a body's time and no session, so what is heavy about a body holds nobody up at the database.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from barlow_lab.specs import Fault, Spec, SpecError, parse_spec
from barlow_lab.specs.edges import named_in, order
from barlow_lab.specs.expansion import Unrepeated, Variant, expand, varied_by_all
from barlow_lab.specs.parsing import MAX_FAULTS
from barlow_lab.spelling import one_reading

MAX_REFERENCES = 5_000
"""Jobs that all jobs of one experiment name together, by run.after and backbone_from: each is looked up and locked."""
ROUNDS = 4
"""How often a spec with faults is read again without them, to find what it names."""

_ABSENT = object()


@dataclass(slots=True)
class Found:
    """The faults of a body: the first MAX_FAULTS, and how many more there are."""

    faults: list[Fault] = field(default_factory=list)
    left_out: int = 0

    def add(self, faults: list[Fault], left_out: int = 0) -> None:
        """Take `faults`, as far as there is room."""
        self.faults += faults
        self.left_out += left_out + max(0, len(self.faults) - MAX_FAULTS)
        del self.faults[MAX_FAULTS:]

    def add_others(self, faults: list[Fault]) -> None:
        """Take those of `faults` that are of other values than those found before."""
        named = {fault.pointer for fault in self.faults}
        self.add([fault for fault in faults if fault.pointer not in named])

    @property
    def full(self) -> bool:
        """Whether further faults would only be counted."""
        return len(self.faults) >= MAX_FAULTS

    def __bool__(self) -> bool:
        return bool(self.faults)


@dataclass(slots=True)
class JobBody:
    """One job: its spec, or the faults of the body and what can be read in spite of them."""

    body: Any
    found: Found
    spec: Spec | None
    rest: Spec | None

    @property
    def names_something(self) -> bool:
        """Whether a body with faults has parts that could be looked up."""
        return self.rest is not None


@dataclass(slots=True)
class ExperimentBody:
    """An experiment with what varies written out: each job's spec, None where it has faults; what can be read of those
    that have some; all faults.

    `order` holds the names so that each stands after those it waits for.
    """

    body: Any
    found: Found
    name: str
    variants: dict[str, Variant]
    specs: dict[str, Spec | None] = field(default_factory=dict)
    rests: dict[str, Spec] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    unrepeated: Unrepeated = field(default_factory=Unrepeated)

    @property
    def valid(self) -> dict[str, Spec]:
        """The specs without a fault."""
        return {job: spec for job, spec in self.specs.items() if spec is not None}

    @property
    def varies(self) -> bool:
        """Whether a pretraining of it, or where it has none any job, is written once and becomes several."""
        becomes = Counter(variant.job for variant in self.variants.values())
        return any(becomes[job] > 1 for job in varied_by_all(self.body["jobs"]))

    @property
    def names_something(self) -> bool:
        """Whether a body with faults has parts that could be looked up."""
        return bool(self.rests or self.valid)

    def below(self, job: str, faults: list[Fault]) -> list[Fault]:
        """Faults of a job's spec as faults of the body, without those that others of the same job had before."""
        return self.unrepeated.of(self.variants[job].placed(faults))


def read_job(body: Any) -> JobBody:
    """One spec."""
    found = Found()
    try:
        return JobBody(body, found, parse_spec(body), None)
    except SpecError as error:
        found.add(error.faults, error.left_out)
        return JobBody(body, found, None, _without(body, error))


def read_experiment(body: Any, most_jobs: int) -> ExperimentBody:
    """An experiment of at most `most_jobs` jobs."""
    or_else = (
        " (BARLOW_MAX_EXPERIMENT_JOBS of the API); add the others by POST /api/v1/jobs?experiment=NAME, or make several"
    )
    with one_reading():
        expansion = expand(body, most_jobs, or_else=or_else)
        read = ExperimentBody(body, Found(), expansion.name, expansion.variants)
        read.found.add(expansion.faults)
        _read_jobs(read)
    read.order, circle = order(read.valid)
    if circle is not None:
        read.found.add(read.below(circle[0], [circle[1]]))
    count = sum(1 for spec in read.valid.values() for _ in named_in(spec))
    if count > MAX_REFERENCES:
        said = f"{count:,} names stand in run.after and backbone_from, and one body brings up to {MAX_REFERENCES:,}"
        read.found.add([Fault("/jobs", f"{said}; name only what is waited for directly, or make several experiments")])
        read.specs, read.rests = {}, {}
    return read


def _read_jobs(read: ExperimentBody) -> None:
    looked_at: set[str] = set()
    left_out: dict[str, int] = {}
    for name, variant in read.variants.items():
        faults, more = list[Fault](), 0
        spec: Spec | None = None
        try:
            spec = parse_spec(variant.value)
        except SpecError as error:
            faults, more = error.faults, error.left_out
        wrong = bool(faults or variant.faults)
        read.specs[name] = None if wrong else spec
        if wrong and not read.found.full and variant.job not in looked_at:  # others of the same job name the same
            looked_at.add(variant.job)
            if rest := spec or _without(variant.value, SpecError(faults, more)):
                read.rests[name] = rest
        told = left_out.get(variant.job, 0)
        read.found.add(read.unrepeated.of(variant.faults) + read.below(name, faults), max(0, more - told))
        left_out[variant.job] = max(more, told)


def _without(value: Any, error: SpecError) -> Spec | None:
    """The spec as far as it can be read: without the values that faults point to, or None.

    What it names can then be looked up, so that a user hears of an unknown field and an unknown data set together.
    """
    if error.left_out:
        return None
    rest, faults = copy.deepcopy(value), error.faults
    for _ in range(ROUNDS):
        # A default cannot be taken out: the ranks that do not divide the default batch go in its place.
        if not (sum(_remove(rest, fault.pointer) for fault in faults) or _remove(rest, "/resources")):
            return None
        try:
            return parse_spec(rest)
        except SpecError as error:  # a combination of values that is looked at when each of them is right
            faults = error.faults
    return None


def _remove(value: Any, pointer: str) -> bool:
    """Take the value at `pointer` out, of a list the whole list; whether there was anything."""
    holder, name = None, ""
    for part in pointer.split("/")[1:]:
        if not isinstance(value, dict):
            break
        holder, name = value, part.replace("~1", "/").replace("~0", "~")
        value = value.get(name)
    return holder is not None and holder.pop(name, _ABSENT) is not _ABSENT
