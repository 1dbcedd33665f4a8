"""What an experiment, or one of its jobs, varies: `seeds`, a `grid` of lists, and lists that are `zip`ped.

An axis is what varies together: one list of a grid, all lists of a zip, the seeds. A job becomes one job for each
combination of a value of each of its axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from barlow_lab.specs.digest import canonical_json
from barlow_lab.specs.faults import Fault
from barlow_lab.specs.parsing import LONGEST_PART, OF_EXPERIMENTS, pointer_of

MOST_PATHS = 20
"""Fields that an experiment, or one job of it, varies by itself."""
Path = tuple[str, ...]
_LARGEST_SHOWN = 10**15

_FIXED = {
    "name": "jobs are named by what varies",
    "kind": "write a job for each kind",
    "spec_version": "it is that of all jobs",
}


@dataclass(frozen=True, slots=True)
class Varied:
    """A field of a spec and the values that it takes, which stand at `place` below the experiment or the job."""

    path: Path
    values: Sequence[Any]
    place: Path

    def place_of(self, index: int) -> Path:
        """The place of one value; a mere number of seeds is the place of all of them."""
        return self.place if isinstance(self.values, range) else (*self.place, str(index))


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """Fields that vary together, each with as many values as the others."""

    owner: str | None
    """The job that says so; None: the experiment."""
    fields: tuple[Varied, ...]

    def __len__(self) -> int:
        return len(self.fields[0].values)


def read_axes(owner: str | None, value: Mapping[str, Any], most: int) -> tuple[list[Axis], list[Fault]]:
    """The axes that `value`, an experiment or a job of one, asks for, and what is wrong with them, at its place there.

    Args:
        owner: as in `Axis`.
        most: jobs that there may be, and so seeds.
    """
    axes: list[Axis] = []
    faults: list[Fault] = []
    for field in OF_EXPERIMENTS:
        if field not in value:
            continue
        found, wrong = _seeds(value[field], most) if field == "seeds" else _lists(field, value[field])
        faults += wrong
        if found and not wrong:
            groups = [tuple(found)] if field == "zip" else [(one,) for one in found]
            axes += [Axis(owner, group) for group in groups]
    return axes, faults


def varied_twice(axes: Sequence[Axis]) -> list[tuple[Axis, Fault]]:
    """Each field that two of the axes of a job vary, or that is part of one that another varies, with its axis."""
    out = []
    fields = [(axis, field) for axis in axes for field in axis.fields]
    for i, (axis, field) in enumerate(fields):
        for _, other in fields[:i]:
            shared = min(len(field.path), len(other.path))
            if field.path[:shared] == other.path[:shared]:
                said = f"{'.'.join(field.path)} is varied already, by {'.'.join(other.place)}; keep one of the two"
                out.append((axis, Fault(pointer_of(field.place), said)))
                break
    return out


def set_at(spec: dict[str, Any], path: Path, value: Any) -> None:
    """Set the value at `path`, with the objects on the way to it where there are none.

    Raises:
        ValueError: something on the way is no object; says what, and the remedy.
    """
    holder = spec
    for i, part in enumerate(path[:-1]):
        inner = holder.get(part)
        if inner is None:
            inner = {}
        elif i == 0 and part == "data" and isinstance(inner, str):  # a data set by its name alone
            inner = {"name": inner}
        elif not isinstance(inner, Mapping):
            what = "a list, which is set as a whole" if isinstance(inner, list) else "no object"
            raise ValueError(f"{'.'.join(path[: i + 1])} is {what}, so there is no {'.'.join(path)}")
        holder[part] = dict(inner)
        holder = holder[part]
    holder[path[-1]] = value


def path_of(text: str) -> Path:
    """`optimizer.learning_rate` → its parts.

    Raises:
        ValueError: it is no path; says why.
    """
    path = tuple(text.split("."))
    if not all(path) or len(text) > LONGEST_PART:
        raise ValueError("a field is named by its way from the top, with dots, such as optimizer.learning_rate")
    return path


def number(count: int) -> str:
    """A count in a message, however large it is."""
    return f"{count:,}" if count < _LARGEST_SHOWN else f"over {_LARGEST_SHOWN:.0e}"


def variation_schema() -> dict[str, Any]:
    """The JSON schemas of the fields that vary."""
    lists = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "array", "minItems": 1}}
    seed = {"type": "integer", "minimum": 0}
    return {
        "seeds": {
            "oneOf": [{"type": "integer", "minimum": 1}, {"type": "array", "minItems": 1, "items": seed}],
            "description": "A number of seeds, 0 first, or a list of them, for each pretraining",
        },
        "grid": {**lists, "description": "Values by field, as {objective.lambda: [0.01, 0.02]}: every combination"},
        "zip": {
            **lists,
            "description": "Values by field, lists of one length that go together",
        },
    }


def text_of(value: Any) -> str:
    """A value as JSON; what YAML has and JSON does not, as Python writes it."""
    try:
        return canonical_json(value)
    except (TypeError, ValueError):
        return repr(value)


def _seeds(value: Any, most: int) -> tuple[list[Varied], list[Fault]]:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        if value > most:
            return [], [Fault("/seeds", f"{number(value)} seeds are more jobs than the {most:,} that there may be")]
        return [Varied(("seed",), range(value), ("seeds",))], []
    if isinstance(value, list) and value:
        return [Varied(("seed",), value, ("seeds",))], _repeated(("seeds",), value)
    return [], [Fault("/seeds", "a number of seeds is expected here, such as 5 for 0 to 4, or a list of them: [7, 8]")]


def _lists(field: str, value: Any) -> tuple[list[Varied], list[Fault]]:
    """The lists of a grid or a zip."""
    if not isinstance(value, dict) or not value:
        said = "fields with their values are expected here, such as {optimizer.learning_rate: [0.1, 0.3]}"
        return [], [Fault(f"/{field}", said)]
    if len(value) > MOST_PATHS:
        return [], [Fault(f"/{field}", f"{len(value):,} fields vary, and up to {MOST_PATHS} may")]
    found, faults = [], []
    for text, values in value.items():
        place = (field, str(text))
        pointer = pointer_of(place)
        try:
            path = path_of(str(text))
        except ValueError as error:
            faults.append(Fault(pointer, str(error)))
            continue
        if path[0] in _FIXED:
            faults.append(Fault(pointer, f"{path[0]} cannot vary: {_FIXED[path[0]]}"))
        elif not isinstance(values, list) or not values:
            faults.append(Fault(pointer, "a list of values is expected here: put [ and ] around it"))
        else:
            faults += _repeated(place, values) if field == "grid" else []
            found.append(Varied(path, values, place))
    lengths = {len(one.values) for one in found}
    if field == "zip" and len(lengths) > 1:
        told = ", ".join(f"{'.'.join(one.path)} has {len(one.values):,}" for one in found)
        said = f"lists that go together are of one length, and {told}; for every combination use grid"
        faults.append(Fault("/zip", said))
    elif field == "zip" and found:
        rows = list(zip(*(one.values for one in found), strict=True))
        faults += _repeated(found[0].place, [list(row) for row in rows] if len(found) > 1 else found[0].values)
    return found, faults


def _repeated(place: Path, values: Sequence[Any]) -> list[Fault]:
    """Values that stand twice, and would make two jobs that are one."""
    seen, faults = set[str](), []
    for i, value in enumerate(values):
        text = text_of(value)
        read = text_of(_as_read(value))
        if read in seen:
            faults.append(Fault(pointer_of([*place, i]), f"{text[:100]} stands here twice; leave it out"))
        seen.add(read)
    return faults


def _as_read(value: Any) -> Any:
    """A value with its numbers as a field of numbers reads them: 1.0 and "1" are 1."""
    if isinstance(value, list):
        return [_as_read(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _as_read(item) for key, item in value.items()}
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return int(value) if str(int(value)) == value else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
