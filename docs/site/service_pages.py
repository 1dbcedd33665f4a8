"""Pages of routes, commands and settings, from the OpenAPI document, the commands themselves and their models."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import click
import typer
from pydantic import SecretStr
from schemas import type_of
from writing import code, prose, table

import service.command  # noqa: F401 (adds to `barlow` what is not the client's)
from service.api.app import create_app
from service.api.roles import LEAST_ROLE
from service.client.main import app as barlow
from service.settings import FromEnvironment, Settings
from service.tracking.settings import TrackingSettings

_API = "/api/v1"


def pages() -> dict[str, str]:
    """Text by the name of the page."""
    return {"http": _http(), "commands": _commands(), "settings": _settings()}


def _http() -> str:
    nowhere = Settings(database_url=SecretStr("postgresql://nobody@localhost/nothing"))
    document = create_app(nowhere).openapi()
    by_tag: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            by_tag.setdefault(route["tags"][0], []).append(_route(method.upper(), path, route))
    text = "# HTTP routes\n\nThe same as at `/openapi.json` and `/docs` of a running API, where bodies and answers are "
    text += "described field by field. Every error is problem details (RFC 9457).\n\n"
    return text + "".join(f"## {tag}\n\n" + "".join(routes) for tag, routes in by_tag.items())


def _route(method: str, path: str, route: Mapping[str, Any]) -> str:
    role = LEAST_ROLE.get(f"{method} {path.removeprefix(_API)}")
    needs = f"Least role: {code(role)}.\n\n" if role else ""
    body = route.get("requestBody", {}).get("content", {})
    given = [
        (code(one["name"]), one["in"], type_of(one["schema"], code), one.get("description", ""))
        for one in route.get("parameters", ())
    ]
    given += [
        ("", "body", f"{media}: {type_of(said['schema'], code)}", "What is submitted") for media, said in body.items()
    ]
    answers = [(code(status), _said(status, said)) for status, said in route["responses"].items()]
    return (
        f"### {method} {path}\n\n{prose(route.get('description'))}{needs}"
        + table(("parameter", "in", "type", "what it is"), given)
        + table(("answer", "when"), answers)
    )


def _said(status: str, answer: Mapping[str, Any]) -> str:
    said = answer["description"]
    return HTTPStatus(int(status)).phrase if said == "Successful Response" else said


def _commands() -> str:
    group = typer.main.get_command(barlow)
    text = f"# Commands\n\n## barlow\n\n```text\n{_help(['-m', 'service.command', '--help'])}\n```\n\n"
    for words, command in _below(("barlow",), group):
        text += f"### {' '.join(words)}\n\n{_about(command)}"
    return text + f"## barlow-train\n\n```text\n{_help(['-m', 'trainer', '--help'])}\n```\n"


def _below(words: tuple[str, ...], command: Any) -> Iterable[tuple[tuple[str, ...], Any]]:
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        if not inner.hidden:
            if not hasattr(inner, "commands"):
                yield (*words, name), inner
            yield from _below((*words, name), inner)


def _about(command: Any) -> str:
    rows = []
    for parameter in command.params:
        if parameter.name == "help" or getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            spelt = (parameter.metavar or parameter.name).upper()
        else:
            spelt = ", ".join((*parameter.opts, *parameter.secondary_opts))
        variables = [parameter.envvar] if isinstance(parameter.envvar, str) else list(parameter.envvar or ())
        default = parameter.default if isinstance(parameter.default, str | int | float) else ""
        shown = "" if default is False or default is True else code(default)
        rows.append((code(spelt), shown, ", ".join(map(code, variables)), getattr(parameter, "help", "") or ""))
    said = (command.help or "").replace("\b\n", "")
    return prose(click.unstyle(said)) + table(("option", "default", "variable", "what it does"), rows)


def _help(module: list[str]) -> str:
    environment = {**os.environ, "COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb"}
    said = subprocess.run([sys.executable, *module], env=environment, capture_output=True, text=True, check=True)
    return said.stdout.strip()


def _settings() -> str:
    text = "# Settings\n\nEach is an environment variable, or the content of a file of its name in small letters below "
    text += "`/run/secrets`. A variable wins over a file.\n\n"
    text += "## API, scheduler and worker\n\n" + _variables(Settings)
    return text + "## What stands before MLflow\n\n" + _variables(TrackingSettings)


def _variables(model: type[FromEnvironment]) -> str:
    schema = model.model_json_schema()
    rows = []
    for name, field in schema["properties"].items():
        default = "required" if name in schema.get("required", ()) else _default(model.model_fields[name].default)
        rows.append(
            (
                code(f"BARLOW_{name.upper()}"),
                type_of(field, code).replace(" or null", ""),
                default,
                field.get("description", ""),
            )
        )
    return prose(schema.get("description")) + table(("variable", "type", "default", "what it is"), rows)


def _default(value: Any) -> str:
    if isinstance(value, SecretStr):  # it stands in the code, so it is none
        value = value.get_secret_value()
    if isinstance(value, bool):
        return code(str(value).lower())
    return "" if value is None else code(value)
