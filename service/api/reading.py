"""From the bytes of a body to specs and their faults: all that can be known of a submission without the run database.

It takes a body's time and no session, so what is heavy about a body holds nobody up at the database.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from barlow_lab.specs import Fault, Spec, SpecError, parse_spec
from barlow_lab.specs.common import NAME_RULE, Name
from barlow_lab.specs.parsing import MAX_FAULTS, pointer_of
from barlow_lab.spelling import one_reading
from service.api.bodies import parse_json
from service.api.references import named_in, order

MAX_REFERENCES = 5_000
"""Jobs that all jobs of one experiment name together, by run.after and backbone_from: each is looked up and locked."""
ROUNDS = 4
"""How often a spec with faults is read again without them, to find what it names."""

_NAME: TypeAdapter[str] = TypeAdapter(Name)
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
    """An experiment: each job's spec, None where it has faults; what can be read of those that have some; all faults.

    `order` holds the names so that each stands after those it waits for.
    """

    body: Any
    found: Found
    name: str
    specs: dict[str, Spec | None]
    rests: dict[str, Spec]
    order: list[str]

    @property
    def valid(self) -> dict[str, Spec]:
        """The specs without a fault."""
        return {job: spec for job, spec in self.specs.items() if spec is not None}

    @property
    def names_something(self) -> bool:
        """Whether a body with faults has parts that could be looked up."""
        return bool(self.rests or self.valid)


def read_job(raw: bytes) -> JobBody:
    """One spec.

    Raises:
        Problem: it is not JSON, or holds what cannot be stored.
    """
    body, found = parse_json(raw), Found()
    try:
        return JobBody(body, found, parse_spec(body), None)
    except SpecError as error:
        found.add(error.faults, error.left_out)
        return JobBody(body, found, None, _without(body, error))


def read_experiment(raw: bytes, most_jobs: int) -> ExperimentBody:
    """An experiment of at most `most_jobs` jobs.

    Raises:
        Problem: as for `read_job`.
    """
    body, found = parse_json(raw), Found()
    if not isinstance(body, dict):
        found.add([Fault("", "an experiment is an object {name, jobs: {name: spec}}")])
        return ExperimentBody(body, found, "", {}, {}, [])
    unknown = [field for field in body if field not in ("name", "jobs")]
    found.add([Fault(f"/{field[:100]}", "unknown field; an experiment has name and jobs") for field in unknown])
    name, jobs = body.get("name"), body.get("jobs")
    if not _is_name(name):
        found.add([Fault("/name", NAME_RULE)])
    read = ExperimentBody(body, found, str(name), {}, {}, [])
    if not isinstance(jobs, dict) or not jobs:
        found.add([Fault("/jobs", "an object {name: spec} with at least one job is expected here")])
    elif len(jobs) > most_jobs:
        said = f"{len(jobs):,} jobs, and one body brings up to {most_jobs:,} (BARLOW_MAX_EXPERIMENT_JOBS of the API)"
        found.add([Fault("/jobs", f"{said}; add the others by POST /api/v1/jobs?experiment=NAME, or make several")])
    else:
        with one_reading():
            _read_jobs(jobs, read)
        read.order, circle = order(read.valid)
        found.add(circle)
        count = sum(1 for spec in read.valid.values() for _ in named_in(spec))
        if count > MAX_REFERENCES:
            said = f"{count:,} names stand in run.after and backbone_from, and one body brings up to {MAX_REFERENCES:,}"
            found.add([Fault("/jobs", f"{said}; name only what is waited for directly, or make several experiments")])
            read.specs, read.rests = {}, {}
    return read


def below(job: str, faults: list[Fault]) -> list[Fault]:
    """Faults of a spec, as faults of the experiment that holds it."""
    above = pointer_of(["jobs", job])
    return [Fault(above + fault.pointer, fault.message) for fault in faults]


def _read_jobs(raw: Mapping[str, Any], read: ExperimentBody) -> None:
    for job, value in raw.items():
        well_named = _is_name(job)
        faults = [] if well_named else [Fault("", NAME_RULE)]
        if isinstance(value, dict):
            if value.get("name", job) != job:
                faults.append(Fault("/name", f"the job is called {job[:100]!r} here; leave name out of its spec"))
            value = {**value, "name": job if well_named else None}
        spec: Spec | None = None
        left_out = 0
        try:
            spec = parse_spec(value)
        except SpecError as error:
            faults, left_out = faults + error.faults, error.left_out
        read.specs[job] = None if faults else spec
        if faults and not read.found.full and (rest := spec or _without(value, SpecError(faults, left_out))):
            read.rests[job] = rest
        read.found.add(below(job, faults), left_out)


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


def _is_name(value: Any) -> bool:
    try:
        _NAME.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True
