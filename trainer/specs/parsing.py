"""From a user's YAML or JSON to a spec, with every fault named at once."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from trainer.specs.evaluation import KnnSpec, LinearSpec
from trainer.specs.pretrain import PretrainSpec

Spec = PretrainSpec | LinearSpec | KnnSpec
KINDS: dict[str, type[PretrainSpec] | type[LinearSpec] | type[KnnSpec]] = {
    "pretrain": PretrainSpec,
    "linear": LinearSpec,
    "knn": KnnSpec,
}
_UNION_TAGS = {"lars", "sgd", "adamw"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a spec: `pointer` is an RFC 6901 JSON pointer to the field."""

    pointer: str
    message: str


class SpecError(ValueError):
    """A spec that cannot be accepted; `faults` holds every fault that was found."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{f.pointer or '(spec)'}: {f.message}" for f in faults))


def parse_spec(value: object) -> Spec:
    """Validate one job spec.

    Raises:
        SpecError: with all faults, each with its pointer.
    """
    if not isinstance(value, Mapping):
        raise SpecError([Fault("", f"a spec is an object with a `kind`, not {_json_name(value)}")])
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        said = f"unknown kind {kind!r}" if "kind" in value else "kind is missing"
        raise SpecError([Fault("/kind", f"{said}; use one of {', '.join(KINDS)}{_nearest(str(kind), list(KINDS))}")])
    model = KINDS[kind]
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise SpecError(faults(error, model)) from None


def load_spec_file(path: Path) -> Any:
    """The plain value of a YAML or JSON file (JSON is YAML).

    Raises:
        SpecError: the text is not YAML; names line and column.
        OSError: the file cannot be read.
    """
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError([Fault("", f"{path.name} is not YAML or JSON: {' '.join(str(error).split())}")]) from None


def faults(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """The faults of a pydantic error in our words: pointers without union tags, unknown fields with the nearest name."""
    out = []
    for item in error.errors(include_url=False):
        path = [part for part in item["loc"] if part not in _UNION_TAGS]
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = _field_names(model, item["loc"][:-1])
            message = f"unknown field{_nearest(str(path[-1]), known)}"
        elif item["type"] == "missing":
            message = "this field is required"
        elif item["type"] == "union_tag_not_found":
            message = "name is missing; use one of lars, sgd, adamw"
        out.append(Fault("".join(f"/{_escape(part)}" for part in path), message))
    return out


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _escape(part: int | str) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _json_name(value: object) -> str:
    return {type(None): "null", list: "a list", str: "a text", bool: "true or false"}.get(type(value), "a number")


def _field_names(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names a user may write at `path`, aliases in place of Python names."""
    models = [model]
    for part in path:
        tagged = [m for m in models if "name" in m.model_fields and part in get_args(m.model_fields["name"].annotation)]
        if part in _UNION_TAGS and tagged:
            models = tagged
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
