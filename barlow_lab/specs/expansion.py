"""The jobs that the body of an experiment becomes when its seeds, grids and zips are written out.

The experiment's own vary its pretrainings, or where it has none all of its jobs; a job's own vary that job. A job that
takes the backbone of a varied one becomes one for each of these, and takes that of its own; `run.after` of a varied job
waits for all that it becomes, of those that share what varies for the ones of the same values.
"""

from __future__ import annotations

import graphlib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from barlow_lab.specs.common import NAME_RULE, Label, LabelKey, Name
from barlow_lab.specs.faults import Fault
from barlow_lab.specs.files import MAX_VALUES
from barlow_lab.specs.kinds import KINDS
from barlow_lab.specs.parsing import OF_EXPERIMENTS, pointer_of
from barlow_lab.specs.variant_names import names_of, word_of_value, words_of_fields
from barlow_lab.specs.variation import Axis, Path, Varied, number, read_axes, set_at, text_of, varied_twice

_NAME: TypeAdapter[str] = TypeAdapter(Name)
_LABEL_KEY: TypeAdapter[str] = TypeAdapter(LabelKey)
_LABEL: TypeAdapter[str] = TypeAdapter(Label)
_SOURCE: Path = ("backbone_from", "job")
_MOST_AXES = 40
"""Most axes of one job, so that counting combinations stays quick."""
_MOST_AWAITED = 100
"""Names that a spec's run.after may hold."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A field that varies, with one of its values, which stands at `place` of the body, in the list at `whole`."""

    path: Path
    place: Path
    whole: Path
    there: int
    """How many of the first parts of `path` the job as it is written has."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A job as it is submitted: `value` is its spec as the user could have written it, `job` its name in the body."""

    job: str
    value: Any
    faults: list[Fault]
    """Faults of its name, and of what cannot be set, by pointers into the body."""
    settings: tuple[Setting, ...] = ()
    awaited: tuple[int, ...] = ()
    """The index in the body's run.after of each name in run.after."""

    def placed(self, faults: list[Fault]) -> list[Fault]:
        """Faults of the spec as faults of the body: at the value of a grid, where that is what is wrong."""
        return [Fault(self._place(fault.pointer), fault.message) for fault in faults]

    def _place(self, pointer: str) -> str:
        parts = tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
        for setting in self.settings:
            length = len(setting.path)
            if parts[:length] == setting.path:
                return pointer_of([*setting.place, *parts[length:]])
            if parts == setting.path[: len(parts)] and len(parts) > setting.there:
                return pointer_of(setting.whole)
        if parts[:2] == ("run", "after") and len(parts) > 2 and self.awaited:
            pointer = pointer_of(["run", "after", self.awaited[int(parts[2])], *parts[3:]])
        return pointer_of(["jobs", self.job]) + pointer


class Unrepeated:
    """Faults that were not told before: what is wrong with a job is wrong with all that it becomes."""

    def __init__(self) -> None:
        self._told: dict[str, list[str]] = {}

    def of(self, faults: list[Fault]) -> list[Fault]:
        """Those of `faults` that are new. One that was told with a hint is not told again without it."""
        out = []
        for fault in faults:
            told = self._told.setdefault(fault.pointer, [])
            if not any(said.startswith(fault.message) for said in told):
                told.append(fault.message)
                out.append(fault)
        return out


@dataclass(slots=True)
class Expansion:
    """The jobs of a body by name, as far as it has any, and what is wrong with it outside their specs."""

    name: str = ""
    variants: dict[str, Variant] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def expand(body: Any, most_jobs: int, *, or_else: str = "; make several experiments") -> Expansion:
    """Write out what an experiment varies. How many jobs that makes is known, and bounded, before any of them is made.

    Args:
        body: as JSON or YAML gives it; it stays as it is.
        most_jobs: jobs that it may become.
        or_else: the remedy where it becomes more.
    """
    if not isinstance(body, dict):
        return Expansion(faults=[Fault("", "an experiment is an object {name, jobs: {name: spec}}")])
    out = Expansion(str(body.get("name")))
    for unknown in [key for key in body if key not in ("name", "jobs", *OF_EXPERIMENTS)]:
        said = "unknown field; an experiment has name and jobs, and of what varies seeds, grid and zip"
        out.faults.append(Fault(f"/{str(unknown)[:100]}", said))
    if not is_name(body.get("name")):
        out.faults.append(Fault("/name", NAME_RULE))
    jobs = body.get("jobs")
    if not isinstance(jobs, dict) or not jobs:
        out.faults.append(Fault("/jobs", "an object {name: spec} with at least one job is expected here"))
    elif len(jobs) > most_jobs:
        out.faults.append(Fault("/jobs", f"{len(jobs):,} jobs, and one body brings up to {most_jobs:,}{or_else}"))
    else:
        _Expander({str(name): job for name, job in jobs.items()}, body, most_jobs, or_else, out).run()
    return out


def varied_by_all(jobs: Mapping[str, Any]) -> list[str]:
    """The jobs that an experiment's own seeds, grid and zip are of: its pretrainings, or where it has none all."""
    return [name for name, job in jobs.items() if _makes_backbone(job)] or list(jobs)


def is_name(value: Any) -> bool:
    """Whether it is what a job or an experiment may be called."""
    return _fits(_NAME, value)


class _Expander:
    """One body's expansion; `axes` are those of each job, with the ones that it has by the backbone that it takes."""

    def __init__(self, jobs: dict[str, Any], body: Mapping[str, Any], most: int, or_else: str, out: Expansion) -> None:
        self.jobs, self.most, self.or_else, self.out = jobs, most, or_else, out
        common, faults = read_axes(None, body, most)
        out.faults += faults
        self.common, self.varied_by_all = common, set(varied_by_all(jobs))
        self.own = {name: self._own(name, job) for name, job in jobs.items()}
        self.axes: dict[str, list[Axis]] = {}
        self.names: dict[str, dict[tuple[int, ...], str]] = {}
        self._awaited: dict[tuple[str, tuple[Axis, ...]], dict[tuple[int, ...], list[str]]] = {}

    def run(self) -> None:
        """Fill `out`."""
        sources = {name: self._sources(name) for name in self.jobs}
        for name in _sources_first({name: {s for s in found if s} for name, found in sources.items()}):
            self.axes[name] = self._with_those_of(sources[name], name)
        if not self._is_small_enough():
            return
        for name in self.jobs:
            points = list(itertools.product(*(range(len(axis)) for axis in self.axes[name])))
            words = words_of_fields(name, self.axes[name])
            parts = [[f"{w}_{v}" for w, v in zip(words, self._values(name, point), strict=True)] for point in points]
            self.names[name] = dict(zip(points, names_of(name, parts), strict=True))
        for name in self.jobs:
            for point, called in self.names[name].items():
                if called in self.out.variants:
                    said = f"one of the jobs that it becomes is called {called}, and so is another job; rename one"
                    self.out.faults.append(Fault(pointer_of(["jobs", name]), said))
                else:
                    self.out.variants[called] = self._variant(name, called, point)

    def _own(self, name: str, job: Any) -> list[Axis]:
        """The job's own axes, and those of the experiment that are this job's."""
        common = self.common if name in self.varied_by_all else []
        if not isinstance(job, dict):
            return common
        own, faults = read_axes(name, job, self.most)
        above = pointer_of(["jobs", name])
        self.out.faults += [Fault(above + fault.pointer, fault.message) for fault in faults]
        axes = [*common, *own]
        for axis, fault in varied_twice(axes):
            self.out.faults.append(Fault(("" if axis.owner is None else above) + fault.pointer, fault.message))
            axes = common if axis.owner is not None else []
        return axes

    def _sources(self, name: str) -> list[str | None]:
        """The jobs beside it whose backbone it takes, one or, where that varies, another; None for no job beside it."""
        for axis in self.own[name]:
            for varied in axis.fields:
                if varied.path == _SOURCE:
                    return [self._beside(value) for value in varied.values]
                if varied.path == _SOURCE[:1]:
                    return [self._beside(_at(value, "job")) for value in varied.values]
        return [self._beside(_at(_at(self.jobs[name], *_SOURCE[:1]), "job"))]

    def _beside(self, name: Any) -> str | None:
        return name if isinstance(name, str) and name in self.jobs else None

    def _with_those_of(self, sources: list[str | None], name: str) -> list[Axis]:
        own = self.own[name]
        found = [self.axes.get(source, []) if source else [] for source in sources]
        inherited = found[0]
        if any(set(other) != set(inherited) for other in found):
            said = "what some of these take their backbone from varies, and not alike; write a job for each"
            self.out.faults.append(Fault(pointer_of(["jobs", name]), said))
            inherited = []
        axes = list(dict.fromkeys([*inherited, *own]))
        if len(axes) > _MOST_AXES:
            said = f"{len(axes):,} lists vary it, with those of what it takes its backbone from; up to {_MOST_AXES} may"
            self.out.faults.append(Fault(pointer_of(["jobs", name]), said))
            axes = []
        return sorted(axes, key=lambda axis: axis.fields[0].path == ("seed",))

    def _is_small_enough(self) -> bool:
        """Whether it becomes no more jobs, and no more values, than one body may have."""
        counts = {name: math.prod(map(len, axes)) for name, axes in self.axes.items()}
        total = sum(counts.values())
        if total > self.most:
            most_of = max(counts, key=lambda name: counts[name])
            said = f"it becomes {number(total)} jobs ({number(counts[most_of])} of {most_of[:100]})"
            self.out.faults.append(Fault("/jobs", f"{said}, and one body brings up to {self.most:,}{self.or_else}"))
            return False
        values = sum(counts[name] * self._size(name) for name in self.jobs if counts[name] > 1)
        if values > MAX_VALUES:
            said = f"written out its {total:,} jobs have over {MAX_VALUES:,} values; make several experiments"
            self.out.faults.append(Fault("/jobs", said))
        return values <= MAX_VALUES

    def _size(self, name: str) -> int:
        """Values that a job has at most."""
        varied = [one for axis in self.own[name] for one in axis.fields if not isinstance(one.values, range)]
        return _count(self.jobs[name]) + sum(max(map(_count, one.values)) for one in varied)

    def _fields(self, name: str, point: tuple[int, ...]) -> Iterator[tuple[Axis, Varied, int]]:
        for axis, index in zip(self.axes[name], point, strict=True):
            for varied in axis.fields:
                yield axis, varied, index

    def _values(self, name: str, point: tuple[int, ...]) -> list[str]:
        return [word_of_value(varied, index) for _, varied, index in self._fields(name, point)]

    def _variant(self, name: str, called: str, point: tuple[int, ...]) -> Variant:
        job = self.jobs[name]
        well_named = is_name(name)
        faults = [] if well_named else [Fault(pointer_of(["jobs", name]), NAME_RULE)]
        if not isinstance(job, dict):
            return Variant(name, job, faults)
        if job.get("name", name) != name:
            said = f"the job is called {name[:100]!r} here; leave name out of its spec"
            faults.append(Fault(pointer_of(["jobs", name, "name"]), said))
        value = {key: inner for key, inner in job.items() if key not in OF_EXPERIMENTS}
        settings = []
        for axis, varied, index in self._fields(name, point):
            if axis not in self.own[name]:
                continue
            above = () if axis.owner is None else ("jobs", axis.owner)
            place, whole = (*above, *varied.place_of(index)), (*above, *varied.place)
            settings.append(Setting(varied.path, place, whole, _parts_there(job, varied.path)))
            try:
                set_at(value, varied.path, varied.values[index])
            except ValueError as error:
                faults.append(Fault(pointer_of(whole), str(error)))
        awaited = self._wire(name, value, dict(zip(self.axes[name], point, strict=True)))
        if point:
            self._label(name, value, point)
        value = {**value, "name": called if well_named else None}
        return Variant(name, value, faults, tuple(settings), awaited)

    def _wire(self, name: str, value: dict[str, Any], at: Mapping[Axis, int]) -> tuple[int, ...]:
        """Have `value` name the jobs that those beside it become, at the values `at`; see `Variant.awaited`."""
        source = self._beside(_at(_at(value, "backbone_from"), "job"))
        if source is not None and self.axes[source]:
            point = tuple(at.get(axis, 0) for axis in self.axes[source])
            value["backbone_from"] = {**value["backbone_from"], "job": self.names[source][point]}
        after = _at(_at(value, "run"), "after")
        if not isinstance(after, list) or not any(self._beside(other) and self.axes[other] for other in after):
            return ()
        names: list[Any] = []
        origin: list[int] = []
        for i, other in enumerate(after):
            found = self._all_alike(other, at) if self._beside(other) else [other]
            names += found[: _MOST_AWAITED + 1]
            origin += [i] * (len(names) - len(origin))
            if len(names) > _MOST_AWAITED:  # the spec is refused for it
                break
        value["run"] = {**value["run"], "after": names}
        return tuple(origin)

    def _all_alike(self, job: str, at: Mapping[Axis, int]) -> list[str]:
        """Those that `job` becomes, of the values `at` in what both vary by."""
        shared = tuple(axis for axis in self.axes[job] if axis in at)
        key = (job, shared)
        if key not in self._awaited:
            known = self._awaited[key] = {}
            for point, called in self.names[job].items():
                its = dict(zip(self.axes[job], point, strict=True))
                known.setdefault(tuple(its[axis] for axis in shared), []).append(called)
        return self._awaited[key][tuple(at[axis] for axis in shared)]

    def _label(self, name: str, value: dict[str, Any], point: tuple[int, ...]) -> None:
        """A label for each field that varies; one that the user wrote stays."""
        run = value.get("run")
        run = {} if run is None else run
        given = _at(run, "labels")
        if not isinstance(run, dict) or not (given is None or isinstance(given, dict)):
            return
        words = words_of_fields(name, self.axes[name])
        found = {}
        for word, (_, varied, index) in zip(words, self._fields(name, point), strict=True):
            text = varied.values[index]
            text = text if isinstance(text, str) else text_of(text)
            if _fits(_LABEL_KEY, word):
                found[word] = text if _fits(_LABEL, text) else word_of_value(varied, index)
        value["run"] = {**run, "labels": {**found, **(given or {})}}


def _makes_backbone(job: Any) -> bool:
    kind = _at(job, "kind")
    return isinstance(kind, str) and kind in KINDS and KINDS[kind].makes_backbone


def _sources_first(sources: Mapping[str, set[str]]) -> list[str]:
    """Names so that each stands after those whose backbone it takes; as they are where that is a circle, which is found
    when the specs are read."""
    try:
        return list(graphlib.TopologicalSorter(sources).static_order())
    except graphlib.CycleError:
        return list(sources)


def _at(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _parts_there(job: Any, path: Path) -> int:
    for i, part in enumerate(path):
        if not isinstance(job, dict) or part not in job:
            return i
        job = job[part]
    return len(path)


def _count(value: Any) -> int:
    rest, values = [value], 0
    while rest:
        item = rest.pop()
        values += 1
        rest += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return values


def _fits(rule: TypeAdapter[str], value: Any) -> bool:
    try:
        rule.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True
