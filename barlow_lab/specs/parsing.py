"""From a user's YAML or JSON to a spec, with every fault named at once."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from barlow_lab.specs.common import COMBINATION, RULES
from barlow_lab.specs.faults import Fault
from barlow_lab.specs.kinds import KINDS, Spec
from barlow_lab.specs.objectives.own import FaultyObjective, names_of_own, own_objective
from barlow_lab.specs.registered import OBJECTIVES
from barlow_lab.specs.rules import refused_of_the_rest
from barlow_lab.spelling import nearest, one_reading

_NAIVE_ACCUMULATION = {
    "accumulate_grad_batches",
    "accumulation",
    "accumulation_steps",
    "gradient_accumulation",
    "gradient_accumulation_steps",
}
"""What others call the sum of the gradients of small batches."""


OF_EXPERIMENTS = ("grid", "zip", "seeds")
"""What varies in an experiment or in a job of one: seeds vary fastest, and stand last in a name."""


def _tags(model: type[BaseModel], field: str) -> tuple[str, ...]:
    """The names among which a field of `model` chooses, the default first; none: it is no such field."""
    models = _models_in(model.model_fields[field].annotation) if field in model.model_fields else []
    if len(models) < 2 or any("name" not in model.model_fields for model in models):
        return ()
    of_the_house = tuple(tag for model in models for tag in _names(model))
    own = names_of_own() if field == "objective" else []
    return tuple(dict.fromkeys([*of_the_house, *own]))


def _names(model: type[BaseModel]) -> tuple[str, ...]:
    return get_args(model.model_fields["name"].annotation)


_BY_NAME = {"objective", "optimizer", "backbone"}
"""Fields that have a name and parameters."""

LONGEST_PART = 200
"""Characters of one part of a pointer."""

MAX_FAULTS = 100
"""Faults of one reading that are worded; of the others there is only their number."""


class SpecError(ValueError):
    """A spec that cannot be accepted; `faults` holds every fault that was found, `lines` each in words, `left_out` how
    many more there are where they are too many to name."""

    def __init__(self, faults: list[Fault], left_out: int = 0) -> None:
        self.faults = faults
        self.left_out = left_out
        self.lines = [f"{f.pointer or '(spec)'}: {f.message}" for f in faults]
        super().__init__("; ".join([*self.lines, and_more(left_out)] if left_out else self.lines))


def and_more(left_out: int) -> str:
    """What stands in place of the faults that are not named."""
    return f"and {left_out:,} more: mend these first"


def parse_spec(value: object) -> Spec:
    """Validate one job spec.

    Raises:
        SpecError: with all faults, each with its pointer; of more than MAX_FAULTS the first, and how many there are.
    """
    with one_reading():
        return _parse(value)


def _parse(value: object) -> Spec:
    if not isinstance(value, Mapping):
        raise SpecError([Fault("", f"a spec is an object with a `kind`, not {_json_name(value)}")])
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        choice = f"use one of {', '.join(KINDS)}"
        if "jobs" in value and "kind" not in value:
            said = "this is an experiment of several jobs, and one job is wanted here; submit it as an experiment"
            raise SpecError([Fault("/jobs", f"{said}, or take one of its jobs as a spec")])
        if "kind" not in value:
            raise SpecError([Fault("/kind", f"kind is missing; {choice}")])
        if not isinstance(kind, str):
            raise SpecError([Fault("/kind", f"a kind is a text, not {_json_name(kind)}; {choice}")])
        raise SpecError([Fault("/kind", f"unknown kind {kind[:100]!r}; {choice}{_nearest(kind, list(KINDS))}")])
    model = KINDS[kind]
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # What stands under views.both is found in both views.
        found = _at_both(faults(error, model, at_most=2 * MAX_FAULTS), value)
        if len(found) <= MAX_FAULTS:
            told = {fault.pointer for fault in found}
            of_rules = refused_of_the_rest(model, model.rules, value, error)
            found += [Fault(to, said) for place, said in of_rules.items() if (to := pointer_of(place)) not in told]
        left_out = max(0, error.error_count() - 2 * MAX_FAULTS) + max(0, len(found) - MAX_FAULTS)
        raise SpecError(found[:MAX_FAULTS], left_out) from None


def faults(error: ValidationError, model: type[BaseModel], *, at_most: int = MAX_FAULTS) -> list[Fault]:
    """The first faults of a pydantic error in our words: pointers as the user wrote them, unknown fields with the
    nearest."""
    out = []
    for item in error.errors(include_url=False)[:at_most]:
        loc = item["loc"]
        by_a_rule = item["type"] == COMBINATION and len(loc) == 2  # which knows of no tags
        path = [part for i, part in enumerate(loc) if (by_a_rule or not _is_tag(model, loc, i)) and part != "[key]"]
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = _field_names(model, loc[:-1])
            message = f"unknown field{_nearest(str(path[-1]), known) or _of_another(model, path)}"
            if len(path) == 1 and path[0] in OF_EXPERIMENTS:
                said = "one job does not vary; make an experiment of it"
                message = f"{said}: {{name: ..., jobs: {{NAME: this spec}}, {path[0]}: ...}}"
            if path[-1] in _NAIVE_ACCUMULATION:
                message = (
                    "the summed gradient of small batches is another objective: each of them correlates its own "
                    "images alone; for a batch_size that does not fit use micro_batch, which is exact"
                )
        elif item["type"] == "missing":
            message = "this field is required"
        elif item["type"] == "union_tag_invalid":
            path.append("name")
            tag, tags = str(item["ctx"]["tag"])[:100], list(_tags(model, str(loc[0])))
            message = f"unknown name {tag!r}; use one of {', '.join(tags)}{_nearest(tag, tags)}"
            if loc[0] == "objective":
                message += f" (one of your own has to be installed here, registered under the group {OBJECTIVES})"
        elif item["type"] in ("model_type", "model_attributes_type", "dict_type"):
            message = "an object is expected here"
            if isinstance(word := item["input"], str) and len(path) == 1 and str(path[0]) in _BY_NAME:
                message += f": {{name: {word[:100]}}}"
            elif path == ["projector"]:
                message += ", such as {widths: [128]} for a linear projector, or the word none"
        elif item["type"] in ("string_type", "path_type"):
            given = item["input"]
            quotes = "" if isinstance(given, list | Mapping) or given is None else ": put it in quotes"
            message = f"a text is expected here, not {_json_name(given)}{quotes}"
        elif item["type"] == "list_type":
            message = f"a list is expected here, not {_json_name(item['input'])}: put [ and ] around it"
        elif item["type"] == "string_pattern_mismatch":
            message = RULES.get(item["ctx"]["pattern"], message)
        out.append(Fault(pointer_of(path), message))
    return out


def _is_tag(model: type[BaseModel], loc: tuple[int | str, ...], index: int) -> bool:
    """Whether pydantic wrote this part of a location to say which member of a union it took, not the user."""
    return index == 1 and loc[1] in _tags(model, str(loc[0]))


def _at_both(found: list[Fault], value: Mapping[Any, Any]) -> list[Fault]:
    """Faults that stand in both views because the user wrote them once, under views.both: named there, once."""
    views = value.get("views")
    if not isinstance(views, Mapping) or "both" not in views:
        return found
    by_view: dict[str, set[tuple[str, str]]] = {"a": set(), "b": set()}
    for fault in found:
        if fault.pointer.startswith(("/views/a/", "/views/b/")):
            by_view[fault.pointer[7]].add((fault.pointer[8:], fault.message))
    shared = by_view["a"] & by_view["b"]
    out = [
        Fault("/views/both" + f.pointer[8:], f.message)
        if f.pointer.startswith(("/views/a/", "/views/b/")) and (f.pointer[8:], f.message) in shared
        else f
        for f in found
    ]
    return list(dict.fromkeys(out))


def _of_another(spec: type[BaseModel], path: list[int | str]) -> str:
    """The other member of a union that has the field at `path` as a parameter, in words."""
    if len(path) != 2 or not _tags(spec, str(path[0])):
        return ""
    models = _models_in(spec.model_fields[str(path[0])].annotation)
    own = [one for name in names_of_own() if (one := _own_or_none(name))] if path[0] == "objective" else []
    owners = [tag for model in [*models, *own] for tag in _names(model) if path[1] in _field_names(model, ())]
    return f"; it belongs to {' and '.join(owners)}: set `name` to that, or leave it out" if owners else ""


def _own_or_none(name: str) -> type[BaseModel] | None:
    try:
        return own_objective(name)
    except FaultyObjective:  # said where it is chosen
        return None


def _nearest(word: str, known: list[str]) -> str:
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else ""


def pointer_of(path: Iterable[int | str]) -> str:
    """The RFC 6901 pointer of a path. A name longer than LONGEST_PART is cut: no field has such a one, and an answer
    that repeated it for every fault would be many times as long as the spec."""
    parts = (part if len(part) <= LONGEST_PART else f"{part[:LONGEST_PART]}..." for part in map(str, path))
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def _json_name(value: object) -> str:
    names = {type(None): "null", list: "a list", dict: "an object", str: "a text", bool: "true or false"}
    return names.get(type(value), "a number")


def _field_names(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names a user may write at `path`, aliases in place of Python names."""
    models = [model]
    for i, part in enumerate(path):
        if _is_tag(model, path, i):
            named = [m for m in models if part in _names(m)]
            models = named or [own for own in [own_objective(str(part))] if own is not None]
            continue
        models = [
            inner
            for m in models
            for name, field in m.model_fields.items()
            if part in (name, field.alias)
            for inner in _models_in(field.annotation)
        ]
    names = [field.alias or name for m in models for name, field in m.model_fields.items()]
    return [*names, "both"] if {"a", "b", "preset"} <= set(names) else names


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [m for arg in get_args(annotation) for m in _models_in(arg)]
    return []
