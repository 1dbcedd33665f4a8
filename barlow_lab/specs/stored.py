"""A spec as it was stored, with types: what reads a field of it that has another name by now fails the type check."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

from barlow_lab.specs.digest import canonical_json
from barlow_lab.specs.kinds import KINDS, JobSpec
from barlow_lab.specs.objectives import ObjectiveBase
from barlow_lab.specs.objectives.own import FaultyObjective, ObjectiveElsewhere, own_objective
from barlow_lab.specs.optimizers import OptimizerBase, OptimizerElsewhere

Model = TypeVar("Model", bound=BaseModel)


def open_stored(stored: Mapping[str, Any]) -> JobSpec:
    """A resolved spec as it was stored: one of KINDS; of a kind that is not known, the fields that every kind has.

    It was accepted when it was submitted, and nothing of it is judged again: it may name a backbone of one's own that
    is not installed here, or break a rule that came later. A field of an older version that is there no more is left
    out, and one that it does not have yet has its default.
    """
    text = canonical_json(stored)
    opened = _remembered(text)
    if any(isinstance(part, ObjectiveElsewhere) for _, part in opened):
        return _read(text)  # it may be installed by now
    return opened


def written_out(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The same as every spec of today is stored, ready for JSON: so specs of different versions compare field by field.
    What is of a kind, an objective or an optimizer that is not known here stays as it is."""
    if stored["kind"] not in KINDS:
        return dict(stored)
    return open_stored(stored).model_dump(mode="json", by_alias=True, warnings=False)


@lru_cache(maxsize=500)
def _remembered(text: str) -> JobSpec:
    """Lists of jobs open the same ones again and again."""
    return _read(text)


def _read(text: str) -> JobSpec:
    stored = json.loads(text)
    return _opened(KINDS.get(stored["kind"], JobSpec), stored)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    key: str
    """As the stored spec has it."""
    models: tuple[type[BaseModel], ...]
    """What it may be, if it is an object."""
    is_tuple: bool
    """JSON has made it a list."""

    def opened(self, stored: Any) -> Any:
        if isinstance(stored, Mapping) and self.models:
            named = (model for model in self.models if stored.get("name") in _names(model))
            return _opened(next(named, None) or self._elsewhere(stored) or self.models[0], stored)
        return tuple(stored) if self.is_tuple and isinstance(stored, list) else stored

    def _elsewhere(self, stored: Mapping[str, Any]) -> type[BaseModel] | None:
        """The model of an objective that others have installed, or had, and of an optimizer of another version."""
        if "name" not in stored:
            return None
        if issubclass(self.models[0], OptimizerBase):
            return OptimizerElsewhere
        if not issubclass(self.models[0], ObjectiveBase):
            return None
        try:
            return own_objective(stored["name"]) or ObjectiveElsewhere
        except FaultyObjective:
            return ObjectiveElsewhere


def _opened(model: type[Model], stored: Mapping[str, Any]) -> Model:
    fields = _fields(model)
    known = {f.name: f.opened(stored[f.key]) for f in fields if f.key in stored}
    others = stored.keys() - {f.key for f in fields} if model.model_config.get("extra") == "allow" else ()
    return model.model_construct(**known, **{key: stored[key] for key in others})


@cache
def _fields(model: type[BaseModel]) -> tuple[_Field, ...]:
    found = []
    for name, field in model.model_fields.items():
        choices = list(_choices(field.annotation))
        models = tuple(choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel))
        found.append(_Field(name, field.alias or name, models, any(get_origin(choice) is tuple for choice in choices)))
    return tuple(found)


def _choices(annotation: Any) -> list[Any]:
    """The types of a union, or the type itself."""
    if get_origin(annotation) is Annotated:
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [choice for part in get_args(annotation) for choice in _choices(part)]
    return [annotation]


@cache
def _names(model: type[BaseModel]) -> tuple[Any, ...]:
    """What the field `name` may be that tells this member of a union from the others."""
    field = model.model_fields.get("name")
    return () if field is None else get_args(field.annotation)
