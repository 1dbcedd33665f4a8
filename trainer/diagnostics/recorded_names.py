"""Names under which metrics and pictures are recorded: one is of one curve or series, and can be one everywhere on its
way, in the run database, a URL and MLflow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from trainer.diagnostics.base import Diagnostic
from trainer.failures import BadSpec
from trainer.objectives.base import Objective, Terms

OF_THE_LOOP = (
    "loss", "grad_norm", "learning_rate", "skipped_steps", "images_per_second", "data_seconds", "step_seconds",
)  # fmt: skip
"""Metrics that every pretraining has."""
PICTURES_OF_THE_LOOP = ("views",)
LONGEST_NAME = 100

_METRIC, _PICTURE = re.compile(r"[a-z0-9_]+"), re.compile(r"[a-z-]+")
_LOOP = "the loop of every pretraining"


def taken_by_diagnostics(listed: Iterable[type[Diagnostic]]) -> dict[str, str]:
    """Every metric of the loop and of `listed`, by name, and whose it is, in words.

    Raises:
        BadSpec: a metric or a picture of one cannot be called so.
    """
    metrics, pictures = dict.fromkeys(OF_THE_LOOP, _LOOP), dict.fromkeys(PICTURES_OF_THE_LOOP, _LOOP)
    for kind in listed:
        who = f"diagnostic {kind.name!r}"
        for name in kind.metric_names:
            _judge(who, "metric", name, metrics)
            metrics[name] = who
        for key in kind.picture_keys:
            _judge(who, "picture", key, pictures)
            pictures[key] = who
    return metrics


def judge_terms(terms: Terms, objective: Objective, taken: Mapping[str, str]) -> None:
    """See to it that the metrics of an objective have names of their own.

    Raises:
        BadSpec: a name is `taken`, or its own twice, or no name.
    """
    spec = objective.spec
    who = f"objective {spec.name!r} ({spec.implementation})"
    for name in (*terms.parts, *terms.known):
        _judge(who, "metric", name, taken)
    if twice := sorted(terms.parts.keys() & terms.known.keys()):
        raise BadSpec(f"{who} has metric {twice[0]!r} among `parts` and among `known`; leave it out of one of them")


def _judge(who: str, what: str, name: str, taken: Mapping[str, str]) -> None:
    form, letters = (_METRIC, "a-z, 0-9 and _") if what == "metric" else (_PICTURE, "a-z and -")
    if not isinstance(name, str) or not form.fullmatch(name) or len(name) > LONGEST_NAME:
        said = f"1 to {LONGEST_NAME} characters of {letters} are expected"
    elif name in taken:
        said = f"{taken[name]} records one of this name"
    else:
        return
    raise BadSpec(f"{who} records {what} {name!r}: {said}; rename it where it is defined")
