"""How a job stands in MLflow: which params, what its metrics and pictures are called there, what is said of it.

MLflow's pages order everything by name, begin a section for what has a slash in its name, and write every param of a
run above each picture of it. So names decide what one sees first, and only what a job chose itself is a param: the
whole spec is a file.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from barlow_lab.specs import BackboneJudged, open_stored, written_out
from barlow_lab.specs.kinds import KINDS
from barlow_lab.specs.protocols import shown_protocol
from service.above_pictures import fits, is_narrow
from service.database.tables import Job
from service.evaluations import backbone_of, data_of, protocol_of

LAYOUT_TAG = ("barlow.layout", "2")
"""Which of the ways of this module a run follows. One that a former version began carries no such tag, and is continued
as it was begun."""
MOST_PARAMS = 12
LONGEST_PARAM = 6000
_ALWAYS = ("data", "learning_rate")
"""Params also where they are the defaults: MLflow's plots take a run without a value for one with a strange value."""
VIEWS = "views"
"""The picture that a run has one of."""

_HOW = ("name", "kind", "run", "resources", "spec_version")
"""Fields of a spec that are tags, or say how the job is run and not what it is."""
_FIRST = ("data", "backbone", "labels", "protocol", "objective", "optimizer", "learning_rate", "epochs", "max_steps",
          "steps", "batch_size", "projector", "seed")  # fmt: skip
"""What one looks for first, in this order; the views, of which there may be many values, come last."""
_OF_THE_CLOCK = ("images_per_second", "data_seconds", "step_seconds")
_OF_TRAINING = ("grad_norm", "learning_rate", "skipped_steps")
_OF_THE_MATRIX = ("correlation_diagonal_mean", "correlation_off_diagonal_rms", "noise_floor")
"""The heatmaps say them, too."""
_OF_HEALTH = ("alpha_req", "directions_99", "feature_spread", "rankme")
"""The sentences of health say what they mean."""
_OF_INFORMATION = tuple(
    f"{quantity}_{part}"
    for quantity in ("entropy", "conditional_entropy", "information", "view_information")
    for part in ("backbone", "embedding")
)


def metric_name(key: str) -> str:
    """What a metric is called in MLflow: as in the run database, but for those that one looks at last.

    Times stand among MLflow's system metrics. What only says how the training went is called `training_...`, and so is
    what the heatmaps say: it follows the scores, the losses and the rank.
    """
    if key in _OF_THE_CLOCK:
        return f"system/{key}"
    kind = next((kind for kind in KINDS if key.startswith(f"{kind}_")), None)
    rest = key if kind is None else key.removeprefix(f"{kind}_")
    behind = rest in (*_OF_TRAINING, *_OF_THE_MATRIX, *_OF_HEALTH, *_OF_INFORMATION) or (
        kind is not None and rest.startswith("loss")
    )
    behind = behind or key.startswith("population_")  # the pictures say what they mean
    return f"training_{key}" if behind else key


def picture_name(key: str) -> str:
    """What a series of pictures is called in MLflow: a section of its own, the first of the page."""
    return f"pictures/{key}"


def params(spec: Mapping[str, Any], source: str | None) -> dict[str, str]:
    """What a stored spec has other than the defaults of its kind, its preset and its protocol, twelve params at most:
    `learning_rate` → its value as text; lists as JSON. The data set, the rate and whose backbone is judged are always
    among them; where more differ, or their text leaves a picture no room, `more` says how many, with a digest that
    tells other ones apart; a word wider than a picture ends in a digest. `source`: the name of the job whose backbone
    is judged.

    MLflow writes all of them above every picture, so a param has the last part of its place in the spec for a name,
    where no other field of the kind has it.
    """
    opened, whole = open_stored(spec), written_out(spec)
    judged = ("backbone", "backbone_from") if isinstance(opened, BackboneJudged) else ()
    here, usual = (
        dict(_flat({key: value for key, value in of.items() if key not in (*_HOW, *judged)}))
        for of in (whole, _defaults(whole))
    )
    found = {key: text for key, text in here.items() if usual.get(key) != text or _leaf(key) in _ALWAYS}
    if isinstance(opened, BackboneJudged):
        found["backbone"] = backbone_of(opened, source)
    found = _one_for_the_views(found)
    leaves = Counter(_leaf(key) for key in here.keys() | usual.keys() if not key.startswith(("views.a.", "views.b.")))
    ordered = {key if leaves[_leaf(key)] > 1 else _leaf(key): found[key] for key in sorted(found, key=_rank)}
    return _above_pictures(ordered, (*_ALWAYS, "backbone") if judged else _ALWAYS)


def _above_pictures(found: dict[str, str], always: Container[str]) -> dict[str, str]:
    """As many as leave room for a picture below them, those that are always shown first, and how many others."""
    narrow = [(key, text) for key, value in found.items() if (text := _narrowed(key, value)) is not None]
    narrow.sort(key=lambda param: param[0] not in always)
    for kept in range(len(narrow), -1, -1):
        told = dict(narrow[:kept])
        if others := {key: text for key, text in found.items() if key not in told}:
            told["more"] = f"{len(others)} others ({_digest(others)}), in spec.yaml"
        if len(told) <= MOST_PARAMS and fits(told.items()):
            break
    return {key: told[key] for key in (*found, "more") if key in told}


def _narrowed(key: str, value: str) -> str | None:
    """The value, of one that is wider than a picture its beginning and a digest; None where the name alone is."""
    if is_narrow(key, value):
        return value
    end = f"~{hashlib.sha256(value.encode()).hexdigest()[:6]}"
    return next((text for kept in range(len(value), 0, -1) if is_narrow(key, text := f"{value[:kept]}{end}")), None)


def headline(job: Job) -> str | None:
    """What came of a job in a few words; None as long as nothing has."""
    if job.error is not None:
        return f"{job.state}: {job.error.get('message', '')}"
    result = job.result or {}
    if name := result.get("headline"):
        score = result["scores"][name]
        return f"{name} {score['last']:.2f} (best {score['best']:.2f})"
    measured, headlines = result.get("metrics", {}), open_stored(job.spec).headlines
    return ", ".join(f"{words} {measured[key]:.4g}" for key, words in headlines.items() if key in measured) or None


def protocol_told(job: Job) -> str | None:
    """The protocol of an evaluation, in the version that its result was told under, if there is one; None of a job that
    judges no backbone."""
    return (job.result or {}).get("protocol") or protocol_of(open_stored(job.spec))


def description(job: Job, source: str | None) -> str:
    """What a run is, with its headline first, for a column of a table."""
    spec = open_stored(job.spec)
    what = spec.in_words or job.kind
    if (protocol := protocol_told(job)) is not None and isinstance(spec, BackboneJudged):
        what = f"{shown_protocol(protocol)} of {backbone_of(spec, source)} on {data_of(spec)}"
    return " · ".join(words for words in (headline(job), what) if words)


def _defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved spec of somebody who says no more than which kind, preset, objective, optimiser and protocol;
    nothing for a spec that a later or an earlier version wrote."""
    model = KINDS.get(spec["kind"])
    if model is None:
        return {}
    given: dict[str, Any] = {"data": open_stored(spec).data.name}
    if isinstance(spec.get("views"), dict) and "preset" in spec["views"]:
        given["views"] = {"preset": spec["views"]["preset"]}
    for field in ("protocol", "labels"):
        if field in spec:
            given[field] = spec[field]
    if model.takes_backbone:
        given["backbone_from"] = {"job": "some"}
    try:
        found = model.model_validate(given).resolved()
    except ValidationError:
        return {}
    # Chosen, so neither name nor preset is a default: what they bring along is. An objective may refuse the default
    # batch and width, or not be known here, and so may an optimizer: their own defaults are asked alone.
    for field in ("objective", "optimizer"):
        if field in found and isinstance(chosen := spec.get(field), dict) and "name" in chosen:
            own = written_out({"kind": spec["kind"], field: {"name": chosen["name"]}})[field]
            found[field] = {**own, "name": found[field]["name"]}
    usual = model.model_fields
    if "views" in found:
        first = usual["views"].get_default(call_default_factory=True)
        found["views"] = {**found["views"], "preset": first.preset}
    if "protocol" in usual:
        found["protocol"] = usual["protocol"].default
    if "labels" in found:
        found["labels"] = {"list": None, "percent": None, "seed": 0}
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | dict):
            yield f"{prefix}{key}", json.dumps(value)[:LONGEST_PARAM]
        else:
            yield f"{prefix}{key}", str(value)[:LONGEST_PARAM]


def _one_for_the_views(found: dict[str, str]) -> dict[str, str]:
    """What is changed inside of the views as one param: how many values, and a digest that tells others apart."""
    changed = {key: text for key, text in found.items() if key.startswith(("views.a.", "views.b."))}
    if not changed:
        return found
    values = {(key[len("views.a.") :], text) for key, text in changed.items()}
    said = {"views.changes": f"{len(values)} ({_digest(changed)})"}
    return {key: text for key, text in found.items() if key not in changed} | said


def _digest(values: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:6]


def _leaf(key: str) -> str:
    """`optimizer.learning_rate` → `learning_rate`, and `optimizer.name` → `optimizer`."""
    *before, last = key.split(".")
    return before[-1] if before and last in ("name", "preset", "widths") else last


def _rank(key: str) -> tuple[int, bool, str]:
    """Its place: by the field of the spec, and of each field first what the rest of it goes with."""
    first, _, rest = key.partition(".")
    place = _FIRST.index(first) if first in _FIRST else len(_FIRST) + (first == "views")
    return place, rest not in ("", "name", "preset", "size"), key


VIEW = "barlow"
"""The key by which MLflow's pages know the view that is saved with each experiment."""


def saved_view() -> str:
    """A view of the table of runs, as MLflow saves it: the scores and losses first, then what tells the runs apart."""
    metrics = dict.fromkeys(metric for model in KINDS.values() for metric in model.headlines)
    facts = ("Description", "Dataset", "Source", "Version", "User")
    columns = [*(f"metrics.`{key}`" for key in metrics), *(f"attributes.`{fact}`" for fact in facts)]
    state = {"selectedColumns": columns, "columnOrder": columns, "columnWidths": {}}
    return json.dumps({"name": "Barlow Lab", "createdAt": 0, "state": json.dumps(state)})
