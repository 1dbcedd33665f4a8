"""One example per kind of spec, for the OpenAPI document, and an experiment of all of them; a test submits each."""

from __future__ import annotations

from typing import Any

from barlow_lab.specs import parse_spec
from barlow_lab.specs.data_set_uses import kinds_in_order
from barlow_lab.specs.kinds import KINDS, MAKERS


def _jobs() -> dict[str, dict[str, Any]]:
    """Examples by kind: among those that learn from the same, what trains a network first."""
    shown = {kind: model.example for kind, model in KINDS.items()}
    learned_from = [KINDS[kind].learns_from[:1] for kind in kinds_in_order()]

    def place(kind: str) -> tuple[int, bool]:
        return learned_from.index(KINDS[kind].learns_from[:1]), not parse_spec(shown[kind].value).trains_network

    return {
        kind: {"summary": shown[kind].summary, "value": dict(shown[kind].value)} for kind in sorted(KINDS, key=place)
    }


def _experiment() -> dict[str, Any]:
    """A job of each kind; those that take a backbone take that of the first that makes one."""
    source = KINDS[MAKERS[0]].example.name_in_experiment
    jobs: dict[str, Any] = {}
    for kind in kinds_in_order():
        example = KINDS[kind].example
        value = {field: given for field, given in example.value.items() if field != "name"}
        if KINDS[kind].takes_backbone:
            value["backbone_from"] = {"job": source}
            if not KINDS[kind].makes_backbone:
                value.pop("backbone", None)  # that of the job is judged
        jobs[example.name_in_experiment] = value | dict(example.changes_in_experiment)
    return {"name": "first-experiment", "jobs": jobs}


JOBS = _jobs()
EXPERIMENT = _experiment()
