"""A page for each kind of job, one for the objectives and one for the optimizers, from the models of the specs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from inspect import cleandoc
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from schemas import Schema, type_of
from writing import code, prose, table

from barlow_lab.specs.kinds import KINDS, PretrainSpec
from barlow_lab.specs.protocols import FollowsProtocol, shown_protocol


def pages() -> dict[str, str]:
    """Text by the name of the page."""
    kinds = {f"kind-{kind}": _kind(kind) for kind in KINDS}
    return {
        **kinds,
        "objectives": _chosen("Objectives", "objective"),
        "optimizers": _chosen("Optimizers", "optimizer"),
    }


def _kind(kind: str) -> str:
    model = KINDS[kind]
    schema = model.model_json_schema()
    models = _models_below(model)
    example = yaml.safe_dump(dict(model.example.value), sort_keys=False, default_flow_style=None, width=100)
    text = f"# The kind {kind}\n\n{prose(cleandoc(model.__doc__ or ''))}"
    text += f"{model.example.summary}:\n\n```yaml\n{example}```\n\n## Fields\n\n{_fields(model, schema, models)}"
    for name, below in schema.get("$defs", {}).items():
        if name not in _CHOSEN and name in models:
            text += f"## {name}\n\n{prose(below.get('description'))}{_fields(models[name], below, models)}"
    if issubclass(model, FollowsProtocol):
        text += f"## Protocols\n\n{_protocols(model)}"
    return text


def _chosen(title: str, field: str) -> str:
    text = f"# {title}\n\nChosen by `{field}: {{name: ...}}`.\n\n"
    for model in _members(field).values():
        schema = model.model_json_schema()
        (name,) = get_args(model.model_fields["name"].annotation)
        text += f"## {name}\n\n{prose(cleandoc(model.__doc__ or ''))}"
        text += _fields(model, schema, _models_below(model))
    return text


def _protocols(model: type[FollowsProtocol]) -> str:
    text = ""
    for name, protocol in model.PROTOCOLS.items():
        values = yaml.safe_dump(json.loads(json.dumps(dict(protocol.values))), default_flow_style=None, width=100)
        text += f"### {shown_protocol(name)}\n\nVersion {protocol.version}. {prose(protocol.source)}"
        text += f"```yaml\n{values}```\n\n"
    return text


def _fields(model: type[BaseModel], schema: Schema, models: Mapping[str, type[BaseModel]]) -> str:
    required = schema.get("required", ())
    by_name = {field.alias or name: field for name, field in model.model_fields.items()}

    def named(name: str) -> str:
        if name in _CHOSEN:
            page, member = _CHOSEN[name]
            (said,) = get_args(member.model_fields["name"].annotation)
            return f"[{said}]({page}.md#{said})"
        return f"[{name}](#{name.lower()})" if name in models else "object"

    rows = []
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in required else _default(by_name[name], field)
        rows.append((code(name), type_of(field, named), default, field.get("description", "")))
    return table(("field", "type", "default", "what it is"), rows)


def _default(field: Any, schema: Schema) -> str:
    value = schema["default"] if "default" in schema else field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        said = getattr(value, "name", None)
        return code(said) if isinstance(said, str) else "its defaults"
    return code(json.dumps(value, ensure_ascii=False, default=str))


def _models_below(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The models that the fields of `model` are made of, at any depth, by name."""
    return _models_in(field.annotation for field in model.model_fields.values())


def _members(field: str) -> dict[str, type[BaseModel]]:
    """Those of which a field of the pretraining's spec is one."""
    return _models_in([PretrainSpec.model_fields[field].annotation])


def _models_in(annotations: Iterable[Any]) -> dict[str, type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {}
    ahead = list(annotations)
    while ahead:
        kind = ahead.pop(0)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if kind.__name__ not in found:
                found[kind.__name__] = kind
                ahead += [field.annotation for field in kind.model_fields.values()]
        else:
            ahead += [part for part in get_args(kind) if not isinstance(part, str)]
    return found


_CHOSEN = {
    name: (page, model)
    for page, field in (("objectives", "objective"), ("optimizers", "optimizer"))
    for name, model in _members(field).items()
}
"""What has a page beside those of the kinds, and on which."""
