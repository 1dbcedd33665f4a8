"""`--set PATH=VALUE`: values of a spec file that are given on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from barlow_lab.specs.expansion import varied_by_all
from barlow_lab.specs.files import read_value
from barlow_lab.specs.parsing import OF_EXPERIMENTS
from barlow_lab.specs.variation import Path, path_of, set_at
from barlow_lab.spelling import nearest


def changed(body: Any, changes: Sequence[str]) -> Any:
    """`body`, a spec or an experiment, with `changes`, each PATH=VALUE with a value in YAML.

    Of an experiment a path is one of its pretrainings, or where it has none of all its jobs, as in a grid; one of
    another job begins with `jobs.NAME`.

    Raises:
        typer.BadParameter: one of them cannot be made; says which, and the remedy.
        SpecError: a value is no YAML.
    """
    body = _unshared(body)
    for change in changes:
        text, equals, said = change.partition("=")
        try:
            if not equals:
                raise ValueError("PATH=VALUE is expected, such as optimizer.learning_rate=0.3")
            for holder, path in _places(body, path_of(text)):
                set_at(holder, path, read_value(said))
        except ValueError as error:
            raise typer.BadParameter(f"{change}: {error}", param_hint="--set") from None
    return body


def _unshared(body: Any) -> Any:
    """A copy in which no two jobs are one object, as they are where YAML has an alias for one of them."""
    if not isinstance(body, dict):
        return body
    jobs = body.get("jobs")
    if not isinstance(jobs, dict):
        return dict(body)
    return {**body, "jobs": {name: dict(job) if isinstance(job, dict) else job for name, job in jobs.items()}}


def _places(body: Any, path: Path) -> list[tuple[dict[str, Any], Path]]:
    """What a path is of, and the way from there."""
    if not isinstance(body, dict):
        return []
    jobs = body.get("jobs")
    if not isinstance(jobs, dict) and path[0] == "jobs":
        field = ".".join(path[2:]) or "epochs"
        raise ValueError(f"this is one job, no experiment with jobs; name the field alone, such as {field}")
    if not isinstance(jobs, dict) or path == ("name",):
        return [(body, path)]
    if path[0] in OF_EXPERIMENTS:
        return [_in_lists(body, path)]
    if path[0] != "jobs":
        return [(jobs[name], path) for name in varied_by_all(jobs) if isinstance(jobs[name], dict)]
    # A name may have dots, too.
    names = [name for name in jobs if path[1 : 1 + len(name.split("."))] == tuple(name.split("."))]
    if not names:
        near = nearest(".".join(path[1:2]), jobs)
        raise ValueError(f"it has no such job; {f'did you mean {near}?' if near else 'it has ' + ', '.join(jobs)}")
    name = max(names, key=len)
    rest = path[1 + len(name.split(".")) :]
    if not rest or not isinstance(jobs[name], dict):
        raise ValueError(f"name a field of job {name}, such as jobs.{name}.seed")
    return [_in_lists(jobs[name], rest)]


def _in_lists(holder: dict[str, Any], path: Path) -> tuple[dict[str, Any], Path]:
    """`grid.objective.lambda` is the list of objective.lambda in the grid."""
    if path[0] in ("grid", "zip") and len(path) > 1:
        return holder, (path[0], ".".join(path[1:]))
    return holder, path
