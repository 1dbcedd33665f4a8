"""The rules that join fields of a spec: all are asked, also where some of its fields could not be read.

A field that cannot be read hides what is wrong with the others beside it, were the rules asked of whole specs alone. So
what is at fault is taken out, the rest is read, and each rule that asks for nothing that was taken out is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from barlow_lab.spelling import nearest

Place = tuple[str, ...]
Rule = Callable[[], Mapping[Place, str]]
"""What a rule refuses: a place in the spec, and why with the remedy."""

UNJUDGED = "unjudged"
"""In the context of a validation: the rules are not asked by it."""


def refused_by(rules: Sequence[Rule]) -> dict[Place, str]:
    """What the rules of a spec refuse; of two that refuse one place the first counts."""
    found: dict[Place, str] = {}
    for rule in rules:
        for place, said in rule().items():
            found.setdefault(place, said)
    return found


def refused_of_the_rest(
    model: type[BaseModel], rules: Callable[[Any], Sequence[Rule]], value: Mapping[str, Any], error: ValidationError
) -> dict[Place, str]:
    """What the rules refuse of that part of `value` which `model` can read, where `error` names what it cannot."""
    rest, taken_out, unknown = _rest_of(value, error)
    for name, field in model.model_fields.items():
        if field.is_required() and name not in rest:
            rest[name] = _STAND_INS.get(name)
            taken_out.append((name,))
    try:
        spec = model.model_validate(rest, context={UNJUDGED: True}).model_copy(deep=True)
    except ValidationError:
        return {}
    for place in [*taken_out, *(meant for each in unknown if (meant := _meant(spec, rest, each)))]:
        _take_out(spec, place)
    found: dict[Place, str] = {}
    for rule in rules(spec):
        try:
            refused = rule()
        except AttributeError:  # it asks for what was taken out
            continue
        for place, said in refused.items():
            if not any(place[: len(out)] == out for out in taken_out):
                found.setdefault(place, said)
    return found


_STAND_INS = {"data": {"name": "unread"}, "backbone_from": {"random": 0}, "labels": {"percent": 1}}
"""For required fields that cannot be read; no rule sees them."""


def _rest_of(value: Mapping[str, Any], error: ValidationError) -> tuple[dict[str, Any], list[Place], list[Place]]:
    """`value` without what is at fault, the places of that, and of the unknown fields that are out of it, too."""
    rest = dict(value)
    out: list[Place] = []
    unknown: list[Place] = []
    for item in error.errors(include_url=False, include_input=False):
        place, whole = _written_place(rest, item["loc"])
        if place:
            holder = rest
            for part in place[:-1]:
                holder[part] = dict(holder[part])  # what the user gave stays as it is
                holder = holder[part]
            del holder[place[-1]]
        if whole and item["type"] == "extra_forbidden":
            unknown.append(place)
        else:
            out.append(place or tuple(map(str, item["loc"][:1])))
    return rest, out, unknown


def _meant(spec: BaseModel, rest: Mapping[str, Any], unknown: Place) -> Place | None:
    """The place of the field that an unknown one is most like, where that is not written itself: its default is not
    what the user says."""
    holder: Any = spec
    for part in unknown[:-1]:
        holder, rest = getattr(holder, part, None), rest[part]
    if not isinstance(holder, BaseModel):
        return None
    names = [field.alias or name for name, field in type(holder).model_fields.items()]
    near = nearest(unknown[-1], names)
    return None if near is None or near in rest else (*unknown[:-1], near)


def _written_place(value: Mapping[str, Any], loc: Sequence[int | str]) -> tuple[Place, bool]:
    """As much of `loc` as the user has written in objects, and whether that is all of it; pydantic puts the name of a
    union's member in second place."""
    place: list[str] = []
    parts = list(loc)
    if len(parts) > 1 and isinstance(inner := value.get(str(parts[0])), Mapping) and parts[1] not in inner:
        del parts[1]
    holder: Any = value
    for part in parts:
        if not isinstance(holder, Mapping) or part not in holder:
            return tuple(place), False
        place.append(str(part))
        holder = holder[part]
    return tuple(place), True


def _take_out(spec: BaseModel, place: Place) -> None:
    """Have the attribute at `place` missing, or that which holds it where it is no model."""
    holder = spec
    for part, next_part in zip(place, [*place[1:], None], strict=True):
        name = next((name for name, f in type(holder).model_fields.items() if part in (name, f.alias)), part)
        inner = vars(holder).get(name)
        if next_part is None or not isinstance(inner, BaseModel):
            vars(holder).pop(name, None)
            return
        holder = inner


def is_whole(part: BaseModel) -> bool:
    """Whether nothing was taken out of this part of a spec."""
    return type(part).model_fields.keys() <= vars(part).keys()
